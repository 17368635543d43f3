//! What this library knows an object by: its record in the catalog of one engine, in one of its uses.
//!
//! Called by all that has to do with an object. A slot number carries the generation of the region that it belongs to, so
//! that a new engine with a new catalog never gets an old number taken for one of its own, and which use of the record it
//! means: records of versions that nobody uses are used again. Whatever was read of a record (facts, parts, memory) counts
//! only if that use still lasts afterwards (`ossc_cache::life`); if not, the answer is ESTALE.

use crate::attach;
use crate::environ;
use crate::listing::list;
use core::sync::atomic::Ordering;
use ossc_cache::cpath::CPath;
use ossc_cache::region::{Identity, Kind, OBJECTS_MAX, Object, Region};
use ossc_cache::sys::Errno;
use ossc_cache::verdict::Judged;

/// A file of ours.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    /// Record number.
    pub slot: u32,
    /// Which of its files it is.
    pub identity: Identity,
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

/// A slot: generation (7 bits), number of the record's use (8 bits), number of the record (17 bits).
const GENERATION_SHIFT: u32 = 25;
const USE_SHIFT: u32 = 17;
const USE_MASK: u32 = 0xff;
const NUMBER_MASK: u32 = (1 << USE_SHIFT) - 1;
const _: () = assert!(OBJECTS_MAX == NUMBER_MASK + 1);

/// What a slot or descriptor gives whose version no engine has any more.
pub(crate) const GONE: Errno = Errno(libc::ESTALE);

/// The record of an object, as its own engine knew it, and the generation of that.
pub(crate) fn was(slot: u32) -> Option<(u32, &'static Object)> {
    record_of(slot).map(|(_, object)| (slot >> GENERATION_SHIFT, object))
}

/// What the stat family reports for a record; `None` if the slot is of a version that is no more.
pub(crate) fn facts(slot: u32) -> Option<Facts> {
    let (_, object, now) = resolve(slot)?;
    let facts = Facts {
        size: object.size(),
        mtime_secs: object.mtime_secs(),
        dev: object.dev(),
        ino: object.ino(),
        large: object.kind() == Kind::Large,
    };
    lasts(object, now).then_some(facts)
}

/// Where an object's file was made: MODEL_DIR and its name.
pub(crate) fn path_of(slot: u32) -> CPath {
    let path = CPath::from(environ::model_dir());
    match resolve(slot) {
        Some((region, object, _)) => path.with(b"/").with(region.name(object).as_bytes()),
        None => path,
    }
}

pub(crate) fn slot_of(generation: u32, incarnation: u32, number: u32) -> u32 {
    generation << GENERATION_SHIFT | (incarnation & USE_MASK) << USE_SHIFT | number & NUMBER_MASK
}

/// True if both are one object in the region of now.
pub(crate) fn is_same(one: u32, other: u32) -> bool {
    match (resolve(one), resolve(other)) {
        (Some((_, _, one)), Some((_, _, other))) => one == other,
        _ => false,
    }
}

/// Plain number of a slot's record in its own generation.
pub(crate) fn number_of(slot: u32) -> u32 {
    slot & NUMBER_MASK
}

/// Generation of the region that a slot is of.
pub(crate) fn generation_of(slot: u32) -> u32 {
    slot >> GENERATION_SHIFT
}

/// Generation and use of a slot: what is kept of a record is kept of these.
pub(crate) fn tag_of(slot: u32) -> u32 {
    slot >> USE_SHIFT
}

/// True while the record is in the use that the slot is of: what was read of it so far is of that use. The slot has
/// the low bits of its number; a call does not take as long as 256 uses with a rest each.
#[inline]
pub(crate) fn lasts(object: &Object, slot: u32) -> bool {
    let incarnation = object.incarnation();
    incarnation & USE_MASK == tag_of(slot) & USE_MASK && object.lasts(incarnation)
}

/// Region, record and slot of now behind a slot; an old generation's slot is looked up again by inode, after
/// its folder was listed where the new engine has not done so yet. `None` for a version that is no more.
#[inline]
pub(crate) fn resolve(slot: u32) -> Option<(Region, &'static Object, u32)> {
    let (region, object) = record_of(slot)?;
    if attach::generation() != slot >> GENERATION_SHIFT {
        resolve_again(slot, region, object)
    } else {
        let is_same = object.seen().is_some_and(|incarnation| incarnation & USE_MASK == tag_of(slot) & USE_MASK);
        is_same.then_some((region, object, slot))
    }
}

/// The same for what is kept: also of a record that is GONE, as long as it is not used again. `None` if there is
/// another generation by now.
pub(crate) fn resolve_kept(slot: u32) -> Option<(Region, &'static Object)> {
    let (region, object) = record_of(slot)?;
    let is_same = object.incarnation() & USE_MASK == tag_of(slot) & USE_MASK;
    (is_same && attach::generation() == slot >> GENERATION_SHIFT).then_some((region, object))
}

/// The record of a slot, whatever it says now.
fn record_of(slot: u32) -> Option<(Region, &'static Object)> {
    let region = attach::region_of(slot >> GENERATION_SHIFT)?;
    Some((region, record(region, number_of(slot))?))
}

/// The record in the region of now of an object in the region of an engine before.
#[cold]
#[inline(never)]
fn resolve_again(slot: u32, region: Region, object: &'static Object) -> Option<(Region, &'static Object, u32)> {
    let before = (object.dev(), object.ino(), object.size(), object.etag());
    let name = region.name(object);
    if !lasts(object, slot) {
        return None;
    }
    let (dev, ino, size, etag) = before;
    loop {
        let current = attach::generation();
        if current == slot >> GENERATION_SHIFT {
            return Some((region, object, slot));
        }
        let region_now = attach::region_of(current)?;
        if let Some((number_now, incarnation, _)) = region_now.find_use(dev, ino) {
            let object_now = record(region_now, number_now)?;
            let is_same = object_now.etag() == etag && object_now.size() == size && object_now.lasts(incarnation);
            return is_same.then_some((region_now, object_now, slot_of(current, incarnation, number_now)));
        }
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let is_unlisted = region_now.header().folders_unlisted.load(Ordering::Acquire) != 0;
        let listed = is_unlisted && list(folder.as_bytes());
        if attach::generation() == current && (!listed || region_now.find(dev, ino).is_none()) {
            return None;
        }
    }
}

/// The record behind a slot in its own region while it stands for the same version, and the generation of that.
pub(crate) fn record_in(slot: u32) -> Option<(u32, &'static Object)> {
    let (_, object) = record_of(slot)?;
    lasts(object, slot).then_some((slot >> GENERATION_SHIFT, object))
}

/// The verdict in the record behind a slot in its own region, also of one that is GONE, as long as it is not used again.
pub(crate) fn verdict_of(slot: u32) -> Option<Judged> {
    let (_, object) = record_of(slot)?;
    let judged = object.verdict.get();
    (object.incarnation() & USE_MASK == tag_of(slot) & USE_MASK).then_some(judged)
}

/// The record with this number in a region.
pub(crate) fn record(region: Region, number: u32) -> Option<&'static Object> {
    // SAFETY: regions are never unmapped, so a record lives as long as the process.
    region.object(number).map(|object| unsafe { &*(object as *const Object) })
}
