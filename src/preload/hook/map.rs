//! Maps: what the main readers of weights use. The bytes are waited for first, then the memory file is
//! mapped in the placeholder's stead, read-only, so that no `mprotect` can make a shared map writable.

use super::Arguments;
use crate::failed;
use crate::file;
use crate::handle::{GONE, Handle, Slot};
use crate::log;
use crate::memory;
use crate::outcome::{Outcome, slow_path};
use crate::real;
use crate::seen::Seen;
use crate::session;
use crate::uses;
use core::ffi::{c_int, c_long, c_void};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use libc::{MAP_FAILED, off_t, size_t};
use ossc_cache::sys::{self, Errno, Result};

hooks! {
    fn mmap(at: *mut c_void, len: size_t, prot: c_int, flags: c_int, fd: c_int, offset: off_t) -> *mut c_void {
        mapped(Wish { len, prot, flags, fd, offset }, |fd| real::mmap(at, len, prot, flags, fd, offset))
    }
    fn mmap64(at: *mut c_void, len: size_t, prot: c_int, flags: c_int, fd: c_int, offset: off_t) -> *mut c_void {
        mapped(Wish { len, prot, flags, fd, offset }, |fd| real::mmap64(at, len, prot, flags, fd, offset))
    }
    fn munmap(at: *mut c_void, len: size_t) -> c_int { unmapped(at as usize, len, real::munmap(at, len)) }
    fn mremap(at: *mut c_void, old: size_t, new: size_t, flags: c_int, target: *mut c_void) -> *mut c_void {
        moved(at as usize, new > old || flags & ELSEWHERE != 0, || real::mremap(at, old, new, flags, target))
    }
}

/// `syscall(SYS_mmap)`, `SYS_munmap` and `SYS_mremap`: the kernel is what comes next, never a function by
/// name. tcmalloc's `mmap` makes its system call through `syscall`, and would be called back for ever.
#[inline]
pub(super) fn by_number(number: c_long, all: Arguments) -> Option<c_long> {
    let [a, b, c, d, e, f] = all;
    Some(match number {
        libc::SYS_mmap => {
            let wish = Wish { len: b, prot: c as c_int, flags: d as c_int, fd: e as c_int, offset: f as off_t };
            mapped(wish, |fd| real::syscall(number, a, b, c, d, fd as usize, f) as *mut c_void) as c_long
        }
        libc::SYS_munmap => unmapped(a, b, real::by_number(number, all) as c_int).into(),
        libc::SYS_mremap => {
            moved(a, c > b || d as c_int & ELSEWHERE != 0, || real::by_number(number, all) as *mut c_void) as c_long
        }
        _ => return None,
    })
}

fn unmapped(at: usize, len: size_t, got: c_int) -> c_int {
    if got == 0 {
        partial::forget(at, len);
    }
    got
}

/// Flags of `mremap` by which a map goes to another address whatever its length: there it may grow unnoticed.
const ELSEWHERE: c_int = libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;

/// `completes`: the map must not be one of a part of the object only.
fn moved(at: usize, completes: bool, call: impl FnOnce() -> *mut c_void) -> *mut c_void {
    if completes && let Outcome::Failed(errno) = slow_path(|| grown(at)) {
        return Outcome::Failed(errno).answer(MAP_FAILED, || MAP_FAILED);
    }
    call()
}

const PAGE: u64 = 4096;

/// What the program asked of `mmap`, but for the address.
struct Wish {
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
}

fn mapped(wish: Wish, call: impl Fn(c_int) -> *mut c_void) -> *mut c_void {
    let fd = wish.fd;
    if fd < 0 || wish.flags & libc::MAP_ANONYMOUS != 0 {
        return call(fd);
    }
    let memory = match slow_path(|| memory_for(&wish)) {
        Outcome::Served(memory) => memory,
        Outcome::Pass => return call(fd),
        Outcome::Failed(errno) => return Outcome::Failed(errno).answer(MAP_FAILED, || MAP_FAILED),
    };
    let at = call(memory.fd);
    let _ = sys::close(memory.fd);
    if at != MAP_FAILED && memory.is_partial {
        partial::remember(at as usize, wish.len, memory.handle.slot);
    }
    at
}

/// What is mapped in the placeholder's stead.
struct Memory {
    fd: c_int,
    handle: Handle,
    is_partial: bool,
}

