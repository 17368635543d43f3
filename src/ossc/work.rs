//! The work of the engine: which request a free connection makes next, and what its end means for the
//! object it belongs to. The source that the vcpu threads pull from.
//!
//! Called on vcpu threads (`pull`, `finished`), by the demand thread (`demanded`), and by the mirror
//! (objects, calls). It does no disk I/O and never waits.

pub mod demand;
pub mod gauges;
pub mod objects;
pub mod residency;
pub mod scheduling;
pub mod shared;
#[cfg(test)]
pub mod still;
pub mod transfers;

use crate::credentials::Renewal;
use crate::journal::audit::{Audit, Fetched};
use crate::lock::lock;
use crate::order::Order;
use crate::work::objects::verdict::Misread;
use crate::work::residency::programs::Programs;
use crate::work::scheduling::growth::Growth;
use crate::work::shared::held::Held;
use crate::work::shared::item::{Arrived, Item};
use crate::work::shared::scale::Scale;
use crate::work::transfers::flight::{Flights, Queue};
use ossc_cache::budget::Budget;
use ossc_cache::catalog::Catalog;
use ossc_cache::event::{ACT_GIVEN, ACT_SMALL};
use ossc_cache::plan::{Class, Next, Plan};
use ossc_cache::region::{Object, Region, Seen, state};
use ossc_cache::verdict::Judgement;
use ossc_net::error::Kind;
use ossc_net::retry::Backoff;
use ossc_net::throttle::Throttle;
use ossc_net::{Error, Fetch, Finished, Pull, Query, Sink, Source, Vcpus};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant};

/// Most bytes of a listing page or an error document.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 8 << 20;
/// How long requests that OSS refuses for their credentials wait for others, before readers see an error.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(30);
/// Parts that are fetched right behind one that a reader waits for.
const READ_AHEAD_PARTS: u32 = 4;

/// A question that a thread of the engine waits for.
struct Call {
    query: Query,
    answer: SyncSender<Finished>,
}

/// How often a question is asked that fails for a cause which may pass, and until when its answer is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Times that it is asked at most.
    pub attempts: u32,
    /// No longer than until then, if there is such a time.
    pub until: Option<Instant>,
}

/// What the work needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Compare CRC-64.
    pub verify_crc: bool,
    /// Most bytes of one request.
    pub part_bytes_max: u64,
    /// How long the origin may be out before readers see an error.
    pub outage_budget: Duration,
    /// Longest page of the memory files, in bytes: an object's last part takes a whole one.
    pub page_bytes: u64,
    /// Least that is fetched of a part for a reader who wants little of it, in bytes; 0: parts are fetched as a whole.
    pub block_bytes: u64,
    /// Splice plain bodies into the memory files.
    pub splice: bool,
    /// The clock: `Instant::now`, but for simulations.
    pub now: fn() -> Instant,
    /// Requests that may be under way when OSS does not throttle.
    pub requests_max: usize,
    /// Most bytes that are asked for twice, in percent of all; 0 asks for nothing twice.
    pub twice_percent_max: u64,
    /// Memory files that may be there at a time: each takes a descriptor.
    pub memory_files_max: usize,
    /// `Scale::PRODUCT`, but for simulations.
    pub scale: Scale,
    /// From a throttled answer to one step of recovery.
    pub throttle_recover: Duration,
    /// Pauses before retries.
    pub backoff: Backoff,
    /// After an object was given up it is tried again, so that a later open may succeed.
    pub revive: Duration,
}

