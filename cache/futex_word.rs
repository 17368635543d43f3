//! A word that says the state of something and that others sleep on until it changes.
//!
//! Used for the records of the catalog. One side alone writes it; any number look and sleep, and write nothing: they
//! have the word read-only. So each change is followed by a wake-up call, whether a reader sleeps or not. What the states
//! mean is not its business.

use crate::sync::{AtomicU32, Ordering, futex_wait, futex_wake};

/// Bits of the word that say the state. Above them lies a number that `stir` changes.
const STATE: u32 = (1 << 24) - 1;
const STIRRED: u32 = STATE + 1;

/// See the file's comment. States are at most `STATE`.
#[repr(transparent)]
pub struct FutexWord(AtomicU32);

impl FutexWord {
    /// With its first state.
    pub fn new(state: u32) -> FutexWord {
        FutexWord(AtomicU32::new(state))
    }

    /// The state.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Acquire) & STATE
    }

    /// Moves to another state and wakes who sleeps.
    pub fn set(&self, state: u32) {
        self.0.store(state, Ordering::Release);
        futex_wake(&self.0);
    }

    /// The same, unless the state is `last`, which is for good.
    pub fn set_unless(&self, last: u32, state: u32) {
        let to = |word: u32| (word & STATE != last).then_some(state);
        if self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, to).is_ok() {
            futex_wake(&self.0);
        }
    }

    /// Wakes who sleeps, without another state: who looks at the word later sees what was done before it, and who has
    /// looked does not fall asleep over it.
    pub fn stir(&self) {
        self.0.fetch_add(STIRRED, Ordering::AcqRel);
        futex_wake(&self.0);
    }

    /// Sleeps while the state is `seen`, at most `ms` milliseconds. Spurious returns are allowed.
    pub fn sleep(&self, seen: u32, ms: u64) {
        self.sleep_unless(seen, ms, || false);
    }

    /// The same, unless `ended` says that there is something else to look at, which `stir` tells of.
    pub fn sleep_unless(&self, seen: u32, ms: u64, ended: impl FnOnce() -> bool) {
        let word = self.0.load(Ordering::Acquire);
        if word & STATE == seen && !ended() {
            let _ = futex_wait(&self.0, word, ms);
        }
    }
}
