//! What an engine says of itself to the commands: who it is, what it has in memory, what its requests came to.
//!
//! Called by the attach server. It changes nothing, and no secret is in it.

use crate::journal;
use crate::mirror::known::NotListed;
use crate::work::Work;
use ossc_cache::region::{RecordKind, state};
use ossc_store::pages::PageKind;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// What does not change while an engine runs.
#[derive(Clone)]
pub struct About {
    /// OSS_PATH, as given.
    pub oss_path: String,
    /// The endpoint, with its scheme.
    pub endpoint: String,
    /// `io_uring` or `epoll`, and why.
    pub driver: (&'static str, String),
    /// The kind of memory.
    pub pages: PageKind,
    /// Where the engine is to answer for its metrics.
    pub metrics_listen: Option<SocketAddr>,
    /// The file that the configuration was read from, and whether there is one.
    pub config: (String, bool),
}

/// The report, with the process ids of the clients, and the folders that could not be listed with the reasons.
pub fn of(
    work: &Work,
    about: &About,
    credentials_end: Option<u64>,
    clients: &[i32],
    unlisted: &BTreeMap<String, NotListed>,
) -> Value {
    let region = work.region();
    let header = region.header();
    let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
    let (gauges, counters) = (work.gauges(), &work.register.counters);
    let (under_way, allowed) = work.scheduling.under_way();
    let clients: Vec<Value> =
        clients.iter().map(|pid| json!({"pid": pid, "command": crate::journal::audit::command(*pid as u32)})).collect();
    let failures = counters.failures();
    let throttled = failures.get("throttled").copied().unwrap_or(0);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "model_dir": String::from_utf8_lossy(region.model_dir()),
        "oss_path": about.oss_path,
        "endpoint": about.endpoint,
        "driver": about.driver.0,
        "driver_reason": about.driver.1,
        "pages": format!("{:?}", about.pages),
        "config_file": about.config.0,
        "config_file_exists": about.config.1,
        "log": String::from_utf8_lossy(region.log_path()),
        "started": load(&header.started_secs),
        "at_rest": gauges.is_at_rest() && under_way == 0,
        "clients": clients,
        "memory": {
            "budget_bytes": load(&header.budget_bytes),
            "used_bytes": gauges.budget_used,
            "peak_bytes": work.residency.budget_peak(),
            "ready_bytes": load(&header.ready_bytes),
            "large_bytes": load(&header.large_bytes),
            "hedge_bytes": gauges.hedge_bytes,
            "files": gauges.memory_files,
        },
        "origin": {
            "bytes": load(&header.origin_bytes),
            "requests": load(&header.origin_requests),
            "retries": load(&header.origin_retries),
            "throttled": throttled,
            "failures": failures,
            "hedges": load(&counters.hedges),
            "hedged_bytes": load(&counters.hedged_bytes),
            "refetched_bytes": load(&counters.refetched_bytes),
            "mismatches": load(&counters.mismatches),
            "requests_under_way": under_way,
            "requests_allowed": allowed,
            "waiting": gauges.planned,
        },
        "programs": {
            "clients": work.residency.programs.count(),
            "opens": load(&counters.opens),
            "opened_bytes": load(&counters.opened_bytes),
            "hit_bytes": load(&counters.hit_bytes),
        },
        "credentials_end": credentials_end,
        "metrics_listen": about.metrics_listen.map(|address| address.to_string()),
        "lines_lost": journal::lines_lost(),
        "events_lost": load(&region.board().events_lost),
        "failed": failed(work),
        "folders_not_listed": unlisted.len(),
        "not_listed": not_listed(unlisted),
    })
}

fn not_listed(unlisted: &BTreeMap<String, NotListed>) -> Vec<Value> {
    let one = |(folder, found): (&String, &NotListed)| json!({"folder": folder, "reason": found.why, "shows_older": found.shows_older});
    unlisted.iter().map(one).collect()
}

/// A file of the report, at its begin.
///
/// # Errors
/// The errno of what keeps it from being made.
pub fn file(report: &Value) -> Result<File, i32> {
    let errno = |e: std::io::Error| e.raw_os_error().unwrap_or(libc::EIO);
    let fd = memfd_create(c"ossc-report", MemfdFlags::CLOEXEC).map_err(|e| e.raw_os_error())?;
    let mut file = File::from(fd);
    file.write_all(report.to_string().as_bytes()).and_then(|()| file.rewind()).map_err(errno)?;
    Ok(file)
}

/// Objects that readers get an error for, each with the reason.
fn failed(work: &Work) -> Vec<Value> {
    let region = work.region();
    let slots = (0..region.objects_len()).filter_map(|slot| Some((slot, region.object(slot)?)));
    let is_failed = |(_, object): &(u32, &ossc_cache::region::Object)| {
        object.kind() != RecordKind::Folder && object.state() == state::FAILED && !object.is_in_the_way()
    };
    slots
        .filter(is_failed)
        .map(|(slot, object)| {
            let reason = work.entry(slot).and_then(|entry| entry.failure());
            json!({"name": *region.name(object), "errno": object.errno.load(Ordering::Acquire), "reason": reason})
        })
        .collect()
}
