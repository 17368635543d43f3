//! Which object each record is of: the public records, and what the engine knows beside them.
//!
//! Owned by all wings together. It decides nothing about an object: it finds it, takes it in and lets it go.

use crate::lock::lock;
use crate::work::shared::counters::Counters;
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::options::WorkOptions;
use ossc_cache::region::{Object, Region};
use ossc_store::catalog::Catalog;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

/// See the module.
pub struct Register {
    /// The public records.
    pub region: Region,
    /// What the work was started with.
    pub options: WorkOptions,
    /// What the requests came to.
    pub counters: Counters,
    /// Bytes of blocks that are in memory, of all objects.
    pub block_bytes: AtomicU64,
    /// What is free in the region; held while what programs find a record by changes.
    pub(crate) catalog: Mutex<Catalog>,
    entries: RwLock<BTreeMap<u32, Arc<RegisterEntry>>>,
    /// Records by the first of their parts.
    owners: RwLock<BTreeMap<u32, u32>>,
}

impl Register {
    /// Of a region, with nothing taken in yet.
    pub fn new(region: Region, options: WorkOptions) -> Register {
        let catalog = Mutex::new(Catalog::new(region));
        Register {
            region,
            options,
            counters: Counters::default(),
            block_bytes: AtomicU64::new(0),
            catalog,
            entries: RwLock::default(),
            owners: RwLock::default(),
        }
    }

    /// The time.
    pub fn now(&self) -> Instant {
        (self.options.now)()
    }

    /// What is known of a record.
    pub fn entry(&self, slot: u32) -> Option<Arc<RegisterEntry>> {
        self.entries.read().unwrap_or_else(|e| e.into_inner()).get(&slot).cloned()
    }

    /// A record that was taken in: what is public of it, and what is known beside that.
    pub fn get(&self, slot: u32) -> Option<(&Object, Arc<RegisterEntry>)> {
        Some((self.region.object(slot)?, self.entry(slot)?))
    }

    /// Large objects of which `is` says so.
    pub fn large_if(&self, is: impl Fn(u32, &RegisterEntry) -> bool) -> Vec<(u32, Arc<RegisterEntry>)> {
        let entry = self.entries.read().unwrap_or_else(|e| e.into_inner());
        let chosen = entry.iter().filter(|(slot, entry)| entry.memory.is_some() && is(**slot, entry));
        chosen.map(|(slot, entry)| (*slot, entry.clone())).collect()
    }

    /// Takes an object in.
    pub fn take_in(&self, slot: u32, entry: RegisterEntry) {
        if let Some(object) = self.region.object(slot).filter(|object| object.parts() > 0) {
            self.owners.write().unwrap_or_else(|e| e.into_inner()).insert(object.first_part(), slot);
        }
        self.entries.write().unwrap_or_else(|e| e.into_inner()).insert(slot, Arc::new(entry));
    }

    /// Lets an object go: what was known of it.
    pub fn let_go(&self, slot: u32, object: &Object) -> Option<Arc<RegisterEntry>> {
        let entry = self.entries.write().unwrap_or_else(|e| e.into_inner()).remove(&slot);
        if object.parts() > 0 {
            self.owners.write().unwrap_or_else(|e| e.into_inner()).remove(&object.first_part());
        }
        entry
    }

    /// Record and part number behind an index of the region.
    pub fn part_at(&self, region_part: u32) -> Option<(u32, &Object, u32)> {
        let owners = self.owners.read().unwrap_or_else(|e| e.into_inner());
        let (_, slot) = owners.range(..=region_part).next_back()?;
        let object = self.region.object(*slot)?;
        let index = region_part.checked_sub(object.first_part())?;
        (index < object.parts()).then_some((*slot, object, index))
    }

    /// Programs find an object's memory by the inode of its file from now on.
    pub fn set_memory(&self, slot: u32, ino: u64) {
        let _index = lock(&self.catalog);
        self.region.set_memory(slot, ino);
    }

    /// They find it no more.
    pub fn clear_memory(&self, slot: u32) {
        let _index = lock(&self.catalog);
        self.region.clear_memory(slot);
    }

    /// A small object's real file is found by its device and inode from now on.
    pub fn set_file(&self, slot: u32, id: (u64, u64)) {
        let _index = lock(&self.catalog);
        self.region.set_file(slot, id);
    }

    /// A small object's real file did not come to its name.
    pub fn clear_file(&self, slot: u32) {
        let _index = lock(&self.catalog);
        self.region.clear_file(slot);
    }
}
