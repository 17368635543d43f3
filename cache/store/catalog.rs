//! Which records, parts and names of the region are free: what the engine keeps beside the region, so that versions
//! that nobody uses cost nothing.
//!
//! Called by the engine alone, under its lock; a successor makes it anew from the records that live. A record goes
//! through four steps: room is reserved for it (nothing can fail for want of room after that), it is published, it is
//! void (GONE: found by no file, nobody begins to read it), and after a rest it is free for another version.
//!
//! The rest is a margin, not what makes reuse sound (that is `life`): events and demands of clients name a record by
//! its number alone, and a client's slot carries only the low bits of its use. Where there is no room otherwise the
//! rest is cut short.

use crate::free::Ranges;
use ossc_cache::region::{Full, NAME_WORDS, NewObject, OBJECTS_MAX, Object, PARTS_MAX, RecordSpace, Region, state};
use ossc_cache::sync::Ordering;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// So long a record is GONE before it is used again.
pub const REST: Duration = Duration::from_secs(10);
/// Most records that rest while new numbers are given out; the oldest is used before its time then.
const RESTING_MAX: usize = 1024;

/// Words of one name, and how many records have it.
#[derive(Clone, Copy, Debug)]
struct Spelled {
    at: u32,
    words: u32,
    users: u32,
}

/// What an engine that is gone has left of records that no program finds.
#[derive(Debug)]
pub struct Left {
    /// Versions whose memory programs had mapped; they have their parts still.
    pub old: Vec<u32>,
    /// Records that have nothing, but for a memory file that was not taken away in time.
    pub gone: Vec<u32>,
}

/// See the module.
pub struct Catalog {
    region: Region,
    /// Records from here on were never used.
    next: u32,
    free: VecDeque<u32>,
    /// Since when they are GONE, the oldest first.
    resting: VecDeque<(Instant, u32)>,
    parts: Ranges,
    names: Ranges,
    spelled: HashMap<String, Spelled>,
    /// The rooms of records that are published, or rest and were this engine's.
    rooms: HashMap<u32, RecordSpace>,
}

impl Catalog {
    /// Of a region whose records so far are none of this catalog's (a new region has none): their room stays theirs.
    pub fn new(region: Region) -> Catalog {
        let (next, parts, names) = region.high_water();
        Catalog {
            region,
            next,
            free: VecDeque::new(),
            resting: VecDeque::new(),
            parts: Ranges::new(parts..PARTS_MAX),
            names: Ranges::new(names..NAME_WORDS),
            spelled: HashMap::new(),
            rooms: HashMap::new(),
        }
    }

    /// Of a region that an engine before has left: what its living records have is taken, and those that are GONE rest
    /// from `now` on, torn ones among them.
    pub fn adopt(region: Region, now: Instant) -> (Catalog, Left) {
        region.sweep_index();
        let mut catalog = Catalog::new(region);
        (catalog.parts, catalog.names) = (Ranges::new(0..PARTS_MAX), Ranges::new(0..NAME_WORDS));
        let is_gone = |slot: &u32| region.object(*slot).is_none_or(|object| object.state() == state::GONE);
        let (gone, living): (Vec<u32>, Vec<u32>) = (0..catalog.next).partition(is_gone);
        for slot in living {
            catalog.take_room_of(slot);
        }
        // Whatever else is GONE may be half of two records: it has nothing.
        let (old, gone): (Vec<u32>, Vec<u32>) = gone.into_iter().partition(|slot| catalog.takes_old(*slot));
        catalog.resting = gone.iter().map(|slot| (now, *slot)).collect();
        (catalog, Left { old, gone })
    }

    /// True for a version that was GONE while programs had its memory mapped, and the engine ended before they did.
    fn takes_old(&mut self, slot: u32) -> bool {
        let is_old = |object: &&Object| {
            object.superseded.load(Ordering::Acquire) != 0 && object.memory_ino.load(Ordering::Acquire) != 0
        };
        self.region.object(slot).filter(is_old).is_some() && self.take_room_of(slot)
    }

    /// What a record has is not free. False if something else has some of its parts.
    fn take_room_of(&mut self, slot: u32) -> bool {
        let Some(object) = self.region.object(slot) else { return false };
        let (name_at, words) = object.name_place();
        let room = RecordSpace { slot, first_part: object.first_part(), parts: object.parts(), name_at };
        if !self.parts.take_at(room.first_part, room.parts) {
            return false;
        }
        let name = self.region.name(object).to_string();
        let spelled = self.spelled.entry(name).or_insert(Spelled { at: name_at, words, users: 0 });
        spelled.users += 1;
        if spelled.users == 1 || spelled.at != name_at {
            self.names.take_at(name_at, words);
        }
        self.rooms.insert(slot, room);
        true
    }

