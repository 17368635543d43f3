//! Copies that the kernel makes between descriptors: the real call first; where it found an empty
//! placeholder, the same from the memory file.

use super::{Arguments, read, write};
use crate::copy::{by_parts, end_of, source};
use crate::failed;
use crate::file;
use crate::fills::Fills;
use crate::memory_cache;
use crate::outcome::{Outcome, errno, set_errno, slow_path};
use crate::parts::{self, Grain};
use crate::real;
use crate::seen::Seen;
use crate::taken;
use crate::waiting;
use core::ffi::{c_int, c_long, c_uint, c_ulong};
use libc::{off_t, size_t, ssize_t};
use ossc_cache::region::Identity;
use ossc_cache::sys::{self, Errno, Result};

hooks! {
    fn sendfile(out: c_int, from: c_int, at: *mut off_t, count: size_t) -> ssize_t { sent(out, from, at, count, || real::sendfile(out, from, at, count)) }
    fn sendfile64(out: c_int, from: c_int, at: *mut off_t, count: size_t) -> ssize_t { sent(out, from, at, count, || real::sendfile64(out, from, at, count)) }
    fn copy_file_range(from: c_int, at: *mut off_t, out: c_int, out_at: *mut off_t, count: size_t, flags: c_uint) -> ssize_t {
        write::refused(out).answer(-1, || {
            let before = errno();
            let got = real::copy_file_range(from, at, out, out_at, count, flags);
            let copy = |seen: &Seen| from_offset(from, at, |start| into_file(seen, start, count, Target { out, at: out_at }));
            match got {
                0 if count > 0 => read::serve(from, copy),
                -1 if errno() == libc::EXDEV => from_memory(from, before, copy).answer(-1, || got),
                _ => got,
            }
        })
    }
    fn splice(from: c_int, at: *mut off_t, out: c_int, out_at: *mut off_t, count: size_t, flags: c_uint) -> ssize_t {
        write::refused(out).answer(-1, || {
            let got = real::splice(from, at, out, out_at, count, flags);
            if got != 0 || count == 0 {
                return got;
            }
            read::serve(from, |seen| from_offset(from, at, |start| into_pipe(seen, start, count, Pipe { out, at: out_at, flags })))
        })
    }
    fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int { controlled(fd, request, argument, || real::ioctl(fd, request, argument)) }
}

/// The same by their numbers in `syscall()`.
#[inline]
pub(super) fn by_number(number: c_long, [a, b, c, d, e, f]: Arguments) -> Option<c_long> {
    let (first, at) = (a as c_int, b as *mut off_t);
    Some(match number {
        libc::SYS_sendfile => sendfile64(first, b as c_int, c as *mut off_t, d) as c_long,
        libc::SYS_copy_file_range => copy_file_range(first, at, c as c_int, d as *mut off_t, e, f as c_uint) as c_long,
        libc::SYS_splice => splice(first, at, c as c_int, d as *mut off_t, e, f as c_uint) as c_long,
        libc::SYS_ioctl => ioctl(first, b as c_ulong, c).into(),
        _ => return None,
    })
}

fn sent(out: c_int, from: c_int, at: *mut off_t, count: size_t, call: impl Fn() -> ssize_t) -> ssize_t {
    write::refused(out).answer(-1, || {
        let got = call();
        if got != 0 || count == 0 {
            return got;
        }
        read::serve(from, |seen| from_offset(from, at, |start| into_any(seen, start, count, out)))
    })
}

/// A descriptor of a memory file is one of the placeholder to the program, and so on the file system of MODEL_DIR. The
/// real call has read the offsets and checked the rest. `before`: the `errno` of a success.
#[cold]
fn from_memory(from: c_int, before: c_int, copy: impl Fn(&Seen) -> Result<usize>) -> Outcome<ssize_t> {
    let copied = slow_path(|| {
        let seen = file::of_descriptor(from).filter(|seen| seen.identity == Identity::Memory);
        seen.then(|seen| copy(&seen).map(|n| n as ssize_t).into())
    });
    if matches!(copied, Outcome::Served(_)) {
        set_errno(before);
    }
    copied
}

/// What a pipe holds at most without privileges (fs.pipe-max-size).
const PIPE_BYTES: u64 = 1 << 20;

