//! Requests for pieces of parts: in place, or a second time into a buffer, and what their ends mean.
//!
//! Called by the work on vcpu threads. What is asked for and what counts is decided by `flight`; a copy is made here
//! only when nothing is under way in its place.

use crate::lock::lock;
use crate::work::shared::action::Action;
use crate::work::shared::brought::{Brought, Whole};
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::item::Item;
use crate::work::shared::register::Register;
use crate::work::shared::reservation::Reservation;
use crate::work::transfers::flight::{Ended, Flights, Key, Queue};
use crate::work::transfers::query;
use ossc_cache::region::Object;
use ossc_net::error::{FailureKind, Phase};
use ossc_net::{Error, Fetch, Finished, InFile, Pages, Response, Sink};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What an answer that was cut has to have brought at least for the failures before it to be over.
pub(super) const PROGRESS_BYTES_MIN: u64 = 16 << 10;

/// See the module.
pub struct Pieces {
    register: Arc<Register>,
    flights: Flights,
    /// What the buffers of second requests take of the budget.
    buffers: Mutex<Reservation>,
}

/// What became of the wish to ask for something a second time.
pub enum Second {
    /// The request. True if other connections may share it.
    Fetch(Box<Fetch>, bool),
    /// There is none for it now; when to look again.
    Until(Option<Instant>),
    /// It could not be had. What is to be done then.
    Lost(Vec<Action>),
}

impl Pieces {
    /// Nothing is under way yet.
    pub fn new(register: Arc<Register>) -> Pieces {
        let flights = Flights::new(register.options.twice_percent_max, register.options.scale);
        Pieces { register, flights, buffers: Mutex::default() }
    }

    /// A part was claimed. `queue` is what it came from; `None` if it is not to be cut. The range of its first piece,
    /// which is asked for now, and how many more there are.
    pub fn begin(&self, key: Key, range: Range<u64>, queue: Option<Queue>) -> (Range<u64>, u32) {
        self.flights.begin(key, range, queue, self.register.now())
    }

    /// The request for another of its pieces; `None` if that is not wanted any more.
    pub fn request_piece(&self, slot: u32, index: u32, n: u32) -> Option<Fetch> {
        let range = self.flights.start_piece((slot, index), n, self.register.now())?;
        self.in_place(&*self.register.entry(slot)?, range, Item::Piece(slot, index, n))
    }

    /// The request whose body is received where it belongs; its sender has claimed the part.
    pub fn in_place(&self, entry: &RegisterEntry, range: Range<u64>, item: Item) -> Option<Fetch> {
        let options = &self.register.options;
        let sink = place(entry, &range, options.splice)?;
        Some(Fetch { token: item.token(), query: query(entry, range), sink, crc: options.verify_crc, urgent: false })
    }

    /// The request for the slowest piece under way, for the second time, into a buffer of its own, for which `take` has
    /// room.
    pub fn second(&self, now: Instant, at_end: bool, take: impl Fn(u64) -> Option<Reservation>) -> Second {
        let ((slot, index), n, chunk, range) = match self.flights.slow(now, at_end) {
            Ok(slow) => slow,
            Err(until) => return Second::Until(until),
        };
        let bytes = range.end - range.start;
        // With the pages of its place, since to copy there later must not fail.
        let with_room = |entry: Arc<RegisterEntry>| {
            populate(&entry, &range).ok()?;
            Some((take(bytes)?, entry))
        };
        let Some((room, entry)) = self.register.entry(slot).and_then(with_room) else {
            let ended = self.flights.no_hedge((slot, index), n, chunk, now);
            return Second::Lost(self.landed(slot, index, n, ended));
        };
        lock(&self.buffers).put(room);
        self.register.counters.hedged(bytes);
        tracing::debug!(object = entry.key, start = range.start, end = range.end, "slow: asking for it a second time");
        entry.begin_request();
        let sink = Sink::Buffer { bytes_max: bytes as usize };
        let token = Item::Hedge(slot, index, n, chunk).token();
        let crc = self.register.options.verify_crc;
        let fetch = Fetch { token, query: query(&entry, range), sink, crc, urgent: true };
        Second::Fetch(Box::new(fetch), self.flights.has_chunks())
    }

    /// Makes pages for these bytes (none where splicing does) of a request that receives in place and has brought
    /// `filled` so far. Its room was taken before it was sent.
    ///
    /// # Errors
    /// The system has no memory for them.
    pub fn populate(&self, item: Item, filled: usize, bytes: Range<usize>) -> Result<(), Error> {
        let (slot, index, n) = match item {
            Item::Part(slot, index) | Item::Again(slot, index) => (slot, index, 0),
            Item::Piece(slot, index, n) => (slot, index, n),
            _ => return Ok(()),
        };
        let start = self.flights.progress((slot, index), n, filled as u64);
        let (Some(entry), Some(start)) = (self.register.entry(slot), start) else { return Ok(()) };
        populate(&entry, &(start + bytes.start as u64..start + bytes.end as u64))
    }

    /// The request in place of a piece has ended.
    pub fn ended(&self, slot: u32, index: u32, n: u32, done: Finished) -> Vec<Action> {
        let ended = self.flights.main_ended((slot, index), n, done);
        self.landed(slot, index, n, ended)
    }

    /// The second request for a chunk of a piece has.
    pub fn second_ended(&self, (slot, index, n, chunk): (u32, u32, u32, u32), done: Finished) -> Vec<Action> {
        let ended = self.flights.hedge_ended((slot, index), n, chunk, done);
        self.landed(slot, index, n, ended)
    }

    /// A reader waits for a part that is under way: what of it is not asked for yet goes before what is fetched ahead.
    pub fn hurry(&self, slot: u32, index: u32) -> Vec<Item> {
        self.flights.hurry((slot, index)).into_iter().map(|n| Item::Piece(slot, index, n)).collect()
    }

