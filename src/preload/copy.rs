//! The read path: which bytes a call gets, waiting for them, and the copy into the program's buffer.
//!
//! Called by the hooks for reading and copying, with a placeholder whose own read has just ended at
//! end-of-file (so the kernel has checked descriptor, vector and offset). It never moves the file offset
//! before the bytes are in the buffer, and never touches a buffer that the kernel has not vouched for.

use crate::fills::Fills;
use crate::handle::{Handle, Slot};
use crate::memory_cache::{self, CopyGuard};
use crate::parts::{self, Grain, PinnedParts};
use crate::real;
use crate::seen::Seen;
use crate::taken;
use crate::waiting;
use core::ffi::c_int;
use core::ops::Range;
use libc::{iovec, off_t};
use ossc_cache::sys::{self, Errno, Result};

/// Most bytes of one call: the kernel's MAX_RW_COUNT.
pub(crate) const CALL_BYTES_MAX: u64 = 0x7fff_f000;
/// From here on a memcpy out of the own mapping is cheaper than the kernel's copy.
const MEMCPY_BYTES_MIN: usize = 1 << 10;
/// Reads of at most so many bytes are tried before anything is made ready for a wait.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// Cache lines of a small read, asked for before each of its steps (the check whose descriptor it is, the look at the
/// parts, the check of the buffer) and on their way meanwhile. A core has 16 lines under way (Golden Cove): with all
/// 64 at once it waits, and a 4 KiB read takes 690 ns instead of 585; with none 870.
const LINES: [Range<usize>; 3] = [0..16, 16..32, 32..64];

/// The bytes at `at` are about to be read: `step` counts the steps of a small read. Never checked, never waits.
#[inline(always)]
pub(crate) fn prefetch(slot: Slot, at: u64, step: usize) {
    memory_cache::prefetch(slot, at, LINES[step].clone());
}

/// Long calls wait and copy part by part; so much behind the part is asked for with it.
const AHEAD_BYTES: u64 = 64 << 20;
/// Entries of a vector that are handed to the kernel at once.
const ENTRIES_MAX: usize = 64;

/// End of the range that a call of `count` bytes at `at` gets.
pub(crate) fn end_of(seen: &Seen, at: u64, count: u64) -> u64 {
    at.saturating_add(count.min(CALL_BYTES_MAX)).min(seen.facts.size).max(at)
}

/// Reads at `at` into the program's buffer; short at the end of the object, or where the buffer ends.
pub(crate) fn read_at(seen: &Seen, at: u64, buffer: usize, count: usize) -> Result<usize> {
    let end = end_of(seen, at, count as u64);
    let len = (end - at) as usize;
    prefetch(seen.handle.slot, at, 1);
    // Most small reads are of bytes that are there: nothing to wait for, and nothing to hold for the wait.
    if (1..=SMALL_BYTES_MAX).contains(&len)
        && let Some(done) = attempt(seen, at, end, |guard| copy_once(&seen.handle, at, (buffer, len), guard))?
    {
        return Ok(done);
    }
    by_parts(seen, at, end, Grain::Blocks, |done, step| {
        let copied = copy(seen, done, buffer + (done - at) as usize, step)?;
        Ok((copied, copied == step))
    })
}

/// Runs `step(start, len)` on one part of `at..end` after the other, each when its bytes are there; it says how
/// many bytes it did and whether to go on. An error after the first step ends the call short.
pub(crate) fn by_parts(
    seen: &Seen,
    at: u64,
    end: u64,
    grain: Grain,
    mut step: impl FnMut(u64, usize) -> Result<(usize, bool)>,
) -> Result<usize> {
    let handle = &seen.handle;
    // Before a part is held, which the parts that the verdict needs may want the room of.
    if at < end {
        taken::wait_first(handle)?;
    }
    let mut done = at;
    while done < end {
        let until = parts::part_end(handle, done, end);
        let _held = parts::pin_for_copy(handle, done, until);
        if until < end {
            parts::will_need(handle, done, end.min(until + AHEAD_BYTES));
        }
        match waiting::bytes(handle, done, until, grain).and_then(|()| step(done, (until - done) as usize)) {
            Ok((n, more)) => {
                done += n as u64;
                if !more {
                    break;
                }
            }
            Err(errno) if done == at => return Err(errno),
            Err(_) => break,
        }
    }
    Ok((done - at) as usize)
}

