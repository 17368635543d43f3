//! What this process keeps of an object while it reads it: a read-only map for large copies and a
//! descriptor for small ones. Dropped with the last descriptor of the program's through which it was read,
//! so that the engine can give the memory back.
//!
//! Called by the read path. No locks and no allocation; a kept descriptor is asked for its identity before
//! each use, since the program may have closed its number and opened a file of its own there.

use crate::client::{self, is_memory, open_memory, resolve};
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};
use ossc_cache::region::OBJECTS_MAX;
use ossc_cache::sys::{self, Errno, Result};

/// What is kept of one object.
struct Kept {
    /// Generation of the catalog that the rest is about.
    generation: AtomicU32,
    map: AtomicUsize,
    fd: AtomicI32,
    /// Bits of what the audit file was told.
    told: AtomicU32,
    /// Descriptors through which it was read.
    users: AtomicU32,
    /// Copies under way.
    readers: AtomicU32,
}

static KEPT: [Kept; OBJECTS_MAX as usize] = [const {
    Kept {
        generation: AtomicU32::new(0),
        map: AtomicUsize::new(0),
        fd: AtomicI32::new(0),
        told: AtomicU32::new(0),
        users: AtomicU32::new(0),
        readers: AtomicU32::new(0),
    }
}; OBJECTS_MAX as usize];

/// Keeps what this process has of an object in place while bytes are copied from it.
pub(crate) struct Hold {
    kept: &'static Kept,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.kept.readers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// See `Hold`.
pub(crate) fn hold(slot: u32) -> Result<Hold> {
    let (_, _, number) = resolve(slot).ok_or(Errno(libc::EIO))?;
    let kept = kept(number)?;
    kept.readers.fetch_add(1, Ordering::SeqCst);
    Ok(Hold { kept })
}

/// The object was read through one more descriptor.
pub(crate) fn used_by_one_more(slot: u32) {
    if let Some(kept) = resolve(slot).and_then(|(_, _, number)| kept(number).ok()) {
        kept.users.fetch_add(1, Ordering::AcqRel);
    }
}

/// A descriptor through which it was read is gone; with the last one goes what was kept.
pub(crate) fn used_by_one_less(slot: u32) {
    let Some((_, object, number)) = resolve(slot) else { return };
    let Ok(kept) = kept(number) else { return };
    let left = kept.users.fetch_update(Ordering::AcqRel, Ordering::Acquire, |users| users.checked_sub(1));
    if left != Ok(1) {
        return;
    }
    let (map, fd) = (kept.map.swap(0, Ordering::SeqCst), kept.fd.swap(0, Ordering::SeqCst));
    if kept.readers.load(Ordering::SeqCst) != 0 {
        // Another thread is copying: back in place. If it has made new ones already, the old ones stay as
        // they are, since it may use either.
        let _ = kept.map.compare_exchange(0, map, Ordering::SeqCst, Ordering::SeqCst);
        let _ = kept.fd.compare_exchange(0, fd, Ordering::SeqCst, Ordering::SeqCst);
        return;
    }
    if map != 0 {
        // SAFETY: our own map; no copy was under way after it was taken out, and later ones make a new map.
        let _ = unsafe { sys::munmap(map, object.size as usize) };
    }
    if fd > 0 && is_memory(fd, object) {
        let _ = sys::close(fd);
    }
}

/// Address of this process's own read-only map of the whole object (ready parts only may be touched), good
/// as long as the hold.
pub(crate) fn mapping(slot: u32, _hold: &Hold) -> Result<*const u8> {
    let (_, object, number) = resolve(slot).ok_or(Errno(libc::EIO))?;
    let kept = kept(number)?;
    // Sequentially consistent, as is the count of readers: whoever drops the map sees the hold, or this sees it gone.
    let known = kept.map.load(Ordering::SeqCst);
    if known != 0 {
        return Ok(known as *const u8);
    }
    let fd = open_memory(slot)?;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let mapped = unsafe { sys::mmap(0, object.size as usize, libc::PROT_READ, libc::MAP_SHARED, fd, 0) };
    let _ = sys::close(fd);
    let at = mapped?;
    match kept.map.compare_exchange(0, at, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Ok(at as *const u8),
        Err(first) => {
            // SAFETY: our own new mapping, which nobody else knows: another thread was faster.
            let _ = unsafe { sys::munmap(at, object.size as usize) };
            Ok(first as *const u8)
        }
    }
}

/// A kept descriptor of the memory file for small preads, verified before it is returned and good as long as
/// the hold; do not close it.
pub(crate) fn kept_memory(slot: u32, _hold: &Hold) -> Result<i32> {
    let (_, object, number) = resolve(slot).ok_or(Errno(libc::EIO))?;
    let kept = kept(number)?;
    loop {
        let fd = kept.fd.load(Ordering::SeqCst);
        if fd > 0 && is_memory(fd, object) {
            return Ok(fd);
        }
        // Lost (the program closed it) or never there. A descriptor of the program's own is left alone.
        let opened = open_memory(slot)?;
        let high = sys::dup_from(opened, client::KEPT_FD_MIN);
        let new = match high {
            Ok(high) => {
                let _ = sys::close(opened);
                high
            }
            Err(_) => opened,
        };
        if kept.fd.compare_exchange(fd, new, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return Ok(new);
        }
        // Somebody was faster: what is there now (perhaps nothing) is looked at like any other.
        let _ = sys::close(new);
    }
}

/// True the first time that this process does `act` with the object.
pub(crate) fn is_first(number: u32, act: u32) -> bool {
    kept(number).is_ok_and(|kept| kept.told.fetch_or(1 << act, Ordering::AcqRel) & 1 << act == 0)
}

fn kept(number: u32) -> Result<&'static Kept> {
    let kept = KEPT.get(number as usize).ok_or(Errno(libc::EIO))?;
    let current = client::generation();
    let seen = kept.generation.load(Ordering::Acquire);
    if seen != current && kept.generation.compare_exchange(seen, current, Ordering::AcqRel, Ordering::Acquire).is_ok() {
        // The maps of an older engine stay mapped: a reader may be in the middle of one.
        kept.map.store(0, Ordering::Release);
        kept.fd.store(0, Ordering::Release);
        kept.told.store(0, Ordering::Release);
        kept.users.store(0, Ordering::Release);
    }
    Ok(kept)
}
