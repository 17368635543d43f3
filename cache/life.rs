//! Which use of a record it is, and whether that use still lasts. Records of versions that nobody uses are used
//! again for others, under readers that take no lock: this is how a reader knows that it was not given two of them.
//!
//! Called by `region`. The engine alone ends a use, writes and begins the next one; any number of readers look. It
//! knows nothing of what a record says.
//!
//! Why it is sound. A reader takes the number of the use (`seen`), reads what it needs of the record, and asks
//! afterwards whether that use lasts (`lasts`). Between two uses the engine sets GONE, raises the number, fences,
//! writes, and begins the next use by its state, in this order. So:
//! - who sees the new number sees GONE, or the state that was set after the last write: it reads nothing, or a whole
//!   record. For this the number is read before the state, and both with Acquire;
//! - who saw the old number and then any byte of the new record finds another number afterwards: the engine's fence
//!   stands between the number and the bytes, the reader's between the bytes and its second look.
//!
//! GONE is part of the second look, since the parts of a record that is GONE may be another record's by then.

use crate::futex_word::FutexWord;
use crate::sync::{AtomicU32, Ordering, fence};

/// State of a record that stands for nothing, until it is used again.
pub const GONE: u32 = 6;

/// See the module.
#[repr(C)]
pub struct Life {
    state: FutexWord,
    number: AtomicU32,
}

impl Life {
    /// The first use, in this state.
    pub fn new(state: u32) -> Life {
        Life { state: FutexWord::new(state), number: AtomicU32::new(0) }
    }

    /// The state, for looks, changes and sleeps within one use.
    pub fn state(&self) -> &FutexWord {
        &self.state
    }

    /// Number of the use, also of one that is over.
    pub fn number(&self) -> u32 {
        self.number.load(Ordering::Acquire)
    }

    /// Number of the use that goes on now; `None` between two.
    pub fn seen(&self) -> Option<u32> {
        // The number first: see the module.
        let number = self.number.load(Ordering::Acquire);
        (self.state.get() != GONE).then_some(number)
    }

    /// True if the use with this number still goes on: all that was read of the record since `seen` is of it.
    pub fn lasts(&self, number: u32) -> bool {
        fence(Ordering::Acquire);
        self.number.load(Ordering::Relaxed) == number && self.state.get() != GONE
    }

    /// Engine only: the use is over. What sleeps on the state is woken.
    pub fn end(&self) {
        self.state.set(GONE);
    }

    /// Engine only, between two uses: the record is about to be written.
    pub fn rewrite(&self) {
        self.number.store(self.number.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        fence(Ordering::Release);
    }

    /// Engine only, after the last write.
    pub fn begin(&self, state: u32) {
        self.state.set(state);
    }
}
