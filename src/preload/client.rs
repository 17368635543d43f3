//! The client: which files are ours, waiting for their bytes, and the memory behind them.
//!
//! Called by the hooks' slow paths. It attaches to the engine at the first need, keeps one mapping and
//! one descriptor per object, allocates nothing, and never writes to a descriptor that it has not just
//! verified or opened. (Signatures first; the bodies follow.)

use ossc_cache::region::Identity;
use ossc_cache::sys::{Errno, FileId, Result};

/// A file of ours.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    /// Record number.
    pub slot: u32,
    /// Which of its files it is.
    pub identity: Identity,
}

/// True once the constructor has seen ENABLE_CONNECTOR and MODEL_DIR: one relaxed load.
#[inline(always)]
pub(crate) fn is_active() -> bool {
    false
}

/// True if a file with this identity could be one of ours, judged without attaching: a regular file of
/// 0 bytes on MODEL_DIR's device, or any file on the device of the memory files, once attached.
pub(crate) fn could_be_ours(_id: &FileId) -> bool {
    false
}

/// Looks a file up; attaches if this process has not yet. `fd` (or -1) names the same file and is used to
/// find out which folder to list when the file is not known yet.
pub(crate) fn find(_id: &FileId, _fd: i32) -> Option<Found> {
    None
}

/// Size in bytes of the object, mtime etc. for the stat family: (size, mtime_secs, dev, ino of the placeholder).
pub(crate) struct Facts {
    pub size: u64,
    pub mtime_secs: i64,
    pub dev: u64,
    pub ino: u64,
    /// True for a large object (placeholder + memory file), false for a small one that is still coming.
    pub large: bool,
}

/// What the stat family reports for a record.
pub(crate) fn facts(_slot: u32) -> Option<Facts> {
    None
}

/// Waits until bytes `start..end` are ready.
pub(crate) fn wait_range(_slot: u32, _start: u64, _end: u64) -> Result<()> {
    Err(Errno(libc::EIO))
}

/// Waits until the whole object is ready and verified.
pub(crate) fn wait_whole(_slot: u32) -> Result<()> {
    Err(Errno(libc::EIO))
}

/// Waits until a small object is a real file; the caller then repeats its open or stat.
pub(crate) fn wait_placed(_slot: u32) -> Result<()> {
    Err(Errno(libc::EIO))
}

/// A fresh read-only, close-on-exec descriptor of the object's memory file; the caller owns it. Never 0-2.
pub(crate) fn open_memory(_slot: u32) -> Result<i32> {
    Err(Errno(libc::EIO))
}

/// Address of this process's own read-only map of the whole object (ready parts only may be touched).
pub(crate) fn mapping(_slot: u32) -> Result<*const u8> {
    Err(Errno(libc::EIO))
}

/// A kept descriptor of the memory file for small preads, verified before it is returned; do not close it.
pub(crate) fn kept_memory(_slot: u32) -> Result<i32> {
    Err(Errno(libc::EIO))
}

/// A path was not there (ENOENT): lists the folder it would lie in if that is an unlisted one of ours.
/// True if the caller should repeat its call.
pub(crate) fn missing(_dir: i32, _path: *const libc::c_char) -> bool {
    false
}

/// A folder was opened or is about to be read: lists it if it is an unlisted one of ours. `id` is its identity, `fd` (or -1) a descriptor of it.
pub(crate) fn folder(_id: &FileId, _fd: i32) {}

/// Hints: these bytes will be wanted soon.
pub(crate) fn will_need(_slot: u32, _start: u64, _end: u64) {}

/// Tells the audit file that this process opened (1), mapped (2) or took as FILE (3) the object.
pub(crate) fn tell(_slot: u32, _act: u32) {}

/// A line for the log, from a client (rare: refused writes, failed waits): what, on which object.
pub(crate) fn log(_what: &[u8], _slot: u32) {}
