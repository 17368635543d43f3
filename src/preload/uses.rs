//! The uses of an object as the engine counts them: opens, maps and streams.
//!
//! Called by the hooks for these and by the session. The audit file is told once of each kind.

use crate::handle::Handle;
use crate::memory_cache;
use crate::process;
use core::sync::atomic::Ordering;
use ossc_cache::region::Seen as Event;

/// The program opened (1), mapped (2) or took as FILE (3) the object: a use; the audit file is told once of each.
pub(crate) fn tell(handle: &Handle, act: u32) {
    let Some(now) = handle.now() else { return };
    // Each time: by this the engine knows of uses that begin and end between two of its looks.
    now.region.traces(now.object).uses.fetch_add(1, Ordering::Relaxed);
    if memory_cache::is_first(now.slot, act) {
        now.region.tell(Event { pid: process::pid() as u32, slot: now.slot.number(), act });
    }
}
