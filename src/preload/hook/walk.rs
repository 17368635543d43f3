//! Walks inside the C library (`ftw`, `nftw`, `fts`): the tree is listed ahead, and the status that the C
//! library has read by itself is patched before the program sees it. A tree with a folder that cannot be listed is EIO.
//! What that does not reach (a folder behind a link, one of many levels, MODEL_DIR below the root) is listed when the walk
//! enters it: where it cannot be, the walk meets a folder that cannot be read.

use super::dir::{DEPTH_MAX, list_tree};
use super::stat;
use crate::listing;
use crate::outcome::Outcome;
use crate::real::{self, Callback};
use core::cell::Cell;
use core::ffi::{c_char, c_int, c_void};
use core::mem::transmute;
use core::ptr::{null, null_mut};
use libc::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, stat as Stat};

hooks! {
    fn ftw(path: *const c_char, each: Callback, open: c_int) -> c_int { with(path, each, 0, || real::ftw(path, EACH, open)) }
    fn ftw64(path: *const c_char, each: Callback, open: c_int) -> c_int { with(path, each, 0, || real::ftw64(path, EACH, open)) }
    fn nftw(path: *const c_char, each: Callback, open: c_int, flags: c_int) -> c_int { with(path, each, flags, || real::nftw(path, EACH, open, flags)) }
    fn nftw64(path: *const c_char, each: Callback, open: c_int, flags: c_int) -> c_int { with(path, each, flags, || real::nftw64(path, EACH, open, flags)) }
    fn fts_open(paths: *const *const c_char, options: c_int, order: Callback) -> *mut c_void { begun(paths, options, || real::fts_open(paths, options, order)) }
    fn fts64_open(paths: *const *const c_char, options: c_int, order: Callback) -> *mut c_void { begun(paths, options, || real::fts64_open(paths, options, order)) }
    fn fts_read(walk: *mut c_void) -> *mut c_void { read(real::fts_read(walk)) }
    fn fts64_read(walk: *mut c_void) -> *mut c_void { read(real::fts64_read(walk)) }
    fn fts_children(walk: *mut c_void, options: c_int) -> *mut c_void { all_patched(real::fts_children(walk, options)) }
    fn fts64_children(walk: *mut c_void, options: c_int) -> *mut c_void { all_patched(real::fts64_children(walk, options)) }
}

/// What the program gave `nftw`; `ftw`'s takes one argument less, which it does not miss.
type Each = extern "C-unwind" fn(*const c_char, *const Stat, c_int, *const NameAt) -> c_int;
const EACH: Callback = met as Each as Callback;

/// `struct FTW` (ftw.h).
#[repr(C)]
struct NameAt {
    /// Where the name begins in the path.
    base: c_int,
    level: c_int,
}

thread_local! {
    /// The program's function and its flags, while this thread is in a walk.
    static GIVEN: Cell<(Callback, c_int)> = const { Cell::new((null(), 0)) };
}

/// `ftw` has no flags.
fn with(path: *const c_char, each: Callback, flags: c_int, walk: impl FnOnce() -> c_int) -> c_int {
    let follows = if flags & FTW_PHYS != 0 { AT_SYMLINK_NOFOLLOW } else { 0 };
    if let Err(errno) = list_tree(AT_FDCWD, path, DEPTH_MAX, follows) {
        return Outcome::Failed(errno).answer(-1, || -1);
    }
    let outer = GIVEN.replace((each, flags));
    let got = walk();
    GIVEN.set(outer);
    got
}

extern "C-unwind" fn met(path: *const c_char, status: *const Stat, kind: c_int, place: *const NameAt) -> c_int {
    let (each, flags) = GIVEN.get();
    // SAFETY: the program's function, of the type that `nftw` calls.
    let given = unsafe { transmute::<Callback, Each>(each) };
    let (mut copy, mut kind) = (None, kind);
    if kind == FTW_F {
        // SAFETY: for FTW_F the C library gives a filled struct; the copy is ours to change.
        stat::patch_known(copy.insert(unsafe { *status }));
    }
    if kind == FTW_D {
        // SAFETY: the C library gives a place within the path.
        let base = if flags & FTW_CHDIR != 0 { unsafe { (*place).base as usize } } else { 0 };
        // SAFETY: as above.
        kind = if enters(unsafe { path.add(base) }) { FTW_D } else { FTW_DNR };
    }
    // The program may walk on its own from here.
    let got = given(path, copy.as_ref().map_or(status, |copy| &raw const *copy), kind, place);
    GIVEN.set((each, flags));
    got
}

/// The walk has met a folder and reads it next: it is listed now. False if it cannot be.
fn enters(folder: *const c_char) -> bool {
    listing::knows_all_folders() || list_tree(AT_FDCWD, folder, 0, 0).is_ok()
}

/// Links are not followed (ftw.h).
const FTW_PHYS: c_int = 1;
/// The working folder is the one that the walk has come to.
const FTW_CHDIR: c_int = 4;
/// A folder that the walk reads next, and one that cannot be read.
const FTW_D: c_int = 1;
const FTW_DNR: c_int = 2;
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

/// Links are followed for the roots, and for all (fts.h).
const FTS_COMFOLLOW: c_int = 1;
const FTS_LOGICAL: c_int = 2;
/// A folder that the walk reads next, one that cannot be read, and a regular file with its status.
const FTS_D: u16 = 1;
const FTS_DNR: u16 = 4;
const FTS_F: u16 = 8;

/// What `fts_read` has come to.
fn read(found: *mut c_void) -> *mut c_void {
    let entry = found.cast::<Entry>();
    // SAFETY: the entry that the real call has just given, with the name by which it is reached from the working folder.
    if !entry.is_null() && unsafe { (*entry).info == FTS_D && !enters((*entry).accpath) } {
        // SAFETY: the C library looks at them in the next `fts_read`, which goes on behind the folder.
        unsafe { ((*entry).info, (*entry).errno) = (FTS_DNR, libc::EIO) };
    }
    patched(found)
}

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
fn begun(paths: *const *const c_char, options: c_int, call: impl FnOnce() -> *mut c_void) -> *mut c_void {
    let follows = if options & (FTS_COMFOLLOW | FTS_LOGICAL) == 0 { AT_SYMLINK_NOFOLLOW } else { 0 };
    for index in 0.. {
        // SAFETY: `fts_open` reads the same array up to its null.
        let path = if paths.is_null() { null() } else { unsafe { *paths.add(index) } };
        if path.is_null() {
            break;
        }
        if let Err(errno) = list_tree(AT_FDCWD, path, DEPTH_MAX, follows) {
            return Outcome::Failed(errno).answer(null_mut(), null_mut);
        }
    }
    call()
}
