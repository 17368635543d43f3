//! Token buckets: one over all connections, and one for each answer that a rule slows down. Called
//! by `wire` before each piece of a body.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the bucket saves up while nothing is sent.
const BURST: Duration = Duration::from_millis(20);

/// Limit of body bytes per second for everything that takes from it.
pub(crate) struct Rate {
    bytes_per_sec: u64,
    /// Given to one after the other; `None` for pieces so small that all share evenly.
    turn_bytes: Option<u64>,
    /// When all bytes granted so far will have been paid for.
    paid: Mutex<Instant>,
}

impl Rate {
    /// `bytes_per_sec` of 0 counts as 1.
    pub(crate) fn new(bytes_per_sec: u64) -> Self {
        Self::in_turns(bytes_per_sec, None)
    }

    /// The same, so many bytes to each in turn.
    pub(crate) fn in_turns(bytes_per_sec: u64, turn_bytes: Option<u64>) -> Self {
        Self { bytes_per_sec: bytes_per_sec.max(1), turn_bytes, paid: Mutex::new(Instant::now()) }
    }

    /// Largest piece to ask for at once: a turn, or about 10 ms worth, 4 KiB to 1 MiB, but never more than an eighth of a
    /// second's.
    pub(crate) fn piece_bytes_max(&self) -> u64 {
        if let Some(turn) = self.turn_bytes {
            return turn;
        }
        let dripping = (self.bytes_per_sec / 8).max(1);
        (self.bytes_per_sec / 100).clamp(4 << 10, 1 << 20).min(dripping)
    }

    /// Grants `bytes` and returns how long to wait before sending them.
    pub(crate) fn grant(&self, bytes: u64) -> Duration {
        let now = Instant::now();
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let start = now.checked_sub(BURST).map_or(*paid, |oldest| (*paid).max(oldest));
        *paid = start + Duration::from_secs_f64(bytes as f64 / self.bytes_per_sec as f64);
        paid.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_one_piece_and_the_next_one_waits_for_it() {
        let rate = Rate::in_turns(1000, Some(5000));
        assert_eq!(rate.piece_bytes_max(), 5000);
        let (first, second) = (rate.grant(5000), rate.grant(5000));
        assert!(first > Duration::from_secs(4) && second > Duration::from_secs(9), "{first:?} {second:?}");
        assert_eq!(Rate::new(1000).piece_bytes_max(), 125);
    }
}
