//! Whether all that an engine was to load is here, by what it says of itself.
//!
//! Called by `ossc wait --ready` and `ossc top`. It asks for nothing itself.

use crate::commands::view::{failures, human};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long nothing is to happen before all is said to be there.
const QUIET: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Nothing is on its way any more.
    Here,
    /// Why not, in words.
    Coming(String),
    /// Readers of these get an error: a line each. The rest may be on its way.
    Failed(Vec<String>),
}

impl Arrival {
    /// By a report.
    pub fn of(report: &Value) -> Arrival {
        let failed = failures(report);
        if !failed.is_empty() {
            return Arrival::Failed(failed);
        }
        let number = |name: &str| report["memory"][name].as_u64().unwrap_or(0);
        if !is_at_rest(report) {
            return Arrival::Coming(format!("{} are in memory, and more is on its way", human(number("ready_bytes"))));
        }
        // A program that is still starting has asked for nothing, and nothing is not the model.
        let is_unused = report["programs"]["opens"].as_u64() == Some(0) && number("ready_bytes") == 0;
        if is_unused && number("large_bytes") > 0 {
            return Arrival::Coming("no program has opened a large object yet".into());
        }
        Arrival::Here
    }
}

/// Nothing is on its way, or waits for a connection.
pub fn is_at_rest(report: &Value) -> bool {
    report["at_rest"] == Value::Bool(true)
}

/// Since when nothing has been opened and nothing has come: programs open one file after the other.
#[derive(Default)]
pub struct Quiet(Option<(Instant, [Option<u64>; 2])>);

impl Quiet {
    /// True once that lasts.
    pub fn lasts(&mut self, report: &Value) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_missing_has_a_word() {
        let busy = json!({"at_rest": false, "failed": [], "memory": {"ready_bytes": 2048}});
        assert!(matches!(Arrival::of(&busy), Arrival::Coming(text) if text.starts_with("2.0 KiB are")));
        let rest = |opens: u32, ready: u32, large: u32| {
            json!({"at_rest": true, "failed": [], "programs": {"opens": opens},
                "memory": {"ready_bytes": ready, "large_bytes": large}})
        };
        // Loaded; released since; taken over; nothing but small objects.
        for (opens, ready, large) in [(1, 9, 9), (1, 0, 9), (0, 9, 9), (0, 0, 0)] {
            assert_eq!(Arrival::of(&rest(opens, ready, large)), Arrival::Here);
        }
        assert!(matches!(Arrival::of(&rest(0, 0, 9)), Arrival::Coming(text) if text.starts_with("no program")));
        let failed = json!({"at_rest": true, "failed": [{"name": "w", "reason": "gone"}]});
        assert_eq!(Arrival::of(&failed), Arrival::Failed(vec!["failed: w: gone".into()]));
    }

    #[test]
    fn a_folder_that_programs_cannot_see_is_missing_and_one_that_is_shown_as_it_was_is_not() {
        let with = |shows_older: bool| {
            json!({"at_rest": true, "failed": [], "memory": {"ready_bytes": 9},
                "not_listed": [{"folder": "d", "reason": "refused", "shows_older": shows_older}]})
        };
        assert_eq!(Arrival::of(&with(false)), Arrival::Failed(vec!["not listed: d/: refused".into()]));
        assert_eq!(Arrival::of(&with(true)), Arrival::Here);
    }
}
