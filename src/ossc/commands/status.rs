//! `ossc status`: what the engine of a MODEL_DIR has loaded and is loading, once, as a table or as JSON.
//!
//! Called by `main`. It changes nothing.

use crate::commands::output;
use crate::commands::view::{self, Which, human, objects, ready_bytes, state_label};
use clap::Args;
use ossc_cache::region::{RecordKind, Region, state};
use serde_json::json;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

#[derive(Args)]
pub struct StatusOptions {
    #[command(flatten)]
    which: Which,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn main(options: &StatusOptions) -> ExitCode {
    let region = match options.which.region() {
        Ok(region) => region,
        Err(why) => {
            eprintln!("ossc status: {why}");
            return ExitCode::FAILURE;
        }
    };
    let text = if options.json { format!("{}\n", as_json(&region)) } else { as_table(&region) };
    output::only("status", &text)
}

fn as_json(region: &Region) -> serde_json::Value {
    let header = region.header();
    let list: Vec<_> = objects(region)
        .map(|object| json!({"name": *region.name(object), "bytes": object.size(), "ready_bytes": ready_bytes(region, object), "state": state_label(region, object), "verified": object.verified(), "etag": *object.etag()}))
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
    })
}

fn as_table(region: &Region) -> String {
    let header = region.header();
    let mut text = format!(
        "engine {} for {}\n",
        header.engine_pid.load(Ordering::Acquire),
        String::from_utf8_lossy(region.model_dir())
    );
    let small = objects(region).filter(|object| object.kind() == RecordKind::Small && !object.is_in_the_way());
    let (count, bytes) = small.fold((0, 0), |(count, bytes), object| (count + 1, bytes + object.size()));
    for object in objects(region).filter(|object| object.kind() == RecordKind::Large || object.state() == state::FAILED)
    {
        let ready = ready_bytes(region, object);
        let share = if object.size() == 0 { 100.0 } else { ready as f64 * 100.0 / object.size() as f64 };
        text += &format!(
            "{share:5.1} %  {:>9}  {:<10}  {}\n",
            human(object.size()),
            view::state_label(region, object),
            region.name(object)
        );
    }
    text + &format!(
        "{count} small objects of {} are files\nfrom the origin: {} in {} requests, {} retries\n",
        human(bytes),
        human(header.origin_bytes.load(Ordering::Relaxed)),
        header.origin_requests.load(Ordering::Relaxed),
        header.origin_retries.load(Ordering::Relaxed)
    )
}