/// Runs a copy at the caller's offset, or at the descriptor's, and moves that one on. Like the kernel's
/// own `sendfile`, it does not lock the descriptor's offset against others who share it.
fn from_offset(from: c_int, at: *mut off_t, copy: impl FnOnce(u64) -> Result<usize>) -> Result<usize> {
    if at.is_null() {
        let start = sys::lseek(from, 0, libc::SEEK_CUR)?;
        let done = copy(start as u64)?;
        sys::lseek(from, done as i64, libc::SEEK_CUR)?;
        return Ok(done);
    }
    // SAFETY: the real call has just read and written this word of the program's.
    let start = unsafe { *at };
    let done = copy(start as u64)?;
    // SAFETY: as above.
    unsafe { *at = start + done as off_t };
    Ok(done)
}

/// What is done when bytes that were handed on turn out to have been given away meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Redo {
    /// The same is written to the same place once more.
    Again,
    /// The call fails: what is in a pipe or socket, or behind an offset that others share, cannot be taken back.
    Never,
}

/// Runs `step(from, start, len)` over the range as its bytes come; stops at a short step or an error. `from` is
/// what `get` gives of the memory in which they are.
fn in_steps<T>(
    seen: &Seen,
    (start, count): (u64, usize),
    redo: Redo,
    get: impl Fn(u64, u64) -> Result<T>,
    step: impl Fn(&T, u64, usize) -> Result<usize>,
) -> Result<usize> {
    let (end, mut wrong) = (end_of(seen, start, count as u64), None);
    let done = by_parts(seen, start, end, Grain::Parts, |at, len| {
        let until = at + len as u64;
        loop {
            let source = source(seen, at, until, || get(at, until))?;
            let done = step(&source.from, at, len)?;
            if source.fills.have_stayed() {
                return Ok((done, done == len));
            }
            if redo == Redo::Never {
                wrong = Some(spoiled(seen, &source.fills));
                return Ok((done, false));
            }
        }
    });
    // Also behind good steps: how much of the last one was good is not known.
    wrong.map_or(done, Err)
}

/// Bytes of these fills that were handed on may be others than the object's.
#[cold]
fn spoiled(seen: &Seen, fills: &Fills) -> Errno {
    // Where they came before a verdict that is against them, the process is told of that.
    if let Err(errno) = taken::may_be_given(seen, fills) {
        return errno;
    }
    let errno = Errno(libc::EIO);
    failed::tell(&seen.handle, errno, b"what was being copied out of it was given up meanwhile");
    errno
}

fn into_any(seen: &Seen, start: u64, count: usize, out: c_int) -> Result<usize> {
    // Pipes and sockets refer to the pages themselves, files get a copy.
    let stays = !sys::file_id(out).is_ok_and(|id| id.is_file());
    let guard = memory_cache::guard_copy(&seen.handle)?;
    let memory = |at, end| {
        let memory = memory_cache::cached_memory(&seen.handle, &guard)?;
        // What was handed on cannot be taken back, so its parts stay.
        if stays {
            parts::pin(&seen.handle, at, end);
        }
        Ok(memory)
    };
    in_steps(seen, (start, count), Redo::Never, memory, |memory, at, len| {
        let mut offset = at as off_t;
        real::kernel(libc::SYS_sendfile, [out as usize, *memory as usize, &raw mut offset as usize, len, 0, 0])
    })
}

/// Where `copy_file_range` writes.
struct Target {
    out: c_int,
    at: *mut off_t,
}

/// What bytes are written from.
enum Bytes {
    /// The map of all of the memory file.
    Mapped(*const u8),
    /// The memory file, of which there is no room to map all (`ulimit -v`).
    In(c_int),
}

/// So much of a memory file is mapped for one write, where not all of it is.
const WINDOW_BYTES: usize = 1 << 20;
const PAGE: u64 = 4096;

impl Bytes {
    /// Writes bytes `at..at + len` at a place of a file, or fewer.
    fn write(&self, at: u64, len: usize, out: c_int, place: usize) -> Result<usize> {
        let write = |from: usize, len: usize| real::kernel(libc::SYS_pwrite64, [out as usize, from, len, place, 0, 0]);
        match *self {
            Bytes::Mapped(map) => write(map as usize + at as usize, len),
            Bytes::In(memory) => {
                let skip = (at % PAGE) as usize;
                let (len, mapped) = (len.min(WINDOW_BYTES), skip + len.min(WINDOW_BYTES));
                // SAFETY: a new mapping at an address of the kernel's choice.
                let window =
                    unsafe { sys::mmap(0, mapped, libc::PROT_READ, libc::MAP_SHARED, memory, at - skip as u64) }?;
                let written = write(window + skip, len);
                // SAFETY: the mapping was made above, and nothing refers to it.
                let _ = unsafe { sys::munmap(window, mapped) };
                written
            }
        }
    }
}

