//! An object that no program uses, as the kernel says.
//!
//! Taken by the residency wing before it gives memory back, and handed to what ends a version. It waits for nothing.

use crate::work::residency::stand::{self, Stands};
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::memory::Guard;
use ossc_cache::region::{Object, ObjectTraces};

/// The lease on an object's memory, taken at a moment when its placeholder was open nowhere either. While it is held
/// no program has the memory open or mapped, and one that wants it waits in its `open`: programs open the memory
/// before they pin parts of it, so the pins that are there are of none. The placeholder may be opened meanwhile: what
/// is read through it waits for its parts like any other read.
pub struct Unused {
    pub memory: Box<dyn Guard>,
    /// A lease on the placeholder was granted, or it is not served any more.
    is_closed: bool,
}

impl Unused {
    /// `None` if a program uses it.
    pub fn prove(object: &Object, entry: &RegisterEntry, traces: &ObjectTraces) -> Option<Unused> {
        let memory = entry.memory.as_ref()?.lease().ok()?;
        match stand::look(entry, object, traces) {
            Stands::Open => None,
            // Where it is not known a reader that has it open sees its parts go, and waits again.
            stands => Some(Unused { memory, is_closed: stands == Stands::Closed }),
        }
    }

    /// True if it is known that no program had the placeholder open. Where the file system has no leases, a program that
    /// has it open and reads nothing is not seen.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// False where no memory was there when this was taken: what has been made since then may be in use.
    pub fn is_of_memory(&self) -> bool {
        self.memory.is_of_memory()
    }

    /// True while no program waits to open the memory.
    pub fn is_alone(&self) -> bool {
        self.memory.is_whole()
    }
}
