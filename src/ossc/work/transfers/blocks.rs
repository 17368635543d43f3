//! Small reads: the blocks around bytes that a reader wants here and there, instead of the part that they lie in.
//!
//! Called by the demand thread, and by the work on vcpu threads (requests for blocks and their ends). `reach` decides how
//! much is fetched. What blocks mean that have come is the objects wing's: a block comes into a buffer of its own.

use crate::lock::lock;
use crate::work::shared::action::Action;
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::fill;
use crate::work::shared::item::Item;
use crate::work::shared::register::Register;
use crate::work::transfers::query;
use crate::work::transfers::reach::{At, Reach, reach};
use ossc_cache::block::{self, Blocks, Mask, SETS, WHOLE};
use ossc_cache::part::EMPTY;
use ossc_cache::region::{Object, Region, state};
use ossc_net::error::FailureKind;
use ossc_net::{Error, Fetch, Finished, Response, Sink};
use ossc_store::plan::Class;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// See the module.
pub struct BlockReads {
    register: Arc<Register>,
    region: Region,
    /// Set of blocks that is looked at next for one that is free.
    next_set: Mutex<u32>,
}

impl BlockReads {
    /// None is under way yet.
    pub fn new(register: Arc<Register>) -> BlockReads {
        BlockReads { region: register.region, register, next_set: Mutex::default() }
    }

    /// Readers wait for these blocks of a part, given as its index in the region, or for `WHOLE` of it. `is_planned`
    /// says what is in the plan.
    ///
    /// # Errors
    /// The part is to be fetched as a whole, and its object with it.
    pub fn wanted(
        &self,
        region_part: u32,
        mask: Mask,
        is_planned: impl Fn(Item) -> bool,
    ) -> Result<Vec<Action>, Whole> {
        let small = mask != WHOLE && self.register.options.block_bytes > 0;
        let (slot, object, index) = self.register.part_at(region_part).filter(|_| small).ok_or(Whole)?;
        let Some(entry) = self.register.entry(slot) else { return Ok(Vec::new()) };
        let demand = || Action::Push(vec![Item::Part(slot, index)], Class::Demand);
        // On its way as a whole, or soon: it goes first.
        if self.region.part(object, index).state() != EMPTY {
            return Ok(vec![Action::Hurry(slot, index), demand()]);
        }
        if is_planned(Item::Part(slot, index)) {
            return Ok(vec![demand()]);
        }
        let mut items = Vec::new();
        // Blocks of other readers that would have come alone: they come with the part.
        let leave = |items: &[Item]| {
            for item in items {
                if let Item::Blocks(_, _, first, count) = *item {
                    fill::asked_no_more(&entry, index, (first, count));
                }
            }
        };
        for span in spans(mask & block::mask(0, object.blocks_len(index))) {
            match self.reach_of(object, &entry, index, span) {
                Reach::Object => {
                    leave(&items);
                    return Err(Whole);
                }
                Reach::Part { next } => {
                    leave(&items);
                    let follows = next && index + 1 < object.parts();
                    let near = follows.then(|| Action::Push(vec![Item::Part(slot, index + 1)], Class::Near));
                    return Ok([demand()].into_iter().chain(near).collect());
                }
                Reach::Blocks(blocks) => items.extend(self.ask_blocks(slot, object, &entry, index, blocks)),
            }
        }
        let some = !items.is_empty();
        let mut actions = vec![Action::Push(items, Class::Demand)];
        if some && !entry.made_way.swap(true, Ordering::AcqRel) {
            actions.push(Action::MakeWay(slot, 1));
        }
        Ok(actions)
    }

