//! The loop of one vcpu thread: pulls requests, owns sockets and connections, moves bytes between them and its driver. Made
//! by [`crate::Vcpus`]. Takes no lock and allocates nothing per completion of a body; sleeps for as long as nothing is due.

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering, fence};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::conn::{Conn, Step, Timeouts};
use crate::driver::{Driver, Event, Op, Tag};
use crate::error::{self, Error, FailureKind, Phase};
use crate::fetch::{Fetch, Finished, Pull, Source};
use crate::origin::Origin;
use crate::retry::Hint;
use crate::rotation::Rotation;
use crate::sock::Wakeup;
use crate::traffic::Traffic;

/// A wait that lasts so much longer than it should was a pause of this process: SIGSTOP, a frozen cgroup, a suspend.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// After so long without a byte of a body the source is told of the next one.
const QUIET: Duration = Duration::from_secs(1);
/// Most addresses tried for one request.
pub(crate) const ADDRESSES_TRIED_MAX: usize = 4;
/// Largest clock error that is corrected (seconds). A day holds every time zone that a clock can be set to by mistake; what
/// is further off is a clock that was never set, or a Date that is not the service's own.
const CLOCK_OFFSET_SECS_MAX: i64 = 86_400;

/// What all vcpus of one [`crate::Vcpus`] share.
pub(crate) struct Shared {
    pub target: Mutex<Target>,
    /// Counts changes of `target`.
    pub target_epoch: AtomicU64,
    /// Counts requests that failed at every address tried.
    pub unreachable: Unreachable,
    /// Counts wakes: work that came while a vcpu was not looking.
    pub work_epoch: AtomicU64,
    pub stop: AtomicBool,
    /// Server's clock minus ours (seconds), learned from RequestTimeTooSkewed.
    pub clock_offset: AtomicI64,
    pub rotation: Rotation,
    /// Counts idle connections that were found to lead nowhere: those beside them may, too.
    pub distrusts: AtomicU64,
    /// What all vcpus receive.
    pub traffic: Traffic,
    pub parkers: Vec<Parker>,
}

/// Where new connections lead.
#[derive(Clone)]
pub(crate) struct Target {
    pub origin: Arc<Origin>,
    /// Those of the origin, or newer ones.
    pub addresses: Arc<[SocketAddr]>,
}

impl Target {
    pub fn new(origin: Arc<Origin>) -> Target {
        let addresses = origin.addresses.as_slice().into();
        Target { origin, addresses }
    }
}

