//! Writing records: the engine's side of the catalog, in room that nothing living has.
//!
//! Called by `catalog`, and by tests that keep no catalog. It decides nothing; the order of its writes is what makes a
//! death at any point and a reader at any moment harmless (`life`, `tests/death.rs`).

use super::state::FAILED;
use super::{
    ETAG_MAX, Full, Layout, NAME_MAX, NAME_WORD, NAME_WORDS, NewObject, OBJECTS_MAX, Object, PARTS_MAX, RecordKind,
    RecordSpace, Region,
};
use crate::life::GONE;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

impl NewObject<'_> {
    /// How many parts it has, and how many words its name takes, if one record can hold it.
    ///
    /// # Errors
    /// Which limit it is over.
    pub fn needs(&self) -> Result<(u32, u32), Full> {
        let parts = if self.part_bytes == 0 { 0 } else { self.size.div_ceil(u64::from(self.part_bytes)) };
        match () {
            () if parts > u64::from(PARTS_MAX) => Err(Full::Parts),
            () if self.name.len() > NAME_MAX => Err(Full::Names),
            () if self.etag.len() > ETAG_MAX => Err(Full::Etag),
            () => Ok((parts as u32, self.name.len().div_ceil(NAME_WORD) as u32)),
        }
    }
}

impl Region {
    /// Engine only: appends a record, with its parts, and makes it findable. Returns its number. For a region that no
    /// `Catalog` keeps.
    pub fn append(&self, new: &NewObject<'_>) -> Result<u32, Full> {
        let header = self.header();
        let (parts, words) = new.needs()?;
        let (slot, first_part) = (self.objects_len(), header.parts_len.load(Ordering::Acquire));
        let name_at = header.names_len.load(Ordering::Acquire);
        match () {
            () if slot >= OBJECTS_MAX => return Err(Full::Objects),
            () if parts > PARTS_MAX - first_part => return Err(Full::Parts),
            () if words > NAME_WORDS - name_at => return Err(Full::Names),
            () => self.write(&RecordSpace { slot, first_part, parts, name_at }, new, 0),
        }
        Ok(slot)
    }

    /// Engine only: writes a record into room that nothing living has (the next record, or one that is GONE) and
    /// publishes it. `memory_ino` is 0 for one without a memory file.
    pub fn write(&self, room: &RecordSpace, new: &NewObject<'_>, memory_ino: u64) {
        let (header, words) = (self.header(), new.name.len().div_ceil(NAME_WORD));
        for (word, bytes) in self.name_words(room.name_at, words).iter().zip(new.name.as_bytes().chunks(NAME_WORD)) {
            let mut padded = [0; NAME_WORD];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u32::from_ne_bytes(padded), Ordering::Relaxed);
        }
        let len = self.objects_len();
        // SAFETY: within the array; zeroed memory is a record, and all of it is atomic.
        let object = unsafe { &*self.at::<Object>(Layout::OBJECTS, room.slot.min(OBJECTS_MAX - 1) as usize) };
        if room.slot < len {
            object.life.rewrite();
        }
        object.rewrite(room, new, memory_ino);
        let traces = self.traces(object);
        object.verdict.renew(&traces.handed);
        traces.uses.store(0, Ordering::Relaxed);
        for at in room.first_part..room.first_part + room.parts {
            self.wanted_at(at).clear();
            self.part_at(at).renew();
        }
        let most =
            |word: &AtomicU32, value: u32| word.store(word.load(Ordering::Relaxed).max(value), Ordering::Release);
        most(&header.names_len, room.name_at + words as u32);
        most(&header.parts_len, room.first_part + room.parts);
        // Findable first: an engine that dies between the two leaves an entry that leads to no record, which
        // `find` passes over, and never a record that nobody can find.
        if new.ino != 0 {
            self.index().insert(new.dev, new.ino, room.slot);
        }
        if memory_ino != 0 {
            self.index().insert(header.memory_dev.load(Ordering::Acquire), memory_ino, room.slot);
        }
        object.life.begin(new.state);
        if room.slot == len {
            header.objects_len.store(len + 1, Ordering::Release);
        }
    }

    /// Engine only: the record stands for nothing from now on, and is found by none of its files.
    pub fn void(&self, slot: u32) {
        let Some(object) = self.object(slot) else { return };
        object.life.end();
        let memory_dev = self.header().memory_dev.load(Ordering::Acquire);
        let of = |word: &AtomicU64| word.load(Ordering::Acquire);
        self.index().remove(object.dev(), object.ino(), slot);
        for (dev, ino) in [(memory_dev, of(&object.memory_ino)), (of(&object.file_dev), of(&object.file_ino))] {
            if ino != 0 {
                self.index().remove(dev, ino, slot);
            }
        }
    }

    /// Engine only, at a take-over: entries that lead to no living record go.
    pub fn sweep_index(&self) {
        self.index().sweep(|slot| self.object(slot).is_none_or(|object| object.state() == GONE));
    }

    /// Engine only: how many records, parts and words of names were ever given out.
    pub fn high_water(&self) -> (u32, u32, u32) {
        let of = |word: &AtomicU32, most: u32| word.load(Ordering::Acquire).min(most);
        let header = self.header();
        (self.objects_len(), of(&header.parts_len, PARTS_MAX), of(&header.names_len, NAME_WORDS))
    }

    /// Engine only: makes a small object's real file findable by its device and inode.
    pub fn set_file(&self, slot: u32, (dev, ino): (u64, u64)) {
        if let Some(object) = self.object(slot) {
            if (object.dev(), object.ino()) != (dev, ino) {
                self.index().insert(dev, ino, slot);
            }
            // The inode last: without it nothing is found.
            object.file_dev.store(dev, Ordering::Release);
            object.file_ino.store(ino, Ordering::Release);
        }
    }

    /// Engine only: a small object has no real file.
    pub fn clear_file(&self, slot: u32) {
        let Some(object) = self.object(slot) else { return };
        let dev = object.file_dev.load(Ordering::Acquire);
        let ino = object.file_ino.swap(0, Ordering::AcqRel);
        if ino != 0 && (object.dev(), object.ino()) != (dev, ino) {
            self.index().remove(dev, ino, slot);
        }
    }

    /// Engine only: an object has no memory file for now.
    pub fn clear_memory(&self, slot: u32) {
        let Some(object) = self.object(slot) else { return };
        let ino = object.memory_ino.swap(0, Ordering::AcqRel);
        if ino != 0 {
            self.index().remove(self.header().memory_dev.load(Ordering::Acquire), ino, slot);
        }
    }

    /// Engine only: makes an object's memory file findable by its inode.
    pub fn set_memory(&self, slot: u32, memory_ino: u64) {
        if let Some(object) = self.object(slot) {
            // In this order for the same reason as in `write`.
            self.index().insert(self.header().memory_dev.load(Ordering::Acquire), memory_ino, slot);
            object.memory_ino.store(memory_ino, Ordering::Release);
        }
    }
}

