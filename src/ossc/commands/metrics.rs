//! `ossc metrics`: the engine's counters as Prometheus text, for a textfile collector or a sidecar.
//!
//! Called by `main`. Format: the text exposition format 0.0.4. Names have the prefix `ossc_`.

use crate::commands::output;
use crate::commands::view::{Which, objects, ready_bytes, state_label};
use clap::Args;
use ossc_cache::region::{RecordKind, Region};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// Options of `ossc metrics`.
#[derive(Args)]
#[command(
    after_help = "Exit status: 0, also where no engine answers (ossc_up is 0 then); 1 if the text cannot be written.\n\n\
    Examples:\n  ossc metrics\n  ossc metrics --textfile /var/lib/node_exporter/ossc.prom"
)]
pub struct MetricsOptions {
    #[command(flatten)]
    which: Which,
    /// Write to this file, which a reader never sees in part, instead of to standard output.
    #[arg(long, value_name = "FILE")]
    textfile: Option<PathBuf>,
}

/// Runs the command. Without an engine it says so in the metric `ossc_up`, and ends well: a collector has something
/// to alarm on.
pub fn main(options: &MetricsOptions) -> ExitCode {
    let asked = options.which.region().and_then(|region| Ok((region, options.which.report()?)));
    let text = match asked {
        Ok((region, report)) => of(&region, &report),
        Err(why) => {
            eprintln!("ossc metrics: {why}");
            Page::default().one(&UP, 0).text
        }
    };
    let Some(file) = &options.textfile else { return output::only("metrics", &text) };
    match replace(file, &text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ossc metrics: {}: {e}", file.display());
            ExitCode::FAILURE
        }
    }
}

/// Writes beside the file, then renames.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, file).inspect_err(|_| drop(std::fs::remove_file(&beside)))
}

/// One metric: name behind `ossc_`, type, help.
struct Metric(&'static str, &'static str, &'static str);

const UP: Metric = Metric("up", "gauge", "1 if an engine answers.");
const BUILD: Metric = Metric("build_info", "gauge", "Always 1; the labels say which build of the engine it is.");
const FAILURES: Metric =
    Metric("origin_failures_total", "counter", "Failed requests to OSS, by the kind of the failure.");
const OBJECTS: Metric = Metric("objects", "gauge", "Objects by state.");
const OBJECT_READY: Metric =
    Metric("object_ready_bytes", "gauge", "Bytes in memory of each object that is served from memory.");

/// Numbers of the report, by group and name there.
const OF_REPORT: &[(&str, &str, Metric)] = &[
    ("origin", "bytes", Metric("origin_bytes_total", "counter", "Body bytes received from OSS.")),
    ("origin", "requests", Metric("origin_requests_total", "counter", "Finished requests to OSS.")),
    (
        "origin",
        "retries",
        Metric("origin_retries_total", "counter", "Requests to OSS that failed and were tried again."),
    ),
    ("origin", "throttled", Metric("origin_throttled_total", "counter", "Requests that OSS answered with 429 or 503.")),
    ("origin", "hedges", Metric("hedges_total", "counter", "Requests for bytes whose first answer was slow.")),
    ("origin", "hedged_bytes", Metric("hedged_bytes_total", "counter", "Bytes that those asked for.")),
    (
        "origin",
        "refetched_bytes",
        Metric("refetched_bytes_total", "counter", "Bytes fetched again after a mismatch or a release."),
    ),
    ("origin", "mismatches", Metric("crc_mismatches_total", "counter", "Bytes that did not match their CRC-64.")),
    ("origin", "requests_under_way", Metric("origin_requests_under_way", "gauge", "Requests to OSS under way.")),
    ("origin", "waiting", Metric("waiting_requests", "gauge", "Requests that wait for a connection.")),
    ("memory", "budget_bytes", Metric("budget_bytes", "gauge", "Most bytes that may be in memory.")),
    ("memory", "used_bytes", Metric("memory_used_bytes", "gauge", "Bytes of the budget that are in use.")),
    ("memory", "peak_bytes", Metric("memory_peak_bytes", "gauge", "Most bytes of the budget that were in use.")),
    ("memory", "ready_bytes", Metric("ready_bytes", "gauge", "Bytes of large objects that are in memory.")),
];

fn of(region: &Region, report: &Value) -> String {
    let header = region.header();
    let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
    let mut page = Page { dir: String::from_utf8_lossy(region.model_dir()).into_owned(), text: String::new() };
    page = page.one(&UP, 1);
    page.head(&BUILD);
    page.line(&BUILD, &[("version", report["version"].as_str().unwrap_or_default())], 1);
    let started = Metric("start_time_seconds", "gauge", "When the engine was started, in seconds since 1970.");
    page = page.one(&started, load(&header.started_secs));
    for (group, name, metric) in OF_REPORT {
        page = page.one(metric, report[group][name].as_u64().unwrap_or(0));
    }
    let large = Metric("large_bytes", "gauge", "Bytes of all objects that are served from memory.");
    page = page.one(&large, load(&header.large_bytes));
    let lost = Metric("events_lost_total", "counter", "Accesses that the audit log has missed.");
    page = page.one(&lost, load(&region.board().events_lost));
    let clients = Metric("clients", "gauge", "Processes that use the engine.");
    page = page.one(&clients, report["clients"].as_array().map_or(0, Vec::len) as u64);
    let rest = Metric("at_rest", "gauge", "1 if nothing is on its way.");
    page = page.one(&rest, u64::from(report["at_rest"] == Value::Bool(true)));
    page.head(&FAILURES);
    for (kind, count) in report["origin"]["failures"].as_object().into_iter().flatten() {
        page.line(&FAILURES, &[("kind", kind)], count.as_u64().unwrap_or(0));
    }
    page.head(&OBJECTS);
    let mut counts = std::collections::BTreeMap::<&str, u64>::new();
    objects(region).for_each(|object| *counts.entry(state_label(region, object)).or_default() += 1);
    for (state, count) in counts {
        page.line(&OBJECTS, &[("state", state)], count);
    }
    page.head(&OBJECT_READY);
    for object in objects(region).filter(|object| object.kind() == RecordKind::Large) {
        page.line(&OBJECT_READY, &[("object", &region.name(object))], ready_bytes(region, object));
    }
    page.text
}

/// The text so far, of metrics whose first label is the MODEL_DIR; none where no engine answers.
#[derive(Default)]
struct Page {
    dir: String,
    text: String,
}

impl Page {
    fn head(&mut self, Metric(name, kind, help): &Metric) {
        let _ = write!(self.text, "# HELP ossc_{name} {help}\n# TYPE ossc_{name} {kind}\n");
    }

    fn line(&mut self, metric: &Metric, labels: &[(&str, &str)], value: u64) {
        let dir = (!self.dir.is_empty()).then_some(("model_dir", self.dir.as_str()));
        let labels: Vec<String> =
            dir.iter().chain(labels).map(|(name, value)| format!("{name}=\"{}\"", label(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "ossc_{}{labels} {value}", metric.0);
    }

    fn one(mut self, metric: &Metric, value: u64) -> Page {
        self.head(metric);
        self.line(metric, &[], value);
        self
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
        let up = Metric("up", "gauge", "Help.");
        assert_eq!(Page::default().one(&up, 1).text, "# HELP ossc_up Help.\n# TYPE ossc_up gauge\nossc_up 1\n");
        let page = Page { dir: "/m".into(), text: String::new() };
        assert!(page.one(&up, 1).text.ends_with("\nossc_up{model_dir=\"/m\"} 1\n"));
    }
}