/// A count that somebody waits for.
#[derive(Default)]
pub(crate) struct Unreachable {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Unreachable {
    pub fn add(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Waits until the count is another than `seen`, and gives it.
    pub fn wait(&self, seen: u64) -> u64 {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *self.changed.wait_while(count, |count| *count == seen).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where one vcpu sleeps.
pub(crate) struct Parker {
    pub wakeup: Arc<Wakeup>,
    /// It waits in the kernel and has a free worker.
    pub sleeping: AtomicBool,
    /// Tokens of requests that nobody wants any more.
    pub unwanted: Mutex<Vec<u64>>,
    /// `unwanted` is not empty.
    pub has_unwanted: AtomicBool,
}

impl Shared {
    /// New work, a new origin or the stop flag is there; store it before.
    pub fn wake(&self) {
        self.work_epoch.fetch_add(1, Ordering::SeqCst);
        for parker in &self.parkers {
            if parker.sleeping.load(Ordering::SeqCst) && parker.sleeping.swap(false, Ordering::SeqCst) {
                parker.wakeup.wake();
            }
        }
    }

    /// Whoever works on the request with this token ends it. Every vcpu is told: who it is, only they know.
    pub fn cancel(&self, token: u64) {
        for parker in &self.parkers {
            parker.unwanted.lock().unwrap_or_else(PoisonError::into_inner).push(token);
            parker.has_unwanted.store(true, Ordering::SeqCst);
            parker.sleeping.store(false, Ordering::SeqCst);
            parker.wakeup.wake();
        }
    }

    /// Whether a vcpu was woken that parked to be, or has something to cancel.
    #[cfg(feature = "sim")]
    pub fn was_woken(&self, number: usize, parked_free: bool) -> bool {
        let parker = &self.parkers[number];
        parker.has_unwanted.load(Ordering::SeqCst) || parked_free && !parker.sleeping.load(Ordering::SeqCst)
    }

    /// The service refused a time, and its own is so far ahead of this machine's.
    pub fn correct_clock(&self, offset_secs: i64) {
        if offset_secs.abs() > CLOCK_OFFSET_SECS_MAX {
            return tracing::error!(
                seconds = offset_secs,
                "this machine's clock is off by more than a day, which is not corrected; set it (NTP)"
            );
        }
        if self.clock_offset.swap(offset_secs, Ordering::Relaxed) != offset_secs {
            tracing::warn!(
                seconds = offset_secs,
                "this machine's clock is off; requests are signed with the server's time"
            );
        }
    }

    fn current_target(&self) -> Target {
        self.target.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// New connections lead elsewhere from now on.
    pub fn retarget(&self, change: impl FnOnce(&mut Target)) {
        change(&mut self.target.lock().unwrap_or_else(PoisonError::into_inner));
        self.target_epoch.fetch_add(1, Ordering::SeqCst);
        self.wake();
    }
}

/// What is constant for a vcpu.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub number: usize,
    pub workers: usize,
    pub timeouts: Timeouts,
    pub rcvbuf_bytes: Option<usize>,
}

/// What to do with a slot when nothing is under way on it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Remove,
    Reconnect,
}

/// A worker's connection.
struct Slot<S> {
    conn: Conn,
    socket: Option<S>,
    address: Option<SocketAddr>,
    origin: Arc<Origin>,
    tag: Tag,
    /// Bits of the operations under way.
    pending: u8,
    /// SO_RCVLOWAT as set (bytes).
    lowat: usize,
    /// Connects that failed for this request.
    failed: usize,
    /// This connection has brought an answer.
    proved: bool,
    closing: Option<After>,
    /// Of its request among those of the vcpu: the urgent ones first, then in the order of their begin.
    rank: u64,
}

/// See the module.
pub(crate) struct Vcpu<D: Driver> {
    limits: Limits,
    shared: Arc<Shared>,
    source: Arc<dyn Source>,
    pub driver: D,
    slots: Slab<Slot<D::Socket>>,
    idle: Vec<usize>,
    target: Target,
    target_epoch: u64,
    work_epoch: u64,
    /// As in [`Shared`], when idle connections were looked at.
    distrusts: u64,
    generation: u16,
    /// Requests begun.
    begun: u64,
    /// Bytes received since [`Traffic`] was told of them, and the connections it knows of.
    received: u64,
    counted: usize,
    /// There may be work: ask the source.
    hungry: bool,
    pull_at: Option<Instant>,
}

/// How long requests are begun before those that are under way have their turn.
const TURN: Duration = Duration::from_millis(5);

/// A panic here would free buffers that the kernel still writes into. The engine can be replaced, wrong bytes cannot.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

impl<D: Driver> Vcpu<D> {
    pub fn new(limits: Limits, shared: Arc<Shared>, source: Arc<dyn Source>, driver: D) -> Vcpu<D> {
        let target_epoch = shared.target_epoch.load(Ordering::SeqCst);
        let target = shared.current_target();
        Vcpu {
            limits,
            shared,
            source,
            driver,
            slots: Slab::with_capacity(limits.workers),
            idle: Vec::with_capacity(limits.workers),
            target,
            target_epoch,
            work_epoch: 0,
            distrusts: 0,
            generation: 0,
            begun: 0,
            received: 0,
            counted: 0,
            hungry: true,
            pull_at: None,
        }
    }

    /// Until [`Shared::stop`] is set and every request has ended.
    pub fn run(mut self) {
        let _guard = AbortOnPanic;
        let mut events = Vec::with_capacity(256);
        let mut seen = self.driver.now();
        while let ControlFlow::Continue(timeout) = self.before_wait() {
            let began = self.driver.now();
            // A pause may have come in the turn, too.
            self.paused(began.saturating_duration_since(seen));
            if let Err(os) = self.driver.wait(timeout, &mut events) {
                self.give_up(&os);
            }
            self.look_first(began, timeout, &mut events);
            seen = self.driver.now();
            self.after_wait(&mut events);
        }
    }

    /// Before the time of a connection is over, what lies in the sockets is taken: this process may not have run for a
    /// while. After a pause all have as long again.
    pub fn look_first(&mut self, began: Instant, timeout: Option<Duration>, events: &mut Vec<Event>) {
        let now = self.driver.now();
        let waited = now.saturating_duration_since(began);
        // The first deadline is that of the wait.
        let Some(timeout) = timeout.filter(|timeout| waited >= *timeout) else { return };
        if waited > timeout + PAUSE_MIN {
            self.paused(waited);
        }
        let is_due = |slot: &Slot<D::Socket>| slot.closing.is_none() && slot.conn.is_due(now);
        if self.slots.iter().any(|(_, slot)| is_due(slot))
            && let Err(os) = self.driver.wait(Some(Duration::ZERO), events)
        {
            self.give_up(&os);
        }
    }

    /// This thread did nothing for so long: after a pause all deadlines are as far away as before.
    fn paused(&mut self, still: Duration) {
        if still > PAUSE_MIN {
            tracing::warn!(millis = still.as_millis() as u64, "this process did not run for a while (stopped, frozen)");
            self.slots.iter_mut().for_each(|(_, slot)| slot.conn.lay_still(still));
        }
    }

    /// Does what needs no waiting, then says how long to wait for events at most (`None`: for ever).
    /// Breaks when [`Shared::stop`] is set and every request has ended.
    pub fn before_wait(&mut self) -> ControlFlow<(), Option<Duration>> {
        let now = self.driver.now();
        if self.shared.stop.load(Ordering::SeqCst) {
            self.cancel_all(now);
            if self.slots.is_empty() {
                return ControlFlow::Break(());
            }
        } else {
            self.take_target(now);
            self.cancel_unwanted(now);
            self.pull(now);
        }
        ControlFlow::Continue(self.park(now))
    }

    /// The wait is over, with these events.
    pub fn after_wait(&mut self, events: &mut Vec<Event>) {
        self.shared.parkers[self.limits.number].sleeping.store(false, Ordering::SeqCst);
        let now = self.driver.now();
        for event in events.drain(..) {
            match event {
                Event::Wakeup => self.hungry = true,
                Event::Done { tag, op, result } => self.done(tag, op, result, now),
            }
        }
        self.tell_traffic(now);
        self.tick(now);
    }

    /// What came since the wait, for the look at those that are slow.
    fn tell_traffic(&mut self, now: Instant) {
        let busy = self.slots.len() - self.idle.len();
        let (received, before) = (std::mem::take(&mut self.received), std::mem::replace(&mut self.counted, busy));
        if self.shared.traffic.came(received, (before, busy), now) >= QUIET {
            self.source.flows_again(now);
        }
    }

    /// The kernel refuses to wait. Requests under way cannot be ended (their memory may still be
    /// written), so the process has to be replaced.
    fn give_up(&self, os: &io::Error) -> ! {
        tracing::error!(vcpu = self.limits.number, error = %os, "the kernel refuses to wait for completions; the engine ends");
        std::process::abort();
    }

    /// Requests under way and idle connections.
    #[cfg(feature = "sim")]
    pub fn connections(&self) -> usize {
        self.slots.len()
    }

    /// The request of the connection with this tag.
    #[cfg(feature = "sim")]
    pub fn token(&self, tag: Tag) -> Option<u64> {
        let found = self.slots.iter().find(|(_, slot)| slot.tag == tag && slot.closing.is_none());
        found.and_then(|(_, slot)| slot.conn.token())
    }

    /// Whether a connection waits for its operations to end, to be closed.
    #[cfg(feature = "sim")]
    pub fn closes(&self) -> bool {
        self.slots.iter().any(|(_, slot)| slot.closing.is_some())
    }

    fn free(&self) -> bool {
        !self.idle.is_empty() || self.slots.len() < self.limits.workers
    }

    /// Gets ready to sleep; how long at most.
    fn park(&mut self, now: Instant) -> Option<Duration> {
        let free = self.free() && !self.shared.stop.load(Ordering::SeqCst);
        let mut deadline = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.closing.is_none())
            .filter_map(|(_, slot)| slot.conn.deadline())
            .min();
        if free {
            deadline = [deadline, self.pull_at].into_iter().flatten().min();
        }
        let mut timeout = deadline.map(|at| at.saturating_duration_since(now));
        let sleeping = &self.shared.parkers[self.limits.number].sleeping;
        // First say that we sleep, then look for work once more: whoever adds work does the same
        // in the other order, so one of the two sees the other.
        sleeping.store(free, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let stop = self.shared.stop.load(Ordering::SeqCst);
        if free && (stop || self.shared.work_epoch.load(Ordering::SeqCst) != self.work_epoch) {
            self.hungry = true;
            timeout = Some(Duration::ZERO);
        }
        timeout
    }

    /// Ends requests that nobody wants any more; those that ended by themselves meanwhile are forgotten.
    fn cancel_unwanted(&mut self, now: Instant) {
        let parker = &self.shared.parkers[self.limits.number];
        if !parker.has_unwanted.swap(false, Ordering::SeqCst) {
            return;
        }
        let tokens = std::mem::take(&mut *parker.unwanted.lock().unwrap_or_else(PoisonError::into_inner));
        // Whoever only changes sockets has not ended.
        let unwanted = |slot: &Slot<D::Socket>| {
            slot.closing != Some(After::Remove) && slot.conn.token().is_some_and(|token| tokens.contains(&token))
        };
        let keys: Vec<usize> = self.slots.iter().filter(|(_, slot)| unwanted(slot)).map(|(key, _)| key).collect();
        for key in keys {
            let slot = &mut self.slots[key];
            let step = slot.conn.cancel("it is not wanted any more");
            match &mut slot.closing {
                Some(after) => *after = After::Remove,
                None => self.act(key, step, now),
            }
        }
    }

    /// Gives free workers something to do.
    fn pull(&mut self, now: Instant) {
        self.drop_distrusted(now);
        while self.free() && (self.hungry || self.pull_at.is_some_and(|at| at <= now)) {
            self.work_epoch = self.shared.work_epoch.load(Ordering::SeqCst);
            match self.source.pull(now) {
                Pull::Fetch(fetch) => {
                    self.begin(fetch, now);
                    // The source may have taken long to find it, and what was begun is sent in the wait.
                    if self.driver.now().saturating_duration_since(now) > TURN {
                        self.pull_at = Some(now);
                        return;
                    }
                }
                Pull::Until(at) => {
                    self.hungry = false;
                    self.pull_at = at;
                    // A time that is already over must not spin: ask at the next turn.
                    return;
                }
            }
        }
    }

    /// Closes idle connections if one of them, of whatever vcpu, was found to lead nowhere.
    fn drop_distrusted(&mut self, now: Instant) {
        let distrusts = self.shared.distrusts.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.distrusts, distrusts) != distrusts {
            for key in std::mem::take(&mut self.idle) {
                self.close(key, After::Remove, now);
            }
        }
    }

    /// Whether something lies in the socket of a connection that has rested. It is not the answer to what is asked next.
    /// Below TLS it may be what TLS says by itself, and the connection sees what it is.
    fn is_tainted(&mut self, key: usize) -> bool {
        let slot = &self.slots[key];
        slot.origin.tls.is_none() && slot.socket.as_ref().is_some_and(|socket| self.driver.has_input(socket))
    }

    fn begin(&mut self, fetch: Fetch, now: Instant) {
        // The connection used last is the least likely to be stale.
        let (key, fresh) = match self.idle.pop() {
            Some(key) => (key, false),
            None => (self.slots.insert(self.new_slot(now)), true),
        };
        let unix_secs = self.driver.unix_secs() + self.shared.clock_offset.load(Ordering::Relaxed);
        let origin = Arc::clone(&self.target.origin);
        let tainted = !fresh && self.is_tainted(key);
        let slot = &mut self.slots[key];
        slot.failed = 0;
        slot.rank = u64::from(!fetch.urgent) << 63 | self.begun;
        self.begun += 1;
        let step = slot.conn.begin(fetch, now, |query, out| origin.write_request(query, unix_secs, out));
        match step {
            Step::More if fresh => self.open(key, now),
            Step::More if tainted => self.act(key, Step::Stale, now),
            step => self.act(key, step, now),
        }
    }

    fn new_slot(&self, now: Instant) -> Slot<D::Socket> {
        Slot {
            conn: Conn::new(self.limits.timeouts, now),
            socket: None,
            address: None,
            origin: Arc::clone(&self.target.origin),
            tag: Tag { key: 0, generation: 0 },
            pending: 0,
            lowat: 1,
            failed: 0,
            proved: false,
            closing: None,
            rank: 0,
        }
    }

    /// Starts a connect for the slot's request.
    fn open(&mut self, key: usize, now: Instant) {
        self.generation = self.generation.wrapping_add(1);
        let tag = Tag { key: key as u32, generation: self.generation };
        let origin = Arc::clone(&self.target.origin);
        let Some(address) = self.shared.rotation.pick(&self.target.addresses, now) else {
            let error = Error::new(
                FailureKind::Config,
                Phase::Connect,
                format!("no address is known for {}", origin.host_header),
            );
            return self.fail(key, error, now);
        };
        let socket = match self.driver.socket(&address, self.limits.rcvbuf_bytes) {
            Ok(socket) => socket,
            // This machine has no IPv6, say: another address may do.
            Err(os) if os.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                self.slots[key].address = Some(address);
                return self.connect_failed(key, &os, now);
            }
            Err(os) => {
                let error = Error::from_os(Phase::Connect, &format!("make a socket for {address}"), &os);
                return self.fail(key, error, now);
            }
        };
        self.driver.connect(tag, &socket, &address);
        let slot = &mut self.slots[key];
        slot.conn.connecting(now);
        slot.pending = Op::Connect.bit();
        (slot.socket, slot.address, slot.origin) = (Some(socket), Some(address), origin);
        (slot.tag, slot.lowat, slot.proved) = (tag, 1, false);
    }

