//! Whether this process reads past the C library: through io_uring, libaio or a loader that uses them. Such a program
//! asks a large object's size through the hooks and its bytes of the kernel, which has none behind a placeholder: what
//! it opens for reading is given as a whole (`hook/whole.rs`).
//!
//! Called where a large object is opened, and where a ring or an aio context is made by `syscall()`. It decides by the
//! objects that the process has loaded, and by the rings and contexts that it was seen to make. It says what it found
//! on stderr, in the log and in a report for `ossc doctor`, never more than a line each.

use crate::attach;
use crate::descriptors;
use crate::environ;
use crate::file;
use crate::handle::Slot;
use crate::log;
use crate::objects;
use crate::outcome::{Outcome, slow_path};
use crate::process;
use crate::real;
use crate::say::say;
use crate::seen::Seen;
use core::ffi::c_int;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use ossc_cache::cpath::CPath;
use ossc_cache::region::open_mode;
use ossc_cache::sys::{self, FileId};

/// Why an open is given the whole object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// `openMode: whole`.
    Mode,
    /// It was opened with O_DIRECT.
    Direct,
    /// The process reads past the C library: by what that is known.
    Sign(&'static str),
}

/// An object that reads past the C library: its name for people, and by what its path is told, which no slash follows.
struct Way {
    name: &'static str,
    marks: &'static [&'static str],
}

/// Not libcufile: what it cannot read by the GPU's own way it reads with `pread`, which is hooked, and every PyTorch
/// for CUDA loads it.
const WAYS: [Way; 4] = [
    Way { name: "InstantTensor", marks: &["/libinstanttensor", "/instanttensor/_C."] },
    Way { name: "Run:ai Model Streamer", marks: &["/libstreamer.so"] },
    Way { name: "liburing", marks: &["/liburing"] },
    Way { name: "libaio", marks: &["/libaio"] },
];
const RING: &str = "io_uring";
const CONTEXT: &str = "aio";

/// 0, or one more than the place of the sign in `WAYS`, after which come a ring and a context.
static SIGN: AtomicUsize = AtomicUsize::new(0);
const RING_SIGN: usize = WAYS.len() + 1;
const CONTEXT_SIGN: usize = WAYS.len() + 2;
/// An open that gets a higher number does not look through all descriptors for a ring: half a microsecond each, the first
/// time.
const LOOKED_AT_MAX: i32 = 1024;
/// Numbers that are looked at above that of the open.
const ABOVE: i32 = 16;
/// How many objects had ever been loaded when they were looked at last (`dlpi_adds`).
static ADDS: AtomicU64 = AtomicU64::new(0);

/// Why an open with these flags is one of the whole object; `None` where it is not. `seen`: what was opened.
pub(crate) fn why(seen: &Seen, flags: c_int) -> Option<Why> {
    if flags & libc::O_DIRECT != 0 {
        if environ::report_path().is_some() {
            let _ = sign(seen.fd);
        }
        return Some(Why::Direct);
    }
    match mode_of(seen)? {
        open_mode::WHOLE => Some(Why::Mode),
        open_mode::AUTO => sign(seen.fd).map(Why::Sign),
        _ => None,
    }
}

fn mode_of(seen: &Seen) -> Option<u32> {
    seen.handle.now().map(|now| now.region.header().open_mode.load(Relaxed))
}

fn sign(fd: i32) -> Option<&'static str> {
    if SIGN.load(Relaxed) == 0 {
        if let Some(at) = loaded() {
            see(at + 1, fd);
        } else if fd < LOOKED_AT_MAX && has_ring(fd) {
            see(RING_SIGN, fd);
        }
    }
    text_of(SIGN.load(Relaxed))
}

/// Place in `WAYS` of a loaded object. Those that were looked at before are not looked at again.
fn loaded() -> Option<usize> {
    let mut found = None;
    let (_, adds) = objects::any(ADDS.load(Relaxed), &mut |path| {
        found = WAYS.iter().position(|way| way.marks.iter().any(|mark| is_marked(path, mark)));
        found.is_some()
    });
    if found.is_none() {
        ADDS.store(adds, Relaxed);
    }
    found
}

/// A ring that was made in whatever way, of code that is linked in, say. It lies below the number that an open has just
/// got, since that is the lowest free one, or, where numbers were given back since, a little above. Not by /proc, which
/// takes ten times as long.
fn has_ring(fd: i32) -> bool {
    file::any_new(fd + ABOVE, is_ring) && !has_loop()
}

/// Only files of no type, of which a process has a few, are asked for their names.
fn is_ring(fd: i32, id: &FileId) -> bool {
    id.mode & libc::S_IFMT == 0 && descriptors::is_named(fd, b"anon_inode:[io_uring]")
}

fn is_marked(path: &[u8], mark: &str) -> bool {
    let at = path.windows(mark.len()).rposition(|part| part == mark.as_bytes());
    at.is_some_and(|at| !path[at + mark.len()..].contains(&b'/'))
}

fn text_of(sign: usize) -> Option<&'static str> {
    match sign {
        0 => None,
        RING_SIGN => Some(RING),
        CONTEXT_SIGN => Some(CONTEXT),
        at => WAYS.get(at - 1).map(|way| way.name),
    }
}

