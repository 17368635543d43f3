//! The life of records: room for new ones, and the end of versions that nobody uses.
//!
//! Called by the mirror (room, what a listing supersedes) and by the lease thread. A version ends when a newer listing
//! does not name it any more and the kernel says (write leases on memory file and placeholder) that no program has it
//! open or mapped: then its parts, memory, descriptors and names are given back, and its record is GONE, rests and is
//! used again. A version that somebody uses stays as it is for as long.

use crate::lock::lock;
use crate::work::Work;
use crate::work::residency::room::Unused;
use crate::work::shared::held::Held;
use ossc_cache::catalog::{Catalog, Left, REST};
use ossc_cache::part::FILLING;
use ossc_cache::region::{Full, Kind, NewObject, Object, Room, state};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

impl Work {
    /// Room for a record. Where there is none, versions that nobody uses are ended first.
    ///
    /// # Errors
    /// Which array of the region is full of what is in use.
    pub fn reserve(&self, new: &NewObject<'_>) -> Result<Room, Full> {
        let now = (self.options.now)();
        let first = lock(&self.register.catalog).reserve(new, now);
        if first.is_ok() || first == Err(Full::Etag) {
            return first;
        }
        self.end_superseded();
        let mut catalog = lock(&self.register.catalog);
        catalog.end_rest(now, Duration::ZERO);
        catalog.reserve(new, now)
    }

    /// The room that was reserved for a record of this name is not needed.
    pub fn give_room_back(&self, room: Room, name: &str) {
        lock(&self.register.catalog).cancel(room, name);
    }

    /// Publishes a record; its number.
    pub fn publish(&self, room: Room, new: &NewObject<'_>, memory_ino: u64) -> u32 {
        lock(&self.register.catalog).publish(room, new, memory_ino)
    }

    /// Parts of the catalog that nothing has.
    pub fn parts_left(&self) -> u64 {
        lock(&self.register.catalog).parts_left()
    }

    /// Takes the catalog of an engine that is gone over; gives what it has left of records that no program finds.
    pub fn adopt_catalog(&self) -> Left {
        let (catalog, left) = Catalog::adopt(self.region, (self.options.now)());
        *lock(&self.register.catalog) = catalog;
        left
    }

    /// The newest listing names another version of this object, or none: it goes when nobody uses it.
    pub fn supersede(&self, slot: u32) {
        if let Some(object) = self.region.object(slot) {
            let mut superseded = lock(&self.superseded);
            object.superseded.store(1, Ordering::SeqCst);
            superseded.insert(slot);
        }
    }

    /// A superseded version is GONE from now on; false if it stays the folder's after all (`keep_on`).
    fn void_superseded(&self, slot: u32, object: &Object) -> bool {
        let superseded = lock(&self.superseded);
        let ends = superseded.contains(&slot) && object.is_superseded();
        if ends {
            lock(&self.register.catalog).void(slot);
        }
        ends
    }

    /// A version, given by its record and the use of it, stays the folder's after all; false if it has ended meanwhile.
    pub fn keep_on(&self, slot: u32, incarnation: u32) -> bool {
        let mut superseded = lock(&self.superseded);
        let Some(object) = self.region.object(slot).filter(|object| object.lasts(incarnation)) else { return false };
        superseded.remove(&slot);
        object.superseded.store(0, Ordering::Release);
        true
    }

    /// A version of an engine before whose placeholder lies at its place no more. No descriptor keeps that one's inode
    /// number, so no program is served by it from now on; its memory counts, and goes when no program has it mapped.
    pub fn adopt_old(&self, slot: u32, object: &Object, held: Held) {
        lock(&self.register.catalog).void(slot);
        self.adopt(slot, object, held);
        self.supersede(slot);
    }

    /// A record that has neither memory nor requests: nothing is found by it, and it is used again.
    pub fn let_rest(&self, slot: u32) {
        let mut catalog = lock(&self.register.catalog);
        catalog.void(slot);
        catalog.rest(slot, (self.options.now)());
    }