    fn fail(&mut self, key: usize, error: Error, now: Instant) {
        let step = self.slots[key].conn.fail(error);
        self.act(key, step, now);
    }

    /// An operation ended.
    fn done(&mut self, tag: Tag, op: Op, result: i32, now: Instant) {
        let key = tag.key as usize;
        let Some(slot) = self.slots.get_mut(key).filter(|slot| slot.tag == tag) else {
            tracing::error!(?tag, ?op, result, "a completion for a connection that is gone");
            return;
        };
        slot.pending &= !op.bit();
        if slot.closing.is_some() {
            if slot.pending == 0 {
                self.closed(key, now);
            }
            return;
        }
        let again = result == -libc::EINTR || result == -libc::EAGAIN;
        if again && op != Op::Connect {
            return self.post(key, now);
        }
        let bytes = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        let was_connecting = slot.conn.is_connecting();
        let step = match (op, bytes) {
            (Op::Connect, Ok(_)) => slot.conn.connected(slot.origin.tls.as_ref(), now),
            (Op::Recv, Ok(0)) if slot.conn.is_connecting() => {
                let os = io::Error::new(io::ErrorKind::ConnectionReset, "the peer closed the connection");
                return self.connect_failed(key, &os, now);
            }
            (_, Err(os)) if slot.conn.is_connecting() => return self.connect_failed(key, &os, now),
            (Op::Send, Ok(n)) => slot.conn.sent(n, now),
            (Op::Recv, Ok(n)) => {
                self.received += if slot.conn.receives_body() { n as u64 } else { 0 };
                slot.conn.received(n, now)
            }
            (op, Err(os)) => slot.conn.broken(op == Op::Send, &os),
        };
        if was_connecting && matches!(step, Step::Done { .. }) && self.next_address(key, true, now) {
            return self.close(key, After::Reconnect, now);
        }
        self.act(key, step, now);
    }