    /// How much is fetched for a reader who waits for the blocks `span` of a part.
    fn reach_of(&self, object: &Object, entry: &RegisterEntry, index: u32, span: Range<u32>) -> Reach {
        if self.region.part(object, index).is_mapped() {
            return Reach::Object;
        }
        let unit = (self.register.options.block_bytes / object.block_bytes()).max(1) as u32;
        let check = lock(&entry.check);
        let there = |index: u32| {
            let ready = self.region.blocks(object, index).map_or(0, |blocks| blocks.ready());
            ready | check.small.get(&index).map_or(0, |small| small.asked)
        };
        let before = index.checked_sub(1).map(|before| (self.region.part(object, before), before));
        let follows = before.is_some_and(|(part, _)| part.is_ready() && part.used() > 0);
        let tail = before.map_or(0, |(_, before)| run(there(before), object.blocks_len(before)));
        let run = match run(there(index), span.start) {
            run if run == span.start => run + tail,
            run => run,
        };
        let (head, tail, short) =
            (index == 0, index + 1 == object.parts(), entry.size <= self.register.options.scale.short_bytes_max);
        reach(span, (object.blocks_len(index), unit), At { head, tail, short, run, follows })
    }

    /// Puts the blocks that are missing into the plan. The part, where they cannot be had alone.
    fn ask_blocks(
        &self,
        slot: u32,
        object: &Object,
        entry: &RegisterEntry,
        index: u32,
        range: Range<u32>,
    ) -> Vec<Item> {
        let mut check = lock(&entry.check);
        let kept = lock(&entry.kept_parts).contains(&index);
        let Some(blocks) = self.set_of(object, index).filter(|_| !kept) else { return vec![Item::Part(slot, index)] };
        let asked = check.small.get(&index).map_or(0, |small| small.asked);
        let missing = block::mask(range.start, range.end) & !(blocks.ready() | asked);
        if !fill::may_come_alone(&self.register, object, index, blocks, missing) {
            return vec![Item::Part(slot, index)];
        }
        if missing != 0 {
            check.small.entry(index).or_default().asked |= missing;
        }
        spans(missing).map(|run| Item::Blocks(slot, index, run.start, run.end - run.start)).collect()
    }

    /// The set of a part; it gets one if it has none and there is one to be had.
    fn set_of(&self, object: &Object, index: u32) -> Option<Blocks<'_>> {
        if let Some(blocks) = self.region.blocks(object, index) {
            return Some(blocks);
        }
        let mut next = lock(&self.next_set);
        let start = *next;
        let number = (0..SETS).map(|step| (start + step) % SETS).find(|number| self.is_free(*number))?;
        *next = (number + 1) % SETS;
        let (part, set) = (object.first_part() + index, self.region.set_at(number));
        set.give((part, self.region.part_at(part)), number);
        Some(set)
    }

    /// True for a set that no part has, or one that needs it no more: none of its blocks are here or on their way, and
    /// what was handed out will not be compared any more.
    fn is_free(&self, number: u32) -> bool {
        let set = self.region.set_at(number);
        let Some(part) = set.part().filter(|part| self.region.part_at(*part).set() == Some(number)) else {
            return true;
        };
        let Some((slot, object, index)) = self.register.part_at(part) else { return true };
        let Some(entry) = self.register.entry(slot) else { return true };
        // Not that of the caller's own object, which is locked.
        let idle = entry.check.try_lock().is_ok_and(|check| !check.small.contains_key(&index));
        idle && set.ready() == 0 && object.verdict.get().is_given()
    }

    /// The bytes of some blocks, if they are to be fetched alone now.
    pub fn bytes_wanted(&self, item: Item, object: &Object, entry: &RegisterEntry) -> Option<u64> {
        let Item::Blocks(_, index, first, count) = item else { return None };
        let is_served = matches!(object.state(), state::LOADING | state::VERIFIED) && index < object.parts();
        let is_kept = lock(&entry.kept_parts).contains(&index);
        if !is_served || is_kept || self.region.part(object, index).state() != EMPTY {
            // The part has what they waited for, or the object has an error for them.
            fill::asked_no_more(entry, index, (first, count));
            return None;
        }
        let range = object.block_range(index, first, first + count);
        Some(range.end - range.start)
    }

    /// The request for them; they have room.
    pub fn request_blocks(&self, item: Item, object: &Object, entry: &RegisterEntry) -> Option<Fetch> {
        let Item::Blocks(_, index, first, count) = item else { return None };
        let range = object.block_range(index, first, first + count);
        let sink = Sink::Buffer { bytes_max: (range.end - range.start) as usize };
        let crc = self.register.options.verify_crc;
        Some(Fetch { token: item.token(), query: query(entry, range), sink, crc, urgent: true })
    }

    /// The request for some blocks has ended. What is to be done then.
    pub fn ended(&self, item: Item, mut done: Finished) -> Vec<Action> {
        let Some((object, entry)) = self.register.get(item.record()) else { return Vec::new() };
        let error = match done.result {
            Ok(response) => {
                self.came(item, &entry, &response);
                return vec![Action::Blocks(item, done.body)];
            }
            Err(error) => error,
        };
        let mut actions = Vec::new();
        let mut left = item;
        if let Some((here, rest, response)) = kept(item, object, (&error, done.partial)) {
            self.came(here, &entry, &response);
            done.body.truncate(response.bytes as usize);
            actions.push(Action::Blocks(here, done.body));
            left = rest;
        }
        let Item::Blocks(_, index, first, count) = left else { return actions };
        let range = object.block_range(index, first, first + count);
        lock(&entry.room).give(range.end - range.start);
        actions.push(match error.kind {
            FailureKind::Cancelled => Action::Push(vec![left], Class::Demand),
            _ => Action::Fail(left, Box::new(error), entry.failed_again(index)),
        });
        actions
    }

    /// These blocks have come.
    fn came(&self, item: Item, entry: &RegisterEntry, response: &Response) {
        let Item::Blocks(_, index, first, count) = item else { return };
        entry.out_of_trouble();
        entry.failed_no_more(index);
        if let Some(whole) = response.crc64_object {
            *lock(&entry.crc64) = Some(whole);
        }
        fill::asked_no_more(entry, index, (first, count));
    }
}