/// The process is known from now on to read past the C library. What it has open already is spoken of, but for `new`,
/// which is being opened.
fn see(sign: usize, new: i32) {
    // The child of a `vfork` shares its parent's memory.
    if !process::is_owner() || SIGN.compare_exchange(0, sign, Relaxed, Relaxed).is_err() {
        return;
    }
    let text = text_of(sign).unwrap_or_default();
    report(b"sign", text.as_bytes());
    if attach::is_attached() {
        tell_of_open_files(text, new);
    }
}

/// `struct io_uring_params`: its flags, and one of them (linux/io_uring.h).
const FLAGS_AT: usize = 8;
const SQPOLL: u32 = 1 << 1;
/// The entries of the ring by which libuv changes its epoll sets; it reads no file through it.
const LOOP_ENTRIES: usize = 256;

/// `syscall(SYS_io_uring_setup)` has made a ring.
#[cold]
pub(crate) fn made_ring(entries: usize, params: usize) {
    let _ = slow_path(|| {
        if !is_of_event_loop(entries, params) {
            see(RING_SIGN, -1);
        }
        Outcome::<()>::Pass
    });
}

/// `syscall(SYS_io_setup)` has made an aio context.
#[cold]
pub(crate) fn made_context() {
    let _ = slow_path(|| {
        see(CONTEXT_SIGN, -1);
        Outcome::<()>::Pass
    });
}

/// libuv makes such a ring for each event loop: uvloop in a server written in Python, Node.
fn is_of_event_loop(entries: usize, params: usize) -> bool {
    let flags = || real::peek(params.wrapping_add(FLAGS_AT)).ok().and_then(|bytes| bytes.first_chunk().copied());
    let is_like_one = entries == LOOP_ENTRIES && flags().is_some_and(|flags| u32::from_ne_bytes(flags) & SQPOLL == 0);
    is_like_one && has_loop()
}

fn is_node() -> bool {
    let mut target = [0u8; 1024];
    let len = sys::readlink(sys::AT_FDCWD, c"/proc/self/exe", &mut target).unwrap_or(0);
    let name = target[..len].rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.starts_with(b"node")
}

fn has_loop() -> bool {
    is_node() || objects::any(0, &mut |path| ["/uvloop/loop.", "/libuv."].iter().any(|mark| is_marked(path, mark))).0
}

/// What is open already was opened as a placeholder. Where `openMode` says what to do, nobody waits for a sign.
fn tell_of_open_files(sign: &str, new: i32) {
    descriptors::each(|fd| {
        if fd != new
            && let Some(seen) = file::of_descriptor(fd).filter(Seen::is_placeholder).served()
            && mode_of(&seen) == Some(open_mode::AUTO)
            && !file::is_name_only(fd)
        {
            tell(&seen, Notice::Early, sign);
        }
    });
}

/// What there is to say of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// It was open before the process was known to read past the C library.
    Early,
    /// It does not fit the memory budget, and is given by parts.
    Large,
    /// It does not fit the memory budget, and is refused.
    Refused,
    /// It is open for writing too, and so no whole one.
    Writable,
    /// It was given as a whole.
    Whole,
}

impl Notice {
    /// For the report, and, where the program meets an error or an end of file, what happens and what to do.
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Notice::Early => (
                "early",
                "was opened before this program was seen to read past the C library, which gives end-of-file through that descriptor: open it later, or set `openMode: whole`",
            ),
            Notice::Large => (
                "large",
                "does not fit the memory budget, so reads past the C library give end-of-file: raise memoryLimit",
            ),
            Notice::Refused => (
                "refused",
                "cannot be opened as a whole (ENOMEM), it does not fit the memory budget: raise memoryLimit, or open it without O_DIRECT and `openMode: whole`",
            ),
            Notice::Writable => (
                "writable",
                "is open for writing too, so reads past the C library give end-of-file: open it for reading only",
            ),
            Notice::Whole => ("whole", ""),
        }
    }
}

/// Says it once of each object: in the report, and what is wrong on stderr and in the log, too.
pub(crate) fn tell(seen: &Seen, word: Notice, why: &str) {
    if is_told(seen.handle.slot, word) {
        return;
    }
    let path = seen.handle.path();
    let (short, text) = word.texts();
    report(short.as_bytes(), path.as_bytes());
    if text.is_empty() {
        return;
    }
    say(&[b"oss connector: ", path.as_bytes(), b" ", text.as_bytes(), b" (", why.as_bytes(), b")\n"]);
    log::named(text.as_bytes(), path.as_bytes());
}

/// True if it was said before. The last few are remembered.
fn is_told(slot: Slot, word: Notice) -> bool {
    static TOLD: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];
    let key = u64::from(slot.to_bits()) << 8 | word as u64 | 1 << 63;
    TOLD[slot.to_bits() as usize % TOLD.len()].swap(key, Relaxed) == key
}

/// A line of the report that `ossc doctor` reads: process, program, word, name.
fn report(word: &[u8], name: &[u8]) {
    let Some(path) = environ::report_path() else { return };
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    let Ok(fd) = sys::openat(sys::AT_FDCWD, path, flags, 0) else { return };
    let mut program = [0u8; 1024];
    let len = sys::readlink(sys::AT_FDCWD, c"/proc/self/exe", &mut program).unwrap_or(0);
    let line = CPath::default().with_number(sys::getpid() as u64).with(b"\t").with_shown(&program[..len]);
    let line = line.with(b"\t").with(word).with(b"\t").with_shown(name).with(b"\n");
    let _ = sys::write(fd, line.as_bytes());
    let _ = sys::close(fd);
}
