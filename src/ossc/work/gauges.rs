//! What the work has in hand now, as numbers that are 0 when nobody wants anything.
//!
//! Called by who checks it from outside: simulations. It changes nothing.

use crate::work::Work;

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
    /// Memory files that are there; not 0 while parts are in memory.
    pub memory_files: usize,
    /// Parts under way.
    pub flights: usize,
    /// Second requests under way.
    pub hedges: usize,
    /// Bytes of their buffers, and of those that are kept until they count.
    pub hedge_bytes: u64,
}

impl Work {
    /// All of them.
    pub fn gauges(&self) -> Gauges {
        let (flights, hedges, hedge_bytes) = self.transfers.pieces.under_way();
        let (roomless, budget_used, memory_files) = self.residency.gauges();
        Gauges {
            planned: self.scheduling.waiting(),
            roomless,
            small_bytes: self.transfers.materializer.bytes(),
            budget_used,
            memory_files,
            flights,
            hedges,
            hedge_bytes,
        }
    }
}