fn memory_for(wish: &Wish) -> Outcome<Memory> {
    file::of_descriptor(wish.fd).then(|seen| memory_of(&seen, wish))
}

fn memory_of(seen: &Seen, wish: &Wish) -> Outcome<Memory> {
    if seen.is_coming() {
        return file::stale(seen);
    }
    // What the kernel refuses of the placeholder it refuses with the right error.
    if !seen.is_placeholder()
        || file::is_name_only(wish.fd)
        || wish.len == 0
        || wish.offset < 0
        || !(wish.offset as u64).is_multiple_of(PAGE)
    {
        return Outcome::Pass;
    }
    let is_shared = matches!(wish.flags & libc::MAP_TYPE, libc::MAP_SHARED | libc::MAP_SHARED_VALIDATE);
    if is_shared && wish.prot & libc::PROT_WRITE != 0 {
        log::line(b"writable shared map refused (the folder is read-only)", &seen.handle);
        return Outcome::Failed(Errno(libc::EACCES));
    }
    memory(seen, wish).inspect_err(|errno| failed::kept_from_memory(seen, *errno)).into()
}

fn memory(seen: &Seen, wish: &Wish) -> Result<Memory> {
    session::taken(&seen.handle);
    let size = seen.facts.size;
    let start = (wish.offset as u64).min(size);
    let end = start.saturating_add((wish.len as u64).checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)).min(size);
    let is_partial = start > 0 || end < size;
    // A part is enough for a part of the file, as long as its growth (mremap) can be noticed.
    let fd =
        if is_partial && partial::has_room() { memory::of_part(seen, start, end)? } else { memory::of_whole(seen)? };
    uses::tell(&seen.handle, 2);
    Ok(Memory { fd, handle: seen.handle, is_partial })
}

/// A map is about to grow: if it was waited for in part only, the rest is waited for now.
fn grown(at: usize) -> Outcome<()> {
    match partial::find(at) {
        Some(slot) => slot.handle().ok_or(GONE).and_then(|handle| memory::wait_rest(&handle)).into(),
        None => Outcome::Pass,
    }
}

/// Maps whose object was not complete when they were made. Entries are hints: one that outlives its map
/// costs a wait at worst. Fixed size, no lock; without room a map waits for the whole object.
mod partial {
    use super::{AtomicU32, AtomicUsize, Ordering, Slot};

    struct Entry {
        /// 0 free, 1 being written, else the address.
        start: AtomicUsize,
        end: AtomicUsize,
        /// A slot's bits.
        slot: AtomicU32,
    }

    const FREE: usize = 0;
    const BUSY: usize = 1;
    static ENTRIES: [Entry; 1024] =
        [const { Entry { start: AtomicUsize::new(FREE), end: AtomicUsize::new(0), slot: AtomicU32::new(0) } }; 1024];
    /// How many entries may be used at most by maps that are being made: room is left for every thread.
    const SPARE: usize = 64;
    static USED: AtomicUsize = AtomicUsize::new(0);

    pub(super) fn has_room() -> bool {
        USED.load(Ordering::Relaxed) + SPARE < ENTRIES.len()
    }

    pub(super) fn remember(at: usize, len: usize, slot: Slot) {
        for entry in &ENTRIES {
            if entry.start.compare_exchange(FREE, BUSY, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                USED.fetch_add(1, Ordering::Relaxed);
                entry.end.store(at.saturating_add(len), Ordering::Relaxed);
                entry.slot.store(slot.to_bits(), Ordering::Relaxed);
                entry.start.store(at, Ordering::Release);
                return;
            }
        }
    }

    pub(super) fn find(at: usize) -> Option<Slot> {
        if USED.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let holds = |entry: &&Entry| {
            let start = entry.start.load(Ordering::Acquire);
            start > BUSY && start <= at && at < entry.end.load(Ordering::Relaxed)
        };
        ENTRIES.iter().find(holds).map(|entry| Slot::from_bits(entry.slot.load(Ordering::Relaxed)))
    }

    /// Forgets the maps that lie wholly in the range.
    pub(super) fn forget(at: usize, len: usize) {
        if USED.load(Ordering::Relaxed) == 0 {
            return;
        }
        for entry in &ENTRIES {
            let start = entry.start.load(Ordering::Acquire);
            let inside = start > BUSY && start >= at && entry.end.load(Ordering::Relaxed) <= at.saturating_add(len);
            if inside && entry.start.compare_exchange(start, FREE, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                USED.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}
