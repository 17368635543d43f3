//! Requests for pieces of parts: in place, or a second time into a buffer, and what their ends mean.
//!
//! Called by `work` on vcpu threads. What is asked for and what counts is decided by `flight`; a copy is made here
//! only when nothing is under way in its place.

use crate::work::Work;
use crate::work::shared::held::Held;
use crate::work::shared::item::Item;
use crate::work::transfers::flight::Ended;
use ossc_cache::plan::Class;
use ossc_cache::region::Object;
use ossc_net::error::{Kind, Phase};
use ossc_net::{Error, Fetch, Finished, InFile, Pages, Query, Sink};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

impl Work {
    /// The request whose body is received where it belongs; who sends it has claimed the part.
    pub(crate) fn fetch_in_place(&self, held: &Held, range: Range<u64>, item: Item) -> Option<Fetch> {
        let sink = place(held, &range, self.options.splice)?;
        Some(Fetch {
            token: item.token(),
            query: query(held, range),
            sink,
            crc: self.options.verify_crc,
            urgent: false,
        })
    }

    /// The request for the slowest piece under way, for the second time, into a buffer of its own. `Err` says when
    /// to look again.
    pub(crate) fn prepare_spare(&self, now: Instant, at_end: bool) -> Result<Fetch, Option<Instant>> {
        let ((slot, index), n, chunk, range) = self.flights.slow(now, at_end)?;
        let bytes = range.end - range.start;
        // With the pages of its place, since to copy there later must not fail.
        let ready = |held: &Arc<Held>| populate(held, &range).is_ok() && self.budget.take(bytes);
        let Some(held) = self.held(slot).filter(ready) else {
            let ended = self.flights.no_spare((slot, index), n, chunk, now);
            self.landed(slot, index, n, ended);
            return Err(None);
        };
        tracing::info!(object = held.key, start = range.start, end = range.end, "slow: asking for it a second time");
        held.begin_request();
        let sink = Sink::Buffer { bytes_max: bytes as usize };
        let token = Item::Spare(slot, index, n, chunk).token();
        if self.flights.has_chunks() {
            self.scheduling.wake();
        }
        Ok(Fetch { token, query: query(&held, range), sink, crc: self.options.verify_crc, urgent: true })
    }

    /// Makes pages for these bytes (none where splicing does) of a request that receives in place and has brought
    /// `filled` so far. Its room was taken before it was sent.
    pub(crate) fn populate(&self, item: Item, filled: usize, bytes: Range<usize>) -> Result<(), Error> {
        let (slot, index, n) = match item {
            Item::Part(slot, index) | Item::Again(slot, index) => (slot, index, 0),
            Item::Piece(slot, index, n) => (slot, index, n),
            _ => return Ok(()),
        };
        let (Some(held), Some(start)) = (self.held(slot), self.flights.progress((slot, index), n, filled as u64))
        else {
            return Ok(());
        };
        populate(&held, &(start + bytes.start as u64..start + bytes.end as u64))
    }

    pub(crate) fn finished_piece(&self, slot: u32, index: u32, n: u32, done: Finished) {
        let ended = self.flights.main_ended((slot, index), n, done);
        self.landed(slot, index, n, ended);
    }

    pub(crate) fn finished_spare(&self, (slot, index, n, chunk): (u32, u32, u32, u32), done: Finished) {
        let ended = self.flights.spare_ended((slot, index), n, chunk, done);
        self.landed(slot, index, n, ended);
    }

    /// The answer to the request in place of a piece is not wanted any more. The first one is asked for with its part, and again by itself: that
    /// name first, else the request that follows the one that ends could be taken for it.
    fn cancel_in_place(&self, slot: u32, index: u32, n: u32) {
        self.scheduling.cancel(Item::Piece(slot, index, n));
        if n == 0 {
            self.scheduling.cancel(Item::Part(slot, index));
        }
    }

