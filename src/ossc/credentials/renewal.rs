//! When credentials are fetched again: before they end, and at once when OSS refuses them. The body of the thread
//! `ossc-keys`, and the wakeup by which `work` wakes it.
//!
//! A source that has nothing newer is asked less and less often, so that neither a file nor a service is asked in
//! a loop; what OSS has refused meanwhile is tried again by `work` within its own patience.

use crate::credentials::{Issuer, Later};
use crate::lock::lock;
use ossc_conf::Settings;
use ossc_sign::{Credentials, Issued};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Credentials are renewed when two thirds of their life are over, but not earlier than this before their end.
const MARGIN_MAX: Duration = Duration::from_secs(15 * 60);
/// A document without an end may be replaced any time: it is looked at so often.
const UNDATED: Duration = Duration::from_secs(60);
/// Between two fetches in vain: doubled from the first to the second value.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// While OSS refuses the credentials in use, one request in this time finds out whether it still does.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// Wakes it.
#[derive(Default)]
pub struct Renewal {
    refusal: Mutex<Refusal>,
    rung: Condvar,
}

#[derive(Default)]
struct Refusal {
    /// Others are wanted, and nobody has looked for them since.
    wanted: bool,
    /// Since when OSS has refused the credentials in use.
    since: Option<Instant>,
    /// When the next request may go out, while it does.
    probe_at: Option<Instant>,
}

impl Renewal {
    /// OSS refused the credentials in use: others are needed now. For how long it has done so.
    pub fn ring(&self, now: Instant) -> Duration {
        let mut refusal = lock(&self.refusal);
        refusal.wanted = true;
        self.rung.notify_one();
        refusal.probe_at.get_or_insert(now + PROBE_EVERY);
        now.saturating_duration_since(*refusal.since.get_or_insert(now))
    }

    /// OSS accepts the credentials in use, or others are in use now.
    pub fn accepted(&self) {
        let mut refusal = lock(&self.refusal);
        (refusal.since, refusal.probe_at) = (None, None);
    }

    /// Until when no request is worth sending; `None` if one may be sent, which is then the probe.
    pub fn blocked_until(&self, now: Instant) -> Option<Instant> {
        let mut refusal = lock(&self.refusal);
        match refusal.probe_at? {
            at if now < at => Some(at),
            _ => {
                refusal.probe_at = Some(now + PROBE_EVERY);
                None
            }
        }
    }

    /// Sleeps until it is woken, `limit` at most. True if it was.
    fn wait(&self, limit: Duration) -> bool {
        let refusal = lock(&self.refusal);
        let sleep = self.rung.wait_timeout_while(refusal, limit, |refusal| !refusal.wanted);
        std::mem::take(&mut sleep.unwrap_or_else(|poisoned| poisoned.into_inner()).0.wanted)
    }

    /// Refusals until now were of credentials that are in use no longer.
    fn forget(&self) {
        *lock(&self.refusal) = Refusal::default();
    }
}

/// What is known of the credentials in use.
struct Schedule {
    current: Issued,
    /// When they are to be renewed.
    due: Instant,
    /// Fetches since then that brought nothing of use.
    in_vain: u32,
}

impl Schedule {
    fn new(current: Issued, now: Instant, unix_secs: i64) -> Schedule {
        let due = now + time_left(&current, unix_secs).unwrap_or(UNDATED);
        Schedule { current, due, in_vain: 0 }
    }

    /// How long to sleep at least, and at most if nobody rings.
    fn pauses(&self, now: Instant) -> (Duration, Duration) {
        let least = PAUSE_MIN.saturating_mul(1 << self.in_vain.min(16)).min(PAUSE_MAX);
        (least, self.due.saturating_duration_since(now).max(least))
    }

    /// They are over by this machine's clock.
    fn has_ended(&self, unix_secs: i64) -> bool {
        self.current.ends_secs.is_some_and(|ends| ends <= unix_secs)
    }

