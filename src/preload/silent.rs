//! Engines that do not answer, and those that answer what keeps a reader waiting: what the user is told of it.
//!
//! Called by waits that last long (`attach`, `listing`, `waiting`). An engine that is stopped or frozen holds its lock and
//! is a process like any other, so nothing but a question without an answer shows it.

use crate::attach;
use crate::engine_name;
use crate::failed;
use crate::handle::Handle;
use core::sync::atomic::{AtomicBool, Ordering};
use ossc_cache::sys::{self, Errno};
use ossc_cache::wire::Ask;

/// How long a reader waits for an engine that does not answer, in milliseconds.
const SILENCE_MS: u64 = 60_000;

/// What a wait has seen of its engine.
#[derive(Clone, Copy, Default)]
pub(crate) struct Silence {
    /// Since when (monotonic milliseconds) it has not answered; 0 while it does.
    since_ms: u64,
}

impl Silence {
    /// Asks the engine what keeps the readers of an object waiting. Says on stderr what that is, once for each object, or, once
    /// in a process, that there is no answer.
    ///
    /// # Errors
    /// EIO for one that has given none for too long.
    pub fn look(self, waits_for: &Handle) -> Result<Silence, Errno> {
        match attach::ask_engine(Ask::Why(waits_for.slot.number()), b"", attach::ASK_MS) {
            Err(Errno(libc::ETIMEDOUT)) => {}
            answer => {
                if let Ok(packet) = answer {
                    failed::waits(waits_for, packet.text());
                    packet.close_fds();
                }
                return Ok(Silence::default());
            }
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
    match attach::ask_engine(Ask::Look, b"", ms) {
        Ok(packet) => {
            packet.close_fds();
            true
        }
        Err(errno) => errno.0 != libc::ETIMEDOUT,
    }
}

/// One line on stderr that names the engine between these words.
pub(crate) fn speak(before: &[u8], after: &[u8]) {
    engine_name::speak(attach::engine_runs(), before, after);
}
