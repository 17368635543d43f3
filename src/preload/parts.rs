//! The parts that hold a range of bytes: asked for, held, or pinned, so that the engine does not give them up.
//!
//! Called by the read path and by whatever gives bytes away. It waits for nothing.

use crate::handle::Handle;
use ossc_cache::region::Region;

/// How bytes of a part are there that are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grain {
    /// With all of the part: their memory leaves this library's hands.
    Parts,
    /// In the part, or in blocks of it: for a copy, which is made again if they have gone meanwhile.
    Blocks,
}

/// From now on the parts that hold bytes `start..end` are not given up, until the kernel says that nobody has
/// the object's memory open or mapped: this process must have it open. To be called before the wait for bytes that
/// leave this library's hands (maps, pipes, sockets).
pub(crate) fn pin(handle: &Handle, start: u64, end: u64) {
    if let Some(Handle { region, object, .. }) = handle.now() {
        object.parts_of(start, end).for_each(|index| region.part(object, index).pin());
    }
}

/// Parts that stay as long as this lives: see `pin_for_copy`.
pub(crate) struct PinnedParts {
    region: Region,
    /// Numbers in the region: those that were held are let go, whatever the record says by then.
    parts: core::ops::Range<u32>,
}

impl Drop for PinnedParts {
    fn drop(&mut self) {
        self.parts.clone().for_each(|at| self.region.part_at(at).unpin_after_copy());
    }
}

/// The parts that hold bytes `start..end` are not given up while they are waited for and copied. One part at a
/// time, see `Part::pin_for_copy`: without it a reader may never see a part that others want the room of.
pub(crate) fn pin_for_copy(handle: &Handle, start: u64, end: u64) -> Option<PinnedParts> {
    let Handle { region, object, .. } = handle.now()?;
    let (first, parts) = (object.first_part(), object.parts_of(start, end));
    let parts = first.saturating_add(parts.start)..first.saturating_add(parts.end);
    parts.clone().for_each(|at| region.part_at(at).pin_for_copy());
    Some(PinnedParts { region, parts })
}

/// End of the part that holds byte `at`, but not more than `end`.
pub(crate) fn part_end(handle: &Handle, at: u64, end: u64) -> u64 {
    let part_bytes = handle.now().map_or(0, |now| u64::from(now.object.part_bytes()));
    at.checked_div(part_bytes).map_or(end, |index| ((index + 1) * part_bytes).min(end))
}

/// Hints: these bytes will be wanted soon.
pub(crate) fn will_need(handle: &Handle, start: u64, end: u64) {
    if let Some(now) = handle.now() {
        now.region.demand_bytes(now.object, start, end);
    }
}
