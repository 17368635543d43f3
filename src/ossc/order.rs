//! What the thread that lists folders is told: by clients, by the work, and by the threads that list.
//!
//! Sent by those who tell it, and taken by `mirror::listings`. Plain values.

pub mod failure;

use failure::Failure;
use ossc_cache::wire;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Something for the thread that lists folders.
pub enum Order {
    /// A program waits for a folder (absolute path, as the kernel names it); the answer goes to `conn`.
    List {
        /// The folder.
        path: String,
        /// It is about to read the names in it.
        enters: bool,
        /// Where to answer.
        conn: OwnedFd,
    },
    /// A client that attached while something was missing in these folders (relative paths): they are filled again,
    /// then it gets its descriptors.
    Refill {
        /// The folders.
        paths: Vec<String>,
        /// Where to answer.
        conn: OwnedFd,
        /// With what.
        fds: [i32; wire::FDS_MAX],
        /// The one of these that is closed afterwards.
        own: Option<OwnedFd>,
    },
    /// A program has opened this object, or waits for it.
    Used {
        /// Its record.
        slot: u32,
        /// The program, where it has said so.
        pid: Option<u32>,
    },
    /// A listing is made real, or could not be had.
    Looked {
        /// The folder (relative path).
        path: String,
        /// No program has asked for it.
        is_ahead: bool,
        /// What came of it.
        done: Result<Look, Failure>,
    },
    /// An object in this folder is no longer the one that was listed.
    Refresh {
        /// Relative path.
        folder: String,
        /// When that was found, in milliseconds of the monotonic clock: a listing of later knows it.
        asked_ms: u64,
    },
}

/// What came of a look at a folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// The folder shows a listing that is new enough, or the newest that could be had.
    Done,
    /// It is being changed on OSS: to be looked at again after this long.
    Wait(Duration),
}
