//! The right to fill a part, and the memory and room that go with it: how a part is claimed, emptied and put back, and
//! how its blocks go.
//!
//! Called by the wings, for one object at a time. It decides nothing about other objects, and waits for nothing but the
//! object's own locks.

use crate::lock::lock;
use crate::work::shared::check::Check;
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::register::Register;
use ossc_cache::block::{self, Blocks, Mask};
use ossc_cache::region::Object;
use ossc_cache::verdict::Judgement;
use std::sync::atomic::Ordering;

/// Memory that a part takes, in bytes: the last one of an object ends with a whole page.
pub fn room_bytes(register: &Register, object: &Object, index: u32) -> u64 {
    let range = object.part_range(index);
    let end =
        if range.end == object.size() { range.end.next_multiple_of(register.options.page_bytes) } else { range.end };
    end - range.start
}

/// None of an object's parts are here.
pub fn is_empty(object: &Object, entry: &RegisterEntry) -> bool {
    let is_empty = object.ready_parts.load(Ordering::Acquire) == 0 && lock(&entry.kept_parts).is_empty();
    is_empty && entry.block_bytes.load(Ordering::Acquire) == 0
}

/// Takes the right to fill a part as a whole; its blocks go.
pub fn claim(register: &Register, object: &Object, entry: &RegisterEntry, index: u32) -> bool {
    let mut check = lock(&entry.check);
    let is_claimed = register.region.part(object, index).claim();
    if is_claimed {
        drop_blocks(register, object, entry, &mut check, index);
    }
    is_claimed
}

/// Takes the right to fill a part whose memory and room `end` has left. Under the lock `check`: a block that comes
/// must not find it empty and not kept, and go to memory that is a program's or about to go.
pub fn claim_kept(register: &Register, object: &Object, entry: &RegisterEntry, index: u32) -> bool {
    let _check = lock(&entry.check);
    let mut kept = lock(&entry.kept_parts);
    let ours = kept.contains(&index) && register.region.part(object, index).claim();
    if ours {
        kept.remove(&index);
    }
    ours
}

/// The holder of the right to fill a part gives its memory back, then its room, then the right. What a program has
/// pinned stays for the next fill: it may be reading there.
pub fn end(register: &Register, object: &Object, entry: &RegisterEntry, index: u32) {
    let part = register.region.part(object, index);
    if part.is_pinned() {
        lock(&entry.kept_parts).insert(index);
    } else {
        let range = object.part_range(index);
        if let Some(memory) = &entry.memory {
            memory.punch(range.start, range.end);
        }
        lock(&entry.room).give(room_bytes(register, object, index));
    }
    part.give_up();
}

/// A part that was taken back is empty from now on.
pub fn empty(register: &Register, object: &Object, entry: &RegisterEntry, index: u32) {
    let range = object.part_range(index);
    register.region.header().ready_bytes.fetch_sub(range.end - range.start, Ordering::Relaxed);
    object.ready_parts.fetch_sub(1, Ordering::AcqRel);
    end(register, object, entry, index);
}

/// A part that was taken back because no program seemed to need it stays after all: back to ready, unless a mismatch
/// came in between. False if it did.
pub fn put_back(register: &Register, object: &Object, entry: &RegisterEntry, index: u32) -> bool {
    let _check = lock(&entry.check);
    let part = register.region.part(object, index);
    let stays = part.is_known(object.verdict.get().round);
    if stays {
        part.publish(part.crc64());
    }
    stays
}

/// Gives back what `end` has left for programs that have it pinned no more. True if there was such.
pub fn end_kept(register: &Register, object: &Object, entry: &RegisterEntry) -> bool {
    let part = |index: &u32| register.region.part(object, *index);
    let free: Vec<u32> = lock(&entry.kept_parts).iter().copied().filter(|index| !part(index).is_pinned()).collect();
    let ended = |index: &u32| {
        // A fill of it takes it over.
        let ours = claim_kept(register, object, entry, *index);
        if ours {
            end(register, object, entry, *index);
        }
        ours
    };
    free.iter().filter(|index| ended(index)).count() > 0
}

/// The memory of a part's blocks goes. Under the lock `check`; only the caller may have claimed the part.
pub fn drop_blocks(register: &Register, object: &Object, entry: &RegisterEntry, check: &mut Check, index: u32) {
    let Some(small) = check.small.get_mut(&index).filter(|small| small.bytes > 0) else { return };
    let bytes = std::mem::take(&mut small.bytes);
    if small.asked == 0 {
        check.small.remove(&index);
    }
    if let Some(blocks) = register.region.blocks(object, index) {
        blocks.take_back();
    }
    // A program that copies sees by the number of the fill that they are gone, before they are.
    register.region.part(object, index).lose_blocks();
    let range = object.part_range(index);
    if let Some(memory) = &entry.memory {
        memory.punch(range.start, range.end);
    }
    entry.block_bytes.fetch_sub(bytes, Ordering::AcqRel);
    register.block_bytes.fetch_sub(bytes, Ordering::AcqRel);
    lock(&entry.room).give(bytes);
}

/// The same for all of them.
pub fn drop_all_blocks(register: &Register, object: &Object, entry: &RegisterEntry, check: &mut Check) {
    check.with_memory().into_iter().for_each(|index| drop_blocks(register, object, entry, check, index));
}

/// The same for some parts, which no thread has claimed. True if there were blocks.
pub fn release_blocks(register: &Register, object: &Object, entry: &RegisterEntry, indexes: &[u32]) -> bool {
    let mut check = lock(&entry.check);
    let has = |index: &&u32| check.small.get(index).is_some_and(|small| small.bytes > 0);
    let with: Vec<u32> = indexes.iter().filter(has).copied().collect();
    with.iter().for_each(|index| drop_blocks(register, object, entry, &mut check, *index));
    !with.is_empty()
}

/// Parts whose blocks take memory.
pub fn parts_with_blocks(entry: &RegisterEntry) -> Vec<u32> {
    lock(&entry.check).with_memory()
}

/// Whether what comes wrong of these blocks will be noticed: by their part, which is still to come and is compared with
/// them, or by what is known of themselves. Where the origin gave no CRC-64, too: what came again must not differ.
pub fn may_come_alone(register: &Register, object: &Object, index: u32, blocks: Blocks<'_>, mask: Mask) -> bool {
    let judged = object.verdict.get();
    !register.options.verify_crc
        || matches!(judged.judgement, Judgement::Open | Judgement::Nothing)
            && !register.region.part(object, index).is_known(judged.round)
        || block::numbers(mask).all(|number| blocks.block(number).is_known(judged.round))
}

/// Blocks of a part, from one on so many, are neither in the plan nor under way any more.
pub fn asked_no_more(entry: &RegisterEntry, index: u32, (first, count): (u32, u32)) {
    let mut check = lock(&entry.check);
    if let Some(small) = check.small.get_mut(&index) {
        small.asked &= !block::mask(first, first + count);
        if small.asked == 0 && small.bytes == 0 {
            check.small.remove(&index);
        }
    }
}
