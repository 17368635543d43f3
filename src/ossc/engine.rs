//! `ossc engine`: the process that fetches, holds and hands out the bytes of one MODEL_DIR.
//!
//! Called by `main`. Start: settings from the starter, configuration, lock, memory, network, root folder,
//! first word. Then it serves until nobody needs it. Whatever fails before the first word is told to the
//! starter as a REASON; nothing is printed.

use crate::credentials;
use crate::journal::Journal;
use crate::journal::audit::Audit;
use crate::mirror::listing::quiet;
use crate::mirror::listings::{Lanes, Listings, SETTLE_WITHIN};
use crate::mirror::made;
use crate::mirror::{self, Mirror};
use crate::order::Order;
use crate::place::Root;
use crate::process::connect;
use crate::process::first_word::Starter;
use crate::process::keys;
use crate::process::nearby;
use crate::process::reset;
use crate::process::serve::Server;
use crate::work::demand;
use crate::work::leases;
use crate::work::shared::item::Arrived;
use crate::work::shared::scale::Scale;
use crate::work::{self, Work};
use ossc_cache::budget::Budget;
use ossc_cache::cpath::CPath;
use ossc_cache::pages::{self, PageKind, Store};
use ossc_cache::region::{Region, open_mode};
use ossc_cache::rundir::{self, Paths, Place};
use ossc_cache::{lock, sys, wire};
use ossc_conf::{Config, OpenMode, Scheme, Settings};
use ossc_net::retry::Backoff;
use ossc_net::{Names, Vcpus};
use ossc_sign::Issued;
use rustix::process::{Resource, getrlimit};
use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long an inode number of a small object's stand-in is kept from being used again.
const PIN_FOR: Duration = Duration::from_secs(30);
/// Least that is fetched for a reader who wants a little: the origin's first byte takes as long as some of them.
const BLOCK_BYTES: u64 = 64 << 10;
/// Between two look-ups of the endpoint's name; resolvers keep answers for longer.
const RESOLVE_PAUSE: Duration = Duration::from_secs(2);

enum NotStarted {
    /// Another engine holds the lock.
    SomebodyElse,
    /// The REASON.
    Reason(String),
}

impl From<String> for NotStarted {
    fn from(reason: String) -> NotStarted {
        NotStarted::Reason(reason)
    }
}

impl From<ossc_conf::Reason> for NotStarted {
    fn from(reason: ossc_conf::Reason) -> NotStarted {
        NotStarted::Reason(reason.to_string())
    }
}

