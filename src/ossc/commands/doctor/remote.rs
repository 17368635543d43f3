//! What `ossc doctor` sees of OSS: name, connection, keys, the listing, the clock, the places of what was listed, sizes
//! against memory and disk, and a load that is tried for a few seconds.
//!
//! Called by `doctor`, last: it starts network threads. Each question is asked by the engine's own start, with its retries and
//! its corrected clock.

use super::Report;
use super::engine::Here;
use super::reading::{Read, Reading, Speed};
use crate::commands::bucket::nearest;
use crate::commands::view::human;
use crate::credentials;
use crate::folder_files::{self, Root};
use crate::mirror::listing::tree::Level;
use crate::mirror::rehearsal::ModelFolder;
use crate::mirror::{Mirror, MirrorOptions};
use crate::process::assemble::{Assembled, Given, assemble};
use crate::process::connect;
use crate::process::first_word::NotStarted;
use ossc_conf::{Config, Scheme, Settings};
use ossc_net::error::shown;
use ossc_net::list::ObjectEntry;
use serde_json::json;
use std::cell::Cell;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Addresses that are connected to, one after the other.
const ADDRESSES_TRIED_MAX: usize = 8;
/// OSS refuses signatures that are about 15 minutes off; a clock that is a minute off is not looked after.
const CLOCK_SECS_MAX: i64 = 60;
/// How long bytes are read by one connection, and by many.
const MEASURED: Duration = Duration::from_secs(2);
/// How long objects whose bytes were wrong are read once more.
const AGAIN: Duration = Duration::from_secs(20);
/// What a file takes a multiple of on most file systems.
const BLOCK_BYTES: u64 = 4096;
/// What of one kind is told by name.
const NAMED_MAX: usize = 5;
/// What an engine takes of a memoryLimit for itself, at most.
const OWN_BYTES_MAX: u64 = 64 << 20;

/// What the steps before have found.
pub(super) struct Local<'a> {
    pub settings: &'a Settings,
    pub config: &'a Config,
    /// Device and inode of MODEL_DIR, if it is there.
    pub id: Option<(u64, u64)>,
    /// Of the engine that runs, or of the next one.
    pub budget: Option<u64>,
    /// What an engine which runs has all bytes of.
    pub here: Here,
}

impl Local<'_> {
    /// Programs have it, in this version, without OSS.
    fn is_here(&self, object: &ObjectEntry) -> bool {
        let name = object.key.strip_prefix(self.settings.location.prefix());
        name.is_some_and(|name| self.here.has(name, &object.etag))
    }
}

/// Ends with the first step that fails.
pub(super) fn bucket(report: &mut Report, local: &Local<'_>) -> Option<()> {
    let Local { settings, config, .. } = *local;
    let host = settings.endpoint.connect_host(settings.location.bucket());
    let addresses = report.need("DNS", connect::addresses(settings, config))?;
    report.good("DNS", format!("{host}: {} address{}", addresses.len(), if addresses.len() == 1 { "" } else { "es" }));
    connects(report, &addresses, config.connect_timeout)?;
    let assembled = assembled(report, local)?;
    if settings.endpoint.scheme() == Scheme::Http {
        report.note("TLS", "plain http, as OSS_ENDPOINT asks: right inside a VPC, readable by others elsewhere");
    }
    let (origin, options) = (assembled.origin.clone(), MirrorOptions::of(config));
    let near = nearest(&settings.model_dir);
    let near = if near.is_dir() { near } else { near.parent()? };
    let root = report.need("MODEL_DIR", Root::open(near))?;
    let (location, prefix) = (settings.location.to_string(), settings.location.prefix().to_string());
    let mirror = Mirror::new(root, assembled.work, assembled.store, location, prefix, options);
    let listed = mirror.rehearse_listing();
    report.warned();
    let level = report.need("list", listed)?;
    report.good("list", format!("{} objects and {} folders", level.objects.len(), level.folders.len()));
    skipped(report, &level);
    clock(report, &level);
    if local.id.is_some() {
        let places = mirror.rehearse_places(&level);
        report.warned();
        if report.need("places", places).is_some() {
            report.good("places", "nothing of yours lies in an object's place");
        }
    }
    let found = mirror.find_model(level);
    report.warned();
    let Some(found) = found else {
        report.note("read", "no object with bytes was found: nothing was read");
        return Some(());
    };
    if !found.path.is_empty() {
        let (path, folder) = (shown(&found.path), settings.model_dir.join(&found.path));
        report.note(
            "model",
            format!(
                "OSS_PATH is no model's folder; looked at the one in {path}/: a program that loads it is given {}/",
                folder.display()
            ),
        );
    }
    let weights = found.weights(config.materialize_bytes_max);
    sizes(report, local, &found, &weights);
    reads(report, local, (&found, &weights), &origin)
}

