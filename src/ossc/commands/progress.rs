//! A load while its program runs: one bar on the terminal, and a line with its figures at its end.
//!
//! Called by `ossc run --progress` and `ossc warm --progress`. A thread asks the engine four times a second; it is no client, changes nothing, and
//! waits for an engine where none runs yet.

use crate::commands::bar::Bar;
use crate::commands::pace::Pace;
use crate::commands::view::{Which, human};
use serde_json::Value;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(250);
/// After the program's end the engine has so long to say how far it was.
const LAST_WORD: Duration = Duration::from_secs(1);
/// A full bar waits so long for the line that ends a load; small loads have none.
const ENDS_WITHIN: Duration = Duration::from_secs(3);
/// What is less is no load, as for the engine's own line.
const LOAD_BYTES_MIN: u64 = 8 << 20;

/// See the module.
pub struct Progress {
    bar: Arc<Bar>,
    end: Sender<()>,
    ended: Receiver<()>,
}

impl Progress {
    /// Shows what comes; `None` without a terminal or a thread. Lines begin with the name of the command.
    pub fn start(which: Which, command: &'static str) -> Option<Progress> {
        let bar = Arc::new(Bar::on_stderr("loading")?);
        let ((end, stop), (over, ended)) = (channel(), channel());
        let shown = bar.clone();
        let run = move || {
            let mut watch =
                Watch { command, bar: shown, pace: Pace::default(), finished: None, full_since: None, is_shown: false };
            while stop.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                which.report().iter().for_each(|report| watch.look(report, Instant::now()));
            }
            which.report().iter().for_each(|report| watch.end(report));
            let _ = over.send(());
        };
        std::thread::Builder::new().name("ossc-progress".into()).spawn(run).ok()?;
        Some(Progress { bar, end, ended })
    }

    /// What it draws.
    pub fn bar(&self) -> &Bar {
        &self.bar
    }

    /// The program has ended: says how far the load was, and leaves the terminal.
    pub fn end(self) {
        self.bar.clear();
        let _ = self.end.send(());
        let _ = self.ended.recv_timeout(LAST_WORD);
        self.bar.close();
    }
}

struct Watch {
    command: &'static str,
    bar: Arc<Bar>,
    pace: Pace,
    /// Loads that the engine has told of: those of before the first look are not this program's.
    finished: Option<u64>,
    full_since: Option<Instant>,
    /// A bar was drawn, and is still there: of what was here before the first look none is.
    is_shown: bool,
}

impl Watch {
    fn look(&mut self, report: &Value, now: Instant) {
        let load = &report["load"];
        if let Some(text) = self.finished(load) {
            self.bar.say(&text);
            self.is_shown = false;
            return;
        }
        let (here, bytes) = (number(load, "here_bytes"), number(load, "bytes"));
        let rate = self.pace.rate(number(load, "received_at_us"), number(load, "received_bytes"));
        if here < bytes {
            self.full_since = None;
            self.bar.draw(here, bytes, text(here, bytes, rate));
            self.is_shown = true;
        } else if now - *self.full_since.get_or_insert(now) > ENDS_WITHIN {
            self.bar.clear();
            self.is_shown = false;
        } else if self.is_shown {
            self.bar.draw(here, bytes, text(here, bytes, rate));
        }
    }

    /// The program has ended: the line of a load that is over, also where the engine has not told of it yet.
    fn end(&mut self, report: &Value) {
        let (load, so_far) = (&report["load"], &report["load"]["so_far"]);
        let (here, bytes) = (number(load, "here_bytes"), number(load, "bytes"));
        if let Some(text) = self.finished(load) {
            self.bar.say(&text);
        } else if report["at_rest"] != Value::Bool(true) && here < bytes {
            let (here, bytes) = (human(here), human(bytes));
            self.bar.say(&format!("ossc {}: ended while {here} of {bytes} were here", self.command));
        } else if number(so_far, "bytes") >= LOAD_BYTES_MIN && number(so_far, "large") > 0 {
            self.bar.say(&summary(self.command, so_far));
        }
    }

    /// The line of a load that has ended since the last look.
    fn finished(&mut self, load: &Value) -> Option<String> {
        let finished = number(load, "finished");
        let before = self.finished.replace(finished)?;
        (finished > before).then(|| summary(self.command, &load["last"]))
    }
}

fn number(of: &Value, name: &str) -> u64 {
    of[name].as_u64().unwrap_or(0)
}

/// `43 %  1.7 GiB of 4.0 GiB  0.300 GB/s  8 s left`.
fn text(here: u64, bytes: u64, rate: f64) -> String {
    let percent = (here * 100).checked_div(bytes).unwrap_or(100);
    let left = if rate > 0.0 && here < bytes {
        format!("  {:.0} s left", (bytes - here) as f64 / rate)
    } else {
        String::new()
    };
    format!("{percent:>3} %  {} of {}  {:.3} GB/s{left}", human(here), human(bytes), rate / 1e9)
}

/// The figures of one load as a line.
fn summary(command: &str, load: &Value) -> String {
    let count = |name: &str| number(load, name);
    let fraction = |name: &str| load[name].as_f64().unwrap_or(0.0);
    format!(
        "ossc {command}: loaded {} objects, {:.3} GB in {:.3} s, {:.3} GB/s; {} requests, {} retries, {} throttled, \
         {} hedges of {}, {} fetched again, {} mismatches; verified {} of {}; most memory {}",
        count("objects"),
        count("bytes") as f64 / 1e9,
        fraction("seconds"),
        fraction("gb_per_s"),
        count("requests"),
        count("retries"),
        count("throttled"),
        count("hedges"),
        human(count("hedged_bytes")),
        human(count("refetched_bytes")),
        count("mismatches"),
        count("verified"),
        count("large"),
        human(count("peak_memory_bytes")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_load_has_a_text_and_a_line() {
        assert_eq!(text(1 << 30, 4 << 30, 3e8), " 25 %  1.0 GiB of 4.0 GiB  0.300 GB/s  11 s left");
        assert_eq!(text(0, 1024, 0.0), "  0 %  0 B of 1.0 KiB  0.000 GB/s");
        let load = json!({"objects": 3, "bytes": 4_000_000_000_u64, "seconds": 10.0, "gb_per_s": 0.4, "requests": 512, "verified": 2, "large": 2});
        let line = summary("run", &load);
        assert!(
            line.starts_with("ossc run: loaded 3 objects, 4.000 GB in 10.000 s, 0.400 GB/s; 512 requests"),
            "{line}"
        );
    }
}
