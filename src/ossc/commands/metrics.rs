//! `ossc metrics`: the engine's counters as Prometheus text, for a textfile collector or a sidecar.
//!
//! Called by `main`. Format: the text exposition format 0.0.4. Names have the prefix `ossc_`.

use crate::commands::output;
use crate::commands::view::{Which, objects, ready_bytes, state_label};
use clap::Args;
use ossc_cache::region::{RecordKind, Region};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

#[derive(Args)]
pub struct MetricsOptions {
    #[command(flatten)]
    which: Which,
}

/// Runs the command. Without an engine it says so in the metric `ossc_up`, and ends well: a collector has something
/// to alarm on.
pub fn main(options: &MetricsOptions) -> ExitCode {
    let text = match options.which.region() {
        Ok(region) => of(&region),
        Err(why) => {
            eprintln!("ossc metrics: {why}");
            one("up", "gauge", "1 if an engine answers.", 0)
        }
    };
    output::only("metrics", &text)
}

fn of(region: &Region) -> String {
    let header = region.header();
    let load = |word: &std::sync::atomic::AtomicU64| word.load(Ordering::Relaxed);
    let mut text = one("up", "gauge", "1 if an engine answers.", 1);
    for (name, kind, help, value) in [
        (
            "start_time_seconds",
            "gauge",
            "When the engine was started, in seconds since 1970.",
            load(&header.started_secs),
        ),
        ("origin_bytes_total", "counter", "Body bytes received from OSS.", load(&header.origin_bytes)),
        ("origin_requests_total", "counter", "Finished requests to OSS.", load(&header.origin_requests)),
        (
            "origin_retries_total",
            "counter",
            "Requests to OSS that failed and were tried again.",
            load(&header.origin_retries),
        ),
        ("large_bytes", "gauge", "Bytes of all objects that are served from memory.", load(&header.large_bytes)),
        ("ready_bytes", "gauge", "Bytes of them that are in memory.", load(&header.ready_bytes)),
        ("budget_bytes", "gauge", "Most bytes that may be in memory.", load(&header.budget_bytes)),
        ("events_lost_total", "counter", "Accesses that the audit log has missed.", load(&header.events_lost)),
    ] {
        text += &one(name, kind, help, value);
    }
    text += &head("objects", "gauge", "Objects by state.");
    let mut counts = std::collections::BTreeMap::<&str, u64>::new();
    objects(region).for_each(|object| *counts.entry(state_label(region, object)).or_default() += 1);
    for (state, count) in counts {
        let _ = writeln!(text, "ossc_objects{{state=\"{state}\"}} {count}");
    }
    text += &head("object_ready_bytes", "gauge", "Bytes in memory of each object that is served from memory.");
    for object in objects(region).filter(|object| object.kind() == RecordKind::Large) {
        let (name, ready) = (label(&region.name(object)), ready_bytes(region, object));
        let _ = writeln!(text, "ossc_object_ready_bytes{{object=\"{name}\"}} {ready}");
    }
    text
}

fn head(name: &str, kind: &str, help: &str) -> String {
    format!("# HELP ossc_{name} {help}\n# TYPE ossc_{name} {kind}\n")
}

fn one(name: &str, kind: &str, help: &str, value: u64) -> String {
    format!("{}ossc_{name} {value}\n", head(name, kind, help))
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
        assert_eq!(one("up", "gauge", "Help.", 1), "# HELP ossc_up Help.\n# TYPE ossc_up gauge\nossc_up 1\n");
    }
}
