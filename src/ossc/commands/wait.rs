//! `ossc wait`: returns when an engine serves a MODEL_DIR, or when all that it was to load is there: for probes and
//! scripts.
//!
//! Called by `main`. It looks five times a second, changes nothing, and keeps no engine alive.

use crate::commands::arrival::{Arrival, Quiet};
use crate::commands::output;
use crate::commands::view::Which;
use clap::Args;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(200);
/// Nothing to wait for is there: the status of a wait that took too long.
const LATE: u8 = 3;
/// Readers of something get an error: to wait longer is of no use to them.
const FAILED: u8 = 2;

/// Options of `ossc wait`.
#[derive(Args)]
#[command(
    after_help = "Exit status: 0 there; 2 with `--ready` an object has failed, or a folder that a program wanted \
    could not be listed (each with its reason on stderr); 3 not there in time.\n\n\
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
            Ok(_) if !options.ready => return ExitCode::SUCCESS,
            Ok(report) => match Arrival::of(&report) {
                Arrival::Here if is_last || quiet.lasts(&report) => return ExitCode::SUCCESS,
                Arrival::Here => "a program may open more".into(),
                Arrival::Failed(lines) => {
                    lines.iter().for_each(|line| output::tell(&format!("ossc wait: {line}")));
                    return ExitCode::from(FAILED);
                }
                Arrival::Coming(text) => text,
            },
            Err(why) => why,
        };
        if is_last {
            output::tell(&format!("ossc wait: not there after {:.1} s: {why}", begin.elapsed().as_secs_f64()));
            return ExitCode::from(LATE);
        }
        std::thread::sleep(PAUSE);
    }
}