impl Object {
    /// First word of its name, and how many there are.
    pub fn name_place(&self) -> (u32, u32) {
        let len = self.name_len.load(Ordering::Relaxed).div_ceil(NAME_WORD as u32);
        (self.name_at.load(Ordering::Relaxed), len)
    }

    /// True for the record of a user's file that lies at an object's place: nothing stands in for the object, and
    /// `file_ino` is the user's. Its size and time are those of that file, its `errno` is what reading it gives (0: its
    /// bytes).
    pub fn is_in_the_way(&self) -> bool {
        self.kind() == RecordKind::Small
            && self.state() == FAILED
            && self.ino() == 0
            && self.file_ino.load(Ordering::Acquire) != 0
    }

    /// All but state and number of use.
    fn rewrite(&self, room: &RecordSpace, new: &NewObject<'_>, memory_ino: u64) {
        let words = [
            (&self.errno, 0),
            (&self.kind, new.kind as u32),
            (&self.part_bytes, new.part_bytes),
            (&self.folder, new.folder),
            (&self.first_part, room.first_part),
            (&self.parts, room.parts),
            (&self.ready_parts, 0),
            (&self.name_at, room.name_at),
            (&self.name_len, new.name.len() as u32),
            (&self.etag_len, new.etag.len() as u32),
            (&self.starved, 0),
            (&self.superseded, 0),
            (&self.changes, 0),
            (&self.settled, 0),
            (&self.unfetched, 0),
        ];
        words.into_iter().chain(self.unused.iter().map(|word| (word, 0))).for_each(|(word, value)| {
            word.store(value, Ordering::Relaxed);
        });
        let longs = [
            (&self.size, new.size),
            (&self.dev, new.dev),
            (&self.ino, new.ino),
            (&self.memory_ino, memory_ino),
            (&self.mtime_secs, new.mtime_secs as u64),
            (&self.listed_ms, 0),
            (&self.file_dev, 0),
            (&self.file_ino, 0),
            (&self.born, 0),
        ];
        longs.into_iter().for_each(|(word, value)| word.store(value, Ordering::Relaxed));
        let mut etag = [0; ETAG_MAX];
        etag[..new.etag.len()].copy_from_slice(new.etag.as_bytes());
        for (word, bytes) in self.etag.iter().zip(etag.chunks_exact(4)) {
            word.store(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), Ordering::Relaxed);
        }
    }
}