/// Runs the engine.
pub fn main() -> ExitCode {
    let Some(socket) = reset::starter() else {
        eprintln!(
            "ossc engine is started by libossc_preload.so; to use the connector, start your program with LD_PRELOAD and ENABLE_CONNECTOR=1"
        );
        return ExitCode::FAILURE;
    };
    let mut starter = Starter::new(socket);
    reset::inherited();
    let started = starter.settings().map_err(NotStarted::Reason).and_then(|variables| start(&variables, &starter));
    match started {
        Ok((mut engine, warnings)) => {
            starter.say('R', &warnings.join("; "));
            engine.server.run();
            engine.end();
            ExitCode::SUCCESS
        }
        Err(NotStarted::SomebodyElse) => {
            starter.say('O', "");
            ExitCode::SUCCESS
        }
        Err(NotStarted::Reason(reason)) => {
            tracing::error!("not started: {reason}");
            starter.say('E', &reason.replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

struct Engine {
    server: Server,
    journal: Journal,
    socket: CPath,
    _lock: std::fs::File,
}

impl Engine {
    fn end(self) {
        tracing::info!("engine ends: no client for lingerSec");
        wire::remove(&self.socket, self.server.listener());
        self.journal.flush();
    }
}

fn start(variables: &HashMap<String, String>, starter: &Starter) -> Result<(Engine, Vec<String>), NotStarted> {
    let settings = Settings::from_lookup(|name| variables.get(name).cloned())?;
    let own_path = variables.get("OSSC_CONFIG").filter(|path| !path.is_empty());
    let path = own_path.map_or_else(|| PathBuf::from(ossc_conf::DEFAULT_PATH), PathBuf::from);
    let (config, config_warnings) = Config::load(&path, own_path.is_some())?;
    if settings.model_dir == Path::new("/") {
        return Err(NotStarted::Reason(
            "failed to download metadata: MODEL_DIR is /: give the model a folder of its own".into(),
        ));
    }
    let root = Root::open(&settings.model_dir)
        .map_err(|e| format!("failed to download metadata: MODEL_DIR {}: {e}", settings.model_dir.display()))?;
    let id = root
        .id()
        .map_err(|e| format!("failed to download metadata: MODEL_DIR {}: {e}", settings.model_dir.display()))?;
    let (paths, lock) = take_lock(&settings, id)?;
    let keeps = probed(&root, &settings.model_dir)?;
    let (journal, mut warnings) = Journal::start(&config.log_path, &config.audit_path, config.log_level);
    warnings.extend(config_warnings.iter().map(|warning| format!("{}: {warning}", path.display())));
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if let Some(keeps) = keeps {
        tracing::info!(attributes = keeps.attributes, file_dev = keeps.file_dev, folder_dev = id.0, "MODEL_DIR");
    }
    let Built { work, store, region_fd, adopted, arrived, orders, wanted, keys } =
        build(variables, (&settings, &config), &journal, id, starter.store)?;
    // By these numbers clients tell this engine's region from that of one before, and primaries whether it
    // serves what they name. Where they cannot be written clients go by the engine's process id.
    let header = work.region().header();
    let words = [&header.birth, &header.oss_path_key, &header.endpoint_key];
    let _ = lock.write_at(&lock::words(words.map(|word| word.load(Ordering::Acquire))), 0);
    let listener = wire::listen(&paths.socket).map_err(|e| {
        let path = String::from_utf8_lossy(paths.socket.as_bytes()).into_owned();
        let why = match e.0 {
            libc::ENOTSOCK => "is no socket: remove it, or give CONNECTOR_UDS_PATH another name".into(),
            libc::EADDRINUSE => "is the socket of another program: give CONNECTOR_UDS_PATH another name".into(),
            number => std::io::Error::from_raw_os_error(number).to_string(),
        };
        format!("failed to acquire uds lock: {path}: {why}")
    })?;
    let options = mirror::Options {
        materialize_bytes_max: config.materialize_bytes_max,
        materialize_total_max: config.materialize_total_bytes_max,
        part_bytes_max: config.part_bytes,
        start_attempts: config.start_attempts,
        list_attempts: config.list_attempts,
        list_again: config.list_again,
        // The rest is for the network.
        start_quiet_max: Duration::from_secs(quiet::patience_secs(config.list_again.as_secs()))
            .min(config.start_timeout / 2),
    };
    let location = settings.location.to_string();
    let limit = config.start_timeout;
    let late =
        format!("failed to list objects: {location} was not listed within startTimeoutSec ({} s)", limit.as_secs());
    starter.say_within(limit, late).map_err(|e| format!("failed to initialize connector: thread: {e}"))?;
    let prefix = settings.location.prefix().to_string();
    let mirror = Arc::new(Mirror::new(root, work.clone(), store, location, prefix, options));
    spawn("ossc-files", {
        let mirror = mirror.clone();
        move || settle_files(&mirror, &arrived)
    })?;
    if adopted { mirror.adopt() } else { mirror.start() }.map_err(|failure| failure.to_string())?;
    if adopted {
        // The thread that takes it is started below.
        let _ = orders.send(Order::Refresh { folder: String::new(), asked_ms: sys::now_ms() });
    }
    spawn("ossc-mirror", {
        let lanes = Lanes::of(config.prefetch_vcpus * config.prefetch_workers);
        let place = (mirror.clone(), settings.model_dir.clone());
        let listings = Listings::new(place, config.list_again, lanes, orders.clone());
        move || listings.keep(&wanted)
    })?;
    if !adopted {
        mirror.wait_for_small("", SETTLE_WITHIN);
    }
    spawn("ossc-demand", {
        let work = work.clone();
        move || demand::run(&work)
    })?;
    spawn("ossc-lease", {
        let (work, expire) = (work.clone(), config.expire);
        move || leases::run(&work, expire, &|| !nearby::processes(id).is_empty())
    })?;
    let door = wire::door().map_err(|e| {
        format!("failed to initialize connector: socketpair: {}", std::io::Error::from_raw_os_error(e.0))
    })?;
    let mut server = Server::new((listener, door), (work, mirror, keys), region_fd, orders, config.linger);
    server.welcome(starter.pid);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), model_dir = %settings.model_dir.display(), path = %settings.location, endpoint = %settings.endpoint, "engine started");
    Ok((Engine { server, journal, socket: paths.socket, _lock: lock }, warnings))
}

/// What the file system of MODEL_DIR keeps; the REASON if placeholders cannot be known there, or here.
fn probed(root: &Root, model_dir: &Path) -> Result<Option<made::Keeps>, NotStarted> {
    if !Path::new("/proc/self/fd").exists() {
        return Err(NotStarted::Reason(
            "failed to initialize connector: /proc is not there: mount it, since files are reopened through it".into(),
        ));
    }
    let folder = root.folder("").map_err(|e| e.to_string());
    folder
        .and_then(made::probe)
        .map_err(|why| format!("failed to download metadata: MODEL_DIR {}: {why}", model_dir.display()).into())
}

/// What has to be there before the root folder is listed.
struct Built {
    work: Arc<Work>,
    store: Store,
    region_fd: i32,
    adopted: bool,
    arrived: Receiver<Arrived>,
    orders: Sender<Order>,
    wanted: Receiver<Order>,
    keys: keys::Keys,
}

fn build(
    variables: &HashMap<String, String>,
    (settings, config): (&Settings, &Config),
    journal: &Journal,
    id: (u64, u64),
    old_store: i32,
) -> Result<Built, NotStarted> {
    let (budget, warning) = config.memory_limit.map_or_else(|| (Budget::of_this_process(), None), Budget::of_limit);
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
    let (store, region, region_fd, adopted) = memory(settings, config, &budget, id, old_store)?;
    let budget = match store.space().filter(|_| adopted) {
        Some(space) => budget.with_taken_over(space, config.memory_limit.is_none()),
        None => budget,
    };
    let place = ossc_cache::region::place_key(settings.location.to_string().as_bytes());
    region.header().oss_path_key.store(place, Ordering::Release);
    region.header().endpoint_key.store(endpoint_key(settings), Ordering::Release);
    region.header().budget_bytes.store(budget.limit(), Ordering::Release);
    region.header().list_again_ms.store(config.list_again.as_millis() as u64, Ordering::Release);
    region.header().reads_wait.store(u32::from(config.reads_wait_for_verdict), Ordering::Release);
    region.header().open_mode.store(word_of(config.open_mode), Ordering::Release);
    let renewed = renewed_source(settings, config)?;
    let key = match &renewed {
        Some((_, first)) => Some(first.credentials.clone()),
        None => credentials::lasting(settings),
    };
    let failed = |e: ossc_net::Error| format!("failed to list objects: {e}");
    let addresses = connect::addresses(settings, config).map_err(failed)?;
    let origin = connect::origin(settings, config, addresses, key).map_err(failed)?;
    let (sender, arrived) = channel();
    let (orders, wanted) = channel();
    let net = connect::options(settings, config);
    let splice = splices(&store, settings.endpoint.scheme(), net.vcpus);
    // A little would take a huge page.
    let block_bytes = if store.makes_small_pages() { BLOCK_BYTES } else { 0 };
    tracing::info!(splice, block_bytes, "network to memory");
    let options = work::Options {
        verify_crc: config.verify_crc,
        part_bytes_max: config.part_bytes,
        outage_budget: config.outage_budget,
        // Where there are no huge pages, the rounding is what is lost.
        page_bytes: pages::HUGE_BYTES as u64,
        block_bytes,
        splice,
        now: Instant::now,
        requests_max: config.prefetch_vcpus * config.prefetch_workers,
        twice_percent_max: config.twice_percent_max,
        memory_files_max: memory_files_max(),
        scale: Scale::PRODUCT,
        throttle_recover: config.throttle_recover,
        backoff: Backoff { base: config.retry_base, cap: config.retry_cap },
        revive: config.revive,
    };
    let audit = Audit::new(Some(journal.clone()), settings.location.bucket());
    let senders = (sender, orders.clone());
    let work = Arc::new(Work::new(region, budget, audit, senders, options));
    let vcpus = Vcpus::start(Arc::new(origin), work.clone(), net)
        .map_err(|e| format!("failed to initialize connector: {e}"))?;
    let names = vcpus.names();
    work.scheduling.set_vcpus(vcpus);
    let keys = keys(variables, settings, config, &work, renewed)?;
    // An address needs no looking up.
    if settings.endpoint.ip().is_none() {
        let (host, port) = (settings.endpoint.connect_host(settings.location.bucket()), settings.endpoint.port());
        let deadline = config.resolve_timeout;
        spawn("ossc-names", move || keep_addresses(names, &host, port, deadline))?;
    }
    Ok(Built { work, store, region_fd, adopted, arrived, orders, wanted, keys })
}

fn word_of(mode: OpenMode) -> u32 {
    match mode {
        OpenMode::Auto => open_mode::AUTO,
        OpenMode::Whole => open_mode::WHOLE,
        OpenMode::Parts => open_mode::PARTS,
    }
}

fn endpoint_key(settings: &Settings) -> u64 {
    ossc_cache::region::endpoint_key(settings.endpoint_text.as_bytes())
}

/// The region and the memory files: those of an engine that is gone where the starter has them, else new.
fn memory(
    settings: &Settings,
    config: &Config,
    budget: &Budget,
    id: (u64, u64),
    old_store: i32,
) -> Result<(Store, Region, i32, bool), NotStarted> {
    let old = (old_store >= 0).then(|| Store::adopt(old_store));
    if let Some(Ok((store, region, fd))) = old {
        let header = region.header();
        let place = ossc_cache::region::place_key(settings.location.to_string().as_bytes());
        let same = (header.model_dev.load(Ordering::Acquire), header.model_ino.load(Ordering::Acquire)) == id
            && header.oss_path_key.load(Ordering::Acquire) == place
            && header.endpoint_key.load(Ordering::Acquire) == endpoint_key(settings);
        if same {
            header.engine_pid.store(std::process::id(), Ordering::Release);
            return Ok((store, region, fd, true));
        }
    }
    let kind = settings.pages.map(|pages| match pages {
        ossc_conf::PageKind::Tmpfs => PageKind::HugeTmpfs,
        ossc_conf::PageKind::Memfd => PageKind::Memfd,
    });
    // The helper of the store is a fork: before the first thread but the journal's, which holds no lock
    // that the helper needs.
    let store = Store::create(kind, budget.limit());
    let no_memory = |e: sys::Errno| {
        let e = std::io::Error::from_raw_os_error(e.0);
        format!("failed to initialize connector: shared memory: {e}")
    };
    let (model_dir, log) = (settings.model_dir.to_string_lossy(), config.log_path.to_string_lossy());
    let (region, fd) = store.region(&model_dir, &log).map_err(no_memory)?;
    publish(&region, store.dev().map_err(no_memory)?, id);
    tracing::info!(pages = ?store.kind(), why = store.why(), budget_bytes = budget.limit(), "memory");
    Ok((store, region, fd, false))
}

/// Most vcpus that splice. A write takes its file's lock, and mostly all of them fill the same file: one file takes 10
/// GB/s (huge pages) and 3.5 GB/s (small ones) that way however many write, while a vcpu receives 1.6 and 1.2 GB/s into
/// mapped pages (docs/ENVELOPE.md).
const SPLICING_VCPUS_MAX_HUGE: usize = 4;
const SPLICING_VCPUS_MAX_SMALL: usize = 2;

/// Whether bodies are spliced into the memory files, which costs less than to receive them into mapped pages. What
/// comes by TLS cannot be, and RLIMIT_FSIZE, where it could not be lifted, ends a write but not a mapping: memory that
/// was taken over may be larger.
fn splices(store: &Store, scheme: Scheme, vcpus: usize) -> bool {
    let vcpus_max = match store.kind() {
        PageKind::HugeTmpfs => SPLICING_VCPUS_MAX_HUGE,
        PageKind::Memfd => SPLICING_VCPUS_MAX_SMALL,
    };
    let may = scheme == Scheme::Http && vcpus <= vcpus_max && getrlimit(Resource::Fsize).current.is_none();
    // Last, since it makes pages.
    if !may || !store.takes_writes() {
        return false;
    }
    let errno = |e: sys::Errno| std::io::Error::from_raw_os_error(e.0);
    let probed = store.with_probe(ossc_net::splice::probe).map_err(errno).flatten();
    if let Err(os) = &probed {
        tracing::warn!(error = %os, "bodies are received into mapped pages: splice does not work here");
    }
    probed.is_ok()
}

/// Half of the descriptors that this process may have; the rest is for clients, connections and what must not fail.
fn memory_files_max() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit / 2).unwrap_or(usize::MAX)
}

