//! The memory of an object that has some only while it is needed: from the first request for a part of it, until no part
//! of it is left and no program has it open or mapped.
//!
//! Made by the mirror for each large object; `work` opens it before a part is claimed, `reclaim` closes it. A descriptor
//! and a mapping are had while it is open, so that objects which nobody reads cost neither.

use crate::work::shared::memory::{Guard, Memory};
use ossc_cache::sys::{Errno, Result};
use ossc_store::pages::{self, Store};
use std::sync::{Arc, RwLock};

/// See the module.
pub struct Lazy {
    store: Arc<Store>,
    slot: u32,
    size: u64,
    open: RwLock<Option<Arc<pages::Memory>>>,
}

/// Nobody can have open what is not there.
struct Nobody;

impl Guard for Nobody {
    fn is_of_memory(&self) -> bool {
        false
    }
}

impl Lazy {
    /// Of a record, closed.
    pub fn new(store: Arc<Store>, slot: u32, size: u64) -> Lazy {
        Lazy { store, slot, size, open: RwLock::default() }
    }

    /// The same with the memory that an engine before has filled.
    pub fn with(store: Arc<Store>, slot: u32, size: u64, memory: pages::Memory) -> Lazy {
        Lazy { store, slot, size, open: RwLock::new(Some(Arc::new(memory))) }
    }

    fn get(&self) -> Option<Arc<pages::Memory>> {
        self.open.read().unwrap_or_else(|e| e.into_inner()).clone()
    }
}

impl Memory for Lazy {
    fn open(&self) -> Result<Option<u64>> {
        if self.is_open() {
            return Ok(None);
        }
        let mut open = self.open.write().unwrap_or_else(|e| e.into_inner());
        if open.is_some() {
            return Ok(None);
        }
        let memory = self.store.new_memory(self.slot, self.size)?;
        let ino = memory.ino();
        *open = Some(Arc::new(memory));
        Ok(Some(ino))
    }

    fn is_open(&self) -> bool {
        self.open.read().unwrap_or_else(|e| e.into_inner()).is_some()
    }

    fn close(&self, guard: Box<dyn Guard>, may: &dyn Fn(&dyn Guard) -> bool) -> bool {
        let mut open = self.open.write().unwrap_or_else(|e| e.into_inner());
        let Some(memory) = open.take_if(|_| guard.is_of_memory() && may(&*guard)) else { return false };
        memory.unlink();
        // Before the descriptor that it is of.
        drop(guard);
        drop(memory);
        true
    }

    fn address(&self, offset: u64) -> *mut u8 {
        self.get().map_or(std::ptr::null_mut(), |memory| memory.address(offset))
    }

    fn file(&self) -> Option<i32> {
        self.get().map(|memory| memory.fd())
    }

    fn populate(&self, start: u64, end: u64) -> Result<()> {
        self.get().map_or(Ok(()), |memory| memory.populate(start, end))
    }

    fn write_small(&self, start: u64, bytes: &[u8]) -> Result<()> {
        self.get().map_or(Err(Errno(libc::ENOENT)), |memory| memory.write_small(start, bytes))
    }

    fn read(&self, start: u64, bytes: &mut [u8]) -> Result<()> {
        self.get().map_or(Err(Errno(libc::ENOENT)), |memory| memory.read(start, bytes))
    }

    fn punch(&self, start: u64, end: u64) {
        self.get().into_iter().for_each(|memory| memory.punch(start, end));
    }

    fn unmap_pages(&self, start: u64, end: u64) {
        self.get().into_iter().for_each(|memory| memory.unmap_pages(start, end));
    }

    fn lease(&self) -> Result<Box<dyn Guard>> {
        match self.get() {
            Some(memory) => memory.lease().map(|lease| Box::new(lease) as Box<dyn Guard>),
            None => Ok(Box::new(Nobody)),
        }
    }

    fn reopen_read_only(&self) -> Result<i32> {
        // Not under the lock: it waits where there is a lease.
        self.get().map_or(Err(Errno(libc::ENOENT)), |memory| memory.reopen_read_only())
    }

    fn unlink(&self) {
        self.get().into_iter().for_each(|memory| memory.unlink());
    }
}