/// See the module.
pub struct Work {
    pub(crate) region: Region,
    plan: Mutex<Plan<Item>>,
    pub(crate) held: RwLock<BTreeMap<u32, Arc<Held>>>,
    /// Records by the first of their parts.
    pub(crate) owners: RwLock<BTreeMap<u32, u32>>,
    /// What is free in the region.
    pub(crate) catalog: Mutex<Catalog>,
    /// Records of versions that a newer listing does not name: they go when nobody uses them.
    pub(crate) superseded: Mutex<BTreeSet<u32>>,
    /// Held by who looks at the leases or ends records.
    pub(crate) looking: Mutex<()>,
    /// The region's clock behind the last look at the leases; 0 before the first.
    pub(crate) looked_clock: AtomicU32,
    /// The programs that run for this MODEL_DIR.
    pub programs: Programs,
    calls: Mutex<HashMap<u32, Call>>,
    next_call: AtomicU32,
    pub(crate) vcpus: OnceLock<Vcpus>,
    /// Of a source that can give other credentials.
    renewal: OnceLock<Arc<Renewal>>,
    pub(crate) budget: Budget,
    pub(crate) small_under_way: AtomicU64,
    /// Descriptors of placeholders that programs have opened: see `stand`.
    pub(crate) opened_stands: Arc<AtomicUsize>,
    /// Memory files that are there.
    pub(crate) memory_files: AtomicUsize,
    /// Set of blocks that is looked at next for one that is free.
    pub(crate) next_set: Mutex<u32>,
    /// Held by who makes room.
    pub(crate) room: Mutex<()>,
    /// Parts that readers wait for and that found no room; each of them is in the plan for later, once.
    /// With the time since when.
    pub(crate) roomless: Mutex<BTreeMap<(u32, u32), Instant>>,
    pub(crate) audit: Audit,
    /// Rounds that ended in a mismatch and are not told of yet.
    pub(crate) misreads: Mutex<Vec<(u32, Misread)>>,
    pub(crate) arrived: Sender<Arrived>,
    orders: Sender<Order>,
    pub(crate) options: Options,
    pub(crate) throttle: Mutex<Throttle>,
    pub(crate) growth: Mutex<Growth>,
    pub(crate) flights: Flights,
}

impl Work {
    /// No work yet. Small objects go to `arrived`, orders to list folders to `orders`.
    pub fn new(
        region: Region,
        budget: Budget,
        audit: Audit,
        (arrived, orders): (Sender<Arrived>, Sender<Order>),
        options: Options,
    ) -> Work {
        Work {
            region,
            plan: Mutex::default(),
            held: RwLock::default(),
            owners: RwLock::default(),
            catalog: Mutex::new(Catalog::new(region)),
            superseded: Mutex::default(),
            looking: Mutex::default(),
            looked_clock: AtomicU32::new(0),
            programs: Programs::default(),
            calls: Mutex::default(),
            next_call: AtomicU32::new(0),
            vcpus: OnceLock::new(),
            renewal: OnceLock::new(),
            budget,
            small_under_way: AtomicU64::new(0),
            opened_stands: Arc::default(),
            memory_files: AtomicUsize::new(0),
            next_set: Mutex::default(),
            room: Mutex::default(),
            roomless: Mutex::default(),
            audit,
            misreads: Mutex::default(),
            arrived,
            orders,
            options,
            throttle: Mutex::new(Throttle::new(options.requests_max, options.throttle_recover)),
            growth: Mutex::new(Growth::new(options.requests_max, options.scale)),
            flights: Flights::new(options.twice_percent_max, options.scale),
        }
    }

    /// The threads that pull from this; given once, after they were started.
    pub fn set_vcpus(&self, vcpus: Vcpus) {
        let _ = self.vcpus.set(vcpus);
        self.wake();
    }

    /// Rung when OSS refuses the credentials in use; given before the first request.
    pub fn set_renewal(&self, renewal: Arc<Renewal>) {
        let _ = self.renewal.set(renewal);
    }

    /// Signs from now on so.
    pub fn set_signer(&self, signer: ossc_sign::Signer) {
        if let Some(vcpus) = self.vcpus.get() {
            vcpus.set_signer(signer);
        }
    }