    /// A fetch came back: whether it brought other credentials.
    fn apply_fetch(&mut self, fetched: Result<Issued, String>, now: Instant, unix_secs: i64) -> bool {
        let issued = match fetched {
            Ok(issued) => issued,
            Err(why) => {
                self.in_vain += 1;
                tracing::warn!(attempts = self.in_vain, "credentials were not renewed: {why}");
                return false;
            }
        };
        let is_new = issued.credentials != self.current.credentials;
        let has_ended = time_left(&issued, unix_secs).is_some_and(|left| left.is_zero());
        if has_ended {
            tracing::warn!("the credentials have ended already by this machine's clock, and the source has no others");
        }
        let later = issued.ends_secs != self.current.ends_secs;
        let in_vain = if (is_new || later || issued.ends_secs.is_none()) && !has_ended { 0 } else { self.in_vain + 1 };
        let due = if is_new || later || issued.ends_secs.is_none() {
            now + time_left(&issued, unix_secs).unwrap_or(UNDATED)
        } else {
            self.due
        };
        *self = Schedule { current: issued, due, in_vain };
        is_new
    }
}

/// Until they are to be renewed; `None` if they have no end, zero if it is over.
fn time_left(issued: &Issued, unix_secs: i64) -> Option<Duration> {
    let life = Duration::from_secs(u64::try_from(issued.ends_secs? - unix_secs).unwrap_or(0));
    Some(life - (life / 3).min(MARGIN_MAX))
}

/// What the thread renews from, and with what.
pub struct RenewalThread {
    /// The engine's own; `None` for keys that stay as they are.
    pub issuer: Option<Box<dyn Issuer>>,
    /// What programs have brought that started later.
    pub later: Arc<Later>,
    /// The engine's own settings.
    pub settings: Settings,
    /// When the credentials in use end, in seconds since 1970; 0 if that is not known.
    pub end_secs: AtomicI64,
}

impl RenewalThread {
    /// Keeps the credentials fresh that the engine began with: others are given to `publish`, with the settings that say how
    /// to sign with them. Never returns.
    pub fn run(&self, renewal: &Renewal, first: Issued, publish: impl Fn(&Settings, Credentials)) {
        let mut schedule = Schedule::new(first, Instant::now(), unix_secs());
        let mut refused: Vec<Credentials> = Vec::new();
        loop {
            self.end_secs.store(schedule.current.ends_secs.unwrap_or(0), Ordering::Relaxed);
            let (least, most) = schedule.pauses(Instant::now());
            std::thread::sleep(least);
            let rung = renewal.wait(most - least);
            let own = self.issuer.as_ref().map(|issuer| issuer.fetch());
            let fetched = match own {
                Some(Ok(issued)) if refused.contains(&issued.credentials) => Err(STILL_REFUSED.to_string()),
                Some(fetched) => fetched,
                None => Ok(schedule.current.clone()),
            };
            if schedule.apply_fetch(fetched, Instant::now(), unix_secs()) {
                tracing::info!(ends_unix_secs = schedule.current.ends_secs, "credentials were renewed");
                publish(&self.settings, schedule.current.credentials.clone());
                renewal.accepted();
            } else if (rung || schedule.has_ended(unix_secs())) && self.change(&mut schedule, &mut refused, &publish) {
                // What was under way with the old ones is refused now.
                std::thread::sleep(SETTLES);
                renewal.forget();
            }
        }
    }

    /// Takes what a later program has brought instead of what is refused; false if there is nothing else.
    fn change(
        &self,
        schedule: &mut Schedule,
        refused: &mut Vec<Credentials>,
        publish: impl Fn(&Settings, Credentials),
    ) -> bool {
        let current = schedule.current.credentials.clone();
        if !refused.contains(&current) {
            refused.push(current.clone());
        }
        let Some(noted) = self.later.newest(refused) else {
            // From the beginning: what was refused may be accepted again.
            *refused = vec![current];
            return false;
        };
        tracing::info!(
            source = noted.from,
            "OSS refuses the credentials in use: those of a later program are used now"
        );
        publish(&noted.settings, noted.issued.credentials.clone());
        *schedule = Schedule::new(noted.issued, Instant::now(), unix_secs());
        true
    }
}

const STILL_REFUSED: &str = "the source still gives what OSS refuses";
/// Requests that were signed with other credentials have ended after this time, or at the next refusal.
const SETTLES: Duration = Duration::from_secs(1);

