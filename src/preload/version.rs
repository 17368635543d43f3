//! Whether the newest listing still shows the version that a file or record is of.
//!
//! Called by the session, and by `open` for the memory file of an engine that is gone. It compares versions by ETag and
//! size, and files by device and inode; it asks no engine.

use crate::attach;
use core::sync::atomic::Ordering;
use ossc_cache::region::{Identity, Object, RecordKind, Region, state};
use ossc_cache::sys::FileId;

/// True for the memory file of an engine that is gone, in a process that knows the next one.
pub(crate) fn is_of_an_engine_before(id: &FileId) -> bool {
    attach::generation() > 1
        && id.is_file()
        && attach::regions_before().any(|region| {
            id.dev == region.header().memory_dev.load(Ordering::Acquire)
                && matches!(region.find(id.dev, id.ino), Some((_, Identity::Memory)))
        })
}

/// True if the newest listing of `region` shows the very version that a record of another region, its own, stands for:
/// by its file, or by its name.
pub(crate) fn is_shown(region: &Region, own: &Region, object: &Object) -> bool {
    let is_same = |now: &Object| {
        !now.is_superseded() && (now.etag(), now.size()) == (object.etag(), object.size()) && now.state() != state::GONE
    };
    let by_file = region.find(object.dev(), object.ino()).and_then(|(number, _)| region.object(number));
    by_file.is_some_and(is_same)
        || (0..region.objects_len())
            .filter_map(|number| region.object(number))
            .any(|now| is_same(now) && now.kind() != RecordKind::Folder && region.name(now) == own.name(object))
}

/// True if a file that this process has open or mapped is of a version that the newest listing does not show.
pub(crate) fn is_old_file(dev: u64, ino: u64) -> bool {
    let is_old = |generation: u32, own: &Region, object: &Object| match attach::last_known() {
        Some((now, _)) if now == generation => object.is_superseded() && !is_shown(own, own, object),
        Some((_, region)) => !is_shown(&region, own, object),
        None => true,
    };
    (1..=attach::generation()).rev().any(|generation| {
        let Some(own) = attach::region_of(generation) else { return false };
        let found = own.find(dev, ino).map(|(number, _)| number).or_else(|| own.find_any_file(dev, ino));
        let object = found.and_then(|number| own.object(number)).filter(|object| object.kind() != RecordKind::Folder);
        object.is_some_and(|object| is_old(generation, &own, object))
    })
}
