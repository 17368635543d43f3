//! An engine at rest for tests: its work without a network, on a clock that the test moves, and objects whose parts
//! the test fills by hand.
//!
//! Called by the tests of this crate alone.

use crate::journal::audit::Audit;
use crate::lock::lock;
use crate::work::leases;
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::fill;
use crate::work::shared::memory::{Guard, Memory};
use crate::work::shared::scale::Scale;
use crate::work::supplies::Supply;
use crate::work::{Work, WorkOptions};
use ossc_cache::region::{NewObject, RecordKind, Region, state};
use ossc_cache::sys::{self, Errno};
use ossc_net::retry::Backoff;
use ossc_store::budget::Budget;
use ossc_store::machine::Now;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

thread_local! {
    static PASSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static MEMORY: Cell<Option<Now>> = const { Cell::new(None) };
}

/// What a look at the memory of this thread's machine finds.
pub fn memory() -> Option<Now> {
    MEMORY.get()
}

/// From now on a look finds so much.
pub fn set_memory(free: u64, pressed: bool) {
    MEMORY.set(Some(Now { free, swapped: 0, pressed }));
}

/// The clock of this thread's engine.
pub fn now() -> Instant {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    *BEGIN.get_or_init(Instant::now) + PASSED.get()
}

/// Time passes.
pub fn pass(time: Duration) {
    PASSED.set(PASSED.get() + time);
}

/// Numbers that look random, the same ones for the same seed.
pub struct Random(pub u64);

impl Random {
    /// One below `below`.
    pub fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// A new region, and work on it with a budget of so many bytes.
pub fn work(budget_bytes: u64) -> Arc<Work> {
    on(region(), budget_bytes)
}

fn region() -> Region {
    let files = sys::memfds(c"still").unwrap();
    let region = Region::create(files, "/model", "/log").unwrap();
    ossc_cache::wire::close_all(&files);
    region
}

/// The same on a region that is there, as a successor has it.
pub fn on(region: Region, budget_bytes: u64) -> Arc<Work> {
    with(region, budget_bytes, 0)
}

/// The same with blocks of parts, so many bytes of them at a time at least.
pub fn with(region: Region, budget_bytes: u64, block_bytes: u64) -> Arc<Work> {
    of(region, budget_bytes, Vec::new(), WorkOptions { block_bytes, ..options() })
}

/// One in a new region that verifies, and asks these before OSS.
pub fn supplied(budget_bytes: u64, supplies: Vec<Box<dyn Supply>>) -> Arc<Work> {
    of(region(), budget_bytes, supplies, WorkOptions { verify_crc: true, ..options() })
}

fn options() -> WorkOptions {
    WorkOptions {
        verify_crc: false,
        part_bytes_max: 8 << 20,
        outage_budget: Duration::from_secs(300),
        page_bytes: 4096,
        block_bytes: 0,
        splice: false,
        now,
        memory,
        requests_max: 4,
        twice_percent_max: 0,
        memory_files_max: usize::MAX,
        scale: Scale::PRODUCT,
        throttle_recover: Duration::from_secs(1),
        backoff: Backoff::default(),
        revive: Duration::from_secs(30),
    }
}

fn of(region: Region, budget_bytes: u64, supplies: Vec<Box<dyn Supply>>, options: WorkOptions) -> Arc<Work> {
    let senders = (channel().0, channel().0);
    Arc::new(Work::new(region, Budget::new(budget_bytes), Audit::new(None, "b"), senders, supplies, options))
}

/// Memory without bytes; the function answers whoever wants its lease.
pub struct Empty<L>(pub L);

struct Alone;

impl Guard for Alone {}

impl<L: Fn() -> sys::Result<Box<dyn Guard>> + Send + Sync> Memory for Empty<L> {
    fn address(&self, _: u64) -> *mut u8 {
        std::ptr::null_mut()
    }
    fn file(&self) -> Option<i32> {
        None
    }
    fn populate(&self, _: u64, _: u64) -> sys::Result<()> {
        Ok(())
    }
    fn write_small(&self, _: u64, _: &[u8]) -> sys::Result<()> {
        Ok(())
    }
    fn read(&self, _: u64, _: &mut [u8]) -> sys::Result<()> {
        Ok(())
    }
    fn punch(&self, _: u64, _: u64) {}
    fn unmap_pages(&self, _: u64, _: u64) {}
    fn lease(&self) -> sys::Result<Box<dyn Guard>> {
        self.0()
    }
    fn reopen_read_only(&self) -> sys::Result<i32> {
        Err(Errno(libc::ENOSYS))
    }
}

/// The record of a large object that is loading, of `parts` parts of 4 KiB.
pub fn new(name: &str, ino: u64, parts: u32) -> NewObject<'_> {
    NewObject {
        kind: RecordKind::Large,
        state: state::LOADING,
        name,
        etag: "\"E\"",
        size: u64::from(parts) * 4096,
        part_bytes: 4096,
        mtime_secs: 1,
        dev: 9,
        ino,
        folder: 0,
    }
}

/// Memory without bytes that so many programs have open.
pub fn opened_by(users: Arc<AtomicU32>) -> impl Memory {
    Empty(move || match users.load(Ordering::Relaxed) {
        0 => Ok(Box::new(Alone) as Box<dyn Guard>),
        _ => Err(Errno(libc::EAGAIN)),
    })
}

/// A large object of which nothing has arrived.
pub fn add(work: &Work, new: &NewObject<'_>, memory: impl Memory + 'static) -> u32 {
    let slot = work.objects.publish(leases::reserve(work, new).unwrap(), new, 1_000_000 + new.ino);
    let mut entry = RegisterEntry::new(new.name.into(), new.etag.into(), new.size, 1, (String::new(), new.name.into()));
    entry.memory = Some(Box::new(memory));
    work.add_object(slot, entry);
    slot
}

/// A large object with all of its `parts` in memory, and the number of programs that have it open.
pub fn object(work: &Work, name: &str, ino: u64, parts: u32) -> (u32, Arc<AtomicU32>) {
    let users = Arc::new(AtomicU32::new(0));
    let slot = add(work, &new(name, ino, parts), opened_by(users.clone()));
    fill(work, slot);
    (slot, users)
}

/// All parts of an object arrive that are missing, as `Work::finished` does it; how many those were.
pub fn fill(work: &Work, slot: u32) -> u32 {
    let (region, (object, entry)) = (work.region(), work.register.get(slot).unwrap());
    let mut filled = 0;
    for index in 0..object.parts() {
        let part = region.part(object, index);
        if !part.is_ready() {
            let room = work.residency.reserve(fill::room_bytes(&work.register, object, index));
            lock(&entry.room).put(room.expect("the budget is too small for this test"));
            assert!(part.claim());
            part.learn(0, object.verdict.get().round);
            part.publish(0);
            let range = object.part_range(index);
            region.header().ready_bytes.fetch_add(range.end - range.start, Ordering::Relaxed);
            object.ready_parts.fetch_add(1, Ordering::AcqRel);
            filled += 1;
        }
    }
    if filled > 0 {
        object.set_state(state::VERIFIED);
    }
    filled
}
