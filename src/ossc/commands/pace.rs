//! How fast bytes come: of the last seconds, so that what came before counts for nothing.
//!
//! Called by the commands that show a load. Time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const RATE_OF: Duration = Duration::from_secs(5);

/// How much was here at which time.
#[derive(Default)]
pub struct Pace(VecDeque<(Instant, u64)>);

impl Pace {
    /// So many bytes are here now: bytes a second.
    pub fn rate(&mut self, now: Instant, bytes: u64) -> f64 {
        self.0.push_back((now, bytes));
        while self.0.len() > 2 && self.0.front().is_some_and(|(at, _)| now - *at > RATE_OF) {
            self.0.pop_front();
        }
        let (at, before) = self.0.front().copied().unwrap_or((now, bytes));
        let secs = (now - at).as_secs_f64();
        if secs > 0.0 { bytes.saturating_sub(before) as f64 / secs } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_seconds_count() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        let mut at = |secs: u64, bytes| pace.rate(begin + Duration::from_secs(secs), bytes);
        assert_eq!(at(0, 100), 0.0);
        assert_eq!(at(1, 400), 300.0);
        for secs in 2..=20 {
            at(secs, 400 + (secs - 1) * 10);
        }
        assert_eq!(at(21, 600), 10.0);
        assert_eq!(at(22, 100), 0.0, "given back meanwhile");
    }
}
