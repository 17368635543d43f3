//! Objects that only their owner can make readable: archived ones, and those that OSS denies.
//!
//! Called by the mirror for what a listing says. It makes no request.

use crate::work::objects::Objects;
use crate::work::shared::action::Action;
use ossc_cache::region::state;
use ossc_net::error::FailureKind;
use ossc_net::list::ObjectEntry;
use std::sync::atomic::Ordering;

impl Objects {
    /// An object that only its owner can make readable: no request is made for it.
    pub fn refuse_archived(&self, slot: u32, entry: &ObjectEntry) {
        let (errno, advice) = (FailureKind::Archived.errno(), FailureKind::Archived.row().advice);
        tracing::warn!(
            object = entry.key,
            class = entry.storage_class,
            "archived and not restored, programs get errno {errno}: {advice}"
        );
        self.region.object(slot).into_iter().for_each(|object| object.fail(errno));
    }

    /// An object is listed again as it was: if it was given up it gets another chance, since what was wrong may have
    /// passed, and its owner may have restored it or granted it. One that fails again and again waits longer each time:
    /// the look at the listing that its failure causes must not be what revives it, or the next one.
    pub fn reconsider(&self, slot: u32, etag: &str) -> Option<Action> {
        let object = self.region.object(slot)?;
        let is_same = object.state() == state::FAILED && object.etag() == etag && !object.is_in_the_way();
        let denied =
            [FailureKind::Archived, FailureKind::Permission, FailureKind::Auth].map(|kind| kind.errno() as u32);
        let is_due = denied.contains(&object.errno.load(Ordering::Acquire))
            || self.register.entry(slot).is_some_and(|entry| entry.may_revive(self.register.now()));
        (is_same && is_due).then(|| self.revive(slot)).flatten()
    }

    /// A program has opened an object: one that was given up gets another chance. All of an object whose bytes were wrong
    /// would be fetched for each open, so that one waits longer each time.
    pub fn opened_again(&self, slot: u32) -> Option<Action> {
        let object = self.region.object(slot)?;
        // What its owner has to act for is asked for when a listing shows that it may be had.
        let is_denied = object.errno.load(Ordering::Acquire) == FailureKind::Archived.errno() as u32;
        let is_given_up = object.state() == state::FAILED && !object.is_superseded() && !object.is_in_the_way();
        let entry = self.register.entry(slot)?;
        let is_due = !entry.is_mismatched() || entry.may_revive(self.register.now());
        (is_given_up && !is_denied && is_due).then(|| self.revive(slot)).flatten()
    }
}
