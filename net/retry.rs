//! When to try again: pure arithmetic, used by the engine's planner. Never sleeps and never sends.

use std::time::Duration;

use crate::error::{Error, Kind};

/// First step of the backoff (go SDK v2: 200 ms).
pub const BASE: Duration = Duration::from_millis(200);
/// Longest step of the backoff (go SDK v2: 20 s).
pub const CAP: Duration = Duration::from_secs(20);

/// What the owner of a request should do after it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// It succeeded, or a retry cannot help.
    No,
    /// Ask again after [`backoff`].
    Backoff,
    /// Ask again after [`backoff`], and halve the concurrency.
    SlowDown,
}

/// Whether the same request can succeed later without anybody doing something.
///
/// `Clock` is: the offset learned from the answer's Date is applied to the next signature.
/// `Auth` is not: new credentials come with a new [`crate::Origin`].
pub fn retryable(kind: Kind) -> bool {
    match kind {
        Kind::Resolve
        | Kind::Network
        | Kind::Timeout
        | Kind::Protocol
        | Kind::Clock
        | Kind::Throttled
        | Kind::Server => true,
        Kind::Local
        | Kind::Config
        | Kind::Tls
        | Kind::Auth
        | Kind::NotFound
        | Kind::Changed
        | Kind::Range
        | Kind::Archived
        | Kind::Rejected
        | Kind::Cancelled => false,
    }
}

/// The hint for an outcome.
pub fn hint(error: Option<&Error>) -> Hint {
    match error.map(|error| error.kind) {
        Some(Kind::Throttled) => Hint::SlowDown,
        Some(kind) if retryable(kind) => Hint::Backoff,
        _ => Hint::No,
    }
}

/// Upper bound of the wait before retry `n` (0 = first retry): `min(200 ms * 2^n, 20 s)`.
pub fn ceiling(n: u32) -> Duration {
    BASE.checked_mul(1_u32.checked_shl(n).unwrap_or(u32::MAX)).map_or(CAP, |step| step.min(CAP))
}

/// Full jitter: `unit` in `[0, 1)` of the ceiling.
pub fn backoff_at(n: u32, unit: f64) -> Duration {
    ceiling(n).mul_f64(unit.clamp(0.0, 1.0))
}

/// The wait before retry `n` (0 = first retry), exponential with full jitter.
pub fn backoff(n: u32) -> Duration {
    backoff_at(n, fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Phase;

    #[test]
    fn ceiling_doubles_up_to_the_cap() {
        assert_eq!(ceiling(0), Duration::from_millis(200));
        assert_eq!(ceiling(3), Duration::from_millis(1600));
        assert_eq!(ceiling(6), Duration::from_millis(12800));
        for n in [7, 31, 32, 1000, u32::MAX] {
            assert_eq!(ceiling(n), CAP, "{n}");
        }
    }

    #[test]
    fn jitter_covers_the_whole_step() {
        assert_eq!(backoff_at(1, 0.0), Duration::ZERO);
        assert_eq!(backoff_at(1, 0.5), Duration::from_millis(200));
        for n in 0..40 {
            assert!(backoff(n) <= ceiling(n));
        }
    }

    #[test]
    fn hints() {
        let of = |kind| hint(Some(&Error::new(kind, Phase::Status, "x")));
        assert_eq!(of(Kind::Throttled), Hint::SlowDown);
        assert_eq!(of(Kind::Timeout), Hint::Backoff);
        assert_eq!(of(Kind::NotFound), Hint::No);
        assert_eq!(hint(None), Hint::No);
    }
}