    /// Ends all superseded versions that nobody uses.
    pub fn end_superseded(&self) {
        let _alone = lock(&self.looking);
        self.end_unused_versions();
    }

    /// The same for who holds `looking`.
    pub(crate) fn end_unused_versions(&self) {
        let all: Vec<u32> = lock(&self.superseded).iter().copied().collect();
        for slot in all {
            let Some(object) = self.region.object(slot) else { continue };
            let Some(held) = self.held(slot) else {
                self.end_unheld(slot, object);
                continue;
            };
            match object.kind() {
                Kind::Large => {
                    let busy = (0..object.parts()).any(|index| self.region.part(object, index).state() == FILLING);
                    let unused = if busy { None } else { Unused::take(object, &held).filter(Unused::is_closed) };
                    if let Some(unused) = unused {
                        self.end_version(slot, object, &held, unused);
                    }
                }
                _ => self.end_small(slot, object, &held),
            }
        }
    }

    /// Ends a large version that nobody uses. What is under way keeps it for another look.
    pub(crate) fn end_version(&self, slot: u32, object: &Object, held: &Arc<Held>, unused: Unused) {
        let room = lock(&self.room);
        if !self.void_superseded(slot, object) {
            return;
        }
        // Whoever prepares a request counts it and then looks at the state: either it sees GONE, or this sees it.
        fence(Ordering::SeqCst);
        if held.has_requests() {
            return;
        }
        // Memory that was made since it was looked at: nothing of it can be made any more, and the next look asks for it.
        if !unused.is_of_memory() && held.memory.as_ref().is_some_and(|memory| memory.is_open()) {
            return;
        }
        (0..object.parts()).for_each(|index| self.region.part(object, index).unpin());
        self.end_kept(object, held);
        self.release(slot, held, unused);
        if !Self::is_empty(object, held) {
            return;
        }
        drop(room);
        held.memory.iter().for_each(|memory| memory.unlink());
        self.region.header().large_bytes.fetch_sub(object.size(), Ordering::Relaxed);
        self.forget(slot, object);
        tracing::info!(
            object = held.key,
            etag = held.etag,
            bytes = held.size,
            "dropped: an old version that nobody uses"
        );
        lock(&self.register.catalog).rest(slot, (self.options.now)());
    }

    /// A small version ends when its file is in place or given up: what is in place is the folder's.
    fn end_small(&self, slot: u32, object: &Object, held: &Arc<Held>) {
        let is_over = matches!(object.state(), state::PLACED | state::FAILED | state::GONE);
        if !is_over || held.under_way.load(Ordering::Acquire) {
            return;
        }
        if !self.void_superseded(slot, object) {
            return;
        }
        fence(Ordering::SeqCst);
        if held.has_requests() {
            return;
        }
        self.forget(slot, object);
        lock(&self.register.catalog).rest(slot, (self.options.now)());
    }

    /// A real file that was there before its record, or before this engine: nothing is under way for it.
    fn end_unheld(&self, slot: u32, object: &Object) {
        let is_small = object.kind() == Kind::Small && object.state() != state::GONE;
        let ends = is_small && self.void_superseded(slot, object);
        lock(&self.superseded).remove(&slot);
        if ends {
            lock(&self.register.catalog).rest(slot, (self.options.now)());
        }
    }

    /// Nothing of the engine's names the record any more.
    fn forget(&self, slot: u32, object: &Object) {
        lock(&self.superseded).remove(&slot);
        let held = self.register.let_go(slot, object);
        let has_memory = |held: Arc<Held>| held.memory.as_ref().is_some_and(|memory| memory.is_open());
        if held.is_some_and(has_memory) {
            self.memory_files.fetch_sub(1, Ordering::AcqRel);
        }
        lock(&self.roomless).retain(|(other, _), _| *other != slot);
        self.scheduling.forget(|item| item.is_of(slot));
    }

    /// Records that rested long enough are free: called now and then, so that their parts are counted as free in time.
    pub(crate) fn end_rest(&self) {
        lock(&self.register.catalog).end_rest((self.options.now)(), REST);
    }
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
