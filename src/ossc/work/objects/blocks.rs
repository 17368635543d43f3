//! What blocks of a part mean that have come, and a part that has come of which blocks were handed out.
//!
//! Called when a request for blocks has ended, and by `verdict`. A block is copied to its place, on small pages, when its
//! answer has passed its checks and no thread has claimed the part: decided under the object's lock `check`, as what a
//! part means.

use crate::lock::lock;
use crate::work::objects::Objects;
use crate::work::shared::action::Action;
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::fill;
use crate::work::shared::item::Item;
use ossc_cache::block;
use ossc_cache::part::EMPTY;
use ossc_cache::region::{Object, state};
use ossc_cache::sys::Errno;
use ossc_cache::verdict::Judgement;
use ossc_net::error::{FailureKind, Phase};
use ossc_net::{Error, crc};
use ossc_store::plan::Class;
use std::ops::Range;
use std::sync::atomic::Ordering;

const BLOCK_WRONG: &str = "a block came with other bytes than before: fetching its part";

impl Objects {
    /// These blocks have come, and have room. What is to be done then.
    pub fn blocks_came(&self, item: Item, body: &[u8]) -> Vec<Action> {
        let Item::Blocks(slot, index, first, count) = item else { return Vec::new() };
        let Some((object, entry)) = self.register.get(slot) else { return Vec::new() };
        let range = object.block_range(index, first, first + count);
        let give = || lock(&entry.room).give(range.end - range.start);
        match self.take_blocks((slot, object, &entry), (index, first, body)) {
            Ok(None) => Vec::new(),
            // No reader wants them any more, or they are of no use.
            Ok(Some(instead)) => {
                give();
                instead
            }
            Err(error) => {
                give();
                lock(&entry.check).small.entry(index).or_default().asked |= block::mask(first, first + count);
                let attempts = entry.failed_again(index);
                vec![Action::Fail(item, Box::new(error), attempts)]
            }
        }
    }

    /// Blocks from `first` on have come. `None` if they are kept; else what is to be done instead.
    fn take_blocks(
        &self,
        (slot, object, entry): (u32, &Object, &RegisterEntry),
        (index, first, body): (u32, u32, &[u8]),
    ) -> Result<Option<Vec<Action>>, Error> {
        let whole_part = || vec![Action::Push(vec![Item::Part(slot, index)], Class::Demand)];
        let mut check = lock(&entry.check);
        let (part, judged) = (self.region.part(object, index), object.verdict.get());
        let Some(blocks) = self.region.blocks(object, index).filter(|_| part.state() == EMPTY) else {
            return Ok(Some(Vec::new()));
        };
        let kept = lock(&entry.kept_parts).contains(&index);
        if judged.judgement == Judgement::Wrong || kept || object.state() == state::GONE {
            return Ok(Some(Vec::new()));
        }
        let sums: Vec<u64> = body.chunks(object.block_bytes() as usize).map(|bytes| self.sum_of(bytes)).collect();
        let other = (first..).zip(&sums).find(|(n, sum)| {
            let block = blocks.block(*n);
            block.is_known(judged.round) && block.crc64() != **sum
        });
        if let Some((n, found)) = other {
            let pair = (blocks.block(n).crc64(), *found);
            if judged.judgement == Judgement::Open {
                let old = self.mismatch(slot, object, entry, &mut check, pair);
                drop(check);
                return Ok(Some(self.fetch_again((slot, object, entry), old)));
            }
            // Its part is known: what comes of that is compared, and fails the object where it is wrong again.
            drop(check);
            tracing::warn!(object = entry.key, etag = entry.etag, index, block = n, phase = "CRC", "{BLOCK_WRONG}");
            return Ok(Some(whole_part()));
        }
        // One that was known, and whose part is known by now, is no other; one that was not must not come so late.
        let mask = block::mask(first, first + sums.len() as u32);
        if !fill::may_come_alone(&self.register, object, index, blocks, mask) {
            return Ok(Some(whole_part()));
        }
        let start = object.block_range(index, first, first).start;
        if let Some(memory) = &entry.memory {
            memory.write_small(start, body).map_err(|errno| no_pages(entry, start, body.len(), errno))?;
        }
        (first..).zip(&sums).for_each(|(n, sum)| blocks.learn(n, *sum, judged.round));
        blocks.publish(mask);
        self.region.header().clock.fetch_add(1, Ordering::Relaxed);
        part.stir();
        check.small.entry(index).or_default().bytes += body.len() as u64;
        entry.block_bytes.fetch_add(body.len() as u64, Ordering::AcqRel);
        self.register.block_bytes.fetch_add(body.len() as u64, Ordering::AcqRel);
        Ok(None)
    }

    fn sum_of(&self, bytes: &[u8]) -> u64 {
        if self.options.verify_crc { crc::of(bytes) } else { 0 }
    }

    /// Bytes that are in memory.
    fn sum_in_memory(&self, entry: &RegisterEntry, range: Range<u64>) -> Option<u64> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        entry.memory.as_ref()?.read(range.start, &mut bytes).ok()?;
        Some(crc::of(&bytes))
    }

    /// A part that has blocks has come as a whole: what was known of them, and is not so (known and found CRC-64). From now
    /// on all of them are known, so that they may come alone again.
    pub(super) fn compare_blocks(
        &self,
        object: &Object,
        entry: &RegisterEntry,
        index: u32,
        round: u32,
    ) -> Option<(u64, u64)> {
        let blocks = self.region.blocks(object, index).filter(|_| self.options.verify_crc)?;
        let mut other = None;
        for n in 0..object.blocks_len(index) {
            let block = blocks.block(n);
            // What cannot be read cannot be what readers were given.
            let Some(found) = self.sum_in_memory(entry, object.block_range(index, n, n + 1)) else {
                return Some((block.crc64(), 0));
            };
            if block.is_known(round) && block.crc64() != found {
                other = other.or(Some((block.crc64(), found)));
            } else {
                blocks.learn(n, found, round);
            }
        }
        other
    }

    /// How many parts of an object readers were given before the verdict of this round, at least a block of each.
    pub(super) fn handed_parts(&self, object: &Object, round: u32) -> u32 {
        let of_blocks = |index: &u32| {
            let is_counted = self.region.part(object, *index).is_handed_out(round);
            !is_counted && self.region.blocks(object, *index).is_some_and(|blocks| blocks.is_handed_out(round))
        };
        self.region.traces(object).handed.count(round) + (0..object.parts()).filter(of_blocks).count() as u32
    }
}

fn no_pages(entry: &RegisterEntry, start: u64, len: usize, errno: Errno) -> Error {
    let os = std::io::Error::from_raw_os_error(errno.0);
    let mut error = Error::new(FailureKind::Memory, Phase::Body, format!("make pages: {os}"));
    (error.object, error.range) = (entry.key.as_str().into(), Some(start..start + len as u64));
    error
}
