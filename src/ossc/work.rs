//! The work of the engine: joins its four wings.
//!
//! Called on vcpu threads (`source`), by the demand thread, the lease thread and the mirror. Scheduling says
//! which request is next, residency whether it has room, transfers what is asked for, and objects what came of it. No wing
//! knows another: what one asks of another is an action, which is done here. It does no disk I/O and never waits.

pub mod demand;
pub mod gauges;
pub mod leases;
pub mod objects;
mod requests;
pub mod residency;
pub mod scheduling;
pub mod shared;
mod source;
#[cfg(test)]
pub mod still;
pub mod takeover;
pub mod transfers;

pub use scheduling::Patience;
pub use shared::options::WorkOptions;
pub use transfers::supplies;

use crate::journal::audit::Audit;
use crate::order::Order;
use objects::Objects;
use ossc_cache::region::Region;
use ossc_store::budget::Budget;
use ossc_store::plan::Class;
use residency::Residency;
use scheduling::{Scheduling, order};
use shared::action::Action;
use shared::entry::RegisterEntry;
use shared::item::Arrived;
use shared::register::Register;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use supplies::Supply;
use transfers::Transfers;

/// See the module.
pub struct Work {
    pub register: Arc<Register>,
    pub scheduling: Scheduling,
    pub transfers: Transfers,
    pub residency: Residency,
    pub objects: Objects,
    pub(crate) audit: Audit,
    /// Held while the leases are looked at, and while versions end.
    looking: Mutex<()>,
}

impl Work {
    /// No work yet. Small objects go to `arrived`, orders to list folders to `orders`.
    pub fn new(
        region: Region,
        budget: Budget,
        audit: Audit,
        (arrived, orders): (Sender<Arrived>, Sender<Order>),
        supplies: Vec<Box<dyn Supply>>,
        options: WorkOptions,
    ) -> Work {
        let register = Arc::new(Register::new(region, options));
        Work {
            scheduling: Scheduling::new(options),
            transfers: Transfers::new(&register, &audit, arrived, supplies),
            residency: Residency::new(register.clone(), budget),
            objects: Objects::new(register.clone(), audit.clone(), orders),
            looking: Mutex::default(),
            register,
            audit,
        }
    }

    /// The public records.
    pub fn region(&self) -> &Region {
        &self.register.region
    }

    /// What is known of a record.
    pub fn entry(&self, slot: u32) -> Option<Arc<RegisterEntry>> {
        self.register.entry(slot)
    }

    /// Takes an object in.
    pub fn add_object(&self, slot: u32, entry: RegisterEntry) {
        if entry.memory.is_some() {
            self.objects.excuse(slot);
        }
        self.residency.count_in(&entry);
        self.register.take_in(slot, entry);
    }

    /// Fetches whole large objects ahead of their readers, in this order.
    pub fn prefetch(&self, slots: &[u32]) {
        self.act([order::ahead(&self.register, slots)]);
    }

    /// A reader waits for this part, given as its index in the region.
    pub fn demanded(&self, region_part: u32) {
        self.act(order::demanded(&self.register, region_part));
    }

    /// Looks at what supplies have brought.
    pub fn supplied(&self) {
        self.transfers.supplies.look(|action| self.act_one(action));
    }

    /// Does what wings have left to others, in their order.
    pub fn act(&self, actions: impl IntoIterator<Item = Action>) {
        actions.into_iter().for_each(|action| self.act_one(action));
    }

    fn act_one(&self, action: Action) {
        match action {
            Action::Push(items, class) => self.scheduling.push(&items, class),
            Action::PushFirst(item, class) => self.scheduling.push_first(item, class),
            Action::PushLater(item, class, wait) => self.scheduling.push_later(item, class, wait),
            Action::PutOff(item, class, wait, error) => self.scheduling.put_off(item, class, wait, &error),
            Action::Cancel(item) => self.scheduling.cancel(item),
            Action::Hurry(slot, index) => {
                let pieces = self.transfers.pieces.hurry(slot, index);
                if !pieces.is_empty() {
                    self.scheduling.push(&pieces, Class::Demand);
                }
            }
            Action::MakeWay(slot, parts) => {
                let Some(object) = self.register.region.object(slot) else { return };
                self.act(self.transfers.pieces.make_way(object, parts, self.scheduling.under_way()));
            }
            Action::Fail(item, error, attempts) => {
                let Some((object, entry)) = self.register.get(item.record()) else { return };
                let renewing = self.scheduling.renews(&error);
                self.act(self.objects.failed(item, (object, &entry), (&error, attempts), renewing));
            }
            Action::Abandon(slot, index) => self.act(self.transfers.pieces.abandon(slot, index)),
            Action::End(slot, index, result) => {
                let Some((object, entry)) = self.register.get(slot) else { return };
                self.act(self.objects.part_ended((slot, object, &entry), index, *result));
            }
            Action::Blocks(item, body) => self.act(self.objects.blocks_came(item, &body)),
            Action::ListAgain(slot) => {
                if let Some(entry) = self.entry(slot) {
                    self.objects.list_again(&entry);
                }
            }
            Action::NewConnections => self.scheduling.renew_connections(),
            Action::FetchSmall(slot) => self.act(self.transfers.materializer.fetch(slot)),
            Action::SmallIsOver(slot) => {
                self.entry(slot).iter().for_each(|entry| self.transfers.materializer.is_over(entry))
            }
        }
    }
}
