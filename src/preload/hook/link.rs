//! Names of open files: `readlink` and `realpath`. A placeholder's descriptor has its natural name; one
//! behind a FILE is the memory file's, and answers with the name of the placeholder it came from.

use super::Arguments;
use crate::attach;
use crate::by_name;
use crate::environ;
use crate::file;
use crate::handle::Slot;
use crate::outcome::{Outcome, slow_path};
use crate::real;
use core::ffi::{c_char, c_int, c_long};
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use libc::{AT_FDCWD, size_t, ssize_t};
use ossc_cache::cpath::CPath;
use ossc_cache::region::Identity;
use ossc_cache::sys;

hooks! {
    fn realpath(path: *const c_char, out: *mut c_char) -> *mut c_char { resolved(path, out, &|| real::realpath(path, out)) }
    fn __realpath_chk(path: *const c_char, out: *mut c_char, room: size_t) -> *mut c_char { resolved(path, out, &|| real::__realpath_chk(path, out, room)) }
    fn canonicalize_file_name(path: *const c_char) -> *mut c_char { resolved(path, core::ptr::null_mut(), &|| real::canonicalize_file_name(path)) }
    fn readlink(path: *const c_char, out: *mut c_char, room: size_t) -> ssize_t { followed(AT_FDCWD, path, out, room, &|| real::readlink(path, out, room)) }
    fn readlinkat(dir: c_int, path: *const c_char, out: *mut c_char, room: size_t) -> ssize_t { followed(dir, path, out, room, &|| real::readlinkat(dir, path, out, room)) }
    fn __readlink_chk(path: *const c_char, out: *mut c_char, count: size_t, room: size_t) -> ssize_t { followed(AT_FDCWD, path, out, count, &|| real::__readlink_chk(path, out, count, room)) }
    fn __readlinkat_chk(dir: c_int, path: *const c_char, out: *mut c_char, count: size_t, room: size_t) -> ssize_t { followed(dir, path, out, count, &|| real::__readlinkat_chk(dir, path, out, count, room)) }
}

/// The same by their numbers in `syscall()`.
#[inline]
pub(super) fn by_number(number: c_long, [a, b, c, d, ..]: Arguments) -> Option<c_long> {
    let path = b as *const c_char;
    Some(match number {
        libc::SYS_readlink => readlink(a as *const c_char, b as *mut c_char, c) as c_long,
        libc::SYS_readlinkat => readlinkat(a as c_int, path, c as *mut c_char, d) as c_long,
        _ => return None,
    })
}

#[inline(never)]
fn resolved(path: *const c_char, out: *mut c_char, call: &dyn Fn() -> *mut c_char) -> *mut c_char {
    if path.is_null() {
        return call();
    }
    let Some(name) = origin(AT_FDCWD, path) else {
        return by_name::until_listed(AT_FDCWD, path, call, |got| got.is_null());
    };
    let Some(name) = name.as_cstr() else { return call() };
    if out.is_null() {
        // SAFETY: copies a C string into memory that the program frees, as `realpath` promises.
        return unsafe { libc::strdup(name.as_ptr()) };
    }
    // SAFETY: `realpath` asks for a buffer of PATH_MAX bytes, which is what a CPath holds at most.
    unsafe { core::ptr::copy_nonoverlapping(name.as_ptr(), out, name.to_bytes_with_nul().len()) };
    out
}

#[inline(never)]
fn followed(dir: c_int, path: *const c_char, out: *mut c_char, room: size_t, call: &dyn Fn() -> ssize_t) -> ssize_t {
    let got = by_name::until_listed(dir, path, call, |got| *got < 0);
    if got <= 0 || !is_magic(dir, path) {
        return got;
    }
    let Some(name) = origin(dir, path) else { return got };
    let bytes = name.as_bytes();
    let len = bytes.len().min(room);
    // SAFETY: the program gave `room` bytes, and the real call has just written to them.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), out.cast(), len) };
    len as ssize_t
}

