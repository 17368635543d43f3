//! What this library knows an object by: its record in the catalog of one engine, in one of its uses.
//!
//! Called by all that has to do with an object. The look that recognises a file (`identity`) gives a handle. What is
//! remembered from one call to the next (of descriptors, maps, sessions) is its slot, one word, of which a handle is made
//! again.
//!
//! A handle may be followed as long as the process lives: regions are never unmapped, and a record stays a record. What
//! the record says may be over: the engine may have been replaced since by one with another catalog, and the record may
//! stand for nothing, or be used again for another version. So each use asks for the handle of now (`Handle::now`), and
//! whatever was read of a record (facts, parts, memory) counts only if its use still lasts afterwards (`Handle::lasts`,
//! see `ossc_cache::life`). If not, the answer is ESTALE.

use crate::attach;
use crate::environ;
use crate::listing::list;
use core::sync::atomic::Ordering;
use ossc_cache::cpath::CPath;
use ossc_cache::region::{OBJECTS_MAX, Object, RecordKind, Region};
use ossc_cache::sys::Errno;

/// What a handle or descriptor gives whose version no engine has any more.
pub(crate) const GONE: Errno = Errno(libc::ESTALE);

const GENERATION_SHIFT: u32 = 25;
const USE_SHIFT: u32 = 17;
const USE_MASK: u32 = 0xff;
const NUMBER_MASK: u32 = (1 << USE_SHIFT) - 1;
const _: () = assert!(OBJECTS_MAX == NUMBER_MASK + 1);

/// A handle in one word: generation of the region (7 bits), number of the record's use (8 bits), number of the record
/// (17 bits). By its generation a new engine with a new catalog never gets an old slot taken for one of its own. Never
/// 0, since generations count from 1.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u32);

impl Slot {
    fn new(generation: u32, incarnation: u32, number: u32) -> Slot {
        Slot(generation << GENERATION_SHIFT | (incarnation & USE_MASK) << USE_SHIFT | number & NUMBER_MASK)
    }

    /// The slot that `to_bits` was asked of.
    pub fn from_bits(bits: u32) -> Slot {
        Slot(bits)
    }

    /// The word.
    pub fn to_bits(self) -> u32 {
        self.0
    }

    /// Plain number of the record in its own generation.
    pub fn number(self) -> u32 {
        self.0 & NUMBER_MASK
    }

    /// Generation and use: what is kept of a record is kept of these.
    pub fn tag(self) -> u32 {
        self.0 >> USE_SHIFT
    }

    fn generation(self) -> u32 {
        self.0 >> GENERATION_SHIFT
    }

    fn is_use(self, incarnation: u32) -> bool {
        (incarnation ^ self.tag()) & USE_MASK == 0
    }

    /// The handle, whatever its record says now. `None` for a word that was never a slot of this process.
    pub fn handle(self) -> Option<Handle> {
        let region = attach::region_of(self.generation())?;
        Some(Handle { region, object: record(region, self.number())?, slot: self })
    }
}

/// See the module.
#[derive(Clone, Copy)]
pub(crate) struct Handle {
    /// The region that its record is in.
    pub region: Region,
    /// The record.
    pub object: &'static Object,
    /// The same in one word.
    pub slot: Slot,
}

impl Handle {
    /// Of the record with this number in the region of a generation, in the use that it was found in.
    pub fn new(generation: u32, region: Region, number: u32, incarnation: u32) -> Option<Handle> {
        Some(Handle { region, object: record(region, number)?, slot: Slot::new(generation, incarnation, number) })
    }

    /// Generation of its region.
    pub fn generation(&self) -> u32 {
        self.slot.generation()
    }

    /// True while the record is in the use that the handle is of: what was read of it so far is of that use. The slot
    /// has the low bits of its number; a call does not take as long as 256 uses with a rest each.
    #[inline]
    pub fn lasts(&self) -> bool {
        let incarnation = self.object.incarnation();
        self.slot.is_use(incarnation) && self.object.lasts(incarnation)
    }

    /// True as long as the record is not used again, also when it is GONE.
    pub fn is_not_reused(&self) -> bool {
        self.slot.is_use(self.object.incarnation())
    }

    /// The same object in the region of now: itself, or, if its engine was replaced, what its file leads to after its
    /// folder was listed where the new engine has not done so yet. `None` for a version that is no more.
    #[inline]
    pub fn now(&self) -> Option<Handle> {
        if attach::generation() != self.generation() {
            return self.in_another_region();
        }
        self.object.seen().is_some_and(|incarnation| self.slot.is_use(incarnation)).then_some(*self)
    }

    #[cold]
    #[inline(never)]
    fn in_another_region(&self) -> Option<Handle> {
        let object = self.object;
        let (dev, ino, size, etag) = (object.dev(), object.ino(), object.size(), object.etag());
        let name = self.region.name(object);
        if !self.lasts() {
            return None;
        }
        loop {
            let current = attach::generation();
            if current == self.generation() {
                return Some(*self);
            }
            let region = attach::region_of(current)?;
            if let Some((number, incarnation, _)) = region.find_use(dev, ino) {
                let now = Handle::new(current, region, number, incarnation)?;
                let is_same = now.object.etag() == etag && now.object.size() == size;
                return (is_same && now.object.lasts(incarnation)).then_some(now);
            }
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let is_unlisted = region.header().folders_unlisted.load(Ordering::Acquire) != 0;
            let listed = is_unlisted && list(folder.as_bytes());
            if attach::generation() == current && (!listed || region.find(dev, ino).is_none()) {
                return None;
            }
        }
    }

    /// The same for what is kept of it: also when its record is GONE, as long as that is not used again. `None`, too,
    /// for that in another generation.
    pub fn now_or_gone(&self) -> Option<Handle> {
        let is_kept = || self.is_not_reused() && attach::generation() == self.generation();
        self.now().or_else(|| is_kept().then_some(*self))
    }

    /// True if both are one object in the region of now.
    pub fn is_same(&self, other: &Handle) -> bool {
        match (self.now(), other.now()) {
            (Some(one), Some(other)) => one.slot == other.slot,
            _ => false,
        }
    }

    /// What the stat family reports for it; `None` if it is of a version that is no more.
    pub fn facts(&self) -> Option<Facts> {
        let now = self.now()?;
        let facts = Facts {
            size: now.object.size(),
            mtime_secs: now.object.mtime_secs(),
            dev: now.object.dev(),
            ino: now.object.ino(),
            large: now.object.kind() == RecordKind::Large,
        };
        now.lasts().then_some(facts)
    }

    /// Where its file was made: MODEL_DIR and its name.
    pub fn path(&self) -> CPath {
        let path = CPath::from(environ::model_dir());
        match self.now() {
            Some(now) => path.with(b"/").with(now.region.name(now.object).as_bytes()),
            None => path,
        }
    }
}

/// What the stat family reports for a record.
pub(crate) struct Facts {
    /// Size in bytes.
    pub size: u64,
    /// Last-Modified of the object, seconds since 1970.
    pub mtime_secs: i64,
    /// Device of the placeholder.
    pub dev: u64,
    /// Inode of the placeholder.
    pub ino: u64,
    /// True for a large object (placeholder and memory file), false for a small one that is still coming.
    pub large: bool,
}

/// The record with this number in a region.
fn record(region: Region, number: u32) -> Option<&'static Object> {
    // SAFETY: regions are never unmapped, so a record lives as long as the process.
    region.object(number).map(|object| unsafe { &*(object as *const Object) })
}
