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

pub use scheduling::Patience;
pub use shared::options::Options;

use crate::journal::audit::{Audit, Fetched};
use crate::lock::lock;
use crate::order::Order;
use objects::verdict::Misread;
use ossc_cache::budget::Budget;
use ossc_cache::event::{ACT_GIVEN, ACT_SMALL};
use ossc_cache::plan::{Class, Next};
use ossc_cache::region::{Object, Region, Seen, state};
use ossc_cache::verdict::Judgement;
use ossc_net::error::Kind;
use ossc_net::{Error, Fetch, Finished, Pull, Query, Sink, Source};
use residency::programs::Programs;
use scheduling::{Scheduling, Waited, order};
use shared::action::Action;
use shared::held::Held;
use shared::item::{Arrived, DOCUMENT_BYTES_MAX, Item};
use shared::register::Register;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use transfers::flight::{Flights, Queue};

/// How long requests that OSS refuses for their credentials wait for others, before readers see an error.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
pub struct Work {
    pub scheduling: Scheduling,
    pub(crate) register: Arc<Register>,
    pub(crate) region: Region,
    /// Records of versions that a newer listing does not name: they go when nobody uses them.
    pub(crate) superseded: Mutex<BTreeSet<u32>>,
    /// Held by who looks at the leases or ends records.
    pub(crate) looking: Mutex<()>,
    /// The region's clock behind the last look at the leases; 0 before the first.
    pub(crate) looked_clock: AtomicU32,
    /// The programs that run for this MODEL_DIR.
    pub programs: Programs,
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
            scheduling: Scheduling::new(options),
            register: Arc::new(Register::new(region, options)),
            region,
            superseded: Mutex::default(),
            looking: Mutex::default(),
            looked_clock: AtomicU32::new(0),
            programs: Programs::default(),
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
            flights: Flights::new(options.twice_percent_max, options.scale),
        }
    }

    /// The public records.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// What is known of a record.
    pub fn held(&self, slot: u32) -> Option<Arc<Held>> {
        self.register.held(slot)
    }

    /// What is known of the record that an item is of.
    fn held_of(&self, item: Item) -> Option<Arc<Held>> {
        if matches!(item, Item::Call(_)) { None } else { self.held(item.record()) }
    }

    /// Takes an object in.
    pub fn hold(&self, slot: u32, held: Held) {
        if let Some(memory) = &held.memory {
            self.excuse(slot);
            self.memory_files.fetch_add(usize::from(memory.is_open()), Ordering::AcqRel);
        }
        self.register.take_in(slot, held);
    }

    /// Does what a wing has left to others, in its order.
    fn act(&self, actions: impl IntoIterator<Item = Action>) {
        for action in actions {
            match action {
                Action::Push(items, class) => self.scheduling.push(&items, class),
                Action::Hurry(slot, index) => self.hurry(slot, index),
                Action::MakeWay(slot, parts) => {
                    self.region.object(slot).into_iter().for_each(|object| self.make_way(object, parts));
                }
            }
        }
    }

    /// Fetches whole large objects ahead of their readers, in this order.
    pub fn prefetch(&self, slots: &[u32]) {
        self.act([order::ahead(&self.register, slots)]);
    }

    /// A reader waits for this part, given as its index in the region.
    pub fn demanded(&self, region_part: u32) {
        self.act(order::demanded(&self.register, region_part));
    }

    /// Objects that were fetched ahead and are not wanted after all: what waits in the plan goes. A reader that comes to
    /// want a part says so again and again.
    pub fn leave(&self, slots: &[u32]) {
        let is_unwanted = |slot: &&u32| self.held(**slot).is_some_and(|held| !held.opened.load(Ordering::Acquire));
        let left: BTreeSet<u32> = slots.iter().filter(is_unwanted).copied().collect();
        self.scheduling.forget(|item| matches!(item, Item::Part(slot, _) if left.contains(slot)));
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
            Item::Call(id) => self.scheduling.question(id),
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
        let begin = |waited: Waited| {
            // A cache that is full has few parts waiting all the time: that is not the end of a download.
            // What a reader waits for is shared by the next free connections, whatever waits behind it.
            let queue = Queue { waiting: waited.waiting, connections: waited.connections, class };
            self.flights.begin((slot, index), range, roomy.then_some(queue), now)
        };
        let first = self.scheduling.cut(class, |n| Item::Piece(slot, index, n), begin);
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
        let renewing = self.scheduling.renews(error);
        let again = error.retryable() || renewing.is_some();
        let outage = held.in_trouble((self.options.now)());
        // A source may also go on giving credentials that are refused.
        let patient = renewing.is_none_or(|waited| waited.max(outage) < RENEWAL_PATIENCE);
        if again && patient && outage < self.options.outage_budget {
            header.origin_retries.fetch_add(1, Ordering::Relaxed);
            let wait = self.options.backoff.wait(attempts.saturating_sub(1));
            tracing::warn!(attempts, wait_ms = wait.as_millis() as u64, "{error}");
            return self.scheduling.push_later(item, Class::Demand, wait);
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
        self.scheduling.push_later(Item::Revive(slot), Class::Near, self.options.revive);
    }
}

impl Source for Work {
    fn pull(&self, now: Instant) -> Pull {
        let least = match self.scheduling.admit(now) {
            Ok(least) => least,
            Err(until) => return Pull::Until(until),
        };
        if let Ok(spare) = self.prepare_spare(now, false) {
            return Pull::Fetch(spare);
        }
        loop {
            match self.scheduling.next(now, least) {
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
                    return match self.prepare_spare(now, least == Class::Prefetch) {
                        Ok(spare) => Pull::Fetch(spare),
                        Err(look_again) => {
                            self.scheduling.not_sent();
                            Pull::Until([at, look_again].into_iter().flatten().min())
                        }
                    };
                }
            }
        }
    }

    fn finished(&self, done: Finished) {
        let held = self.held_of(Item::from_token(done.token));
        self.scheduling.ended(&done);
        let header = self.region.header();
        header.origin_requests.fetch_add(1, Ordering::Relaxed);
        if let Ok(response) = &done.result {
            header.origin_bytes.fetch_add(response.bytes, Ordering::Relaxed);
        }
        match Item::from_token(done.token) {
            Item::Part(slot, index) | Item::Again(slot, index) => self.finished_piece(slot, index, 0, done),
            Item::Piece(slot, index, n) => self.finished_piece(slot, index, n, done),
            Item::Spare(slot, index, n, chunk) => self.finished_spare((slot, index, n, chunk), done),
            item @ Item::Blocks(..) => self.finished_blocks(item, done),
            Item::Small(slot, index) => self.finished_small(slot, index, done),
            Item::Verdict(slot) => self.finished_verdict(slot, done),
            Item::Call(id) | Item::Revive(id) => self.scheduling.answered(id, done),
        }
        held.iter().for_each(|held| held.end_request());
    }

    fn make_present(&self, token: u64, filled: usize, bytes: Range<usize>) -> Result<(), Error> {
        self.populate(Item::from_token(token), filled, bytes)
    }
}
