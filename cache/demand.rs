//! Demand: one bit per part that some reader waits for, and one summary bit per word of them.
//!
//! Clients set bits (again and again, which is harmless), the engine takes them. The order of the two
//! levels makes sure that no bit is left behind: a client sets the bit before its summary, and the engine
//! clears the summary before the bits.

use crate::sync::{AtomicU64, Ordering};

/// The two arrays, `bits` 64 times as long as `summary`.
pub struct Demand<'a> {
    /// One bit per part.
    pub bits: &'a [AtomicU64],
    /// One bit per word of `bits`.
    pub summary: &'a [AtomicU64],
}

impl Demand<'_> {
    /// Asks for a part; a number beyond the end is none.
    pub fn set(&self, part: u32) {
        let word = part as usize / 64;
        if let (Some(bits), Some(summary)) = (self.bits.get(word), self.summary.get(word / 64)) {
            bits.fetch_or(1 << (part % 64), Ordering::AcqRel);
            summary.fetch_or(1 << (word % 64), Ordering::AcqRel);
        }
    }

    /// Engine only: gives each part asked for to `each` and clears its bit.
    pub fn drain(&self, mut each: impl FnMut(u32)) {
        for (upper, summary) in self.summary.iter().enumerate() {
            // Mostly nothing is there, and a look costs a fraction of a swap. Who sets a bit rings after it, so what
            // is not seen yet is looked for again.
            if summary.load(Ordering::Acquire) == 0 {
                continue;
            }
            let mut words = summary.swap(0, Ordering::AcqRel);
            while words != 0 {
                let word = upper * 64 + words.trailing_zeros() as usize;
                words &= words - 1;
                let mut bits = self.bits.get(word).map_or(0, |bits| bits.swap(0, Ordering::AcqRel));
                while bits != 0 {
                    each((word * 64) as u32 + bits.trailing_zeros());
                    bits &= bits - 1;
                }
            }
        }
    }
}