    /// A reader waits for a part that is under way: what nobody has asked for of it goes before what is fetched ahead.
    pub(crate) fn hurry(&self, slot: u32, index: u32) {
        let waiting = self.flights.hurry((slot, index));
        if !waiting.is_empty() {
            let pieces: Vec<Item> = waiting.into_iter().map(|n| Item::Piece(slot, index, n)).collect();
            self.scheduling.push(&pieces, Class::Demand);
        }
    }

    /// A reader waits for so many parts of an object that nobody fetches. If no connection is free, some are freed that
    /// fetch ahead what nobody waits for, and have just begun: not more than those parts can use, nor half of all. For
    /// its later parts its earlier ones have connections.
    pub(crate) fn make_way(&self, object: &Object, parts: usize) {
        let (under_way, limit) = self.scheduling.under_way();
        // After a throttled answer more may be under way than may begin.
        let Some(over) = under_way.checked_sub(limit) else { return };
        let pieces = (u64::from(object.part_bytes()) / self.options.scale.piece_bytes_min).max(1) as usize;
        let most = (over + parts * pieces).min(under_way / 2);
        if most <= over {
            return;
        }
        let is_unwanted = |(slot, index): (u32, u32)| {
            self.region.object(slot).is_some_and(|object| !self.region.part(object, index).is_pinned())
        };
        let giving = self.flights.give_way(most, (self.options.now)(), is_unwanted);
        if !giving.is_empty() {
            tracing::debug!(requests = giving.len(), "give way to a reader");
        }
        giving.into_iter().for_each(|((slot, index), n)| self.cancel_in_place(slot, index, n));
    }

    /// A request for a part has ended, and maybe the part with it.
    fn landed(&self, slot: u32, index: u32, n: u32, ended: Ended) {
        let (Some(object), Some(held)) = (self.region.object(slot), self.held(slot)) else {
            return self.budget.give(ended.give);
        };
        if ended.cancel {
            self.cancel_in_place(slot, index, n);
        }
        if let Some(class) = ended.again {
            self.scheduling.push_first(Item::Piece(slot, index, n), class);
        }
        ended.cancel_spare.iter().for_each(|chunk| self.scheduling.cancel(Item::Spare(slot, index, n, *chunk)));
        for (range, body) in &ended.copy {
            if let Some(sink) = place(&held, range, false) {
                sink.fill(body);
            }
        }
        self.budget.give(ended.give);
        if let Some((range, response)) = &ended.brought {
            held.out_of_trouble();
            self.audit.answer((&held.key, &held.etag), range.clone(), response);
        }
        if let Some(result) = ended.part {
            self.finished_part((slot, index), object, &held, result);
        }
    }
}

/// Pages for a range of an object.
fn populate(held: &Held, range: &Range<u64>) -> Result<(), Error> {
    let Some(memory) = &held.memory else { return Ok(()) };
    memory.populate(range.start, range.end).map_err(|errno| {
        let os = std::io::Error::from_raw_os_error(errno.0);
        let mut error = Error::new(Kind::Memory, Phase::Body, format!("make pages: {os}"));
        (error.object, error.range) = (held.key.as_str().into(), Some(range.clone()));
        error
    })
}

/// Where a range of an object belongs. Only who claimed its part may let anybody write there.
fn place(held: &Held, range: &Range<u64>, splice: bool) -> Option<Sink> {
    let memory = held.memory.as_ref()?;
    let file = memory.file().filter(|_| splice).map(|fd| Pages::File(InFile { fd, offset: range.start }));
    let (at, len) = (memory.address(range.start), (range.end - range.start) as usize);
    Some(Sink::Memory { at, len, pages: file.unwrap_or(Pages::Fresh) })
}

fn query(held: &Held, range: Range<u64>) -> Query {
    Query::Get { key: held.key.clone(), range: Some(range), etag: Some(held.etag.clone()), size: held.size }
}
