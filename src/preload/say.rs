//! What the library says on the host's standard error: one line in one write, and only where descriptor 2 still is
//! what it was at the start. A daemon closes its first three descriptors, and its data file may be number 2 by then.
//!
//! Called by the constructor (`remember`), where a program meets what its user has to know, and where an engine is given
//! the program's standard streams (`stream`). It never writes anywhere else, and never fails.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use ossc_cache::cpath::CPath;
use ossc_cache::sys::{self, FileId};

pub(crate) const STDOUT: i32 = 1;
pub(crate) const STDERR: i32 = 2;

/// Device, inode, device that it is itself, and type of what a descriptor was; a type of 0 is none.
struct Stream {
    dev: AtomicU64,
    ino: AtomicU64,
    rdev: AtomicU64,
    kind: AtomicU32,
}

/// Of descriptors 1 and 2.
static STREAMS: [Stream; 2] = [const {
    Stream { dev: AtomicU64::new(0), ino: AtomicU64::new(0), rdev: AtomicU64::new(0), kind: AtomicU32::new(0) }
}; 2];

fn remembered(fd: i32) -> &'static Stream {
    &STREAMS[usize::from(fd == STDERR)]
}

/// Constructor: takes down what standard output and standard error are.
pub(crate) fn remember() {
    for fd in [STDOUT, STDERR] {
        if let Ok(st) = sys::fstat(fd) {
            let stream = remembered(fd);
            stream.dev.store(st.st_dev, Relaxed);
            stream.ino.store(st.st_ino, Relaxed);
            stream.rdev.store(st.st_rdev, Relaxed);
            stream.kind.store(st.st_mode & libc::S_IFMT, Relaxed);
        }
    }
}

fn is_as_remembered(fd: i32) -> bool {
    let now = sys::fstat(fd).map(|st| (st.st_dev, st.st_ino, st.st_rdev, st.st_mode & libc::S_IFMT));
    let then = remembered(fd);
    let then = (then.dev.load(Relaxed), then.ino.load(Relaxed), then.rdev.load(Relaxed), then.kind.load(Relaxed));
    then.3 != 0 && now == Ok(then)
}

/// Standard output or standard error, to be handed to an engine; -1 where the number is not what it was at the start.
pub(crate) fn stream(fd: i32) -> i32 {
    if is_as_remembered(fd) { fd } else { -1 }
}

/// One line of these pieces, so that lines of several processes do not mix.
pub(crate) fn say(pieces: &[&[u8]]) {
    if is_as_remembered(STDERR) {
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
