//! Small objects: fetched in pieces onto the heap, checked as a whole, handed to the thread that writes files.
//!
//! Called by the work for its small items and by the mirror. It writes no file itself, and it bounds how many
//! bytes are between the origin and the disk.

use crate::journal::audit::Audit;
use crate::lock::lock;
use crate::work::shared::action::Action;
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::item::{Arrived, Item};
use crate::work::shared::register::Register;
use crate::work::shared::wrong::{self, AfterMismatch};
use crate::work::transfers::pieces::PROGRESS_BYTES_MIN;
use crate::work::transfers::query;
use ossc_cache::region::{Object, state};
use ossc_cache::verdict::Judgement;
use ossc_net::error::FailureKind;
use ossc_net::{Error, Fetch, Finished, Response, Sink, crc};
use ossc_store::plan::Class;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Most bytes of small objects on their way from the origin to the disk. Objects that are longer (programs and
/// libraries may be) are written piece by piece.
const SMALL_UNDER_WAY_BYTES_MAX: u64 = 64 << 20;
/// An answer that was cut is progress, too, if so many like it bring all of a piece.
const PROGRESSES_MAX: u64 = 16;
/// A small object that finds no room is looked at again after this long.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// All of a piece that is so long, with its CRC-64: what had come of it before, and the rest of it. `None` if that is
/// another rest.
fn complete(entry: &RegisterEntry, index: u32, (rest, crc64): (Vec<u8>, u64), len: u64) -> Option<(Vec<u8>, u64)> {
    let Some((mut bytes, sum)) = lock(&entry.begun_pieces).remove(&index) else {
        return (rest.len() as u64 == len).then_some((rest, crc64));
    };
    let sum = crc::combine(sum, crc64, rest.len() as u64);
    bytes.extend_from_slice(&rest);
    (bytes.len() as u64 == len).then_some((bytes, sum))
}

/// True for what is written to disk piece by piece.
fn is_streamed(entry: &RegisterEntry) -> bool {
    entry.size > SMALL_UNDER_WAY_BYTES_MAX
}

/// See the module.
pub struct Materializer {
    register: Arc<Register>,
    /// Bytes between the origin and the disk.
    under_way: AtomicU64,
    arrived: Sender<Arrived>,
    audit: Audit,
}

impl Materializer {
    /// None is under way yet. What has arrived goes to `arrived`.
    pub fn new(register: Arc<Register>, audit: Audit, arrived: Sender<Arrived>) -> Materializer {
        Materializer { register, under_way: AtomicU64::new(0), arrived, audit }
    }

    /// Bytes between the origin and the disk.
    pub fn bytes(&self) -> u64 {
        self.under_way.load(Ordering::Acquire)
    }

    /// Fetches a small object.
    pub fn fetch(&self, slot: u32) -> Option<Action> {
        let entry = self.register.entry(slot)?;
        lock(&entry.pieces).clear();
        lock(&entry.begun_pieces).clear();
        lock(&entry.asked).clear();
        entry.begun.store(true, Ordering::Release);
        Some(Action::Push(self.items(slot, &entry), Class::Near))
    }

    /// Fetches a small object that is not being fetched yet.
    pub fn fetch_once(&self, slot: u32) -> Option<Action> {
        let entry = self.register.entry(slot).filter(|entry| !entry.begun.load(Ordering::Acquire))?;
        entry.begun.store(true, Ordering::Release);
        Some(Action::Push(self.items(slot, &entry), Class::Near))
    }

    /// A program waits for a small object: it goes before all others.
    pub fn want(&self, slot: u32) -> Option<Action> {
        let object = self.register.region.object(slot).filter(|object| object.state() == state::COMING)?;
        let entry = self.register.entry(slot).filter(|_| object.kind() == ossc_cache::region::RecordKind::Small)?;
        entry.begun.store(true, Ordering::Release);
        let asked = lock(&entry.asked).clone();
        let mut items = self.items(slot, &entry);
        items.retain(|item| !matches!(item, Item::Small(_, index) if asked.contains(index)));
        Some(Action::Push(items, Class::Demand))
    }

    /// True for a small object that is being fetched, or was.
    pub fn is_begun(&self, slot: u32) -> bool {
        self.register.entry(slot).is_some_and(|entry| entry.begun.load(Ordering::Acquire))
    }

    fn items(&self, slot: u32, entry: &RegisterEntry) -> Vec<Item> {
        (0..self.pieces(entry)).map(|index| Item::Small(slot, index)).collect()
    }

    fn pieces(&self, entry: &RegisterEntry) -> u32 {
        entry.size.div_ceil(self.register.options.part_bytes_max) as u32
    }

    /// The request for one piece.
    ///
    /// # Errors
    /// It is not wanted any more, or put off. With what is to be done instead.
    pub fn request_small_piece(&self, slot: u32, index: u32, class: Class) -> Result<Fetch, Option<Action>> {
        let (object, entry) = self.register.get(slot).ok_or(None)?;
        // Asked for by two classes it is fetched once.
        if object.state() != state::COMING || !lock(&entry.asked).insert(index) {
            return Err(None);
        }
        let range = self.piece_range(&entry, index);
        let has_room = match is_streamed(&entry) {
            true => self.has_room_for_piece(&entry, index, range.end - range.start),
            false => self.has_room_for_small(&entry),
        };
        if !has_room {
            lock(&entry.asked).remove(&index);
            return Err(Some(Action::PushLater(Item::Small(slot, index), class, LOOK_AGAIN)));
        }
        let had = lock(&entry.begun_pieces).get(&index).map_or(0, |(bytes, _)| bytes.len() as u64);
        let range = range.start + had..range.end;
        let sink = Sink::Buffer { bytes_max: (range.end - range.start) as usize };
        let token = Item::Small(slot, index).token();
        Ok(Fetch { token, query: query(&entry, range), sink, crc: true, urgent: true })
    }

    /// Small objects are held on the heap until they are files: only so many bytes of them at a time, so that a
    /// slow disk does not fill the memory. A whole object counts from its first piece on, or pieces of many
    /// would wait for each other.
    fn has_room_for_small(&self, entry: &RegisterEntry) -> bool {
        if entry.under_way.swap(true, Ordering::AcqRel) {
            return true;
        }
        let room = |under_way: u64| {
            let sum = under_way + entry.size;
            (under_way == 0 || sum <= SMALL_UNDER_WAY_BYTES_MAX).then_some(sum)
        };
        let taken = self.under_way.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_ok();
        if !taken {
            entry.under_way.store(false, Ordering::Release);
        }
        taken
    }

    /// The same for a piece that goes to the disk by itself.
    fn has_room_for_piece(&self, entry: &RegisterEntry, index: u32, len: u64) -> bool {
        let mut counted = lock(&entry.pieces_under_way);
        if counted.contains(&index) {
            return true;
        }
        let room = |under_way: u64| {
            (under_way == 0 || under_way + len <= SMALL_UNDER_WAY_BYTES_MAX).then_some(under_way + len)
        };
        let taken = self.under_way.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_ok();
        if taken {
            counted.insert(index);
        }
        taken
    }

    /// A piece of it is on disk.
    pub fn piece_is_over(&self, entry: &RegisterEntry, at: u64) {
        let index = (at / self.register.options.part_bytes_max) as u32;
        if lock(&entry.pieces_under_way).remove(&index) {
            let range = self.piece_range(entry, index);
            self.under_way.fetch_sub(range.end - range.start, Ordering::AcqRel);
        }
    }

    fn piece_range(&self, entry: &RegisterEntry, index: u32) -> std::ops::Range<u64> {
        let start = u64::from(index) * self.register.options.part_bytes_max;
        start..(start + self.register.options.part_bytes_max).min(entry.size)
    }

    /// A small object is a file now, or given up.
    pub fn is_over(&self, entry: &RegisterEntry) {
        for index in std::mem::take(&mut *lock(&entry.pieces_under_way)) {
            let range = self.piece_range(entry, index);
            self.under_way.fetch_sub(range.end - range.start, Ordering::AcqRel);
        }
        if entry.under_way.swap(false, Ordering::AcqRel) {
            self.under_way.fetch_sub(entry.size, Ordering::AcqRel);
        }
    }

    /// The request for one piece has ended. What is to be done then.
    pub fn ended(&self, slot: u32, index: u32, done: Finished) -> Vec<Action> {
        let Some((object, entry)) = self.register.get(slot) else { return Vec::new() };
        let response = match done.result {
            Ok(response) => response,
            Err(error) => {
                if let Some(partial) = done.partial.filter(|_| error.retryable()) {
                    self.keep_beginning(&entry, index, (&error, &partial), &done.body);
                }
                lock(&entry.asked).remove(&index);
                let attempts = entry.attempts.fetch_add(1, Ordering::Relaxed) + 1;
                return vec![Action::Fail(Item::Small(slot, index), Box::new(error), attempts)];
            }
        };
        entry.out_of_trouble();
        entry.doubt_no_more(Item::Small(slot, index).asked());
        let range = self.piece_range(&entry, index);
        if let Some(whole) = response.crc64_object {
            *lock(&entry.crc64) = Some(whole);
        }
        let rest = (done.body, response.crc64_body.unwrap_or(0));
        let Some((mut body, crc64)) = complete(&entry, index, rest, range.end - range.start) else {
            // Its beginning was for another request: the object was begun anew meanwhile.
            lock(&entry.asked).remove(&index);
            return vec![Action::Push(vec![Item::Small(slot, index)], Class::Demand)];
        };
        let start = range.start;
        if is_streamed(&entry) {
            // Without the thread that writes files the engine is ending.
            let _ = self.arrived.send(Arrived {
                slot,
                entry: entry.clone(),
                at: Some(start),
                body: std::mem::take(&mut body),
            });
        }
        let Some(pieces) = self.put_piece(&entry, index, (body, crc64)) else { return Vec::new() };
        let found = pieces.iter().fold(0, |sum, (index, (_, crc))| {
            let range = self.piece_range(&entry, *index);
            crc::combine(sum, *crc, range.end - range.start)
        });
        let known = lock(&entry.crc64).filter(|_| self.register.options.verify_crc);
        let expected = known.unwrap_or(found);
        if found == expected {
            let judgement = if known.is_some() { Judgement::Matched } else { Judgement::Nothing };
            object.verdict.set(object.verdict.get().with(judgement), &self.register.region.traces(object).handed);
            let round = entry.matched() + 1;
            self.audit.verdict((&entry.key, &entry.etag, entry.size), known, round);
            let body = pieces.into_values().map(|(body, _)| body).collect::<Vec<_>>().concat();
            let _ = self.arrived.send(Arrived { slot, entry: entry.clone(), at: None, body });
            return Vec::new();
        }
        self.mismatched((slot, object, &entry), (expected, found))
    }

    /// All bytes have come, and do not have the CRC-64 that they should. What is to be done then.
    fn mismatched(
        &self,
        (slot, object, entry): (u32, &Object, &RegisterEntry),
        (expected, found): (u64, u64),
    ) -> Vec<Action> {
        let (after, key, etag) = (entry.mismatched(), &entry.key, &entry.etag);
        let what = after.text();
        self.register.counters.mismatches.fetch_add(1, Ordering::Relaxed);
        if after == AfterMismatch::GivenUp {
            tracing::error!(object = key, etag, expected, found, phase = "CRC", "{what}");
            self.is_over(entry);
            object.fail(FailureKind::Corrupt.errno());
            entry.give_up(self.register.now(), &wrong::corrupt(key, (expected, found)));
            return Vec::new();
        }
        tracing::warn!(object = key, etag, expected, found, phase = "CRC", "{what}");
        let look = (after == AfterMismatch::AgainBehindListing).then_some(Action::ListAgain(slot));
        [Action::NewConnections].into_iter().chain(look).chain(self.fetch(slot)).collect()
    }

    /// The request for a piece has failed, and these bytes had come: the next one goes on behind them.
    fn keep_beginning(&self, entry: &RegisterEntry, index: u32, (error, partial): (&Error, &Response), body: &[u8]) {
        let range = self.piece_range(entry, index);
        let mut begun = lock(&entry.begun_pieces);
        let (bytes, crc64) = begun.entry(index).or_default();
        let (at, came) = (range.start + bytes.len() as u64, body.len() as u64);
        // Not of a request that was made before the object was begun anew, and never all of a piece: no request would be left
        // to bring its end.
        if error.range.as_ref().is_none_or(|asked| asked.start != at) || at + came >= range.end {
            return;
        }
        bytes.extend_from_slice(body);
        *crc64 = crc::combine(*crc64, partial.crc64_body.unwrap_or(0), came);
        if came >= PROGRESS_BYTES_MIN || came * PROGRESSES_MAX >= range.end - range.start {
            entry.out_of_trouble();
            entry.attempts.store(0, Ordering::Relaxed);
        }
    }

    /// All pieces of a small object, once this was the last.
    fn put_piece(
        &self,
        entry: &RegisterEntry,
        index: u32,
        piece: (Vec<u8>, u64),
    ) -> Option<BTreeMap<u32, (Vec<u8>, u64)>> {
        let mut pieces = lock(&entry.pieces);
        pieces.insert(index, piece);
        (pieces.len() == self.pieces(entry) as usize).then(|| std::mem::take(&mut *pieces))
    }
}
