//! The doorbell: how clients tell the engine's demand thread that there is something to look at.
//!
//! Clients ring after they have left their demand or event; the engine takes a number first, looks at
//! everything, and sleeps only if nobody has rung since that number. It carries no message, so a ring too
//! many costs one look, and a ringer that dies half-way has lost nothing but its own demand.

use crate::sync::{AtomicU32, Ordering, futex_wait, futex_wake};

/// Part of the region's first page.
#[repr(C)]
#[derive(Default)]
pub struct Doorbell {
    /// Bumped by clients; the engine sleeps on it.
    rings: AtomicU32,
    /// Not 0 while the engine sleeps or is about to.
    sleeps: AtomicU32,
}

impl Doorbell {
    /// Wakes the engine if it sleeps. Both accesses are sequentially consistent, as are those of `sleep`:
    /// either this sees that the engine sleeps, or the engine sees the ring.
    pub fn ring(&self) {
        self.rings.fetch_add(1, Ordering::SeqCst);
        if self.sleeps.load(Ordering::SeqCst) != 0 {
            futex_wake(&self.rings);
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
            let _ = futex_wait(&self.rings, heard, ms);
        }
        self.sleeps.store(0, Ordering::SeqCst);
    }
}
