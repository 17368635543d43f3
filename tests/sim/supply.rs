//! A supply beside the origin: it takes some of the parts that it is asked for, and brings them late, wrong, in part, or
//! not at all.
//!
//! Asked by the engine's work; the world ends what it has taken, at the times that it gives back.

use crate::bytes;
use crate::fault::Fault;
use crate::fill::Fill;
use crate::stage::{self, Shared};
use crate::watch;
use ossc_engine::work::supplies::{Supply, WantedPart};
use std::sync::{Arc, Mutex, PoisonError};

/// Record and number of a part.
type Key = (u32, u32);

/// See the module.
#[derive(Clone)]
pub struct Neighbour {
    stage: Shared,
    taken: Arc<Mutex<Vec<(Key, WantedPart)>>>,
}

impl Neighbour {
    /// It has taken nothing yet.
    pub fn new(stage: Shared) -> Neighbour {
        Neighbour { stage, taken: Arc::default() }
    }

    /// Brings what it took first, or not: its record. `None` if it has nothing in hand.
    pub fn end_one(&self) -> Option<u32> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.is_empty() {
            return None;
        }
        let ((slot, index), mut wanted) = taken.remove(0);
        drop(taken);
        let range = wanted.range();
        let mut stage = stage::lock(&self.stage);
        let truth = stage.truth(slot)?;
        let mut body = bytes::of(truth.salt, range.clone()).to_vec();
        let salt = truth.salt;
        if stage.strike(Fault::SuppliedWrong) {
            let at = stage.rng.usize(0..body.len());
            body[at] = !body[at];
            stage.flips.push((salt, range.start + at as u64));
        }
        let comes = if stage.strike(Fault::SuppliedPartly) { stage.rng.usize(0..body.len()) } else { body.len() };
        let step = stage.rng.usize(1..=body.len());
        stage.presents = true;
        // Nothing else writes there, so what is put is no second writer.
        let fill = stage.truth(slot).and_then(|truth| truth.parts[index as usize].fill.as_mut());
        if fill.and_then(|fill| fill.ended(0, true, 0)).is_none() {
            stage.violated(format!("part {index} of record {slot} was supplied, and is not being filled"));
        }
        drop(stage);
        let came = body[..comes].chunks(step).all(|bytes| wanted.put(bytes).is_ok());
        let mut stage = stage::lock(&self.stage);
        stage.presents = false;
        if !came || comes < body.len() {
            let part = stage.truth(slot).map(|truth| &mut truth.parts[index as usize]);
            part.into_iter().flat_map(|part| &mut part.fill).for_each(Fill::was_missed);
        }
        Some(slot)
    }

    /// Something is in hand.
    pub fn is_busy(&self) -> bool {
        !self.taken.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Supply for Neighbour {
    fn name(&self) -> &'static str {
        "neighbour"
    }

    fn take_on(&self, wanted: WantedPart) -> Result<(), WantedPart> {
        let mut stage = stage::lock(&self.stage);
        let Some(truth) = stage.truths.iter().find(|truth| truth.etag == wanted.etag()) else {
            stage.violated("an unknown version is asked for".into());
            return Err(wanted);
        };
        let (slot, at, range) = (truth.slot, truth.at, wanted.range());
        let index = (range.start / truth.part_bytes) as u32;
        if !stage.strike(Fault::Supplied) {
            return Err(wanted);
        }
        let sink = (at + range.start as usize, (range.end - range.start) as usize);
        if let Some(wrong) = watch::begins_in_place(&mut stage, (slot, index), None, &range, sink) {
            stage.violated(format!("part {index} of record {slot}, which is supplied, {wrong}"));
        }
        drop(stage);
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).push(((slot, index), wanted));
        Ok(())
    }
}
