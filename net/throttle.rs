//! How many requests may be under way when OSS throttles, or the link is too thin for all of them: halved by a throttled
//! answer or by many late ones, raised again step by step (AIMD). One for all vcpus, since neither limit is per connection.
//! Asked by the engine before each request, told of each end. Pure: time is an argument, and it
//! neither locks, waits nor sends.

use std::time::{Duration, Instant};

/// A full recovery takes this many steps.
const STEPS: usize = 16;
/// So many late answers, and one for so many requests under way, say that the link is too thin.
const LATE_MIN: usize = 4;
const LATE_SHARE: usize = 4;
/// A thin link is shared by no fewer: one or two of them may wait for the other side.
const THIN_MIN: usize = 4;
/// A step on a thin link is this part of what may be under way, and waits so many times as long: who asks for too much
/// there learns it after a time-out only.
const THIN_STEP: usize = 4;
const THIN_RECOVER_TIMES: u32 = 30;

/// See the module.
#[derive(Debug)]
pub struct Throttle {
    most: usize,
    recover: Duration,
    limit: usize,
    under_way: usize,
    /// Somebody found no room since it was last asked.
    refused: bool,
    /// The last halving: requests that began before it say nothing about the limit since then.
    cut_at: Option<Instant>,
    /// The last throttled answer or step of recovery.
    changed_at: Option<Instant>,
    /// Late answers, less the good ones.
    late: usize,
    /// The last cut was for a thin link.
    is_thin: bool,
}

/// How a request ended, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It succeeded.
    Good,
    /// 429 or 503.
    Throttled,
    /// It was not served in time although others were.
    Late,
    /// It failed otherwise.
    Other,
}

/// What the end of a request changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Same,
    /// At most so many from now on, fewer than before.
    Cut(usize),
    /// So many again, more than before; others may begin a request now.
    Raised(usize),
}

impl Throttle {
    /// At most `most` requests; one step of recovery for each `recover` without a throttled answer.
    pub fn new(most: usize, recover: Duration) -> Throttle {
        let most = most.max(1);
        Throttle {
            most,
            recover,
            limit: most,
            under_way: 0,
            refused: false,
            cut_at: None,
            changed_at: None,
            late: 0,
            is_thin: false,
        }
    }

    /// Counts one more request if there is room for it.
    pub fn begin(&mut self) -> bool {
        let room = self.has_room();
        self.under_way += usize::from(room);
        self.refused |= !room;
        room
    }

    /// True once after `begin` found no room: who was refused is to ask again when there is.
    pub fn take_refused(&mut self) -> bool {
        self.has_room() && std::mem::take(&mut self.refused)
    }

    /// Whether one more may begin.
    pub fn has_room(&self) -> bool {
        self.under_way < self.limit
    }

