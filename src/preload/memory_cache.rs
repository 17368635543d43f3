//! What this process keeps of an object while it reads it: a read-only map for large copies and a
//! descriptor for small ones. Dropped with the last descriptor of the program's through which it was read,
//! so that the engine can give the memory back.
//!
//! Called by the read path. No locks and no allocation; a kept descriptor is asked for its identity before
//! each use, since the program may have closed its number and opened a file of its own there.

use crate::attach::PRIVATE_FD_MIN;
use crate::handle::{GONE, Handle, Slot};
use crate::memory_file::{is_memory, open_unready};
use crate::real;
use core::arch::x86_64::{_MM_HINT_T2, _mm_prefetch};
use core::ops::Range;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};
use ossc_cache::region::OBJECTS_MAX;
use ossc_cache::sys::{self, Errno, Result};

/// Of an address: what the kernel chooses by itself lies below 2^47.
const ADDRESS_BITS: u32 = 48;
const ADDRESS_MASK: usize = (1 << ADDRESS_BITS) - 1;

/// What is kept of one object.
struct CachedMemory {
    /// Generation of the catalog and use of the record that the rest is about (`Slot::tag`).
    tag: AtomicU32,
    /// Address of the map, and above it the tag that it is of.
    map: AtomicUsize,
    fd: AtomicI32,
    /// Bits of what the audit file was told.
    told: AtomicU32,
    /// Descriptors through which it was read.
    users: AtomicU32,
    /// Copies under way.
    readers: AtomicU32,
}

static CACHE: [CachedMemory; OBJECTS_MAX as usize] = [const {
    CachedMemory {
        tag: AtomicU32::new(0),
        map: AtomicUsize::new(0),
        fd: AtomicI32::new(0),
        told: AtomicU32::new(0),
        users: AtomicU32::new(0),
        readers: AtomicU32::new(0),
    }
}; OBJECTS_MAX as usize];

/// Keeps what this process has of an object in place while bytes are copied from it.
pub(crate) struct CopyGuard {
    cached: &'static CachedMemory,
}

