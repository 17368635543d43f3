//! Lines in the engine's log that a program's side has to write itself, since the engine does not know: refused writes,
//! waits that take long or fail.
//!
//! Called by the rare paths only. It never waits, and says nothing where this process knows no engine.

use crate::attach;
use crate::handle::Handle;
use crate::process;
use ossc_cache::cpath::CPath;
use ossc_cache::sys;

/// A line for the log, from a client (rare: refused writes, failed waits): what, on which object.
pub(crate) fn line(what: &[u8], handle: &Handle) {
    let Some(now) = handle.now() else { return };
    named(what, now.region.name(now.object).as_bytes());
}

/// The same with the object's name.
pub(crate) fn named(what: &[u8], object: &[u8]) {
    let Some((_, region)) = attach::last_known() else { return };
    let path = CPath::from(region.log_path());
    let Some(name) = path.as_cstr() else { return };
    // A FIFO without a reader, or whose reader does not keep up, holds no program back.
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let Ok(fd) = sys::openat(sys::AT_FDCWD, name, flags, 0) else { return };
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the struct it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut now) };
    let line = CPath::default()
        .with_number(now.tv_sec as u64)
        .with(b" WARN client pid=")
        .with_number(process::pid() as u64)
        .with(b" ")
        .with(what)
        .with(b" object=")
        .with_shown(object)
        .with(b"\n");
    let _ = sys::write(fd, line.as_bytes());
    let _ = sys::close(fd);
}