    /// The slot could not be connected, in whatever layer: its address is avoided, if it `is_to_blame`. Whether another
    /// one is tried.
    fn next_address(&mut self, key: usize, is_to_blame: bool, now: Instant) -> bool {
        let slot = &mut self.slots[key];
        slot.failed += 1;
        if let Some(address) = slot.address.filter(|_| is_to_blame) {
            self.shared.rotation.failed(address, now);
        }
        let more = slot.failed < self.target.addresses.len().min(ADDRESSES_TRIED_MAX);
        if !more && is_to_blame {
            self.shared.unreachable.add();
        }
        more
    }

    /// Tries the next address, if there is one.
    fn connect_failed(&mut self, key: usize, os: &io::Error, now: Instant) {
        if self.next_address(key, !error::is_shortage(os), now) {
            return self.close(key, After::Reconnect, now);
        }
        let Slot { failed, address, .. } = self.slots[key];
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        let (phase, attempt) = self.slots[key].conn.attempt();
        let tried = format!("{attempt} {address} ({failed} address(es) tried)");
        self.fail(key, Error::from_os(phase, &tried, os), now);
    }

    fn act(&mut self, key: usize, step: Step, now: Instant) {
        match step {
            Step::More => self.post(key, now),
            Step::Done { reuse: true } if self.fits(key) => {
                self.deliver(key, now);
                self.slots[key].conn.rest(now);
                self.idle.push(key);
                self.post(key, now);
            }
            Step::Done { .. } => self.close(key, After::Remove, now),
            Step::Stale => self.close(key, After::Reconnect, now),
            Step::Close => {
                self.idle.retain(|other| *other != key);
                self.close(key, After::Remove, now);
            }
            Step::Nudge => self.set_lowat(key),
        }
    }

