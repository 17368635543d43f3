//! A word that says the state of something and that others sleep on until it changes.
//!
//! Used for the records of the catalog. One side alone sets it; any number look and sleep. What the states
//! mean is not its business.

use crate::sync::{AtomicU32, Ordering, futex_wait, futex_wake};

/// Set in the word by who is about to sleep, so that a change without sleepers costs no wake-up call.
pub const WAITED: u32 = 1 << 31;

/// See the file's comment. States are below `WAITED`.
#[repr(transparent)]
pub struct FutexWord(AtomicU32);

impl FutexWord {
    /// With its first state.
    pub fn new(state: u32) -> FutexWord {
        FutexWord(AtomicU32::new(state))
    }

    /// The state.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Acquire) & !WAITED
    }

    /// Moves to another state and wakes who sleeps.
    pub fn set(&self, state: u32) {
        if self.0.swap(state, Ordering::AcqRel) & WAITED != 0 {
            futex_wake(&self.0);
        }
    }

    /// The same, unless the state is `last`, which is for good.
    pub fn set_unless(&self, last: u32, state: u32) {
        let to = |word: u32| (word & !WAITED != last).then_some(state);
        if self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, to).is_ok_and(|before| before & WAITED != 0) {
            futex_wake(&self.0);
        }
    }

    /// Wakes who sleeps, without another state.
    pub fn stir(&self) {
        // A write in any case: who marks the word later sees what was done before it.
        let awake = |word: u32| Some(word & !WAITED);
        if self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, awake).is_ok_and(|word| word & WAITED != 0) {
            futex_wake(&self.0);
        }
    }

    /// Sleeps while the state is `seen`, at most `ms` milliseconds. Spurious returns are allowed.
    pub fn sleep(&self, seen: u32, ms: u64) {
        self.sleep_unless(seen, ms, || false);
    }

    /// The same, unless `ended` says that there is something else to look at, which `stir` tells of.
    pub fn sleep_unless(&self, seen: u32, ms: u64, ended: impl FnOnce() -> bool) {
        let marked = self.0.fetch_or(WAITED, Ordering::AcqRel) | WAITED;
        if marked & !WAITED != seen {
            return;
        }
        if ended() {
            // The mark must not look like that of another who is about to sleep, and was to be woken.
            return self.stir();
        }
        let _ = futex_wait(&self.0, marked, ms);
    }
}