    /// Room for a record; the caller publishes it, or cancels. What was void long enough is used again.
    ///
    /// # Errors
    /// Which array is full.
    pub fn reserve(&mut self, new: &NewObject<'_>, now: Instant) -> Result<RecordSpace, Full> {
        let (parts, words) = new.needs()?;
        self.end_rest(now, REST);
        while self.free.is_empty() && self.resting.len() > RESTING_MAX {
            self.end_oldest_rest();
        }
        let fresh = (self.next < OBJECTS_MAX).then_some(self.next);
        let slot = self.free.pop_front().or(fresh).ok_or(Full::Objects)?;
        let Some(first_part) = self.parts.allocate(parts) else {
            self.give_back(slot);
            return Err(Full::Parts);
        };
        let Some(name_at) = self.spell(new.name, words) else {
            self.parts.give(first_part, parts);
            self.give_back(slot);
            return Err(Full::Names);
        };
        self.next = self.next.max(slot + 1);
        Ok(RecordSpace { slot, first_part, parts, name_at })
    }

    fn give_back(&mut self, slot: u32) {
        if slot < self.next {
            self.free.push_front(slot);
        }
    }

    /// The words of a name: those of a record of the same path, which stay what they are, else free ones.
    fn spell(&mut self, name: &str, words: u32) -> Option<u32> {
        if let Some(spelled) = self.spelled.get_mut(name) {
            spelled.users += 1;
            return Some(spelled.at);
        }
        let at = self.names.allocate(words)?;
        self.spelled.insert(name.to_string(), Spelled { at, words, users: 1 });
        Some(at)
    }

    fn forget_name(&mut self, name: &str) {
        let Some(spelled) = self.spelled.get_mut(name) else { return };
        spelled.users -= 1;
        if spelled.users == 0 {
            self.names.give(spelled.at, spelled.words);
            self.spelled.remove(name);
        }
    }

    /// Writes the record and makes it findable. `memory_ino` is 0 for one without a memory file. Rooms are published in
    /// the order in which they were reserved.
    pub fn publish(&mut self, room: RecordSpace, new: &NewObject<'_>, memory_ino: u64) -> u32 {
        self.region.write(&room, new, memory_ino);
        self.rooms.insert(room.slot, room);
        room.slot
    }

    /// The record is not made after all.
    pub fn cancel(&mut self, room: RecordSpace, name: &str) {
        self.parts.give(room.first_part, room.parts);
        self.forget_name(name);
        // A record that was never written is not behind the end of the region's.
        if room.slot >= self.region.objects_len() {
            self.next = room.slot;
        } else {
            self.free.push_front(room.slot);
        }
    }

    /// Nobody begins to read the record from now on. Its parts stay its own until it rests.
    pub fn void(&mut self, slot: u32) {
        self.region.void(slot);
    }

    /// All parts of a void record are empty and its memory is gone: it is free after the rest.
    pub fn rest(&mut self, slot: u32, now: Instant) {
        self.region.object(slot).into_iter().for_each(|object| object.memory_ino.store(0, Ordering::Release));
        self.resting.push_back((now, slot));
    }

    /// Records that have been void for `long` are free; how many there were.
    pub fn end_rest(&mut self, now: Instant, long: Duration) -> usize {
        let is_over = |(since, _): &(Instant, u32)| now.saturating_duration_since(*since) >= long;
        let mut ended = 0;
        while self.resting.front().is_some_and(is_over) {
            self.end_oldest_rest();
            ended += 1;
        }
        ended
    }

    fn end_oldest_rest(&mut self) {
        let Some((_, slot)) = self.resting.pop_front() else { return };
        if let (Some(room), Some(object)) = (self.rooms.remove(&slot), self.region.object(slot)) {
            self.parts.give(room.first_part, room.parts);
            let name = self.region.name(object).to_string();
            self.forget_name(&name);
        }
        self.free.push_back(slot);
    }

