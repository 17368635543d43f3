//! `ossc engine`: the process that fetches, holds and hands out the bytes of one MODEL_DIR.
//!
//! Called by `main`. Start: settings from the starter, configuration, lock, memory, network, root folder,
//! first word. Then it serves until nobody needs it. Whatever fails before the first word is told to the
//! starter as a REASON; nothing is printed.

use crate::credentials::{self, Variables};
use crate::folder_files::{self, Root};
use crate::journal::{self, Journal, Refused, line};
use crate::mirror::arrive;
use crate::mirror::listings::{Lanes, Listings, SETTLE_WITHIN};
use crate::mirror::{Mirror, MirrorOptions};
use crate::order::Order;
use crate::process::alone::{self, Alone};
use crate::process::assemble::{Assembled, Given, assemble, spawn};
use crate::process::exposition;
use crate::process::first_word::{NotStarted, Starter};
use crate::process::folders;
use crate::process::keys::Keys;
use crate::process::nearby;
use crate::process::outputs::Outputs;
use crate::process::panics;
use crate::process::report::{self, About};
use crate::process::reset;
use crate::process::rest::Rest;
use crate::process::scrape;
use crate::process::serve::{self, Server};
use crate::process::socket;
use crate::process::summary::Summary;
use crate::work::Work;
use crate::work::demand;
use crate::work::leases;
use ossc_cache::region::Header;
use ossc_cache::rundir::Paths;
use ossc_cache::wire::Streams;
use ossc_cache::{lock, sys, wire};
use ossc_conf::{Config, LogFormat, LogLevel, Settings};
use ossc_store::heap;
use rustix::fs::OFlags;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long the end of an engine may wait for its last lines to be written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

/// What a person is told who starts it.
const BY_HAND: &str = "ossc engine is started by libossc_preload.so; to use the connector, start your program with \
    LD_PRELOAD and ENABLE_CONNECTOR=1\n";