    /// Whether a connection still leads to the current origin, and may be used again.
    fn fits(&self, key: usize) -> bool {
        let (slot, target) = (&self.slots[key], &self.target);
        slot.origin.renewal == target.origin.renewal
            && slot.origin.host_header == target.origin.host_header
            && slot.address.is_some_and(|address| target.addresses.contains(&address))
    }

    /// Posts whatever the connection wants and is not under way.
    fn post(&mut self, key: usize, now: Instant) {
        let slot = &mut self.slots[key];
        let (Some(socket), None) = (&slot.socket, slot.closing) else {
            return;
        };
        if slot.pending & Op::Send.bit() == 0
            && let Some(span) = slot.conn.outgoing()
        {
            slot.pending |= Op::Send.bit();
            self.driver.send(slot.tag, socket, span);
        }
        if let (Some((filled, bytes)), Some(token)) = (slot.conn.wants_present(), slot.conn.token()) {
            let step = match self.source.make_present(token, filled, bytes.clone()) {
                Ok(()) => slot.conn.made_present(bytes.end, now),
                Err(error) => slot.conn.fail(error),
            };
            if step != Step::More {
                return self.act(key, step, now);
            }
        }
        if slot.pending & Op::Recv.bit() == 0
            && let Some(span) = slot.conn.space()
        {
            slot.pending |= Op::Recv.bit();
            self.set_lowat(key);
            let slot = &self.slots[key];
            if let Some(socket) = &slot.socket {
                // An idle one brings the head of the next answer, which may be urgent.
                let rank = if slot.conn.token().is_some() { slot.rank } else { 0 };
                self.driver.recv(slot.tag, socket, span, rank);
            }
        }
    }

