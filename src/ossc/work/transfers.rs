//! The transfers wing: requests for bytes, and what their ends mean for what they are of.
//!
//! Called by the work on vcpu threads. Each of its rooms asks for one kind of bytes: parts of large objects in pieces,
//! blocks of a part, and small objects; `supplies` asks other places than OSS for parts. It sends nothing itself and decides nothing about the order.

pub mod blocks;
pub mod flight;
mod hedge;
pub mod materialize;
pub mod pieces;
mod reach;
pub mod supplies;

use crate::journal::audit::Audit;
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::item::Arrived;
use crate::work::shared::register::Register;
use blocks::BlockReads;
use materialize::Materializer;
use ossc_net::Query;
use pieces::Pieces;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use supplies::{Supplies, Supply};

/// See the module.
pub struct Transfers {
    pub pieces: Pieces,
    pub blocks: BlockReads,
    pub materializer: Materializer,
    pub supplies: Supplies,
}

impl Transfers {
    /// Nothing is under way yet. Small objects go to `arrived`.
    pub fn new(
        register: &Arc<Register>,
        audit: &Audit,
        arrived: Sender<Arrived>,
        supplies: Vec<Box<dyn Supply>>,
    ) -> Transfers {
        Transfers {
            pieces: Pieces::new(register.clone()),
            blocks: BlockReads::new(register.clone()),
            materializer: Materializer::new(register.clone(), audit.clone(), arrived),
            supplies: Supplies::new(register.clone(), audit.clone(), supplies),
        }
    }
}

/// Asks for a range of an object, of the version that it was listed as.
fn query(entry: &RegisterEntry, range: Range<u64>) -> Query {
    Query::Get { key: entry.key.clone(), range: Some(range), etag: Some(entry.etag.clone()), size: entry.size }
}
