//! What the memory files are called.
//!
//! Called by the engine, which makes them, and by the library, which opens them where they have names.

use crate::cpath::CPath;

/// Name of a record's memory file inside the folder.
pub fn file_name(slot: u32) -> CPath {
    CPath::from(b"o").with_number(u64::from(slot))
}