fn connects(report: &mut Report, addresses: &[SocketAddr], limit: Duration) -> Option<()> {
    let (mut slowest, mut failed) = (Duration::ZERO, Vec::new());
    let tried = &addresses[..addresses.len().min(ADDRESSES_TRIED_MAX)];
    for address in tried {
        let begin = Instant::now();
        match TcpStream::connect_timeout(address, limit) {
            Ok(_) => slowest = slowest.max(begin.elapsed()),
            Err(e) => failed.push(format!("{address}: {e}")),
        }
    }
    let took = format!("{:.1} ms at most", slowest.as_secs_f64() * 1e3);
    if failed.len() == tried.len() {
        let advice = "check OSS_ENDPOINT, the route to it and firewalls";
        return report.need("connect", Err(format!("{}; {advice}", failed.join("; "))));
    }
    if failed.is_empty() {
        report.good("connect", format!("{} of {}, {took}", tried.len(), tried.len()));
    } else {
        let good = tried.len() - failed.len();
        report.note("connect", format!("{good} of {}, {took}; not {}", tried.len(), failed.join("; ")));
    }
    Some(())
}

/// All that a start has before it lists the root folder.
fn assembled(report: &mut Report, local: &Local<'_>) -> Option<Assembled> {
    let Local { settings, config, id, .. } = *local;
    let variables = credentials::of_environment();
    let id = id.unwrap_or_default();
    let given = Given { variables: &variables, settings, config, journal: None, id, old_store: -1 };
    let step = Cell::new("network");
    let waits_for = |what: &str| step.set(if what.contains("credentials") { "keys" } else { "network" });
    let assembled = assemble(&given, &waits_for);
    report.warned();
    let assembled = match assembled {
        Ok(assembled) => assembled,
        // A budget that holds no part was told before.
        Err(NotStarted::Reason(why)) if local.budget.is_some() => return report.need(step.get(), Err(why)),
        Err(_) => return None,
    };
    let limits = credentials::Limits { connect: config.connect_timeout, response: config.response_timeout };
    let issuer = credentials::issuer(settings, limits, &connect::trust(settings, config));
    let keys = match issuer.ok().flatten() {
        Some(issuer) => issuer.name().to_string(),
        None if credentials::lasting(settings).is_some() => "of the environment".into(),
        None => "none: anonymous access".into(),
    };
    report.good("keys", keys);
    report.good("network", format!("{}: {}", assembled.driver.0, assembled.driver.1));
    Some(assembled)
}

fn skipped(report: &mut Report, level: &Level) {
    for (key, why) in level.skipped.iter().take(NAMED_MAX) {
        report.note("names", format!("{} is not mirrored: {why}", shown(key)));
    }
    if level.skipped.len() > NAMED_MAX {
        report.note("names", format!("and {} more", level.skipped.len() - NAMED_MAX));
    }
}

fn clock(report: &mut Report, level: &Level) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let Some(off) = level.date.map(|date| now - date) else { return };
    if off.abs() > CLOCK_SECS_MAX {
        report.note(
            "clock",
            format!(
                "this machine is {off} s off the server: set it; until then the engine signs with the server's time"
            ),
        );
    } else {
        report.good("clock", format!("{off} s off the server"));
    }
}