/// The memory file is on another file system, so the bytes are written from the map of it.
fn into_file(seen: &Seen, start: u64, count: usize, target: Target) -> Result<usize> {
    let guard = memory_cache::guard_copy(&seen.handle)?;
    let bytes = |_, _| match memory_cache::mapping(&seen.handle, &guard) {
        Err(Errno(libc::ENOMEM)) => memory_cache::cached_memory(&seen.handle, &guard).map(Bytes::In),
        mapped => mapped.map(Bytes::Mapped),
    };
    let write = |first: off_t| {
        in_steps(seen, (start, count), Redo::Again, bytes, |bytes, at, len| {
            bytes.write(at, len, target.out, first as usize + (at - start) as usize)
        })
    };
    if target.at.is_null() {
        let done = write(sys::lseek(target.out, 0, libc::SEEK_CUR)?)?;
        sys::lseek(target.out, done as i64, libc::SEEK_CUR)?;
        return Ok(done);
    }
    // SAFETY: the real call has just read this word of the program's.
    let first = unsafe { *target.at };
    let done = write(first)?;
    // SAFETY: as above; the real call writes it, too.
    unsafe { *target.at = first + done as off_t };
    Ok(done)
}

/// Where `splice` writes.
struct Pipe {
    out: c_int,
    at: *mut off_t,
    flags: c_uint,
}

fn into_pipe(seen: &Seen, start: u64, count: usize, pipe: Pipe) -> Result<usize> {
    let len = end_of(seen, start, (count as u64).min(PIPE_BYTES)) - start;
    if len == 0 {
        return Ok(0);
    }
    parts::pin(&seen.handle, start, start + len);
    waiting::parts(&seen.handle, start, start + len)?;
    let guard = memory_cache::guard_copy(&seen.handle)?;
    let source = source(seen, start, start + len, || {
        memory_cache::cached_memory(&seen.handle, &guard).inspect(|_| parts::pin(&seen.handle, start, start + len))
    })?;
    let mut offset = start as off_t;
    let from = &raw mut offset as usize;
    let done = real::kernel(
        libc::SYS_splice,
        [source.from as usize, from, pipe.out as usize, pipe.at as usize, len as usize, pipe.flags as usize],
    )?;
    if source.fills.have_stayed() { Ok(done) } else { Err(spoiled(seen, &source.fills)) }
}

const FICLONE: c_ulong = 0x4004_9409;
const FICLONERANGE: c_ulong = 0x4020_940D;
const FIDEDUPERANGE: c_ulong = 0xC018_9436;
const FIEMAP: c_ulong = 0xC020_660B;
const FIBMAP: c_ulong = 1;

fn controlled(fd: c_int, request: c_ulong, argument: usize, call: impl Fn() -> c_int) -> c_int {
    match request {
        FICLONE => cloned(fd, argument as c_int, call),
        // The source stands first in the argument.
        FICLONERANGE => match real::peek(argument) {
            Ok(source) => cloned(fd, i64::from_ne_bytes(source) as c_int, call),
            Err(_) => call(),
        },
        // A placeholder has no extents: to a copier it would look like one hole, that is, zeros.
        FIEMAP | FIBMAP | FIDEDUPERANGE => unsupported(fd).answer(-1, call),
        libc::FIONREAD => left(fd, argument, call()),
        _ => call(),
    }
}

/// The kernel's own refusals stand. A success has cloned nothing, since the placeholder is empty, and a
/// range of it is EINVAL: EOPNOTSUPP makes every caller copy instead.
fn cloned(fd: c_int, source: c_int, call: impl Fn() -> c_int) -> c_int {
    write::refused(fd).answer(-1, || {
        let got = call();
        if got < 0 && errno() != libc::EINVAL {
            return got;
        }
        unsupported(source).answer(-1, || got)
    })
}

fn unsupported<T>(fd: c_int) -> Outcome<T> {
    slow_path(|| file::placeholder(fd).then(|_| Outcome::Failed(Errno(libc::EOPNOTSUPP))))
}

/// FIONREAD: how many bytes are left, cut to an `int` like the kernel's.
fn left(fd: c_int, argument: usize, got: c_int) -> c_int {
    if got != 0 {
        return got;
    }
    let _ = slow_path(|| {
        if let Outcome::Served(seen) = file::placeholder(fd)
            && let Ok(at) = sys::lseek(fd, 0, libc::SEEK_CUR)
        {
            // SAFETY: the real call has just written this word of the program's.
            unsafe { *(argument as *mut c_int) = (seen.facts.size as i64 - at) as c_int };
        }
        Outcome::<()>::Pass
    });
    got
}
