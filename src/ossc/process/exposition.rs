//! What an engine says of itself as Prometheus text (text exposition format 0.0.4).
//!
//! Called by `ossc metrics` and by the engine's own listener. Names have the prefix `ossc_`. It changes nothing, and no
//! secret is in it.

use crate::process::records::{objects, ready_bytes, state_label};
use ossc_cache::region::{Object, RecordKind, Region};
use ossc_cache::waits::LIMITS_US;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One metric: name behind `ossc_`, type, help.
pub struct Metric(pub &'static str, pub &'static str, pub &'static str);

const UP: Metric = Metric("up", "gauge", "1 if an engine answers.");
const BUILD: Metric = Metric("build_info", "gauge", "Always 1; the labels say which build of the engine it is.");
const WAITS: Metric =
    Metric("reader_wait_seconds", "histogram", "Waits of programs for bytes, for their check or for a small object.");
const FAILURES: Metric =
    Metric("origin_failures_total", "counter", "Failed requests to OSS, by the kind of the failure.");
const CREDENTIALS_END: Metric = Metric(
    "credentials_expiry_timestamp_seconds",
    "gauge",
    "When the credentials in use end, in seconds since 1970; absent if they have no known end.",
);
const OBJECTS: Metric = Metric("objects", "gauge", "Objects by state.");
/// Of each object.
pub const OBJECT_READY: Metric =
    Metric("object_ready_bytes", "gauge", "Bytes in memory of each object that is served from memory.");

/// Numbers of the report, by their place there.
const OF_REPORT: &[(&str, Metric)] = &[
    ("/started", Metric("start_time_seconds", "gauge", "When the engine was started, in seconds since 1970.")),
    ("/origin/bytes", Metric("origin_bytes_total", "counter", "Body bytes received from OSS.")),
    ("/origin/requests", Metric("origin_requests_total", "counter", "Finished requests to OSS.")),
    ("/origin/retries", Metric("origin_retries_total", "counter", "Requests to OSS that failed and were tried again.")),
    ("/origin/throttled", Metric("origin_throttled_total", "counter", "Requests that OSS answered with 429 or 503.")),
    ("/origin/hedges", Metric("hedges_total", "counter", "Requests for bytes whose first answer was slow.")),
    ("/origin/hedged_bytes", Metric("hedged_bytes_total", "counter", "Bytes that those asked for.")),
    (
        "/origin/refetched_bytes",
        Metric("refetched_bytes_total", "counter", "Bytes fetched again after a mismatch or a release."),
    ),
    ("/origin/mismatches", Metric("crc_mismatches_total", "counter", "Bytes that did not match their CRC-64.")),
    ("/origin/requests_under_way", Metric("origin_requests_under_way", "gauge", "Requests to OSS under way.")),
    ("/origin/waiting", Metric("waiting_requests", "gauge", "Requests that wait for a connection.")),
    ("/programs/opens", Metric("opens_total", "counter", "First opens of large objects, each by one process.")),
    ("/programs/opened_bytes", Metric("opened_bytes_total", "counter", "Sizes of the objects of those opens.")),
    (
        "/programs/hit_bytes",
        Metric("memory_hit_bytes_total", "counter", "Bytes of those objects that were in memory at the open."),
    ),
    ("/memory/budget_bytes", Metric("budget_bytes", "gauge", "Most bytes that may be in memory.")),
    ("/memory/used_bytes", Metric("memory_used_bytes", "gauge", "Bytes of the budget that are in use.")),
    ("/memory/peak_bytes", Metric("memory_peak_bytes", "gauge", "Most bytes of the budget that were in use.")),
    ("/memory/ready_bytes", Metric("ready_bytes", "gauge", "Bytes of large objects that are in memory.")),
    ("/memory/large_bytes", Metric("large_bytes", "gauge", "Bytes of all objects that are served from memory.")),
    ("/events_lost", Metric("events_lost_total", "counter", "Accesses that the audit log has missed.")),
    ("/lines_lost", Metric("log_lines_lost_total", "counter", "Lines of log and audit that could not be written.")),
    ("/programs/clients", Metric("clients", "gauge", "Processes that use the engine.")),
    (
        "/folders_not_listed",
        Metric("folders_not_listed", "gauge", "Folders that could not be listed when that was tried last."),
    ),
    ("/at_rest", Metric("at_rest", "gauge", "1 if nothing is on its way.")),
];

/// All of them, in the order of the manual.
#[cfg(test)]
pub fn all() -> impl Iterator<Item = &'static Metric> {
    let of_report = OF_REPORT.iter().map(|(_, metric)| metric);
    [&UP, &BUILD].into_iter().chain(of_report).chain([&WAITS, &FAILURES, &CREDENTIALS_END, &OBJECTS, &OBJECT_READY])
}

/// The page where no engine answers.
pub fn of_none(model_dir: &str) -> String {
    Page::new(model_dir).one(&UP, 0).text
}

