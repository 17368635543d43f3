//! How far the check of a large object is, and which of its blocks are here or on their way.
//!
//! Kept with what is known of the object, under its lock `check`. The objects wing decides by it what a part means, the
//! transfers wing what is asked for in blocks, and the residency wing what is given back. Plain state.

use crate::lock::lock;
use crate::work::shared::brought::Whole;
use crate::work::shared::entry::RegisterEntry;
use ossc_cache::block::Mask;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// See the module.
#[derive(Default)]
pub struct Check {
    /// Parts whose CRC-64 is known in this round.
    pub known: u32,
    /// OSS has said what CRC-64 the whole has, or that it keeps none. Without that no verdict is given.
    pub(crate) is_told: bool,
    /// All was fetched again since a mismatch.
    pub again: bool,
    /// Parts that came with other bytes than the verified ones, and are fetched again: how often they came so.
    pub(crate) wrong: BTreeMap<u32, u32>,
    /// Parts that a supply has failed to bring: OSS is asked for them.
    pub(crate) missed: BTreeSet<u32>,
    /// Parts that have blocks, here or on their way.
    pub(crate) small: BTreeMap<u32, Small>,
    /// Processes that were given bytes in a round that ended in a mismatch.
    pub(crate) misled: usize,
}

/// What the engine has in hand of the blocks of one part.
#[derive(Default)]
pub(crate) struct Small {
    /// Blocks in the plan or under way.
    pub asked: Mask,
    /// Bytes of the budget that those have which are there.
    pub bytes: u64,
    /// Since when there was no room for one.
    pub roomless: Option<Instant>,
}

impl Check {
    /// An arrival tells of the whole object. One without the value takes away nothing that another one said.
    pub(crate) fn hear(&mut self, whole: Whole, entry: &RegisterEntry) {
        let Whole::Said(crc64) = whole else { return };
        self.is_told = true;
        let mut known = lock(&entry.crc64);
        *known = crc64.or(*known);
    }

    /// Another place than OSS may bring this part: none has failed to, and no bytes came that did not match.
    pub(crate) fn may_be_supplied(&self, index: u32) -> bool {
        !self.again && !self.wrong.contains_key(&index) && !self.missed.contains(&index)
    }

    /// Parts whose blocks take memory.
    pub(crate) fn with_memory(&self) -> Vec<u32> {
        self.small.iter().filter(|(_, small)| small.bytes > 0).map(|(index, _)| *index).collect()
    }
}