    /// If other credentials may help a request that failed, they are asked for: for how long all requests
    /// have been waiting for them.
    fn renews(&self, error: &Error) -> Option<Duration> {
        let renewal = self.renewal.get().filter(|_| error.wants_other_credentials())?;
        Some(renewal.ring((self.options.now)()))
    }

    /// The public records.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// What is known of a record.
    pub fn held(&self, slot: u32) -> Option<Arc<Held>> {
        self.held.read().unwrap_or_else(|e| e.into_inner()).get(&slot).cloned()
    }

    /// What is known of the record that an item is of.
    fn held_of(&self, item: Item) -> Option<Arc<Held>> {
        if matches!(item, Item::Call(_)) { None } else { self.held(item.record()) }
    }

    /// All large objects.
    pub fn large(&self) -> Vec<(u32, Arc<Held>)> {
        self.large_if(|_, _| true)
    }

    /// Those of them that `is` says.
    pub(crate) fn large_if(&self, is: impl Fn(u32, &Held) -> bool) -> Vec<(u32, Arc<Held>)> {
        let held = self.held.read().unwrap_or_else(|e| e.into_inner());
        let chosen = held.iter().filter(|(slot, held)| held.memory.is_some() && is(**slot, held));
        chosen.map(|(slot, held)| (*slot, held.clone())).collect()
    }

    /// Takes an object in.
    pub fn hold(&self, slot: u32, held: Held) {
        if let Some(object) = self.region.object(slot).filter(|object| object.parts() > 0) {
            self.owners.write().unwrap_or_else(|e| e.into_inner()).insert(object.first_part(), slot);
        }
        if let Some(memory) = &held.memory {
            self.excuse(slot);
            self.memory_files.fetch_add(usize::from(memory.is_open()), Ordering::AcqRel);
        }
        self.held.write().unwrap_or_else(|e| e.into_inner()).insert(slot, Arc::new(held));
    }

    /// Asks one question and waits for its answer; retries what may succeed later, as long as `patience` says.
    pub fn call(&self, query: &Query, patience: Patience) -> Result<Finished, Error> {
        self.answered(query, self.ask(query), patience)
    }

    /// Asks all of them at once; the answers come in their order.
    pub fn call_all(&self, queries: &[Query], patience: Patience) -> Vec<Result<Finished, Error>> {
        let asked: Vec<_> = queries.iter().map(|query| self.ask(query)).collect();
        asked.into_iter().zip(queries).map(|(wait, query)| self.answered(query, wait, patience)).collect()
    }

    fn ask(&self, query: &Query) -> Receiver<Finished> {
        let (answer, wait) = sync_channel(1);
        let id = self.next_call.fetch_add(1, Ordering::Relaxed);
        lock(&self.calls).insert(id, Call { query: query.clone(), answer });
        // Before small objects: a folder that is listed ahead may be one that a program comes to wait for.
        self.push(&[Item::Call(id)], Class::Demand);
        wait
    }

    fn answered(&self, query: &Query, mut wait: Receiver<Finished>, patience: Patience) -> Result<Finished, Error> {
        let Patience { attempts, until } = patience;
        let mut tried = 0;
        let gone = || Error::new(Kind::Cancelled, ossc_net::error::Phase::Start, "the engine stops");
        let late = || Error::new(Kind::Timeout, ossc_net::error::Phase::Head, "no answer in the time that there was");
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        loop {
            let mut done = match until {
                None => wait.recv().map_err(|_| gone())?,
                // An answer that comes later finds nobody, and is dropped.
                Some(until) => wait.recv_timeout(left(until)).map_err(|why| match why {
                    RecvTimeoutError::Timeout => late(),
                    RecvTimeoutError::Disconnected => gone(),
                })?,
            };
            let error = match std::mem::replace(&mut done.result, Err(gone())) {
                Ok(response) => {
                    done.result = Ok(response);
                    return Ok(done);
                }
                Err(error) => error,
            };
            tried += 1;
            if tried >= attempts || !(error.retryable() || self.renews(&error).is_some()) {
                return Err(error);
            }
            let pause = self.options.backoff.wait(tried - 1);
            if until.is_some_and(|until| left(until) <= pause) {
                return Err(error);
            }
            tracing::warn!("{error}; trying again ({tried} of {attempts})");
            std::thread::sleep(pause);
            wait = self.ask(query);
        }
    }

