//! When OSS has been away and answers again: requests and threads that sleep out a pause after a failure go on at once.
//!
//! Called when a request ends or bytes come again, and by threads that pause. The first success after a time without one
//! ends the pauses of all, but not of those that OSS asks to come later.

use crate::lock::lock;
use crate::work::scheduling::Scheduling;
use crate::work::shared::item::Item;
use ossc_net::error::FailureKind;
use ossc_net::{Error, Finished};
use ossc_store::plan::Class;
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// OSS was away if requests failed and none succeeded for so long: single failures beside successes keep their pauses,
/// however many others succeed.
const AWAY_AFTER: Duration = Duration::from_secs(1);

/// Requests that began before OSS was back fail for so long yet (the longest deadline by default, and the look at it):
/// the first pause of each is short.
const STRAGGLERS: Duration = Duration::from_secs(12);
const STRAGGLER_PAUSE_MAX: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Default)]
pub(super) struct Recovery {
    state: Mutex<Reachability>,
    back: Condvar,
}

#[derive(Default)]
struct Reachability {
    good: Option<Instant>,
    /// Requests have failed since then.
    failed: bool,
    /// How often OSS has come back.
    returns: u64,
    returned: Option<Instant>,
    /// What has had its short pause since then.
    hurried: BTreeSet<Item>,
    /// What was put off since OSS was away, or seemed so.
    paused: BTreeSet<Item>,
}

impl Recovery {
    /// A request has ended so. What goes on now, if OSS is back with that.
    fn ended(&self, result: Result<(), FailureKind>, now: Instant) -> Option<BTreeSet<Item>> {
        let mut state = lock(&self.state);
        match result {
            Ok(()) => {
                let last = state.good.replace(now);
                let is_back = state.failed && last.is_none_or(|last| now >= last + AWAY_AFTER);
                if !is_back {
                    return None;
                }
                // Not before: other requests may fail in the same moment, and wait.
                state.failed = false;
                state.returns += 1;
                state.returned = Some(now);
                state.hurried = std::mem::take(&mut state.paused);
                self.back.notify_all();
                Some(state.hurried.clone())
            }
            Err(kind) => {
                state.failed |= is_outage(kind);
                None
            }
        }
    }

    /// Sleeps for as long, or until OSS is back.
    pub fn pause(&self, pause: Duration) {
        let state = lock(&self.state);
        let before = state.returns;
        let is_same = |state: &mut Reachability| state.returns == before;
        drop(self.back.wait_timeout_while(state, pause, is_same).unwrap_or_else(PoisonError::into_inner));
    }
}

/// What a network or server that is away looks like, and passes with it.
fn is_outage(kind: FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::Network
            | FailureKind::Timeout
            | FailureKind::Server
            | FailureKind::Resolve
            | FailureKind::Protocol
    )
}

impl Scheduling {
    /// Puts an item off after a failure.
    pub fn put_off(&self, item: Item, class: Class, mut wait: Duration, error: &Error) {
        if is_outage(error.kind) {
            let (now, mut state) = ((self.options.now)(), lock(&self.recovery.state));
            state.paused.insert(item);
            if state.returned.is_some_and(|at| now < at + STRAGGLERS) && state.hurried.insert(item) {
                wait = wait.min(STRAGGLER_PAUSE_MAX);
            }
        }
        self.push_later(item, class, wait);
    }

    /// A request has ended: where OSS is back with that, pauses are over.
    pub(super) fn recover(&self, done: &Finished, now: Instant) {
        self.recovered(done.result.as_ref().map(|_| ()).map_err(|error| error.kind), now);
    }

    /// So they are where bytes come again: the answers that they are of may take long.
    pub fn flows_again(&self, now: Instant) {
        self.recovered(Ok(()), now);
    }

    fn recovered(&self, result: Result<(), FailureKind>, now: Instant) {
        let Some(paused) = self.recovery.ended(result, now) else { return };
        if !paused.is_empty() {
            lock(&self.plan).hurry(now, |item| paused.contains(item));
            tracing::info!(requests = paused.len(), "OSS answers again: what waited for it goes on");
            self.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_success_after_a_time_without_one_ends_the_pauses() {
        let (recovery, begin) = (Recovery::default(), Instant::now());
        let at = |ms| begin + Duration::from_millis(ms);
        let item = Item::Part(1, 2);
        let put_off = || lock(&recovery.state).paused.insert(item);
        assert_eq!(recovery.ended(Ok(()), at(0)), None);
        put_off();
        assert_eq!(recovery.ended(Err(FailureKind::Server), at(900)), None);
        assert_eq!(recovery.ended(Ok(()), at(950)), None, "single failures beside successes");
        let first = recovery.ended(Ok(()), at(2000));
        assert_eq!(first, Some(BTreeSet::from([item])), "others failed in the moment of a success, and wait");
        assert_eq!(recovery.ended(Err(FailureKind::Throttled), at(5000)), None);
        assert_eq!(recovery.ended(Ok(()), at(5100)), None, "OSS was not away: it asked for less");
        put_off();
        assert_eq!(recovery.ended(Err(FailureKind::Timeout), at(9000)), None);
        assert_eq!(recovery.ended(Ok(()), at(9100)), Some(BTreeSet::from([item])));
        assert_eq!(recovery.ended(Ok(()), at(9200)), None);
    }

    #[test]
    fn who_sleeps_wakes_when_oss_is_back() {
        let (recovery, begin) = (Recovery::default(), Instant::now());
        std::thread::scope(|scope| {
            scope.spawn(|| recovery.pause(Duration::from_secs(60)));
            while begin.elapsed() < Duration::from_millis(50) {
                std::thread::sleep(Duration::from_millis(5));
            }
            recovery.ended(Err(FailureKind::Network), begin);
            recovery.ended(Ok(()), begin);
        });
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
}
