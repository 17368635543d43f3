//! Objects that only their owner can make readable: archived ones, and those that OSS denies.
//!
//! Called by the mirror for what a listing says. It makes no request.

use crate::work::objects::Objects;
use crate::work::shared::action::Action;
use crate::work::shared::item::Item;
use ossc_cache::region::state;
use ossc_net::error::Kind;
use ossc_net::list::ObjectEntry;
use ossc_store::plan::Class;
use std::sync::atomic::Ordering;

impl Objects {
    /// An object that only its owner can make readable: no request is made for it.
    pub fn refuse_archived(&self, slot: u32, entry: &ObjectEntry) {
        let (errno, advice) = (Kind::Archived.errno(), Kind::Archived.row().advice);
        tracing::warn!(
            object = entry.key,
            class = entry.storage_class,
            "archived and not restored, programs get errno {errno}: {advice}"
        );
        self.region.object(slot).into_iter().for_each(|object| object.fail(errno));
    }

    /// An object is listed again as it was: if programs were denied it, it gets another chance, since the owner
    /// may have restored it or granted it.
    pub fn reconsider(&self, slot: u32, etag: &str) -> Option<Action> {
        let object = self.region.object(slot)?;
        let denied = [Kind::Archived, Kind::Permission, Kind::Auth].map(|kind| kind.errno() as u32);
        let is_denied = object.state() == state::FAILED && denied.contains(&object.errno.load(Ordering::Acquire));
        (is_denied && object.etag() == etag).then(|| Action::Push(vec![Item::Revive(slot)], Class::Near))
    }
}