impl Drop for CopyGuard {
    fn drop(&mut self) {
        self.cached.readers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// See `CopyGuard`.
pub(crate) fn guard_copy(handle: &Handle) -> Result<CopyGuard> {
    let now = handle.now().ok_or(GONE)?;
    let cached = cached(now.slot)?;
    cached.readers.fetch_add(1, Ordering::SeqCst);
    Ok(CopyGuard { cached })
}

/// A new engine may number its objects in another way than the one that the guard is of: then what is kept under
/// the new number stays for good, since nobody would say when this reader is done with it.
fn guarded(slot: Slot, guard: &CopyGuard) -> Result<&'static CachedMemory> {
    let cached = cached(slot)?;
    if !core::ptr::eq(cached, guard.cached) {
        cached.readers.fetch_add(1, Ordering::SeqCst);
    }
    Ok(cached)
}

/// The object was read through one more descriptor.
pub(crate) fn used_by_one_more(handle: &Handle) {
    if let Some(cached) = handle.now().and_then(|now| cached(now.slot).ok()) {
        cached.users.fetch_add(1, Ordering::AcqRel);
    }
}

/// A descriptor through which it was read is gone; with the last one goes what was kept.
pub(crate) fn used_by_one_less(handle: &Handle) {
    // Of a version that is GONE, too: as long as this process has its memory, the engine cannot give that back.
    let Some(now) = handle.now_or_gone() else { return };
    let Ok(cached) = cached(now.slot) else { return };
    let left = cached.users.fetch_update(Ordering::AcqRel, Ordering::Acquire, |users| users.checked_sub(1));
    if left != Ok(1) {
        return;
    }
    let (map, fd) = (cached.map.swap(0, Ordering::SeqCst), cached.fd.swap(0, Ordering::SeqCst));
    if cached.readers.load(Ordering::SeqCst) != 0 {
        // Another thread is copying: back in place. If it has made new ones already, the old ones stay as
        // they are, since it may use either.
        let _ = cached.map.compare_exchange(0, map, Ordering::SeqCst, Ordering::SeqCst);
        let _ = cached.fd.compare_exchange(0, fd, Ordering::SeqCst, Ordering::SeqCst);
        return;
    }
    // One of an older generation stays: how long it is, that generation knew.
    if map != 0 && (map >> ADDRESS_BITS) as u32 == now.slot.tag() {
        // SAFETY: our own map of the whole object; while it is there the record is not used again, so the length is
        // its. No copy was under way after it was taken out, and later ones make a new map.
        let _ = unsafe { sys::munmap(map & ADDRESS_MASK, now.object.size() as usize) };
    }
    if fd > 0 && is_memory(fd, &now) {
        let _ = sys::close(fd);
    }
}

/// Address of this process's own read-only map of the whole object (ready parts only may be touched), good
/// as long as the guard.
pub(crate) fn mapping(handle: &Handle, guard: &CopyGuard) -> Result<*const u8> {
    loop {
        let now = handle.now().ok_or(GONE)?;
        let cached = guarded(now.slot, guard)?;
        // Sequentially consistent, as is the count of readers: whoever drops the map sees the guard, or this sees it gone.
        let known = cached.map.load(Ordering::SeqCst);
        if known != 0 && (known >> ADDRESS_BITS) as u32 == now.slot.tag() {
            return Ok((known & ADDRESS_MASK) as *const u8);
        }
        let bytes = now.object.size();
        let fd = open_unready(handle)?;
        let mapped = map_all(fd, bytes as usize);
        let _ = sys::close(fd);
        let at = mapped?;
        let tagged = at | (now.slot.tag() as usize) << ADDRESS_BITS;
        // With another engine since then it is not known which of them the map is of.
        if at <= ADDRESS_MASK
            && handle.now().is_some_and(|again| again.slot == now.slot)
            && cached.map.compare_exchange(known, tagged, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            return Ok(at as *const u8);
        }
        // SAFETY: our own new mapping, which nobody else knows.
        let _ = unsafe { sys::munmap(at, bytes as usize) };
    }
}

/// A new map of a memory file. None of it is locked, whatever `mlockall` asks for: that would bring all of it into memory.
/// ENOMEM also where that is what leaves no room.
fn map_all(fd: i32, len: usize) -> Result<usize> {
    let (nothing, read) = (libc::PROT_NONE as usize, libc::PROT_READ as usize);
    let at = real::kernel(libc::SYS_mmap, [0, len, nothing, libc::MAP_SHARED as usize, fd as usize, 0]).map_err(
        |errno| match errno.0 {
            libc::EAGAIN => Errno(libc::ENOMEM),
            _ => errno,
        },
    )?;
    let _ = real::kernel(libc::SYS_munlock, [at, len, 0, 0, 0, 0]);
    real::kernel(libc::SYS_mprotect, [at, len, read, 0, 0, 0]).inspect_err(|_| {
        // SAFETY: the mapping was made above, and nothing refers to it.
        let _ = unsafe { sys::munmap(at, len) };
    })?;
    Ok(at)
}

/// Bytes that the processor moves at once between memory and its caches.
const LINE_BYTES: usize = 64;

/// Lets the processor bring these lines of a read at `at` nearer, if the object is mapped. Nothing is checked: to ask
/// for a line faults nowhere, and one of another map is only in vain.
#[inline(always)]
pub(crate) fn prefetch(slot: Slot, at: u64, lines: Range<usize>) {
    let Some(cached) = CACHE.get(slot.number() as usize) else { return };
    let map = cached.map.load(Ordering::Relaxed) & ADDRESS_MASK;
    if map != 0 {
        for line in lines {
            let address = map.wrapping_add(at as usize).wrapping_add(line * LINE_BYTES);
            // SAFETY: a hint, which reads nothing and cannot fault (Intel SDM, PREFETCHh), whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T2>(address as *const i8) };
        }
    }
}

/// A kept descriptor of the memory file for small preads, verified before it is returned and good as long as
/// the guard; do not close it.
pub(crate) fn cached_memory(handle: &Handle, guard: &CopyGuard) -> Result<i32> {
    let now = handle.now().ok_or(GONE)?;
    let cached = guarded(now.slot, guard)?;
    loop {
        let fd = cached.fd.load(Ordering::SeqCst);
        if fd > 0 && is_memory(fd, &now) {
            return Ok(fd);
        }
        // Lost (the program closed it) or never there. A descriptor of the program's own is left alone.
        let opened = open_unready(handle)?;
        let high = sys::dup_from(opened, PRIVATE_FD_MIN);
        let new = match high {
            Ok(high) => {
                let _ = sys::close(opened);
                high
            }
            Err(_) => opened,
        };
        if cached.fd.compare_exchange(fd, new, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return Ok(new);
        }
        // Somebody was faster: what is there now (perhaps nothing) is looked at like any other.
        let _ = sys::close(new);
    }
}

/// True the first time that this process does `act` with the object.
pub(crate) fn is_first(slot: Slot, act: u32) -> bool {
    cached(slot).is_ok_and(|cached| cached.told.fetch_or(1 << act, Ordering::AcqRel) & 1 << act == 0)
}

/// What is kept under a slot of now.
fn cached(slot: Slot) -> Result<&'static CachedMemory> {
    let cached = CACHE.get(slot.number() as usize).ok_or(Errno(libc::EIO))?;
    let (seen, tag) = (cached.tag.load(Ordering::Acquire), slot.tag());
    if seen != tag && cached.tag.compare_exchange(seen, tag, Ordering::AcqRel, Ordering::Acquire).is_ok() {
        // Map and descriptor tell by themselves whose they are; a map of an older engine stays mapped, since a
        // reader may be in the middle of it. Of an older use of the record there is none: it was over only when no
        // process had its memory.
        cached.told.store(0, Ordering::Release);
        cached.users.store(0, Ordering::Release);
    }
    Ok(cached)
}
