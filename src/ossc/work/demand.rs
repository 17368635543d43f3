//! The demand thread: turns the demand bits and events of clients, and what supplies have brought, into work, and sleeps
//! on the doorbell.
//!
//! Run by the engine. What a client asks for is found in the region, so nothing is received here.

use crate::work::Work;
use ossc_cache::block::Mask;
use ossc_cache::event::{ACT_GIVEN, ACT_SMALL};
use ossc_cache::region::Seen;

/// Nothing rings without a change of the word, so this only bounds what a client left that died before it rang.
const DOORBELL_MS: u64 = 60_000;

/// How far the region was looked at.
#[derive(Default)]
pub struct Looked {
    /// Number of the next event: from the first place on, since what a predecessor has left is still there, and
    /// what it took is marked.
    events: u64,
}

impl Looked {
    /// Takes what clients have left; gives what to tell the doorbell that was heard before.
    pub fn again(&mut self, work: &Work) -> u32 {
        let region = work.region();
        let heard = region.doorbell().heard();
        region.take_demand(|part, mask| wanted(work, part, mask));
        region.take_wanted(|slot| wanted_object(work, slot));
        self.events = region.take_events(self.events, |event| seen(work, event));
        work.supplied();
        work.objects.tell_misreads();
        heard
    }
}

/// Readers wait for these blocks of a part, given as its index in the region, or for the whole of it.
fn wanted(work: &Work, region_part: u32, mask: Mask) {
    match work.transfers.blocks.wanted(region_part, mask, |item| work.scheduling.has(item)) {
        Ok(actions) => work.act(actions),
        Err(_) => work.demanded(region_part),
    }
}

/// A program waits for a small object, or opens one that was given up.
fn wanted_object(work: &Work, slot: u32) {
    work.act(work.objects.opened_again(slot));
    work.act(work.transfers.materializer.want(slot));
    work.objects.tell_use(slot, None);
}

/// A client met an object.
fn seen(work: &Work, seen: Seen) {
    if seen.act != ACT_GIVEN {
        work.objects.tell_use(seen.slot, Some(seen.pid));
    }
    let slot = seen.slot;
    if seen.act != ACT_SMALL && work.objects.seen(seen) {
        work.residency.keep_opened(slot);
        work.act(work.objects.opened_again(slot));
    }
}

/// The thread, for ever.
pub fn run(work: &Work) {
    let mut looked = Looked::default();
    loop {
        let heard = looked.again(work);
        work.region().doorbell().sleep(heard, DOORBELL_MS);
    }
}

#[cfg(test)]
#[path = "demand_tests.rs"]
mod tests;
