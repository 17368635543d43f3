//! How many requests the engine has under way: what each end tells the throttle, and what the log says of it.
//!
//! Called by the work on vcpu threads. It sends nothing and waits for nothing; the rule is the network crate's.

use crate::lock::lock;
use crate::work::scheduling::Scheduling;
use ossc_net::Finished;
use ossc_net::retry::Hint;
use ossc_net::throttle::{Change, End};
use std::time::Instant;

impl Scheduling {
    /// Tells the throttle how a request ended, and the log what that changed.
    pub fn ended(&self, done: &Finished) {
        let end = match (&done.result, done.retry_hint) {
            (Ok(_), _) => End::Good,
            (_, Hint::SlowDown) => End::Throttled,
            (_, Hint::Late) => End::Late,
            _ => End::Other,
        };
        let now = (self.options.now)();
        let begun = now.checked_sub(done.elapsed).unwrap_or(now);
        self.grow(done, now);
        self.recover(done, now);
        let mut throttle = lock(&self.throttle);
        let was_thin = throttle.is_thin();
        let (change, most) = (throttle.ended(end, begun, now), throttle.most());
        // A connection that found no room sleeps, and the thread of the one that had it may have all workers busy.
        let refused = throttle.take_refused();
        drop(throttle);
        if refused {
            self.wake();
        }
        if done.result.is_ok()
            && let Some(renewal) = self.renewal.get()
        {
            renewal.accepted();
        }
        match (change, &done.result) {
            (Change::Same, _) => {}
            (Change::Cut(limit), Err(error)) if end == End::Late => {
                tracing::warn!(
                    "the link is too thin for all requests: at most {limit} of {most} at a time from now on: {error}"
                );
            }
            (Change::Cut(limit), Err(error)) => {
                tracing::warn!("OSS throttles: at most {limit} of {most} requests at a time from now on: {error}");
            }
            (Change::Raised(limit), _) if limit == most => {
                let over = if was_thin { "the link serves all requests" } else { "OSS throttles no more" };
                tracing::info!("{over}: {most} requests at a time again");
                self.wake();
            }
            (Change::Cut(limit) | Change::Raised(limit), _) => {
                tracing::debug!("{limit} of {most} requests at a time");
                self.wake();
            }
        }
    }

    /// Tells how fast the bytes come, while there are more to be asked for.
    fn grow(&self, done: &Finished, now: Instant) {
        let more = !lock(&self.plan).is_empty();
        let mut window = lock(&self.window);
        match &done.result {
            _ if !more => window.pause(),
            Ok(response) if response.bytes > 0 => {
                let (had, risen) = (window.limit(), window.came(response.bytes, now));
                let limit = window.limit();
                drop(window);
                if limit != had {
                    tracing::debug!("{limit} requests at a time for the prefetch, {had} before");
                }
                if risen {
                    self.wake();
                }
            }
            _ => {}
        }
    }

    /// A request that was counted is not sent after all.
    pub fn not_sent(&self) {
        let mut throttle = lock(&self.throttle);
        throttle.give_back();
        let refused = throttle.take_refused();
        drop(throttle);
        if refused {
            self.wake();
        }
    }
}