    /// Fetches whole large objects ahead of their readers, in this order: first the first part of each
    /// (headers), then the rest. What does not fit the budget is left to its readers.
    pub fn prefetch(&self, slots: &[u32]) {
        let mut heads = Vec::new();
        let mut rest = Vec::new();
        for slot in slots {
            let (Some(held), Some(object)) = (self.held(*slot), self.region.object(*slot)) else {
                continue;
            };
            if held.planned.swap(true, Ordering::AcqRel) {
                continue;
            }
            heads.push(Item::Part(*slot, 0));
            rest.extend((1..object.parts()).map(|index| Item::Part(*slot, index)));
        }
        heads.extend(rest);
        self.push(&heads, Class::Prefetch);
    }

    /// A reader waits for this part, given as its index in the region.
    pub fn demanded(&self, region_part: u32) {
        let Some((slot, object, index)) = self.part_at(region_part) else {
            return;
        };
        let Some(held) = self.held(slot) else { return };
        let is_under_way = self.region.part(object, index).state() != ossc_cache::part::EMPTY;
        if is_under_way {
            self.hurry(slot, index);
        }
        self.push(&[Item::Part(slot, index)], Class::Demand);
        // A reader that comes from the part before will want the next ones soon, also where prefetch found
        // no room.
        let was_read = |part: &ossc_cache::part::Part| part.is_ready() && part.used() > 0;
        let in_order = index == 0 || was_read(self.region.part(object, index - 1));
        let ahead = if in_order { READ_AHEAD_PARTS } else { 0 };
        let near: Vec<Item> = (index + 1..object.parts().min(index + 1 + ahead))
            .filter(|index| !self.region.part(object, *index).is_ready())
            .map(|index| Item::Part(slot, index))
            .collect();
        self.push(&near, Class::Near);
        if !held.planned.swap(true, Ordering::AcqRel) {
            if !is_under_way && !held.made_way.swap(true, Ordering::AcqRel) {
                self.make_way(object, near.len() + 1);
            }
            // What is read at all is mostly read whole: from here on, then around.
            let order: Vec<Item> =
                (index + 1..object.parts()).chain(0..index).map(|index| Item::Part(slot, index)).collect();
            self.push(&order, Class::Prefetch);
        }
    }

    /// Objects that were fetched ahead and are not wanted after all: what waits in the plan goes. A reader that comes to
    /// want a part says so again and again.
    pub fn leave(&self, slots: &[u32]) {
        let is_unwanted = |slot: &&u32| self.held(**slot).is_some_and(|held| !held.opened.load(Ordering::Acquire));
        let left: BTreeSet<u32> = slots.iter().filter(is_unwanted).copied().collect();
        lock(&self.plan).forget(|item| matches!(item, Item::Part(slot, _) if left.contains(slot)));
        for held in left.iter().filter_map(|slot| self.held(*slot)) {
            held.planned.store(false, Ordering::Release);
        }
    }

    /// A program waits for a small object.
    pub fn wanted_small(&self, slot: u32) {
        self.want_small(slot);
        self.tell_use(slot, None);
    }

    /// A program has opened an object, or waits for it: the thread that lists folders hears of it. Without it the engine
    /// is ending.
    fn tell_use(&self, slot: u32, pid: Option<u32>) {
        let _ = self.orders.send(Order::Used { slot, pid });
    }

