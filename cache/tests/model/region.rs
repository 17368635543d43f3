//! As much of `cache/region.rs` as `cache/wait.rs` needs, without the mapping: one object, its parts, its
//! demand, the doorbell; and the engine's side of them in the order in which the engine goes.

use crate::demand::Demand;
use crate::doorbell::Doorbell;
use crate::futex_word::FutexWord;
use crate::lease::File;
use crate::part::{OwnPart, Part};
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};
use crate::verdict::{Handed, Verdict};

pub use ossc_cache::region::state;

/// Bytes of a part.
const PART: u64 = 10;
/// What each part's memory holds when it is right; 0 is a hole, others are half-written.
const RIGHT: u32 = 7;
/// What it holds when a byte of it came wrong.
const FLIPPED: u32 = 3;

pub struct Region {
    parts: Vec<OwnPart>,
    bits: Vec<AtomicU64>,
    summary: Vec<AtomicU64>,
    rings: AtomicU32,
    sleeps: AtomicU32,
    memory: Vec<AtomicU32>,
    /// A thread of the engine has the lease.
    leased: AtomicU32,
    /// Who writes into the part now.
    owners: Vec<std::sync::atomic::AtomicU32>,
}

pub struct Object {
    word: FutexWord,
    pub errno: AtomicU32,
    pub starved: AtomicU32,
    size: u64,
    pub verdict: Verdict,
    pub handed: Handed,
    ready: AtomicU32,
}

/// What the model's engine does wrong on purpose.
#[derive(Clone, Copy, Default)]
pub struct Wrong {
    pub publishes_early: bool,
    pub ignores_pins: bool,
    pub takes_back_late: bool,
    pub leaves_verdict: bool,
    pub drops_lease: bool,
    pub shares_lease: bool,
}

pub fn new(parts: u32) -> (Region, Object) {
    let some = 0..parts;
    let region = Region {
        parts: some.clone().map(|_| OwnPart::default()).collect(),
        bits: vec![AtomicU64::default()],
        summary: vec![AtomicU64::default()],
        rings: AtomicU32::default(),
        sleeps: AtomicU32::default(),
        memory: some.clone().map(|_| AtomicU32::default()).collect(),
        leased: AtomicU32::default(),
        owners: some.map(|_| Default::default()).collect(),
    };
    let object = Object {
        word: FutexWord::new(state::LOADING),
        errno: AtomicU32::new(0),
        starved: AtomicU32::new(0),
        size: PART * u64::from(parts),
        verdict: Verdict::default(),
        handed: Handed::default(),
        ready: AtomicU32::new(0),
    };
    object.handed.begin(1);
    (region, object)
}

