//! Folders. Entries are real files, so all that is needed is that a folder is listed before it
//! is read; what the C library walks inside itself (glob, nftw, fts) is listed ahead, as deep as it goes. A folder that
//! cannot be listed is one that cannot be read, never an empty one.

use crate::by_name;
use crate::environ;
use crate::folder;
use crate::outcome::{Outcome, errno, set_errno, slow_path};
use crate::real::{self, Callback};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::transmute;
use libc::{AT_FDCWD, DIR};
use ossc_cache::cpath::CPath;
use ossc_cache::sys::{self, Errno};

hooks! {
    fn opendir(path: *const c_char) -> *mut DIR { listed(by_name::until_listed(AT_FDCWD, path, || real::opendir(path), |dir| dir.is_null())) }
    fn fdopendir(fd: c_int) -> *mut DIR { listed(real::fdopendir(fd)) }
    fn scandir(path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int { scanned(AT_FDCWD, path, || real::scandir(path, list, filter, order)) }
    fn scandir64(path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int { scanned(AT_FDCWD, path, || real::scandir64(path, list, filter, order)) }
    fn scandirat(dir: c_int, path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int { scanned(dir, path, || real::scandirat(dir, path, list, filter, order)) }
    fn scandirat64(dir: c_int, path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int { scanned(dir, path, || real::scandirat64(dir, path, list, filter, order)) }
    fn glob(pattern: *const c_char, flags: c_int, failed: Callback, out: *mut c_void) -> c_int { matched(pattern, flags, failed, || real::glob(pattern, flags, failed, out)) }
    fn wordexp(words: *const c_char, out: *mut c_void, flags: c_int) -> c_int { list_pattern(words, &mut CPath::default()); real::wordexp(words, out, flags) }
    fn glob64(pattern: *const c_char, flags: c_int, failed: Callback, out: *mut c_void) -> c_int { matched(pattern, flags, failed, || real::glob64(pattern, flags, failed, out)) }
}

/// A stream over a folder reads at its first `readdir`, so listing now is early enough.
fn listed(dir: *mut DIR) -> *mut DIR {
    if !dir.is_null() {
        // SAFETY: an open folder stream, given by the real call.
        let fd = unsafe { libc::dirfd(dir) };
        let known = slow_path(|| match sys::file_id(fd) {
            Ok(id) if id.is_folder() => Outcome::Served(folder::opened(&id, fd)),
            _ => Outcome::Pass,
        });
        if let Outcome::Served(false) = known {
            // SAFETY: the stream is not given out; closing it closes its descriptor.
            unsafe { libc::closedir(dir) };
            return Outcome::Failed(Errno(libc::EIO)).answer(core::ptr::null_mut(), core::ptr::null_mut);
        }
    }
    dir
}

fn scanned(dir: c_int, path: *const c_char, call: impl FnOnce() -> c_int) -> c_int {
    if list_tree(dir, path, 0) { call() } else { Outcome::Failed(Errno(libc::EIO)).answer(-1, || -1) }
}

/// What the program gives `glob` to hear of folders that cannot be read: path and errno. It ends the call where it says so.
type ErrorHandler = extern "C-unwind" fn(*const c_char, c_int) -> c_int;

/// `glob` leaves out folders that cannot be read, unless the program says otherwise. So it does those of ours that could
/// not be listed: the program hears of the first one.
fn matched(pattern: *const c_char, flags: c_int, failed: Callback, call: impl FnOnce() -> c_int) -> c_int {
    let mut path = CPath::default();
    if list_pattern(pattern, &mut path) {
        return call();
    }
    let ends = match path.as_cstr().filter(|path| !failed.is_null() && !path.is_empty()) {
        // SAFETY: the program's function, of the type that `glob` calls; it may do what it likes, as inside `glob`.
        Some(path) => (unsafe { transmute::<Callback, ErrorHandler>(failed) })(path.as_ptr(), libc::EIO) != 0,
        None => false,
    };
    if ends || flags & libc::GLOB_ERR != 0 {
        set_errno(libc::EIO);
        return libc::GLOB_ABORTED;
    }
    call()
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

/// Lists a folder of ours, and those below it to `depth`. False if one of them could not be listed; the others were.
pub(super) fn list_tree(dir: c_int, path: *const c_char, depth: u32) -> bool {
    list_tree_or_tell(dir, path, depth, &mut |_| {})
}

/// The same; `unlisted` is given each folder that could not be listed.
fn list_tree_or_tell(dir: c_int, path: *const c_char, depth: u32, unlisted: &mut dyn FnMut(c_int)) -> bool {
    let mut are_listed = true;
    let _ = slow_path(|| {
        let all = [dir as usize, path as usize, FOLDER as usize, 0, 0, 0];
        // Not the C library's: that is a cancellation point, what is hooked here is none, and no cancelled thread
        // may unwind through `slow_path`.
        let open = || real::in_c(real::kernel(libc::SYS_openat, all)) as c_int;
        let fd = by_name::until_listed(dir, path, open, |fd| *fd < 0);
        if fd >= 0 {
            walk(fd, depth, &mut |fd| {
                are_listed = false;
                unlisted(fd);
            });
            let _ = sys::close(fd);
        }
        // One on the way there could not be listed.
        are_listed &= fd >= 0 || errno() != libc::EIO;
        Outcome::<()>::Pass
    });
    are_listed
}

fn walk(fd: c_int, depth: u32, unlisted: &mut dyn FnMut(c_int)) {
    match list(fd) {
        Looked::Ours if depth > 0 => {}
        Looked::Unlisted => return unlisted(fd),
        _ => return,
    }
    let mut buffer = [0u8; ENTRIES_BYTES];
    while let Ok(filled @ 1..) = real::entries(fd, &mut buffer) {
        let mut rest = &buffer[..filled];
        while let Some((name, is_folder, next)) = entry(rest) {
            if is_folder
                && !matches!(name.to_bytes(), b"." | b"..")
                && let Ok(below) = sys::openat(fd, name, FOLDER | libc::O_NOFOLLOW, 0)
            {
                walk(below, depth - 1, unlisted);
                let _ = sys::close(below);
            }
            rest = next;
        }
    }
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

/// `glob`: the folder before the first wildcard, and as many levels below it as the pattern has. False if one of them
/// could not be listed: `unlisted` is the path of the first.
fn list_pattern(pattern: *const c_char, unlisted: &mut CPath) -> bool {
    if pattern.is_null() {
        return true;
    }
    // SAFETY: `glob` reads the same string.
    let pattern = unsafe { CStr::from_ptr(pattern) }.to_bytes();
    let wild = pattern.iter().position(|byte| b"*?[{\\~".contains(byte)).unwrap_or(pattern.len());
    let cut = pattern[..wild].iter().rposition(|byte| *byte == b'/');
    let depth = pattern[wild..].iter().filter(|byte| **byte == b'/').count() as u32;
    let start = match cut {
        Some(0) => CPath::from(b"/"),
        Some(cut) => CPath::from(&pattern[..cut]),
        None => CPath::from(b"."),
    };
    let Some(start) = start.as_cstr() else { return true };
    list_tree_or_tell(AT_FDCWD, start.as_ptr(), depth.min(DEPTH_MAX), &mut |fd| {
        if unlisted.as_bytes().is_empty()
            && let Some(path) = environ::descriptor_path(fd)
        {
            *unlisted = path;
        }
    })
}
