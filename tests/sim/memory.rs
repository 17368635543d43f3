//! Memory without files: one arena that objects get their places in, and one region, both used again by the next
//! seed. Stands in for `ossc_store::pages`. It notes what is given back and asks the stage who uses an object.
#![allow(unsafe_code)]

use crate::fault::Fault;
use crate::stage::{self, Shared};
use ossc_cache::part::{EMPTY, FILLING};
use ossc_cache::region::{OBJECTS_MAX, PARTS_MAX, REGION_BYTES, Region, RegionFiles};
use ossc_cache::sys::{self, Errno, Result};
use ossc_cache::wire;
use ossc_engine::work::shared::memory::{Guard, Memory};

/// All memory of one run.
const ARENA_BYTES: usize = 8 << 20;
/// What memory without bytes of an object looks like.
const POISON: u8 = 0xDD;
/// Room that a seed needs of the region, generously.
const SEED_RECORDS: u32 = 1 << 8;
const SEED_PARTS: u32 = 1 << 14;

/// Arena and region of one thread.
pub struct Ground {
    arena: Box<[u8]>,
    used: usize,
    region: Region,
    files: RegionFiles,
}

impl Ground {
    /// Fresh ones.
    ///
    /// # Errors
    /// No memory for the region.
    pub fn new() -> Result<Ground> {
        let (region, files) = new_region()?;
        Ok(Ground { arena: vec![0; ARENA_BYTES].into_boxed_slice(), used: 0, region, files })
    }

    /// For the next seed. Records of the seeds before stay in the region, and nobody refers to them.
    pub fn clear(&mut self) -> Result<Region> {
        self.used = 0;
        if self.region.objects_len() + SEED_RECORDS > OBJECTS_MAX || self.parts_used() + SEED_PARTS > PARTS_MAX {
            let old = (self.region, self.files);
            (self.region, self.files) = new_region()?;
            // SAFETY: the engines of all seeds so far are gone, and with them every reference into the region.
            unsafe { sys::munmap(old.0.base() as usize, REGION_BYTES)? };
            wire::close_all(&old.1);
        }
        Ok(self.region)
    }

    fn parts_used(&self) -> u32 {
        let last = self.region.objects_len().checked_sub(1).and_then(|slot| self.region.object(slot));
        last.map_or(0, |object| object.first_part() + object.parts())
    }

    /// A place for an object; its address.
    pub fn place(&mut self, bytes: usize) -> usize {
        let at = self.used;
        self.used = (at + bytes).next_multiple_of(64);
        assert!(self.used <= ARENA_BYTES, "the arena is too small for one seed");
        self.arena[at..].as_mut_ptr() as usize
    }
}

fn new_region() -> Result<(Region, RegionFiles)> {
    let files = sys::memfds(c"simulation")?;
    Ok((Region::create(files, "/model", "/log")?, files))
}

/// The bytes at an address of the arena. Whoever looks does so between two turns, when nobody writes.
pub fn look(at: usize, len: usize) -> &'static [u8] {
    // SAFETY: addresses and lengths come from `Ground::place`; the arena outlives every run, and all writes are of
    // this thread and over.
    unsafe { std::slice::from_raw_parts(at as *const u8, len) }
}

/// One object's memory.
pub struct ObjectMemory {
    stage: Shared,
    region: Region,
    slot: u32,
    at: usize,
    len: usize,
}

impl ObjectMemory {
    /// `len` bytes at `at` for this record of the region.
    pub fn new(stage: Shared, region: Region, slot: u32, at: usize, len: usize) -> ObjectMemory {
        ObjectMemory { stage, region, slot, at, len }
    }

    /// The part that a byte belongs to, and whether it is claimed.
    fn part_at(&self, offset: u64) -> Option<(u32, bool)> {
        let object = self.region.object(self.slot)?;
        let index = (offset / u64::from(object.part_bytes())) as u32;
        Some((index, self.region.part(object, index).state() == FILLING))
    }

    fn poison(&self, start: u64, end: u64) {
        assert!(start <= end && end as usize <= self.len, "outside the object");
        // SAFETY: inside the object's place; the engine vouches that nobody reads or writes it now, which the stage
        // checks.
        unsafe { ((self.at + start as usize) as *mut u8).write_bytes(POISON, (end - start) as usize) };
    }
}

/// Nobody else has it open as long as it lives: everything here is on one thread.
struct Alone;

impl Guard for Alone {}

impl Memory for ObjectMemory {
    fn address(&self, offset: u64) -> *mut u8 {
        let is_claimed = self.part_at(offset).is_some_and(|(_, is_claimed)| is_claimed);
        stage::lock(&self.stage).reached(self.slot, offset, is_claimed);
        (self.at + offset as usize) as *mut u8
    }

    fn file(&self) -> Option<i32> {
        None
    }

    fn populate(&self, start: u64, end: u64) -> Result<()> {
        let mut stage = stage::lock(&self.stage);
        if !stage.presents {
            stage.tried.push((self.slot, start..end));
        }
        if stage.strike(Fault::NoMemory) {
            return Err(Errno(libc::ENOMEM));
        }
        let Some((index, is_claimed)) = self.part_at(start) else { return Err(Errno(libc::EIO)) };
        if !is_claimed {
            stage.violated(format!("part {index} of record {} gets pages, and nobody has claimed it", self.slot));
        }
        let Some(truth) = stage.truth(self.slot) else { return Err(Errno(libc::EIO)) };
        let part = &mut truth.parts[index as usize];
        (part.resident, part.good) = (true, false);
        part.flips.clear();
        Ok(())
    }

    fn write_small(&self, start: u64, bytes: &[u8]) -> Result<()> {
        let index = self.part_at(start).map_or(0, |(index, _)| index);
        let is_empty = self.region.object(self.slot).is_some_and(|o| self.region.part(o, index).state() == EMPTY);
        let mut stage = stage::lock(&self.stage);
        if stage.strike(Fault::NoMemory) {
            return Err(Errno(libc::ENOMEM));
        }
        stage.few(self.slot, index, start, bytes, is_empty);
        assert!(start as usize + bytes.len() <= self.len, "outside the object");
        // SAFETY: inside the object's place; that nobody else writes there is what the stage has checked.
        unsafe { ((self.at + start as usize) as *mut u8).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    fn read(&self, start: u64, bytes: &mut [u8]) -> Result<()> {
        bytes.copy_from_slice(look(self.at + start as usize, bytes.len()));
        Ok(())
    }

    fn punch(&self, start: u64, end: u64) {
        let is_claimed = self.part_at(start).is_some_and(|(_, is_claimed)| is_claimed);
        stage::lock(&self.stage).punched(self.slot, start, end, is_claimed);
        self.poison(start, end);
    }

    /// Its part is there: the last that is done before it is published.
    fn unmap_pages(&self, start: u64, end: u64) {
        let Some((index, _)) = self.part_at(start) else { return };
        let found = look(self.at + start as usize, (end - start) as usize);
        stage::lock(&self.stage).whole(self.slot, index, found);
    }

    fn lease(&self) -> Result<Box<dyn Guard>> {
        match stage::lock(&self.stage).truth(self.slot) {
            Some(truth) if truth.users == 0 => Ok(Box::new(Alone)),
            _ => Err(Errno(libc::EAGAIN)),
        }
    }

    fn reopen_read_only(&self) -> Result<i32> {
        Err(Errno(libc::ENOSYS))
    }
}