fn unix_secs() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    fn issued(id: &str, life_secs: Option<i64>) -> Issued {
        let credentials = Credentials {
            access_key_id: id.into(),
            access_key_secret: ossc_sign::Secret::new("s".into()),
            security_token: None,
        };
        Issued { credentials, ends_secs: life_secs.map(|secs| NOW + secs) }
    }

    #[test]
    fn two_thirds_of_a_life_and_a_quarter_of_an_hour_at_most() {
        let millis = |life: i64| time_left(&issued("a", Some(life)), NOW).map(|left| left.as_millis());
        assert_eq!(millis(3), Some(2_000));
        assert_eq!(millis(6), Some(4_000));
        assert_eq!(millis(3_600), Some(2_700_000));
        assert_eq!(millis(36_000), Some(35_100_000));
        assert_eq!(millis(-5), Some(0));
        assert_eq!(time_left(&issued("a", None), NOW), None);
    }

    #[test]
    fn a_source_with_nothing_newer_is_asked_less_and_less_often() {
        let now = Instant::now();
        let mut schedule = Schedule::new(issued("a", Some(6)), now, NOW);
        assert_eq!(schedule.pauses(now), (PAUSE_MIN, Duration::from_secs(4)));
        let late = now + Duration::from_secs(4);
        let mut pauses = Vec::new();
        for in_vain in 0..8 {
            let fetched = if in_vain % 2 == 0 { Err("gone".into()) } else { Ok(issued("a", Some(6))) };
            assert!(!schedule.apply_fetch(fetched, late, NOW + 4));
            pauses.push(schedule.pauses(late).1.as_millis());
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 10000, 10000, 10000]);
        assert!(schedule.apply_fetch(Ok(issued("b", Some(12))), late, NOW + 6));
        assert_eq!(schedule.pauses(late), (PAUSE_MIN, Duration::from_secs(4)));
    }

    #[test]
    fn credentials_that_have_ended_are_used_and_not_fetched_in_a_loop() {
        let now = Instant::now();
        let mut schedule = Schedule::new(issued("a", Some(-10)), now, NOW);
        for round in 1..8 {
            assert!(
                schedule.apply_fetch(Ok(issued(&round.to_string(), Some(-10))), now, NOW),
                "the clock may be wrong"
            );
        }
        assert_eq!(schedule.pauses(now).1, PAUSE_MAX);
    }

    #[test]
    fn a_file_without_an_end_is_looked_at_each_minute() {
        let now = Instant::now();
        let mut schedule = Schedule::new(issued("a", None), now, NOW);
        assert_eq!(schedule.pauses(now).1, UNDATED);
        let later = now + UNDATED;
        assert!(!schedule.apply_fetch(Ok(issued("a", None)), later, NOW));
        assert_eq!(schedule.pauses(later), (PAUSE_MIN, UNDATED));
        assert!(schedule.apply_fetch(Ok(issued("b", None)), later, NOW));
    }

    #[test]
    fn a_ring_ends_the_wait() {
        let renewal = Renewal::default();
        let begin = Instant::now();
        renewal.ring(begin);
        assert!(renewal.wait(Duration::from_secs(60)));
        assert!(begin.elapsed() < Duration::from_secs(30));
        assert!(!renewal.wait(Duration::from_millis(1)));
    }

    #[test]
    fn a_refusal_lasts_until_others_are_in_use() {
        let (renewal, now) = (Renewal::default(), Instant::now());
        let later = now + Duration::from_secs(7);
        assert_eq!((renewal.ring(now), renewal.ring(later)), (Duration::ZERO, Duration::from_secs(7)));
        renewal.accepted();
        assert_eq!(renewal.ring(later), Duration::ZERO);
    }

    #[test]
    fn refused_credentials_are_probed_and_not_used_in_a_loop() {
        let (renewal, now) = (Renewal::default(), Instant::now());
        assert_eq!(renewal.blocked_until(now), None);
        renewal.ring(now);
        let probe = now + PROBE_EVERY;
        assert_eq!(
            (renewal.blocked_until(now), renewal.blocked_until(probe), renewal.blocked_until(probe)),
            (Some(probe), None, Some(probe + PROBE_EVERY))
        );
        renewal.ring(probe);
        assert_eq!(renewal.blocked_until(probe), Some(probe + PROBE_EVERY), "a refusal of the probe changes nothing");
        renewal.accepted();
        assert_eq!(renewal.blocked_until(probe), None);
    }
}