    /// A client met an object: a line for the audit file.
    pub fn seen(&self, seen: Seen) {
        if seen.act != ACT_GIVEN {
            self.tell_use(seen.slot, Some(seen.pid));
        }
        if seen.act == ACT_SMALL {
            return;
        }
        if let Some(held) = self.held(seen.slot) {
            if seen.act == ACT_GIVEN {
                return self.given_early(seen.pid, &held);
            }
            held.opened.store(true, Ordering::Release);
            if seen.act == 1 {
                self.keep_opened(seen.slot);
            }
            let act = match seen.act {
                1 => "open",
                2 => "map",
                _ => "file",
            };
            self.audit.cache(seen.pid, act, (&held.key, &held.etag, held.size));
        }
    }

    /// Record and part number behind an index of the region.
    pub(crate) fn part_at(&self, region_part: u32) -> Option<(u32, &Object, u32)> {
        let owners = self.owners.read().unwrap_or_else(|e| e.into_inner());
        let (_, slot) = owners.range(..=region_part).next_back()?;
        let object = self.region.object(*slot)?;
        let index = region_part.checked_sub(object.first_part())?;
        (index < object.parts()).then_some((*slot, object, index))
    }

    pub(crate) fn push(&self, items: &[Item], class: Class) {
        let mut plan = lock(&self.plan);
        items.iter().for_each(|item| plan.push(*item, class));
        drop(plan);
        self.wake();
    }

