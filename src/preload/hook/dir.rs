//! Folders. Entries are real files, so all that is needed is that a folder is listed before it
//! is read; what the C library walks inside itself (nftw, fts, scandir) is listed ahead, as deep as it goes. A folder that
//! cannot be listed is one that cannot be read, never an empty one.

use super::{Arguments, stat};
use crate::by_name;
use crate::folder;
use crate::listing::Listing;
use crate::missing;
use crate::outcome::{Outcome, errno, slow_path};
use crate::real::{self, Callback};
use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use libc::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, DIR, size_t, ssize_t};
use ossc_cache::cpath::CPath;
use ossc_cache::sys::{self, Errno, Result};

hooks! {
    fn opendir(path: *const c_char) -> *mut DIR { listed(by_name::until_listed(AT_FDCWD, path, || real::opendir(path), |dir| dir.is_null())) }
    fn fdopendir(fd: c_int) -> *mut DIR { if is_known(fd) { real::fdopendir(fd) } else { unknown() } }
    fn getdents64(fd: c_int, out: *mut c_void, room: size_t) -> ssize_t { entries_of(fd, || real::getdents64(fd, out, room)) }
    fn scandir(path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int { scanned(AT_FDCWD, path, || real::scandir(path, list, filter, order)) }
    fn scandir64(path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int { scanned(AT_FDCWD, path, || real::scandir64(path, list, filter, order)) }
    fn scandirat(dir: c_int, path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int { scanned(dir, path, || real::scandirat(dir, path, list, filter, order)) }
    fn scandirat64(dir: c_int, path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int { scanned(dir, path, || real::scandirat64(dir, path, list, filter, order)) }
    fn glob(pattern: *const c_char, flags: c_int, failed: Callback, out: *mut c_void) -> c_int { matched(flags, out, |flags| real::glob(pattern, flags, failed, out)) }
    fn glob64(pattern: *const c_char, flags: c_int, failed: Callback, out: *mut c_void) -> c_int { matched(flags, out, |flags| real::glob64(pattern, flags, failed, out)) }
    fn wordexp(words: *const c_char, out: *mut c_void, flags: c_int) -> c_int { list_pattern(words); real::wordexp(words, out, flags) }
}

/// The same by their numbers in `syscall()`.
#[inline]
pub(super) fn by_number(number: c_long, all: Arguments) -> Option<c_long> {
    let entries = || entries_of(all[0] as c_int, || real::by_number(number, all) as ssize_t) as c_long;
    matches!(number, libc::SYS_getdents64 | libc::SYS_getdents).then(entries)
}

/// The folder may have been opened past the hooks, by the program's parent for example.
fn entries_of(fd: c_int, call: impl FnOnce() -> ssize_t) -> ssize_t {
    if is_known(fd) { call() } else { Outcome::Failed(Errno(libc::EIO)).answer(-1, || -1) }
}

/// A stream over a folder reads at its first `readdir`, so listing now is early enough.
fn listed(dir: *mut DIR) -> *mut DIR {
    // SAFETY: an open folder stream, given by the real call.
    if dir.is_null() || is_known(unsafe { libc::dirfd(dir) }) {
        return dir;
    }
    // SAFETY: the stream is not given out; closing it closes its descriptor.
    unsafe { libc::closedir(dir) };
    unknown()
}

/// False for a folder of ours that cannot be listed; otherwise it is listed now.
fn is_known(fd: c_int) -> bool {
    let known = slow_path(|| match sys::file_id(fd) {
        Ok(id) if id.is_folder() => Outcome::Served(folder::opened(&id, fd)),
        _ => Outcome::Pass,
    });
    !matches!(known, Outcome::Served(false))
}

fn unknown() -> *mut DIR {
    Outcome::Failed(Errno(libc::EIO)).answer(core::ptr::null_mut(), core::ptr::null_mut)
}

fn scanned(dir: c_int, path: *const c_char, call: impl FnOnce() -> c_int) -> c_int {
    if let Err(errno) = list_tree(dir, path, 0, 0) { Outcome::Failed(errno).answer(-1, || -1) } else { call() }
}

/// glibc's `glob_t` (glob.h; `glob64_t` is the same on x86-64).
#[repr(C)]
struct Matches {
    count: usize,
    paths: *mut *mut c_char,
    skipped: usize,
    flags: c_int,
    calls: Calls,
}

/// What `glob` reads folders with where GLOB_ALTDIRFUNC is among its flags.
#[repr(C)]
#[derive(Clone, Copy)]
struct Calls {
    closedir: Callback,
    readdir: Callback,
    opendir: Callback,
    lstat: Callback,
    stat: Callback,
}

/// `glob` reads folders by the hooks, so it lists what it reads, no more, and takes one that cannot be listed for one that
/// cannot be read: it tells the program's error function.
fn matched(flags: c_int, out: *mut c_void, call: impl FnOnce(c_int) -> c_int) -> c_int {
    let found = out.cast::<Matches>();
    if found.is_null() || flags & libc::GLOB_ALTDIRFUNC != 0 {
        return call(flags);
    }
    let ours = Calls {
        closedir: libc::closedir as *const c_void,
        readdir: libc::readdir64 as *const c_void,
        opendir: opendir as *const c_void,
        lstat: stat::lstat as *const c_void,
        stat: stat::stat as *const c_void,
    };
    // SAFETY: the program gives a `glob_t` to be written, which has room for these; without the flag they mean nothing,
    // and any value of a pointer may be copied.
    let before = unsafe { (&raw mut (*found).calls).replace(ours) };
    let got = call(flags | libc::GLOB_ALTDIRFUNC);
    // SAFETY: as above.
    unsafe {
        (*found).calls = before;
        (*found).flags &= !libc::GLOB_ALTDIRFUNC;
    }
    got
}

/// What came of listing a folder.
enum Looked {
    Ours,
    NotOurs,
    /// It is ours, and what lies in it is not known.
    Unlisted,
}

fn list(fd: c_int) -> Looked {
    match sys::file_id(fd) {
        Ok(id) if id.is_folder() && !folder::opened(&id, fd) => Looked::Unlisted,
        Ok(id) if id.is_folder() && folder::is_folder_of_ours(&id) => Looked::Ours,
        _ => Looked::NotOurs,
    }
}

/// Folders below folders that one walk lists; deeper ones are listed when they are opened.
pub(super) const DEPTH_MAX: u32 = 16;
/// Entries are read in pieces of this many bytes: 16 levels of it fit small stacks.
const ENTRIES_BYTES: usize = 1024;
const FOLDER: c_int = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC | libc::O_NONBLOCK;

/// Lists a folder of ours, and those below it to `depth`. `flags` is AT_SYMLINK_NOFOLLOW where the call does not follow a
/// link.
///
/// # Errors
/// One of them could not be listed (EIO), or looked at for want of a descriptor; the others were.
pub(super) fn list_tree(dir: c_int, path: *const c_char, depth: u32, flags: c_int) -> Result<()> {
    let how = FOLDER | if flags & AT_SYMLINK_NOFOLLOW != 0 { libc::O_NOFOLLOW } else { 0 };
    let listed = slow_path(|| {
        let all = [dir as usize, path as usize, how as usize, 0, 0, 0];
        // Not the C library's: that is a cancellation point, what is hooked here is none, and no cancelled thread
        // may unwind through `slow_path`.
        let open = || real::in_c(real::kernel(libc::SYS_openat, all)) as c_int;
        let fd = by_name::until_listed(dir, path, open, |fd| *fd < 0);
        if fd < 0 {
            return unopened(dir, path, flags, Errno(errno())).into();
        }
        let listed = walk(fd, depth);
        let _ = sys::close(fd);
        listed.into()
    });
    if let Outcome::Failed(errno) = listed { Err(errno) } else { Ok(()) }
}

/// A folder could not be opened: one on the way there could not be listed, or there is no descriptor to look at one of ours.
fn unopened(dir: c_int, path: *const c_char, flags: c_int, errno: Errno) -> Result<()> {
    let is_folder = || real::stat_at(dir, path, flags).is_ok_and(|st| st.st_mode & libc::S_IFMT == libc::S_IFDIR);
    let is_ours = || {
        // SAFETY: the kernel has just read this path.
        let path = unsafe { CStr::from_ptr(path) };
        missing::unseen(dir, path.to_bytes(), errno) == Listing::NoDescriptor
    };
    if errno.0 == libc::EIO || missing::is_want(errno) && is_folder() && is_ours() { Err(errno) } else { Ok(()) }
}

fn walk(fd: c_int, depth: u32) -> Result<()> {
    match list(fd) {
        Looked::Ours if depth > 0 => {}
        Looked::Unlisted => return Err(Errno(libc::EIO)),
        _ => return Ok(()),
    }
    let (mut buffer, mut all) = ([0u8; ENTRIES_BYTES], Ok(()));
    while let Ok(filled @ 1..) = real::entries(fd, &mut buffer) {
        let mut rest = &buffer[..filled];
        while let Some((name, is_folder, next)) = entry(rest) {
            if is_folder && !matches!(name.to_bytes(), b"." | b"..") {
                let listed = match sys::openat(fd, name, FOLDER | libc::O_NOFOLLOW, 0) {
                    Ok(below) => {
                        let listed = walk(below, depth - 1);
                        let _ = sys::close(below);
                        listed
                    }
                    Err(errno) if missing::is_want(errno) => Err(errno),
                    Err(_) => Ok(()),
                };
                all = all.and(listed);
            }
            rest = next;
        }
    }
    all
}

/// The first `linux_dirent64` of the bytes: its name, whether it is a folder, and the bytes after it.
fn entry(bytes: &[u8]) -> Option<(&CStr, bool, &[u8])> {
    const LEN_AT: usize = 16;
    const TYPE_AT: usize = 18;
    const NAME_AT: usize = 19;
    let len = usize::from(u16::from_ne_bytes([*bytes.get(LEN_AT)?, *bytes.get(LEN_AT + 1)?]));
    let this = bytes.get(..len)?;
    let name = CStr::from_bytes_until_nul(this.get(NAME_AT..)?).ok()?;
    let kind = *this.get(TYPE_AT)?;
    Some((name, kind == libc::DT_DIR || kind == libc::DT_UNKNOWN, &bytes[len..]))
}

/// `wordexp`: the folder before the first wildcard, and as many levels below it as the pattern has. It leaves out what
/// cannot be read.
fn list_pattern(pattern: *const c_char) {
    if pattern.is_null() {
        return;
    }
    // SAFETY: `wordexp` reads the same string.
    let pattern = unsafe { CStr::from_ptr(pattern) }.to_bytes();
    let wild = pattern.iter().position(|byte| b"*?[{\\~".contains(byte)).unwrap_or(pattern.len());
    let cut = pattern[..wild].iter().rposition(|byte| *byte == b'/');
    let depth = pattern[wild..].iter().filter(|byte| **byte == b'/').count() as u32;
    let start = match cut {
        Some(0) => CPath::from(b"/"),
        Some(cut) => CPath::from(&pattern[..cut]),
        None => CPath::from(b"."),
    };
    if let Some(start) = start.as_cstr() {
        let _ = list_tree(AT_FDCWD, start.as_ptr(), depth.min(DEPTH_MAX), 0);
    }
}
