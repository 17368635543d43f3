//! One run: origin, network, engine and readers on one virtual clock, one event after the other, all from one seed.
//! After each event the invariants are looked at; at the end faults stop, and everything must come to rest.
//!
//! Called by `main` for each seed. A run ends at the first violation.

use crate::bucket::{Pace, Thing};
use crate::check;
use crate::choices::{most_bytes, net, new_size, pace, room, rush, work};
use crate::engine::{self, Engine, PAGE_BYTES, Setup};
use crate::fault::Fault;
use crate::link::Line;
use crate::memory::Ground;
use crate::reader::{Reader, Scene};
use crate::stage::{self, Part, Shared, Stage, Truth, Twice};
use ossc_cache::region::{Region, state};
use ossc_engine::order::Order;
use ossc_engine::work::leases;
use ossc_engine::work::shared::item::Arrived;
use ossc_net::sim::{self, Net, Posted, Sleep};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two looks at the leases, in microseconds: as `reclaim` has it, and no multiple of a reader's slice, which
/// would let the same reader miss the same answer for ever.
const LEASE_TICK: u64 = 1_300_000;
/// Without faults everything must be at rest within this, in microseconds: the longest pauses are the revival of a
/// failed object (30 s) and the life of an idle connection (50 s), one after the other a few times.
const REST_WITHIN: u64 = 400_000_000;
/// Mean time that a listing hangs, in microseconds.
const LISTING_HANGS: u64 = 10_000_000;
/// How long the process, or the machine with all connections, stands still, in microseconds: a vcpu takes what is shorter
/// than a second for a silence of the network.
const STILL: [(Fault, [u64; 3]); 2] =
    [(Fault::StandsStill, [2_000_000, 3_000_000, 10_000_000]), (Fault::Suspended, [2_000_000, 5_000_000, 10_000_000])];
/// A rush begins after so many latencies: the pace of the line is known by then, and most is still to come.
const RUSH_AFTER: u64 = 12;
/// Most turns of a vcpu at the same time.
const TURNS_MAX: u32 = 1000;
/// Most takeovers of a run.
const TAKEOVERS_MAX: u32 = 3;
/// Most versions of an object in one run.
const VERSIONS_MAX: usize = 4;
/// Largest parts.
pub const PART_BYTES_MAX: u64 = 8192;

/// Something that happens at its time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Job {
    Turn(usize),
    Line(u32),
    Link,
    Demand,
    Supply,
    Reader(usize),
    Lease,
    Settle,
    List,
    Shake,
}

/// See the module.
pub struct World<'a> {
    ground: &'a mut Ground,
    /// The catalog.
    pub region: Region,
    /// Ready bytes of earlier runs in the same region.
    pub ready_before: u64,
    /// What is true.
    pub stage: Shared,
    things: Vec<Thing>,
    keys: Vec<String>,
    part_bytes: Vec<u64>,
    latest: Vec<usize>,
    readers: Vec<Reader>,
    /// The engine that runs.
    pub engine: Engine,
    /// What every engine of the run is started with.
    pub setup: Setup,
    pace: Pace,
    think: u64,
    jumps: bool,
    rushes: bool,
    /// Mean time from what wakes a vcpu to its turn, in microseconds.
    wake: u64,
    expire: Duration,
    lines: Vec<Line>,
    heap: BinaryHeap<Reverse<(u64, u64, Job)>>,
    number: u64,
    turn_due: Vec<u64>,
    /// The process does not run before this time; true if nothing else does.
    still: (u64, bool),
    /// The thin link brings the next turn then.
    link_due: u64,
    /// How the vcpus sleep; `None` before their first turn.
    pub sleeps: Vec<Option<Sleep>>,
    turns: (u64, u32),
    heard: Option<u32>,
    demand_due: bool,
    supply_due: bool,
    inbox: Vec<Arrived>,
    list_due: bool,
    takeovers: u32,
    calm_since: Option<u64>,
    /// Events so far: operations that ended, turns, looks, steps of readers.
    pub events: u64,
    newest_done: (u32, u64),
}

/// What a run found.
pub struct Outcome {
    /// Events.
    pub events: u64,
    /// Requests of the engine.
    pub counts: Vec<u64>,
    /// What was violated.
    pub violation: Option<String>,
}