    /// What waits for a connection.
    pub(crate) fn plan(&self) -> std::sync::MutexGuard<'_, Plan<Item>> {
        lock(&self.plan)
    }

    pub(crate) fn push_later(&self, item: Item, class: Class, wait: Duration) {
        lock(&self.plan).push_at(item, class, (self.options.now)() + wait);
        self.wake();
    }

    pub(crate) fn wake(&self) {
        if let Some(vcpus) = self.vcpus.get() {
            vcpus.wake();
        }
    }

    fn prepare(&self, item: Item, class: Class) -> Option<Fetch> {
        match item {
            Item::Part(slot, index) => self.prepare_part(slot, index, class, None),
            Item::Again(slot, index) => {
                let since = lock(&self.roomless).remove(&(slot, index));
                self.prepare_part(slot, index, class, since)
            }
            Item::Piece(slot, index, n) => {
                let range = self.flights.ask((slot, index), n, (self.options.now)())?;
                self.fetch_in_place(&*self.held(slot)?, range, item)
            }
            // Never in the plan: `pull` finds them.
            Item::Spare(..) => None,
            Item::Blocks(..) => self.prepare_blocks(item, class),
            Item::Small(slot, index) => self.prepare_small(slot, index, class),
            Item::Call(id) => {
                let query = lock(&self.calls).get(&id)?.query.clone();
                Some(Fetch {
                    token: item.token(),
                    query,
                    sink: Sink::Buffer { bytes_max: DOCUMENT_BYTES_MAX },
                    crc: false,
                    urgent: true,
                })
            }
            Item::Verdict(slot) => {
                let query = Query::Head { key: self.held(slot)?.key.clone() };
                Some(Fetch {
                    token: item.token(),
                    query,
                    sink: Sink::Buffer { bytes_max: DOCUMENT_BYTES_MAX },
                    crc: false,
                    urgent: true,
                })
            }
            Item::Revive(slot) => {
                let object = self.region.object(slot)?;
                // What was wrong twice stays so: nothing that came of it would count.
                let is_wrong = object.verdict.get().judgement == Judgement::Wrong;
                if object.state() == state::FAILED && !is_wrong {
                    // Failures that were under way when it failed are no part of a later outage.
                    self.held(slot)?.out_of_trouble();
                    object.set_state(if object.parts() > 0 { state::LOADING } else { state::COMING });
                    if object.parts() == 0 {
                        self.fetch_small(slot);
                    } else {
                        self.ask_verdict_again(slot, object);
                    }
                }
                None
            }
        }
    }

    /// `since`: for how long there was no room for it.
    fn prepare_part(&self, slot: u32, index: u32, class: Class, since: Option<Instant>) -> Option<Fetch> {
        let object = self.region.object(slot)?;
        // The record may have become another version's while this waited.
        if !matches!(object.state(), state::LOADING | state::VERIFIED) || index >= object.parts() {
            return None;
        }
        let held = self.held(slot)?;
        let part = self.region.part(object, index);
        if part.state() != ossc_cache::part::EMPTY {
            if class == Class::Demand {
                self.hurry(slot, index);
            }
            return None;
        }
        if let Err(errno) = self.open_memory(slot, object, &held) {
            self.without_memory_file(object, &held, errno);
            self.without_room(slot, index, class, since.unwrap_or((self.options.now)()));
            return None;
        }
        let (range, bytes) = (object.part_range(index), self.room_bytes(object, index));
        // Room first: a claim that is given up wakes the part's readers, who would ask again at once.
        let kept = self.claim_kept(object, &held, index);
        let own_blocks = || class < Class::Prefetch && self.release_blocks(object, &held, &[index]);
        let roomy = kept || self.budget.take(bytes) || own_blocks() && self.budget.take(bytes);
        if !roomy && !self.make_room(bytes, (slot, index), class) {
            self.without_room(slot, index, class, since.unwrap_or((self.options.now)()));
            return None;
        }
        // Already fetched or being fetched, by a demand that overtook the prefetch.
        if !kept && !self.claim(object, &held, index) {
            self.budget.give(bytes);
            return None;
        }
        object.starved.store(0, Ordering::Release);
        // It was given up while the verdict was being made; the verdict is due again when it is back.
        if object.state() == state::VERIFIED {
            object.set_state(state::LOADING);
        }
        let now = (self.options.now)();
        let mut plan = lock(&self.plan);
        // A cache that is full has few parts waiting all the time: that is not the end of a download.
        // What a reader waits for is shared by the next free connections, whatever waits behind it.
        let queue =
            roomy.then(|| Queue { waiting: plan.len_above(class), connections: lock(&self.growth).limit(), class });
        let (first, more) = self.flights.begin((slot, index), range, queue, now);
        // To the front: the part is on its way when all of it is.
        (1..=more).rev().for_each(|n| plan.push_first(Item::Piece(slot, index, n), class));
        drop(plan);
        if more > 0 {
            self.wake();
        }
        self.fetch_in_place(&held, first, Item::Part(slot, index))
    }

    /// Takes the right to fill a part as a whole; its blocks go.
    fn claim(&self, object: &Object, held: &Held, index: u32) -> bool {
        let mut check = lock(&held.check);
        let is_claimed = self.region.part(object, index).claim();
        if is_claimed {
            self.drop_blocks(object, held, &mut check, index);
        }
        is_claimed
    }

    /// A request for an object failed: again later, or an error for its readers.
    pub(crate) fn failed(&self, item: Item, object: &Object, held: &Held, error: &Error, attempts: u32) {
        let header = self.region.header();
        self.audit.origin(&Fetched {
            key: &held.key,
            etag: &held.etag,
            range: error.range.clone(),
            bytes: 0,
            status: error.status.unwrap_or(0),
            request_id: error.request_id.as_deref().unwrap_or(""),
            crc: None,
        });
        let renewing = self.renews(error);
        let again = error.retryable() || renewing.is_some();
        let outage = held.in_trouble((self.options.now)());
        // A source may also go on giving credentials that are refused.
        let patient = renewing.is_none_or(|waited| waited.max(outage) < RENEWAL_PATIENCE);
        if again && patient && outage < self.options.outage_budget {
            header.origin_retries.fetch_add(1, Ordering::Relaxed);
            let wait = self.options.backoff.wait(attempts.saturating_sub(1));
            tracing::warn!(attempts, wait_ms = wait.as_millis() as u64, "{error}");
            return self.push_later(item, Class::Demand, wait);
        }
        let errno = error.kind.errno();
        tracing::error!(
            object = held.key,
            etag = held.etag,
            attempts,
            outage_secs = outage.as_secs(),
            "readers get errno {errno}: {error}"
        );
        held.planned.store(false, Ordering::Release);
        self.small_is_over(held);
        object.fail(errno);
        if matches!(error.kind, Kind::Changed | Kind::NotFound | Kind::Range) && !object.is_superseded() {
            // The folder is listed again, so that a later open finds the new version. Without the thread
            // that lists, the engine is ending.
            let asked_ms = ossc_cache::sys::now_ms();
            let _ = self.orders.send(Order::Refresh { folder: held.folder.clone(), asked_ms });
        }
        // What this machine lacked (descriptors, ports, buffers, memory) it may have again.
        if again || matches!(error.kind, Kind::Local | Kind::Memory) {
            self.revive_later(item.record());
        }
    }

    /// A failed object whose cause may pass is tried again in a while.
    pub fn revive_later(&self, slot: u32) {
        self.push_later(Item::Revive(slot), Class::Near, self.options.revive);
    }
}

