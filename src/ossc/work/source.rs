//! The work as the source that the vcpu threads pull from.
//!
//! Called by the network's vcpus. It does no disk I/O and never waits.

use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::item::Item;
use crate::work::transfers::Transfers;
use crate::work::{Work, requests};
use ossc_net::{Error, Fetch, Finished, Pull, Source};
use ossc_store::plan::{Class, Next};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long items that come to nothing are looked at before the connections have their turn.
const TURN: Duration = Duration::from_millis(2);

impl Source for Work {
    fn pull(&self, now: Instant) -> Pull {
        let least = match self.scheduling.admit(now) {
            Ok(least) => least,
            Err(until) => return Pull::Until(until),
        };
        if let Ok(second) = requests::prepare_second(self, now, false) {
            return Pull::Fetch(second);
        }
        loop {
            match self.scheduling.next(now, least) {
                Next::Item(item, class) => {
                    // Counted before the record is looked at: one that is not GONE by then stays what it is.
                    let entry = entry_of(self, item);
                    entry.iter().for_each(|entry| entry.begin_request_at(now));
                    if let Some(fetch) = requests::prepare(self, item, class) {
                        return Pull::Fetch(Fetch { urgent: class < Class::Prefetch, ..fetch });
                    }
                    entry.iter().for_each(|entry| entry.end_request());
                    // Readers ask again as long as they wait: where it takes long to find that there is no room, they do
                    // so faster than this loop gets done, and the room is in what the connections are about to bring.
                    if self.register.now().saturating_duration_since(now) > TURN {
                        self.scheduling.not_sent();
                        return Pull::Until(Some(now));
                    }
                }
                Next::Until(at) => {
                    return match requests::prepare_second(self, now, least == Class::Prefetch) {
                        Ok(second) => Pull::Fetch(second),
                        Err(look_again) => {
                            self.scheduling.not_sent();
                            Pull::Until([at, look_again].into_iter().flatten().min())
                        }
                    };
                }
            }
        }
    }

    fn finished(&self, done: Finished) {
        let item = Item::from_token(done.token);
        let entry = entry_of(self, item);
        self.scheduling.ended(&done);
        self.register.counters.ended(&done, self.register.now());
        let header = self.register.region.header();
        header.origin_requests.fetch_add(1, Ordering::Relaxed);
        // Of an answer that was cut, too: what has come of it stays.
        if let Some(response) = done.result.as_ref().ok().or(done.partial.as_ref()) {
            header.origin_bytes.fetch_add(response.bytes, Ordering::Relaxed);
        }
        if let Some(entry) = &entry {
            self.audit.ended((&entry.key, &entry.etag), &done);
        }
        let Transfers { pieces, blocks, materializer: small, .. } = &self.transfers;
        match item {
            Item::Part(slot, index) | Item::Again(slot, index) => self.act(pieces.ended(slot, index, 0, done)),
            Item::Piece(slot, index, n) => self.act(pieces.ended(slot, index, n, done)),
            Item::Hedge(slot, index, n, chunk) => self.act(pieces.second_ended((slot, index, n, chunk), done)),
            Item::Blocks(..) => self.act(blocks.ended(item, done)),
            Item::Small(slot, index) => self.act(small.ended(slot, index, done)),
            Item::Verdict(slot) => self.act(self.objects.verdict_ended(slot, done)),
            Item::Call(id) | Item::Revive(id) => self.scheduling.answered(id, done),
        }
        entry.iter().for_each(|entry| entry.end_request());
    }

    fn flows_again(&self, now: Instant) {
        self.scheduling.flows_again(now);
    }

    fn make_present(&self, token: u64, filled: usize, bytes: Range<usize>) -> Result<(), Error> {
        self.transfers.pieces.populate(Item::from_token(token), filled, bytes)
    }
}

/// What is known of the record that an item is of.
fn entry_of(work: &Work, item: Item) -> Option<Arc<RegisterEntry>> {
    if matches!(item, Item::Call(_)) { None } else { work.entry(item.record()) }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
