//! What the work has in hand now, as numbers that are 0 when nobody wants anything.
//!
//! Called by who checks it from outside: simulations. It changes nothing.

use crate::held::lock;
use crate::work::Work;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauges {
    /// Items that wait for a connection, the delayed ones included.
    pub planned: usize,
    /// Parts that readers wait for and that found no room.
    pub roomless: usize,
    /// Bytes of small objects between origin and disk.
    pub small_bytes: u64,
    /// Bytes of the budget that are put aside; not 0 while parts are in memory.
    pub budget_used: u64,
}

impl Work {
    /// All of them.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            planned: self.plan().len(),
            roomless: lock(&self.roomless).len(),
            small_bytes: self.small_under_way.load(Ordering::Acquire),
            budget_used: self.budget.used(),
        }
    }

    /// True if a pull would find something at this time, and may.
    pub fn is_due(&self, now: Instant) -> bool {
        lock(&self.throttle).has_room() && self.plan().is_due(now)
    }
}