fn publish(region: &Region, memory_dev: u64, (dev, ino): (u64, u64)) {
    let header = region.header();
    header.memory_dev.store(memory_dev, Ordering::Release);
    header.model_dev.store(dev, Ordering::Release);
    header.model_ino.store(ino, Ordering::Release);
    header.birth.store(fastrand::u64(1..), Ordering::Release);
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    header.started_secs.store(since.map_or(0, |since| since.as_secs()), Ordering::Release);
    header.engine_pid.store(std::process::id(), Ordering::Release);
}

/// Where credentials come from that can be renewed, and what it gives now.
fn renewed_source(settings: &Settings, config: &Config) -> Result<Option<(credentials::Source, Issued)>, NotStarted> {
    let limits = credentials::Limits { connect: config.connect_timeout, response: config.response_timeout };
    let source = credentials::Source::new(settings, limits, &connect::trust(settings, config));
    let found = source.and_then(|source| source.map(|source| source.first().map(|first| (source, first))).transpose());
    // The file has a REASON of its own.
    let is_file = matches!(settings.credentials, ossc_conf::Credentials::File(_));
    found
        .map_err(|why| NotStarted::Reason(if is_file { why } else { format!("failed to initialize connector: {why}") }))
}

/// What renews the credentials: the thread is started now where the source can give others.
fn keys(
    variables: &HashMap<String, String>,
    settings: &Settings,
    config: &Config,
    work: &Arc<Work>,
    renewed: Option<(credentials::Source, Issued)>,
) -> Result<keys::Keys, NotStarted> {
    let limits = credentials::Limits { connect: config.connect_timeout, response: config.response_timeout };
    let later = credentials::Later::new(variables, limits, connect::trust(settings, config));
    let (source, first) = match renewed {
        Some((source, first)) => (Some(source), Some(first)),
        None => (None, credentials::lasting(settings).map(|credentials| Issued { credentials, ends_secs: None })),
    };
    let ends_unix_secs = first.as_ref().and_then(|first| first.ends_secs);
    let name = source.as_ref().map(credentials::Source::name);
    let keeper = credentials::Keeper { source, later: Arc::new(later), settings: settings.clone() };
    let keys = keys::Keys::new(work.clone(), keeper, first);
    if let Some(source) = name {
        tracing::info!(source, ends_unix_secs, "credentials");
        keys.renew().map_err(|e| format!("failed to initialize connector: thread ossc-keys: {e}"))?;
    }
    Ok(keys)
}

