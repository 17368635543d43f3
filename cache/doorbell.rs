//! The doorbell: how clients tell the engine's demand thread that there is something to look at.
//!
//! Clients ring after they have left their demand or event; the engine takes a number first, looks at
//! everything, and sleeps only if nobody has rung since that number. It carries no message, so a ring too
//! many costs one look, and a ringer that dies half-way has lost nothing but its own demand. Clients write the number
//! and nothing else: whether the engine sleeps they can only read, so that no client can make it sleep through a ring.

use crate::sync::{AtomicU32, Ordering, futex_wait, futex_wake};

/// See the module. The words lie in the region.
#[derive(Clone, Copy)]
pub struct Doorbell<'a> {
    /// Bumped by clients; the engine sleeps on it.
    pub rings: &'a AtomicU32,
    /// Not 0 while the engine sleeps or is about to.
    pub sleeps: &'a AtomicU32,
}

impl Doorbell<'_> {
    /// Wakes the engine if it sleeps. Both accesses are sequentially consistent, as are those of `sleep`:
    /// either this sees that the engine sleeps, or the engine sees the ring.
    pub fn ring(&self) {
        self.rings.fetch_add(1, Ordering::SeqCst);
        if self.sleeps.load(Ordering::SeqCst) != 0 {
            futex_wake(self.rings);
        }
    }

    /// Engine only: the number to give to `sleep`; taken before it looks at what there is to do.
    pub fn heard(&self) -> u32 {
        self.rings.load(Ordering::SeqCst)
    }

    /// Engine only: sleeps until somebody rings after `heard`, at most `ms` milliseconds.
    pub fn sleep(&self, heard: u32, ms: u64) {
        self.sleeps.store(1, Ordering::SeqCst);
        if self.rings.load(Ordering::SeqCst) == heard {
            let _ = futex_wait(self.rings, heard, ms);
        }
        self.sleeps.store(0, Ordering::SeqCst);
    }
}
