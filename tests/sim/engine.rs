//! One engine: the product's work, demand look and vcpus, put together as `src/ossc/engine.rs` does, on simulated
//! memory and network. A takeover makes another one on the same region.
//!
//! Owned by the world. The mirror's part in it (records, listings, files of small objects) is the world's.

use crate::memory::ObjectMemory;
use crate::stage::{self, Shared, Truth};
use crate::supply::Neighbour;
use crate::watch::Watch;
use ossc_cache::region::{NewObject, RecordKind, Region, state};
use ossc_engine::journal::audit::Audit;
use ossc_engine::order::Order;
use ossc_engine::work::demand::Looked;
use ossc_engine::work::shared::entry::RegisterEntry;
use ossc_engine::work::shared::item::Arrived;
use ossc_engine::work::supplies::Supply;
use ossc_engine::work::{Work, WorkOptions, takeover};
use ossc_net::sim::{self, Net};
use ossc_net::{Origin, Source};
use ossc_store::budget::Budget;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

/// Page of the simulated memory, in bytes.
pub const PAGE_BYTES: u64 = 4096;
/// Devices of placeholders and memory files.
const DEV: u64 = 1;

/// See the module.
pub struct Engine {
    /// The engine's work.
    pub work: Arc<Work>,
    /// What stands before it.
    pub watch: Arc<Watch>,
    /// Its vcpus.
    pub net: Net,
    /// Its other place that brings parts.
    pub neighbour: Neighbour,
    /// Its look at the demand.
    pub looked: Looked,
    /// Small objects whose bytes are here.
    pub arrived: Receiver<Arrived>,
    /// Folders to be listed again.
    pub orders: Receiver<Order>,
}

/// What an engine is started with.
#[derive(Clone)]
pub struct Setup {
    /// Vcpus, connections, patience.
    pub net: ossc_net::VcpuOptions,
    /// As the engine's configuration says.
    pub work: WorkOptions,
    /// Bytes of the budget.
    pub limit: u64,
}

/// Addresses of the endpoint.
pub fn addresses(ports: std::ops::RangeInclusive<u16>) -> Vec<SocketAddr> {
    ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
}

impl Engine {
    /// A new one, with nothing to do yet.
    pub fn new(region: Region, setup: &Setup, stage: &Shared) -> Engine {
        let (sender, arrived) = channel();
        let (order, orders) = channel();
        let budget = Budget::new(setup.limit);
        let neighbour = Neighbour::new(stage.clone());
        let supplies: Vec<Box<dyn Supply>> = vec![Box::new(neighbour.clone())];
        let work = Arc::new(Work::new(region, budget, Audit::new(None, "b"), (sender, order), supplies, setup.work));
        let origin = Origin::new(addresses(1..=2), "b.oss", "b");
        let watch = Arc::new(Watch::new(work.clone(), stage.clone()));
        let source: Arc<dyn Source> = watch.clone();
        let net = Net::new(&Arc::new(origin), &source, setup.net).expect("an eventfd");
        work.scheduling.set_vcpus(net.handle());
        Engine { work, watch, net, neighbour, looked: Looked::default(), arrived, orders }
    }

    /// Gives a large object its record, as the mirror does. `truth.slot` is set here.
    pub fn take_in(&self, stage: &Shared, key: &str, mut truth: Truth) -> u32 {
        let region = self.work.region();
        let is_large = !truth.parts.is_empty();
        let slot = region.objects_len();
        let new = NewObject {
            kind: if is_large { RecordKind::Large } else { RecordKind::Small },
            state: if is_large { state::LOADING } else { state::COMING },
            name: key,
            etag: &truth.etag,
            size: truth.size,
            part_bytes: if is_large { truth.part_bytes as u32 } else { 0 },
            mtime_secs: 0,
            dev: DEV,
            ino: u64::from(slot) + 1,
            folder: 0,
        };
        let appended = region.append(&new).expect("room in the region");
        assert_eq!(appended, slot, "records are numbered in order");
        truth.slot = slot;
        let entry = entry(stage, region, key, &truth);
        let mut guard = stage::lock(stage);
        guard.truths.push(truth);
        guard.ways += 1;
        drop(guard);
        self.work.add_object(slot, entry);
        if !is_large {
            self.work.act(self.work.transfers.materializer.fetch(slot));
        }
        slot
    }

    /// Takes the records of an engine that is gone over, as the mirror does.
    pub fn adopt(&self, stage: &Shared, keys: &[String]) {
        let records: Vec<(u32, RegisterEntry, bool)> = {
            let guard = stage::lock(stage);
            let of = |truth: &Truth| {
                (truth.slot, entry(stage, self.work.region(), &keys[truth.thing], truth), !truth.parts.is_empty())
            };
            guard.truths.iter().map(of).collect()
        };
        stage::lock(stage).ways += records.len();
        let mut wanted = Vec::new();
        for (slot, entry, is_large) in records {
            let Some(object) = self.work.region().object(slot) else { continue };
            if is_large {
                if takeover::adopt(&self.work, slot, object, entry) {
                    wanted.push(slot);
                }
            } else if matches!(object.state(), state::COMING | state::FAILED) {
                self.work.add_object(slot, entry);
                object.set_state(state::COMING);
                self.work.act(self.work.transfers.materializer.fetch(slot));
            }
        }
        self.work.prefetch(&wanted);
    }
}

fn entry(stage: &Shared, region: &Region, key: &str, truth: &Truth) -> RegisterEntry {
    let mut entry = RegisterEntry::new(key.into(), truth.etag.clone(), truth.size, 0, (String::new(), key.into()));
    if !truth.parts.is_empty() {
        entry.memory =
            Some(Box::new(ObjectMemory::new(stage.clone(), *region, truth.slot, truth.at, truth.size as usize)));
    }
    entry
}

/// The clock of all engines.
pub fn clock() -> fn() -> std::time::Instant {
    sim::now
}
