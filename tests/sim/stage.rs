//! What is true in one run, beside what the engine believes: who fills what, which bytes have arrived, who uses an
//! object, and why a part may be fetched again. Every violation is reported here.
//!
//! Shared by the world, the memory and the source's watcher. The rest of a run only asks it and tells it.

use crate::bytes;
use crate::fault::{Fault, Faults};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is true of one part.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// A request for it is under way.
    pub filling: bool,
    /// All its bytes have arrived, and are still there.
    pub good: bool,
    /// The origin has sent one wrong byte, at this offset of the object.
    pub flip: Option<u64>,
    /// It has memory.
    pub resident: bool,
    /// How often it may be fetched from now on: once, and once more for each reason.
    pub allowance: u32,
    /// Living readers that hold it for a copy.
    pub held: u32,
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
    /// It was seen in the state FAILED of this engine.
    pub failed: bool,
    /// Its bytes were given back since the check of the whole has failed, and did not all come again yet.
    pub rechecked: bool,
    /// None for a small object.
    pub parts: Vec<Part>,
}

impl Truth {
    /// Bytes of a part.
    pub fn range(&self, index: u32) -> std::ops::Range<u64> {
        let start = u64::from(index) * self.part_bytes;
        start..(start + self.part_bytes).min(self.size)
    }

    /// True if `found` is what the origin has sent for this part.
    pub fn is_right(&self, index: u32, found: &[u8]) -> bool {
        let (range, flip) = (self.range(index), self.parts[index as usize].flip);
        let right = bytes::of(self.salt, range.clone());
        match flip {
            None => found == right,
            Some(at) => differs_at(found, right) == Some((at - range.start) as usize),
        }
    }
}

/// The only place where the two differ; `None` if they are equal or differ in several.
pub fn differs_at(a: &[u8], b: &[u8]) -> Option<usize> {
    let at = a.iter().zip(b).position(|(a, b)| a != b)?;
    (a.len() == b.len() && a[at + 1..] == b[at + 1..]).then_some(at)
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
    /// Most bytes that may be resident.
    pub limit: u64,
    /// A request for this record is just ending: good parts are only given back by the check of the whole.
    pub ending: Option<u32>,
    /// Flips that the origin has sent: salt and offset.
    pub flips: Vec<(usize, u64)>,
    /// A demand that comes when the plan was just found empty, as an index into the region.
    pub armed: Option<u32>,
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
            limit: 0,
            ending: None,
            flips: Vec::new(),
            armed: None,
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
    pub fn punched(&mut self, slot: u32, start: u64, end: u64) {
        let (mut wrong, mut seen) = (None, None);
        let judged = self.ending == Some(slot);
        let Some(truth) = self.truth(slot) else { return };
        let spoiled = truth.parts.iter().any(|part| part.flip.is_some());
        for index in (start / truth.part_bytes) as u32..end.div_ceil(truth.part_bytes) as u32 {
            let part = &mut truth.parts[index as usize];
            if part.filling {
                wrong = Some(format!("memory of part {index} of record {slot} is given back under a receive"));
            } else if part.mapped > 0 || part.good && !judged && part.held + part.pinned > 0 {
                wrong = Some(format!("memory of part {index} of record {slot} is given back under a reader"));
            } else if part.good && judged && !spoiled && !truth.rechecked {
                wrong = Some(format!("part {index} of record {slot} is given back although its bytes were right"));
            } else if part.good {
                seen = Some(match truth.users {
                    _ if judged => Fault::WrongByteOnce,
                    0 => Fault::EvictedObject,
                    _ => Fault::EvictedPart,
                });
                truth.rechecked = judged;
            }
            (part.good, part.resident, part.flip) = (false, false, None);
            part.allowance = 1;
        }
        self.say(|| format!("given back: record {slot}, bytes {start}..{end}"));
        if let Some(fault) = seen {
            self.faults.saw(fault);
        }
        if let Some(text) = wrong {
            self.violated(text);
        }
    }

    /// A small number of microseconds around `mean`, seldom many.
    pub fn jitter(&mut self, mean: u64) -> u64 {
        match self.rng.u32(0..32) {
            0 => self.rng.u64(0..=mean * 20),
            _ => self.rng.u64(0..=mean * 2),
        }
    }
}
