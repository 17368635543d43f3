//! What the work has in hand now, as numbers that are 0 when nobody wants anything; and how much of what was asked for is
//! here.
//!
//! Called by the report, by the line that ends a load, and by simulations. It changes nothing.

use crate::work::Work;
use crate::work::shared::entry::RegisterEntry;
use ossc_cache::region::{Object, RecordKind, state};
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
    /// Memory files that are there; not 0 while parts are in memory.
    pub memory_files: usize,
    /// Parts under way.
    pub flights: usize,
    /// Second requests under way.
    pub hedges: usize,
    /// Bytes of their buffers, and of those that are kept until they count.
    pub hedge_bytes: u64,
}

impl Gauges {
    /// Nothing is asked for, and nothing is on its way.
    pub fn is_at_rest(&self) -> bool {
        self.planned + self.flights + self.hedges == 0 && self.small_bytes == 0
    }
}

/// What programs have asked for, or the prefetch, and of which versions.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Objects, those that have failed left out.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of these have come, also of parts that are under way.
    pub here_bytes: u64,
}

impl Work {
    /// How much of what was asked for is here.
    pub fn wanted(&self) -> Wanted {
        let region = self.region();
        let (here, coming) = self.transfers.pieces.arrived_bytes();
        // What has come and is of no request that has ended; bodies that were dropped are among that.
        let ended = region.header().origin_bytes.load(Ordering::Relaxed);
        let under_way = self.scheduling.received_bytes().saturating_sub(ended);
        let mut wanted = Wanted { here_bytes: here + under_way.clamp(coming.start, coming.end), ..Wanted::default() };
        for (slot, object) in (0..region.objects_len()).filter_map(|slot| Some((slot, region.object(slot)?))) {
            if !self.entry(slot).is_some_and(|entry| is_wanted(object, &entry)) {
                continue;
            }
            wanted.objects += 1;
            wanted.bytes += object.size();
            wanted.here_bytes += match object.kind() {
                RecordKind::Large => self.ready_bytes(object),
                _ if object.state() == state::PLACED => object.size(),
                _ => 0,
            };
        }
        // A part becomes ready between the two looks.
        wanted.here_bytes = wanted.here_bytes.min(wanted.bytes);
        wanted
    }

    /// Bytes of the parts of a large object that readers get without waiting.
    pub fn ready_bytes(&self, object: &Object) -> u64 {
        let ready = (0..object.parts()).filter(|index| self.region().part(object, *index).is_ready());
        ready.map(|index| object.part_range(index)).map(|range| range.end - range.start).sum()
    }
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

fn is_wanted(object: &Object, entry: &RegisterEntry) -> bool {
    if object.is_superseded() {
        return false;
    }
    match (object.kind(), object.state()) {
        (RecordKind::Large, state::LOADING | state::VERIFIED) => {
            entry.planned.load(Ordering::Acquire) || object.ready_parts.load(Ordering::Acquire) > 0
        }
        (RecordKind::Small, state::COMING) => entry.begun.load(Ordering::Acquire),
        (RecordKind::Small, state::PLACED) => true,
        _ => false,
    }
}
