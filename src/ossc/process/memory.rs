//! The region and the memory files of an engine: those of an engine that is gone, or new ones, and how bytes get there.
//!
//! Called by the engine at its start, before its first thread but the journal's. It takes nothing in.

use crate::process::first_word::NotStarted;
use ossc_cache::region::{Region, RegionFiles, open_mode};
use ossc_cache::sys;
use ossc_conf::{Config, LogFormat, OpenMode, Scheme, Settings};
use ossc_store::budget::{self, Budget};
use ossc_store::pages::{PageKind, Store};
use rustix::process::{Resource, getrlimit};
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

/// The region and the memory files: those of an engine that is gone where the starter has them, else new.
pub fn of_engine(
    settings: &Settings,
    config: &Config,
    budget: &Budget,
    id: (u64, u64),
    old_store: i32,
) -> Result<(Store, Region, RegionFiles, bool), NotStarted> {
    let old = (old_store >= 0).then(|| Store::adopt(old_store));
    if let Some(Ok((store, region, files))) = old {
        let header = region.header();
        let place = ossc_cache::region::place_key(settings.location.to_string().as_bytes());
        let same = (header.model_dev.load(Ordering::Acquire), header.model_ino.load(Ordering::Acquire)) == id
            && header.oss_path_key.load(Ordering::Acquire) == place
            && header.endpoint_key.load(Ordering::Acquire) == endpoint_key(settings);
        if same {
            count_anew(&region);
            header.engine_pid.store(std::process::id(), Ordering::Release);
            return Ok((store, region, files, true));
        }
    }
    let kind = settings.pages.map(|pages| match pages {
        ossc_conf::PageKind::Tmpfs => PageKind::HugeTmpfs,
        ossc_conf::PageKind::Memfd => PageKind::Memfd,
    });
    // The helper of the store is a fork: before the first thread but the journal's, which holds no lock
    // that the helper needs.
    // As large as the budget may ever become: it is looked at again.
    let store = Store::create(kind, budget.most());
    let no_memory = |e: sys::Errno| {
        let e = std::io::Error::from_raw_os_error(e.0);
        format!("failed to initialize connector: shared memory: {e}")
    };
    let (model_dir, log) = (settings.model_dir.to_string_lossy(), config.log_path.to_string());
    let (region, files) = store.region(&model_dir, &log).map_err(no_memory)?;
    publish(&region, store.dev().map_err(no_memory)?, id);
    tracing::info!(pages = ?store.kind(), why = store.why(), budget_bytes = budget.limit(), "memory");
    Ok((store, region, files, false))
}

/// Why a budget cannot serve any reader: it has no room for the largest part. `is_cut`: a cgroup or the machine
/// sets it, although there is a memoryLimit.
pub fn too_small(config: &Config, budget: &Budget, is_cut: bool) -> Option<String> {
    let room = budget.lacks(config.part_bytes)?;
    let least = budget::limit_min(config.part_bytes);
    let left = budget.limit();
    Some(match config.memory_limit.filter(|_| !is_cut) {
        Some(limit) => format!(
            "memoryLimit {limit} leaves {left} bytes for objects, and one part (partBytes) takes {room}: set memoryLimit to {least} or more"
        ),
        None => format!(
            "the memory cgroup or this machine leaves {left} bytes for objects, and one part (partBytes) takes {room}: give this program more memory"
        ),
    })
}

/// Most vcpus that splice. A write takes its file's lock, and mostly all of them fill the same file: one file takes 10
/// GB/s (huge pages) and 3.5 GB/s (small ones) that way however many write, while a vcpu receives 1.6 and 1.2 GB/s into
/// mapped pages (docs/ENVELOPE.md).
const SPLICING_VCPUS_MAX_HUGE: usize = 4;
const SPLICING_VCPUS_MAX_SMALL: usize = 2;

/// Whether bodies are spliced into the memory files, which costs less than to receive them into mapped pages. What
/// comes by TLS cannot be, and RLIMIT_FSIZE, where it could not be lifted, ends a write but not a mapping: memory that
/// was taken over may be larger.
pub fn splices(store: &Store, scheme: Scheme, vcpus: usize) -> bool {
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
pub fn memory_files_max() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit / 2).unwrap_or(usize::MAX)
}

fn publish(region: &Region, memory_dev: u64, (dev, ino): (u64, u64)) {
    let header = region.header();
    header.memory_dev.store(memory_dev, Ordering::Release);
    header.model_dev.store(dev, Ordering::Release);
    header.model_ino.store(ino, Ordering::Release);
    header.birth.store(fastrand::u64(1..), Ordering::Release);
    count_anew(region);
    header.engine_pid.store(std::process::id(), Ordering::Release);
}

/// What an engine tells of itself begins with it, also where it goes on with the memory of one that is gone: the rest of its
/// numbers are in its own memory.
fn count_anew(region: &Region) {
    let (header, board) = (region.header(), region.board());
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    header.started_secs.store(since.map_or(0, |since| since.as_secs()), Ordering::Release);
    let counts = [&header.origin_bytes, &header.origin_requests, &header.origin_retries, &board.events_lost];
    counts.into_iter().for_each(|count| count.store(0, Ordering::Relaxed));
    board.waits.forget();
}

/// Tells clients what the region is of, and what they have to know of the settings.
pub fn tell(region: &Region, settings: &Settings, config: &Config, budget: &Budget) {
    let place = ossc_cache::region::place_key(settings.location.to_string().as_bytes());
    region.header().oss_path_key.store(place, Ordering::Release);
    region.header().endpoint_key.store(endpoint_key(settings), Ordering::Release);
    region.header().budget_bytes.store(budget.most(), Ordering::Release);
    region.header().list_again_ms.store(config.list_again.as_millis() as u64, Ordering::Release);
    region.header().reads_wait.store(u32::from(config.reads_wait_for_verdict), Ordering::Release);
    region.header().open_mode.store(word_of(config.open_mode), Ordering::Release);
    region.header().log_json.store(u32::from(config.log_format == LogFormat::Json), Ordering::Release);
}

fn word_of(mode: OpenMode) -> u32 {
    match mode {
        OpenMode::Auto => open_mode::AUTO,
        OpenMode::Whole => open_mode::WHOLE,
        OpenMode::Parts => open_mode::PARTS,
    }
}

/// What tells endpoints apart.
fn endpoint_key(settings: &Settings) -> u64 {
    ossc_cache::region::endpoint_key(settings.endpoint_text.as_bytes())
}