impl Region {
    pub fn doorbell(&self) -> Doorbell<'_> {
        Doorbell { rings: &self.rings, sleeps: &self.sleeps }
    }

    pub fn part(&self, _: &Object, index: u32) -> Part<'_> {
        self.parts[index as usize].part()
    }

    pub fn demand(&self, object: &Object, first: u32, end: u32) {
        let mut any = false;
        for index in (first..end).filter(|index| !self.part(object, *index).is_ready()) {
            Demand { bits: &self.bits, summary: &self.summary }.set(index);
            any = true;
        }
        if any {
            self.doorbell().ring();
        }
    }

    pub fn demand_unknown(&self, object: &Object, round: u32) {
        let parts = 0..self.parts.len() as u32;
        for index in parts.filter(|index| !self.part(object, *index).is_known(round)) {
            self.demand(object, index, index + 1);
        }
    }

    pub fn take_demand(&self, each: impl FnMut(u32)) {
        Demand { bits: &self.bits, summary: &self.summary }.drain(each);
    }

    /// What a reader copies.
    pub fn copy(&self, index: u32) -> u32 {
        self.memory[index as usize].load(Ordering::Relaxed)
    }

    /// A reader's copy as `src/preload/copy.rs` makes it: right, or to be made again.
    pub fn copied(&self, object: &Object, index: u32, looks_again: bool) -> Option<u32> {
        let fills = || {
            fence(Ordering::SeqCst);
            self.part(object, index).fill()
        };
        let before = fills()?;
        let copied = self.copy(index);
        (!looks_again || fills() == Some(before)).then_some(copied)
    }

    /// The engine's fill of one part; false if somebody else has it.
    pub fn fill(&self, object: &Object, index: u32, gives_up: bool, wrong: Wrong) -> bool {
        let (part, memory, owner) =
            (self.part(object, index), &self.memory[index as usize], &self.owners[index as usize]);
        if !part.claim() {
            return false;
        }
        assert_eq!(owner.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0, "two fillers at a time");
        memory.store(RIGHT + 1, Ordering::Relaxed);
        if gives_up {
            owner.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            part.give_up();
            return true;
        }
        if wrong.publishes_early {
            part.publish(0);
        }
        memory.store(RIGHT, Ordering::Relaxed);
        owner.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        if !wrong.publishes_early {
            part.publish(0);
        }
        if object.ready.fetch_add(1, Ordering::AcqRel) + 1 == self.parts.len() as u32 {
            object.set_state(state::VERIFIED);
        }
        true
    }

    /// The engine's look at the lease, as `src/ossc/work/residency/lease.rs` does it: under the lease pins are of nobody. `releases`: it
    /// gives back what it can.
    pub fn look_at_lease(&self, object: &Object, file: &File, releases: bool, wrong: Wrong) {
        if !wrong.shares_lease && self.leased.swap(1, Ordering::SeqCst) != 0 {
            return;
        }
        if file.lease() {
            if wrong.drops_lease {
                file.give_back();
            }
            for index in 0..self.parts.len() as u32 {
                self.part(object, index).unpin();
                let _ = releases && self.release(object, index, wrong);
            }
            if !wrong.drops_lease {
                file.give_back();
            }
        }
        self.leased.store(0, Ordering::SeqCst);
    }

    /// A fill of the round that is `right` or not; its CRC-64 is known before it is published.
    pub fn fill_of_round(&self, object: &Object, index: u32, round: u32, right: bool) {
        let (part, memory) = (self.part(object, index), &self.memory[index as usize]);
        assert!(part.claim());
        memory.store(if right { RIGHT } else { FLIPPED }, Ordering::Relaxed);
        part.learn(u64::from(round), round);
        part.publish(u64::from(round));
    }

    /// A mismatch, as `src/ossc/work/objects/verdict.rs` has it: the next round begins, then the parts are taken back.
    pub fn begin_round(&self, object: &Object) {
        object.verdict.set(object.verdict.get().next(), &object.handed);
        for index in 0..self.parts.len() as u32 {
            let part = self.part(object, index);
            if part.take_back() {
                self.memory[index as usize].store(0, Ordering::Relaxed);
                part.give_up();
            }
        }
    }

    /// The engine gives a part up, as `src/ossc/work/shared/fill.rs` does. False if it has to stay.
    pub fn release(&self, object: &Object, index: u32, wrong: Wrong) -> bool {
        let (part, memory) = (self.part(object, index), &self.memory[index as usize]);
        let verified = object.state() == state::VERIFIED;
        if verified && !wrong.leaves_verdict {
            object.set_state(state::LOADING);
        }
        if wrong.takes_back_late {
            memory.store(0, Ordering::Relaxed);
        }
        if !part.take_back() {
            return false;
        }
        fence(Ordering::SeqCst);
        let stays = part.is_pinned() && !wrong.ignores_pins;
        if stays {
            part.publish(part.crc64());
            if verified {
                object.set_state(state::VERIFIED);
            }
            return false;
        }
        memory.store(0, Ordering::Relaxed);
        object.ready.fetch_sub(1, Ordering::AcqRel);
        part.give_up();
        true
    }
}

impl Object {
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn state(&self) -> u32 {
        self.word.get()
    }

    pub fn set_state(&self, state: u32) {
        self.word.set(state);
    }

    pub fn fail(&self, errno: i32) {
        self.errno.store(errno as u32, Ordering::Release);
        self.set_state(state::FAILED);
        self.verdict.stir();
    }

    pub fn sleep(&self, seen: u32, ms: u64) {
        self.word.sleep(seen, ms);
    }

    pub fn parts_of(&self, start: u64, end: u64) -> core::ops::Range<u32> {
        (start / PART) as u32..end.div_ceil(PART) as u32
    }
}

/// Every byte that a reader accepts is the object's.
pub fn assert_right(copied: u32) {
    assert_eq!(copied, RIGHT, "a reader accepted wrong bytes");
}
