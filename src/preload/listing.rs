//! Listings: asking the engine for them, and noticing those that others have asked for.
//!
//! Called wherever a name or a file may be unknown only because its folder was not listed yet. It knows folders by
//! their paths, and decides nothing about which folder is meant (`folder`, `missing`, `identity` do).

use crate::attach::{self, MOVED, attached};
use core::sync::atomic::Ordering;
use ossc_cache::region::{Object, Region};
use ossc_cache::sys::{self, Errno};
use ossc_cache::wire::Ask;

/// What came of looking whether a folder has to be listed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listing {
    /// There was nothing to list.
    Needless,
    /// It was listed now: the caller should repeat its call.
    Done,
    /// It should have been, but no engine can be asked, or the origin refuses: what lies in it is not known.
    Failed,
    /// It may have to be, and the program has no descriptor left to look with: what lies in it is not known.
    NoDescriptor,
}

/// How long listing a folder may take, in milliseconds.
const LIST_MS: u64 = 60_000;
/// How often an engine is asked that does not answer although one runs.
const LIST_TRIES: u32 = 5;

/// True if no folder is left that would have to be listed.
pub(crate) fn knows_all_folders() -> bool {
    attached().is_some_and(|(_, region)| region.header().folders_unlisted.load(Ordering::Acquire) == 0)
}

/// Changes with every listing that was made real, and when this process attaches: a name that was missing
/// under another value may be there now.
pub(crate) fn count() -> u64 {
    attached().map_or(0, |(generation, region)| {
        u64::from(generation) << 32 | u64::from(region.header().listings.load(Ordering::Acquire))
    })
}

/// Has an old listing of a folder renewed; what cannot be renewed stays as it is.
pub(crate) fn list_again(region: &Region, folder: &Object) {
    let _ = list(region.name(folder).as_bytes());
}

/// Asks the engine to list a folder, the next one if it is gone; true if it did. The path is relative to MODEL_DIR,
/// or absolute as the kernel names it.
pub(crate) fn list(path: &[u8]) -> bool {
    list_by(Ask::List, path)
}

pub(crate) fn list_by(ask: Ask, path: &[u8]) -> bool {
    for _ in 0..LIST_TRIES {
        let generation = attach::generation();
        let errno = match attach::ask(ask, path, LIST_MS) {
            Ok(_) => return true,
            // It had its time, and is still at it: the log says with what.
            Err(Errno(libc::ETIMEDOUT)) => return false,
            Err(errno) => errno,
        };
        match attach::alive(generation) {
            Err(MOVED) => {}
            // Its own answer: the origin refuses.
            Ok(()) if errno.0 == libc::EIO => return false,
            Ok(()) => sys::sleep_ms(20),
            Err(_) => return false,
        }
    }
    false
}