/// Runs one seed for at least `events` events, then to rest.
pub fn run(ground: &mut Ground, seed: u64, events: u64, trace: bool) -> Outcome {
    fastrand::seed(seed);
    sim::set_now(Duration::ZERO);
    let stage = Shared::new(Stage::new(seed, trace).into());
    let mut world = World::new(ground, stage.clone());
    world.play(events);
    let events = world.events;
    drop(world);
    let stage = stage::lock(&stage);
    Outcome { events, counts: stage.faults.counts.clone(), violation: stage.violation().map(str::to_string) }
}

impl<'a> World<'a> {
    fn new(ground: &'a mut Ground, stage: Shared) -> World<'a> {
        let region = ground.clear().expect("memory for a region");
        let mut guard = stage::lock(&stage);
        let waits = guard.rng.u32(0..8) == 0;
        region.header().reads_wait.store(u32::from(waits), Ordering::Relaxed);
        let rng = &mut guard.rng;
        let mut net = net(rng);
        let pace = pace(rng, net.timeouts);
        let (large, small, readers) = (rng.usize(1..=4), rng.usize(0..=2), rng.u32(1..=6));
        // One run in eight is a rush: many readers at once begin while all objects but the first are fetched ahead. Of
        // numbers of its own: the choices of the other runs do not depend on it.
        let rushes = rng.clone().u32(0..8) == 0;
        let (large, small, readers) = if rushes { (4, 0, 8) } else { (large, small, readers) };
        let part_bytes: Vec<u64> = (0..large + small)
            .map(
                |number| if number < large { rng.choice([512, 1024, 4096, PART_BYTES_MAX]).unwrap_or(4096) } else { 0 },
            )
            .collect();
        let mut work = work(rng, &net, part_bytes.iter().copied().max().unwrap_or(0));
        if rushes {
            rush(&mut net, &mut work);
        }
        let jumps = rng.u32(0..3) == 0 && !rushes;
        let think = rng.choice([100, 1000, 20_000]).unwrap_or(1000);
        let think = if rushes { 50 } else { think };
        let expire = Duration::from_secs(rng.u64(1..20));
        let wake = rng.choice([10, 10, 2000]).unwrap_or(10);
        let things: Vec<Thing> = (0..large + small)
            .map(|number| {
                let size = new_size(&mut guard, part_bytes[number]);
                let size = if rushes { most_bytes(part_bytes[number], 20) } else { size };
                Thing::new(&mut guard, number, size)
            })
            .collect();
        let needs =
            things.iter().zip(&part_bytes).map(|(thing, part)| if *part > 0 { room(thing.current().size) } else { 0 });
        let (total, largest) = needs.fold((0, 0), |(sum, max), need| (sum + need, max.max(need)));
        let least = 2 * (PART_BYTES_MAX + PAGE_BYTES);
        let limit = match guard.rng.u32(0..4) {
            0 if !rushes => guard.rng.u64(least..=least.max(total)),
            1 if !rushes => largest.max(least),
            _ => guard.rng.u64(largest.max(least)..=largest.max(least) + total),
        };
        guard.limit = limit;
        guard.twice.percent = work.twice_percent_max;
        drop(guard);
        let setup = Setup { net, work, limit };
        let engine = Engine::new(region, &setup, &stage);
        let keys = things.iter().map(|thing| thing.key.clone()).collect();
        let mut world = World {
            ground,
            region,
            ready_before: region.header().ready_bytes.load(Ordering::Relaxed),
            stage,
            things,
            keys,
            part_bytes,
            latest: Vec::new(),
            readers: (0..readers).map(Reader::new).collect(),
            engine,
            setup,
            pace,
            think,
            jumps,
            rushes,
            wake,
            expire,
            lines: Vec::new(),
            heap: BinaryHeap::new(),
            number: 0,
            turn_due: Vec::new(),
            still: (0, false),
            link_due: u64::MAX,
            sleeps: Vec::new(),
            turns: (0, 0),
            heard: None,
            demand_due: false,
            supply_due: false,
            inbox: Vec::new(),
            list_due: false,
            takeovers: 0,
            calm_since: None,
            events: 0,
            newest_done: (0, 0),
        };
        world.open();
        world
    }

    /// The catalog, the first prefetch and the clocks.
    fn open(&mut self) {
        for number in 0..self.things.len() {
            self.take_in(number);
        }
        let mut slots: Vec<u32> = self.latest.iter().map(|record| self.slot(*record)).collect();
        // All of them, none, or some: then readers also want what nobody fetches.
        let some = |stage: &mut Stage| [0, stage.rng.usize(0..=slots.len()), slots.len()][stage.rng.usize(0..3)];
        let count = if self.jumps { 0 } else { some(&mut stage::lock(&self.stage)) };
        slots.truncate(count);
        if self.rushes {
            slots = self.latest.iter().skip(1).map(|record| self.slot(*record)).collect();
        }
        self.engine.work.prefetch(&slots);
        self.start_clocks();
        self.at(LEASE_TICK, Job::Lease);
        self.at(1000, Job::Shake);
        for number in 0..self.readers.len() {
            let when = stage::lock(&self.stage).jitter(self.think);
            let when = if self.rushes { when + self.pace.latency * RUSH_AFTER } else { when };
            self.readers[number].due = when;
            self.at(when, Job::Reader(number));
        }
        self.react();
    }

    /// A new engine: its vcpus and its look at the demand begin at once.
    fn start_clocks(&mut self) {
        let vcpus = self.setup.net.vcpus;
        (self.turn_due, self.sleeps) = (vec![u64::MAX; vcpus], vec![None; vcpus]);
        (self.heard, self.demand_due, self.supply_due, self.list_due) = (None, false, false, false);
        self.inbox.clear();
    }

    fn slot(&self, record: usize) -> u32 {
        stage::lock(&self.stage).truths[record].slot
    }

    /// The current version of a thing gets a record.
    fn take_in(&mut self, number: usize) {
        let (version, part_bytes) = (self.things[number].current().clone(), self.part_bytes[number]);
        let parts = if part_bytes == 0 { 0 } else { version.size.div_ceil(part_bytes) };
        let truth = Truth {
            slot: 0,
            thing: number,
            etag: version.etag,
            salt: version.salt,
            size: version.size,
            part_bytes,
            at: self.ground.place(version.size as usize),
            users: 0,
            round: 1,
            refused: false,
            mismatches: 0,
            tried_again: false,
            failed: false,
            parts: vec![Part { allowance: 1, ..Part::default() }; parts as usize],
        };
        self.engine.take_in(&self.stage, &self.keys[number], truth);
        let record = stage::lock(&self.stage).truths.len() - 1;
        if parts > 0 {
            let is_other = |old: &usize| stage::lock(&self.stage).truths[*old].thing != number;
            let mut latest: Vec<usize> = self.latest.iter().copied().filter(is_other).collect();
            latest.push(record);
            self.latest = latest;
        }
    }

    fn at(&mut self, when: u64, job: Job) {
        self.number += 1;
        self.heap.push(Reverse((when, self.number, job)));
    }

    fn now(&self) -> u64 {
        stage::lock(&self.stage).micros
    }

    fn soon(&self, mean: u64) -> u64 {
        let mut stage = stage::lock(&self.stage);
        stage.micros + 1 + stage.jitter(mean)
    }

    fn play(&mut self, events: u64) {
        while let Some(Reverse((when, _, job))) = self.heap.pop() {
            stage::lock(&self.stage).micros = when;
            sim::set_now(Duration::from_micros(when));
            self.events += u64::from(self.happens(job));
            self.react();
            check::always(self);
            if stage::lock(&self.stage).violation().is_some() {
                return;
            }
            if self.calm_since.is_none() && self.events >= events {
                self.calm();
            }
            if self.calm_since.is_some_and(|since| self.is_over(since)) {
                break;
            }
        }
        self.end();
    }

    fn calm(&mut self) {
        let now = self.now();
        let mut stage = stage::lock(&self.stage);
        stage.say(|| "no fault from here on".into());
        stage.faults.end();
        stage.armed = None;
        drop(stage);
        (0..self.setup.net.vcpus).for_each(|vcpu| self.engine.net.refuse_sockets(vcpu, 0));
        self.calm_since = Some(now);
    }

    /// At rest, or not in time.
    fn is_over(&self, since: u64) -> bool {
        let gauges = self.engine.work.gauges();
        let mut stage = stage::lock(&self.stage);
        let rests = !self.engine.neighbour.is_busy()
            && stage.in_flight == 0
            && gauges.planned == 0
            && self.engine.net.sockets() == 0;
        let gone = self.readers.iter().all(Reader::is_gone);
        let late = stage.micros > since + REST_WITHIN;
        if late {
            let waiting: Vec<String> = self.readers.iter().filter(|r| !r.is_gone()).map(Reader::describe).collect();
            let (in_flight, sockets) = (stage.in_flight, self.engine.net.sockets());
            stage.violated(format!("not at rest: {gauges:?}, {in_flight} requests, {sockets} sockets, {waiting:?}"));
        }
        late || (rests && gone && self.inbox.is_empty() && !self.list_due)
    }

    /// Everything is at rest: are all numbers what they must be? Then the engine stops.
    fn end(&mut self) {
        if stage::lock(&self.stage).violation().is_some() {
            return;
        }
        check::at_rest(self);
        self.stop();
    }

    /// One event; true if something came of it.
    fn happens(&mut self, job: Job) -> bool {
        let now = self.now();
        if now < self.still.0 && self.stands_still(job, now) {
            return false;
        }
        match job {
            Job::Turn(vcpu) if self.turn_due[vcpu] == now => self.turn(vcpu),
            Job::Line(link) => return self.line(link, now),
            Job::Link if self.link_due == now => self.bring(now),
            Job::Demand if self.demand_due => {
                self.demand_due = false;
                self.heard = Some(self.engine.looked.again(&self.engine.work));
                check::ways(&self.engine.work, &mut stage::lock(&self.stage));
            }
            Job::Supply => {
                self.supply_due = false;
                self.supply();
            }
            Job::Reader(number) if self.readers[number].due == now => self.read(number),
            Job::Lease => {
                leases::look(&self.engine.work, Some(self.expire), &|| false);
                self.at(now + LEASE_TICK, Job::Lease);
            }
            Job::Settle => self.settle(),
            Job::List => self.list(),
            Job::Shake if self.calm_since.is_none() => {
                self.shake();
                let when = self.soon(self.think);
                self.at(when, Job::Shake);
            }
            _ => return false,
        }
        true
    }

    /// The process does not run, or nothing does: what is its comes when it goes on. True if it does.
    fn stands_still(&mut self, job: Job, now: u64) -> bool {
        let (until, all) = self.still;
        match job {
            Job::Turn(vcpu) if self.turn_due[vcpu] == now => {
                self.turn_due[vcpu] = u64::MAX;
                self.turn_at(vcpu, until);
            }
            Job::Demand | Job::Supply | Job::Lease | Job::Settle | Job::List | Job::Shake => self.at(until, job),
            Job::Line(link) if all && self.lines.iter().any(|line| line.link == link && line.due == now) => {
                self.lines.iter_mut().filter(|line| line.link == link).for_each(|line| line.due = u64::MAX);
                let when = until + stage::lock(&self.stage).jitter(20);
                self.line_at(link, when);
            }
            Job::Link if all && self.link_due == now => {
                self.link_due = until;
                self.at(until, Job::Link);
            }
            Job::Reader(number) if all && self.readers[number].due == now => {
                self.readers[number].due = until;
                self.at(until, job);
            }
            _ => return false,
        }
        true
    }

    /// The thin link brings a turn to the connection that has waited for one longest.
    fn bring(&mut self, now: u64) {
        self.link_due = u64::MAX;
        let waits = |line: &&mut Line| line.waits_for_link().is_some_and(|at| at <= now);
        let mut waiting: Vec<&mut Line> = self.lines.iter_mut().filter(waits).collect();
        if waiting.len() > 1 {
            stage::lock(&self.stage).faults.saw(Fault::Thin);
        }
        waiting.sort_by_key(|line| (line.waits_since(), line.link));
        if let Some(line) = waiting.first_mut() {
            line.bring(now, self.pace.turn_bytes);
            let link = line.link;
            self.line_at(link, now + 1);
        }
        self.call_link();
    }

    /// The thin link has its next turn, if it has something to bring.
    fn call_link(&mut self) {
        let first = self.lines.iter().filter_map(Line::waits_for_link).min();
        let Some(when) = first.map(|at| at.max(self.now() + self.pace.turn)) else { return };
        if when < self.link_due {
            self.link_due = when;
            self.at(when, Job::Link);
        }
    }

    fn turn(&mut self, vcpu: usize) {
        let now = self.now();
        self.turn_due[vcpu] = u64::MAX;
        self.turns = if self.turns.0 == now { (now, self.turns.1 + 1) } else { (now, 0) };
        if self.turns.1 > TURNS_MAX {
            stage::lock(&self.stage).violated("vcpus spin".into());
        }
        match self.engine.net.turn(vcpu) {
            ControlFlow::Break(()) => self.sleeps[vcpu] = None,
            ControlFlow::Continue(sleep) => {
                self.sleeps[vcpu] = Some(sleep);
                if let Some(until) = sleep.until {
                    let nanos = until.saturating_duration_since(sim::now()).as_nanos() as u64;
                    self.turn_at(vcpu, now + nanos.div_ceil(1000));
                }
            }
        }
        for posted in self.engine.net.take_posted(vcpu) {
            self.posted(posted);
        }
        let links: Vec<u32> =
            self.lines.iter().map(|line| line.link).filter(|link| Net::owner(*link) == vcpu).collect();
        check::ranks(&self.engine.net, &links, &mut stage::lock(&self.stage));
    }

    fn turn_at(&mut self, vcpu: usize, when: u64) {
        if when < self.turn_due[vcpu] {
            self.turn_due[vcpu] = when;
            self.at(when, Job::Turn(vcpu));
        }
    }

    fn posted(&mut self, posted: Posted) {
        let (link, op) = match posted {
            Posted::Close(link) => {
                self.lines.retain(|line| line.link != link);
                return;
            }
            Posted::Connect(link, _) => {
                let line = Line::new(link, &mut stage::lock(&self.stage));
                self.lines.push(line);
                (link, None)
            }
            Posted::Cancel(link, op) => (link, Some(op)),
            Posted::Send(link) | Posted::Recv(link) | Posted::Lowat(link) => (link, None),
        };
        self.number += 1;
        let number = self.number;
        if let Some(line) = self.lines.iter_mut().find(|line| line.link == link) {
            line.posted = number;
            if let Some(op) = op {
                line.cancel(op);
            }
            let when = self.soon(self.pace.latency / 4);
            self.line_at(link, when);
        }
    }

    fn line_at(&mut self, link: u32, when: u64) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.link == link)
            && when < line.due
        {
            line.due = when;
            self.at(when, Job::Line(link));
        }
    }

    fn line(&mut self, link: u32, now: u64) -> bool {
        let found = self.lines.iter_mut().find(|line| line.link == link && line.due == now);
        let Some(line) = found else { return false };
        line.due = u64::MAX;
        let first = self.most_urgent(link, now);
        if first != link {
            self.line_at(link, now + 1);
        }
        let link = first;
        let Some(line) = self.lines.iter_mut().find(|line| line.link == link) else { return false };
        let mut stage = stage::lock(&self.stage);
        let (again, did) = line.step(&mut self.engine.net, &self.things, &mut stage, self.pace);
        if did {
            if line.posted < self.newest_done.1 && link != self.newest_done.0 {
                stage.faults.saw(Fault::Reordered);
            }
            self.newest_done = (link, line.posted.max(self.newest_done.1));
        }
        drop(stage);
        if let Some(when) = again {
            self.line_at(link, when);
        }
        if self.pace.turn_bytes > 0 {
            self.call_link();
        }
        did
    }

    /// The other place ends one part.
    fn supply(&mut self) {
        if let Some(slot) = self.engine.neighbour.end_one() {
            self.engine.watch.supplied(slot);
        }
    }

    /// Where the driver finds bytes on several connections of a vcpu, those of the lowest rank.
    fn most_urgent(&self, link: u32, now: u64) -> u32 {
        let net = &self.engine.net;
        let has_bytes = |line: &&Line| Net::owner(line.link) == Net::owner(link) && line.has_bytes(net, now);
        if !self.lines.iter().filter(has_bytes).any(|line| line.link == link) {
            return link;
        }
        let first = self.lines.iter().filter(has_bytes).map(|line| line.link).min_by_key(|link| net.rank(*link));
        let first = first.unwrap_or(link);
        if first != link {
            stage::lock(&self.stage).faults.saw(Fault::ManyAtOnce);
        }
        first
    }

    fn scene(&self) -> Scene<'_> {
        Scene {
            region: self.region,
            stage: &self.stage,
            latest: &self.latest,
            think: self.think,
            jumps: self.jumps,
            calm: self.calm_since.is_some(),
        }
    }

    fn read(&mut self, number: usize) {
        let mut reader = std::mem::replace(&mut self.readers[number], Reader::new(0));
        reader.due = u64::MAX;
        let when = reader.step(&self.scene());
        reader.due = when;
        self.readers[number] = reader;
        if when < u64::MAX {
            self.at(when, Job::Reader(number));
        }
    }

    /// Wakes whoever would be woken by what the last event did.
    fn react(&mut self) {
        self.take_mail();
        for vcpu in 0..self.turn_due.len() {
            // A turn that comes by itself is no sooner than one after a busy time, or than the process runs again.
            let soon = (self.now() + (20 * self.wake).max(1000)).max(self.still.0);
            if self.engine.net.is_called(vcpu) && self.turn_due[vcpu] > soon {
                let when = self.soon(self.wake).max(self.still.0);
                self.turn_at(vcpu, when);
            }
        }
        if !self.demand_due && self.heard != Some(self.region.doorbell().heard()) {
            self.demand_due = true;
            let when = self.soon(20);
            self.at(when, Job::Demand);
        }
        if !self.supply_due && self.engine.neighbour.is_busy() {
            self.supply_due = true;
            let when = self.soon(self.pace.latency);
            self.at(when, Job::Supply);
        }
        let all_stand_still = self.still.1 && self.now() < self.still.0;
        for number in 0..if all_stand_still { 0 } else { self.readers.len() } {
            if self.readers[number].due > self.now() + 1000 && self.readers[number].is_called(&self.scene()) {
                let when = self.soon(10);
                self.readers[number].due = when;
                self.at(when, Job::Reader(number));
            }
        }
    }

    /// Takes what the engine has for the mirror.
    fn take_mail(&mut self) {
        let had = self.inbox.len();
        self.inbox.extend(self.engine.arrived.try_iter());
        if had == 0 && !self.inbox.is_empty() {
            let when = self.soon(100);
            self.at(when, Job::Settle);
        }
        if self.engine.orders.try_iter().filter(|order| matches!(order, Order::Refresh { .. })).count() > 0
            && !self.list_due
        {
            self.list_due = true;
            let hangs = stage::lock(&self.stage).strike(Fault::ListingHangs);
            let when = self.soon(if hangs { LISTING_HANGS } else { 1000 });
            self.at(when, Job::List);
        }
    }

    /// Small objects become files.
    fn settle(&mut self) {
        for arrived in std::mem::take(&mut self.inbox) {
            let entry = self.engine.work.entry(arrived.slot);
            let (Some(entry), Some(object)) = (entry, self.region.object(arrived.slot)) else { continue };
            self.engine.work.transfers.materializer.is_over(&entry);
            let mut stage = stage::lock(&self.stage);
            if stage.strike(Fault::DiskFull) {
                drop(stage);
                object.fail(libc::EIO);
                self.engine.work.act([self.engine.work.objects.revive_later(arrived.slot)]);
                continue;
            }
            let Some(truth) = stage.truth(arrived.slot) else { continue };
            if arrived.body != crate::bytes::of(truth.salt, 0..truth.size) {
                let right = crate::bytes::of(truth.salt, 0..truth.size);
                let salt = truth.salt;
                let pairs = arrived.body.iter().zip(right).enumerate();
                let sent = |at: usize| stage.flips.contains(&(salt, at as u64));
                let as_sent = pairs.filter(|(_, (found, right))| found != right).all(|(at, _)| sent(at));
                let is_whole = arrived.body.len() == right.len();
                // Only where no answer carried a check value.
                if object.verified() == Some(true) || !is_whole || !as_sent {
                    stage.violated(format!("small object {} has wrong bytes", arrived.slot));
                }
            }
            object.set_state(state::PLACED);
        }
    }

    /// The folder is listed again: objects that have changed get another record.
    fn list(&mut self) {
        self.list_due = false;
        for number in 0..self.things.len() {
            let is_listed = {
                let stage = stage::lock(&self.stage);
                let etag = &self.things[number].current().etag;
                stage.truths.iter().any(|truth| truth.thing == number && truth.etag == *etag)
            };
            if !is_listed {
                self.take_in(number);
            }
        }
        for (slot, etag) in self.listed() {
            self.engine.work.act(self.engine.work.objects.reconsider(slot, &etag));
        }
    }

    /// Records of the versions that a listing shows.
    fn listed(&self) -> Vec<(u32, String)> {
        let stage = stage::lock(&self.stage);
        let is_shown = |truth: &&Truth| truth.etag == self.things[truth.thing].current().etag;
        stage.truths.iter().filter(is_shown).map(|truth| (truth.slot, truth.etag.clone())).collect()
    }

    /// What happens to the whole: replaced objects, lost engines, other addresses.
    fn shake(&mut self) {
        let mut stage = stage::lock(&self.stage);
        let number = stage.rng.usize(0..self.things.len());
        if self.things[number].versions.len() < VERSIONS_MAX && stage.strike(Fault::Replaced) {
            let size = self.things[number].current().size;
            let size = if stage.rng.bool() { size } else { new_size(&mut stage, self.part_bytes[number]) };
            self.things[number].replace(&mut stage, number, size);
        }
        let vcpu = stage.rng.usize(0..self.setup.net.vcpus);
        if stage.strike(Fault::NoSocket) {
            self.engine.net.refuse_sockets(vcpu, 1);
        }
        if stage.strike(Fault::NewAddresses) {
            let first = stage.rng.u16(1..4);
            self.engine.net.set_addresses(&engine::addresses(first..=first + 1));
        }
        // A program opens another model: what is released or new is fetched ahead while readers wait for the rest.
        let ahead = if !self.jumps && stage.rng.bool() { stage.rng.choice(&self.latest).copied() } else { None };
        let stands = STILL.iter().find(|(fault, ..)| stage.strike(*fault)).copied();
        let stops = self.takeovers < TAKEOVERS_MAX && stage.strike(Fault::Stopped);
        let taken = self.takeovers < TAKEOVERS_MAX && stage.strike(Fault::Takeover);
        if let Some((fault, times)) = stands {
            let until = stage.micros + stage.rng.choice(times).unwrap_or(times[0]);
            stage.stood_until = until;
            self.still = (until, fault == Fault::Suspended);
        }
        drop(stage);
        if let Some(record) = ahead {
            self.engine.work.prefetch(&[self.slot(record)]);
        }
        if stops {
            self.stop();
        }
        if stops || taken {
            self.take_over();
        }
    }

    /// The engine stops: every request under way ends, and is given back.
    fn stop(&mut self) {
        while self.engine.neighbour.is_busy() {
            self.supply();
        }
        self.engine.net.stop();
        let vcpus = self.setup.net.vcpus;
        for _ in 0..TURNS_MAX {
            let ended = (0..vcpus).filter(|vcpu| self.engine.net.turn(*vcpu).is_break()).count();
            if ended == vcpus {
                break;
            }
            for vcpu in 0..vcpus {
                for posted in self.engine.net.take_posted(vcpu) {
                    self.posted(posted);
                }
            }
            for line in &mut self.lines {
                line.step(&mut self.engine.net, &self.things, &mut stage::lock(&self.stage), self.pace);
            }
        }
        check::stopped(self);
    }

    /// The engine is gone, and what it was filling is torn; another one takes over.
    fn take_over(&mut self) {
        self.takeovers += 1;
        let mut stage = stage::lock(&self.stage);
        stage.say(|| "another engine takes over".into());
        stage.in_flight = 0;
        stage.truths.iter_mut().for_each(|truth| (truth.failed, truth.refused) = (false, false));
        stage.seconds.clear();
        stage.few.clear();
        stage.twice = Twice { percent: stage.twice.percent, ..Twice::default() };
        for part in stage.truths.iter_mut().flat_map(|truth| &mut truth.parts).filter(|part| part.fill.is_some()) {
            (part.fill, part.allowance) = (None, 1);
        }
        drop(stage);
        self.lines.clear();
        self.engine = Engine::new(self.region, &self.setup, &self.stage);
        self.start_clocks();
        self.engine.adopt(&self.stage, &self.keys);
    }
}
