//! What becomes of a large object of an engine that is gone: what has arrived stays, what was being written is
//! fetched again.
//!
//! Called when the mirror takes over, for each object whose placeholder and memory are still there. It touches no file.

use crate::lock::lock;
use crate::work::residency::Residency;
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::fill;
use crate::work::shared::reservation::Reservation;
use ossc_cache::part::FILLING;
use ossc_cache::region::Object;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

impl Residency {
    /// Counts what is there of the object, and takes back what is not of use; true if it is worth fetching on.
    pub fn adopt(&self, object: &Object, entry: &RegisterEntry) -> bool {
        let part = |index: u32| self.region.part(object, index);
        let round = object.verdict.get().round;
        // Of a round that ended as that engine did: to be taken back.
        (0..object.parts()).filter(|index| !part(*index).is_known(round)).for_each(|index| {
            part(index).take_back();
        });
        // Parts that are there in blocks are not there; what is known of those stays.
        let blocks = |index: u32| Some((index, self.region.blocks(object, index)?));
        for (index, _) in (0..object.parts()).filter_map(blocks).filter(|(_, blocks)| blocks.take_back() != 0) {
            part(index).lose_blocks();
        }
        let torn: Vec<u32> = (0..object.parts()).filter(|index| part(*index).state() == FILLING).collect();
        for index in (0..object.parts()).filter(|index| !part(*index).is_ready()) {
            let range = object.part_range(index);
            // What a program has pinned stays for the next fill: it may be reading there.
            if torn.contains(&index) && part(index).is_pinned() {
                lock(&entry.kept_parts).insert(index);
            } else if let Some(memory) = &entry.memory {
                memory.punch(range.start, range.end);
            }
            part(index).disown();
        }
        let there: BTreeSet<u32> = (0..object.parts()).filter(|index| part(*index).is_ready()).collect();
        let ready = there.len() as u32;
        object.ready_parts.store(ready, Ordering::Release);
        let kept = lock(&entry.kept_parts).clone();
        let bytes = there.union(&kept).map(|index| fill::room_bytes(&self.register, object, *index)).sum();
        lock(&entry.room).put(self.take_anyway(bytes));
        ready < object.parts() && (ready > 0 || !torn.is_empty())
    }

    /// Memory that an engine before has filled counts, too.
    fn take_anyway(&self, bytes: u64) -> Reservation {
        let room = Reservation::reserve_anyway(&self.budget, bytes);
        if self.budget.used() > self.budget.limit() {
            tracing::warn!(
                bytes,
                limit = self.budget.limit(),
                "the memory that was taken over is more than the budget"
            );
        }
        room
    }
}
