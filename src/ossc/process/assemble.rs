//! What an engine is made of before the root folder is listed: memory, credentials, addresses, the work and the threads of
//! its network.
//!
//! Called by the engine at its start, and by the commands that ask OSS the same way (`doctor`, `plan`, `verify`). What fails here is the REASON of
//! a start. It reads no folder of MODEL_DIR.

use crate::credentials::{self, Variables};
use crate::journal::Journal;
use crate::journal::audit::Audit;
use crate::order::Order;
use crate::process::connect;
use crate::process::first_word::NotStarted;
use crate::process::keys;
use crate::process::memory;
use crate::process::names;
use crate::work::shared::item::Arrived;
use crate::work::shared::scale::Scale;
use crate::work::{self, Work, supplies};
use ossc_cache::region::RegionFiles;
use ossc_conf::{Config, Settings};
use ossc_net::retry::Backoff;
use ossc_net::{Origin, Vcpus};
use ossc_store::budget::Budget;
use ossc_store::pages::{self, Store};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

/// Least that is fetched for a reader who wants a little: the origin's first byte takes as long as some of them.
const BLOCK_BYTES: u64 = 64 << 10;

/// What it is made from.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// The variables that the settings are from.
    pub variables: &'a Variables,
    /// What they say.
    pub settings: &'a Settings,
    /// The configuration.
    pub config: &'a Config,
    /// Where audit lines go, if anywhere.
    pub journal: Option<&'a Journal>,
    /// Device and inode of MODEL_DIR.
    pub id: (u64, u64),
    /// Folder of the memory files of an engine that is gone, or -1.
    pub old_store: i32,
}

/// See the module.
pub struct Assembled {
    /// What fetches.
    pub work: Arc<Work>,
    /// Memory files.
    pub store: Store,
    /// Descriptors of the region's files, for clients.
    pub files: RegionFiles,
    /// Region and store are those of an engine that is gone.
    pub adopted: bool,
    /// Small objects that have come.
    pub arrived: Receiver<Arrived>,
    /// Folders to be listed.
    pub orders: Sender<Order>,
    /// The same, at the end of the thread that lists them.
    pub wanted: Receiver<Order>,
    /// What renews the credentials.
    pub keys: Arc<keys::Keys>,
    /// The bucket, signed for with the credentials of now.
    pub origin: Arc<Origin>,
    /// `io_uring` or `epoll`, and why.
    pub driver: (&'static str, String),
}

/// Everything from the budget to the network threads.
///
/// # Errors
/// The REASON of a start that cannot go on.
pub fn assemble(given: &Given<'_>, waits_for: &dyn Fn(&str)) -> Result<Assembled, NotStarted> {
    let Given { variables, settings, config, journal, id, old_store } = *given;
    let (budget, warning) = budget(config);
    let is_cut = warning.is_some();
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
    let (store, region, files, adopted) = memory::of_engine(settings, config, &budget, id, old_store)?;
    let budget = match store.space().filter(|_| adopted) {
        Some(space) => budget.with_taken_over(space, config.memory_limit.is_none()),
        None => budget,
    };
    if let Some(why) = memory::too_small(config, &budget, is_cut) {
        return Err(NotStarted::Reason(format!("failed to initialize connector: {why}")));
    }
    memory::tell(&region, settings, config, &budget);
    waits_for("the credentials");
    let renewed = keys::renewed(settings, config)?;
    let key = match &renewed {
        Some((_, first)) => Some(first.credentials.clone()),
        None => credentials::lasting(settings),
    };
    let failed = |e: ossc_net::Error| format!("failed to list objects: {e}");
    waits_for(&format!("the addresses of {}", settings.endpoint.connect_host(settings.location.bucket())));
    let addresses = connect::addresses(settings, config).map_err(failed)?;
    let origin = connect::origin(settings, config, addresses, key).map_err(failed)?;
    let (sender, arrived) = channel();
    let (orders, wanted) = channel();
    let net = connect::options(settings, config);
    let splice = memory::splices(&store, settings.endpoint.scheme(), net.vcpus);
    // A little would take a huge page.
    let block_bytes = if store.makes_small_pages() { BLOCK_BYTES } else { 0 };
    tracing::info!(splice, block_bytes, "network to memory");
    let options = work::WorkOptions {
        verify_crc: config.verify_crc,
        part_bytes_max: config.part_bytes,
        outage_budget: config.outage_budget,
        // Where there are no huge pages, the rounding is what is lost.
        page_bytes: pages::HUGE_BYTES as u64,
        block_bytes,
        splice,
        now: Instant::now,
        memory: ossc_store::machine::now,
        requests_max: config.prefetch_vcpus * config.prefetch_workers,
        twice_percent_max: config.twice_percent_max,
        memory_files_max: memory::memory_files_max(),
        scale: Scale::PRODUCT,
        throttle_recover: config.throttle_recover,
        backoff: Backoff { base: config.retry_base, cap: config.retry_cap },
        revive: config.revive,
    };
    let audit = Audit::new(journal.cloned(), settings.location.bucket());
    let senders = (sender, orders.clone());
    let work = Arc::new(Work::new(region, budget, audit, senders, supplies::all(), options));
    let origin = Arc::new(origin);
    let vcpus =
        Vcpus::start(origin.clone(), work.clone(), net).map_err(|e| format!("failed to initialize connector: {e}"))?;
    let (looked_up, driver) = (vcpus.names(), vcpus.driver());
    work.scheduling.set_vcpus(vcpus);
    let keys = Arc::new(keys::of_engine(variables, settings, config, &work, renewed)?);
    // An address needs no looking up.
    if settings.endpoint.ip().is_none() {
        let (host, port) = (settings.endpoint.connect_host(settings.location.bucket()), settings.endpoint.port());
        let deadline = config.resolve_timeout;
        spawn("ossc-names", move || names::run(looked_up, &host, port, deadline))?;
    }
    Ok(Assembled { work, store, files, adopted, arrived, orders, wanted, keys, origin, driver })
}

/// The memory that the engine may take, with a warning where a limit is more than there is.
pub fn budget(config: &Config) -> (Budget, Option<String>) {
    config.memory_limit.map_or_else(|| (Budget::of_this_process(), None), Budget::of_limit)
}

/// Starts one of the engine's threads.
///
/// # Errors
/// No thread can be had.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), NotStarted> {
    let thread = std::thread::Builder::new().name(name.into()).stack_size(512 << 10).spawn(body);
    thread.map(drop).map_err(|e| NotStarted::Reason(format!("failed to initialize connector: thread {name}: {e}")))
}
