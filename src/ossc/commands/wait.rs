//! `ossc wait`: returns when an engine serves a MODEL_DIR, or when all that it was to load is there: for probes and
//! scripts.
//!
//! Called by `main`. It looks five times a second, changes nothing, and keeps no engine alive.

use crate::commands::view::{Which, human};
use clap::Args;
use serde_json::Value;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(200);
/// How long nothing is to happen before all is said to be there.
const QUIET: Duration = Duration::from_secs(2);
/// Nothing to wait for is there: the status of a wait that took too long.
const LATE: u8 = 3;
/// An object has failed: to wait longer is of no use to its readers.
const FAILED: u8 = 2;

/// Options of `ossc wait`.
#[derive(Args)]
#[command(
    after_help = "Exit status: 0 there; 2 an object has failed (each with its reason on stderr); 3 not there in time.\n\n\
    Examples:\n  ossc wait --model-dir /models/qwen --timeout 60\n  \
    ossc wait --ready --timeout 0        # a readiness probe: answers at once"
)]
pub struct WaitOptions {
    #[command(flatten)]
    which: Which,
    /// Wait until a program has opened a large object and nothing is on its way any more: what was to be fetched ahead,
    /// and what programs have opened, is here, and has been for two seconds (with `--timeout 0`: is here now).
    #[arg(long)]
    ready: bool,
    /// Seconds to wait at most; 0 looks once. Without it the wait has no end.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
}

/// Runs the command.
pub fn main(options: &WaitOptions) -> ExitCode {
    let limit = options.timeout.and_then(|secs| Duration::try_from_secs_f64(secs.max(0.0)).ok());
    let begin = Instant::now();
    let mut quiet = Quiet::default();
    loop {
        let is_last = limit.is_some_and(|limit| begin.elapsed() >= limit);
        let why = match options.which.report() {
            Ok(report) => match not_there(&report, options.ready) {
                None if !options.ready || is_last || quiet.lasts(&report) => return ExitCode::SUCCESS,
                None => "a program may open more".into(),
                Some(Missing::Failed(text)) => {
                    eprintln!("ossc wait: {text}");
                    return ExitCode::from(FAILED);
                }
                Some(Missing::Coming(text)) => text,
            },
            Err(why) => why,
        };
        if is_last {
            eprintln!("ossc wait: not there after {:.1} s: {why}", begin.elapsed().as_secs_f64());
            return ExitCode::from(LATE);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Since when nothing has been opened and nothing has come: programs open one file after the other.
#[derive(Default)]
struct Quiet(Option<(Instant, [Option<u64>; 2])>);

impl Quiet {
    fn lasts(&mut self, report: &Value) -> bool {
        let now = [report["programs"]["opens"].as_u64(), report["origin"]["bytes"].as_u64()];
        match self.0 {
            Some((since, before)) if before == now => since.elapsed() >= QUIET,
            _ => {
                self.0 = Some((Instant::now(), now));
                false
            }
        }
    }
}

enum Missing {
    Coming(String),
    Failed(String),
}

fn not_there(report: &Value, ready: bool) -> Option<Missing> {
    if !ready {
        return None;
    }
    let failed = report["failed"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !failed.is_empty() {
        let reason = |one: &Value| {
            let name = one["name"].as_str().unwrap_or_default();
            format!("{name}: {}", one["reason"].as_str().unwrap_or("see the log"))
        };
        return Some(Missing::Failed(failed.iter().map(reason).collect::<Vec<_>>().join("; ")));
    }
    let number = |name: &str| report["memory"][name].as_u64().unwrap_or(0);
    if report["at_rest"] == Value::Bool(true) {
        // A program that is still starting has asked for nothing, and nothing is not the model.
        let is_unused = report["programs"]["opens"].as_u64() == Some(0) && number("ready_bytes") == 0;
        if is_unused && number("large_bytes") > 0 {
            return Some(Missing::Coming("no program has opened a large object yet".into()));
        }
        return None;
    }
    Some(Missing::Coming(format!("{} are in memory, and more is on its way", human(number("ready_bytes")))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_missing_has_a_word() {
        let busy = json!({"at_rest": false, "failed": [], "memory": {"ready_bytes": 2048}});
        assert!(not_there(&busy, false).is_none());
        assert!(matches!(not_there(&busy, true), Some(Missing::Coming(text)) if text.starts_with("2.0 KiB are")));
        let rest = |opens: u32, ready: u32, large: u32| {
            json!({"at_rest": true, "failed": [], "programs": {"opens": opens},
                "memory": {"ready_bytes": ready, "large_bytes": large}})
        };
        // Loaded; released since; taken over; nothing but small objects.
        for (opens, ready, large) in [(1, 9, 9), (1, 0, 9), (0, 9, 9), (0, 0, 0)] {
            assert!(not_there(&rest(opens, ready, large), true).is_none());
        }
        assert!(
            matches!(not_there(&rest(0, 0, 9), true), Some(Missing::Coming(text)) if text.starts_with("no program"))
        );
        let failed = json!({"at_rest": true, "failed": [{"name": "w", "reason": "gone"}]});
        assert!(matches!(not_there(&failed, true), Some(Missing::Failed(text)) if text == "w: gone"));
    }
}