    /// A request that was counted is not sent after all.
    pub fn give_back(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// A request that began at `begun` has ended.
    pub fn ended(&mut self, end: End, begun: Instant, now: Instant) -> Change {
        let under_way = self.under_way;
        self.give_back();
        match end {
            End::Other => Change::Same,
            End::Throttled => {
                self.changed_at = Some(now);
                self.cut(begun, now, (under_way, 1), false)
            }
            End::Late => {
                self.late += usize::from(!self.is_before_cut(begun));
                let is_thin = self.late >= LATE_MIN && self.late * LATE_SHARE >= under_way;
                if is_thin { self.cut(begun, now, (under_way, THIN_MIN), true) } else { Change::Same }
            }
            End::Good => {
                self.late = self.late.saturating_sub(1);
                self.recover(now)
            }
        }
    }

    /// A request that began before the last cut says nothing about the limit since then.
    fn is_before_cut(&self, begun: Instant) -> bool {
        self.cut_at.is_some_and(|cut| begun < cut)
    }

    /// Half of those under way from now on, and no fewer than `least`.
    fn cut(&mut self, begun: Instant, now: Instant, (under_way, least): (usize, usize), is_thin: bool) -> Change {
        if self.is_before_cut(begun) {
            return Change::Same;
        }
        (self.cut_at, self.changed_at, self.late) = (Some(now), Some(now), 0);
        let limit = (self.limit.min(under_way) / 2).max(least).min(self.limit);
        let is_less = limit < self.limit;
        (self.limit, self.is_thin) = (limit, is_thin);
        if is_less { Change::Cut(limit) } else { Change::Same }
    }

    /// One step, if it is time for it.
    fn recover(&mut self, now: Instant) -> Change {
        let wait = self.recover * if self.is_thin { THIN_RECOVER_TIMES } else { 1 };
        let is_early = self.changed_at.is_some_and(|at| now.saturating_duration_since(at) < wait);
        if self.limit == self.most || is_early {
            return Change::Same;
        }
        self.changed_at = Some(now);
        let step = if self.is_thin { self.limit / THIN_STEP } else { self.most / STEPS };
        self.limit = (self.limit + step.max(1)).min(self.most);
        Change::Raised(self.limit)
    }

    /// The last cut was for a thin link.
    pub fn is_thin(&self) -> bool {
        self.is_thin
    }

    /// Requests under way.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// Requests that may be under way now.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Requests that may be under way when nothing throttles.
    pub fn most(&self) -> usize {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_secs(1);

    fn full(most: usize) -> (Throttle, Instant) {
        let mut throttle = Throttle::new(most, STEP);
        assert!((0..most).all(|_| throttle.begin()) && !throttle.begin());
        (throttle, Instant::now())
    }

    #[test]
    fn one_wave_of_refusals_halves_once() {
        let (mut throttle, start) = full(64);
        let now = start + Duration::from_millis(10);
        assert_eq!(throttle.ended(End::Throttled, start, now), Change::Cut(32));
        for _ in 1..64 {
            assert_eq!(throttle.ended(End::Throttled, start, now), Change::Same, "of the same wave");
        }
        assert_eq!(throttle.limit(), 32);
        assert!((0..32).all(|_| throttle.begin()) && !throttle.begin());
        assert_eq!(throttle.ended(End::Throttled, now, now + STEP), Change::Cut(16), "of the next wave");
    }

    #[test]
    fn who_was_refused_is_told_once_when_there_is_room() {
        let (mut throttle, start) = full(2);
        assert!(!throttle.take_refused(), "there is no room yet");
        throttle.ended(End::Good, start, start);
        assert!(throttle.take_refused() && !throttle.take_refused());
    }

    #[test]
    fn few_requests_under_way_count_more_than_a_high_limit() {
        let mut throttle = Throttle::new(256, STEP);
        assert!((0..8).all(|_| throttle.begin()));
        let now = Instant::now();
        assert_eq!(throttle.ended(End::Throttled, now, now), Change::Cut(4));
    }

    #[test]
    fn it_never_stops_altogether_and_recovers_additively() {
        let (mut throttle, start) = full(64);
        let mut now = start;
        for _ in 0..20 {
            now += STEP;
            throttle.ended(End::Throttled, now, now);
            throttle.begin();
        }
        assert_eq!(throttle.limit(), 1);
        while throttle.under_way > 0 {
            throttle.give_back();
        }
        let mut steps = Vec::new();
        for _ in 0..18 {
            assert!(throttle.begin());
            assert_eq!(throttle.ended(End::Good, now, now + STEP / 2), Change::Same, "too early");
            now += STEP;
            assert!(throttle.begin());
            if let Change::Raised(limit) = throttle.ended(End::Good, now, now) {
                steps.push(limit);
            }
        }
        assert_eq!(steps, (1..=15).map(|n| 1 + 4 * n).chain([64]).collect::<Vec<_>>());
    }

    #[test]
    fn a_thin_link_is_shared_by_fewer() {
        let (mut throttle, start) = full(64);
        let late = start + STEP * 10;
        for _ in 1..13 {
            assert_eq!(throttle.ended(End::Late, start, late), Change::Same, "so many may have a cause of their own");
        }
        // 52 are under way, and 13 are a fourth of them.
        assert_eq!(throttle.ended(End::Late, start, late), Change::Cut(26));
        for _ in 13..64 {
            assert_eq!(throttle.ended(End::Late, start, late), Change::Same, "of the same wave");
        }
        for _ in 0..26 {
            assert!(throttle.begin());
        }
        assert_eq!(throttle.ended(End::Good, late, late + STEP * 29), Change::Same, "it goes up slowly");
        assert_eq!(throttle.ended(End::Good, late, late + STEP * 30), Change::Raised(32));
        // Few are no sign, however many of all they are, nor are those that good ones stand beside.
        let mut few = Throttle::new(64, STEP);
        assert!((0..3).all(|_| few.begin()));
        assert!((0..3).all(|_| few.ended(End::Late, start, late) == Change::Same));
        let (mut mixed, start) = full(8);
        for _ in 0..100 {
            assert_eq!(mixed.ended(End::Late, start, late), Change::Same);
            assert!(mixed.begin());
            assert_eq!(mixed.ended(End::Good, start, late), Change::Same);
            assert!(mixed.begin());
        }
    }

    #[test]
    fn other_failures_change_nothing_and_late_refusals_only_delay() {
        let (mut throttle, start) = full(4);
        assert_eq!(throttle.ended(End::Other, start, start), Change::Same);
        assert_eq!(throttle.ended(End::Throttled, start, start), Change::Cut(1));
        assert_eq!(throttle.ended(End::Throttled, start - STEP, start + STEP), Change::Same);
        assert_eq!(throttle.ended(End::Good, start, start + STEP), Change::Same, "a second has not passed since");
        assert!(throttle.begin());
        assert_eq!(throttle.ended(End::Good, start, start + STEP * 2), Change::Raised(2));
    }
}
