//! What is true in one run, beside what the engine believes: who fills what, which bytes have arrived, who uses an
//! object, and why a part may be fetched again. Every violation is reported here.
//!
//! Shared by the world, the memory and the source's watcher. The rest of a run only asks it and tells it.

use crate::bytes;
use crate::fault::{Fault, Faults};
use crate::fill::Fill;
use ossc_cache::block;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is true of one part.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// From its first request on, until it is there or given up.
    pub fill: Option<Fill>,
    /// All its bytes have arrived, and are still there.
    pub good: bool,
    /// The wrong bytes among them that the origin has sent: offsets of the object, rising.
    pub flips: Vec<u64>,
    /// The wrong bytes among those whose check value the engine has in this round; they themselves may be gone. None
    /// while it has none.
    pub known: Option<Vec<u64>>,
    /// It has come with other bytes than those.
    pub differs: bool,
    /// Blocks that are there while it is not, with the wrong bytes among them.
    pub small: BTreeMap<u32, Vec<u64>>,
    /// The same of those whose check value the engine has in this round.
    pub small_known: BTreeMap<u32, Vec<u64>>,
    /// One of them came with other bytes than those.
    pub small_differs: bool,
    /// It has memory.
    pub resident: bool,
    /// How often it may be fetched from now on: once, and once more for each reason.
    pub allowance: u32,
    /// Living readers that hold it for a copy.
    pub entry: u32,
    /// Living programs that have pinned it and wait for their map.
    pub pinned: u32,
    /// Living programs that have it mapped.
    pub mapped: u32,
}

/// What is true of one record of the catalog.
pub struct Truth {
    /// Number in the region.
    pub slot: u32,
    /// Which object of the bucket.
    pub thing: usize,
    /// As listed.
    pub etag: String,
    /// Where its bytes begin in the table.
    pub salt: usize,
    /// Bytes.
    pub size: u64,
    /// Bytes of a part.
    pub part_bytes: u64,
    /// Address of its memory.
    pub at: usize,
    /// Living programs that have it open.
    pub users: u32,
    /// Round of the verdict, as it was seen last.
    pub round: u32,
    /// The engine has given it up, since its bytes were wrong again and again: what still comes of it is dropped.
    pub refused: bool,
    /// Rounds in a row that ended in a mismatch.
    pub mismatches: u32,
    /// It was given up for them, and is tried again.
    pub tried_again: bool,
    /// It was seen in the state FAILED of this engine.
    pub failed: bool,
    /// None for a small object.
    pub parts: Vec<Part>,
}

impl Truth {
    /// Bytes of a part.
    pub fn range(&self, index: u32) -> Range<u64> {
        let start = u64::from(index) * self.part_bytes;
        start..(start + self.part_bytes).min(self.size)
    }

    /// True if `found` is what the origin has sent for this part.
    pub fn is_right(&self, index: u32, found: &[u8]) -> bool {
        let (range, flips) = (self.range(index), &self.parts[index as usize].flips);
        if flips.is_empty() { found == bytes::of(self.salt, range) } else { self.wrong(range, found) == *flips }
    }

    /// Whether the check of the whole, or of a part that has come again, has to fail.
    pub fn is_misjudged(&self) -> bool {
        self.refused || self.parts.iter().any(|part| part.differs || part.small_differs) || !self.is_sound()
    }

    /// Whether the check of the whole may pass.
    pub fn is_sound(&self) -> bool {
        let is_right =
            |part: &Part| part.known.as_ref().is_none_or(Vec::is_empty) && part.small_known.values().all(Vec::is_empty);
        self.parts.iter().all(is_right)
    }