    /// A reader waits for so many parts of an object that no connection fetches. If none is free, some are freed that
    /// fetch ahead what no reader waits for, and have just begun: not more than those parts can use, nor half of all.
    /// For its later parts its earlier ones have connections.
    pub fn make_way(&self, object: &Object, parts: usize, (under_way, limit): (usize, usize)) -> Vec<Action> {
        // After a throttled answer more may be under way than may begin.
        let Some(over) = under_way.checked_sub(limit) else { return Vec::new() };
        let pieces = (u64::from(object.part_bytes()) / self.register.options.scale.piece_bytes_min).max(1) as usize;
        let most = (over + parts * pieces).min(under_way / 2);
        if most <= over {
            return Vec::new();
        }
        let region = self.register.region;
        let is_unwanted = |(slot, index): (u32, u32)| {
            region.object(slot).is_some_and(|object| !region.part(object, index).is_pinned())
        };
        let giving = self.flights.give_way(most, self.register.now(), is_unwanted);
        if !giving.is_empty() {
            tracing::debug!(requests = giving.len(), "give way to a reader");
        }
        giving.into_iter().flat_map(|((slot, index), n)| cancel_in_place(slot, index, n)).collect()
    }

    /// The object has failed: a part of it that waits for another try is given up.
    pub fn abandon(&self, slot: u32, index: u32) -> Vec<Action> {
        let why = Error::new(FailureKind::Cancelled, Phase::Start, "the object was given up");
        let ended = self.flights.abandon((slot, index), why);
        self.landed(slot, index, 0, ended)
    }

    /// A request for a part has ended, and maybe the part with it.
    fn landed(&self, slot: u32, index: u32, n: u32, ended: Ended) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(entry) = self.register.entry(slot) {
            if ended.cancel {
                actions.extend(cancel_in_place(slot, index, n));
            }
            actions.extend(ended.again.map(|class| Action::PushFirst(Item::Piece(slot, index, n), class)));
            // A few bytes an answer would take for ever, and are no progress.
            let is_progress = |range: &Range<u64>| range.end - range.start >= PROGRESS_BYTES_MIN;
            if ended.brought.as_ref().is_some_and(|range| ended.retry.is_none() || is_progress(range)) {
                entry.progressed(index);
            }
            let retry = |error| Action::Fail(Item::Piece(slot, index, n), Box::new(error), entry.failed_again(index));
            actions.extend(ended.retry.map(retry));
            let is_void = |chunk: &u32| Action::Cancel(Item::Hedge(slot, index, n, *chunk));
            actions.extend(ended.cancel_hedge.iter().map(is_void));
            for (range, body) in &ended.copy {
                if let Some(sink) = place(&entry, range, false) {
                    sink.fill(body);
                }
            }
            let brought =
                |(response, crc64): (Response, u64)| Brought { crc64, whole: Whole::Said(response.crc64_object) };
            actions.extend(ended.part.map(|result| Action::End(slot, index, Box::new(result.map(brought)))));
        }
        lock(&self.buffers).give(ended.give);
        actions
    }

    /// Parts under way, second requests under way, and the bytes of those and of the bodies that they have brought.
    pub fn under_way(&self) -> (usize, usize, u64) {
        self.flights.under_way()
    }

    /// Bytes that have come of parts under way: of pieces that are here, and of others at least and at most.
    pub fn arrived_bytes(&self) -> (u64, Range<u64>) {
        self.flights.arrived_bytes()
    }

    /// Whether the request in place of a piece was cancelled and has not ended yet.
    pub fn is_unwanted(&self, slot: u32, index: u32, n: u32) -> bool {
        self.flights.is_unwanted((slot, index), n)
    }

    /// How many bytes stay of a request in place of a piece that ends so.
    pub fn keeps(&self, slot: u32, index: u32, n: u32, done: &Finished) -> u64 {
        self.flights.keeps((slot, index), n, done)
    }

    /// The same for one that gives way to a reader.
    pub fn gives_way(&self, slot: u32, index: u32, n: u32) -> bool {
        self.flights.gives_way((slot, index), n)
    }
}

/// The answer to the request in place of a piece is not wanted any more. The first one is asked for with its part, and
/// again by itself: that name first, else the request that follows the one that ends could be taken for it.
fn cancel_in_place(slot: u32, index: u32, n: u32) -> impl Iterator<Item = Action> {
    let with_part = (n == 0).then_some(Item::Part(slot, index));
    [Item::Piece(slot, index, n)].into_iter().chain(with_part).map(Action::Cancel)
}

/// Pages for a range of an object.
pub(super) fn populate(entry: &RegisterEntry, range: &Range<u64>) -> Result<(), Error> {
    let Some(memory) = &entry.memory else { return Ok(()) };
    memory.populate(range.start, range.end).map_err(|errno| {
        let os = std::io::Error::from_raw_os_error(errno.0);
        let mut error = Error::new(FailureKind::Memory, Phase::Body, format!("make pages: {os}"));
        (error.object, error.range) = (entry.key.as_str().into(), Some(range.clone()));
        error
    })
}

/// Where a range of an object belongs. Only the thread that claimed its part may have anything written there.
pub(super) fn place(entry: &RegisterEntry, range: &Range<u64>, splice: bool) -> Option<Sink> {
    let memory = entry.memory.as_ref()?;
    let file = memory.file().filter(|_| splice).map(|fd| Pages::File(InFile { fd, offset: range.start }));
    let (at, len) = (memory.address(range.start), (range.end - range.start) as usize);
    Some(Sink::Memory { at, len, pages: file.unwrap_or(Pages::Fresh) })
}
