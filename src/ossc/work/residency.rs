//! The residency wing: which bytes are in memory, what they take of the budget, and when they are given back.
//!
//! Called by the work before a request is sent (never after: what is received has its room), by the lease thread and by
//! the attach server. It asks OSS for nothing: what a reader without room needs of the plan it returns.

mod adopt;
pub mod files;
pub mod lazy;
pub mod lease;
pub mod programs;
pub mod reclaim;
pub mod stand;
pub mod unused;

use crate::lock::lock;
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::options::WorkOptions;
use crate::work::shared::register::Register;
use crate::work::shared::reservation::Reservation;
use ossc_cache::region::Region;
use ossc_store::budget::Budget;
use ossc_store::plan::Class;
use programs::Programs;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// See the module.
pub struct Residency {
    register: Arc<Register>,
    region: Region,
    options: WorkOptions,
    budget: Arc<Budget>,
    /// Held while room is made, and while a version ends.
    making: Mutex<()>,
    /// Parts that readers wait for and that found no room; each of them is in the plan for later, once.
    /// With the time since when.
    roomless: Mutex<BTreeMap<(u32, u32), Instant>>,
    /// Memory files that are there.
    memory_files: AtomicUsize,
    /// Descriptors of placeholders that programs have opened: see `stand`.
    opened_stands: Arc<AtomicUsize>,
    /// The region's clock behind the last look at the leases; 0 before the first.
    looked_clock: AtomicU32,
    /// The programs that run for this MODEL_DIR.
    pub programs: Programs,
}

impl Residency {
    /// Nothing is in memory yet.
    pub fn new(register: Arc<Register>, budget: Budget) -> Residency {
        Residency {
            region: register.region,
            options: register.options,
            register,
            budget: Arc::new(budget),
            making: Mutex::default(),
            roomless: Mutex::default(),
            memory_files: AtomicUsize::new(0),
            opened_stands: Arc::default(),
            looked_clock: AtomicU32::new(0),
            programs: Programs::default(),
        }
    }

    /// Puts bytes aside; `None` if there is no room for them.
    pub fn reserve(&self, bytes: u64) -> Option<Reservation> {
        if self.budget.is_look_due(self.filled()) {
            self.look_at_memory();
        }
        Reservation::reserve(&self.budget, bytes)
    }

    /// The same for a part. What is fetched ahead of readers leaves the machine room for others, and waits while
    /// programs wait for memory.
    fn reserve_part(&self, bytes: u64, class: Class) -> Option<Reservation> {
        let may = class < Class::Prefetch || self.budget.may_go_ahead(bytes, self.filled());
        may.then(|| self.reserve(bytes)).flatten()
    }

    /// Looks what the machine has free now; true if its programs wait for memory.
    pub fn look_at_memory(&self) -> bool {
        if let Some(now) = (self.options.memory)() {
            let was_pressed = self.budget.is_pressed();
            self.budget.look(now, self.filled());
            if now.pressed && !was_pressed {
                tracing::warn!(
                    free = now.free,
                    limit = self.budget.limit(),
                    "programs of this machine wait for memory: nothing is fetched ahead, and what no program uses is given back"
                );
            } else if was_pressed && !now.pressed {
                tracing::info!(free = now.free, limit = self.budget.limit(), "no program waits for memory any more");
            }
        }
        self.budget.is_pressed()
    }

    /// Bytes of the memory files that hold data.
    fn filled(&self) -> u64 {
        let blocks = self.register.block_bytes.load(Ordering::Acquire);
        self.region.header().ready_bytes.load(Ordering::Acquire) + blocks
    }

    /// An object is taken in.
    pub fn count_in(&self, entry: &RegisterEntry) {
        if let Some(memory) = &entry.memory {
            self.memory_files.fetch_add(usize::from(memory.is_open()), Ordering::AcqRel);
        }
    }

    /// It was let go.
    pub fn forget(&self, slot: u32, entry: &RegisterEntry) {
        if entry.memory.as_ref().is_some_and(|memory| memory.is_open()) {
            self.memory_files.fetch_sub(1, Ordering::AcqRel);
        }
        lock(&self.roomless).retain(|(other, _), _| *other != slot);
    }

    /// Since when there has been no room for a part; from now on it is not waited for.
    pub fn roomless_since(&self, slot: u32, index: u32) -> Option<Instant> {
        lock(&self.roomless).remove(&(slot, index))
    }

    /// Most bytes of the budget that were put aside at a time.
    pub fn budget_peak(&self) -> u64 {
        self.budget.peak()
    }

    /// Parts that readers wait for and that found no room, bytes of the budget that are put aside, and memory files.
    pub fn gauges(&self) -> (usize, u64, usize) {
        (lock(&self.roomless).len(), self.budget.used(), self.memory_files.load(Ordering::Acquire))
    }
}
