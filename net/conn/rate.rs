//! Whether a body comes at least at the least rate: one that drips would hold its bytes back for hours, and the stall
//! deadline never ends it. Part of the connection; nothing is done here per receive.

use std::time::{Duration, Instant};

use super::{Body, Conn, State, Step};
use crate::error::{Error, FailureKind, Phase};

/// A body that brings less than this part of what the other connections brought is given up, too.
const SHARE_MIN: u64 = 64;
/// A look that comes so late says nothing of the network: this process did not run meanwhile.
const LATE: Duration = Duration::from_secs(1);

/// What a body has brought since the look before.
#[derive(Debug)]
pub(super) struct Rate {
    /// When it is looked at next.
    pub ends: Instant,
    /// Bytes of the body at the look before.
    had: usize,
    /// Bytes that the other connections had brought by then, if it was asked.
    others_had: Option<u64>,
}

impl Conn {
    /// A body begins.
    pub(super) fn rate_begins(&mut self, now: Instant) {
        let ends = now + Duration::from_millis(self.timeouts.stall_ms);
        self.rate = (self.timeouts.least_bytes_per_sec > 0).then_some(Rate { ends, had: 0, others_had: None });
    }

    /// Whether [`Conn::judge_rate`] is due.
    pub fn is_rate_due(&self, now: Instant) -> bool {
        self.rate.as_ref().is_some_and(|rate| now >= rate.ends)
    }

    /// The look at what the body has brought. `others` are bytes that all connections beside it have brought ever, and
    /// how many they are.
    pub fn judge_rate(&mut self, now: Instant, others: (u64, u64)) -> Step {
        let bytes = self.body_bytes();
        let (stall_ms, least) = (self.timeouts.stall_ms, self.timeouts.least_bytes_per_sec);
        let Some(rate) = self.rate.as_mut().filter(|rate| now >= rate.ends) else { return Step::More };
        let is_late = now.saturating_duration_since(rate.ends) > LATE;
        let came = (bytes.saturating_sub(rate.had)) as u64;
        let each = rate.others_had.map_or(0, |had| others.0.saturating_sub(had) / others.1.max(1));
        (rate.had, rate.others_had, rate.ends) = (bytes, Some(others.0), now + Duration::from_millis(stall_ms));
        let is_drip = came * 1000 < least * stall_ms || came * SHARE_MIN < each;
        if is_late || !is_drip {
            return Step::More;
        }
        if let State::Body(Body::Text { fault: true, .. }) = &self.state {
            return self.refuse(false);
        }
        let text = format!(
            "{came} bytes in {stall_ms} ms after {bytes} bytes: less than leastBytesPerSec ({least}), or than a \
             {SHARE_MIN}th of what other connections brought ({each} each)"
        );
        self.end(Err(Error::new(FailureKind::Timeout, Phase::Body, text)), false)
    }

    /// This process did not run for as long: no deadline has come nearer meanwhile.
    pub fn lay_still(&mut self, pause: Duration) {
        self.last_byte += pause;
        self.deadline = self.deadline.map(|at| at + pause);
        self.rate.iter_mut().for_each(|rate| rate.ends += pause);
    }
}
