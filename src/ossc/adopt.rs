//! What becomes of a large object of an engine that is gone: what has arrived stays, what was being written is
//! fetched again.
//!
//! Called by the mirror when it takes over, for each object whose placeholder and memory are still there.
//! It touches no file.

use crate::held::Held;
use crate::work::Work;
use ossc_cache::region::{Object, state};
use std::sync::atomic::Ordering;

impl Work {
    /// Takes the object in; true if it is worth fetching on.
    pub fn adopt(&self, slot: u32, object: &Object, held: Held) -> bool {
        let part = |index: u32| self.region.part(object, index);
        let torn = (0..object.parts).filter(|index| part(*index).disown()).count();
        let is_ready = |index: &u32| part(*index).is_ready();
        let ready = (0..object.parts).filter(is_ready).count() as u32;
        object.ready_parts.store(ready, Ordering::Release);
        self.count_in((0..object.parts).filter(is_ready).map(|index| self.room_bytes(object, index)).sum());
        if object.state() == state::FAILED {
            object.set_state(state::LOADING);
        }
        self.hold(slot, held);
        if ready > 0 && ready == object.parts && object.state() == state::LOADING {
            self.ask_verdict(slot);
        }
        ready < object.parts && (ready > 0 || torn > 0)
    }

    /// Memory that an engine before has filled counts, too.
    fn count_in(&self, bytes: u64) {
        self.budget.take_anyway(bytes);
        if self.budget.used() > self.budget.limit() {
            tracing::warn!(
                bytes,
                limit = self.budget.limit(),
                "the memory that was taken over is more than the budget"
            );
        }
    }
}
