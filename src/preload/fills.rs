//! The fills that held a range of bytes at one moment, by which a copy that was made meanwhile is known to be good.
//!
//! Called by the read path around each copy, and by `taken`, which counts what was handed out before a verdict. It waits
//! for nothing, and knows no program's descriptors.

use crate::attach;
use crate::handle::Handle;
use crate::parts::Grain;
use core::ops::Range;
use core::sync::atomic::Ordering;
use ossc_cache::block;

/// The fills that held a range at one moment.
pub(crate) struct Fills {
    /// The object in the region whose fills they are: another engine counts its own.
    pub handle: Handle,
    /// The parts that hold the range.
    pub parts: Range<u32>,
    /// The range.
    bytes: Range<u64>,
    grain: Grain,
    sum: u64,
}

#[inline(always)]
fn sum_of(now: &Handle, bytes: &Range<u64>, grain: Grain) -> Option<u64> {
    match grain {
        Grain::Parts => now.object.fills(&now.region, bytes.start, bytes.end),
        Grain::Blocks => now.object.fills_with_blocks(&now.region, bytes.start, bytes.end),
    }
}

impl Fills {
    /// Those that hold bytes `start..end` now, `None` if some are missing.
    pub fn of(handle: &Handle, start: u64, end: u64, grain: Grain) -> Option<Fills> {
        core::sync::atomic::fence(Ordering::SeqCst);
        let generation = attach::generation();
        let now = handle.now()?;
        let (parts, bytes) = (now.object.parts_of(start, end), start..end);
        let sum = sum_of(&now, &bytes, grain)?;
        let fills = Fills { handle: now, parts, bytes, grain, sum };
        (attach::generation() == generation).then_some(fills)
    }

    /// True if they are there still: a copy made meanwhile is good. The record must be the one it was: the parts of
    /// one that is GONE may be full of another object's bytes.
    pub fn are_there(&self) -> bool {
        core::sync::atomic::fence(Ordering::SeqCst);
        attach::generation() == self.handle.generation()
            && sum_of(&self.handle, &self.bytes, self.grain) == Some(self.sum)
            && self.handle.lasts()
            && attach::generation() == self.handle.generation()
    }

    /// True if they were there while a copy was made that cannot be made again. Unlike `are_there` it does not ask which
    /// engine is in use by now: nobody changes the memory of one that is gone, but its successor, in the same region.
    pub fn have_stayed(&self) -> bool {
        core::sync::atomic::fence(Ordering::SeqCst);
        sum_of(&self.handle, &self.bytes, self.grain) == Some(self.sum) && self.handle.lasts()
    }

    /// Bytes of all their parts were copied: they are in use.
    pub fn touch(&self) {
        let clock = self.handle.region.header().clock.load(Ordering::Relaxed);
        for index in self.parts.clone() {
            let part = self.handle.region.part(self.handle.object, index);
            let is_first = part.used() == 0;
            part.touch(clock);
            if is_first {
                self.reads_on(index);
            }
        }
    }

    /// A part was read for the first time. From its beginning, and the one before was read: the next ones will be.
    #[cold]
    #[inline(never)]
    fn reads_on(&self, index: u32) {
        let Some(before) = index.checked_sub(1) else { return };
        let (part, before) =
            (self.handle.region.part(self.handle.object, index), self.handle.region.part(self.handle.object, before));
        let follows = part.is_ready() && before.is_ready() && before.used() != 0;
        if follows && self.bytes.start <= self.handle.object.part_range(index).start {
            self.handle.region.demand(self.handle.object, index + 1, index + 2);
        }
    }

    /// The bytes were handed out in this round before.
    pub fn were_handed_out(&self, round: u32) -> bool {
        self.parts.clone().all(|index| {
            let part = self.handle.region.part(self.handle.object, index);
            part.is_known(round) && part.is_handed_out(round)
        })
    }

    /// The bytes are handed out from now on, if they may be: of this round, and not the last.
    pub fn hand_out(&self, round: u32) -> bool {
        let Handle { region, object, .. } = self.handle;
        self.parts.clone().all(|index| {
            let part = region.part(object, index);
            // Also of one that was given up just now: the copy does not count then.
            if self.grain == Grain::Parts || part.is_known(round) {
                return region.traces(object).handed.hand_out(part, object.parts(), round);
            }
            let Some(blocks) = region.blocks(object, index) else { return false };
            let counts = (object.blocks_len(index), object.parts());
            let mut wanted = block::numbers(object.blocks_of(index, self.bytes.start, self.bytes.end));
            wanted.all(|number| blocks.hand_out(number, &region.traces(object).handed, part, counts, round))
        })
    }
}
