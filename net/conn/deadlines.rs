//! Why a connection gives its request up: every reason, its rule and its words, decided from times alone.
//!
//! Owned by the connection, which tells it what happens and asks it what is due. It knows no byte, no socket and no
//! clock. Another reason is a variant of [`Reason`] with its words. If it is something new that is waited for, the event
//! that begins the wait calls [`Deadlines::wait`]. If it has a time of its own, it is a [`Timer`] with its rule in
//! [`Deadlines::judge`] and its place in [`TIMERS`]: the first that is due is told, and hides the others at that look, so
//! one that ends the request stands before `Wait`, which may tell [`Look::Half`] alone. [`Deadlines::end`] stops all of
//! them. While there is no connection the vcpu takes whatever is due for the failure of the address and tries the next
//! one: a timer that is not about the connect is started by [`Deadlines::sends`], and stopped by [`Deadlines::connects`].

use std::time::{Duration, Instant};

use crate::error::Phase;

/// A connection that has rested for so long may have been forgotten on the way: by a NAT, a load balancer.
const REST_LONG: Duration = Duration::from_secs(1);
/// An idle connection may end so early, so that those which came to rest together wake the vcpu once.
const REST_EARLY: Duration = Duration::from_secs(1);
/// A body that brings less than this part of what the other connections brought is given up, too.
const SHARE_MIN: u64 = 64;
/// A look at the rate that comes so late says nothing of the network: this process did not run meanwhile.
const LATE: Duration = Duration::from_secs(1);

/// Deadlines of requests and connections, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connect, per address.
    pub connect_ms: u64,
    /// From the request sent to the first byte of the answer.
    pub response_ms: u64,
    /// Longest time without a byte once the answer has begun.
    pub stall_ms: u64,
    /// A body that brings less than this in `stall_ms` is given up; 0 for none.
    pub least_bytes_per_sec: u64,
    /// An idle connection is closed after this.
    pub idle_ms: u64,
    /// How long an address that failed is kept away from, at first.
    pub avoid_ms: u64,
}

impl Timeouts {
    /// 5 s, 10 s and 50 s are those of the official go SDK v2 (servers close idle connections at
    /// 60 s); a first byte may take longer than a next.
    pub const DEFAULT: Timeouts = Timeouts {
        connect_ms: 5_000,
        response_ms: 20_000,
        stall_ms: 10_000,
        least_bytes_per_sec: 0,
        idle_ms: 50_000,
        avoid_ms: 30_000,
    };
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts::DEFAULT
    }
}

/// Why a request is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// There is no TCP connection.
    Connect,
    /// TLS is not agreed on. The time counts from the connect.
    Handshake,
    /// The request, or what is left of it, does not leave.
    Send,
    /// The answer does not begin.
    FirstByte,
    /// The head of the answer has begun and does not end.
    Head,
    /// No byte of the body comes.
    Stall,
    /// Bytes of the body come, but fewer than `leastBytesPerSec`, or than a share of what others bring: a body that
    /// drips would hold its bytes back for hours, and never stalls.
    Drip {
        /// Bytes since the look before.
        came: u64,
        /// What each other connection brought meanwhile.
        each: u64,
    },
}

impl Reason {
    /// In which phase it is given up, and what did not happen; `bytes` of the body have come from `host`.
    pub fn words(self, timeouts: &Timeouts, host: &str, bytes: usize) -> (Phase, String) {
        let Timeouts { connect_ms, response_ms, stall_ms, least_bytes_per_sec: least, .. } = timeouts;
        match self {
            Reason::Connect => (Phase::Connect, format!("no connection within {connect_ms} ms")),
            Reason::Handshake => {
                (Phase::Tls, format!("{host} did not end the TLS handshake within {connect_ms} ms of the connect"))
            }
            Reason::Send => (Phase::Send, format!("the request could not be sent within {response_ms} ms")),
            Reason::FirstByte => (Phase::Head, format!("no answer within {response_ms} ms")),
            Reason::Head => (Phase::Head, format!("the head of the answer did not end within {stall_ms} ms")),
            Reason::Stall => (Phase::Body, format!("no byte for {stall_ms} ms after {bytes} bytes")),
            Reason::Drip { came, each } => (
                Phase::Body,
                format!(
                    "{came} bytes in {stall_ms} ms after {bytes} bytes: less than leastBytesPerSec ({least}), or than \
                     a {SHARE_MIN}th of what other connections brought ({each} each)"
                ),
            ),
        }
    }
}

/// What has a time of its own.
#[derive(Clone, Copy, Debug)]
enum Timer {
    /// Without a request.
    Rest,
    /// What the request waits for: one thing at a time.
    Wait,
    /// The next look at how fast the body comes.
    Rate,
}

/// All of them, in the order in which they are asked.
const TIMERS: [Timer; 3] = [Timer::Rest, Timer::Wait, Timer::Rate];

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing.
    Early,
    /// Half of the time without a byte of the body is over; the other half runs.
    Half,
    /// The connection has rested for long enough.
    Rested,
    /// The end of the request.
    Over(Reason),
}

