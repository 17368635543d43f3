//! Large objects of an engine that is gone: taken in again with what is there of them.
//!
//! Called by the mirror at the start, before anything is listed. It touches no file.

use crate::work::Work;
use crate::work::shared::entry::RegisterEntry;
use ossc_cache::region::{Object, state};

/// Takes in an object that an engine before has had; true if it is worth fetching on.
pub fn adopt(work: &Work, slot: u32, object: &Object, entry: RegisterEntry) -> bool {
    let is_wanted = work.residency.adopt(object, &entry);
    if object.state() == state::FAILED {
        object.set_state(state::LOADING);
    }
    work.objects.adopt_check(object, &entry);
    work.add_object(slot, entry);
    work.act(work.objects.ask_verdict_again(slot, object));
    is_wanted
}

/// A version of an engine before whose placeholder lies at its place no more. No descriptor keeps that one's inode
/// number, so no program is served by it from now on; its memory counts, and goes when no program has it mapped.
pub fn adopt_old(work: &Work, slot: u32, object: &Object, entry: RegisterEntry) {
    work.objects.void(slot);
    adopt(work, slot, object, entry);
    work.objects.supersede(slot);
}
