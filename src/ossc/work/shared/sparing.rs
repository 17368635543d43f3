//! Log lines about requests that fail alike: the first few, and then one now and then, which says how many were left out.
//!
//! Asked by the wings before they log such a line. An outage fails thousands of requests in the same way.

use crate::lock::lock;
use ossc_net::error::FailureKind;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lines of one kind at once.
const AT_ONCE: u32 = 8;
/// Another one after so long.
const EVERY: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Default)]
pub struct Sparing {
    kinds: Mutex<HashMap<FailureKind, Said>>,
}

struct Said {
    /// Lines that may follow at once.
    left: u32,
    since: Instant,
    left_out: u64,
}

impl Sparing {
    /// Whether a line about this kind is logged now: then what it ends with.
    pub fn line(&self, kind: FailureKind, now: Instant) -> Option<String> {
        let mut kinds = lock(&self.kinds);
        let said = kinds.entry(kind).or_insert(Said { left: AT_ONCE, since: now, left_out: 0 });
        let more = (now.saturating_duration_since(said.since).as_secs() / EVERY.as_secs()) as u32;
        said.left = said.left.saturating_add(more).min(AT_ONCE);
        said.since = if said.left == AT_ONCE { now } else { said.since + EVERY * more };
        let Some(left) = said.left.checked_sub(1) else {
            said.left_out += 1;
            return None;
        };
        said.left = left;
        Some(match std::mem::take(&mut said.left_out) {
            0 => String::new(),
            count => format!(" ({count} more lines like this were left out before)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_lines_of_a_kind_are_logged_and_say_how_many_were_not() {
        let (sparing, begin) = (Sparing::default(), Instant::now());
        let lines = |kind, secs: u64, count: usize| -> Vec<String> {
            (0..count).filter_map(|_| sparing.line(kind, begin + Duration::from_secs(secs))).collect()
        };
        assert_eq!(lines(FailureKind::Network, 0, 100), vec![""; 8]);
        assert_eq!(lines(FailureKind::Timeout, 1, 3), vec![""; 3], "another kind");
        assert_eq!(lines(FailureKind::Network, 9, 100), Vec::<String>::new());
        assert_eq!(lines(FailureKind::Network, 11, 100), [" (192 more lines like this were left out before)"]);
        assert_eq!(lines(FailureKind::Network, 42, 100).len(), 3);
        assert_eq!(lines(FailureKind::Network, 900, 100).len(), 8);
    }
}