impl Source for Work {
    fn pull(&self, now: Instant) -> Pull {
        if let Some(at) = self.renewal.get().and_then(|renewal| renewal.hold(now)) {
            return Pull::Until(Some(at));
        }
        let mut throttle = lock(&self.throttle);
        if !throttle.begin() {
            // Whoever ends a request asks again, and all do when the throttle gives way.
            return Pull::Until(None);
        }
        // Whoever ends one asks again here, too.
        let grown = throttle.under_way() > lock(&self.growth).limit();
        let least = if grown { Class::Near } else { Class::Prefetch };
        drop(throttle);
        if let Ok(spare) = self.prepare_spare(now, false) {
            return Pull::Fetch(spare);
        }
        loop {
            let next = lock(&self.plan).next(now, least);
            match next {
                Next::Item(item, class) => {
                    // Counted before the record is looked at: one that is not GONE by then stays what it is.
                    let held = self.held_of(item);
                    held.iter().for_each(|held| held.begin_request());
                    if let Some(fetch) = self.prepare(item, class) {
                        return Pull::Fetch(Fetch { urgent: class < Class::Prefetch, ..fetch });
                    }
                    held.iter().for_each(|held| held.end_request());
                }
                Next::Until(at) => {
                    return match self.prepare_spare(now, !grown) {
                        Ok(spare) => Pull::Fetch(spare),
                        Err(look_again) => {
                            self.not_sent();
                            Pull::Until([at, look_again].into_iter().flatten().min())
                        }
                    };
                }
            }
        }
    }

    fn finished(&self, done: Finished) {
        let held = self.held_of(Item::from_token(done.token));
        self.count_end(&done);
        let header = self.region.header();
        header.origin_requests.fetch_add(1, Ordering::Relaxed);
        if let Ok(response) = &done.result {
            if let Some(renewal) = self.renewal.get() {
                renewal.accepted();
            }
            header.origin_bytes.fetch_add(response.bytes, Ordering::Relaxed);
        }
        match Item::from_token(done.token) {
            Item::Part(slot, index) | Item::Again(slot, index) => self.finished_piece(slot, index, 0, done),
            Item::Piece(slot, index, n) => self.finished_piece(slot, index, n, done),
            Item::Spare(slot, index, n, chunk) => self.finished_spare((slot, index, n, chunk), done),
            item @ Item::Blocks(..) => self.finished_blocks(item, done),
            Item::Small(slot, index) => self.finished_small(slot, index, done),
            Item::Verdict(slot) => self.finished_verdict(slot, done),
            Item::Call(id) | Item::Revive(id) => {
                if let Some(call) = lock(&self.calls).remove(&id) {
                    // Who asked may have stopped waiting.
                    let _ = call.answer.send(done);
                }
            }
        }
        held.iter().for_each(|held| held.end_request());
    }

    fn make_present(&self, token: u64, filled: usize, bytes: Range<usize>) -> Result<(), Error> {
        self.populate(Item::from_token(token), filled, bytes)
    }
}
