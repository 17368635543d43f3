//! How many requests the prefetch has under way: no more than make the download faster. On a line that is full, more
//! of them only let every file come in at the same time, where a program waits for one after the other.
//!
//! Called by `pace` and the wing. Pure: time is an argument, and it neither locks, waits nor sends.

use crate::work::shared::scale::Scale;
use std::time::Instant;

/// One step has half as many more, and pays if it brings at least half of what it could.
const STEP: f64 = 1.5;
const STEP_PAYS: f64 = 1.25;

/// See the module.
#[derive(Debug)]
pub(crate) struct RequestWindow {
    scale: Scale,
    most: usize,
    limit: usize,
    /// The limit before the last step, and the bytes a second that it brought.
    before: Option<(usize, f64)>,
    /// The last step did not pay: none until then.
    rests_until: Option<Instant>,
    looks_since: Option<Instant>,
    ends: usize,
    bytes: u64,
}

impl RequestWindow {
    /// At most `most` requests.
    pub fn new(most: usize, scale: Scale) -> RequestWindow {
        let limit = scale.requests_first.min(most);
        RequestWindow { scale, most, limit, before: None, rests_until: None, looks_since: None, ends: 0, bytes: 0 }
    }

    /// Requests that may be under way for the prefetch to begin another.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// There is nothing to prefetch: what comes now says nothing of the line.
    pub fn pause(&mut self) {
        self.looks_since = None;
    }

    /// A request brought so many bytes, while as many were under way as may be. True if the limit has risen.
    pub fn came(&mut self, bytes: u64, now: Instant) -> bool {
        if self.limit == self.most && self.before.is_none() {
            return false;
        }
        let Some(since) = self.looks_since else {
            (self.looks_since, self.ends, self.bytes) = (Some(now), 0, 0);
            return false;
        };
        (self.ends, self.bytes) = (self.ends + 1, self.bytes + bytes);
        let took = now.saturating_duration_since(since);
        if self.ends < self.limit || took < self.scale.look_min {
            return false;
        }
        self.looks_since = None;
        self.step(self.bytes as f64 / took.as_secs_f64(), now)
    }

    /// So many bytes a second come with the limit as it is.
    fn step(&mut self, rate: f64, now: Instant) -> bool {
        if let Some((limit, had)) = self.before.take()
            && rate < had * (self.limit as f64 / limit as f64 / STEP * STEP_PAYS)
        {
            self.limit = limit;
            self.rests_until = Some(now + self.scale.holds);
            return false;
        }
        if self.limit == self.most || self.rests_until.is_some_and(|until| now < until) {
            return false;
        }
        self.before = Some((self.limit, rate));
        self.limit = ((self.limit as f64 * STEP) as usize).min(self.most);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const FIRST: usize = Scale::PRODUCT.requests_first;
    const PART: u64 = 8 << 20;

    /// A line of `line` bytes a second over connections of `each`: the limit after so many seconds, and the most.
    fn grown(most: usize, line: f64, each: f64, secs: f64) -> (usize, usize) {
        let (mut window, start) = (RequestWindow::new(most, Scale::PRODUCT), Instant::now());
        let (mut at, mut highest) = (0.0, 0);
        while at < secs {
            at += PART as f64 / line.min(window.limit() as f64 * each);
            window.came(PART, start + Duration::from_secs_f64(at));
            highest = highest.max(window.limit());
        }
        (window.limit(), highest)
    }

    #[test]
    fn it_grows_while_that_brings_more() {
        assert_eq!(grown(256, 20e9, 60e6, 1.5), (256, 256));
        assert_eq!(grown(256, 1e12, 8e6, 8.0), (256, 256));
        // Of 9 GB/s 150 connections take all.
        assert!((144..=216).contains(&grown(256, 9e9, 60e6, 3.0).0));
    }

    #[test]
    fn on_a_full_line_it_tries_one_step_in_a_while() {
        assert_eq!(grown(256, 0.5e9, 1e9, 4.0), (FIRST, 96));
        assert_eq!(grown(256, 0.5e9, 1e9, 12.0), (FIRST, 96));
    }

    #[test]
    fn few_connections_are_used_at_once() {
        assert_eq!(grown(16, 1e9, 60e6, 3.0), (16, 16));
        assert_eq!(RequestWindow::new(1, Scale::PRODUCT).limit(), 1);
    }

    #[test]
    fn a_pause_is_no_slow_line() {
        let (mut window, start) = (RequestWindow::new(256, Scale::PRODUCT), Instant::now());
        window.came(PART, start);
        window.pause();
        let later = start + Duration::from_secs(100);
        for n in 0..65 {
            window.came(PART, later + Duration::from_millis(4 * n));
        }
        assert_eq!(window.before.unwrap().1.round(), (64.0 * PART as f64 / 0.256).round());
    }
}
