//! What the library says on the host's standard error: one line in one write, and only where descriptor 2 still is
//! what it was at the start. A daemon closes its first three descriptors, and its data file may be number 2 by then.
//!
//! Called by the constructor (`remember`), and where a program meets what its user has to know. It never writes anywhere else, and never fails.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use ossc_cache::cpath::CPath;
use ossc_cache::sys::{self, FileId};

const STDERR: i32 = 2;

/// Device, inode, device that it is itself, and type of what descriptor 2 was; a type of 0 is none.
static DEV: AtomicU64 = AtomicU64::new(0);
static INO: AtomicU64 = AtomicU64::new(0);
static RDEV: AtomicU64 = AtomicU64::new(0);
static KIND: AtomicU32 = AtomicU32::new(0);

/// Constructor: takes down what standard error is.
pub(crate) fn remember() {
    if let Ok(st) = sys::fstat(STDERR) {
        DEV.store(st.st_dev, Relaxed);
        INO.store(st.st_ino, Relaxed);
        RDEV.store(st.st_rdev, Relaxed);
        KIND.store(st.st_mode & libc::S_IFMT, Relaxed);
    }
}

fn is_as_remembered() -> bool {
    let now = sys::fstat(STDERR).map(|st| (st.st_dev, st.st_ino, st.st_rdev, st.st_mode & libc::S_IFMT));
    let then = (DEV.load(Relaxed), INO.load(Relaxed), RDEV.load(Relaxed), KIND.load(Relaxed));
    then.3 != 0 && now == Ok(then)
}

/// One line of these pieces, so that lines of several processes do not mix.
pub(crate) fn say(pieces: &[&[u8]]) {
    if is_as_remembered() {
        let line = pieces.iter().fold(CPath::default(), |line, piece| line.with(piece));
        let _ = sys::write(STDERR, line.as_bytes());
    }
}

/// True if the file was spoken of before. The last few are remembered.
pub(crate) fn is_told(id: &FileId) -> bool {
    static TOLD: [AtomicU64; 32] = [const { AtomicU64::new(0) }; 32];
    let key = id.dev.rotate_left(32) ^ id.ino | 1 << 63;
    TOLD[(id.ino % TOLD.len() as u64) as usize].swap(key, Relaxed) == key
}
