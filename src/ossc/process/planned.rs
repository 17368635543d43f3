//! A load that is planned and not made: the requests of an engine that starts, in their order, within its budget.
//!
//! Called by `ossc plan`. Mirror, plan, throttle, request window, parts and budget are the engine's own: its work without a
//! network is asked for one request after the other. Each is taken as answered at once. What only answers tell (slow
//! pieces, hedges, retries) adds requests to a real load.

use crate::folder_files::Root;
use crate::journal::audit::Audit;
use crate::mirror::listing::tree::Level;
use crate::mirror::{Mirror, MirrorOptions};
use crate::process::assemble;
use crate::work::shared::item::Item;
use crate::work::{Work, WorkOptions};
use ossc_cache::region::{RecordKind, Region};
use ossc_cache::{sys, wire};
use ossc_conf::{Config, Settings};
use ossc_net::{Pull, Query, Source};
use ossc_store::pages::{PageKind, Store};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::Instant;

/// One request.
pub struct PlannedRequest {
    /// Name in the folder.
    pub name: String,
    /// Bytes of the object, as a half-open range.
    pub range: Range<u64>,
}

/// What an engine would do with a folder.
pub struct Planned {
    /// In their order.
    pub requests: Vec<PlannedRequest>,
    /// Which objects become files, and which are served from memory.
    pub kinds: BTreeMap<String, RecordKind>,
    /// Of the budget, what the requests put aside, and all of it; bytes.
    pub memory_bytes: u64,
    pub budget_bytes: u64,
}

/// What it is made from.
pub struct Rehearsed<'a> {
    pub settings: &'a Settings,
    pub config: &'a Config,
    /// Those of an engine.
    pub options: WorkOptions,
    /// MODEL_DIR, or the nearest folder above it; it is looked at only.
    pub root: Root,
}

/// Plans the folder at `path` below OSS_PATH.
///
/// # Errors
/// The kernel gives no memory, or the folder has too many objects, in words.
pub fn plan(given: Rehearsed<'_>, path: &str, level: &Level) -> Result<Planned, String> {
    let Rehearsed { settings, config, options, root } = given;
    let failed = |e: sys::Errno| format!("shared memory: {}", std::io::Error::from_raw_os_error(e.0));
    let files = sys::memfds(c"ossc-plan").map_err(failed)?;
    let region = Region::create(files, "", "").map_err(failed);
    wire::close_all(&files);
    // The machine was looked at for the budget; memory that is planned is none that it lacks.
    let options = WorkOptions { memory: || None, twice_percent_max: 0, ..options };
    let (budget, _) = assemble::budget(config);
    let budget_bytes = budget.limit();
    let (arrived, orders) = (channel(), channel());
    let audit = Audit::new(None, settings.location.bucket());
    let work = Arc::new(Work::new(region?, budget, audit, (arrived.0, orders.0), Vec::new(), options));
    let (location, prefix) = (settings.location.to_string(), settings.location.prefix().to_string());
    let store = Store::create(Some(PageKind::Memfd), 0);
    let mirror = Mirror::new(root, work.clone(), store, location, prefix, MirrorOptions::of(config));
    let slots = mirror.rehearse_plan(path, level).map_err(|failure| failure.to_string())?;
    let names: BTreeMap<u32, &String> = slots.iter().map(|(name, slot)| (*slot, name)).collect();
    let mut requests = Vec::new();
    while let Pull::Fetch(fetch) = work.pull(Instant::now()) {
        work.scheduling.not_sent();
        let item = Item::from_token(fetch.token);
        let (Some(name), Query::Get { range: Some(range), .. }) = (names.get(&item.record()), fetch.query) else {
            continue;
        };
        arrive(&work, item, &range);
        requests.push(PlannedRequest { name: (*name).clone(), range });
    }
    let kind = |slot: &u32| work.region().object(*slot).map(|object| object.kind());
    let kinds = slots.iter().filter_map(|(name, slot)| Some((name.clone(), kind(slot)?))).collect();
    Ok(Planned { requests, kinds, memory_bytes: work.gauges().budget_used, budget_bytes })
}

/// Makes room for the next request as the end of this one would.
fn arrive(work: &Work, item: Item, range: &Range<u64>) {
    let Some((_, entry)) = work.register.get(item.record()) else { return };
    entry.end_request();
    match item {
        Item::Small(..) => work.transfers.materializer.is_over(&entry),
        _ => drop(work.region().header().ready_bytes.fetch_add(range.end - range.start, Ordering::AcqRel)),
    }
}
