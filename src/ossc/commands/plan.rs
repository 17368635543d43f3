//! `ossc plan [FOLDER]`: what an engine would fetch, in which order, by how many requests, and what that takes of memory and
//! time.
//!
//! Called by `main`. It lists the bucket and asks for nothing else; it needs no engine, and changes nothing. The plan is the
//! engine's own (`process::planned`).

use crate::commands::bucket::{self, Bucket};
use crate::commands::view::human;
use crate::commands::{named, output};
use crate::mirror::listing::tree::Level;
use crate::mirror::rehearsal::ModelFolder;
use crate::process::planned::{self, Planned, Rehearsed};
use clap::Args;
use ossc_cache::region::RecordKind;
use ossc_net::error::shown;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// Nothing is there to be planned.
const NOTHING: u8 = 2;

/// Options of `ossc plan`.
#[derive(Args)]
#[command(
    after_help = "The order is that of the requests: small objects, then the first part of each file of weights, then the rest \
    of one after the other. Slow answers and retries add requests. Exit status: 0; 1 the bucket cannot be listed, or the \
    answer not be printed, or FOLDER does not lie in MODEL_DIR; 2 there is no such folder.\n\n\
    Examples:\n  ossc plan\n  ossc plan --rate 3GB/s qwen/Qwen3-8B\n  ossc plan --json | jq .totals"
)]
pub struct PlanOptions {
    /// What is mirrored, as OSS_PATH.
    #[arg(long, value_name = "oss://BUCKET/PATH/")]
    oss_path: Option<String>,
    /// How fast bytes come, to say how long it takes: `3GB/s`, `800MB/s`, `1.5GiB/s`.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<f64>,
    /// One JSON object instead of a table, with each request.
    #[arg(long)]
    json: bool,
    /// A folder below OSS_PATH; without one OSS_PATH itself, or the first folder below it that has a model.
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// Bytes a second.
fn rate(text: &str) -> Result<f64, String> {
    let text = text.trim().trim_end_matches("/s");
    let digits = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
    let (number, unit) = (text[..digits].trim(), text[digits..].trim());
    let scale = match unit {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        _ => return Err(format!("{unit} is no unit: B, kB, MB, GB, KiB, MiB or GiB a second")),
    };
    let value: f64 = number.parse().map_err(|_| format!("{number} is no number"))?;
    let bytes = value * scale;
    if bytes.is_finite() && bytes > 0.0 { Ok(bytes) } else { Err("the rate has to be above 0".into()) }
}

/// Runs the command.
pub fn main(options: &PlanOptions) -> ExitCode {
    match planned(options) {
        Ok(Some(text)) => output::only("plan", &text),
        Ok(None) => {
            output::tell("ossc plan: OSS has nothing there");
            ExitCode::from(NOTHING)
        }
        Err(why) => {
            output::tell(&format!("ossc plan: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn planned(options: &PlanOptions) -> Result<Option<String>, String> {
    let bucket = Bucket::of_environment(None, options.oss_path.as_deref())?;
    let Some((found, is_found_below)) = folder(&bucket, options)? else { return Ok(None) };
    let options_of_engine = bucket.mirror.work_options();
    let root = bucket::root(&bucket.settings.model_dir)?;
    let rehearsed = Rehearsed { settings: &bucket.settings, config: &bucket.config, options: options_of_engine, root };
    let planned = planned::plan(rehearsed, &found.path, &found.level)?;
    let rows = rows(&found.level, &planned);
    let view = View { bucket: &bucket, found: &found, planned: &planned, rows, rate: options.rate };
    Ok(Some(if options.json { output::document(&view.as_json()) } else { view.as_table(is_found_below) }))
}

/// The folder that is planned; true if it was looked for.
fn folder(bucket: &Bucket, options: &PlanOptions) -> Result<Option<(ModelFolder, bool)>, String> {
    if let Some(folder) = &options.folder {
        let path =
            named::below(&bucket.settings.model_dir, folder).map_err(|why| format!("{}: {why}", folder.display()))?;
        let level = bucket.mirror.rehearse_folder(&path).map_err(|failure| failure.to_string())?;
        return Ok(level.map(|level| (ModelFolder { path, level }, false)));
    }
    let level = bucket.mirror.rehearse_listing().map_err(|failure| failure.to_string())?;
    let found = bucket.mirror.find_model(level);
    Ok(found.map(|found| {
        let is_below = !found.path.is_empty();
        (found, is_below)
    }))
}

/// What becomes of one object.
struct Row<'a> {
    name: &'a str,
    bytes: u64,
    how: &'static str,
    requests: usize,
    ahead_bytes: u64,
}

/// In the order of their first requests, then those without.
fn rows<'a>(level: &'a Level, planned: &Planned) -> Vec<Row<'a>> {
    let mut of: BTreeMap<&str, (usize, usize, u64)> = BTreeMap::new();
    for (at, request) in planned.requests.iter().enumerate() {
        let seen = of.entry(&request.name).or_insert((at, 0, 0));
        (seen.1, seen.2) = (seen.1 + 1, seen.2 + (request.range.end - request.range.start));
    }
    let mut rows: Vec<(usize, Row<'a>)> = Vec::new();
    for (name, object) in &level.objects {
        let (first, requests, ahead_bytes) = of.get(name.as_str()).copied().unwrap_or((usize::MAX, 0, 0));
        let how = match planned.kinds.get(name) {
            _ if object.needs_restore() => "archived: programs get EACCES",
            None => "an empty file",
            Some(RecordKind::Small) => "becomes a file",
            Some(_) if ahead_bytes >= object.size => "into memory",
            Some(_) if ahead_bytes > 0 => "into memory in part: there is no room for all",
            Some(_) => "when a program reads it",
        };
        rows.push((first, Row { name, bytes: object.size, how, requests, ahead_bytes }));
    }
    rows.sort_by_key(|(first, row)| (*first, row.name));
    rows.into_iter().map(|(_, row)| row).collect()
}

struct View<'a> {
    bucket: &'a Bucket,
    found: &'a ModelFolder,
    planned: &'a Planned,
    rows: Vec<Row<'a>>,
    rate: Option<f64>,
}

impl View<'_> {
    fn bytes(&self) -> u64 {
        self.planned.requests.iter().map(|request| request.range.end - request.range.start).sum()
    }

    /// What programs find only when they read it, in bytes.
    fn left_bytes(&self) -> u64 {
        let is_left = |row: &&Row<'_>| !row.how.starts_with("archived");
        self.rows.iter().filter(is_left).map(|row| row.bytes - row.ahead_bytes).sum()
    }

    fn seconds(&self) -> Option<f64> {
        self.rate.map(|rate| self.bytes() as f64 / rate)
    }

    fn as_json(&self) -> Value {
        let objects: Vec<Value> = self
            .rows
            .iter()
            .map(|row| json!({"name": row.name, "bytes": row.bytes, "how": row.how, "requests": row.requests, "ahead_bytes": row.ahead_bytes}))
            .collect();
        let request =
            |one: &planned::PlannedRequest| json!({"name": one.name, "start": one.range.start, "end": one.range.end});
        let requests: Vec<Value> = self.planned.requests.iter().map(request).collect();
        json!({
            "oss_path": self.bucket.settings.location.to_string(),
            "folder": self.found.path,
            "folders": self.found.level.folders,
            "objects": objects,
            "requests": requests,
            "totals": {
                "bytes": self.bytes(),
                "left_bytes": self.left_bytes(),
                "requests": self.planned.requests.len(),
                "memory_bytes": self.planned.memory_bytes,
                "budget_bytes": self.planned.budget_bytes,
                "seconds": self.seconds(),
            },
        })
    }

    fn as_table(&self, is_found_below: bool) -> String {
        let mut text = String::new();
        let location = self.bucket.settings.location.to_string();
        if is_found_below {
            text += &format!(
                "{location} is no model's folder: at the start nothing is fetched ahead. This is {}/, once a program opens its configuration.\n",
                shown(&self.found.path)
            );
        }
        text += &format!("{:>9}  {:>8}  {:<24}  NAME\n", "SIZE", "REQUESTS", "WHAT COMES OF IT");
        for row in &self.rows {
            text += &format!("{:>9}  {:>8}  {:<24}  {}\n", human(row.bytes), row.requests, row.how, shown(row.name));
        }
        for folder in &self.found.level.folders {
            text += &format!("{:>9}  {:>8}  {:<24}  {}/\n", "-", "-", "when a program uses it", shown(folder));
        }
        let memory = (human(self.planned.memory_bytes), human(self.planned.budget_bytes));
        text += &format!("ahead of programs: {} in {} requests", human(self.bytes()), self.planned.requests.len());
        text += &format!("; {} of the {} that the engine may take of memory\n", memory.0, memory.1);
        if self.left_bytes() > 0 {
            text += &format!("left until a program reads it: {}\n", human(self.left_bytes()));
        }
        if let (Some(secs), Some(rate)) = (self.seconds(), self.rate) {
            text += &format!("at {:.3} GB/s: {secs:.1} s\n", rate / 1e9);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units() {
        for (text, bytes) in
            [("3GB/s", 3e9), ("800 MB/s", 8e8), ("1.5GiB", 1.5 * 1_073_741_824.0), ("1e6", f64::NAN), ("1000", 1e3)]
        {
            match rate(text) {
                Ok(found) => assert!((found - bytes).abs() < 1.0, "{text}: {found}"),
                Err(why) => assert!(bytes.is_nan(), "{text}: {why}"),
            }
        }
        for text in ["", "0", "-1GB/s", "3 apples", "GB/s", "inf"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