/// Looks the endpoint's name up again whenever no known address can be connected to: it may have moved.
fn keep_addresses(mut names: Names, host: &str, port: u16, deadline: Duration) {
    while names.wait_unreachable() {
        match ossc_net::resolve::resolve(host, port, deadline) {
            Ok(addresses) if names.set_addresses(&addresses) => {
                tracing::info!(host, ?addresses, "the endpoint has other addresses now");
            }
            Ok(_) => tracing::debug!(host, "the endpoint still has the same addresses"),
            Err(error) => tracing::warn!("{error}"),
        }
        std::thread::sleep(RESOLVE_PAUSE);
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), NotStarted> {
    let thread = std::thread::Builder::new().name(name.into()).stack_size(512 << 10).spawn(body);
    thread.map(drop).map_err(|e| NotStarted::Reason(format!("failed to initialize connector: thread {name}: {e}")))
}

/// Small objects become files. Their stand-ins' inode numbers are kept a while.
fn settle_files(mirror: &Mirror, arrived: &Receiver<Arrived>) {
    let mut pins = std::collections::VecDeque::new();
    loop {
        let next =
            pins.front().map(|(until, ..): &(Instant, u32, u32, _)| until.saturating_duration_since(Instant::now()));
        match next.map_or_else(
            || arrived.recv().map_err(|_| RecvTimeoutError::Disconnected),
            |wait| arrived.recv_timeout(wait),
        ) {
            Ok(file) => {
                // Before its record may be used again. Where it already is another version's, nothing comes back.
                let incarnation = mirror.incarnation(file.slot);
                if let Some(pin) = mirror.settle(&file) {
                    pins.push_back((Instant::now() + PIN_FOR, file.slot, incarnation, pin));
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some((_, slot, incarnation, pin)) = pins.pop_front() {
                    mirror.forget(slot, incarnation);
                    drop(pin);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn take_lock(settings: &Settings, id: (u64, u64)) -> Result<(Paths, std::fs::File), NotStarted> {
    let bytes = |path: &Option<PathBuf>| path.as_ref().map(|path| path.as_os_str().as_encoded_bytes().to_vec());
    let (socket, runtime_dir) = (bytes(&settings.uds_path), bytes(&settings.runtime_dir));
    let place = Place { socket: socket.as_deref(), runtime_dir: runtime_dir.as_deref() };
    let failed = |what: String| NotStarted::Reason(format!("failed to acquire uds lock: {what}"));
    let paths = rundir::paths(&place, id.0, id.1).ok_or_else(|| failed(rundir::NO_FOLDER.into()))?;
    let name = String::from_utf8_lossy(paths.lock.as_bytes()).into_owned();
    let not_ours =
        || failed(format!("{name} is not an engine's lock: remove it, or give CONNECTOR_UDS_PATH another name"));
    let path = paths.lock.as_cstr().ok_or_else(|| failed(format!("{name}: the path is too long")))?;
    let file = lock::open(path, paths.is_given).map_err(|errno| match errno.0 {
        libc::EEXIST | libc::ELOOP | libc::EISDIR | libc::ENXIO => not_ours(),
        number => failed(format!("{name}: {}", std::io::Error::from_raw_os_error(number))),
    })?;
    let file = std::fs::File::from(file);
    match sys::try_lock(file.as_raw_fd()) {
        Ok(()) => {
            // What an engine before has left in it is of another region and maybe of another OSS_PATH.
            file.set_len(0).map_err(|e| failed(format!("{name}: {e}")))?;
            Ok((paths, file))
        }
        Err(errno) if errno.0 == libc::EAGAIN || errno.0 == libc::EACCES => Err(NotStarted::SomebodyElse),
        Err(errno) => Err(failed(format!("{name}: {}", std::io::Error::from_raw_os_error(errno.0)))),
    }
}
