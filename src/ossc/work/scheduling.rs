//! The scheduling wing: which request a free connection makes next, and how many are under way.
//!
//! Called by the work on vcpu threads, and by the threads of the engine that want something of OSS. It knows neither
//! what a request brings nor where that goes. Each decision is made under its own lock. Only `cut` calls back under the
//! lock of the plan: the pieces of a part wait there before a connection looks.

mod calls;
pub mod order;
mod pace;
mod recovery;
mod request_window;

pub use calls::Patience;

use crate::credentials::Renewal;
use crate::lock::lock;
use crate::work::shared::item::Item;
use crate::work::shared::options::WorkOptions;
use calls::Calls;
use ossc_net::throttle::Throttle;
use ossc_net::{Error, Vcpus};
use ossc_store::plan::{Class, Next, Plan};
use recovery::Recovery;
use request_window::RequestWindow;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// See the module.
pub struct Scheduling {
    plan: Mutex<Plan<Item>>,
    throttle: Mutex<Throttle>,
    window: Mutex<RequestWindow>,
    calls: Calls,
    recovery: Recovery,
    vcpus: OnceLock<Vcpus>,
    /// Of a source that can give other credentials.
    renewal: OnceLock<Arc<Renewal>>,
    /// Told what the start waits for.
    on_wait: Mutex<Option<OnWait>>,
    options: WorkOptions,
}

/// Called with what is waited for.
pub type OnWait = Box<dyn Fn(&str) + Send>;

/// Where a part that is asked for now has waited.
#[derive(Clone, Copy, Debug)]
pub struct Waited {
    /// Others that are left, of its class and above.
    pub waiting: usize,
    /// Requests that may be under way.
    pub connections: usize,
}

impl Scheduling {
    /// Nothing waits yet.
    pub fn new(options: WorkOptions) -> Scheduling {
        Scheduling {
            plan: Mutex::default(),
            throttle: Mutex::new(Throttle::new(options.requests_max, options.throttle_recover)),
            window: Mutex::new(RequestWindow::new(options.requests_max, options.scale)),
            calls: Calls::default(),
            recovery: Recovery::default(),
            vcpus: OnceLock::new(),
            renewal: OnceLock::new(),
            on_wait: Mutex::default(),
            options,
        }
    }

    /// The threads that pull; given once, after they were started.
    pub fn set_vcpus(&self, vcpus: Vcpus) {
        let _ = self.vcpus.set(vcpus);
        self.wake();
    }

    /// Rung when OSS refuses the credentials in use; given before the first request.
    pub fn set_renewal(&self, renewal: Arc<Renewal>) {
        let _ = self.renewal.set(renewal);
    }

    /// What hears from now on what listings wait for, if anything does.
    pub fn set_on_wait(&self, on_wait: Option<OnWait>) {
        *lock(&self.on_wait) = on_wait;
    }

    /// A listing waits for this.
    pub fn waits_for(&self, what: &str) {
        lock(&self.on_wait).iter().for_each(|tell| tell(what));
    }

    /// Signs from now on so.
    pub fn set_signer(&self, signer: ossc_sign::Signer) {
        if let Some(vcpus) = self.vcpus.get() {
            vcpus.set_signer(signer);
        }
    }

    /// If other credentials may help a request that failed, they are asked for: for how long all requests
    /// have been waiting for them.
    pub fn renews(&self, error: &Error) -> Option<Duration> {
        let renewal = self.renewal.get().filter(|_| error.wants_other_credentials())?;
        Some(renewal.ring((self.options.now)()))
    }

    /// Puts items at the end of their class.
    pub fn push(&self, items: &[Item], class: Class) {
        let mut plan = lock(&self.plan);
        items.iter().for_each(|item| plan.push(*item, class));
        drop(plan);
        self.wake();
    }

    /// Puts an item before all others of its class.
    pub fn push_first(&self, item: Item, class: Class) {
        lock(&self.plan).push_first(item, class);
        self.wake();
    }