    /// Free parts, for a message.
    pub fn parts_left(&self) -> u64 {
        self.parts.left()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ossc_cache::region::{Identity, RecordKind};
    use ossc_cache::sys;

    const PART: u32 = 4096;

    fn new<'a>(name: &'a str, ino: u64, parts: u32) -> NewObject<'a> {
        NewObject {
            kind: RecordKind::Large,
            state: state::LOADING,
            name,
            etag: "\"E\"",
            size: u64::from(parts) * u64::from(PART),
            part_bytes: PART,
            mtime_secs: 1,
            dev: 9,
            ino,
            folder: 0,
        }
    }

    fn region() -> Region {
        let region = Region::create(sys::memfds(c"catalog").unwrap(), "/m", "/l").unwrap();
        region.header().memory_dev.store(77, std::sync::atomic::Ordering::Release);
        region
    }

    fn add(catalog: &mut Catalog, new: &NewObject<'_>, now: Instant) -> Result<u32, Full> {
        let room = catalog.reserve(new, now)?;
        Ok(catalog.publish(room, new, 1_000_000 + new.ino))
    }

    #[test]
    fn a_record_is_used_again_after_its_rest_and_not_before() {
        let (region, now) = (region(), Instant::now());
        let mut catalog = Catalog::new(region);
        let first = add(&mut catalog, &new("a", 100, 3), now).unwrap();
        let object = region.object(first).unwrap();
        let use_of_first = object.seen().unwrap();
        assert!(region.part(object, 1).claim());
        region.part(object, 1).publish(5);
        let fill = region.part(object, 1).fill();
        catalog.void(first);
        assert_eq!((region.find(9, 100), region.find(77, 1_000_100)), (None, None));
        assert!(!object.lasts(use_of_first) && object.seen().is_none());
        catalog.rest(first, now);
        let second = add(&mut catalog, &new("a", 101, 3), now + REST / 2).unwrap();
        assert_ne!(first, second, "a record was used again before its rest was over");
        assert_eq!(object.incarnation(), use_of_first, "its number changes when it is used again");
        let third = add(&mut catalog, &new("b", 102, 3), now + REST).unwrap();
        assert_eq!(first, third);
        assert_eq!(region.find(9, 102), Some((first, Identity::Placeholder)));
        assert!(!object.lasts(use_of_first) && object.lasts(use_of_first + 1));
        assert_eq!((region.name(object).to_string(), region.objects_len()), ("b".to_string(), 2));
        let part = region.part(object, 1);
        assert!(!part.is_ready() && part.claim());
        part.publish(6);
        assert_ne!(part.fill(), fill, "a fill number came back");
    }

    #[test]
    fn what_is_reserved_and_not_made_is_free_again() {
        let (region, now) = (region(), Instant::now());
        let mut catalog = Catalog::new(region);
        let all = new("all", 1, PARTS_MAX);
        for _ in 0..3 {
            let room = catalog.reserve(&all, now).unwrap();
            assert_eq!(catalog.reserve(&new("x", 2, 1), now), Err(Full::Parts));
            catalog.cancel(room, "all");
        }
        assert_eq!(add(&mut catalog, &all, now), Ok(0));
        assert_eq!(add(&mut catalog, &new("x", 2, 1), now), Err(Full::Parts));
        assert_eq!(catalog.parts_left(), 0);
        assert_eq!(catalog.reserve(&new(&"n".repeat(2000), 3, 1), now), Err(Full::Names));
        // The rest is cut short where there is no room otherwise.
        catalog.void(0);
        catalog.rest(0, now);
        assert_eq!(add(&mut catalog, &new("x", 2, 1), now), Err(Full::Parts));
        assert_eq!(catalog.end_rest(now, Duration::ZERO), 1);
        assert_eq!(add(&mut catalog, &new("x", 2, 1), now), Ok(0));
    }

    /// Random versions of some objects, by two engines, beside what is surely right: living records never share a
    /// part or a name's words with one of another path, all are found, and nothing is lost in the end.
    #[test]
    fn living_records_never_share_anything() {
        let mut random = 3u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let (region, mut now) = (region(), Instant::now());
        let mut catalog = Catalog::new(region);
        let mut living: Vec<(u32, u64, String)> = Vec::new();
        for ino in 1..20_000u64 {
            now += Duration::from_millis(next(3000));
            if next(3) != 0 || living.is_empty() {
                let name = format!("folder/{}", "x".repeat(next(90) as usize));
                let slot = add(&mut catalog, &new(&name, ino, next(300) as u32), now).unwrap();
                living.push((slot, ino, name));
            }
            while living.len() > 40 || !living.is_empty() && next(3) == 0 {
                let (slot, ..) = living.swap_remove(next(living.len() as u64) as usize);
                catalog.void(slot);
                if next(20) != 0 {
                    catalog.rest(slot, now);
                } else {
                    // Its engine dies before it rests.
                    catalog = Catalog::adopt(region, now).0;
                }
            }
            if ino.is_multiple_of(50) {
                assert_apart(&region, &living);
            }
        }
        let most = (RESTING_MAX + 100) as u32;
        assert!(region.objects_len() < most, "{} records for 40 that live", region.objects_len());
        living.iter().for_each(|(slot, ..)| catalog.void(*slot));
        let (mut catalog, Left { gone, .. }) = Catalog::adopt(region, now);
        assert_eq!(gone.len() as u32, region.objects_len());
        assert_eq!(catalog.end_rest(now + REST, REST), gone.len());
        assert_eq!(catalog.parts_left(), u64::from(PARTS_MAX));
        assert_eq!(catalog.names.left(), u64::from(NAME_WORDS));
        assert!(catalog.spelled.is_empty() && catalog.rooms.is_empty());
    }

    fn assert_apart(region: &Region, living: &[(u32, u64, String)]) {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for (slot, ino, name) in living {
            let object = region.object(*slot).unwrap();
            assert_eq!(region.find(9, *ino), Some((*slot, Identity::Placeholder)));
            assert_eq!(region.find(77, 1_000_000 + ino), Some((*slot, Identity::Memory)));
            assert_eq!(region.name(object), *name);
            if object.parts() > 0 {
                ranges.push((object.first_part(), object.first_part() + object.parts()));
            }
        }
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|two| two[0].1 <= two[1].0), "two records share a part");
    }
}
