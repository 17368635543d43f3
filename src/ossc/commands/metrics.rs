//! `ossc metrics`: the engine's counters as Prometheus text, for a textfile collector or a sidecar, and the manual's page of
//! them.
//!
//! Called by `main`. What it prints is `process::exposition`'s.

use crate::commands::output;
use crate::commands::view::Which;
use crate::process::exposition;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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
        Ok((region, report)) => exposition::of(&region, &report),
        Err(why) => {
            output::tell(&format!("ossc metrics: {why}"));
            let dir = &options.which.model_dir;
            exposition::of_none(&dir.canonicalize().as_ref().unwrap_or(dir).to_string_lossy())
        }
    };
    let Some(file) = &options.textfile else { return output::only("metrics", &text) };
    match replace(file, &text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            output::tell(&format!("ossc metrics: {}: {e}", file.display()));
            ExitCode::FAILURE
        }
    }
}

/// Writes beside the file, then renames.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let replaced = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, file));
    replaced.inspect_err(|_| drop(std::fs::remove_file(&beside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTRO: &str = "\
# Metrics

<!-- Made from the table in src/ossc/process/exposition.rs. Do not edit: run `OSSC_BLESS=1 cargo test --locked --profile fast -p ossc`. -->

There are two ways to the same text (Prometheus text exposition format 0.0.4):

- **A scrape.** With `metricsListen` in the configuration the engine itself answers GET /metrics. A port alone is one of
  127.0.0.1; with an address, every client that reaches it may read. Readers never wait for it: it answers from a thread of its own,
  has at most 16 connections of at most 10 s each, and makes at most one page a second. No engine, no answer: alarm on `up`.
- **A command.** `ossc metrics`, with MODEL_DIR set, asks a running engine, and keeps none alive. Without one `ossc_up` is 0,
  and the command ends well.

```sh
ossc metrics                                                    # on stdout
ossc metrics --textfile /var/lib/node_exporter/ossc.prom        # for the textfile collector of node_exporter
```

The file is replaced as a whole: a collector never sees a part of it. Run the command by a timer, once for each MODEL_DIR
and file.

Every metric has the label `model_dir`. Further labels: `kind` of failures (the kinds of
[ERRORS.md](ERRORS.md#kinds-of-failures)), `state` of objects, `object` of the bytes of each, `version` of the build, `le` of
the classes of waits. Counters begin with the engine.

| Metric | Type | Meaning |
| --- | --- | --- |
";

    const OUTRO: &str = "
The speed of a load is `rate(ossc_origin_bytes_total[1m])`. What was fetched twice is `ossc_hedged_bytes_total` and
`ossc_refetched_bytes_total`. A read that finds its bytes is no wait: it is counted nowhere, and costs nothing. How well memory
serves programs is `ossc_memory_hit_bytes_total / ossc_opened_bytes_total`: 1 where all that is opened is here already.

Alert rules and a dashboard for Grafana: [monitoring](../dist/monitoring/README.md). What each alert asks you to do:
[TROUBLESHOOTING.md](TROUBLESHOOTING.md#an-alert-fires).
";

    /// The text of docs/METRICS.md.
    fn markdown() -> String {
        let row = |exposition::Metric(name, kind, help): &exposition::Metric| {
            format!("| `ossc_{name}` | {kind} | {help} |\n")
        };
        [INTRO, &exposition::all().map(row).collect::<String>(), OUTRO].concat()
    }

    #[test]
    fn the_manual_is_fresh() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/METRICS.md");
        if std::env::var("OSSC_BLESS").is_ok_and(|value| value == "1") {
            std::fs::write(&file, markdown()).unwrap();
        }
        assert!(
            std::fs::read_to_string(&file).unwrap() == markdown(),
            "docs/METRICS.md is stale: run `OSSC_BLESS=1 cargo test --locked --profile fast -p ossc`"
        );
    }
}
