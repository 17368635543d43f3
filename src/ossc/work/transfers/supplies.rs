//! Where the bytes of parts may come from beside OSS, and the list of such places.
//!
//! The work offers each part that is to be fetched to the supplies in their order, before a connection asks OSS for it.
//! A supply is a room below this one, and a row of `all`. It brings bytes on threads of its own. It decides nothing: what
//! it does not bring is asked of OSS, and what it brings is compared with what OSS says of the object.

use crate::journal::audit::Audit;
use crate::lock::lock;
use crate::work::shared::action::Action;
use crate::work::shared::brought::{Brought, Whole};
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::fill;
use crate::work::shared::item::Item;
use crate::work::shared::register::Register;
use crate::work::transfers::pieces::{place, populate};
use ossc_cache::region::Region;
use ossc_net::{Error, crc};
use ossc_store::plan::Class;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// The supplies of the product, in the order in which they are asked.
pub fn all() -> Vec<Box<dyn Supply>> {
    Vec::new()
}

/// A place that may have the bytes of parts.
pub trait Supply: Send + Sync {
    /// As the audit file and the log name it.
    fn name(&self) -> &'static str;
    /// Takes a part on, and answers later by what it does with it. Called by a vcpu, so it never waits.
    ///
    /// # Errors
    /// It gives back what it does not have, or has no hand free for: another place is asked.
    fn take_on(&self, wanted: WantedPart) -> Result<(), WantedPart>;
}

/// A part that a supply is asked for. When it is dropped, it has come if all bytes were put, else OSS is asked for it:
/// a supply keeps none for longer than its own deadline.
pub struct WantedPart {
    slot: u32,
    index: u32,
    entry: Arc<RegisterEntry>,
    range: Range<u64>,
    put: u64,
    crc64: u64,
    /// Of the supply that has taken it.
    source: Option<&'static str>,
    ended: Arc<Ended>,
}

impl WantedPart {
    /// Key of the object.
    pub fn key(&self) -> &str {
        &self.entry.key
    }

    /// The version that is wanted, as listed, with its quotes. Bytes of another one are wrong bytes.
    pub fn etag(&self) -> &str {
        &self.entry.etag
    }

    /// Bytes of the whole object.
    pub fn size(&self) -> u64 {
        self.entry.size
    }

    /// The bytes of the object that are wanted.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Puts the next bytes to their place.
    ///
    /// # Errors
    /// The system has no memory for them.
    ///
    /// # Panics
    /// If they are more than what is missing.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let start = self.range.start + self.put;
        let range = start..start + bytes.len() as u64;
        assert!(range.end <= self.range.end, "more bytes than were wanted");
        populate(&self.entry, &range)?;
        if let Some(sink) = place(&self.entry, &range, false) {
            sink.fill(bytes);
        }
        self.crc64 = crc::combine(self.crc64, crc::of(bytes), bytes.len() as u64);
        self.put += bytes.len() as u64;
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.put == self.range.end - self.range.start
    }
}

impl Drop for WantedPart {
    fn drop(&mut self) {
        // What was not taken is still in hand of the work.
        let Some(source) = self.source else { return };
        let what = EndedPart {
            slot: self.slot,
            index: self.index,
            entry: self.entry.clone(),
            range: self.range.clone(),
            crc64: self.is_whole().then_some(self.crc64),
            source,
        };
        lock(&self.ended.parts).push(what);
        self.ended.region.doorbell().ring();
    }
}

/// A part that a supply is done with.
struct EndedPart {
    slot: u32,
    index: u32,
    entry: Arc<RegisterEntry>,
    range: Range<u64>,
    /// `None`: it was not brought.
    crc64: Option<u64>,
    source: &'static str,
}

/// What supplies are done with and the work has not looked at.
struct Ended {
    parts: Mutex<Vec<EndedPart>>,
    /// Its doorbell wakes the demand thread, which looks.
    region: Region,
}

/// See the module.
pub struct Supplies {
    register: Arc<Register>,
    supplies: Vec<Box<dyn Supply>>,
    ended: Arc<Ended>,
    audit: Audit,
}

impl Supplies {
    /// These, in this order.
    pub fn new(register: Arc<Register>, audit: Audit, supplies: Vec<Box<dyn Supply>>) -> Supplies {
        let ended = Arc::new(Ended { parts: Mutex::default(), region: register.region });
        Supplies { register, supplies, ended, audit }
    }

    /// Offers a part that the caller has claimed. False if OSS is to be asked: no supply has it, one has failed to bring
    /// it, or bytes of the object did not match.
    pub fn offer(&self, (slot, index): (u32, u32), entry: &Arc<RegisterEntry>, range: Range<u64>) -> bool {
        if self.supplies.is_empty() || !lock(&entry.check).may_be_supplied(index) {
            return false;
        }
        let ended = self.ended.clone();
        let mut wanted = WantedPart { slot, index, entry: entry.clone(), range, put: 0, crc64: 0, source: None, ended };
        for supply in &self.supplies {
            // The record stays what it is until the work has looked at what has come.
            entry.begin_request();
            wanted.source = Some(supply.name());
            match supply.take_on(wanted) {
                Ok(()) => return true,
                Err(back) => wanted = back,
            }
            wanted.source = None;
            entry.end_request();
        }
        false
    }

    /// Looks at the parts that supplies are done with, and has `act` do what follows. Called by the demand thread.
    pub fn look(&self, act: impl Fn(Action)) {
        let ended = std::mem::take(&mut *lock(&self.ended.parts));
        for part in ended {
            act(self.landed(&part));
            part.entry.end_request();
        }
    }

    fn landed(&self, part: &EndedPart) -> Action {
        let EndedPart { slot, index, ref entry, ref range, crc64, source } = *part;
        if let Some(crc64) = crc64 {
            self.audit.supplied((&entry.key, &entry.etag), range.clone(), (source, crc64));
            return Action::End(slot, index, Box::new(Ok(Brought { crc64, whole: Whole::Unasked })));
        }
        tracing::debug!(object = entry.key, index, source, "a part was not brought: asking OSS for it");
        lock(&entry.check).missed.insert(index);
        if let Some((object, entry)) = self.register.get(slot) {
            fill::end(&self.register, object, &entry, index);
        }
        Action::Push(vec![Item::Part(slot, index)], Class::Demand)
    }
}

#[cfg(test)]
#[path = "supplies_tests.rs"]
mod tests;