/// Sizes against memory and disk, and what cannot be had at all.
fn sizes(report: &mut Report, local: &Local<'_>, found: &ModelFolder, weights: &[String]) {
    let objects = &found.level.objects;
    let of = |name: &String| objects.get(name).map_or(0, |object| object.size);
    let (total, largest) = (weights.iter().map(of).sum::<u64>(), weights.iter().max_by_key(|name| of(name)));
    if let (Some(budget), Some(largest)) = (local.budget, largest) {
        let text = format!(
            "{} weights of {}, the largest {}; {} fit into memory",
            weights.len(),
            human(total),
            human(of(largest)),
            human(budget)
        );
        let size = of(largest);
        if size > budget {
            let what = match local.config.memory_limit {
                Some(limit) if limit <= size + OWN_BYTES_MAX => {
                    format!("set memoryLimit to {} or more", size + OWN_BYTES_MAX)
                }
                _ => "give this program more memory (cgroup, machine)".into(),
            };
            report.bad("size", format!("{}: {text}, and a map needs all of a file: {what}", shown(largest)));
        } else if total > budget {
            report.note("size", format!("{text}: files are loaded one after the other, and a program that keeps all of them mapped gets ENOMEM"));
        } else {
            report.good("size", text);
        }
    }
    let archived: Vec<&ObjectEntry> =
        objects.values().filter(|object| object.needs_restore() && !local.is_here(object)).collect();
    if let Some(first) = archived.first() {
        let more = if archived.len() > 1 { format!(" and {} more are", archived.len() - 1) } else { " is".into() };
        report.bad("archived", format!("{}{more} archived, and programs get EACCES: restore it", shown(&first.key)));
    }
    disk(report, local, found);
}

/// Small objects become files.
fn disk(report: &mut Report, local: &Local<'_>, found: &ModelFolder) {
    let is_small = |object: &&ObjectEntry| object.size <= local.config.materialize_bytes_max && !object.needs_restore();
    let blocks = |bytes: u64| bytes.next_multiple_of(BLOCK_BYTES);
    let small: u64 = found.level.objects.values().filter(is_small).map(|object| blocks(object.size)).sum();
    let small = small.min(local.config.materialize_total_bytes_max);
    let dir = nearest(&local.settings.model_dir);
    let Ok(free) = Root::open(dir).and_then(|root| root.folder("")).and_then(folder_files::free_bytes) else { return };
    // What a program has loaded before is there already.
    let lies: u64 = found
        .level
        .objects
        .iter()
        .filter(|(_, object)| is_small(object))
        .map(|(name, _)| blocks(placed(&dir.join(&found.path).join(name))))
        .sum();
    let text = format!("{} of small objects become files, {} are free", human(small), human(free));
    if small.saturating_sub(lies) > free {
        report.bad(
            "disk",
            format!(
                "{text} on the disk of {}: make room there, choose another MODEL_DIR, or lower materializeBytes",
                dir.display()
            ),
        );
    } else {
        report.good("disk", text);
    }
}

fn placed(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).map_or(0, |lies| lies.len())
}

/// A load that is tried for a few seconds.
fn reads(
    report: &mut Report,
    local: &Local<'_>,
    (found, weights): (&ModelFolder, &[String]),
    origin: &Arc<ossc_net::Origin>,
) -> Option<()> {
    let objects = &found.level.objects;
    let first = weights.iter().filter_map(|name| objects.get(name));
    let rest = objects.iter().filter(|(name, _)| !weights.contains(name)).map(|(_, object)| object);
    let entries: Vec<ObjectEntry> =
        first.chain(rest).filter(|object| object.size > 0 && !object.needs_restore()).cloned().collect();
    if entries.is_empty() {
        report.note("read", "no object with bytes was found: nothing was read");
        return Some(());
    }
    let (reading, options) =
        (Reading::new(entries, local.config.part_bytes), connect::options(local.settings, local.config));
    let one = report.need("read", reading.run(origin, options, true, MEASURED))?;
    let many = report.need("read", reading.run(origin, options, false, MEASURED))?;
    if reading.doubt() {
        report.need("read", reading.run(origin, options, false, AGAIN))?;
    }
    report.warned();
    reading.end(|reads| {
        had(report, local, reads);
        verified(report, local, reads);
    });
    let total: u64 = weights.iter().filter_map(|name| objects.get(name)).map(|object| object.size).sum();
    speed(report, (one, many), total);
    Some(())
}

