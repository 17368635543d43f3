//! Starts and stops the vcpu threads. Called by the engine, once. Never does I/O itself.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::conn::Timeouts;
use crate::driver::epoll::Epoll;
use crate::driver::uring::Uring;
use crate::driver::{self, Chosen, Driver, DriverChoice};
use crate::error::{Error, Phase};
use crate::fetch::Source;
use crate::origin::Origin;
use crate::rotation::Rotation;
use crate::sock::{self, Wakeup};
use crate::traffic::Traffic;
use crate::vcpu::{Limits, Parker, Shared, Target, Unreachable, Vcpu};

/// Stack of a vcpu thread.
const STACK_BYTES: usize = 256 << 10;

/// How many threads and connections, and how patient they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuOptions {
    /// Threads, at least 1.
    pub vcpus: usize,
    /// Connections per thread, at least 1.
    pub workers: usize,
    /// io_uring or epoll.
    pub driver: DriverChoice,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// SO_RCVBUF in bytes; `None` leaves the kernel's autotuning on, which is right unless
    /// net.core.rmem_max is at least 4 MiB.
    pub rcvbuf_bytes: Option<usize>,
}

impl Default for VcpuOptions {
    fn default() -> VcpuOptions {
        VcpuOptions {
            vcpus: 1,
            workers: 16,
            driver: DriverChoice::Auto,
            timeouts: Timeouts::default(),
            rcvbuf_bytes: None,
        }
    }
}

/// Tells when the known addresses of the endpoint are of no use, and takes new ones.
pub struct Names {
    shared: Arc<Shared>,
    seen: u64,
}

impl Names {
    pub(crate) fn of(shared: &Arc<Shared>) -> Names {
        Names { shared: Arc::clone(shared), seen: 0 }
    }

    /// Blocks until a request failed to connect at every address tried since the last call; false
    /// once the vcpus stop.
    pub fn wait_unreachable(&mut self) -> bool {
        self.seen = self.shared.unreachable.wait(self.seen);
        !self.shared.stop.load(Ordering::SeqCst)
    }

    /// New connections go to these addresses, until the next [`Vcpus::set_origin`]. False if they
    /// are the ones in use.
    pub fn set_addresses(&self, addresses: &[SocketAddr]) -> bool {
        let mut changed = false;
        self.shared.retarget(|target| {
            let same = addresses.len() == target.addresses.len()
                && addresses.iter().all(|address| target.addresses.contains(address));
            changed = !same;
            if changed {
                target.addresses = addresses.into();
            }
        });
        changed
    }
}

/// The running vcpu threads. Dropping it is the same as [`Vcpus::stop`].
pub struct Vcpus {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    driver: (Chosen, String),
}

impl Vcpus {
    /// Starts the threads; they pull from `source` at once.
    ///
    /// # Errors
    /// `FailureKind::Local` if threads or the asked-for driver cannot be had.
    pub fn start(origin: Arc<Origin>, source: Arc<dyn Source>, options: VcpuOptions) -> Result<Vcpus, Error> {
        let options = VcpuOptions { vcpus: options.vcpus.max(1), workers: options.workers.max(1), ..options };
        let (mut chosen, mut why) = driver::choose(options.driver, options.workers)?;
        let mut started = launch(chosen, &origin, &source, options);
        if let (Chosen::Uring, DriverChoice::Auto, Err(os)) = (chosen, options.driver, &started) {
            why = format!("io_uring passed its self-test, but not every vcpu could have a ring ({os})");
            chosen = Chosen::Epoll;
            started = launch(chosen, &origin, &source, options);
        }
        let (shared, threads) = started.map_err(|os| Error::from_os(Phase::Start, "start the vcpu threads", &os))?;
        let vcpus = Vcpus { shared, threads, driver: (chosen, why) };
        let (name, why) = vcpus.driver();
        tracing::info!(driver = name, why, vcpus = options.vcpus, workers = options.workers, "network started");
        Ok(vcpus)
    }

    /// Of vcpus that somebody runs turn by turn.
    #[cfg(feature = "sim")]
    pub(crate) fn without_threads(shared: Arc<Shared>) -> Vcpus {
        Vcpus { shared, threads: Vec::new(), driver: (Chosen::Epoll, "simulated".into()) }
    }

    /// There is new work: wakes vcpus that sleep and have a free worker. Costs two atomic
    /// operations and a load per vcpu if none does.
    pub fn wake(&self) {
        self.shared.wake();
    }

    /// Ends the request with this token if it is under way: it is delivered with `FailureKind::Cancelled`, unless it ends
    /// by itself before. Costs a wake-up of every vcpu.
    pub fn cancel(&self, token: u64) {
        self.shared.cancel(token);
    }

    /// No request that follows uses a connection that is open now: bytes that came over one of them were wrong. Requests
    /// under way go on.
    pub fn renew_connections(&self) {
        self.shared.retarget(|target| target.origin = Arc::new(target.origin.renewed()));
    }

    /// `io_uring` or `epoll`, and why.
    pub fn driver(&self) -> (&'static str, String) {
        let name = match self.driver.0 {
            Chosen::Uring => "io_uring",
            Chosen::Epoll => "epoll",
        };
        (name, self.driver.1.clone())
    }

    /// From now on new requests are signed so: credentials were renewed. Requests under way go on as
    /// they are.
    pub fn set_signer(&self, signer: ossc_sign::Signer) {
        self.shared.retarget(|target| target.origin = Arc::new(target.origin.with_signer(signer)));
    }