/// What all connections bring, of whatever thread, to judge one by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Crowd {
    /// Bytes of bodies, ever.
    pub bytes: u64,
    /// How many have a request.
    pub connections: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Deadlines {
    timeouts: Timeouts,
    timers: [Option<Instant>; TIMERS.len()],
    /// What the end of `Timer::Wait` means.
    waits_for: Reason,
    /// When the last byte of the body came.
    last_byte: Instant,
    /// Half of the time has passed without a byte since then.
    is_half_over: bool,
    /// At the last look at the rate: bytes of the body, and of all connections, if there was such a look.
    had: (usize, Option<u64>),
    /// Since when there is no request.
    rests_since: Option<Instant>,
    /// The connection had rested for so long before this request that it may lead nowhere by now.
    has_rested_long: bool,
}

impl Deadlines {
    pub fn new(timeouts: Timeouts, now: Instant) -> Deadlines {
        Deadlines {
            timeouts,
            timers: [None; TIMERS.len()],
            waits_for: Reason::Connect,
            last_byte: now,
            is_half_over: false,
            had: (0, None),
            rests_since: None,
            has_rested_long: false,
        }
    }

    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// When [`Deadlines::look`] must be called at the latest.
    pub fn next(&self) -> Option<Instant> {
        self.timers.into_iter().flatten().min()
    }

    /// Whether [`Deadlines::look`] finds something.
    pub fn is_due(&self, now: Instant) -> bool {
        TIMERS.into_iter().any(|timer| self.is_over(timer, now))
    }

    /// The first that is due. `bytes` of the body have come.
    pub fn look(&mut self, now: Instant, bytes: usize, crowd: Crowd) -> Look {
        for timer in TIMERS {
            if self.is_over(timer, now) {
                match self.judge(timer, now, bytes, crowd) {
                    Look::Early => {}
                    due => return due,
                }
            }
        }
        Look::Early
    }

    fn is_over(&self, timer: Timer, now: Instant) -> bool {
        let early = if matches!(timer, Timer::Rest) { REST_EARLY } else { Duration::ZERO };
        self.timers[timer as usize].is_some_and(|at| now + early >= at)
    }

    /// The rule of a timer whose time has come.
    fn judge(&mut self, timer: Timer, now: Instant, bytes: usize, crowd: Crowd) -> Look {
        match timer {
            Timer::Rest => Look::Rested,
            Timer::Wait => self.judge_wait(),
            Timer::Rate => self.judge_rate(now, bytes, crowd),
        }
    }

    fn judge_wait(&mut self) -> Look {
        let whole = self.last_byte + self.stall();
        if self.waits_for != Reason::Stall || self.timers[Timer::Wait as usize].is_some_and(|at| at >= whole) {
            return Look::Over(self.waits_for);
        }
        self.is_half_over = true;
        self.arm(Timer::Wait, whole);
        Look::Half
    }

    fn judge_rate(&mut self, now: Instant, bytes: usize, crowd: Crowd) -> Look {
        let Timeouts { stall_ms, least_bytes_per_sec: least, .. } = self.timeouts;
        let is_late = self.timers[Timer::Rate as usize].is_some_and(|at| now.saturating_duration_since(at) > LATE);
        let (had, all_had) = self.had;
        let came = bytes.saturating_sub(had) as u64;
        let others = crowd.connections.saturating_sub(1).max(1);
        let each = all_had.map_or(0, |had| crowd.bytes.saturating_sub(had + came) / others);
        self.had = (bytes, Some(crowd.bytes));
        self.arm(Timer::Rate, now + self.stall());
        let is_drip = came * 1000 < least * stall_ms || came * SHARE_MIN < each;
        if is_drip && !is_late { Look::Over(Reason::Drip { came, each }) } else { Look::Early }
    }

    /// A TCP connect was started; the time holds for the TLS handshake too.
    pub fn connects(&mut self, now: Instant) {
        self.wait(Reason::Connect, now + Duration::from_millis(self.timeouts.connect_ms));
    }

    /// There is a connection. What may be waited for next is the TLS handshake.
    pub fn connected(&mut self) {
        self.waits_for = Reason::Handshake;
        self.has_rested_long = false;
    }

    /// A connection that rests gets a request.
    pub fn is_used_again(&mut self, now: Instant) {
        self.has_rested_long = self.rests_since.is_some_and(|since| now >= since + REST_LONG);
    }

    /// True if the request is on a connection that had rested for so long before it that it may lead nowhere by now.
    pub fn has_rested_long(&self) -> bool {
        self.has_rested_long
    }

    /// The request begins to leave, or a part of it has left.
    pub fn sends(&mut self, now: Instant) {
        self.is_half_over = false;
        self.wait(Reason::Send, now + self.first_byte_within());
    }

    /// All of the request has left.
    pub fn sent(&mut self, now: Instant) {
        self.wait(Reason::FirstByte, now + self.first_byte_within());
    }

    /// The first byte of a head is there. The head may not take longer for what comes of it.
    pub fn head_begins(&mut self, now: Instant) {
        self.wait(Reason::Head, now + self.stall());
    }

