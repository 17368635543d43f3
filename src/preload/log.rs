//! Lines in the engine's log that a program's side has to write itself, since the engine does not know: refused writes,
//! waits that take long or fail.
//!
//! Called by the rare paths only. A line has the form and the time of the engine's own. Where the log is a standard stream,
//! which only the engine holds, the line goes to this program's standard error. It never waits, and says nothing where
//! this process knows no engine.

use crate::attach;
use crate::handle::Handle;
use crate::process;
use crate::say::say;
use core::sync::atomic::Ordering;
use ossc_cache::cpath::CPath;
use ossc_cache::region::Region;
use ossc_cache::{sys, utc};

/// A line for the log, from a client (rare: refused writes, failed waits): what, on which object.
pub(crate) fn line(what: &[u8], handle: &Handle) {
    let Some(now) = handle.now() else { return };
    named(what, now.region.name(now.object).as_bytes());
}

/// The same with the object's name.
pub(crate) fn named(what: &[u8], object: &[u8]) {
    let Some((_, region)) = attach::last_known() else { return };
    let line = line_of(&region, what, object);
    if !region.log_path().starts_with(b"/") {
        return say(&[line.as_bytes()]);
    }
    let path = CPath::from(region.log_path());
    let Some(name) = path.as_cstr() else { return };
    // A FIFO without a reader, or whose reader does not keep up, holds no program back.
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let Ok(fd) = sys::openat(sys::AT_FDCWD, name, flags, 0) else { return };
    let _ = sys::write(fd, line.as_bytes());
    let _ = sys::close(fd);
}

/// A line at WARN: what, on which object, in which process, of which MODEL_DIR.
fn line_of(region: &Region, what: &[u8], object: &[u8]) -> CPath {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the struct it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut now) };
    let time = utc::text(now.tv_sec as u64, (now.tv_nsec / 1000) as u32);
    let header = region.header();
    let dir = (header.model_dev.load(Ordering::Acquire), header.model_ino.load(Ordering::Acquire));
    let client = process::pid() as u64;
    if header.log_json.load(Ordering::Acquire) == 0 {
        let line = CPath::from(&time).with(b"  WARN ").with_shown(what).with(b" object=").with_quoted(object);
        let line = line.with(b" client=").with_number(client).with(b" dir=");
        return line.with_number(dir.0).with(b"-").with_number(dir.1).with(b"\n");
    }
    let line = CPath::from(b"{\"time\":\"").with(&time).with(b"\",\"level\":\"WARN\",\"message\":").with_quoted(what);
    let line = line.with(b",\"dir\":\"").with_number(dir.0).with(b"-").with_number(dir.1);
    let line = line.with(b"\",\"fields\":{\"object\":").with_quoted(object);
    line.with(b",\"client\":").with_number(client).with(b"}}\n")
}
