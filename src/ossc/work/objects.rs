//! The objects wing: the life of records, the verdict on what has come, and failures.
//!
//! Called by the work and by the mirror. It asks OSS for nothing itself: what is to be fetched again it returns.

mod blocks;
mod denied;
mod failure;
pub mod records;
mod verdict;

use crate::journal::audit::Audit;
use crate::order::Order;
use crate::work::shared::options::WorkOptions;
use crate::work::shared::register::Register;
use crate::work::shared::sparing::Sparing;
use ossc_cache::region::Region;
use std::collections::BTreeSet;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use verdict::Misread;

/// See the module.
pub struct Objects {
    register: Arc<Register>,
    region: Region,
    options: WorkOptions,
    /// Records of versions that a newer listing does not name: they go when no program uses them.
    superseded: Mutex<BTreeSet<u32>>,
    /// Rounds that ended in a mismatch and are not told of yet.
    misreads: Mutex<Vec<(u32, Misread)>>,
    sparing: Sparing,
    audit: Audit,
    orders: Sender<Order>,
}

impl Objects {
    /// No version is old yet. Orders to list folders go to `orders`.
    pub fn new(register: Arc<Register>, audit: Audit, orders: Sender<Order>) -> Objects {
        Objects {
            region: register.region,
            options: register.options,
            register,
            superseded: Mutex::default(),
            misreads: Mutex::default(),
            sparing: Sparing::default(),
            audit,
            orders,
        }
    }

    /// A program has opened an object, or waits for it: the thread that lists folders hears of it. Without it the engine
    /// is ending.
    pub fn tell_use(&self, slot: u32, pid: Option<u32>) {
        let _ = self.orders.send(Order::Used { slot, pid });
    }
}
