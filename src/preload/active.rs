//! Whether the hooks do anything: nothing, their work, or, while the constructor looks whether they are reached, say so.
//!
//! Called by each hook first: one relaxed load. The constructor alone changes it.

use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// What the hooks do: nothing, their work, or, while the constructor looks whether they are reached, say so.
static STATE: AtomicU8 = AtomicU8::new(INERT);
const INERT: u8 = 0;
const ACTIVE: u8 = 1;
const LISTENING: u8 = 2;
/// A hook was called while the constructor listened.
static HEARD: AtomicBool = AtomicBool::new(false);

/// True once the constructor has seen ENABLE_CONNECTOR and MODEL_DIR: one relaxed load.
#[inline(always)]
pub(crate) fn is_active() -> bool {
    STATE.load(Ordering::Relaxed) == ACTIVE
}

/// The same for a hook that has nothing to do where it is false: if the constructor listens, it hears of the call.
#[inline(always)]
pub(crate) fn is_wanted() -> bool {
    match STATE.load(Ordering::Relaxed) {
        ACTIVE => true,
        INERT => false,
        _ => {
            heard();
            false
        }
    }
}

/// A hook was called while the constructor listens.
#[cold]
fn heard() {
    HEARD.store(true, Ordering::Relaxed);
}

/// Constructor: from now on the hooks do their work.
pub(crate) fn begin() {
    STATE.store(ACTIVE, Ordering::Release);
}

/// Constructor: runs `call`; true if it has reached a hook.
pub(crate) fn is_reached(call: impl FnOnce()) -> bool {
    HEARD.store(false, Ordering::Relaxed);
    STATE.store(LISTENING, Ordering::Relaxed);
    call();
    STATE.store(INERT, Ordering::Relaxed);
    HEARD.load(Ordering::Relaxed)
}
