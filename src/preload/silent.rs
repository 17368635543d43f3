//! Engines that do not answer: whether there is one, and what the user is told of it.
//!
//! Called by waits that last long (`attach`, `listing`, `waiting`). An engine that is stopped or frozen holds its lock and
//! is a process like any other, so nothing but a question without an answer shows it.

use crate::attach;
use crate::environ;
use crate::say::say;
use core::sync::atomic::{AtomicBool, Ordering};
use ossc_cache::cpath::CPath;
use ossc_cache::sys::{self, Errno};
use ossc_cache::wire::{self, Ask};

/// How long a reader waits for an engine that does not answer, in milliseconds.
const SILENCE_MS: u64 = 60_000;

/// What a wait has seen of its engine.
#[derive(Clone, Copy, Default)]
pub(crate) struct Silence {
    /// Since when (monotonic milliseconds) it has not answered; 0 while it does.
    since_ms: u64,
}

impl Silence {
    /// Asks the engine for a sign of life, and says on stderr, once in a process, that there is none.
    ///
    /// # Errors
    /// EIO for one that has given none for too long.
    pub fn look(self) -> Result<Silence, Errno> {
        if answers(attach::ASK_MS) {
            return Ok(Silence::default());
        }
        static SPOKEN: AtomicBool = AtomicBool::new(false);
        if !SPOKEN.swap(true, Ordering::Relaxed) {
            speak(b"a reader waits for ", b"");
        }
        let now = sys::now_ms();
        let since_ms = if self.since_ms == 0 { now } else { self.since_ms };
        if now.saturating_sub(since_ms) < SILENCE_MS {
            return Ok(Silence { since_ms });
        }
        speak(b"no answer of ", b": reads that wait for it give EIO");
        Err(Errno(libc::EIO))
    }
}

/// False for an engine that runs and has not answered within so many milliseconds.
pub(crate) fn answers(ms: u64) -> bool {
    match attach::ask(Ask::Look, b"", ms) {
        Ok(packet) => {
            packet.close_fds();
            true
        }
        Err(errno) => errno.0 != libc::ETIMEDOUT,
    }
}

/// One line on stderr that names the engine between these words.
#[cold]
#[inline(never)]
pub(crate) fn speak(before: &[u8], after: &[u8]) {
    let engine = engine();
    say(&[b"oss connector: ", before, engine.as_bytes(), after, b"\n"]);
}

/// The engine that is waited for, in words: whether there is one, which process it is, and what is the matter with it.
fn engine() -> CPath {
    if !attach::engine_runs() {
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
