//! In which order parts of large objects are fetched: ahead of all readers, and for a reader who waits for one.
//!
//! Called by the work. It looks at records and decides; what is to be done it returns.

use crate::work::scheduling::Scheduling;
use crate::work::shared::action::Action;
use crate::work::shared::item::Item;
use crate::work::shared::register::Register;
use ossc_cache::part::{EMPTY, Part};
use ossc_store::plan::Class;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

/// Parts that are fetched right behind one that a reader waits for.
const READ_AHEAD_PARTS: u32 = 4;

/// Whole large objects are fetched ahead of their readers, in this order: first the first part of each
/// (headers), then the rest. What does not fit the budget is left to its readers.
pub fn ahead(register: &Register, slots: &[u32]) -> Action {
    let mut heads = Vec::new();
    let mut rest = Vec::new();
    for slot in slots {
        let (Some(entry), Some(object)) = (register.entry(*slot), register.region.object(*slot)) else {
            continue;
        };
        if entry.planned.swap(true, Ordering::AcqRel) {
            continue;
        }
        heads.push(Item::Part(*slot, 0));
        rest.extend((1..object.parts()).map(|index| Item::Part(*slot, index)));
    }
    heads.extend(rest);
    Action::Push(heads, Class::Prefetch)
}

/// A reader waits for this part, given as its index in the region.
pub fn demanded(register: &Register, region_part: u32) -> Vec<Action> {
    let Some((slot, object, index)) = register.part_at(region_part) else { return Vec::new() };
    let Some(entry) = register.entry(slot) else { return Vec::new() };
    let part = |index: u32| register.region.part(object, index);
    let mut actions = Vec::new();
    let is_under_way = part(index).state() != EMPTY;
    if is_under_way {
        actions.push(Action::Hurry(slot, index));
    }
    actions.push(Action::Push(vec![Item::Part(slot, index)], Class::Demand));
    // A reader that comes from the part before will want the next ones soon, also where prefetch found
    // no room.
    let was_read = |part: Part<'_>| part.is_ready() && part.used() > 0;
    let in_order = index == 0 || was_read(part(index - 1));
    let more = if in_order { READ_AHEAD_PARTS } else { 0 };
    let near: Vec<Item> = (index + 1..object.parts().min(index + 1 + more))
        .filter(|index| !part(*index).is_ready())
        .map(|index| Item::Part(slot, index))
        .collect();
    let parts = near.len() + 1;
    actions.push(Action::Push(near, Class::Near));
    if !entry.planned.swap(true, Ordering::AcqRel) {
        if !is_under_way && !entry.made_way.swap(true, Ordering::AcqRel) {
            actions.push(Action::MakeWay(slot, parts));
        }
        // What is read at all is mostly read whole: from here on, then around.
        let order = (index + 1..object.parts()).chain(0..index).map(|index| Item::Part(slot, index)).collect();
        actions.push(Action::Push(order, Class::Prefetch));
    }
    actions
}

/// Objects that were fetched ahead and are not wanted after all: what waits in the plan goes. A reader that comes to
/// want a part says so again and again.
pub fn leave(scheduling: &Scheduling, register: &Register, slots: &[u32]) {
    let is_unwanted = |slot: &&u32| register.entry(**slot).is_some_and(|entry| !entry.opened.load(Ordering::Acquire));
    let left: BTreeSet<u32> = slots.iter().filter(is_unwanted).copied().collect();
    scheduling.forget(|item| matches!(item, Item::Part(slot, _) if left.contains(slot)));
    for entry in left.iter().filter_map(|slot| register.entry(*slot)) {
        entry.planned.store(false, Ordering::Release);
    }
}