/// Copies bytes that were ready a moment ago; a short count means that the buffer ended. If the engine has
/// given one of the parts up meanwhile, it is waited for and copied again.
fn copy(seen: &Seen, at: u64, buffer: usize, len: usize) -> Result<usize> {
    settled(seen, at, at + len as u64, |guard| copy_once(&seen.handle, at, (buffer, len), guard))
}

/// Runs `act` until the bytes might be given and were the same fills before and after it.
fn settled(seen: &Seen, start: u64, end: u64, act: impl Fn(&CopyGuard) -> Result<usize>) -> Result<usize> {
    loop {
        if let Some(done) = attempt(seen, start, end, &act)? {
            return Ok(done);
        }
        taken::wait_given(seen, start, end, Grain::Blocks)?;
    }
}

/// Runs `act` once; what it did counts if the bytes were there, might be given to the program, and were the same fills
/// before and after it.
fn attempt(seen: &Seen, start: u64, end: u64, act: impl Fn(&CopyGuard) -> Result<usize>) -> Result<Option<usize>> {
    let guard = memory_cache::guard_copy(&seen.handle)?;
    let Some(fills) = Fills::of(&seen.handle, start, end, Grain::Blocks) else { return Ok(None) };
    if !taken::may_be_given(seen, &fills)? {
        return Ok(None);
    }
    let done = act(&guard)?;
    if !fills.are_there() {
        return Ok(None);
    }
    fills.touch();
    Ok(Some(done))
}

/// What bytes can be copied from inside the kernel.
pub(crate) struct Source<T> {
    /// It is of the memory in which the bytes are ready and may be given: another engine may have taken over with memory
    /// of its own since they were waited for.
    pub from: T,
    /// Looked at again when they were copied: another program of the user may have taken their pins back, or the verdict
    /// has come that they are wrong.
    pub fills: Fills,
    /// They stay as long as this lives: they are held when the memory is open, since the engine may have erased what was
    /// held before that.
    _held: Option<PinnedParts>,
}

/// What bytes `start..end` can be copied from inside the kernel, which `get` opens.
pub(crate) fn source<T>(seen: &Seen, start: u64, end: u64, get: impl Fn() -> Result<T>) -> Result<Source<T>> {
    loop {
        if let Some(fills) = Fills::of(&seen.handle, start, end, Grain::Parts)
            && taken::may_be_given(seen, &fills)?
        {
            let from = get()?;
            let held = parts::pin_for_copy(&seen.handle, start, end);
            if fills.are_there() {
                return Ok(Source { from, fills, _held: held });
            }
        }
        taken::wait_given(seen, start, end, Grain::Parts)?;
    }
}

fn copy_once(handle: &Handle, at: u64, (buffer, len): (usize, usize), guard: &CopyGuard) -> Result<usize> {
    prefetch(handle.slot, at, 2);
    if len >= MEMCPY_BYTES_MIN && sys::vouch(buffer, len).is_ok() {
        match by_map(handle, at, (buffer, len), guard) {
            // No room to map the whole object (ulimit -v), which is no reason for a read to fail.
            Err(Errno(libc::ENOMEM)) => {}
            done => return done,
        }
    }
    match memory_cache::cached_memory(handle, guard) {
        Ok(memory) => by_kernel(memory, at, buffer, len),
        // The program has no descriptor left, which is no reason for its read to fail: a map needs none.
        Err(Errno(libc::EMFILE | libc::ENFILE)) if sys::populate_write(buffer, len).is_ok() => {
            by_map(handle, at, (buffer, len), guard)
        }
        Err(errno) => Err(errno),
    }
}

/// The buffer must have been made present and writable.
fn by_map(handle: &Handle, at: u64, (buffer, len): (usize, usize), guard: &CopyGuard) -> Result<usize> {
    let from = memory_cache::mapping(handle, guard)?.wrapping_add(at as usize);
    // SAFETY: the range lies in the mapping, which covers the object and stays for the hold; the kernel
    // has just made the whole buffer present and writable, and the program gave it to be written.
    unsafe { core::ptr::copy_nonoverlapping(from, buffer as *mut u8, len) };
    Ok(len)
}

