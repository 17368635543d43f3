//! What becomes of a request that has failed: again later, or an error for the readers of its object.
//!
//! Called when a request has ended with an error, and when a failed object may have another chance.

use crate::order::Order;
use crate::work::objects::Objects;
use crate::work::shared::action::Action;
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::fill;
use crate::work::shared::item::Item;
use ossc_cache::region::{Object, state};
use ossc_net::Error;
use ossc_net::error::FailureKind;
use ossc_store::plan::Class;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long requests that OSS refuses for their credentials wait for others, before readers see an error.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(30);

/// Longest pause of a request that this machine had no port, buffer or descriptor for: another connection may give its
/// own back at any time.
const SHORTAGE_WAIT_MAX: Duration = Duration::from_secs(1);

/// Doubtful answers in a row after which an object is given up, whether its folder could be listed meanwhile or not.
const DOUBTS_MAX: u32 = 7;
/// Longest pause between them.
const DOUBT_WAIT_MAX: Duration = Duration::from_secs(2);

impl Objects {
    /// A request for an object failed, and `attempts` have in a row. `renewing`: for how long all requests have been
    /// waiting for other credentials, if those may help.
    pub fn failed(
        &self,
        item: Item,
        (object, entry): (&Object, &RegisterEntry),
        (error, attempts): (&Error, u32),
        renewing: Option<Duration>,
    ) -> Vec<Action> {
        let again = error.retryable() || renewing.is_some();
        let outage = entry.in_trouble(self.register.now(), error);
        // A source may also go on giving credentials that are refused.
        let patient = renewing.is_none_or(|waited| waited.max(outage) < RENEWAL_PATIENCE);
        if again && patient && outage < self.options.outage_budget {
            self.region.header().origin_retries.fetch_add(1, Ordering::Relaxed);
            let wait = self.options.backoff.wait(attempts.saturating_sub(1));
            let is_short = error.kind == FailureKind::Shortage;
            let wait = if is_short { wait.min(SHORTAGE_WAIT_MAX) } else { wait };
            if let Some(more) = self.sparing.line(error.kind, self.register.now()) {
                tracing::warn!(attempts, wait_ms = wait.as_millis() as u64, "{error}{more}");
            }
            return vec![Action::PutOff(item, Class::Demand, wait, Box::new(error.clone()))];
        }
        if let Some(action) = self.doubts(item, (object, entry), error) {
            return vec![action];
        }
        let errno = error.kind.errno();
        tracing::error!(
            object = entry.key,
            etag = entry.etag,
            attempts,
            outage_secs = outage.as_secs(),
            "readers get errno {errno}: {error}"
        );
        self.give_up(object, entry, error);
        if let Item::Blocks(_, index, first, count) = item
            && object.state() == state::FAILED
        {
            fill::asked_no_more(entry, index, (first, count));
        }
        let mut actions = vec![Action::SmallIsOver(item.record())];
        if let Item::Piece(slot, index, _) = item {
            actions.push(Action::Abandon(slot, index));
        }
        // What this machine lacked (descriptors, ports, buffers, memory) it may have again.
        if again || matches!(error.kind, FailureKind::Local | FailureKind::Memory) {
            let revive = Item::Revive(item.record());
            actions.push(Action::PutOff(revive, Class::Near, self.options.revive, Box::new(error.clone())));
        }
        actions
    }

    /// An answer that may be a stray one is asked for again: once at once, on another connection, and then behind a look
    /// at the listing, so that a later open finds a new version. `None` if the object is to be given up: a refusal has
    /// come twice, or the listing names another version or the same, or has not come for as many tries.
    fn doubts(&self, item: Item, (object, entry): (&Object, &RegisterEntry), error: &Error) -> Option<Action> {
        if !error.is_doubtful() || object.is_superseded() {
            entry.doubt_no_more(item.asked());
            return None;
        }
        let is_refusal = error.is_believed_twice();
        let doubt = entry.doubt(item.asked(), |doubt| {
            doubt.answers += 1;
            doubt.refusals += u32::from(is_refusal);
            if doubt.answers >= 2 && doubt.asked_ms == 0 && !is_refusal {
                doubt.asked_ms = self.list_again(entry);
            }
            *doubt
        });
        match doubt.answers {
            n if n == 1 || is_refusal && doubt.refusals == 1 => {
                if let Some(more) = self.sparing.line(error.kind, self.register.now()) {
                    tracing::warn!(
                        "asked once more on another connection, since one answer may be a stray one: {error}{more}"
                    );
                }
                return Some(Action::PushFirst(item, Class::Demand));
            }
            _ if is_refusal => {
                entry.doubt_no_more(item.asked());
                return None;
            }
            2 => {
                tracing::warn!("answered so twice, and the folder is listed before the object is given up: {error}");
            }
            n if n >= DOUBTS_MAX || self.is_listed_since(object, doubt.asked_ms) => {
                entry.doubt_no_more(item.asked());
                return None;
            }
            _ => {}
        }
        let wait = self.options.backoff.ceiling(doubt.answers - 2).min(DOUBT_WAIT_MAX);
        Some(Action::PushLater(item, Class::Demand, wait))
    }

    /// Has the folder of an object listed again; when, in milliseconds of the monotonic clock.
    pub fn list_again(&self, entry: &RegisterEntry) -> u64 {
        let asked_ms = ossc_cache::sys::now_ms();
        // Without the thread that lists, the engine is ending.
        let _ = self.orders.send(Order::Refresh { folder: entry.folder.clone(), asked_ms });
        asked_ms
    }

    /// Readers of an object get an error from now on.
    pub(super) fn give_up(&self, object: &Object, entry: &RegisterEntry, error: &Error) {
        entry.planned.store(false, Ordering::Release);
        object.fail(error.kind.errno());
        entry.give_up(self.register.now(), error);
    }

    /// True if the folder of an object was listed, and that listing was asked for at this time or later.
    fn is_listed_since(&self, object: &Object, asked_ms: u64) -> bool {
        let folder = self
            .region
            .object(object.folder())
            .filter(|folder| folder.kind() == ossc_cache::region::RecordKind::Folder);
        folder.is_some_and(|folder| folder.listed_ms.load(Ordering::Acquire) >= asked_ms)
    }

    /// A failed object whose cause may pass is tried again in a while.
    pub fn revive_later(&self, slot: u32) -> Action {
        Action::PushLater(Item::Revive(slot), Class::Near, self.options.revive)
    }

    /// It gets another chance now.
    pub fn revive(&self, slot: u32) -> Option<Action> {
        let object = self.region.object(slot)?;
        if object.state() != state::FAILED {
            return None;
        }
        // Failures that were under way when it failed are no part of a later outage, nor of later doubts.
        let entry = self.register.entry(slot)?;
        entry.out_of_trouble();
        entry.forget_doubts();
        if object.parts() == 0 {
            object.set_state(state::COMING);
            return Some(Action::FetchSmall(slot));
        }
        self.judge_anew(object, &entry);
        object.set_state(state::LOADING);
        self.ask_verdict_again(slot, object)
    }
}
