//! The vcpus of this crate without threads, sockets and clock, for simulations: who uses it runs their turns one by
//! one, sees what they post and ends it. The vcpu loop, the connections and the wake-ups are the product's own.
//! Only with feature `sim`, which the product is built without.

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::driver::Event;
pub use crate::driver::Op;
use crate::driver::sim::Sim;
pub use crate::driver::sim::{Link, Posted, now, set_now};
use crate::fetch::Source;
use crate::origin::Origin;
use crate::sock::Wakeup;
use crate::vcpu::{Limits, Shared, Vcpu};
use crate::vcpus::{self, VcpuOptions, Vcpus};

/// Sockets of one vcpu are numbered from multiples of this.
const LINKS: Link = 1 << 24;
/// How a vcpu sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleep {
    /// At most until then.
    pub until: Option<Instant>,
    /// It has a worker for new requests.
    pub free: bool,
}

struct Seat {
    vcpu: Vcpu<Sim>,
    /// It said that it sleeps and wants to be woken.
    parked_free: bool,
    woken: bool,
    ended: bool,
    /// When it began to wait, and for how long at most.
    slept: Option<(Instant, Option<Duration>)>,
}

/// The vcpus of one engine.
pub struct Net {
    shared: Arc<Shared>,
    seats: Vec<Seat>,
    events: Vec<Event>,
}

impl Net {
    /// Vcpus that have done nothing yet. `options.driver` does not count.
    ///
    /// # Errors
    /// The kernel refuses the wakeups, which are real.
    pub fn new(origin: &Arc<Origin>, source: &Arc<dyn Source>, options: VcpuOptions) -> io::Result<Net> {
        thread_local!(static WAKEUP: io::Result<Arc<Wakeup>> = Wakeup::new(true).map(Arc::new));
        let wakeup = WAKEUP.with(|wakeup| wakeup.as_ref().map(Arc::clone).map_err(|os| io::Error::from(os.kind())))?;
        let shared = Arc::new(vcpus::shared(vec![wakeup; options.vcpus], origin, options));
        let seat = |number: usize| {
            let VcpuOptions { workers, timeouts, rcvbuf_bytes, .. } = options;
            let limits = Limits { number, workers, timeouts, rcvbuf_bytes };
            let driver = Sim::new(number as Link * LINKS);
            let vcpu = Vcpu::new(limits, Arc::clone(&shared), Arc::clone(source), driver);
            Seat { vcpu, parked_free: false, woken: true, ended: false, slept: None }
        };
        let seats = (0..options.vcpus).map(seat).collect();
        Ok(Net { shared, seats, events: Vec::new() })
    }

    /// What the engine has of them.
    pub fn handle(&self) -> Vcpus {
        Vcpus::without_threads(Arc::clone(&self.shared))
    }

    /// The vcpu that a socket belongs to.
    pub fn owner(link: Link) -> usize {
        (link / LINKS) as usize
    }

    /// One turn of a vcpu, from one sleep to the next. Breaks when it has ended for good.
    pub fn turn(&mut self, number: usize) -> ControlFlow<(), Sleep> {
        let seat = &mut self.seats[number];
        if seat.ended {
            return ControlFlow::Break(());
        }
        seat.vcpu.driver.take_ready(&mut self.events);
        if std::mem::take(&mut seat.woken) || self.shared.was_woken(number, seat.parked_free) {
            self.events.push(Event::Wakeup);
        }
        if let Some((began, timeout)) = seat.slept.take() {
            seat.vcpu.look_first(began, timeout, &mut self.events);
        }
        seat.vcpu.after_wait(&mut self.events);
        let begun = now();
        match seat.vcpu.before_wait() {
            ControlFlow::Break(()) => {
                seat.ended = true;
                ControlFlow::Break(())
            }
            ControlFlow::Continue(timeout) => {
                seat.parked_free = self.shared.parkers[number].sleeping.load(Ordering::SeqCst);
                seat.slept = Some((begun, timeout));
                ControlFlow::Continue(Sleep { until: timeout.map(|timeout| begun + timeout), free: seat.parked_free })
            }
        }
    }