fn by_kernel(memory: c_int, at: u64, buffer: usize, len: usize) -> Result<usize> {
    let mut done = 0;
    while done < len {
        match sys::pread(memory, (buffer + done) as *mut u8, len - done, at + done as u64) {
            // A memory file has its object's size: an early end means that it is not what it should be.
            Ok(0) if done == 0 => return Err(Errno(libc::EIO)),
            Ok(0) => break,
            Ok(n) => done += n,
            Err(errno) if errno.is_interrupt() => {}
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Reads at `at` into the program's vector, which the kernel has checked in the call before.
pub(crate) fn readv_at(seen: &Seen, at: u64, iov: *const iovec, len: c_int) -> Result<usize> {
    let end = end_of(seen, at, total(iov, len));
    let mut place = VectorCursor { iov, left: len.max(0) as usize, skip: 0 };
    by_parts(seen, at, end, Grain::Blocks, |start, step| {
        let mut done = 0;
        while done < step {
            let (entries, count, asked) = place.next(step - done);
            let from = start + done as u64;
            let got = settled(seen, from, from + asked as u64, |guard| {
                let memory = memory_cache::cached_memory(&seen.handle, guard)?;
                let args = [memory as usize, entries.as_ptr() as usize, count, from as usize, 0, 0];
                real::kernel(libc::SYS_preadv, args)
            });
            match got {
                Ok(n) => {
                    place.advance(n);
                    done += n;
                    if n < asked {
                        return Ok((done, false));
                    }
                }
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => return Ok((done, false)),
            }
        }
        Ok((done, true))
    })
}

/// Where in the program's vector the next byte goes.
struct VectorCursor {
    iov: *const iovec,
    left: usize,
    /// Bytes of the first entry that are filled.
    skip: usize,
}

impl VectorCursor {
    /// Entries for the next `bytes` bytes, or as many as go at once; how many entries and bytes these are.
    fn next(&self, bytes: usize) -> ([iovec; ENTRIES_MAX], usize, usize) {
        let mut entries = [iovec { iov_base: core::ptr::null_mut(), iov_len: 0 }; ENTRIES_MAX];
        let (mut count, mut asked, mut skip) = (0, 0, self.skip);
        while count < self.left.min(ENTRIES_MAX) && asked < bytes {
            // SAFETY: the kernel has read all entries in the call before, and `count` is less than those left.
            let entry = unsafe { *self.iov.add(count) };
            let len = (entry.iov_len - skip).min(bytes - asked);
            entries[count] = iovec { iov_base: entry.iov_base.wrapping_byte_add(skip), iov_len: len };
            asked += len;
            skip = 0;
            count += 1;
        }
        (entries, count, asked)
    }

    fn advance(&mut self, bytes: usize) {
        self.skip += bytes;
        while self.left > 0 {
            // SAFETY: as in `next`.
            let len = unsafe { (*self.iov).iov_len };
            if self.skip < len {
                break;
            }
            self.skip -= len;
            // SAFETY: at most one behind the last entry, which is not read.
            self.iov = unsafe { self.iov.add(1) };
            self.left -= 1;
        }
    }
}

fn total(iov: *const iovec, len: c_int) -> u64 {
    let mut sum = 0u64;
    for index in 0..len.max(0) as usize {
        // SAFETY: the kernel has read these `len` entries in the call before.
        sum = sum.saturating_add(unsafe { (*iov.add(index)).iov_len } as u64);
    }
    sum
}

/// A read at the descriptor's offset: `read(at, count)` is done first, then the offset is claimed.
///
/// The offset belongs to everybody who shares the open file. If somebody moved it in between, the bytes
/// are read again from where the claim began; it is never stepped back but at the end of the object.
pub(crate) fn sequential(fd: c_int, seen: &Seen, read: impl Fn(u64, usize) -> Result<usize>) -> Result<usize> {
    let at = sys::lseek(fd, 0, libc::SEEK_CUR)? as u64;
    let got = read(at, usize::MAX)?;
    if got == 0 {
        return Ok(0);
    }
    let end = sys::lseek(fd, got as i64, libc::SEEK_CUR)? as u64;
    let start = end - got as u64;
    if start == at {
        return Ok(got);
    }
    let left = seen.facts.size.saturating_sub(start).min(got as u64);
    // Several readers may have claimed beyond the end, one behind the other: the last of them, who sees its
    // own claim's end, goes back to the object's, since none of them began to read there.
    if left < got as u64 && sys::lseek(fd, 0, libc::SEEK_CUR)? as u64 == end {
        sys::lseek(fd, seen.facts.size as off_t, libc::SEEK_SET)?;
    }
    if left == 0 {
        return Ok(0);
    }
    read(start, left as usize).map(|n| n.min(left as usize))
}
