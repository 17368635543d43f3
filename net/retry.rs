//! When to try again: pure arithmetic, used by the engine's planner. Never sleeps and never sends.

use std::time::Duration;

use crate::error::{Error, FailureKind};

/// How long to wait before a retry: exponential with full jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// First step.
    pub base: Duration,
    /// Longest step.
    pub cap: Duration,
}

impl Default for Backoff {
    /// Those of the go SDK v2.
    fn default() -> Backoff {
        Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(20) }
    }
}

impl Backoff {
    /// Upper bound of the wait before retry `n` (0 = first retry): `min(base * 2^n, cap)`.
    pub fn ceiling(&self, n: u32) -> Duration {
        self.base.checked_mul(1_u32.checked_shl(n).unwrap_or(u32::MAX)).map_or(self.cap, |step| step.min(self.cap))
    }

    /// Full jitter: `unit` in `[0, 1)` of the ceiling.
    pub fn wait_at(&self, n: u32, unit: f64) -> Duration {
        self.ceiling(n).mul_f64(unit.clamp(0.0, 1.0))
    }

    /// The wait before retry `n` (0 = first retry).
    pub fn wait(&self, n: u32) -> Duration {
        self.wait_at(n, fastrand::f64())
    }
}

/// What the owner of a request should do after it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// It succeeded, or a retry cannot help.
    No,
    /// Ask again after [`Backoff::wait`].
    Backoff,
    /// Ask again after [`Backoff::wait`], and halve the concurrency.
    SlowDown,
    /// Ask again after [`Backoff::wait`]: it was not served in time although others were. Where many end so, the link
    /// is too thin for all of them.
    Late,
}

/// The hint for an outcome.
pub fn hint(error: Option<&Error>) -> Hint {
    match error.map(|error| error.kind) {
        Some(FailureKind::Throttled) => Hint::SlowDown,
        Some(kind) if kind.retried() => Hint::Backoff,
        _ => Hint::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Phase;

    #[test]
    fn ceiling_doubles_up_to_the_cap() {
        let backoff = Backoff::default();
        assert_eq!(backoff.ceiling(0), Duration::from_millis(200));
        assert_eq!(backoff.ceiling(3), Duration::from_millis(1600));
        assert_eq!(backoff.ceiling(6), Duration::from_millis(12800));
        for n in [7, 31, 32, 1000, u32::MAX] {
            assert_eq!(backoff.ceiling(n), backoff.cap, "{n}");
        }
    }

    #[test]
    fn jitter_covers_the_whole_step() {
        let backoff = Backoff::default();
        assert_eq!(backoff.wait_at(1, 0.0), Duration::ZERO);
        assert_eq!(backoff.wait_at(1, 0.5), Duration::from_millis(200));
        for n in 0..40 {
            assert!(backoff.wait(n) <= backoff.ceiling(n));
        }
    }

    #[test]
    fn hints() {
        let of = |kind| hint(Some(&Error::new(kind, Phase::Status, "x")));
        assert_eq!(of(FailureKind::Throttled), Hint::SlowDown);
        assert_eq!(of(FailureKind::Timeout), Hint::Backoff);
        assert_eq!(of(FailureKind::NotFound), Hint::No);
        assert_eq!(hint(None), Hint::No);
    }
}
