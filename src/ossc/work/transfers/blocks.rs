//! Small reads: the blocks around bytes that a reader wants here and there, instead of the part that they lie in.
//!
//! Called by the demand thread (`wanted`), by `work` on vcpu threads (requests for blocks and their ends), and where
//! blocks go: a part that is fetched as a whole, room for others, a mismatch. `reach` decides how much is fetched.
//!
//! A block comes into a buffer of its own and is copied to its place, on small pages, when its answer has passed its
//! checks and nobody has claimed the part. All of that is decided under the object's lock `check`, as what a part means.

use crate::lock::lock;
use crate::work::Work;
use crate::work::objects::verdict::{BLOCK_WRONG, Check};
use crate::work::shared::held::Held;
use crate::work::shared::item::Item;
use crate::work::transfers::reach::{At, Reach, reach};
use ossc_cache::block::{self, Blocks, Mask, SETS, WHOLE};
use ossc_cache::part::EMPTY;
use ossc_cache::plan::Class;
use ossc_cache::region::{Object, state};
use ossc_cache::verdict::Judgement;
use ossc_net::{Error, Fetch, Finished, Query, Sink, crc};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// What the engine has in hand of the blocks of one part.
#[derive(Default)]
pub(crate) struct Small {
    /// Blocks in the plan or under way.
    asked: Mask,
    /// Bytes of the budget that those have which are there.
    bytes: u64,
    /// Since when there was no room for one.
    roomless: Option<Instant>,
}

impl Work {
    /// Readers wait for these blocks of a part, given as its index in the region, or for `WHOLE` of it.
    pub fn wanted(&self, region_part: u32, mask: Mask) {
        let small = mask != WHOLE && self.options.block_bytes > 0;
        let Some((slot, object, index)) = self.register.part_at(region_part).filter(|_| small) else {
            return self.demanded(region_part);
        };
        let Some(held) = self.held(slot) else { return };
        // On its way as a whole, or soon: it goes first.
        if self.region.part(object, index).state() != EMPTY {
            self.hurry(slot, index);
            return self.scheduling.push(&[Item::Part(slot, index)], Class::Demand);
        }
        if self.scheduling.has(Item::Part(slot, index)) {
            return self.scheduling.push(&[Item::Part(slot, index)], Class::Demand);
        }
        let mut items = Vec::new();
        for span in spans(mask & block::mask(0, object.blocks_len(index))) {
            match self.reach_of(object, &held, index, span) {
                Reach::Object => return self.demanded(region_part),
                Reach::Part { next } => {
                    self.scheduling.push(&[Item::Part(slot, index)], Class::Demand);
                    if next && index + 1 < object.parts() {
                        self.scheduling.push(&[Item::Part(slot, index + 1)], Class::Near);
                    }
                    return;
                }
                Reach::Blocks(blocks) => items.extend(self.ask_blocks(slot, object, &held, index, blocks)),
            }
        }
        self.scheduling.push(&items, Class::Demand);
        if !items.is_empty() && !held.made_way.swap(true, Ordering::AcqRel) {
            self.make_way(object, 1);
        }
    }

