//! Events: what clients did, for the engine's audit file. A ring of single words, written by anybody, read
//! by the engine.
//!
//! An event is one word with the lap it was told in, written by one compare-and-swap, so it is there whole
//! or not at all, whoever dies when. The head is moved after the write, by the writer or by the next one
//! who finds it behind. Each event is taken once or counted as lost: a taken place keeps its lap and a
//! mark, so that a writer who was stopped for long cannot put an old event over it. Nobody waits for anybody, and whatever
//! a program has written into ring and head costs events alone: a writer gives up after `TRIES`, the engine takes at
//! most one ring at a time.

use crate::sync::{AtomicU64, Ordering};

/// Something a client did that the audit file tells of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Process id of the client; below 2^22, the kernel's PID_MAX_LIMIT.
    pub pid: u32,
    /// Record number; below 2^17, `OBJECTS_MAX`.
    pub slot: u32,
    /// 1 opened, 2 mapped, 3 as a FILE; `ACT_GIVEN`, `ACT_SMALL`.
    pub act: u32,
}

/// The process is being given bytes of the object before the verdict on it: once for each round of the object.
pub const ACT_GIVEN: u32 = 0;
/// The process has opened a small object for the first time.
pub const ACT_SMALL: u32 = 4;

const PID_BITS: u32 = 22;
const SLOT_BITS: u32 = 17;
const ACT_BITS: u32 = 3;
const TAKEN: u64 = 1 << (PID_BITS + SLOT_BITS + ACT_BITS);
const LAP_SHIFT: u32 = PID_BITS + SLOT_BITS + ACT_BITS + 1;
/// How often a writer looks for its place: more than ever write at once.
const TRIES: usize = 1024;
/// Laps are told apart modulo this; a writer would have to be stopped for all of them to be mistaken.
const LAPS: u64 = 1 << (64 - LAP_SHIFT);

fn low(value: u32, bits: u32) -> u64 {
    u64::from(value) & ((1 << bits) - 1)
}

fn pack(lap: u64, seen: Seen) -> u64 {
    let what = low(seen.act, ACT_BITS) << SLOT_BITS | low(seen.slot, SLOT_BITS);
    lap << LAP_SHIFT | what << PID_BITS | low(seen.pid, PID_BITS)
}

fn unpack(word: u64) -> Seen {
    let cut = |shift: u32, bits: u32| (word >> shift & ((1 << bits) - 1)) as u32;
    Seen { pid: cut(0, PID_BITS), slot: cut(PID_BITS, SLOT_BITS), act: cut(PID_BITS + SLOT_BITS, ACT_BITS) }
}

/// The ring and its counters, in the region.
pub struct Events<'a> {
    /// The ring.
    pub places: &'a [AtomicU64],
    /// How many were told.
    pub head: &'a AtomicU64,
    /// How many were overwritten before the engine took them.
    pub lost: &'a AtomicU64,
}

impl Events<'_> {
    /// Tells one. A full ring loses its oldest, and counts it.
    pub fn tell(&self, seen: Seen) {
        for _ in 0..TRIES {
            let number = self.head.load(Ordering::Acquire);
            let (place, lap) = self.place(number);
            let old = place.load(Ordering::Acquire);
            if old >> LAP_SHIFT == lap.wrapping_sub(1) % LAPS {
                let new = pack(lap, seen);
                if place.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                    if old >> LAP_SHIFT != 0 && old & TAKEN == 0 {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                    }
                    self.move_head(number);
                    return;
                }
            } else {
                // Told by somebody who has not moved the head yet (or never will), or moved meanwhile.
                self.move_head(number);
            }
        }
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Engine only: takes the events from number `next` on; returns the next number to read. What an engine
    /// before this one has taken is not given again. A head that went back is one that no writer has moved so: all that
    /// the ring holds is looked at.
    pub fn drain_from(&self, next: u64, mut each: impl FnMut(Seen)) -> u64 {
        let mut head = self.head.load(Ordering::Acquire);
        let next = if next > head.saturating_add(1) { 0 } else { next };
        let (place, lap) = self.place(head);
        if place.load(Ordering::Acquire) >> LAP_SHIFT == lap {
            self.move_head(head);
            head = head.saturating_add(1);
        }
        for number in next.max(head.saturating_sub(self.places.len() as u64))..head {
            let (place, lap) = self.place(number);
            let word = place.load(Ordering::Acquire);
            let there = word >> LAP_SHIFT == lap && word & TAKEN == 0;
            if there && place.compare_exchange(word, word | TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                each(unpack(word));
            }
        }
        head
    }

    /// Where event `number` lies, and the lap that its word carries.
    fn place(&self, number: u64) -> (&AtomicU64, u64) {
        let len = self.places.len() as u64;
        (&self.places[(number % len) as usize], (number / len).wrapping_add(1) % LAPS)
    }

    fn move_head(&self, number: u64) {
        let _ = self.head.compare_exchange(number, number.wrapping_add(1), Ordering::AcqRel, Ordering::Acquire);
    }
}
