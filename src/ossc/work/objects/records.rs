//! The life of records: room for new ones, what a listing supersedes, and which versions may end.
//!
//! Called by the mirror (room, what a listing supersedes) and by the lease thread (`work::leases`). A version ends when a
//! newer listing does not name it any more and no program has it open or mapped: then its record is GONE, rests and is
//! used again. A version that a program uses stays as it is for as long.

use crate::lock::lock;
use crate::work::objects::Objects;
use crate::work::shared::entry::RegisterEntry;
use ossc_cache::region::{Full, NewObject, Object, RecordKind, RecordSpace, state};
use ossc_store::catalog::{Catalog, Left, REST};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

impl Objects {
    /// Room for a record.
    ///
    /// # Errors
    /// Which array of the region is full of what is in use, or was until just now.
    pub fn reserve(&self, new: &NewObject<'_>) -> Result<RecordSpace, Full> {
        lock(&self.register.catalog).reserve(new, self.register.now())
    }

    /// The same after old versions have ended: what rests is free at once.
    ///
    /// # Errors
    /// Which array of the region is full of what is in use.
    pub fn reserve_of_all(&self, new: &NewObject<'_>) -> Result<RecordSpace, Full> {
        let (now, mut catalog) = (self.register.now(), lock(&self.register.catalog));
        catalog.end_rest(now, Duration::ZERO);
        catalog.reserve(new, now)
    }

    /// The room that was reserved for a record of this name is not needed.
    pub fn give_room_back(&self, room: RecordSpace, name: &str) {
        lock(&self.register.catalog).cancel(room, name);
    }

    /// Publishes a record; its number.
    pub fn publish(&self, room: RecordSpace, new: &NewObject<'_>, memory_ino: u64) -> u32 {
        lock(&self.register.catalog).publish(room, new, memory_ino)
    }

    /// Parts of the catalog that nothing has.
    pub fn parts_left(&self) -> u64 {
        lock(&self.register.catalog).parts_left()
    }

    /// Takes the catalog of an engine that is gone over; gives what it has left of records that no program finds.
    pub fn adopt_catalog(&self) -> Left {
        let (catalog, left) = Catalog::adopt(self.region, self.register.now());
        *lock(&self.register.catalog) = catalog;
        left
    }

    /// The newest listing names another version of this object, or none: it goes when no program uses it.
    pub fn supersede(&self, slot: u32) {
        if let Some(object) = self.region.object(slot) {
            let mut superseded = lock(&self.superseded);
            object.superseded.store(1, Ordering::SeqCst);
            superseded.insert(slot);
        }
    }

    /// A superseded version is GONE from now on; false if it stays the folder's after all (`keep_on`).
    pub fn void_superseded(&self, slot: u32, object: &Object) -> bool {
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

    /// Nothing is found by a record from now on.
    pub fn void(&self, slot: u32) {
        lock(&self.register.catalog).void(slot);
    }

    /// A record that has neither memory nor requests: nothing is found by it, and it is used again.
    pub fn let_rest(&self, slot: u32) {
        let mut catalog = lock(&self.register.catalog);
        catalog.void(slot);
        catalog.rest(slot, self.register.now());
    }

    /// Records of versions that a newer listing does not name.
    pub fn superseded(&self) -> Vec<u32> {
        lock(&self.superseded).iter().copied().collect()
    }

    /// A small version ends when its file is in place or given up: what is in place is the folder's. True if it does.
    pub fn ends_small(&self, slot: u32, object: &Object, entry: &RegisterEntry) -> bool {
        let is_over = matches!(object.state(), state::PLACED | state::FAILED | state::GONE);
        if !is_over || entry.under_way.load(Ordering::Acquire) {
            return false;
        }
        if !self.void_superseded(slot, object) {
            return false;
        }
        fence(Ordering::SeqCst);
        !entry.has_requests()
    }

    /// A real file that was there before its record, or before this engine: nothing is under way for it.
    pub fn end_unregistered(&self, slot: u32, object: &Object) {
        let is_small = object.kind() == RecordKind::Small && object.state() != state::GONE;
        let ends = is_small && self.void_superseded(slot, object);
        lock(&self.superseded).remove(&slot);
        if ends {
            self.rest(slot);
        }
    }

    /// Nothing of the engine's names the record any more: what was known of it.
    pub fn forget(&self, slot: u32, object: &Object) -> Option<Arc<RegisterEntry>> {
        lock(&self.superseded).remove(&slot);
        self.register.let_go(slot, object)
    }

    /// A record that was forgotten rests until it is used again.
    pub fn rest(&self, slot: u32) {
        lock(&self.register.catalog).rest(slot, self.register.now());
    }

    /// Records that rested long enough are free: called now and then, so that their parts are counted as free in time.
    pub fn end_rest(&self) {
        lock(&self.register.catalog).end_rest(self.register.now(), REST);
    }
}