/// What has come whole of blocks whose request failed for a cause that may pass: these, the rest of them, and what the
/// answer said.
fn kept(item: Item, object: &Object, (error, partial): (&Error, Option<Response>)) -> Option<(Item, Item, Response)> {
    let Item::Blocks(slot, index, first, count) = item else { return None };
    let partial = partial.filter(|_| error.retryable())?;
    let whole = (partial.bytes / object.block_bytes()).min(u64::from(count) - 1) as u32;
    let bytes = u64::from(whole) * object.block_bytes();
    let response = Response { bytes, crc64_body: None, ..partial };
    let here = Item::Blocks(slot, index, first, whole);
    (whole > 0).then(|| (here, Item::Blocks(slot, index, first + whole, count - whole), response))
}

/// A part is to be fetched as a whole, and its object with it.
pub struct Whole;

/// How many blocks of the mask lie side by side right before `end`.
fn run(mask: Mask, end: u32) -> u32 {
    (0..end).rev().take_while(|n| mask >> n & 1 != 0).count() as u32
}

/// The runs of blocks in a mask, rising.
fn spans(mask: Mask) -> impl Iterator<Item = Range<u32>> {
    let mut left = mask;
    std::iter::from_fn(move || {
        let start = left.trailing_zeros();
        if start >= block::BLOCKS_MAX {
            return None;
        }
        let end = start + (left >> start).trailing_ones();
        left &= !block::mask(start, end);
        Some(start..end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_fall_into_their_runs() {
        assert_eq!(spans(0).count(), 0);
        assert_eq!((spans(Mask::MAX).next(), spans(Mask::MAX).count()), (Some(0..128), 1));
        assert_eq!(spans(0b1101).collect::<Vec<_>>(), [0..1, 2..4]);
        assert_eq!(spans(1 << 127 | 1).collect::<Vec<_>>(), [0..1, 127..128]);
        assert_eq!((run(0b0110, 3), run(0b0110, 4), run(0b0110, 0)), (2, 0, 0));
    }

    #[test]
    fn spans_and_their_blocks_are_the_mask() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..1000 {
            let mask = rng.u128(..) & rng.u128(..) | rng.u128(..) & rng.u128(..) & rng.u128(..);
            let again = spans(mask).fold(0, |sum, span| sum | block::mask(span.start, span.end));
            assert_eq!(again, mask);
            assert_eq!(block::numbers(mask).fold(0, |sum: Mask, n| sum | 1 << n), mask);
        }
    }
}