    /// From now on new requests use this origin, with its addresses. Requests under way go on as they
    /// are.
    pub fn set_origin(&self, origin: Arc<Origin>) {
        self.shared.retarget(|target| *target = Target::new(origin));
    }

    /// Body bytes that have come until now, those of requests under way among them.
    pub fn received_bytes(&self) -> u64 {
        self.shared.traffic.all().bytes
    }

    /// For the thread that looks the endpoint's name up again.
    pub fn names(&self) -> Names {
        Names::of(&self.shared)
    }

    /// Ends all requests (`FailureKind::Cancelled`), delivers them and joins the threads. Not to be
    /// called from a [`Source`].
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        end(&self.shared, std::mem::take(&mut self.threads));
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.end();
    }
}

pub(crate) fn end(shared: &Shared, threads: Vec<JoinHandle<()>>) {
    shared.stop.store(true, Ordering::SeqCst);
    shared.unreachable.add();
    for parker in &shared.parkers {
        parker.wakeup.wake();
    }
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a vcpu thread panicked before its loop began");
        }
    }
}

type Started = (Arc<Shared>, Vec<JoinHandle<()>>);

/// All threads with the same driver, or none.
fn launch(chosen: Chosen, origin: &Arc<Origin>, source: &Arc<dyn Source>, options: VcpuOptions) -> io::Result<Started> {
    let nonblocking = match chosen {
        Chosen::Uring => Uring::NONBLOCKING,
        Chosen::Epoll => Epoll::NONBLOCKING,
    };
    let wakeups = (0..options.vcpus).map(|_| Wakeup::new(nonblocking).map(Arc::new)).collect::<io::Result<_>>()?;
    let shared = Arc::new(shared(wakeups, origin, options));
    let (report, reports) = mpsc::channel();
    let mut threads = Vec::with_capacity(options.vcpus);
    let mut gates = Vec::with_capacity(options.vcpus);
    let mut outcome = Ok(());
    for number in 0..options.vcpus {
        let (gate, opened) = mpsc::channel();
        let limits =
            Limits { number, workers: options.workers, timeouts: options.timeouts, rcvbuf_bytes: options.rcvbuf_bytes };
        let seat =
            Seat { limits, shared: Arc::clone(&shared), source: Arc::clone(source), report: report.clone(), opened };
        match spawn(chosen, seat) {
            Ok(thread) => threads.push(thread),
            Err(os) => {
                outcome = Err(os);
                break;
            }
        }
        gates.push(gate);
    }
    for _ in 0..threads.len() {
        let report = reports.recv().unwrap_or_else(|_| Err(io::Error::other("a vcpu thread ended early")));
        outcome = outcome.and(report);
    }
    if let Err(os) = outcome {
        // The gates stay shut: no request was pulled.
        drop(gates);
        end(&shared, threads);
        return Err(os);
    }
    for gate in gates {
        gate.send(()).map_err(|_| io::Error::other("a vcpu thread ended early"))?;
    }
    Ok((shared, threads))
}

/// The state that vcpus with these wakeups share.
pub(crate) fn shared(wakeups: Vec<Arc<Wakeup>>, origin: &Arc<Origin>, options: VcpuOptions) -> Shared {
    Shared {
        target: Mutex::new(Target::new(Arc::clone(origin))),
        target_epoch: AtomicU64::new(0),
        unreachable: Unreachable::default(),
        work_epoch: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        clock_offset: AtomicI64::new(0),
        rotation: Rotation::new(Duration::from_millis(options.timeouts.avoid_ms)),
        distrusts: AtomicU64::new(0),
        traffic: Traffic::default(),
        parkers: wakeups
            .into_iter()
            .map(|wakeup| Parker {
                wakeup,
                sleeping: AtomicBool::new(false),
                unwanted: Mutex::default(),
                has_unwanted: AtomicBool::new(false),
            })
            .collect(),
    }
}

/// What a new thread needs.
struct Seat {
    limits: Limits,
    shared: Arc<Shared>,
    source: Arc<dyn Source>,
    report: mpsc::Sender<io::Result<()>>,
    opened: mpsc::Receiver<()>,
}

impl Seat {
    /// On the new thread: makes the driver (a ring belongs to the thread that made it), reports,
    /// and runs when all vcpus have one.
    fn run<D: Driver>(self, make: impl FnOnce(Arc<Wakeup>, usize) -> io::Result<D>) {
        let wakeup = Arc::clone(&self.shared.parkers[self.limits.number].wakeup);
        let (driver, report) = match make(wakeup, self.limits.workers) {
            Ok(driver) => (Some(driver), Ok(())),
            Err(os) => (None, Err(os)),
        };
        let heard = self.report.send(report).is_ok();
        if let (Some(driver), true, Ok(())) = (driver, heard, self.opened.recv()) {
            Vcpu::new(self.limits, self.shared, self.source, driver).run();
        }
    }
}

fn spawn(chosen: Chosen, seat: Seat) -> io::Result<JoinHandle<()>> {
    let builder = std::thread::Builder::new().name(format!("ossc-net-{}", seat.limits.number)).stack_size(STACK_BYTES);
    sock::with_signals_blocked(|| {
        builder.spawn(move || match chosen {
            Chosen::Uring => seat.run(Uring::new),
            Chosen::Epoll => seat.run(|wakeup, _| Epoll::new(wakeup)),
        })
    })
}
