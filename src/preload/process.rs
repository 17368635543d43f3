//! Which process this is: the child of a `fork` is another one, and that of a `vfork` shares its parent's memory.
//!
//! Called by the constructor and in the child of a `fork` (`own`), by all that changes what is remembered of this process,
//! and by what tells the engine or the log of it.

use core::sync::atomic::{AtomicI32, Ordering::Relaxed};
use ossc_cache::sys;

/// Process that owns what is remembered.
static PID: AtomicI32 = AtomicI32::new(0);

/// Takes what is remembered over for this process: at start, and in the child of a `fork`.
pub(crate) fn own() {
    PID.store(sys::getpid(), Relaxed);
}

/// This process's id.
pub(crate) fn pid() -> i32 {
    PID.load(Relaxed)
}

/// False in the child of a `vfork`, which must not change what is remembered in its parent's memory.
pub(crate) fn is_owner() -> bool {
    pid() == sys::getpid()
}