    /// How much is fetched for a reader who waits for the blocks `span` of a part.
    fn reach_of(&self, object: &Object, held: &Held, index: u32, span: Range<u32>) -> Reach {
        if self.region.part(object, index).is_mapped() {
            return Reach::Object;
        }
        let unit = (self.options.block_bytes / object.block_bytes()).max(1) as u32;
        let check = lock(&held.check);
        let there = |index: u32| {
            let ready = self.region.blocks(object, index).map_or(0, Blocks::ready);
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
            (index == 0, index + 1 == object.parts(), held.size <= self.options.scale.short_bytes_max);
        reach(span, (object.blocks_len(index), unit), At { head, tail, short, run, follows })
    }

    /// Puts the blocks that are missing into the plan. The part, where they cannot be had alone.
    fn ask_blocks(&self, slot: u32, object: &Object, held: &Held, index: u32, range: Range<u32>) -> Vec<Item> {
        let mut check = lock(&held.check);
        let kept = lock(&held.kept).contains(&index);
        let Some(blocks) = self.set_of(object, index).filter(|_| !kept) else { return vec![Item::Part(slot, index)] };
        let asked = check.small.get(&index).map_or(0, |small| small.asked);
        let missing = block::mask(range.start, range.end) & !(blocks.ready() | asked);
        if !self.may_come_alone(object, index, blocks, missing) {
            return vec![Item::Part(slot, index)];
        }
        if missing != 0 {
            check.small.entry(index).or_default().asked |= missing;
        }
        spans(missing).map(|run| Item::Blocks(slot, index, run.start, run.end - run.start)).collect()
    }

    /// Whether what comes wrong of these blocks will be noticed: by the check of the whole, for which their part is
    /// still to come and is compared with them, or by what is known of themselves.
    fn may_come_alone(&self, object: &Object, index: u32, blocks: &Blocks, mask: Mask) -> bool {
        let judged = object.verdict.get();
        judged.judgement == Judgement::Nothing
            || judged.judgement == Judgement::Open && !self.region.part(object, index).is_known(judged.round)
            || block::numbers(mask).all(|number| blocks.block(number).is_known(judged.round))
    }

    /// The set of a part; it gets one if it has none and there is one to be had.
    fn set_of(&self, object: &Object, index: u32) -> Option<&Blocks> {
        if let Some(blocks) = self.region.blocks(object, index) {
            return Some(blocks);
        }
        let mut next = lock(&self.next_set);
        let start = *next;
        let number = (0..SETS).map(|step| (start + step) % SETS).find(|number| self.is_free(*number))?;
        *next = (number + 1) % SETS;
        let (part, set) = (object.first_part() + index, self.region.set_at(number));
        set.give((part, self.region.part_at(part)), self.region.aside_at(part), number);
        Some(set)
    }

    /// True for a set that no part has, or one that needs it no more: none of its blocks are here or on their way, and
    /// nobody will compare what was handed out.
    fn is_free(&self, number: u32) -> bool {
        let set = self.region.set_at(number);
        let Some(part) = set.part().filter(|part| self.region.aside_at(*part).set() == Some(number)) else {
            return true;
        };
        let Some((slot, object, index)) = self.register.part_at(part) else { return true };
        let Some(held) = self.held(slot) else { return true };
        // Not that of the caller's own object, which is locked.
        let idle = held.check.try_lock().is_ok_and(|check| !check.small.contains_key(&index));
        idle && set.ready() == 0 && object.verdict.get().is_given()
    }

    pub(crate) fn prepare_blocks(&self, item: Item, class: Class) -> Option<Fetch> {
        let Item::Blocks(slot, index, first, count) = item else { return None };
        let (object, held) = (self.region.object(slot)?, self.held(slot)?);
        let is_served = matches!(object.state(), state::LOADING | state::VERIFIED) && index < object.parts();
        let is_kept = lock(&held.kept).contains(&index);
        if !is_served || is_kept || self.region.part(object, index).state() != EMPTY {
            // The part has what they waited for, or the object has an error for them.
            self.asked_no_more(&held, index, (first, count));
            return None;
        }
        if let Err(errno) = self.open_memory(slot, object, &held) {
            self.without_memory_file(object, &held, errno);
            self.no_room_for(item, object, &held);
            return None;
        }
        let range = object.block_range(index, first, first + count);
        let bytes = range.end - range.start;
        if !self.budget.take(bytes) && !self.make_room(bytes, (slot, index), class) {
            self.no_room_for(item, object, &held);
            return None;
        }
        lock(&held.check).small.entry(index).or_default().roomless = None;
        object.starved.store(0, Ordering::Release);
        Some(Fetch {
            token: item.token(),
            query: Query::Get {
                key: held.key.clone(),
                range: Some(range),
                etag: Some(held.etag.clone()),
                size: held.size,
            },
            sink: Sink::Buffer { bytes_max: bytes as usize },
            crc: self.options.verify_crc,
            urgent: true,
        })
    }

    /// Later, unless there will be none.
    fn no_room_for(&self, item: Item, object: &Object, held: &Held) {
        let Item::Blocks(slot, index, first, count) = item else { return };
        let now = (self.options.now)();
        let since = *lock(&held.check).small.entry(index).or_default().roomless.get_or_insert(now);
        if self.is_starved(now.saturating_duration_since(since)) {
            self.asked_no_more(held, index, (first, count));
            return self.starve(object, held, index);
        }
        self.scheduling.push_later(
            Item::Blocks(slot, index, first, count),
            Class::Demand,
            crate::work::residency::room::LOOK_AGAIN,
        );
    }

    fn asked_no_more(&self, held: &Held, index: u32, (first, count): (u32, u32)) {
        let mut check = lock(&held.check);
        if let Some(small) = check.small.get_mut(&index) {
            small.asked &= !block::mask(first, first + count);
            if small.asked == 0 && small.bytes == 0 {
                check.small.remove(&index);
            }
        }
    }

    /// The request for some blocks has ended.
    pub(crate) fn finished_blocks(&self, item: Item, done: Finished) {
        let Item::Blocks(slot, index, first, count) = item else { return };
        let (Some(object), Some(held)) = (self.region.object(slot), self.held(slot)) else { return };
        let range = object.block_range(index, first, first + count);
        let bytes = range.end - range.start;
        let response = match done.result {
            Ok(response) => response,
            Err(error) => {
                self.budget.give(bytes);
                return self.blocks_failed(item, object, &held, &error);
            }
        };
        held.out_of_trouble();
        held.failed_no_more(index);
        self.audit.answer((&held.key, &held.etag), range, &response);
        if let Some(whole) = response.crc64_object {
            *lock(&held.crc64) = Some(whole);
        }
        self.asked_no_more(&held, index, (first, count));
        match self.take_blocks(slot, object, &held, (index, first, &done.body)) {
            Ok(true) => {}
            // Nobody wants them any more, or they are of no use.
            Ok(false) => self.budget.give(bytes),
            Err(error) => {
                self.budget.give(bytes);
                lock(&held.check).small.entry(index).or_default().asked |= block::mask(first, first + count);
                self.blocks_failed(item, object, &held, &error);
            }
        }
    }

    fn blocks_failed(&self, item: Item, object: &Object, held: &Held, error: &Error) {
        let Item::Blocks(_, index, first, count) = item else { return };
        if crate::work::transfers::flight::is_cancelled(error) {
            return self.scheduling.push(&[item], Class::Demand);
        }
        let attempts = held.failed_again(index);
        self.failed(item, object, held, error, attempts);
        if object.state() == state::FAILED {
            self.asked_no_more(held, index, (first, count));
        }
    }

    /// Blocks from `first` on have come. False if they are not kept.
    fn take_blocks(
        &self,
        slot: u32,
        object: &Object,
        held: &Held,
        (index, first, body): (u32, u32, &[u8]),
    ) -> Result<bool, Error> {
        let mut check = lock(&held.check);
        let (part, judged) = (self.region.part(object, index), object.verdict.get());
        let Some(blocks) = self.region.blocks(object, index).filter(|_| part.state() == EMPTY) else {
            return Ok(false);
        };
        let kept = lock(&held.kept).contains(&index);
        if judged.judgement == Judgement::Wrong || kept || object.state() == state::GONE {
            return Ok(false);
        }
        let sums: Vec<u64> = body.chunks(object.block_bytes() as usize).map(|bytes| self.sum_of(bytes)).collect();
        let other = (first..).zip(&sums).find(|(n, sum)| {
            let block = blocks.block(*n);
            block.is_known(judged.round) && block.crc64() != **sum
        });
        if let Some((n, found)) = other {
            let pair = (blocks.block(n).crc64(), *found);
            if judged.judgement == Judgement::Open {
                let old = self.mismatch(slot, object, held, &mut check, pair);
                drop(check);
                self.fetch_again(slot, object, held, old);
            } else {
                // Its part is known: what comes of that is compared, and fails the object where it is wrong again.
                drop(check);
                tracing::warn!(object = held.key, etag = held.etag, index, block = n, phase = "CRC", "{BLOCK_WRONG}");
                self.scheduling.push(&[Item::Part(slot, index)], Class::Demand);
            }
            return Ok(false);
        }
        // One that was known, and whose part is known by now, is no other; one that was not must not come so late.
        let mask = block::mask(first, first + sums.len() as u32);
        if !self.may_come_alone(object, index, blocks, mask) {
            drop(check);
            self.scheduling.push(&[Item::Part(slot, index)], Class::Demand);
            return Ok(false);
        }
        let start = object.block_range(index, first, first).start;
        if let Some(memory) = &held.memory {
            memory.write_small(start, body).map_err(|errno| no_pages(held, start, body.len(), errno))?;
        }
        (first..).zip(&sums).for_each(|(n, sum)| blocks.learn(n, *sum, judged.round));
        blocks.publish(mask);
        self.region.header().clock.fetch_add(1, Ordering::Relaxed);
        part.stir();
        check.small.entry(index).or_default().bytes += body.len() as u64;
        held.block_bytes.fetch_add(body.len() as u64, Ordering::AcqRel);
        Ok(true)
    }

    fn sum_of(&self, bytes: &[u8]) -> u64 {
        if self.options.verify_crc { crc::of(bytes) } else { 0 }
    }

    /// Bytes that are in memory.
    fn sum_in_memory(&self, held: &Held, range: Range<u64>) -> Option<u64> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        held.memory.as_ref()?.read(range.start, &mut bytes).ok()?;
        Some(crc::of(&bytes))
    }