/// The page of the engine whose region and report these are.
pub fn of(region: &Region, report: &Value) -> String {
    let mut page = Page::new(&String::from_utf8_lossy(region.model_dir())).one(&UP, 1);
    page.head(&BUILD);
    page.line(BUILD.0, &[("version", report["version"].as_str().unwrap_or_default())], 1);
    for (place, metric) in OF_REPORT {
        let value = report.pointer(place).unwrap_or(&Value::Null);
        page = page.one(metric, value.as_bool().map_or_else(|| value.as_u64().unwrap_or(0), u64::from));
    }
    page.waits(region.board().waits.read());
    page.head(&FAILURES);
    for (kind, count) in report["origin"]["failures"].as_object().into_iter().flatten() {
        page.line(FAILURES.0, &[("kind", kind)], count.as_u64().unwrap_or(0));
    }
    page.head(&CREDENTIALS_END);
    if let Some(end) = report["credentials_end"].as_u64() {
        page.line(CREDENTIALS_END.0, &[], end);
    }
    page.head(&OBJECTS);
    let mut counts = BTreeMap::<&str, u64>::new();
    objects(region).for_each(|object| *counts.entry(state_label(region, object)).or_default() += 1);
    for (state, count) in counts {
        page.line(OBJECTS.0, &[("state", state)], count);
    }
    page.head(&OBJECT_READY);
    for (name, bytes) in ready_by_name(region) {
        page.line(OBJECT_READY.0, &[("object", &name)], bytes);
    }
    page.text
}

/// Bytes in memory of each large object by its name. An old version that a program still has, has the name of the new one:
/// that one counts where there is one.
fn ready_by_name(region: &Region) -> BTreeMap<String, u64> {
    let large = objects(region).filter(|object| object.kind() == RecordKind::Large);
    let (old, new): (Vec<&Object>, Vec<&Object>) = large.partition(|object| object.is_superseded());
    old.into_iter().chain(new).map(|object| (region.name(object).to_string(), ready_bytes(region, object))).collect()
}

/// The text so far, of metrics whose first label is the MODEL_DIR.
pub struct Page {
    dir: String,
    text: String,
}

impl Page {
    /// Without a line.
    pub fn new(model_dir: &str) -> Page {
        Page { dir: label(model_dir), text: String::new() }
    }

    /// The lines that say what a metric is.
    pub fn head(&mut self, Metric(name, kind, help): &Metric) {
        let _ = write!(self.text, "# HELP ossc_{name} {help}\n# TYPE ossc_{name} {kind}\n");
    }

    /// A sample; a label's value may be any text.
    pub fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let _ = write!(self.text, "ossc_{name}{{model_dir=\"{}\"", self.dir);
        for (name, value) in labels {
            let _ = write!(self.text, ",{name}=\"{}\"", label(value));
        }
        let _ = writeln!(self.text, "}} {value}");
    }

    /// What is written so far.
    #[cfg(any(test, fuzzing))]
    pub fn text(&self) -> &str {
        &self.text
    }

    fn one(mut self, metric: &Metric, value: u64) -> Page {
        self.head(metric);
        self.line(metric.0, &[], value);
        self
    }

    fn waits(&mut self, (classes, sum_us): ([u64; LIMITS_US.len() + 1], u64)) {
        self.head(&WAITS);
        let (bucket, mut count) = (format!("{}_bucket", WAITS.0), 0u64);
        for (class, limit) in classes.into_iter().zip(LIMITS_US.map(Some).into_iter().chain([None])) {
            count = count.saturating_add(class);
            let limit = limit.map_or("+Inf".into(), |us| (us as f64 / 1e6).to_string());
            self.line(&bucket, &[("le", &limit)], count);
        }
        self.line(&format!("{}_sum", WAITS.0), &[], sum_us as f64 / 1e6);
        self.line(&format!("{}_count", WAITS.0), &[], count);
    }
}

/// A label's value, escaped as the format asks.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(label("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }

    #[test]
    fn a_metric_has_help_type_and_value() {
        let text = "# HELP ossc_up 1 if an engine answers.\n# TYPE ossc_up gauge\nossc_up{model_dir=\"/m\"} 0\n";
        assert_eq!(of_none("/m"), text);
    }

    #[test]
    fn classes_of_a_histogram_add_up() {
        let mut page = Page::new("/m");
        page.waits(([1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4], 2_500_000));
        let values: Vec<&str> = page.text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(values[0], "ossc_reader_wait_seconds_bucket{model_dir=\"/m\",le=\"0.001\"} 1");
        assert_eq!(values[5], "ossc_reader_wait_seconds_bucket{model_dir=\"/m\",le=\"1\"} 3");
        assert_eq!(values[10], "ossc_reader_wait_seconds_bucket{model_dir=\"/m\",le=\"+Inf\"} 7");
        assert_eq!(values[11], "ossc_reader_wait_seconds_sum{model_dir=\"/m\"} 2.5");
        assert_eq!(values[12], "ossc_reader_wait_seconds_count{model_dir=\"/m\"} 7");
    }

    #[test]
    fn names_and_types_are_those_of_promtools_lint() {
        let names: Vec<&str> = all().map(|metric| metric.0).collect();
        assert!((0..names.len()).all(|at| !names[..at].contains(&names[at])), "{names:?}");
        for Metric(name, kind, help) in all() {
            assert_eq!(name.ends_with("_total"), *kind == "counter", "{name}");
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        }
    }
}
