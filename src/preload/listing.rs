//! Listings: asking the engine for them, and noticing those that others have asked for.
//!
//! Called wherever a name or a file may be unknown only because its folder was not listed yet. It knows folders by
//! their paths, and decides nothing about which folder is meant (`folder`, `missing`, `identity` do).

use crate::attach::{self, MOVED, attached};
use crate::environ;
use crate::failed;
use crate::say::say;
use crate::silent;
use core::sync::atomic::{AtomicU64, Ordering};
use ossc_cache::region::{Object, Region};
use ossc_cache::sys::{self, Errno, Result};
use ossc_cache::wire::{Ask, Packet};

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
/// After so many of them the program says on stderr what it waits for.
const SPOKEN_MS: u64 = 10_000;
/// How long a sign of life of the engine may take then.
const SIGN_MS: u64 = 1_000;
/// How long a process without a descriptor to ask with waits for the listings of others, and how often it looks.
const OTHERS_MS: u64 = 2_000;
const OTHERS_STEP_MS: u64 = 5;
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

/// What `find` finds while other programs, or the engine by itself, have folders listed.
pub(crate) fn by_others<T>(region: &Region, find: impl Fn() -> Option<T>) -> Option<T> {
    for _ in 0..OTHERS_MS / OTHERS_STEP_MS {
        let is_last = region.header().folders_unlisted.load(Ordering::Acquire) == 0;
        let found = find();
        if found.is_some() || is_last {
            return found;
        }
        sys::sleep_ms(OTHERS_STEP_MS);
    }
    None
}

/// Asks the engine to list a folder, the next one if it is gone; true if it did. The path is relative to MODEL_DIR,
/// or absolute as the kernel names it.
pub(crate) fn list(path: &[u8]) -> bool {
    list_by(Ask::List, path)
}

pub(crate) fn list_by(ask: Ask, path: &[u8]) -> bool {
    for _ in 0..LIST_TRIES {
        let generation = attach::generation();
        let errno = match patiently(ask, path) {
            Ok(_) => return true,
            // It had its time, and is still at it: the log says with what.
            Err(Errno(libc::ETIMEDOUT)) => return false,
            Err(errno) => errno,
        };
        match attach::alive(generation) {
            Err(MOVED) => {}
            // Its own answer: the origin refuses.
            Ok(()) if errno.0 == libc::EIO => {
                failed::listing(path);
                return false;
            }
            Ok(()) => sys::sleep_ms(20),
            Err(_) => return false,
        }
    }
    false
}

/// Asks, and says so once the answer is long in coming. To ask again would be to ask for a newer listing than the one that
/// is waited for.
fn patiently(ask: Ask, path: &[u8]) -> Result<Packet> {
    attach::ask_engine_with(ask, path, &|fd| {
        sys::wait_readable(fd, SPOKEN_MS) || {
            speak(path);
            sys::wait_readable(fd, LIST_MS - SPOKEN_MS - SIGN_MS)
        }
    })
}

/// One line on stderr, and no second one within the time that a listing may take.
fn speak(path: &[u8]) {
    static SPOKEN_AT: AtomicU64 = AtomicU64::new(0);
    let (now, before) = (sys::now_ms().max(1), SPOKEN_AT.load(Ordering::Relaxed));
    if before == 0 || now.saturating_sub(before) >= LIST_MS {
        SPOKEN_AT.store(now, Ordering::Relaxed);
        let folder = if path.is_empty() { environ::model_dir() } else { path };
        if !silent::answers(SIGN_MS) {
            return silent::speak(b"still waiting for the listing of a folder by ", b"");
        }
        say(&[
            b"oss connector: still waiting for the listing of ",
            folder,
            b": OSS is slow, or objects are being changed there, which are shown when they have been left alone for listAgainSec; the log says which\n",
        ]);
    }
}