    /// Nothing that is known of the bytes counts any more.
    pub fn begin_round(&mut self, round: u32) {
        self.round = round;
        for part in &mut self.parts {
            (part.known, part.differs, part.small_differs) = (None, false, false);
            part.small_known.clear();
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> u64 {
        u64::from(block::block_bytes(self.part_bytes as u32))
    }

    /// The bytes of block `n` of a part.
    pub fn block(&self, index: u32, n: u32) -> Range<u64> {
        let (range, bytes) = (self.range(index), self.block_bytes());
        let start = range.start + u64::from(n) * bytes;
        start..(start + bytes).min(range.end)
    }

    /// How many blocks a part has.
    pub fn blocks(&self, index: u32) -> u32 {
        let range = self.range(index);
        (range.end - range.start).div_ceil(self.block_bytes()) as u32
    }

    /// The blocks that a range of an object is cut into, which begins with one: their numbers and the wrong bytes.
    fn cut(&self, index: u32, start: u64, found: &[u8]) -> Vec<(u32, Vec<u64>)> {
        let first = ((start - self.range(index).start) / self.block_bytes()) as u32;
        let of = |(n, bytes): (u32, &[u8])| {
            let range = self.block(index, n);
            (n, self.wrong(range.start..range.start + bytes.len() as u64, bytes))
        };
        (first..).zip(found.chunks(self.block_bytes() as usize)).map(of).collect()
    }

    /// The wrong bytes among what is known of a block in this round, by itself or with its part.
    fn known_of(&self, index: u32, n: u32) -> Option<Vec<u64>> {
        let (part, range) = (&self.parts[index as usize], self.block(index, n));
        let inside = |flips: &Vec<u64>| flips.iter().copied().filter(|at| range.contains(at)).collect();
        part.small_known.get(&n).cloned().or_else(|| part.known.as_ref().map(inside))
    }

    /// Bytes that blocks of a part take.
    pub fn small_bytes(&self, index: u32) -> u64 {
        let len = |n: &u32| {
            let range = self.block(index, *n);
            range.end - range.start
        };
        self.parts[index as usize].small.keys().map(len).sum()
    }

    /// Offsets where `found` differs from the bytes of this range.
    pub fn wrong(&self, range: Range<u64>, found: &[u8]) -> Vec<u64> {
        let right = bytes::of(self.salt, range.clone());
        if found == right {
            return Vec::new();
        }
        range.zip(found.iter().zip(right)).filter(|(_, (found, right))| found != right).map(|(at, _)| at).collect()
    }
}

/// A second request under way.
pub struct Second {
    /// Its token.
    pub token: u64,
    /// Number of the fill that it was for.
    pub fill: u64,
    /// Of the object.
    pub range: Range<u64>,
}

/// A request for blocks under way.
pub struct Few {
    /// Its token.
    pub token: u64,
    /// Record.
    pub slot: u32,
    /// Of the object.
    pub range: Range<u64>,
}

/// What the engine may ask for twice.
#[derive(Default)]
pub struct Twice {
    /// Most bytes, in percent of all.
    pub percent: u64,
    /// Bytes that requests in place have brought to this engine.
    pub came: u64,
    /// Bytes that it has asked for a second time.
    pub asked: u64,
}

/// See the module.
pub struct Stage {
    /// Every choice of the run comes from it.
    pub rng: fastrand::Rng,
    /// Rates and counts.
    pub faults: Faults,
    /// Records, by the order of their slots.
    pub truths: Vec<Truth>,
    /// Requests under way.
    pub in_flight: usize,
    /// Second requests under way.
    pub seconds: Vec<Second>,
    /// Requests for blocks under way.
    pub few: Vec<Few>,
    /// How much is asked for twice.
    pub twice: Twice,
    /// A request under way gets its pages.
    pub presents: bool,
    /// What else got pages, or none, since the last pull: bytes that are to be asked for a second time.
    pub tried: Vec<(u32, Range<u64>)>,
    /// Fills so far.
    pub fills: u64,
    /// Bodies of second requests that were copied so far.
    pub copies: u64,
    /// Most bytes that may be resident.
    pub limit: u64,
    /// How often connections may be freed for a reader from now on: once for each object of an engine, and once more
    /// for each whose memory was given back.
    pub ways: usize,
    /// A request for this record is just ending: good parts are only given back by the check of the whole.
    pub ending: Option<u32>,
    /// Flips that the origin has sent: salt and offset.
    pub flips: Vec<(usize, u64)>,
    /// A demand that comes when the plan was just found empty, as an index into the region.
    pub armed: Option<u32>,
    /// When the body of the answer that was made last begins to drip.
    pub dripped: Option<u64>,
    /// When the process, or the machine, last stood still.
    pub stood_until: u64,
    /// Requests under way that something waits for, by token.
    pub urgent: BTreeMap<u64, bool>,
    /// Virtual microseconds.
    pub micros: u64,
    violation: Option<String>,
    trace: bool,
}

/// A run's stage, as its parts share it.
pub type Shared = Arc<Mutex<Stage>>;

/// Locks; everything runs on one thread.
pub fn lock(stage: &Shared) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stage {
    /// Of one seed.
    pub fn new(seed: u64, trace: bool) -> Stage {
        let mut rng = fastrand::Rng::with_seed(seed);
        let faults = Faults::new(&mut rng);
        Stage {
            rng,
            faults,
            truths: Vec::new(),
            in_flight: 0,
            seconds: Vec::new(),
            few: Vec::new(),
            twice: Twice::default(),
            presents: false,
            tried: Vec::new(),
            fills: 0,
            copies: 0,
            limit: 0,
            ways: 0,
            ending: None,
            flips: Vec::new(),
            armed: None,
            dripped: None,
            stood_until: 0,
            urgent: BTreeMap::new(),
            micros: 0,
            violation: None,
            trace,
        }
    }

    /// Whether a fault happens now.
    pub fn strike(&mut self, fault: Fault) -> bool {
        let strikes = self.faults.strike(&mut self.rng, fault);
        if strikes {
            self.say(|| format!("fault: {fault:?}"));
        }
        strikes
    }

    /// Whether anything has made an answer late in this run, but the line that all share.
    pub fn had_silence(&self) -> bool {
        let late = [
            Fault::ConnectTimeout,
            Fault::StallHead,
            Fault::StallBody,
            Fault::Trickle,
            Fault::Drip,
            Fault::SlowAnswer,
            Fault::InterimForEver,
            Fault::WrongLength,
        ];
        late.iter().any(|fault| self.faults.counts[*fault as usize] > 0)
    }

    /// A line of the trace.
    pub fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>12} us  {}", self.micros, text());
        }
    }

    /// Something that must never be. The first one counts.
    pub fn violated(&mut self, text: String) {
        self.say(|| format!("VIOLATION: {text}"));
        self.violation.get_or_insert(text);
    }

    /// What was violated, if anything.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// The record with this number.
    pub fn truth(&mut self, slot: u32) -> Option<&mut Truth> {
        let first = self.truths.first()?.slot;
        self.truths.get_mut(slot.checked_sub(first)? as usize)
    }

    /// The engine has given the memory of these bytes back.
    pub fn punched(&mut self, slot: u32, start: u64, end: u64, is_claimed: bool) {
        let (mut wrong, mut seen) = (None, None);
        let judged = self.ending == Some(slot);
        let Some(truth) = self.truth(slot) else { return };
        let spoiled = truth.is_misjudged();
        for index in (start / truth.part_bytes) as u32..end.div_ceil(truth.part_bytes) as u32 {
            let part = &mut truth.parts[index as usize];
            if let Some(text) = part.fill.take().and_then(|fill| given_up(&fill)) {
                wrong = Some(format!("part {index} of record {slot} {text}"));
            } else if part.mapped > 0 || part.good && !judged && part.entry + part.pinned > 0 {
                wrong = Some(format!("memory of part {index} of record {slot} is given back under a reader"));
            } else if part.good && judged && !spoiled {
                wrong = Some(format!("part {index} of record {slot} is given back although its bytes were right"));
            } else if part.good {
                seen = Some(match truth.users {
                    _ if judged => Fault::WrongByteOnce,
                    0 => Fault::EvictedObject,
                    _ => Fault::EvictedPart,
                });
            } else if !part.small.is_empty() {
                seen = Some(if is_claimed { Fault::FewThenPart } else { Fault::FewEvicted });
            }
            part.small.clear();
            (part.good, part.resident) = (false, false);
            part.flips.clear();
            part.allowance = 1;
        }
        self.ways += 1;
        self.say(|| format!("given back: record {slot}, bytes {start}..{end}"));
        if let Some(fault) = seen {
            self.faults.saw(fault);
        }
        if let Some(text) = wrong {
            self.violated(text);
        }
    }

    /// Somebody is about to write at this byte: a request in place that begins, or the copy of a body.
    pub fn reached(&mut self, slot: u32, offset: u64, is_claimed: bool) {
        self.copies += u64::from(self.ending == Some(slot));
        let Some(truth) = self.truth(slot) else { return };
        let index = offset / truth.part_bytes;
        let wrong = match &truth.parts[index as usize].fill {
            _ if !is_claimed => "and nobody has claimed it",
            Some(fill) if fill.receives_at(offset) => "under a receive",
            _ => return,
        };
        self.violated(format!("part {index} of record {slot} is written to {wrong}"));
    }

    /// Blocks are about to be copied to their place.
    pub fn few(&mut self, slot: u32, index: u32, start: u64, found: &[u8], is_empty: bool) {
        let Some(truth) = self.truth(slot) else { return };
        let (salt, blocks) = (truth.salt, truth.cut(index, start, found));
        let part = &truth.parts[index as usize];
        let mut wrong = (!is_empty || part.good || part.fill.is_some()).then_some("while the part is not its own");
        let mut again = false;
        for (n, flips) in &blocks {
            if truth.known_of(index, *n).is_some_and(|known| known != *flips) {
                wrong = Some("with other bytes than are known");
            }
            let part = &mut truth.parts[index as usize];
            again |= part.small.insert(*n, flips.clone()).is_some();
            part.small_known.insert(*n, flips.clone());
        }
        if again {
            wrong = Some("twice");
        } else if !blocks.iter().all(|(_, flips)| self.was_sent(salt, flips)) {
            wrong = Some("with bytes that nobody sent");
        }
        if let Some(wrong) = wrong {
            self.violated(format!("blocks of part {index} of record {slot} are put in place {wrong}"));
        }
    }

    /// Blocks have come: whether they are what was known.
    pub fn few_came(&mut self, slot: u32, index: u32, start: u64, found: &[u8]) {
        let Some(truth) = self.truth(slot) else { return };
        let (salt, blocks) = (truth.salt, truth.cut(index, start, found));
        let (mut again, mut differs) = (false, false);
        for (n, flips) in &blocks {
            let known = truth.known_of(index, *n);
            again |= known.is_some();
            differs |= known.is_some_and(|known| known != *flips);
        }
        truth.parts[index as usize].small_differs |= differs;
        if again {
            self.faults.saw(Fault::FewAgain);
        }
        if differs {
            self.faults.saw(Fault::FewWrong);
        }
        if !blocks.iter().all(|(_, flips)| self.was_sent(salt, flips)) {
            self.violated(format!("blocks of part {index} of record {slot} are said to be there, but are wrong"));
        }
    }

    /// A part is about to be published: are its bytes all there, and does nobody write to it any more?
    pub fn whole(&mut self, slot: u32, index: u32, found: &[u8]) {
        let Some(truth) = self.truth(slot) else { return };
        let range = truth.range(index);
        let (salt, flips) = (truth.salt, truth.wrong(range.clone(), found));
        let part = &mut truth.parts[index as usize];
        let fill = part.fill.take();
        (part.good, part.flips) = (true, flips.clone());
        part.differs = *part.known.get_or_insert_with(|| flips.clone()) != flips;
        let all: Vec<(u32, Vec<u64>)> = truth.cut(index, range.start, found);
        let part = &mut truth.parts[index as usize];
        let is_other = |(n, flips): &(u32, Vec<u64>)| part.small_known.get(n).is_some_and(|known| known != flips);
        let differs = all.iter().any(is_other);
        part.small_differs |= differs;
        if differs {
            self.faults.saw(Fault::FewWrong);
        }
        let wrong = match fill {
            None => "ends twice",
            Some(fill) if fill.is_under_way() => "is published under a receive",
            Some(fill) if fill.asked() != range.end - range.start => "is published without all of its pieces",
            Some(_) if !self.was_sent(salt, &flips) => "is said to be there, but its bytes are wrong",
            Some(_) => return,
        };
        self.violated(format!("part {index} of record {slot} {wrong}"));
    }

    /// A part is empty again.
    pub fn gave_up(&mut self, slot: u32, index: u32) {
        let Some(part) = self.truth(slot).map(|truth| &mut truth.parts[index as usize]) else { return };
        part.allowance = 1;
        if let Some(text) = part.fill.take().and_then(|fill| given_up(&fill)) {
            self.violated(format!("part {index} of record {slot} {text}"));
        }
    }

    /// Whether an address lies in an object's memory.
    pub fn is_in_place(&self, at: usize) -> bool {
        self.truths
            .iter()
            .any(|truth| !truth.parts.is_empty() && (truth.at..truth.at + truth.size as usize).contains(&at))
    }

    /// Whether the origin has sent all these wrong bytes.
    pub fn was_sent(&self, salt: usize, flips: &[u64]) -> bool {
        flips.iter().all(|at| self.flips.contains(&(salt, *at)))
    }

    /// A small number of microseconds around `mean`, seldom many.
    pub fn jitter(&mut self, mean: u64) -> u64 {
        match self.rng.u32(0..32) {
            0 => self.rng.u64(0..=mean * 20),
            _ => self.rng.u64(0..=mean * 2),
        }
    }
}

/// What is wrong with giving it up.
fn given_up(fill: &Fill) -> Option<&'static str> {
    match () {
        () if fill.is_under_way() => Some("is given up under a receive"),
        () if !fill.has_failed() => Some("is given up without a reason"),
        () => None,
    }
}