    /// True if something would end the sleep of a vcpu now: a wakeup or a completion.
    pub fn is_called(&self, number: usize) -> bool {
        let seat = &self.seats[number];
        !seat.ended && (seat.woken || seat.vcpu.driver.is_ready() || self.shared.was_woken(number, seat.parked_free))
    }

    /// Requests and idle connections of a vcpu.
    pub fn connections(&self, number: usize) -> usize {
        self.seats[number].vcpu.connections()
    }

    /// Whether a vcpu has a connection that waits for its close.
    pub fn closes(&self, number: usize) -> bool {
        self.seats[number].vcpu.closes()
    }

    /// Sockets that are not closed.
    pub fn sockets(&self) -> usize {
        self.seats.iter().map(|seat| seat.vcpu.driver.sockets()).sum()
    }

    /// What a vcpu has done since the last call.
    pub fn take_posted(&mut self, number: usize) -> Vec<Posted> {
        self.seats[number].vcpu.driver.take_posted()
    }

    /// The next `sockets` that a vcpu makes are refused (EMFILE).
    pub fn refuse_sockets(&mut self, number: usize, sockets: u32) {
        self.seats[number].vcpu.driver.refuse(sockets);
    }

    /// All requests end now, as in [`Vcpus::stop`].
    pub fn stop(&mut self) {
        vcpus::end(&self.shared, Vec::new());
        self.seats.iter_mut().for_each(|seat| seat.woken = true);
    }

    /// New connections lead to these addresses.
    pub fn set_addresses(&mut self, addresses: &[SocketAddr]) {
        self.handle_names().set_addresses(addresses);
    }

    fn handle_names(&self) -> vcpus::Names {
        vcpus::Names::of(&self.shared)
    }

    /// Whether an operation is under way.
    pub fn pends(&self, link: Link, op: Op) -> bool {
        self.driver(link).pends(link, op)
    }

    /// SO_RCVLOWAT of a socket, in bytes.
    pub fn lowat(&self, link: Link) -> usize {
        self.driver(link).lowat(link)
    }

    /// Room of the receive under way, in bytes.
    pub fn space(&self, link: Link) -> usize {
        self.driver(link).space(link)
    }

    /// The rank of the receive under way: where several sockets have bytes, the lowest is served first.
    pub fn rank(&self, link: Link) -> Option<u64> {
        self.driver(link).rank(link)
    }

    /// The request that a socket is used for.
    pub fn token(&self, link: Link) -> Option<u64> {
        let seat = &self.seats[Self::owner(link)];
        seat.vcpu.token(seat.vcpu.driver.tag(link)?)
    }

    /// Address that the receive under way goes to.
    pub fn place(&self, link: Link) -> Option<usize> {
        self.driver(link).place(link)
    }

    /// Ends an operation with `result`: 0, or a negative errno.
    pub fn end(&mut self, link: Link, op: Op, result: i32) {
        self.driver_mut(link).end(link, op, result);
    }

    /// Ends the send under way with at most `max` of its bytes, which `take` gets.
    pub fn sent(&mut self, link: Link, max: usize, take: impl FnOnce(&[u8])) {
        self.driver_mut(link).sent(link, max, take);
    }

    /// Ends the receive under way with at most `max` bytes, which `fill` writes; it must write them all.
    pub fn received(&mut self, link: Link, max: usize, fill: impl FnOnce(&mut [u8])) {
        self.driver_mut(link).received(link, max, fill);
    }

    fn driver(&self, link: Link) -> &Sim {
        &self.seats[Self::owner(link)].vcpu.driver
    }

    fn driver_mut(&mut self, link: Link) -> &mut Sim {
        &mut self.seats[Self::owner(link)].vcpu.driver
    }
}
