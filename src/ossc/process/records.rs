//! What the records of a region mean to people: which are shown, how much of each is here, and its state in one word.
//!
//! Called by the metrics and by the commands that show something. It changes nothing.

use ossc_cache::region::{Object, RecordKind, Region, state};

/// All objects, folders left out, records that stand for nothing, and files that a newer version has replaced.
pub fn objects(region: &Region) -> impl Iterator<Item = &Object> {
    let is_shown = |object: &&Object| match object.kind() {
        RecordKind::Folder => false,
        RecordKind::Small => !object.is_superseded(),
        RecordKind::Large => object.state() != state::GONE,
    };
    (0..region.objects_len()).filter_map(|slot| region.object(slot)).filter(is_shown)
}

/// Bytes of an object that readers get without waiting.
pub fn ready_bytes(region: &Region, object: &Object) -> u64 {
    match object.kind() {
        RecordKind::Large => (0..object.parts())
            .filter(|index| region.part(object, *index).is_ready())
            .map(|index| object.part_range(index))
            .map(|r| r.end - r.start)
            .sum(),
        _ if matches!(object.state(), state::PLACED | state::GONE) => object.size(),
        _ => 0,
    }
}

/// Some of it is here or on its way, and some is not.
pub fn is_under_way(region: &Region, object: &Object) -> bool {
    let begun = || (0..object.parts()).any(|index| region.part(object, index).state() != ossc_cache::part::EMPTY);
    object.state() == state::COMING || object.state() == state::LOADING && begun()
}

/// An object's state in one word.
pub fn state_label(region: &Region, object: &Object) -> &'static str {
    match object.state() {
        state::COMING => "coming",
        state::LOADING if !is_under_way(region, object) => "idle",
        state::PLACED | state::GONE => "file",
        state::LOADING => "loading",
        state::VERIFIED if object.verified() == Some(false) => "unverified",
        state::VERIFIED => "verified",
        state::FAILED if object.is_in_the_way() => "user's",
        state::FAILED => "failed",
        _ => "?",
    }
}
