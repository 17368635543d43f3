//! Blocks: what is there of a part that nobody has fetched as a whole. A reader that reads a little here and there
//! waits for the blocks that hold its bytes, and for no more.
//!
//! Few parts have blocks, so their state lies beside the parts: the region has `SETS` sets of blocks, and the engine
//! gives one to a part when the first block of it is asked for. While a part is Empty its set says which blocks are
//! there. Whoever claims the part takes them back first: the fill of a part and its blocks are never there together.
//!
//! Each block keeps its CRC-64 and its round as a part does (`part`, `verdict`): what was handed out block by block is
//! compared with the part when that comes as a whole. Called by the engine, which alone gives, fills and takes back, and
//! by clients, which look and count what they hand out. It knows no bytes.

use crate::part::Part;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::verdict::Handed;

/// Most blocks of one part.
pub const BLOCKS_MAX: u32 = 128;
/// Sets of blocks: as many parts can have blocks at a time. Parts beyond are fetched as a whole.
pub const SETS: u32 = 1 << 13;

/// Blocks of one part, the lowest bit for the first.
pub type Mask = u128;
/// Stands for a demand of the whole part.
pub const WHOLE: Mask = Mask::MAX;

/// Bytes of a block of parts of this many bytes: 64 KiB for 8 MiB.
pub fn block_bytes(part_bytes: u32) -> u32 {
    part_bytes.div_ceil(BLOCKS_MAX).max(1).next_power_of_two()
}

/// Blocks `first..end`.
pub fn mask(first: u32, end: u32) -> Mask {
    let below = |end: u32| if end >= BLOCKS_MAX { Mask::MAX } else { (1 << end) - 1 };
    below(end) & !below(first)
}

/// The numbers of the blocks in a mask, rising.
pub fn numbers(mask: Mask) -> impl Iterator<Item = u32> {
    let mut left = mask;
    core::iter::from_fn(move || {
        let number = left.trailing_zeros();
        left &= left.wrapping_sub(1);
        (number < BLOCKS_MAX).then_some(number)
    })
}

/// A mask that several processes change. Its halves change one after the other.
#[repr(C)]
#[derive(Default)]
pub struct SharedMask([AtomicU64; 2]);

impl SharedMask {
    /// What is in it.
    pub fn get(&self) -> Mask {
        let half = |at: usize| Mask::from(self.0[at].load(Ordering::Acquire));
        half(1) << 64 | half(0)
    }

    /// Puts these in.
    pub fn add(&self, mask: Mask) {
        for (half, bits) in self.0.iter().zip([mask as u64, (mask >> 64) as u64]) {
            if bits != 0 {
                half.fetch_or(bits, Ordering::AcqRel);
            }
        }
    }

    /// The same, where nothing is mostly in it: most of these masks are never touched.
    pub fn clear(&self) {
        if self.get() != 0 {
            self.take();
        }
    }

    /// Takes all out.
    pub fn take(&self) -> Mask {
        let half = |at: usize| Mask::from(self.0[at].swap(0, Ordering::AcqRel));
        let low = half(0);
        half(1) << 64 | low
    }
}

/// One block of a part.
#[repr(C)]
#[derive(Default)]
pub struct Block {
    crc64: AtomicU64,
    /// Last round in which its CRC-64 became known.
    known: AtomicU32,
    unused: AtomicU32,
}

/// What the engine says of a set. Clients have it read-only.
#[repr(C)]
pub struct SetState {
    /// Number in the region of the part that has it, counted from 1.
    part: AtomicU32,
    unused: [AtomicU32; 3],
    ready: SharedMask,
    blocks: [Block; BLOCKS_MAX as usize],
}

/// What programs say of it: how many blocks were handed out, and of each the last round in which it was, before the
/// verdict.
#[repr(C)]
pub struct SetTraces {
    handed: Handed,
    blocks: [AtomicU32; BLOCKS_MAX as usize],
}

/// A set: the blocks of one part.
#[derive(Clone, Copy)]
pub struct Blocks<'a> {
    state: &'a SetState,
    traces: &'a SetTraces,
}