    /// A part that has blocks has come as a whole: what was known of them, and is not so (known and found CRC-64). From now
    /// on all of them are known, so that they may come alone again.
    pub(crate) fn compare_blocks(&self, object: &Object, held: &Held, index: u32, round: u32) -> Option<(u64, u64)> {
        let blocks = self.region.blocks(object, index).filter(|_| self.options.verify_crc)?;
        let mut other = None;
        for n in 0..object.blocks_len(index) {
            let block = blocks.block(n);
            // What cannot be read cannot be what readers were given.
            let Some(found) = self.sum_in_memory(held, object.block_range(index, n, n + 1)) else {
                return Some((block.crc64(), 0));
            };
            if block.is_known(round) && block.crc64() != found {
                other = other.or(Some((block.crc64(), found)));
            } else {
                blocks.learn(n, found, round);
            }
        }
        other
    }

    /// How many parts of an object readers were given before the verdict of this round, at least a block of each.
    pub(crate) fn handed_parts(&self, object: &Object, round: u32) -> u32 {
        let of_blocks = |index: &u32| {
            let is_counted = self.region.part(object, *index).is_handed_out(round);
            !is_counted && self.region.blocks(object, *index).is_some_and(|blocks| blocks.is_handed_out(round))
        };
        object.verdict.handed_out(round) + (0..object.parts()).filter(of_blocks).count() as u32
    }