fn had(report: &mut Report, local: &Local<'_>, reads: &[Read]) {
    let (kept, failed): (Vec<&Read>, Vec<&Read>) =
        reads.iter().filter(|read| read.failed.is_some()).partition(|read| local.is_here(&read.entry));
    for error in failed.iter().take(NAMED_MAX).filter_map(|read| read.failed.as_ref()) {
        report.bad("read", error.to_string());
    }
    if failed.len() > NAMED_MAX {
        report.bad("read", format!("and {} more objects", failed.len() - NAMED_MAX));
    }
    if let Some(error) = kept.first().and_then(|read| read.failed.as_ref()) {
        report.note("read", format!("{error}; what the engine has of {} such objects is served", kept.len()));
    }
    let whole = reads.iter().filter(|read| read.crc64().is_some()).count();
    let begun = reads.iter().filter(|read| read.is_begun()).count();
    if failed.is_empty() {
        let names: Vec<String> =
            reads.iter().filter(|read| read.is_begun()).take(3).map(|read| shown(&read.entry.key)).collect();
        report.good(
            "read",
            format!(
                "{whole} of {} objects as a whole, {} from their beginning: {}, ...",
                reads.len(),
                begun - whole,
                names.join(", ")
            ),
        );
    }
}

fn verified(report: &mut Report, local: &Local<'_>, reads: &[Read]) {
    let config = local.config;
    for read in reads.iter().filter(|read| read.is_wrong()).take(NAMED_MAX) {
        let (Some(sum), Some(reported)) = (read.crc64(), read.reported) else { continue };
        let text = format!(
            "{}: its bytes have CRC-64 {sum}, and OSS reports {reported}, also when read again: upload it anew",
            shown(&read.entry.key)
        );
        if config.verify_crc && !local.is_here(&read.entry) {
            report.bad("CRC-64", text);
        } else if config.verify_crc {
            report.note("CRC-64", format!("{text}; programs have what the engine verified before"));
        } else {
            report.note("CRC-64", format!("{text}; verifyCrc is false, so programs get them"));
        }
    }
    let is_compared = |read: &&Read| read.reported.is_some() && read.crc64().is_some();
    let (matched, wrong) = reads.iter().filter(is_compared).partition::<Vec<_>, _>(|read| !read.is_wrong());
    let bare = reads.iter().find(|read| read.is_begun() && read.reported.is_none());
    match bare {
        _ if !config.verify_crc => {
            report.note("CRC-64", "verifyCrc is false: no object is compared with what OSS reports")
        }
        Some(read) => {
            report.note("CRC-64", format!("OSS reports none for {}: it cannot be verified", shown(&read.entry.key)))
        }
        None if wrong.is_empty() => {
            report.good("CRC-64", format!("{} objects compared and right; a load compares each", matched.len()))
        }
        None => {}
    }
}

fn speed(report: &mut Report, (one, many): (Speed, Speed), total: u64) {
    let rate = |speed: Speed| format!("{:.1} MB/s", speed.bytes_per_sec / 1e6);
    // A small model was there before many connections had begun.
    let best = if many.requests > 0 && many.bytes_per_sec > one.bytes_per_sec { many } else { one };
    let by_many =
        if many.requests > 0 { format!(", {} by {} at a time", rate(many), many.connections) } else { String::new() };
    report.good("speed", format!("{} by one connection{by_many}", rate(one)));
    let secs = total as f64 / best.bytes_per_sec.max(1.0);
    if total > 0 && best.bytes_per_sec > 0.0 {
        let time = if secs < 1.0 { "less than a second".into() } else { format!("about {secs:.0} s") };
        report.good("time", format!("{} of weights take {time}", human(total)));
    }
    report.measured = json!({
        "one_bytes_per_sec": one.bytes_per_sec as u64,
        "many_bytes_per_sec": many.bytes_per_sec as u64,
        "connections": many.connections,
        "weights_bytes": total,
        "load_secs": secs,
    });
}
