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
use crate::verdict::{Handed, Verdict};

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

    /// Takes all out.
    pub fn take(&self) -> Mask {
        let half = |at: usize| Mask::from(self.0[at].swap(0, Ordering::AcqRel));
        let low = half(0);
        half(1) << 64 | low
    }
}

/// What belongs to each part beside its own record.
#[repr(C)]
#[derive(Default)]
pub struct Aside {
    /// Blocks that readers wait for, or `WHOLE`, beside the part's demand bit.
    pub wanted: SharedMask,
    /// Number of its set, counted from 1; 0 for none.
    set: AtomicU32,
    unused: AtomicU32,
}

impl Aside {
    /// Number of the set.
    pub fn set(&self) -> Option<u32> {
        self.set.load(Ordering::Acquire).checked_sub(1).filter(|set| *set < SETS)
    }

    /// Engine only: the part becomes another object's.
    pub fn renew(&self) {
        // Only what was ever used is touched: most of this array never is.
        if self.set.load(Ordering::Relaxed) != 0 {
            self.set.store(0, Ordering::Release);
        }
        if self.wanted.get() != 0 {
            self.wanted.take();
        }
    }
}

/// One block of a part.
#[repr(C)]
#[derive(Default)]
pub struct Block {
    crc64: AtomicU64,
    /// Last round in which its CRC-64 became known.
    known: AtomicU32,
    /// Last round in which a reader was given bytes of it before the verdict.
    handed: AtomicU32,
}

/// A set: the blocks of one part.
#[repr(C)]
pub struct Blocks {
    /// Number in the region of the part that has it, counted from 1.
    part: AtomicU32,
    handed: Handed,
    ready: SharedMask,
    blocks: [Block; BLOCKS_MAX as usize],
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

    /// True if a reader was given bytes of it before the verdict of this round, or is about to be.
    pub fn is_handed_out(&self, round: u32) -> bool {
        self.handed.load(Ordering::Acquire) == round
    }
}

impl Blocks {
    /// True if this part (its number in the region) has the set.
    pub fn is_of(&self, part: u32) -> bool {
        self.part.load(Ordering::Acquire) == part + 1
    }

    /// The part that it was given to last.
    pub fn part(&self) -> Option<u32> {
        self.part.load(Ordering::Acquire).checked_sub(1)
    }

    /// Engine only: the set is this part's (its number in the region, its record) from now on, with nothing in it. Who has
    /// begun a copy of blocks that it found in the set before sees by the part's number that it found those of another.
    pub fn give(&self, (part, record): (u32, &Part), aside: &Aside, number: u32) {
        record.lose_blocks();
        // First nobody finds anything in it.
        self.part.store(0, Ordering::Release);
        self.ready.take();
        self.handed.begin(0);
        for block in &self.blocks {
            block.known.store(0, Ordering::Release);
            block.handed.store(0, Ordering::Release);
        }
        self.part.store(part + 1, Ordering::Release);
        aside.set.store(number + 1, Ordering::Release);
    }

    /// The blocks that are there.
    pub fn ready(&self) -> Mask {
        self.ready.get()
    }

    /// A block.
    pub fn block(&self, number: u32) -> &Block {
        &self.blocks[(number % BLOCKS_MAX) as usize]
    }

    /// Engine only, before `publish`: the bytes of a block as they came in this round have this CRC-64.
    pub fn learn(&self, number: u32, crc64: u64, round: u32) {
        if !self.handed.is_of(round) {
            // Before a block of the round is known: nobody hands out, and so counts, what is not known.
            self.handed.begin(round);
        }
        let block = self.block(number);
        block.crc64.store(crc64, Ordering::Relaxed);
        block.known.store(round, Ordering::Release);
    }

    /// Engine only: these are there from now on. Who waits is told by `Part::stir`.
    pub fn publish(&self, mask: Mask) {
        self.ready.add(mask);
    }

    /// Engine only: nothing of it is there any more; to be followed by `Part::lose_blocks` before the memory goes.
    pub fn take_back(&self) -> Mask {
        self.ready.take()
    }

    /// True if a reader was given a block of it before the verdict of this round.
    pub fn is_handed_out(&self, round: u32) -> bool {
        self.blocks.iter().any(|block| block.is_handed_out(round))
    }

    /// True if bytes of this block, of a part with `blocks` of them, one of `parts`, may be given to a reader before the
    /// verdict (see `Verdict::hand_out`). The last block of a part that nobody was given counts as the part.
    pub fn hand_out(
        &self,
        number: u32,
        verdict: &Verdict,
        part: &Part,
        (blocks, parts): (u32, u32),
        round: u32,
    ) -> bool {
        let block = self.block(number);
        if !block.is_known(round) {
            return false;
        }
        if block.is_handed_out(round) || part.is_handed_out(round) {
            return true;
        }
        // Counted first and marked then, as parts are.
        if self.handed.add(blocks, round) {
            if block.handed.swap(round, Ordering::AcqRel) == round {
                self.handed.take_off(round);
            }
            return true;
        }
        self.handed.is_of(round) && verdict.hand_out_whole(part, parts, round)
    }
}