/// True for a link of procfs itself (`/proc/self/fd/N`), not for one that leads to such a link.
fn is_magic(dir: c_int, path: *const c_char) -> bool {
    // Before the first object nothing of ours is behind one.
    if attach::generation() == 0 {
        return false;
    }
    // The link itself first: what another one leads to may be a mount that does not answer.
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let Ok(fd) = real::kernel(libc::SYS_openat, [dir as usize, path as usize, flags as usize, 0, 0, 0]) else {
        return false;
    };
    let mut fs = core::mem::MaybeUninit::<libc::statfs>::zeroed();
    let asked = real::kernel(libc::SYS_fstatfs, [fd, fs.as_mut_ptr() as usize, 0, 0, 0, 0]);
    let _ = sys::close(fd as c_int);
    // SAFETY: zeroed is a valid `statfs`, and the kernel has filled it.
    let is_of_procfs = asked.is_ok() && unsafe { fs.assume_init() }.f_type == libc::PROC_SUPER_MAGIC;
    let followed = || real::stat_at(dir, path, 0).map(|st| file::id_of(&st));
    is_of_procfs && followed().is_ok_and(|id| crate::identity::could_be_ours(&id))
}

/// The placeholder's name, where a path leads to the memory file behind a FILE of this process.
fn origin(dir: c_int, path: *const c_char) -> Option<CPath> {
    let look = || {
        file::of_path(dir, path, 0)
            .served()
            .filter(|seen| seen.identity == Identity::Memory)
            .map(|seen| names::find(seen.handle.slot).unwrap_or_else(|| seen.handle.path()))
    };
    slow_path(|| Outcome::Served(look())).answer(None, || None)
}

/// Remembers the name of a placeholder whose memory file is about to take the descriptor's number.
pub(super) fn remember(fd: c_int, slot: Slot) {
    if names::find(slot).is_none()
        && let Some(name) = environ::descriptor_path(fd)
    {
        names::remember_name(slot, name.as_bytes());
    }
}

/// Names of the objects that were last opened as a FILE. The oldest gives way; then the kernel's own
/// answer stands.
mod names {
    use super::{AtomicU8, AtomicU32, CPath, Ordering, Slot};

    const COUNT: usize = 64;
    const BYTES: usize = 1024;

    struct Name {
        /// Odd while it is written; a reader takes nothing that changed under it.
        turn: AtomicU32,
        /// A slot's bits; 0 for none.
        slot: AtomicU32,
        len: AtomicU32,
        bytes: [AtomicU8; BYTES],
    }

    static NAMES: [Name; COUNT] = [const {
        Name {
            turn: AtomicU32::new(0),
            slot: AtomicU32::new(0),
            len: AtomicU32::new(0),
            bytes: [const { AtomicU8::new(0) }; BYTES],
        }
    }; COUNT];
    static NEXT: AtomicU32 = AtomicU32::new(0);

    pub(super) fn remember_name(slot: Slot, bytes: &[u8]) {
        if bytes.len() > BYTES {
            return;
        }
        let name = &NAMES[NEXT.fetch_add(1, Ordering::Relaxed) as usize % COUNT];
        let turn = name.turn.load(Ordering::Acquire);
        let is_free = turn.is_multiple_of(2)
            && name.turn.compare_exchange(turn, turn.wrapping_add(1), Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if !is_free {
            return;
        }
        name.slot.store(slot.to_bits(), Ordering::Relaxed);
        name.len.store(bytes.len() as u32, Ordering::Relaxed);
        for (to, from) in name.bytes.iter().zip(bytes) {
            to.store(*from, Ordering::Relaxed);
        }
        name.turn.store(turn.wrapping_add(2), Ordering::Release);
    }

    pub(super) fn find(slot: Slot) -> Option<CPath> {
        NAMES.iter().filter(|name| name.slot.load(Ordering::Relaxed) == slot.to_bits()).find_map(read)
    }

    fn read(name: &Name) -> Option<CPath> {
        let turn = name.turn.load(Ordering::Acquire);
        let mut copy = [0u8; BYTES];
        for (to, from) in copy.iter_mut().zip(&name.bytes) {
            *to = from.load(Ordering::Relaxed);
        }
        let len = (name.len.load(Ordering::Relaxed) as usize).min(BYTES);
        core::sync::atomic::fence(Ordering::Acquire);
        let is_whole = turn.is_multiple_of(2) && name.turn.load(Ordering::Relaxed) == turn;
        is_whole.then(|| CPath::from(&copy[..len]))
    }
}
