//! Stands between the vcpus and the engine's work: sees every request begin and end, and holds it against what is
//! true. The work behind it is the engine's own.

use crate::bytes;
use crate::fault::Fault;
use crate::memory;
use crate::stage::{self, Part, Shared, Stage};
use ossc_cache::part::EMPTY;
use ossc_cache::region::state;
use ossc_engine::item::Item;
use ossc_engine::work::Work;
use ossc_net::{Fetch, Finished, Pull, Sink, Source};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// See the module.
pub struct Watch {
    work: Arc<Work>,
    stage: Shared,
}

impl Watch {
    /// Of one engine.
    pub fn new(work: Arc<Work>, stage: Shared) -> Watch {
        Watch { work, stage }
    }

    fn begins(&self, fetch: &Fetch) {
        let mut stage = stage::lock(&self.stage);
        stage.in_flight += 1;
        let Item::Part(slot, index) = Item::from_token(fetch.token) else { return };
        stage.say(|| format!("fetch: part {index} of record {slot}"));
        let Some(truth) = stage.truth(slot) else {
            return stage.violated(format!("a request for record {slot}, which is none"));
        };
        let range = truth.range(index);
        let at = truth.at + range.start as usize;
        let fits = matches!(fetch.sink, Sink::Memory { at: sink, len, .. } if sink as usize == at
            && len as u64 == range.end - range.start);
        let part = &mut truth.parts[index as usize];
        let wrong = match () {
            () if !fits => Some("has another place than its own"),
            () if part.filling => Some("has two owners"),
            () if part.good => Some("is fetched although it is there"),
            () if part.allowance == 0 => Some("is fetched again without a reason"),
            () => None,
        };
        part.filling = true;
        part.allowance = part.allowance.saturating_sub(1);
        if let Some(wrong) = wrong {
            stage.violated(format!("part {index} of record {slot} {wrong}"));
        }
    }

    fn ends(&self, done: &Finished) {
        let mut stage = stage::lock(&self.stage);
        stage.in_flight -= 1;
        stage.say(|| match &done.result {
            Ok(_) => format!("done: {:?}", Item::from_token(done.token)),
            Err(error) => format!("failed: {:?}: {error}", Item::from_token(done.token)),
        });
        let item = Item::from_token(done.token);
        let Item::Part(slot, index) = item else { return };
        match done.result.is_ok() {
            true => arrived(&mut stage, slot, index),
            false => {
                if let Some(truth) = stage.truth(slot) {
                    let part = &mut truth.parts[index as usize];
                    (part.filling, part.allowance) = (false, 1);
                }
            }
        }
    }

    /// Wrong bytes a second time: the object has failed, with all its parts there. The first time its parts are empty
    /// again, also those whose memory stays for readers.
    fn check_failed(&self, slot: u32) {
        let (Some(object), mut stage) = (self.work.region().object(slot), stage::lock(&self.stage)) else { return };
        let failed = object.state() == state::FAILED;
        let spoiled =
            |parts: &[Part]| parts.iter().all(|part| part.good) && parts.iter().any(|part| part.flip.is_some());
        if failed && stage.truth(slot).is_some_and(|truth| spoiled(&truth.parts)) {
            stage.faults.saw(Fault::WrongByteTwice);
        }
        let Some(truth) = stage.truth(slot) else { return };
        let mut reasons = truth.parts.iter().any(|part| part.flip.is_some()) || truth.rechecked;
        let mut kept = 0;
        for (index, part) in truth.parts.iter_mut().enumerate().filter(|(_, part)| part.good) {
            if self.work.region().part(object, index as u32).state() == EMPTY {
                (part.good, part.flip, part.allowance) = (false, None, 1);
                kept += 1;
            }
        }
        reasons |= kept == 0;
        if !reasons {
            stage.violated(format!("record {slot} is fetched again although its bytes were right"));
        } else if kept > 0 {
            stage.faults.saw(Fault::WrongByteOnce);
        }
    }
}

/// The bytes of a part are all there, it is said: are they?
fn arrived(stage: &mut Stage, slot: u32, index: u32) {
    let Some(truth) = stage.truth(slot) else { return };
    let range = truth.range(index);
    let found = memory::look(truth.at + range.start as usize, (range.end - range.start) as usize);
    let right = bytes::of(truth.salt, range.clone());
    let salt = truth.salt;
    truth.rechecked = false;
    let part = &mut truth.parts[index as usize];
    let was_filling = std::mem::replace(&mut part.filling, false);
    part.good = true;
    if found != right {
        let flip = stage::differs_at(found, right).map(|at| range.start + at as u64);
        part.flip = flip;
        let sent = flip.is_some_and(|at| stage.flips.contains(&(salt, at)));
        if !sent {
            stage.violated(format!("part {index} of record {slot} is said to be there, but its bytes are wrong"));
        }
    }
    if !was_filling {
        stage.violated(format!("part {index} of record {slot} ends twice"));
    }
}

impl Source for Watch {
    fn pull(&self, now: Instant) -> Pull {
        let pull = self.work.pull(now);
        match &pull {
            Pull::Fetch(fetch) => self.begins(fetch),
            Pull::Until(at) => {
                let mut stage = stage::lock(&self.stage);
                if at.is_some_and(|at| at <= now) {
                    stage.violated("the plan is asked again at once: vcpus would spin".into());
                }
                // Somebody asks for a part at this very moment: the plan was looked at, and nobody sleeps yet.
                if let Some(part) = stage.armed.take() {
                    stage.faults.saw(Fault::RacedDemand);
                    drop(stage);
                    self.work.demanded(part);
                }
            }
        }
        pull
    }

    fn make_present(&self, token: u64, filled: usize, bytes: Range<usize>) -> Result<(), ossc_net::Error> {
        self.work.make_present(token, filled, bytes)
    }

    fn finished(&self, done: Finished) {
        self.ends(&done);
        let item = Item::from_token(done.token);
        let retryable = done.result.as_ref().is_err_and(ossc_net::Error::retryable);
        if let Item::Part(slot, _) | Item::Verdict(slot) = item {
            stage::lock(&self.stage).ending = Some(slot);
            self.work.finished(done);
            stage::lock(&self.stage).ending = None;
            self.check_failed(slot);
        } else {
            self.work.finished(done);
        }
        let failed = self.work.region().object(item.record()).is_some_and(|object| object.state() == state::FAILED);
        if retryable && failed {
            stage::lock(&self.stage).faults.saw(Fault::Outage);
        }
    }
}