    fn set_lowat(&mut self, key: usize) {
        let slot = &mut self.slots[key];
        let wanted = slot.conn.lowat();
        let Some(socket) = slot.socket.as_ref().filter(|_| slot.lowat != wanted) else {
            return;
        };
        match self.driver.set_lowat(socket, wanted) {
            Ok(()) => slot.lowat = wanted,
            // Without it there are only more wake-ups, unless it was set before: then the stall
            // deadline ends the request.
            Err(os) => tracing::debug!(error = %os, bytes = wanted, "SO_RCVLOWAT refused"),
        }
    }

    /// Ends what is under way on the slot's socket, then closes it.
    fn close(&mut self, key: usize, after: After, now: Instant) {
        let slot = &mut self.slots[key];
        slot.closing = Some(after);
        let (tag, pending) = (slot.tag, slot.pending);
        if pending == 0 {
            return self.closed(key, now);
        }
        for op in [Op::Connect, Op::Send, Op::Recv] {
            if pending & op.bit() != 0 {
                self.driver.cancel(tag, op);
            }
        }
    }

    /// Nothing is under way on the slot: nobody writes into its sink any more.
    fn closed(&mut self, key: usize, now: Instant) {
        let slot = &mut self.slots[key];
        let after = slot.closing.take();
        if let Some(socket) = slot.socket.take() {
            let farewell = slot.conn.farewell();
            self.driver.close(slot.tag, socket, farewell);
        }
        if after == Some(After::Reconnect) && !self.shared.stop.load(Ordering::SeqCst) {
            return self.open(key, now);
        }
        if after == Some(After::Reconnect) {
            // The step it asks for is what happens next anyway.
            let _ended = self.slots[key].conn.cancel("the engine stops");
        }
        self.deliver(key, now);
        self.slots.remove(key);
        self.hungry = true;
    }

