//! Whether this process was ever given bytes before the verdict on their object, and whether such bytes may be of another
//! record than the object's of now: two flags that spare the look at what was taken.
//!
//! Called by `taken`, which knows what the bytes were, and by `attach`, which alone knows when the engine is replaced.

use core::sync::atomic::{AtomicBool, Ordering};

/// Something was taken of an object.
static ANY: AtomicBool = AtomicBool::new(false);
/// Something was taken of a record that is not the object's any more, of an engine before perhaps: entries have to be
/// looked at.
static OLDER: AtomicBool = AtomicBool::new(false);

/// Something is about to be taken.
pub(crate) fn note() {
    ANY.store(true, Ordering::Relaxed);
}

/// True if something was ever taken.
pub(crate) fn any() -> bool {
    ANY.load(Ordering::Relaxed)
}

/// Something was taken of another record of an object that is read now.
pub(crate) fn note_older() {
    OLDER.store(true, Ordering::SeqCst);
}

/// True if something may have been taken of another record.
#[inline(always)]
pub(crate) fn any_older() -> bool {
    OLDER.load(Ordering::Relaxed)
}

/// Another region is about to be used.
pub(crate) fn moves() {
    if any() {
        note_older();
    }
}
