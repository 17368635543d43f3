//! The read path: which bytes a call gets, waiting for them, and the copy into the program's buffer.
//!
//! Called by the hooks for reading and copying, with a placeholder whose own read has just ended at
//! end-of-file (so the kernel has checked descriptor, vector and offset). It never moves the file offset
//! before the bytes are in the buffer, and never touches a buffer that the kernel has not vouched for.

use crate::client;
use crate::file::Seen;
use crate::kept::{self, Hold};
use crate::real;
use core::ffi::c_int;
use libc::{iovec, off_t};
use ossc_cache::sys::{self, Errno, Result};

/// Most bytes of one call: the kernel's MAX_RW_COUNT.
pub(crate) const CALL_BYTES_MAX: u64 = 0x7fff_f000;
/// From here on a memcpy out of the own mapping is cheaper than the kernel's copy.
const MEMCPY_BYTES_MIN: usize = 64 << 10;
/// Long calls wait and copy in steps, so that copying and receiving overlap.
const STEP_BYTES: u64 = 16 << 20;

/// End of the range that a call of `count` bytes at `at` gets.
pub(crate) fn end_of(seen: &Seen, at: u64, count: u64) -> u64 {
    at.saturating_add(count.min(CALL_BYTES_MAX)).min(seen.facts.size).max(at)
}

/// Reads at `at` into the program's buffer; short at the end of the object, or where the buffer ends.
pub(crate) fn read_at(seen: &Seen, at: u64, buffer: usize, count: usize) -> Result<usize> {
    let end = end_of(seen, at, count as u64);
    if end - at > STEP_BYTES {
        client::will_need(seen.slot, at, end);
    }
    let mut done = at;
    while done < end {
        let step = (end - done).min(STEP_BYTES) as usize;
        let copied = client::wait_range(seen.slot, done, done + step as u64)
            .and_then(|()| copy(seen.slot, done, buffer + (done - at) as usize, step));
        match copied {
            Ok(n) => done += n as u64,
            Err(errno) if done == at => return Err(errno),
            Err(_) => break,
        }
        if copied != Ok(step) {
            break;
        }
    }
    Ok((done - at) as usize)
}

/// Copies bytes that were ready a moment ago; a short count means that the buffer ended. If the engine has
/// given one of the parts up meanwhile, it is waited for and copied again.
fn copy(slot: u32, at: u64, buffer: usize, len: usize) -> Result<usize> {
    settled(slot, at, at + len as u64, |hold| copy_once(slot, at, (buffer, len), hold))
}

/// Runs `act` until the bytes were the same fills before and after it.
fn settled(slot: u32, start: u64, end: u64, act: impl Fn(&Hold) -> Result<usize>) -> Result<usize> {
    let hold = kept::hold(slot)?;
    loop {
        let before = client::fills(slot, start, end);
        if before.is_some() {
            let done = act(&hold)?;
            if client::fills(slot, start, end) == before {
                client::touch(slot, start, start + done as u64);
                return Ok(done);
            }
        }
        client::wait_range(slot, start, end)?;
    }
}

fn copy_once(slot: u32, at: u64, (buffer, len): (usize, usize), hold: &Hold) -> Result<usize> {
    if len >= MEMCPY_BYTES_MIN && sys::populate_write(buffer, len).is_ok() {
        return by_map(slot, at, (buffer, len), hold);
    }
    match kept::kept_memory(slot, hold) {
        Ok(memory) => by_kernel(memory, at, buffer, len),
        // The program has no descriptor left, which is no reason for its read to fail: a map needs none.
        Err(Errno(libc::EMFILE | libc::ENFILE)) if sys::populate_write(buffer, len).is_ok() => {
            by_map(slot, at, (buffer, len), hold)
        }
        Err(errno) => Err(errno),
    }
}

/// The buffer must have been made present and writable.
fn by_map(slot: u32, at: u64, (buffer, len): (usize, usize), hold: &Hold) -> Result<usize> {
    let from = kept::mapping(slot, hold)?.wrapping_add(at as usize);
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
    if end == at {
        return Ok(0);
    }
    client::wait_range(seen.slot, at, end)?;
    settled(seen.slot, at, end, |hold| {
        let memory = kept::kept_memory(seen.slot, hold)?;
        real::kernel(libc::SYS_preadv, [memory as usize, iov as usize, len as usize, at as usize, 0, 0])
    })
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
