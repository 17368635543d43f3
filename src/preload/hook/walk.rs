//! Walks inside the C library (`ftw`, `nftw`, `fts`): the tree is listed ahead, and the status that the C
//! library has read by itself is patched before the program sees it. A tree with a folder that cannot be listed is EIO.

use super::dir::{DEPTH_MAX, list_tree};
use super::stat;
use crate::outcome::Outcome;
use crate::real::{self, Callback};
use core::cell::Cell;
use core::ffi::{c_char, c_int, c_void};
use core::mem::transmute;
use core::ptr::{null, null_mut};
use libc::{AT_FDCWD, stat as Stat};
use ossc_cache::sys::Errno;

hooks! {
    fn ftw(path: *const c_char, each: Callback, open: c_int) -> c_int { with(path, each, || real::ftw(path, EACH, open)) }
    fn ftw64(path: *const c_char, each: Callback, open: c_int) -> c_int { with(path, each, || real::ftw64(path, EACH, open)) }
    fn nftw(path: *const c_char, each: Callback, open: c_int, flags: c_int) -> c_int { with(path, each, || real::nftw(path, EACH, open, flags)) }
    fn nftw64(path: *const c_char, each: Callback, open: c_int, flags: c_int) -> c_int { with(path, each, || real::nftw64(path, EACH, open, flags)) }
    fn fts_open(paths: *const *const c_char, options: c_int, order: Callback) -> *mut c_void { begun(paths, || real::fts_open(paths, options, order)) }
    fn fts64_open(paths: *const *const c_char, options: c_int, order: Callback) -> *mut c_void { begun(paths, || real::fts64_open(paths, options, order)) }
    fn fts_read(walk: *mut c_void) -> *mut c_void { patched(real::fts_read(walk)) }
    fn fts64_read(walk: *mut c_void) -> *mut c_void { patched(real::fts64_read(walk)) }
    fn fts_children(walk: *mut c_void, options: c_int) -> *mut c_void { all_patched(real::fts_children(walk, options)) }
    fn fts64_children(walk: *mut c_void, options: c_int) -> *mut c_void { all_patched(real::fts64_children(walk, options)) }
}

/// What the program gave `nftw`; `ftw`'s takes one argument less, which it does not miss.
type Each = extern "C-unwind" fn(*const c_char, *const Stat, c_int, *mut c_void) -> c_int;
const EACH: Callback = met as Each as Callback;

thread_local! {
    /// The program's function, while this thread is in a walk.
    static GIVEN: Cell<Callback> = const { Cell::new(null()) };
}

fn with(path: *const c_char, each: Callback, walk: impl FnOnce() -> c_int) -> c_int {
    if !list_tree(AT_FDCWD, path, DEPTH_MAX) {
        return Outcome::Failed(Errno(libc::EIO)).answer(-1, || -1);
    }
    let outer = GIVEN.replace(each);
    let got = walk();
    GIVEN.set(outer);
    got
}

extern "C-unwind" fn met(path: *const c_char, status: *const Stat, kind: c_int, place: *mut c_void) -> c_int {
    let given = GIVEN.get();
    // SAFETY: the program's function, of the type that `nftw` calls.
    let given = unsafe { transmute::<Callback, Each>(given) };
    if kind != FTW_F {
        return given(path, status, kind, place);
    }
    // SAFETY: for FTW_F the C library gives a filled struct; the copy is ours to change.
    let mut copy = unsafe { *status };
    stat::patch_known(&mut copy);
    // The program may walk on its own from here.
    let got = given(path, &raw const copy, kind, place);
    GIVEN.set(given as Callback);
    got
}

/// A file that is not a folder, with its status.
const FTW_F: c_int = 0;

/// glibc's `FTSENT`, up to what is needed here (fts.h; the same for both file offset sizes on x86-64).
#[repr(C)]
struct Entry {
    cycle: *mut Entry,
    parent: *mut Entry,
    link: *mut Entry,
    number: i64,
    pointer: *mut c_void,
    accpath: *mut c_char,
    path: *mut c_char,
    errno: c_int,
    symfd: c_int,
    pathlen: u16,
    namelen: u16,
    ino: u64,
    dev: u64,
    nlink: u64,
    level: i16,
    info: u16,
    flags: u16,
    instr: u16,
    status: *mut Stat,
}

/// A regular file, with its status.
const FTS_F: u16 = 8;

fn patched(found: *mut c_void) -> *mut c_void {
    let entry = found.cast::<Entry>();
    if !entry.is_null() {
        // SAFETY: the entry that the real call has just given.
        let (info, status) = unsafe { ((*entry).info, (*entry).status) };
        if info == FTS_F && !status.is_null() {
            // SAFETY: for FTS_F the C library has filled its struct, which nobody else uses now.
            stat::patch_known(unsafe { &mut *status });
        }
    }
    found
}

fn all_patched(first: *mut c_void) -> *mut c_void {
    let mut entry = first.cast::<Entry>();
    while !entry.is_null() {
        patched(entry.cast());
        // SAFETY: a list of entries that the real call has just made.
        entry = unsafe { (*entry).link };
    }
    first
}

/// `fts_open`: every root of the null-terminated array is listed.
fn begun(paths: *const *const c_char, call: impl FnOnce() -> *mut c_void) -> *mut c_void {
    for index in 0.. {
        // SAFETY: `fts_open` reads the same array up to its null.
        let path = if paths.is_null() { null() } else { unsafe { *paths.add(index) } };
        if path.is_null() {
            break;
        }
        if !list_tree(AT_FDCWD, path, DEPTH_MAX) {
            return Outcome::Failed(Errno(libc::EIO)).answer(null_mut(), null_mut);
        }
    }
    call()
}
