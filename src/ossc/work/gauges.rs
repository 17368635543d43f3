//! What the work has in hand now, as numbers that are 0 when nobody wants anything.
//!
//! Called by who checks it from outside: simulations. It changes nothing.

use crate::lock::lock;
use crate::work::Work;
use std::sync::atomic::Ordering;

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
    /// Parts under way.
    pub flights: usize,
    /// Second requests under way.
    pub spares: usize,
    /// Bytes of their buffers, and of those that are kept until they count.
    pub spare_bytes: u64,
}

impl Work {
    /// All of them.
    pub fn gauges(&self) -> Gauges {
        let (flights, spares, spare_bytes) = self.flights.under_way();
        Gauges {
            planned: self.scheduling.waiting(),
            roomless: lock(&self.roomless).len(),
            small_bytes: self.small_under_way.load(Ordering::Acquire),
            budget_used: self.budget.used(),
            flights,
            spares,
            spare_bytes,
        }
    }

    /// Whether the request in place of a piece was cancelled and has not ended yet.
    pub fn is_unwanted(&self, slot: u32, index: u32, n: u32) -> bool {
        self.flights.is_unwanted((slot, index), n)
    }

    /// The same for one that gives way to a reader.
    pub fn gives_way(&self, slot: u32, index: u32, n: u32) -> bool {
        self.flights.gives_way((slot, index), n)
    }
}
