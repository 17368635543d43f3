//! What the work plans and what comes of it: what to fetch, what has arrived.
//!
//! Made by the wings, which plan it, and taken by the vcpu threads and the thread that writes files. Plain values.

use crate::work::shared::entry::{Asked, RegisterEntry};
use std::sync::Arc;

/// Most bytes of a listing page or an error document.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 8 << 20;
/// Below these bits of a token lies the number of a part, which is less than `PARTS_MAX`.
const PIECE_SHIFT: u32 = ossc_cache::region::PARTS_MAX.trailing_zeros();
/// Of a piece's number these are the chunk's.
const CHUNK_BITS: u32 = 4;
/// Of a piece's number these are the count of blocks, less one.
const COUNT_BITS: u32 = 5;
const INDEX_MASK: u32 = (1 << PIECE_SHIFT) - 1;

/// Something to fetch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Item {
    /// Part `1` of record `0`.
    Part(u32, u32),
    /// The same, for a reader: there was no room for it before.
    Again(u32, u32),
    /// Piece `2` of part `1` of record `0`; the first (0) is asked for with its part, and so only if it has given way.
    Piece(u32, u32, u32),
    /// Chunk `3`, of less than 16, of piece `2` of part `1` of record `0` for the second time.
    Hedge(u32, u32, u32, u32),
    /// Blocks of part `1` of record `0`: from number `2` on so many as `3` says, of which there are at most 32.
    Blocks(u32, u32, u32, u32),
    /// Piece `1` of small object `0`.
    Small(u32, u32),
    /// A question of the mirror's.
    Call(u32),
    /// The check value of an object whose parts are all here.
    Verdict(u32),
    /// A failed object gets another chance.
    Revive(u32),
}

impl Item {
    pub fn token(self) -> u64 {
        match self {
            Item::Part(slot, index) | Item::Again(slot, index) => 1 << 60 | u64::from(slot) << 32 | u64::from(index),
            Item::Small(slot, index) => 2 << 60 | u64::from(slot) << 32 | u64::from(index),
            Item::Piece(slot, index, n) => 5 << 60 | u64::from(slot) << 32 | u64::from(n << PIECE_SHIFT | index),
            Item::Hedge(slot, index, n, chunk) => {
                6 << 60 | u64::from(slot) << 32 | u64::from((n << CHUNK_BITS | chunk) << PIECE_SHIFT | index)
            }
            Item::Blocks(slot, index, first, count) => {
                7 << 60 | u64::from(slot) << 32 | u64::from((first << COUNT_BITS | (count - 1)) << PIECE_SHIFT | index)
            }
            Item::Call(id) | Item::Revive(id) => 3 << 60 | u64::from(id),
            Item::Verdict(slot) => 4 << 60 | u64::from(slot),
        }
    }

    /// Its record; of a question its own number.
    pub fn record(self) -> u32 {
        match self {
            Item::Part(slot, _)
            | Item::Again(slot, _)
            | Item::Piece(slot, ..)
            | Item::Hedge(slot, ..)
            | Item::Blocks(slot, ..)
            | Item::Small(slot, _)
            | Item::Call(slot)
            | Item::Verdict(slot)
            | Item::Revive(slot) => slot,
        }
    }

    /// As doubts are counted by.
    pub fn asked(self) -> Asked {
        let index = match self {
            Item::Part(_, index) | Item::Again(_, index) | Item::Small(_, index) => Some(index),
            Item::Piece(_, index, _) | Item::Hedge(_, index, ..) | Item::Blocks(_, index, ..) => Some(index),
            Item::Verdict(_) | Item::Call(_) | Item::Revive(_) => None,
        };
        (index, self.token())
    }

    /// True if its answer is bytes of an object.
    pub fn is_of_bytes(self) -> bool {
        !matches!(self, Item::Call(_) | Item::Verdict(_) | Item::Revive(_))
    }

    /// True for an item of this record.
    pub fn is_of(self, slot: u32) -> bool {
        !matches!(self, Item::Call(_)) && self.record() == slot
    }

    pub fn from_token(token: u64) -> Item {
        let (slot, index, n) =
            ((token >> 32) as u32 & 0x0fff_ffff, token as u32 & INDEX_MASK, token as u32 >> PIECE_SHIFT);
        match token >> 60 {
            1 => Item::Part(slot, token as u32),
            5 => Item::Piece(slot, index, n),
            6 => Item::Hedge(slot, index, n >> CHUNK_BITS, n & ((1 << CHUNK_BITS) - 1)),
            7 => Item::Blocks(slot, index, n >> COUNT_BITS, (n & ((1 << COUNT_BITS) - 1)) + 1),
            2 => Item::Small((token >> 32) as u32 & 0x0fff_ffff, token as u32),
            4 => Item::Verdict(token as u32),
            _ => Item::Call(token as u32),
        }
    }
}

/// A small object's bytes on the way to disk.
pub struct Arrived {
    /// Its record, which may be another version's by the time that this is taken up.
    pub slot: u32,
    /// The version that they are of.
    pub entry: Arc<RegisterEntry>,
    /// Where they begin, for a piece of an object that is written piece by piece. `None`: all bytes of an object, or
    /// none of one whose pieces are there; they have passed the check of the whole.
    pub at: Option<u64>,
    /// The bytes.
    pub body: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_its_item_back() {
        for item in [
            Item::Part(65_535, 1_048_575),
            Item::Piece(65_535, 1_048_575, 7),
            Item::Hedge(1, 0, 255, 15),
            Item::Blocks(65_535, 1_048_575, 127, 1),
            Item::Blocks(3, 0, 96, 32),
            Item::Small(7, 3),
            Item::Call(u32::MAX),
            Item::Verdict(65_535),
        ] {
            assert_eq!(Item::from_token(item.token()), item);
        }
    }
}
