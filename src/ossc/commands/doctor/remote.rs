//! What `ossc doctor` sees of OSS: name, connection, keys, a listing, a ranged read with its check value, the clock.
//!
//! Called by `doctor`, last: it starts a network thread. The requests are those of a load, by the engine's own code.

use super::Report;
use crate::commands::caller::Caller;
use crate::commands::view;
use crate::credentials;
use crate::process::connect;
use ossc_conf::{Config, Scheme, Settings};
use ossc_net::list::{self, ObjectEntry};
use ossc_net::{Query, Response};
use ossc_sign::Credentials;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Bytes of the ranged read: one part of a load.
const READ_BYTES: u64 = 8 << 20;
const LIST_BYTES_MAX: usize = 8 << 20;
/// Addresses that are connected to, one after the other.
const ADDRESSES_TRIED_MAX: usize = 8;
/// OSS refuses signatures that are about 15 minutes off; a clock that is a minute off is not looked after.
const CLOCK_SECS_MAX: i64 = 60;

pub(super) fn bucket(report: &mut Report, settings: &Settings, config: &Config) {
    try_bucket(report, settings, config);
}

/// Ends with the first step that fails.
fn try_bucket(report: &mut Report, settings: &Settings, config: &Config) -> Option<()> {
    let host = settings.endpoint.connect_host(settings.location.bucket());
    let addresses = report.need("DNS", connect::addresses(settings, config))?;
    report.good("DNS", format!("{host}: {} addresses", addresses.len()));
    connects(report, &addresses, config.connect_timeout)?;
    let key = key(report, settings, config)?;
    let origin = report.need("TLS", connect::origin(settings, config, addresses, key))?;
    let mut caller = report.need("network", Caller::start(origin, connect::options(settings, config)))?;
    let (driver, why) = caller.driver();
    report.good("network", format!("{driver}: {why}"));
    if settings.endpoint.scheme() == Scheme::Http {
        report.note("TLS", "plain http, as OSS_ENDPOINT asks: right inside a VPC, readable by others elsewhere");
    }
    let largest = lists(report, &mut caller, settings)?;
    let Some(object) = largest.filter(|object| object.size > 0) else {
        report.note("read", "no object with bytes directly below OSS_PATH: nothing was read");
        return Some(());
    };
    reads(report, &mut caller, &object)
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

/// `Some(None)` is anonymous access.
fn key(report: &mut Report, settings: &Settings, config: &Config) -> Option<Option<Credentials>> {
    let limits = credentials::Limits { connect: config.connect_timeout, response: config.response_timeout };
    let issuer = credentials::issuer(settings, limits, &connect::trust(settings, config));
    let Some(issuer) = report.need("keys", issuer)? else {
        let key = credentials::lasting(settings);
        report.good("keys", if key.is_some() { "of the environment" } else { "none: anonymous access" });
        return Some(key);
    };
    let issued = report.need("keys", credentials::first(issuer.as_ref()))?;
    let left = issued.ends_secs.map(|ends| ends - now());
    report.good("keys", format!("{}{}", issuer.name(), left.map_or(String::new(), |left| format!(", {left} s left"))));
    Some(Some(issued.credentials))
}

/// The largest object of the root folder.
fn lists(report: &mut Report, caller: &mut Caller, settings: &Settings) -> Option<Option<ObjectEntry>> {
    let prefix = settings.location.prefix().to_string();
    let query = Query::List { prefix, delimiter: Some("/".into()), continuation: None };
    let (response, body) = report.need("list", caller.call(query, LIST_BYTES_MAX))?;
    let page = report.need("list", list::parse(&body))?;
    if page.objects.is_empty() && page.prefixes.is_empty() {
        let text = format!("nothing is below {}: check OSS_PATH", settings.location);
        return report.need("list", Err(text));
    }
    let more = if page.next.is_some() { " on the first page" } else { "" };
    report.good("list", format!("{} objects and {} folders{more}", page.objects.len(), page.prefixes.len()));
    clock(report, &response);
    // A link's size is its own, not that of what it leads to.
    Some(page.objects.into_iter().filter(|object| object.kind != list::Type::Symlink).max_by_key(|object| object.size))
}

fn clock(report: &mut Report, response: &Response) {
    let Some(off) = response.date.map(|date| now() - date) else { return };
    if off.abs() > CLOCK_SECS_MAX {
        report.note("clock", format!("this machine is {off} s off the server: set it, or signatures may be refused"));
    } else {
        report.good("clock", format!("{off} s off the server"));
    }
}

fn reads(report: &mut Report, caller: &mut Caller, object: &ObjectEntry) -> Option<()> {
    let end = object.size.min(READ_BYTES);
    let (key, etag, size) = (object.key.clone(), Some(object.etag.clone()), object.size);
    let begin = Instant::now();
    let read = caller.call(Query::Get { key, range: Some(0..end), etag, size }, READ_BYTES as usize);
    let (response, _) = report.need("read", read)?;
    let secs = begin.elapsed().as_secs_f64();
    let speed = end as f64 / secs / 1e6;
    report.good(
        "read",
        format!("{} of {} in {secs:.3} s, {speed:.0} MB/s on one connection", view::human(end), object.key),
    );
    match response.crc64_object {
        Some(_) => report.good("CRC-64", "OSS reports it: every object is verified"),
        None => report.note("CRC-64", format!("OSS reports none for {}: it cannot be verified", object.key)),
    }
    Some(())
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