/// Runs the engine.
pub fn main() -> ExitCode {
    let Some(socket) = reset::starter() else {
        let _ = std::io::stderr().write_all(BY_HAND.as_bytes());
        return ExitCode::FAILURE;
    };
    let mut starter = Starter::new(socket);
    reset::inherited();
    heap::share();
    panics::end_the_process();
    sys::meet_clock();
    let variables = starter.settings().map_err(NotStarted::Reason);
    let started = variables.and_then(|variables| start(&variables, &mut starter));
    match started {
        Ok((mut engine, warnings)) => {
            starter.say('R', &warnings.join("; "));
            engine.server.run();
            engine.end();
            ExitCode::SUCCESS
        }
        Err(NotStarted::OtherEngine) => {
            starter.say('O', "");
            ExitCode::SUCCESS
        }
        Err(NotStarted::Reason(reason)) => {
            tracing::error!("not started: {reason}");
            // The program that waits for the word may look at the log as soon as it has it.
            journal::flush(WRITTEN_WITHIN);
            starter.say('E', &reason.replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

struct Engine {
    server: Server,
    locked: Locked,
}

/// What keeps other engines from this MODEL_DIR.
struct Locked {
    paths: Paths,
    lock: std::fs::File,
    alone: Option<Alone>,
}

impl Engine {
    fn end(self) {
        tracing::info!("engine ends: no client for lingerSec");
        let Locked { paths, lock, alone } = self.locked;
        wire::remove(&paths.socket, self.server.listener());
        // First, so that the next one, which waits for the other lock, finds this one free.
        drop(alone);
        socket::release(&paths, lock);
        journal::flush(WRITTEN_WITHIN);
    }
}

fn start(variables: &Variables, starter: &mut Starter) -> Result<(Engine, Vec<String>), NotStarted> {
    let streams = std::mem::take(&mut starter.streams);
    let own_path = credentials::value(variables, "OSSC_CONFIG").filter(|path| !path.is_empty());
    let is_named = own_path.is_some();
    let path = own_path.map_or_else(|| PathBuf::from(ossc_conf::DEFAULT_PATH), PathBuf::from);
    let Configured { mut config, journal, refused, mut warnings } = configured(&path, is_named, streams)?;
    let settings = Settings::from_lookup(|name| credentials::value(variables, name))?;
    if let Some(why) = folders::unfit(&settings.model_dir) {
        return Err(NotStarted::Reason(format!("failed to download metadata: {why}")));
    }
    let (root, id) = opened(&settings.model_dir)?;
    let Locked { paths, lock, alone } = locked(&settings, &root, id)?;
    let outputs = Outputs::new(journal.clone(), &config, starter.pid, socket::lock_file(&paths));
    warnings.extend(journal.move_beside(&socket::lock_file(&paths), refused, &mut config));
    let keeps = folders::probed(&root, &settings.model_dir)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if let Some(keeps) = keeps {
        tracing::info!(attributes = keeps.attributes, file_dev = keeps.file_dev, folder_dev = id.0, "MODEL_DIR");
    }
    let given = Given {
        variables,
        settings: &settings,
        config: &config,
        journal: Some(&journal),
        id,
        old_store: starter.store,
    };
    let Assembled { work, store, files, adopted, arrived, orders, wanted, keys, driver, .. } =
        assemble(&given, &|what| starter.waits_for(what))?;
    leave_numbers(&lock, work.region().header(), outputs.wanted());
    let listener = socket::listen(&paths.socket)?;
    socket::sweep(&paths);
    let options = MirrorOptions::of(&config);
    let location = settings.location.to_string();
    let limit = config.start_timeout;
    let late =
        format!("failed to list objects: {location} was not listed within startTimeoutSec ({} s)", limit.as_secs());
    starter.say_within(limit, late).map_err(|e| format!("failed to initialize connector: thread: {e}"))?;
    let prefix = settings.location.prefix().to_string();
    let mirror = Arc::new(Mirror::new(root, work.clone(), store, location, prefix, options));
    spawn("ossc-files", {
        let mirror = mirror.clone();
        move || arrive::run(&mirror, &arrived)
    })?;
    starter.waits_for(&format!("{} to list {}", settings.endpoint, settings.location));
    tell_waits(&work, starter);
    let begun = if adopted { mirror.adopt() } else { mirror.start() };
    work.scheduling.set_on_wait(None);
    begun.map_err(|failure| failure.to_string())?;
    if adopted {
        // The thread that takes it is started below.
        let _ = orders.send(Order::Refresh { folder: String::new(), asked_ms: sys::now_ms() });
    }
    spawn("ossc-mirror", {
        let lanes = Lanes::of(config.prefetch_vcpus * config.prefetch_workers);
        let place = (mirror.clone(), settings.model_dir.clone());
        let listings = Listings::new(place, config.list_again, lanes, orders.clone());
        move || listings.run(&wanted)
    })?;
    if !adopted {
        mirror.wait_for_small("", SETTLE_WITHIN);
    }
    spawn("ossc-demand", {
        let work = work.clone();
        move || demand::run(&work)
    })?;
    let door = wire::door().map_err(|e| {
        format!("failed to initialize connector: socketpair: {}", std::io::Error::from_raw_os_error(e.0))
    })?;
    let about = About {
        oss_path: settings.location.to_string(),
        endpoint: settings.endpoint.to_string(),
        driver,
        pages: mirror.store().kind(),
        metrics_listen: config.metrics_listen,
        config: (path.display().to_string(), path.exists()),
    };
    warnings.extend(listen_for_scrapes(&about, (&work, &mirror), &keys)?);
    // Clients get the catalog by an opening that cannot be written to.
    let catalog = serve::opened_again(files[0], OFlags::RDONLY)
        .map_err(|e| format!("failed to initialize connector: the region cannot be opened again: {e}"))?;
    let shared = (catalog, files[1]);
    let told = (about, outputs, look_at_leases(&work, config.expire, id)?);
    let mut server = Server::new((listener, door), (work, mirror, keys), shared, orders, config.linger, told);
    server.welcome(starter.pid);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), model_dir = %settings.model_dir.display(), path = %settings.location, endpoint = %settings.endpoint, "engine started");
    Ok((Engine { server, locked: Locked { paths, lock, alone } }, warnings))
}

fn locked(settings: &Settings, root: &Root, id: (u64, u64)) -> Result<Locked, NotStarted> {
    let (paths, lock) = socket::lock(settings, id)?;
    Ok(Locked { paths, lock, alone: alone::alone(root, &settings.model_dir)? })
}

/// By these numbers clients tell this engine's region from that of one before, and primaries whether it serves what they
/// name and what they are to offer. Where they cannot be written clients go by the engine's process id.
fn leave_numbers(lock: &std::fs::File, header: &Header, outputs: u32) {
    let [birth, path, endpoint] =
        [&header.birth, &header.oss_path_key, &header.endpoint_key].map(|word| word.load(Ordering::Acquire));
    let _ = lock.write_at(&lock::encode([birth, path, endpoint, u64::from(outputs)]), 0);
}

/// Answers for metrics where the configuration says so; a warning for the user where that cannot be yet.
fn listen_for_scrapes(
    about: &About,
    (work, mirror): (&Arc<Work>, &Arc<Mirror>),
    keys: &Arc<Keys>,
) -> Result<Option<String>, NotStarted> {
    let Some(address) = about.metrics_listen else { return Ok(None) };
    let listener = TcpListener::bind(address);
    let warning = listener.as_ref().err().map(|e| {
        let warning = format!("metricsListen {address}: {e}: metrics are not served; it is tried again every 30 s");
        tracing::warn!("{warning}");
        warning
    });
    let region = *work.region();
    let (about, work, mirror, keys) = (about.clone(), work.clone(), mirror.clone(), keys.clone());
    let report = move || report::of(&work, &about, keys.end_secs(), &[], &mirror.unlisted());
    let page: scrape::MakePage = Box::new(move || exposition::of(&region, &report()));
    spawn("ossc-metrics", move || scrape::run(address, listener, &page)).map(|()| warning)
}

/// MODEL_DIR, with its device and inode.
fn opened(model_dir: &Path) -> Result<(Root, (u64, u64)), String> {
    let failed = |what: String| format!("failed to download metadata: MODEL_DIR {}: {what}", model_dir.display());
    let root = Root::open(model_dir).map_err(|e| failed(format!("{e}: {}", folder_files::advice(e))))?;
    let id = root.id().map_err(|e| failed(e.to_string()))?;
    line::of_model_dir(id);
    Ok((root, id))
}

/// What is there first of all, so that the reason of any start that fails is in the log.
struct Configured {
    config: Config,
    journal: Journal,
    refused: Refused,
    /// For the user.
    warnings: Vec<String>,
}

fn configured(path: &Path, is_named: bool, streams: Streams) -> Result<Configured, NotStarted> {
    let (config, unknown) = Config::load(path, is_named).inspect_err(|_| {
        // What another file names as its log is not known to be the default one.
        let of_default = || (!is_named).then(|| Config::default().log_path);
        if let Some(log) = Config::log_path_of_refused(path).or_else(of_default) {
            Journal::start((&log, None), LogLevel::Error, LogFormat::Text, &streams);
        }
    })?;
    let outputs = (&config.log_path, Some(&config.audit_path));
    let (journal, refused, mut warnings) = Journal::start(outputs, config.log_level, config.log_format, &streams);
    warnings.extend(unknown.iter().map(|warning| format!("{}: {warning}", path.display())));
    Ok(Configured { config, journal, refused, warnings })
}

/// Starts the thread that looks at the leases, and after each look at whether a load has ended.
fn look_at_leases(work: &Arc<Work>, expire: Option<Duration>, id: (u64, u64)) -> Result<Arc<Summary>, NotStarted> {
    let summary = Arc::<Summary>::default();
    let (work, loads) = (work.clone(), summary.clone());
    let mut rest = Rest::default();
    let mut after = move |work: &Work| {
        loads.look(work);
        rest.look(work);
    };
    let run = move || leases::run(&work, expire, &|| !nearby::processes(id).is_empty(), &mut || after(&work));
    spawn("ossc-lease", run).map(|()| summary)
}

/// Whoever waits for the start is told what it waits for.
fn tell_waits(work: &Work, starter: &Starter) {
    if let Ok(waiting) = starter.waiting() {
        work.scheduling.set_on_wait(Some(Box::new(move |what| waiting.waits_for(what))));
    }
}
