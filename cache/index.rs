//! Finding a record by device and inode: a table of record numbers with open addressing, in the shared region.
//!
//! Called by `region`. The engine alone inserts and removes (under its lock on the catalog), any number of processes
//! look meanwhile. It knows nothing of records: a caller compares what it finds.
//!
//! An entry that is taken out becomes a tombstone, which looks pass over and inserts may take. Where the next entry is
//! empty nothing lies behind it, so it becomes empty, and the tombstones before it with it. While records come and go
//! for ever there are about as many tombstones as entries in use (an insert meets one first as often as a removal
//! leaves one), so a table that is used to a quarter at most is half empty, and its chains stay short.

use crate::sync::{AtomicU32, Ordering};

const EMPTY: u32 = 0;
const TOMBSTONE: u32 = u32::MAX;

/// The table; its length is a power of two.
pub struct Index<'a> {
    /// A record's number plus 1, `EMPTY` or `TOMBSTONE`.
    pub entries: &'a [AtomicU32],
}

impl Index<'_> {
    /// Numbers of the records that may be the one of this file, the right one (if there is any) among them.
    pub fn candidates(&self, dev: u64, ino: u64) -> impl Iterator<Item = u32> {
        let entry = move |step: usize| self.at(hash(dev, ino).wrapping_add(step)).load(Ordering::Acquire);
        let chain = (0..self.entries.len()).map(entry).take_while(|entry| *entry != EMPTY);
        chain.filter(|entry| *entry != TOMBSTONE).map(|entry| entry - 1)
    }

    /// Engine only: makes a record findable by this file. False if the table is full.
    pub fn insert(&self, dev: u64, ino: u64, record: u32) -> bool {
        for step in 0..self.entries.len() {
            let entry = self.at(hash(dev, ino).wrapping_add(step));
            let seen = entry.load(Ordering::Relaxed);
            if seen == EMPTY || seen == TOMBSTONE {
                entry.store(record + 1, Ordering::Release);
                return true;
            }
        }
        false
    }

    /// Engine only: the record is not to be found by this file any more. To be called for all of its files: where their
    /// chains meet, entries of the others go with it.
    pub fn remove(&self, dev: u64, ino: u64, record: u32) {
        let start = hash(dev, ino);
        for at in (0..self.entries.len()).map(|step| start.wrapping_add(step)) {
            match self.at(at).load(Ordering::Relaxed) {
                EMPTY => return,
                entry if entry == record + 1 => self.clear(at),
                _ => {}
            }
        }
    }

    /// Engine only: takes out all entries of records that are no more.
    pub fn sweep(&self, is_dead: impl Fn(u32) -> bool) {
        for at in (0..self.entries.len()).rev() {
            match self.at(at).load(Ordering::Relaxed) {
                EMPTY => {}
                TOMBSTONE => self.clear(at),
                entry if is_dead(entry - 1) => self.clear(at),
                _ => {}
            }
        }
    }

    fn clear(&self, at: usize) {
        let is = |at: usize, what: u32| self.at(at).load(Ordering::Relaxed) == what;
        self.at(at).store(TOMBSTONE, Ordering::Release);
        if !is(at.wrapping_add(1), EMPTY) {
            return;
        }
        let mut end = at;
        // Never all the way round: there is an empty entry.
        while is(end, TOMBSTONE) {
            self.at(end).store(EMPTY, Ordering::Release);
            end = end.wrapping_sub(1);
        }
    }

    fn at(&self, at: usize) -> &AtomicU32 {
        &self.entries[at & (self.entries.len() - 1)]
    }
}

/// So many inodes in a row lie side by side: a tmpfs counts its inodes up, so each new memory file would otherwise touch a
/// page of the table of its own, until all of it is in memory. A look that finds nothing passes over few more entries.
const ROW_BITS: u32 = 7;

/// Spreads device and row of inodes over the index (the multiplier is 2^64 / golden ratio).
fn hash(dev: u64, ino: u64) -> usize {
    let row = (dev.rotate_left(32) ^ (ino >> ROW_BITS)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    (row << ROW_BITS | ino & ((1 << ROW_BITS) - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Miri is some thousand times as slow.
    const STEPS: u64 = if cfg!(miri) { 500 } else { 200_000 };

    #[test]
    fn inodes_that_are_counted_up_touch_few_pages() {
        const PAGE_ENTRIES: usize = 1024;
        let pages: std::collections::BTreeSet<usize> = (7..10_007).map(|ino| hash(3, ino) / PAGE_ENTRIES).collect();
        assert!(pages.len() <= 10_000 / 128 + 2, "{} pages", pages.len());
    }

    fn used(index: &Index<'_>) -> (usize, usize) {
        let count = |what: u32| index.entries.iter().filter(|entry| entry.load(Ordering::Relaxed) == what).count();
        (index.entries.len() - count(EMPTY), count(TOMBSTONE))
    }

    /// Random inserts and removals beside a map that is surely right: what is in is found, and what is out leaves no
    /// more than the chains of the others.
    #[test]
    fn what_is_in_is_found_and_what_is_out_leaves_nothing_behind() {
        let mut random = 1u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let entries: Vec<AtomicU32> = (0..256).map(|_| AtomicU32::new(0)).collect();
        let index = Index { entries: &entries };
        let mut right = BTreeMap::new();
        for step in 0..STEPS {
            let ino = next(500);
            let record = ino as u32 * 3;
            if next(2) == 0 {
                if right.len() < 64 && !right.contains_key(&ino) {
                    assert!(index.insert(7, ino, record));
                    right.insert(ino, record);
                }
            } else if let Some(record) = right.remove(&ino) {
                index.remove(7, ino, record);
            }
            if step.is_multiple_of(97) {
                // A quarter is in use, and so as much again are tombstones when it has been going on for long.
                assert!(used(&index).0 < 192, "step {step}: {:?} of 256", used(&index));
                for (ino, record) in &right {
                    assert!(index.candidates(7, *ino).any(|found| found == *record), "step {step}: {ino} is lost");
                }
            }
        }
        // As a successor does it, which knows the records and not what they were found by.
        index.sweep(|record| right.values().any(|living| *living == record));
        assert_eq!(used(&index), (0, 0), "an index of no records has entries");
    }

    #[test]
    fn a_full_table_says_so_and_takes_tombstones() {
        let entries: Vec<AtomicU32> = (0..8).map(|_| AtomicU32::new(0)).collect();
        let index = Index { entries: &entries };
        assert!((0..8).all(|record| index.insert(1, u64::from(record), record)));
        assert!(!index.insert(1, 9, 9));
        index.remove(1, 3, 3);
        assert_eq!(used(&index), (8, 1));
        assert!(index.insert(1, 9, 9));
        assert!(index.candidates(1, 9).any(|found| found == 9) && !index.candidates(1, 3).any(|found| found == 3));
    }
}
