//! What a free connection asks for: the request for an item of the plan, or for what is slow.
//!
//! Called by the work's `pull`. Each wing has its say: objects and transfers whether it is wanted, residency whether there is
//! room for it, scheduling what else waits.

use crate::work::Work;
use crate::work::scheduling::Waited;
use crate::work::shared::action::Action;
use crate::work::shared::item::Item;
use crate::work::transfers::flight::Queue;
use crate::work::transfers::pieces::Second;
use ossc_net::Fetch;
use ossc_store::plan::Class;
use std::time::Instant;

/// What has come of it, or else what is to be done instead.
fn or_act<T>(work: &Work, result: Result<T, Option<Action>>) -> Option<T> {
    result.map_err(|instead| work.act(instead)).ok()
}

pub(super) fn prepare(work: &Work, item: Item, class: Class) -> Option<Fetch> {
    match item {
        Item::Part(slot, index) => prepare_part(work, slot, index, class, None),
        Item::Again(slot, index) => prepare_part(work, slot, index, class, work.residency.roomless_since(slot, index)),
        Item::Piece(slot, index, n) => work.transfers.pieces.request_piece(slot, index, n),
        // Never in the plan: `pull` finds them.
        Item::Hedge(..) => None,
        Item::Blocks(slot, ..) => {
            let (object, entry) = work.register.get(slot)?;
            let bytes = work.transfers.blocks.bytes_wanted(item, object, &entry)?;
            or_act(work, work.residency.place_blocks((slot, object, &entry), item, bytes, class))?;
            work.transfers.blocks.request_blocks(item, object, &entry)
        }
        Item::Small(slot, index) => or_act(work, work.transfers.materializer.request_small_piece(slot, index, class)),
        Item::Call(id) => work.scheduling.question(id),
        Item::Verdict(slot) => work.objects.ask_verdict(slot),
        Item::Revive(slot) => {
            work.act(work.objects.revive(slot));
            None
        }
    }
}

/// `since`: from when on there was no room for it.
fn prepare_part(work: &Work, slot: u32, index: u32, class: Class, since: Option<Instant>) -> Option<Fetch> {
    let (object, entry) = work.register.get(slot)?;
    let roomy = or_act(work, work.residency.place_part((slot, object, &entry), index, class, since))?;
    if work.transfers.supplies.offer((slot, index), &entry, object.part_range(index)) {
        return None;
    }
    let begin = |Waited { waiting, connections }| {
        // A cache that is full has few parts waiting all the time: that is not the end of a download.
        // What a reader waits for is shared by the next free connections, whatever waits behind it.
        let queue = roomy.then_some(Queue { waiting, connections, class });
        work.transfers.pieces.begin((slot, index), object.part_range(index), queue)
    };
    let first = work.scheduling.cut(class, |n| Item::Piece(slot, index, n), begin);
    work.transfers.pieces.in_place(&entry, first, Item::Part(slot, index))
}

/// The request for what is slow, for the second time. `Err` says when to look again.
pub(super) fn prepare_second(work: &Work, now: Instant, at_end: bool) -> Result<Fetch, Option<Instant>> {
    match work.transfers.pieces.second(now, at_end, |bytes| work.residency.reserve(bytes)) {
        Second::Fetch(fetch, is_shared) => {
            if is_shared {
                work.scheduling.wake();
            }
            Ok(*fetch)
        }
        Second::Until(until) => Err(until),
        Second::Lost(actions) => {
            work.act(actions);
            Err(None)
        }
    }
}
