//! `ossc ps`: the engines of this node: which folder each serves, how much of it is here, what it takes, who uses it.
//!
//! Called by `main`. It changes nothing.

use crate::commands::arrival::is_at_rest;
use crate::commands::engines::{self, EngineFound};
use crate::commands::output;
use crate::commands::view::{failures, human};
use clap::Args;
use ossc_net::error::shown;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Options of `ossc ps`.
#[derive(Args)]
#[command(after_help = "Exit status: 0, also where no engine runs; 1 if the answer cannot be printed.\n\n\
    Examples:\n  ossc ps\n  ossc ps --json | jq -r '.[].model_dir'")]
pub struct PsOptions {
    /// One JSON array instead of a table: of each engine the pid, and its report or why there is none.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn main(options: &PsOptions) -> ExitCode {
    let found = engines::all();
    let text = if options.json { output::document(&as_json(&found)) } else { as_table(&found) };
    output::only("ps", &text)
}

fn as_json(found: &[EngineFound]) -> Value {
    let one = |engine: &EngineFound| match &engine.report {
        Ok(report) => report.clone(),
        Err(why) => json!({"pid": engine.pid, "error": why}),
    };
    found.iter().map(one).collect()
}

fn as_table(found: &[EngineFound]) -> String {
    if found.is_empty() {
        return "no engine runs on this node\n".into();
    }
    let mut rows = vec![["PID", "MODEL_DIR", "OSS_PATH", "IN MEMORY", "OF", "CLIENTS", "STATE"].map(String::from)];
    for engine in found {
        let pid = engine.pid.to_string();
        rows.push(match &engine.report {
            Ok(report) => row(pid, report),
            Err(why) => {
                let dash = || "-".to_string();
                [pid, dash(), dash(), dash(), dash(), dash(), why.clone()]
            }
        });
    }
    let width = |column: usize| rows.iter().map(|row| shown(&row[column]).chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{:<width$}", shown(cell)));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn row(pid: String, report: &Value) -> [String; 7] {
    let text = |name: &str| report[name].as_str().unwrap_or_default().to_string();
    let bytes = |name: &str| human(report["memory"][name].as_u64().unwrap_or(0));
    let clients = report["clients"].as_array().map_or(0, Vec::len);
    let failed = failures(report).len();
    let state = match is_at_rest(report) {
        _ if failed > 0 => format!("{failed} failed"),
        true => "at rest".into(),
        false => "loading".into(),
    };
    let (here, most) = (bytes("used_bytes"), bytes("budget_bytes"));
    [pid, text("model_dir"), text("oss_path"), here, most, clients.to_string(), state]
}