    /// The first head with a status of 1xx is there: the answer itself begins later.
    pub fn interim(&mut self, now: Instant) {
        self.wait(Reason::FirstByte, now + Duration::from_millis(self.timeouts.response_ms));
    }

    /// The head is complete, and a body follows.
    pub fn body_begins(&mut self, now: Instant) {
        self.had = (0, None);
        if self.timeouts.least_bytes_per_sec > 0 {
            self.arm(Timer::Rate, now + self.stall());
        }
    }

    /// Bytes of the body have come, or may come from now on. With `in_halves` half of the time is told, too.
    pub fn byte(&mut self, now: Instant, in_halves: bool) {
        self.last_byte = now;
        self.is_half_over = false;
        self.wait(Reason::Stall, now + if in_halves { self.stall() / 2 } else { self.stall() });
    }

    /// True if half of the time has passed without a byte.
    pub fn is_half_over(&self) -> bool {
        self.is_half_over
    }

    /// The request has ended.
    pub fn end(&mut self) {
        self.timers = [None; TIMERS.len()];
    }

    /// The connection stays open without a request.
    pub fn rests(&mut self, now: Instant) {
        self.end();
        self.rests_since = Some(now);
        self.arm(Timer::Rest, now + Duration::from_millis(self.timeouts.idle_ms));
    }

    /// This process did not run for as long: no deadline has come nearer meanwhile.
    pub fn lay_still(&mut self, pause: Duration) {
        self.last_byte += pause;
        self.timers.iter_mut().flatten().for_each(|at| *at += pause);
    }

    /// The request waits for something else from now on.
    fn wait(&mut self, waits_for: Reason, until: Instant) {
        self.waits_for = waits_for;
        self.timers[Timer::Rest as usize] = None;
        self.arm(Timer::Wait, until);
    }

    fn arm(&mut self, timer: Timer, at: Instant) {
        self.timers[timer as usize] = Some(at);
    }

    fn stall(&self) -> Duration {
        Duration::from_millis(self.timeouts.stall_ms)
    }

    /// How long the first byte may take: a connection that has rested long may lead nowhere, and is given up sooner.
    fn first_byte_within(&self) -> Duration {
        let Timeouts { connect_ms, response_ms, .. } = self.timeouts;
        let sooner = connect_ms.max(response_ms / 2).min(response_ms);
        Duration::from_millis(if self.has_rested_long { sooner } else { response_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts =
        Timeouts { connect_ms: 1000, response_ms: 2000, stall_ms: 400, least_bytes_per_sec: 100, ..Timeouts::DEFAULT };
    const ALONE: Crowd = Crowd { bytes: 0, connections: 0 };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A body has begun. The wait for its bytes is another rule.
    fn body(timeouts: Timeouts) -> (Deadlines, Instant) {
        let now = Instant::now();
        let mut deadlines = Deadlines::new(timeouts, now);
        deadlines.body_begins(now);
        (deadlines, now)
    }

    fn drip(look: Look) -> bool {
        matches!(look, Look::Over(Reason::Drip { .. }))
    }

    #[test]
    fn a_body_is_judged_by_what_others_bring_and_not_behind_a_pause() {
        let (mut deadlines, mut now) = body(TIMEOUTS);
        let crowd = |bytes| Crowd { bytes, connections: 4 };
        // Late: this process did not run.
        now += ms(5000);
        assert_eq!(deadlines.look(now, 0, crowd(0)), Look::Early);
        now += ms(400);
        assert!(drip(deadlines.look(now, 20, crowd(0))), "20 bytes are less than 40");
        let (mut deadlines, mut now) = body(Timeouts { least_bytes_per_sec: 1, ..TIMEOUTS });
        for (at, bytes, is_drip) in [(8, 8, false), (16, 16 + 3 * 64 * 8, false), (24, 2_000_000, true)] {
            now += ms(400);
            assert_eq!(drip(deadlines.look(now, at, crowd(bytes))), is_drip);
        }
    }

    #[test]
    fn a_wait_ends_the_one_before_it_and_a_pause_puts_all_off() {
        let (mut deadlines, now) = body(TIMEOUTS);
        deadlines.connects(now);
        deadlines.sends(now);
        deadlines.sent(now);
        assert_eq!(deadlines.look(now + ms(1999), 200, ALONE), Look::Early, "one second more was for the connect");
        deadlines.head_begins(now);
        deadlines.lay_still(ms(5000));
        assert!(!deadlines.is_due(now + ms(5399)));
        assert_eq!(deadlines.next(), Some(now + ms(5400)));
        assert_eq!(deadlines.look(now + ms(5400), 200, ALONE), Look::Over(Reason::Head));
        deadlines.rests(now);
        assert_eq!(deadlines.next(), Some(now + ms(TIMEOUTS.idle_ms)));
        assert_eq!(deadlines.look(now + ms(TIMEOUTS.idle_ms - 1000), 0, ALONE), Look::Rested);
        deadlines.sends(now);
        assert_eq!(deadlines.next(), Some(now + ms(2000)), "it rests no more");
        deadlines.end();
        assert!(deadlines.next().is_none() && !deadlines.is_due(now + ms(100_000)));
    }
}