    /// The memory of a part's blocks goes. Under the lock `check`; nobody has claimed the part but the caller.
    pub(crate) fn drop_blocks(&self, object: &Object, held: &Held, check: &mut Check, index: u32) {
        let Some(small) = check.small.get_mut(&index).filter(|small| small.bytes > 0) else { return };
        let bytes = std::mem::take(&mut small.bytes);
        if small.asked == 0 {
            check.small.remove(&index);
        }
        if let Some(blocks) = self.region.blocks(object, index) {
            blocks.take_back();
        }
        // Whoever copies sees by the number of the fill that they are gone, before they are.
        self.region.part(object, index).lose_blocks();
        let range = object.part_range(index);
        if let Some(memory) = &held.memory {
            memory.punch(range.start, range.end);
        }
        held.block_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.budget.give(bytes);
    }

    /// The same for all of them.
    pub(crate) fn drop_all_blocks(&self, object: &Object, held: &Held, check: &mut Check) {
        let with_memory: Vec<u32> =
            check.small.iter().filter(|(_, small)| small.bytes > 0).map(|(index, _)| *index).collect();
        with_memory.into_iter().for_each(|index| self.drop_blocks(object, held, check, index));
    }

    /// The same for some parts, where nobody has claimed them. True if there were blocks.
    pub(crate) fn release_blocks(&self, object: &Object, held: &Held, indexes: &[u32]) -> bool {
        let mut check = lock(&held.check);
        let has = |index: &&u32| check.small.get(index).is_some_and(|small| small.bytes > 0);
        let with: Vec<u32> = indexes.iter().filter(has).copied().collect();
        with.iter().for_each(|index| self.drop_blocks(object, held, &mut check, *index));
        !with.is_empty()
    }

    /// Parts whose blocks take memory.
    pub(crate) fn parts_with_blocks(&self, held: &Held) -> Vec<u32> {
        let check = lock(&held.check);
        check.small.iter().filter(|(_, small)| small.bytes > 0).map(|(index, _)| *index).collect()
    }
}

fn no_pages(held: &Held, start: u64, len: usize, errno: ossc_cache::sys::Errno) -> Error {
    let os = std::io::Error::from_raw_os_error(errno.0);
    let mut error =
        Error::new(ossc_net::error::Kind::Memory, ossc_net::error::Phase::Body, format!("make pages: {os}"));
    (error.object, error.range) = (held.key.as_str().into(), Some(start..start + len as u64));
    error
}

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
