//! Small objects: fetched in pieces onto the heap, checked as a whole, handed to the thread that writes files.
//!
//! Called by `work` for its small items and by the mirror. It writes no file itself, and it bounds how many
//! bytes are between the origin and the disk.

use crate::lock::lock;
use crate::work::Work;
use crate::work::objects::verdict::{WRONG_ONCE, WRONG_TWICE};
use crate::work::shared::held::Held;
use crate::work::shared::item::{Arrived, Item};
use ossc_cache::plan::Class;
use ossc_cache::region::state;
use ossc_cache::verdict::Judgement;
use ossc_net::error::Kind;
use ossc_net::{Fetch, Finished, Query, Sink, crc};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Most bytes of small objects on their way from the origin to the disk. Objects that are longer (programs and
/// libraries may be) are written piece by piece.
const SMALL_UNDER_WAY_BYTES_MAX: u64 = 64 << 20;
/// A small object that finds no room is looked at again after this long.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// True for what is written to disk piece by piece.
fn is_streamed(held: &Held) -> bool {
    held.size > SMALL_UNDER_WAY_BYTES_MAX
}

impl Work {
    /// Fetches a small object.
    pub fn fetch_small(&self, slot: u32) {
        let Some(held) = self.held(slot) else { return };
        lock(&held.pieces).clear();
        lock(&held.asked).clear();
        held.begun.store(true, Ordering::Release);
        self.scheduling.push(&self.small_items(slot, &held), Class::Near);
    }

    /// Fetches a small object that is not being fetched yet.
    pub fn fetch_small_once(&self, slot: u32) {
        if let Some(held) = self.held(slot).filter(|held| !held.begun.load(Ordering::Acquire)) {
            held.begun.store(true, Ordering::Release);
            self.scheduling.push(&self.small_items(slot, &held), Class::Near);
        }
    }

    /// A program waits for a small object: it goes before all others.
    pub fn want_small(&self, slot: u32) {
        let Some(object) = self.region.object(slot).filter(|object| object.state() == state::COMING) else { return };
        if let Some(held) = self.held(slot).filter(|_| object.kind() == ossc_cache::region::Kind::Small) {
            held.begun.store(true, Ordering::Release);
            let asked = lock(&held.asked).clone();
            let mut items = self.small_items(slot, &held);
            items.retain(|item| !matches!(item, Item::Small(_, index) if asked.contains(index)));
            self.scheduling.push(&items, Class::Demand);
        }
    }

    /// True for a small object that is being fetched, or was.
    pub fn is_begun(&self, slot: u32) -> bool {
        self.held(slot).is_some_and(|held| held.begun.load(Ordering::Acquire))
    }

    fn small_items(&self, slot: u32, held: &Held) -> Vec<Item> {
        (0..self.pieces(held)).map(|index| Item::Small(slot, index)).collect()
    }

    fn pieces(&self, held: &Held) -> u32 {
        held.size.div_ceil(self.options.part_bytes_max) as u32
    }

    /// The request for one piece; `None` if it is not wanted any more, or put off.
    pub(crate) fn prepare_small(&self, slot: u32, index: u32, class: Class) -> Option<Fetch> {
        let held = self.held(slot)?;
        // Asked for by two classes it is fetched once.
        if self.region.object(slot)?.state() != state::COMING || !lock(&held.asked).insert(index) {
            return None;
        }
        let range = self.piece_range(&held, index);
        let has_room = match is_streamed(&held) {
            true => self.has_room_for_piece(&held, index, range.end - range.start),
            false => self.has_room_for_small(&held),
        };
        if !has_room {
            lock(&held.asked).remove(&index);
            self.scheduling.push_later(Item::Small(slot, index), class, LOOK_AGAIN);
            return None;
        }
        let sink = Sink::Buffer { bytes_max: (range.end - range.start) as usize };
        let (key, etag) = (held.key.clone(), Some(held.etag.clone()));
        let query = Query::Get { key, range: Some(range), etag, size: held.size };
        Some(Fetch { token: Item::Small(slot, index).token(), query, sink, crc: true, urgent: true })
    }

    /// Small objects are held on the heap until they are files: only so many bytes of them at a time, so that a
    /// slow disk does not fill the memory. A whole object counts from its first piece on, or pieces of many
    /// would wait for each other.
    fn has_room_for_small(&self, held: &Held) -> bool {
        if held.under_way.swap(true, Ordering::AcqRel) {
            return true;
        }
        let room = |under_way: u64| {
            let sum = under_way + held.size;
            (under_way == 0 || sum <= SMALL_UNDER_WAY_BYTES_MAX).then_some(sum)
        };
        let taken = self.small_under_way.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_ok();
        if !taken {
            held.under_way.store(false, Ordering::Release);
        }
        taken
    }

    /// The same for a piece that goes to the disk by itself.
    fn has_room_for_piece(&self, held: &Held, index: u32, len: u64) -> bool {
        let mut counted = lock(&held.pieces_under_way);
        if counted.contains(&index) {
            return true;
        }
        let room = |under_way: u64| {
            (under_way == 0 || under_way + len <= SMALL_UNDER_WAY_BYTES_MAX).then_some(under_way + len)
        };
        let taken = self.small_under_way.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_ok();
        if taken {
            counted.insert(index);
        }
        taken
    }

    /// A piece of it is on disk.
    pub fn piece_is_over(&self, held: &Held, at: u64) {
        let index = (at / self.options.part_bytes_max) as u32;
        if lock(&held.pieces_under_way).remove(&index) {
            let range = self.piece_range(held, index);
            self.small_under_way.fetch_sub(range.end - range.start, Ordering::AcqRel);
        }
    }

    fn piece_range(&self, held: &Held, index: u32) -> std::ops::Range<u64> {
        let start = u64::from(index) * self.options.part_bytes_max;
        start..(start + self.options.part_bytes_max).min(held.size)
    }

    /// A small object is a file now, or given up.
    pub fn small_is_over(&self, held: &Held) {
        for index in std::mem::take(&mut *lock(&held.pieces_under_way)) {
            let range = self.piece_range(held, index);
            self.small_under_way.fetch_sub(range.end - range.start, Ordering::AcqRel);
        }
        if held.under_way.swap(false, Ordering::AcqRel) {
            self.small_under_way.fetch_sub(held.size, Ordering::AcqRel);
        }
    }

    pub(crate) fn finished_small(&self, slot: u32, index: u32, done: Finished) {
        let (Some(object), Some(held)) = (self.region.object(slot), self.held(slot)) else { return };
        let response = match done.result {
            Ok(response) => response,
            Err(error) => {
                lock(&held.asked).remove(&index);
                let attempts = held.attempts.fetch_add(1, Ordering::Relaxed) + 1;
                return self.failed(Item::Small(slot, index), object, &held, &error, attempts);
            }
        };
        held.out_of_trouble();
        let start = self.piece_range(&held, index).start;
        self.audit.answer((&held.key, &held.etag), start..start + response.bytes, &response);
        if let Some(whole) = response.crc64_object {
            *lock(&held.crc64) = Some(whole);
        }
        let mut body = done.body;
        if is_streamed(&held) {
            // Without the thread that writes files the engine is ending.
            let _ = self.arrived.send(Arrived {
                slot,
                held: held.clone(),
                at: Some(start),
                body: std::mem::take(&mut body),
            });
        }
        let Some(pieces) = self.put_piece(&held, index, (body, response.crc64_body.unwrap_or(0))) else { return };
        let found = pieces.iter().fold(0, |sum, (index, (_, crc))| {
            let range = self.piece_range(&held, *index);
            crc::combine(sum, *crc, range.end - range.start)
        });
        let known = lock(&held.crc64).filter(|_| self.options.verify_crc);
        let expected = known.unwrap_or(found);
        if found == expected {
            let judgement = if known.is_some() { Judgement::Matched } else { Judgement::Nothing };
            object.verdict.set(object.verdict.get().with(judgement));
            let round = if held.rechecked.load(Ordering::Acquire) { 2 } else { 1 };
            self.audit.verdict((&held.key, &held.etag, held.size), known, round);
            let body = pieces.into_values().map(|(body, _)| body).collect::<Vec<_>>().concat();
            let _ = self.arrived.send(Arrived { slot, held: held.clone(), at: None, body });
        } else if held.rechecked.swap(true, Ordering::AcqRel) {
            tracing::error!(object = held.key, etag = held.etag, expected, found, phase = "CRC", "{WRONG_TWICE}");
            self.small_is_over(&held);
            object.fail(Kind::Corrupt.errno());
        } else {
            tracing::warn!(object = held.key, etag = held.etag, expected, found, phase = "CRC", "{WRONG_ONCE}");
            self.fetch_small(slot);
        }
    }

    /// All pieces of a small object, once this was the last.
    fn put_piece(&self, held: &Held, index: u32, piece: (Vec<u8>, u64)) -> Option<BTreeMap<u32, (Vec<u8>, u64)>> {
        let mut pieces = lock(&held.pieces);
        pieces.insert(index, piece);
        (pieces.len() == self.pieces(held) as usize).then(|| std::mem::take(&mut *pieces))
    }
}