    /// The first request of a connection says whether its address is to be avoided, in whatever layer it failed.
    fn judge_address(&mut self, key: usize, finished: &Finished, now: Instant) {
        let slot = &mut self.slots[key];
        let (Some(address), false) = (slot.address, slot.proved) else { return };
        match &finished.result {
            Err(error) if matches!(error.kind, FailureKind::Network | FailureKind::Timeout | FailureKind::Protocol) => {
                self.shared.rotation.failed(address, now);
            }
            Err(error) if error.status.is_none() => {}
            _ => {
                slot.proved = true;
                self.shared.rotation.worked(address);
            }
        }
    }

    fn deliver(&mut self, key: usize, now: Instant) {
        let worker = (self.limits.number * self.limits.workers + key) as u32;
        let conn = &mut self.slots[key].conn;
        if let Some(server) = conn.clock_seen() {
            let offset = server - self.driver.unix_secs();
            self.shared.correct_clock(offset);
        }
        if let Some(mut finished) = conn.finish(now, worker) {
            self.judge_address(key, &finished, now);
            let waited = matches!(&finished.result, Err(error) if error.kind == FailureKind::Timeout && error.phase > Phase::Send);
            let stall = Duration::from_millis(self.limits.timeouts.stall_ms);
            if waited && self.shared.traffic.quiet(now).is_some_and(|quiet| quiet < stall / 2) {
                finished.retry_hint = Hint::Late;
            }
            self.hungry = true;
            self.source.finished(finished);
        }
    }

    fn tick(&mut self, now: Instant) {
        for key in 0..self.slots.capacity() {
            let Some(slot) = self.slots.get_mut(key) else {
                continue;
            };
            if slot.closing.is_some() || !slot.conn.is_due(now) {
                continue;
            }
            if slot.conn.is_connecting() && slot.failed + 1 < self.target.addresses.len().min(ADDRESSES_TRIED_MAX) {
                self.connect_failed(key, &io::Error::from(io::ErrorKind::TimedOut), now);
                continue;
            }
            if let (true, Some(address)) = (slot.conn.is_connecting(), slot.address) {
                self.shared.rotation.failed(address, now);
                self.shared.unreachable.add();
            }
            let step = slot.conn.tick(now, self.shared.traffic.all());
            if step == Step::Stale {
                // It had rested, and leads nowhere: so may the others.
                self.shared.distrusts.fetch_add(1, Ordering::Relaxed);
            }
            self.act(key, step, now);
        }
    }

    /// Takes a new origin and drops idle connections that lead elsewhere.
    fn take_target(&mut self, now: Instant) {
        let epoch = self.shared.target_epoch.load(Ordering::SeqCst);
        if epoch == self.target_epoch {
            return;
        }
        self.target_epoch = epoch;
        self.target = self.shared.current_target();
        for key in std::mem::take(&mut self.idle) {
            if self.fits(key) {
                self.idle.push(key);
            } else {
                self.close(key, After::Remove, now);
            }
        }
    }

    fn cancel_all(&mut self, now: Instant) {
        self.idle.clear();
        for key in 0..self.slots.capacity() {
            let Some(slot) = self.slots.get_mut(key) else {
                continue;
            };
            if slot.closing.is_none() {
                // Whatever step it asks for, the socket is closed.
                let _ended = slot.conn.cancel("the engine stops");
                self.close(key, After::Remove, now);
            }
        }
    }
}