impl Block {
    /// True if its CRC-64 is known in this round.
    pub fn is_known(&self, round: u32) -> bool {
        self.known.load(Ordering::Acquire) == round
    }

    /// See `is_known`.
    pub fn crc64(&self) -> u64 {
        self.crc64.load(Ordering::Relaxed)
    }
}

impl<'a> Blocks<'a> {
    /// The set with these records.
    pub fn new(state: &'a SetState, traces: &'a SetTraces) -> Blocks<'a> {
        Blocks { state, traces }
    }

    /// True if a reader was given bytes of this block before the verdict of this round, or is about to be.
    pub fn has_handed_out(&self, number: u32, round: u32) -> bool {
        self.trace(number).load(Ordering::Acquire) == round
    }

    fn trace(&self, number: u32) -> &'a AtomicU32 {
        &self.traces.blocks[(number % BLOCKS_MAX) as usize]
    }

    /// True if this part (its number in the region) has the set.
    pub fn is_of(&self, part: u32) -> bool {
        self.state.part.load(Ordering::Acquire) == part + 1
    }

    /// The part that it was given to last.
    pub fn part(&self) -> Option<u32> {
        self.state.part.load(Ordering::Acquire).checked_sub(1)
    }

    /// Engine only: the set is this part's (its number in the region, its record) from now on, with nothing in it. Who has
    /// begun a copy of blocks that it found in the set before sees by the part's number that it found those of another.
    pub fn give(&self, (part, record): (u32, Part<'_>), number: u32) {
        record.lose_blocks();
        // First nobody finds anything in it.
        self.state.part.store(0, Ordering::Release);
        self.state.ready.take();
        self.traces.handed.begin(0);
        self.state.blocks.iter().for_each(|block| block.known.store(0, Ordering::Release));
        self.traces.blocks.iter().for_each(|trace| trace.store(0, Ordering::Release));
        self.state.part.store(part + 1, Ordering::Release);
        record.give_set(number);
    }

    /// The blocks that are there.
    pub fn ready(&self) -> Mask {
        self.state.ready.get()
    }

    /// A block.
    pub fn block(&self, number: u32) -> &'a Block {
        &self.state.blocks[(number % BLOCKS_MAX) as usize]
    }

    /// Engine only, before `publish`: the bytes of a block as they came in this round have this CRC-64.
    pub fn learn(&self, number: u32, crc64: u64, round: u32) {
        if !self.traces.handed.is_of(round) {
            // Before a block of the round is known: nobody hands out, and so counts, what is not known.
            self.traces.handed.begin(round);
        }
        let block = self.block(number);
        block.crc64.store(crc64, Ordering::Relaxed);
        block.known.store(round, Ordering::Release);
    }

    /// Engine only: these are there from now on. Who waits is told by `Part::stir`.
    pub fn publish(&self, mask: Mask) {
        self.state.ready.add(mask);
    }

    /// Engine only: nothing of it is there any more; to be followed by `Part::lose_blocks` before the memory goes.
    pub fn take_back(&self) -> Mask {
        self.state.ready.take()
    }

    /// True if a reader was given a block of it before the verdict of this round.
    pub fn is_handed_out(&self, round: u32) -> bool {
        (0..BLOCKS_MAX).any(|number| self.has_handed_out(number, round))
    }

    /// True if bytes of this block, of a part with `blocks` of them, one of `parts`, may be given to a reader before the
    /// verdict (see `Handed::hand_out`; `verdict` counts the object's parts). The last block of a part that nobody was given counts as the part.
    pub fn hand_out(
        &self,
        number: u32,
        verdict: &Handed,
        part: Part<'_>,
        (blocks, parts): (u32, u32),
        round: u32,
    ) -> bool {
        let block = self.block(number);
        if !block.is_known(round) {
            return false;
        }
        if self.has_handed_out(number, round) || part.is_handed_out(round) {
            return true;
        }
        // Counted first and marked then, as parts are.
        if self.traces.handed.add(blocks, round) {
            if self.trace(number).swap(round, Ordering::AcqRel) == round {
                self.traces.handed.take_off(round);
            }
            return true;
        }
        self.traces.handed.is_of(round) && verdict.hand_out_whole(part, parts, round)
    }
}
