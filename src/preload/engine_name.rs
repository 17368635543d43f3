//! The engine in words, for lines on stderr: which process it is, and what is the matter with it.
//!
//! Called by what waits for it (`attach`, `silent`).

use crate::environ;
use crate::say::say;
use ossc_cache::cpath::CPath;
use ossc_cache::{sys, wire};

/// One line on stderr that names the engine between these words; `runs` says whether there is one.
#[cold]
#[inline(never)]
pub(crate) fn speak(runs: bool, before: &[u8], after: &[u8]) {
    let engine = engine(runs);
    say(&[b"oss connector: ", before, engine.as_bytes(), after, b"\n"]);
}

/// The engine that is waited for, in words: whether there is one, which process it is, and what is the matter with it.
fn engine(runs: bool) -> CPath {
    if !runs {
        return CPath::from(b"an engine (a program with ENABLE_CONNECTOR=1 starts it)");
    }
    let (pid, is_stopped) = match wire::listener(environ::socket_path()) {
        None => return CPath::from(b"the engine, which is starting (the log says what it is at)"),
        Some(pid) if pid > 0 => (pid as u64, is_stopped(pid as u64)),
        Some(_) => return CPath::from(b"the engine, which runs and does not answer (is it stopped or frozen?)"),
    };
    let named = CPath::from(b"the engine (pid ").with_number(pid);
    if is_stopped {
        return named
            .with(b"), which is stopped and does not answer (kill -CONT ")
            .with_number(pid)
            .with(b" lets it go on)");
    }
    named.with(b"), which runs and does not answer (is it frozen, or this machine overloaded?)")
}

/// True for a process that a signal or a debugger has stopped, as /proc has it: the field behind the name, which may
/// itself hold any byte but its own last parenthesis.
fn is_stopped(pid: u64) -> bool {
    let path = CPath::from(b"/proc/").with_number(pid).with(b"/stat");
    let Some(fd) =
        path.as_cstr().and_then(|path| sys::openat(sys::AT_FDCWD, path, libc::O_RDONLY | libc::O_CLOEXEC, 0).ok())
    else {
        return false;
    };
    let mut text = [0u8; 256];
    let len = sys::read(fd, &mut text).unwrap_or(0);
    let _ = sys::close(fd);
    let end = text[..len].iter().rposition(|byte| *byte == b')');
    end.and_then(|end| text.get(end + 2)).is_some_and(|state| matches!(state, b'T' | b't'))
}
