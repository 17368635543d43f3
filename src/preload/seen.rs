//! A file of ours as a look has just found it.
//!
//! Made by `file`, and given to all that reads, waits or refuses. It says what was true a moment ago: its handle says how
//! to ask again.

use crate::handle::{Facts, Handle};
use core::ffi::c_int;
use ossc_cache::region::Identity;

/// A file of ours, as it was just found.
pub(crate) struct Seen {
    /// Whose it is.
    pub handle: Handle,
    /// Which of its files it is.
    pub identity: Identity,
    /// Size and the like.
    pub facts: Facts,
    /// The descriptor that it was found by; -1 for a path.
    pub fd: c_int,
}

impl Seen {
    /// A large object's placeholder: its bytes are elsewhere.
    pub(crate) fn is_placeholder(&self) -> bool {
        self.facts.large && self.identity == Identity::Placeholder
    }

    /// The file that stands in for a small object on its way.
    pub(crate) fn is_coming(&self) -> bool {
        !self.facts.large && self.identity == Identity::Placeholder
    }
}
