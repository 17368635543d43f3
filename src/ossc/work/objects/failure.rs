//! What becomes of a request that has failed: again later, or an error for the readers of its object.
//!
//! Called when a request has ended with an error, and when a failed object may have another chance.

use crate::journal::audit::Fetched;
use crate::order::Order;
use crate::work::objects::Objects;
use crate::work::shared::action::Action;
use crate::work::shared::fill;
use crate::work::shared::held::Held;
use crate::work::shared::item::Item;
use ossc_cache::region::{Object, state};
use ossc_cache::verdict::Judgement;
use ossc_net::Error;
use ossc_net::error::Kind;
use ossc_store::plan::Class;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long requests that OSS refuses for their credentials wait for others, before readers see an error.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(30);

impl Objects {
    /// A request for an object failed, and `attempts` have in a row. `renewing`: for how long all requests have been
    /// waiting for other credentials, if those may help.
    pub fn failed(
        &self,
        item: Item,
        (object, held): (&Object, &Held),
        (error, attempts): (&Error, u32),
        renewing: Option<Duration>,
    ) -> Vec<Action> {
        self.audit.origin(&Fetched {
            key: &held.key,
            etag: &held.etag,
            range: error.range.clone(),
            bytes: 0,
            status: error.status.unwrap_or(0),
            request_id: error.request_id.as_deref().unwrap_or(""),
            crc: None,
        });
        let again = error.retryable() || renewing.is_some();
        let outage = held.in_trouble(self.register.now());
        // A source may also go on giving credentials that are refused.
        let patient = renewing.is_none_or(|waited| waited.max(outage) < RENEWAL_PATIENCE);
        if again && patient && outage < self.options.outage_budget {
            self.region.header().origin_retries.fetch_add(1, Ordering::Relaxed);
            let wait = self.options.backoff.wait(attempts.saturating_sub(1));
            tracing::warn!(attempts, wait_ms = wait.as_millis() as u64, "{error}");
            return vec![Action::PushLater(item, Class::Demand, wait)];
        }
        let errno = error.kind.errno();
        tracing::error!(
            object = held.key,
            etag = held.etag,
            attempts,
            outage_secs = outage.as_secs(),
            "readers get errno {errno}: {error}"
        );
        held.planned.store(false, Ordering::Release);
        object.fail(errno);
        if let Item::Blocks(_, index, first, count) = item
            && object.state() == state::FAILED
        {
            fill::asked_no_more(held, index, (first, count));
        }
        if matches!(error.kind, Kind::Changed | Kind::NotFound | Kind::Range) && !object.is_superseded() {
            // The folder is listed again, so that a later open finds the new version. Without the thread
            // that lists, the engine is ending.
            let asked_ms = ossc_cache::sys::now_ms();
            let _ = self.orders.send(Order::Refresh { folder: held.folder.clone(), asked_ms });
        }
        let mut actions = vec![Action::SmallIsOver(item.record())];
        // What this machine lacked (descriptors, ports, buffers, memory) it may have again.
        if again || matches!(error.kind, Kind::Local | Kind::Memory) {
            actions.push(self.revive_later(item.record()));
        }
        actions
    }

    /// A failed object whose cause may pass is tried again in a while.
    pub fn revive_later(&self, slot: u32) -> Action {
        Action::PushLater(Item::Revive(slot), Class::Near, self.options.revive)
    }

    /// It gets another chance now.
    pub fn revive(&self, slot: u32) -> Option<Action> {
        let object = self.region.object(slot)?;
        // What was wrong twice stays so: nothing that came of it would count.
        let is_wrong = object.verdict.get().judgement == Judgement::Wrong;
        if object.state() != state::FAILED || is_wrong {
            return None;
        }
        // Failures that were under way when it failed are no part of a later outage.
        self.register.held(slot)?.out_of_trouble();
        if object.parts() == 0 {
            object.set_state(state::COMING);
            return Some(Action::FetchSmall(slot));
        }
        object.set_state(state::LOADING);
        self.ask_verdict_again(slot, object)
    }
}
