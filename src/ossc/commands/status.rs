//! `ossc status`: what the engine of a MODEL_DIR has loaded and is loading, what failed and why, once, as a table or as
//! JSON.
//!
//! Called by `main`. It changes nothing.

use crate::commands::output;
use crate::commands::view::{Which, failures, human, not_renewed, objects, ready_bytes, state_label};
use clap::Args;
use ossc_cache::region::{RecordKind, Region, state};
use ossc_net::error::shown;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

/// An object has failed, or a folder could not be listed.
const FAILED: u8 = 2;

#[derive(Args)]
#[command(
    after_help = "Exit status: 0; 1 no engine answers; 2 an object has failed, or a folder could not be listed (the reason is shown).\n\n\
    Examples:\n  ossc status --model-dir /models/qwen\n  ossc status --json | jq .report.origin"
)]
pub struct StatusOptions {
    #[command(flatten)]
    which: Which,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn main(options: &StatusOptions) -> ExitCode {
    let asked = options.which.region().and_then(|region| Ok((region, options.which.report()?)));
    let (region, report) = match asked {
        Ok(answer) => answer,
        Err(why) => {
            output::tell(&format!("ossc status: {why}"));
            return ExitCode::FAILURE;
        }
    };
    let text = if options.json { output::document(&as_json(&region, &report)) } else { as_table(&region, &report) };
    let printed = output::only("status", &text);
    let is_failed = !failures(&report).is_empty() || !not_renewed(&report).is_empty();
    if printed == ExitCode::SUCCESS && is_failed { ExitCode::from(FAILED) } else { printed }
}

fn as_json(region: &Region, report: &Value) -> Value {
    let header = region.header();
    let list: Vec<_> = objects(region)
        .map(|object| json!({"name": *region.name(object), "bytes": object.size(), "ready_bytes": ready_bytes(region, object), "state": state_label(region, object), "verified": object.verified(), "superseded": object.is_superseded(), "etag": *object.etag()}))
        .collect();
    json!({
        "engine_pid": header.engine_pid.load(Ordering::Acquire),
        "model_dir": String::from_utf8_lossy(region.model_dir()),
        "started": header.started_secs.load(Ordering::Acquire),
        "origin_bytes": header.origin_bytes.load(Ordering::Relaxed),
        "origin_requests": header.origin_requests.load(Ordering::Relaxed),
        "origin_retries": header.origin_retries.load(Ordering::Relaxed),
        "large_bytes": header.large_bytes.load(Ordering::Relaxed),
        "ready_bytes": header.ready_bytes.load(Ordering::Relaxed),
        "budget_bytes": header.budget_bytes.load(Ordering::Relaxed),
        "objects": list,
        "report": report,
    })
}

fn as_table(region: &Region, report: &Value) -> String {
    let header = region.header();
    let mut text = format!(
        "engine {} for {}: {} of {}\n",
        header.engine_pid.load(Ordering::Acquire),
        shown(&String::from_utf8_lossy(region.model_dir())),
        shown(report["oss_path"].as_str().unwrap_or_default()),
        report["endpoint"].as_str().unwrap_or_default()
    );
    let small = objects(region).filter(|object| object.kind() == RecordKind::Small && !object.is_in_the_way());
    let (count, bytes) = small.fold((0, 0), |(count, bytes), object| (count + 1, bytes + object.size()));
    for object in objects(region).filter(|object| object.kind() == RecordKind::Large || object.state() == state::FAILED)
    {
        let ready = ready_bytes(region, object);
        let share = if object.size() == 0 { 100.0 } else { ready as f64 * 100.0 / object.size() as f64 };
        text += &format!(
            "{share:5.1} %  {:>9}  {:<10}  {}{}\n",
            human(object.size()),
            state_label(region, object),
            shown(&region.name(object)),
            if object.is_superseded() { "  (an older version, which a program has)" } else { "" }
        );
    }
    failures(report).into_iter().chain(not_renewed(report)).for_each(|line| text += &format!("{line}\n"));
    let number = |group: &str, name: &str| report[group][name].as_u64().unwrap_or(0);
    let (origin, memory) = (|name: &str| number("origin", name), |name: &str| human(number("memory", name)));
    match report["lines_lost"].as_u64() {
        Some(lost) if lost > 0 => {
            text += &format!("{lost} lines of log and audit were lost: the disk is full, or a pipe is not read\n");
        }
        _ => {}
    }
    text + &format!(
        "{count} small objects of {} are files\n\
         from the origin: {} in {} requests, {} retries, {} throttled, {} hedges of {}\n\
         memory: {} of {}, at most {}; {} clients; {}\n",
        human(bytes),
        human(origin("bytes")),
        origin("requests"),
        origin("retries"),
        origin("throttled"),
        origin("hedges"),
        human(origin("hedged_bytes")),
        memory("used_bytes"),
        memory("budget_bytes"),
        memory("peak_bytes"),
        report["clients"].as_array().map_or(0, Vec::len),
        if report["at_rest"] == Value::Bool(true) { "at rest" } else { "loading" },
    )
}
