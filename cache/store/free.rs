//! Which numbers of an array are free: ranges of parts and of name words that records take and give back.
//!
//! Called by `catalog`, in the engine alone. Pure: it holds numbers and touches no memory. First fit, since versions of
//! one object are of about one size, and what is given back joins its neighbours.

use std::collections::BTreeMap;
use std::ops::Range;

/// Free ranges by their starts; no two of them touch.
#[derive(Debug, Default)]
pub struct Ranges {
    free: BTreeMap<u32, u32>,
}

impl Ranges {
    /// All of this range is free.
    pub fn new(all: Range<u32>) -> Ranges {
        let mut ranges = Ranges::default();
        ranges.give(all.start, all.end - all.start);
        ranges
    }

    /// Takes `len` numbers in a row: the first of them, `None` if there is no such range. None at all is always had.
    pub fn allocate(&mut self, len: u32) -> Option<u32> {
        if len == 0 {
            return Some(0);
        }
        let (start, end) =
            self.free.iter().map(|(start, end)| (*start, *end)).find(|(start, end)| end - start >= len)?;
        self.free.remove(&start);
        if end - start > len {
            self.free.insert(start + len, end);
        }
        Some(start)
    }

    /// Takes these, which something living has: true if all of them were free.
    pub fn take_at(&mut self, start: u32, len: u32) -> bool {
        let Some((from, to)) = self.free.range(..=start).next_back().map(|(from, to)| (*from, *to)) else {
            return len == 0;
        };
        let end = start.saturating_add(len);
        if len == 0 || to < end {
            return len == 0;
        }
        self.free.remove(&from);
        if from < start {
            self.free.insert(from, start);
        }
        if end < to {
            self.free.insert(end, to);
        }
        true
    }

    /// Gives what was taken back.
    pub fn give(&mut self, start: u32, len: u32) {
        if len == 0 {
            return;
        }
        let (mut start, mut end) = (start, start + len);
        if let Some((from, to)) = self.free.range(..=start).next_back().map(|(from, to)| (*from, *to))
            && to == start
        {
            self.free.remove(&from);
            start = from;
        }
        if let Some(to) = self.free.remove(&end) {
            end = to;
        }
        self.free.insert(start, end);
    }

    /// How many numbers are free.
    pub fn left(&self) -> u64 {
        self.free.iter().map(|(start, end)| u64::from(end - start)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Miri is some thousand times as slow.
    const ALL: u32 = if cfg!(miri) { 100 } else { 1000 };
    const STEPS: u32 = if cfg!(miri) { 100 } else { 100_000 };

    /// Random sequences of takes and gives beside one flag per number: nothing is given out twice or lost, and a
    /// refusal is true.
    #[test]
    fn nothing_is_given_out_twice_or_lost() {
        let mut random = 7u64;
        let mut next = |below: u32| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as u32 % below
        };
        let mut ranges = Ranges::new(0..ALL);
        let mut taken = [false; ALL as usize];
        let mut held: Vec<(u32, u32)> = Vec::new();
        for step in 0..STEPS {
            if next(2) == 0 || held.is_empty() {
                let len = 1 + next(60);
                match ranges.allocate(len) {
                    Some(start) => {
                        for at in start..start + len {
                            assert!(!std::mem::replace(&mut taken[at as usize], true), "step {step}: {at} twice");
                        }
                        held.push((start, len));
                    }
                    None => {
                        let fits = taken.windows(len as usize).any(|window| window.iter().all(|taken| !taken));
                        assert!(!fits, "step {step}: {len} in a row are free and refused");
                    }
                }
            } else {
                let (start, len) = held.swap_remove(next(held.len() as u32) as usize);
                ranges.give(start, len);
                taken[start as usize..(start + len) as usize].fill(false);
            }
            let left = taken.iter().filter(|taken| !**taken).count() as u64;
            assert_eq!(ranges.left(), left, "step {step}");
        }
        // What a successor rebuilds from the living is the same.
        let mut again = Ranges::new(0..ALL);
        assert!(held.iter().all(|(start, len)| again.take_at(*start, *len)));
        assert!(held.iter().all(|(start, len)| !again.take_at(*start, *len)), "a part of two records");
        assert_eq!(again.free, ranges.free);
        held.iter().for_each(|(start, len)| again.give(*start, *len));
        assert_eq!(again.allocate(ALL), Some(0), "all is one range again");
        assert_eq!((again.allocate(1), again.allocate(0)), (None, Some(0)));
    }
}
