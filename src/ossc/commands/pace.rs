//! How fast bytes come: of the last seconds, so that what came before counts for nothing.
//!
//! Called by the commands that show a load. Time is an argument: that at which the bytes were counted.

use std::collections::VecDeque;
const RATE_OF_US: u64 = 5_000_000;

/// How much was here at which time.
#[derive(Default)]
pub struct Pace(VecDeque<(u64, u64)>);

impl Pace {
    /// So many bytes were here at a time in microseconds, of any clock: bytes a second.
    pub fn rate(&mut self, now_us: u64, bytes: u64) -> f64 {
        self.0.push_back((now_us, bytes));
        while self.0.len() > 2 && self.0.front().is_some_and(|(at, _)| now_us.saturating_sub(*at) > RATE_OF_US) {
            self.0.pop_front();
        }
        let (at, before) = self.0.front().copied().unwrap_or((now_us, bytes));
        let secs = now_us.saturating_sub(at) as f64 / 1e6;
        if secs > 0.0 { bytes.saturating_sub(before) as f64 / secs } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_seconds_count() {
        let mut pace = Pace::default();
        let mut at = |secs: u64, bytes| pace.rate(secs * 1_000_000, bytes);
        assert_eq!(at(0, 100), 0.0);
        assert_eq!(at(1, 400), 300.0);
        for secs in 2..=20 {
            at(secs, 400 + (secs - 1) * 10);
        }
        assert_eq!(at(21, 600), 10.0);
        assert_eq!(at(22, 100), 0.0, "given back meanwhile");
    }
}