    /// Puts an item into the plan for when this time is over.
    pub fn push_later(&self, item: Item, class: Class, wait: Duration) {
        lock(&self.plan).push_at(item, class, (self.options.now)() + wait);
        self.wake();
    }

    /// True if the item waits, in whatever class.
    pub fn has(&self, item: Item) -> bool {
        lock(&self.plan).has(item)
    }

    /// Takes out whatever `is_void` says of.
    pub fn forget(&self, is_void: impl Fn(&Item) -> bool) {
        lock(&self.plan).forget(is_void);
    }

    /// How many items wait, the delayed ones included.
    pub fn waiting(&self) -> usize {
        lock(&self.plan).len()
    }

    /// Cuts a part that is asked for now into pieces: `begin` is told what waits and says how many pieces there are more,
    /// which go to the front of their class (`piece` names them), so that the part is on its way when all of it is.
    pub fn cut<T>(&self, class: Class, piece: impl Fn(u32) -> Item, begin: impl FnOnce(Waited) -> (T, u32)) -> T {
        let mut plan = lock(&self.plan);
        let waited = Waited { waiting: plan.len_above(class), connections: lock(&self.window).limit() };
        let (begun, more) = begin(waited);
        (1..=more).rev().for_each(|n| plan.push_first(piece(n), class));
        drop(plan);
        if more > 0 {
            self.wake();
        }
        begun
    }

    /// A connection is free: the least class of what it may fetch, or when it is to ask again. One that may is counted.
    ///
    /// # Errors
    /// None may be sent before that time, or before a request ends.
    pub fn admit(&self, now: Instant) -> Result<Class, Option<Instant>> {
        if let Some(at) = self.renewal.get().and_then(|renewal| renewal.blocked_until(now)) {
            return Err(Some(at));
        }
        let mut throttle = lock(&self.throttle);
        if !throttle.begin() {
            // The end of a request has its connection ask again, and all do when the throttle gives way.
            return Err(None);
        }
        // The same holds where the prefetch has enough.
        let grown = throttle.under_way() > lock(&self.window).limit();
        Ok(if grown { Class::Near } else { Class::Prefetch })
    }

    /// The next item of class `least` or above it.
    pub fn next(&self, now: Instant, least: Class) -> Next<Item> {
        lock(&self.plan).next(now, least)
    }

    /// Has all connections ask again.
    pub fn wake(&self) {
        if let Some(vcpus) = self.vcpus.get() {
            vcpus.wake();
        }
    }

    /// Requests that follow get new connections.
    pub fn renew_connections(&self) {
        if let Some(vcpus) = self.vcpus.get() {
            vcpus.renew_connections();
        }
    }

    /// The answer to this request is not wanted any more.
    pub fn cancel(&self, item: Item) {
        if let Some(vcpus) = self.vcpus.get() {
            vcpus.cancel(item.token());
        }
    }

    /// Requests under way, and those that may be.
    pub fn under_way(&self) -> (usize, usize) {
        let throttle = lock(&self.throttle);
        (throttle.under_way(), throttle.limit())
    }

    /// Body bytes that have come until now, those of requests under way among them; 0 without a network.
    pub fn received_bytes(&self) -> u64 {
        self.vcpus.get().map_or(0, Vcpus::received_bytes)
    }

    /// Requests that the prefetch may have under way now.
    pub fn window_limit(&self) -> usize {
        lock(&self.window).limit()
    }

    /// What a pull would find at this time, and may: `Prefetch` where nothing is more urgent.
    pub fn due(&self, now: Instant) -> Option<Class> {
        let throttle = lock(&self.throttle);
        let grown = throttle.under_way() >= self.window_limit();
        let plan = lock(&self.plan);
        let is_due = |class: &Class| plan.is_due(now, *class) && !(grown && *class == Class::Prefetch);
        [Class::Near, Class::Prefetch].into_iter().find(is_due).filter(|_| throttle.has_room())
    }
}
