//! Folders. Entries are real files, so all that is needed is that a folder is listed before it
//! is read; what the C library walks inside itself (glob, nftw, fts) is listed ahead, as deep as it goes.

use crate::by_name;
use crate::folder;
use crate::outcome::{Outcome, slow_path};
use crate::real::{self, Callback};
use core::ffi::{CStr, c_char, c_int, c_void};
use libc::{AT_FDCWD, DIR};
use ossc_cache::cpath::CPath;
use ossc_cache::sys::{self, Errno};

hooks! {
    fn opendir(path: *const c_char) -> *mut DIR { listed(by_name::until_listed(AT_FDCWD, path, || real::opendir(path), |dir| dir.is_null())) }
    fn fdopendir(fd: c_int) -> *mut DIR { listed(real::fdopendir(fd)) }
    fn scandir(path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int { list_tree(AT_FDCWD, path, 0); real::scandir(path, list, filter, order) }
    fn scandir64(path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int { list_tree(AT_FDCWD, path, 0); real::scandir64(path, list, filter, order) }
    fn scandirat(dir: c_int, path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int { list_tree(dir, path, 0); real::scandirat(dir, path, list, filter, order) }
    fn scandirat64(dir: c_int, path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int { list_tree(dir, path, 0); real::scandirat64(dir, path, list, filter, order) }
    fn glob(pattern: *const c_char, flags: c_int, failed: Callback, out: *mut c_void) -> c_int { list_pattern(pattern); real::glob(pattern, flags, failed, out) }
    fn wordexp(words: *const c_char, out: *mut c_void, flags: c_int) -> c_int { list_pattern(words); real::wordexp(words, out, flags) }
    fn glob64(pattern: *const c_char, flags: c_int, failed: Callback, out: *mut c_void) -> c_int { list_pattern(pattern); real::glob64(pattern, flags, failed, out) }
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

/// Lists a folder of ours; true if it is one.
fn list(fd: c_int) -> bool {
    let Ok(id) = sys::file_id(fd) else { return false };
    if !id.is_folder() {
        return false;
    }
    let _ = folder::opened(&id, fd);
    folder::is_folder_of_ours(&id)
}

/// Folders below folders that one walk lists; deeper ones are listed when they are opened.
pub(super) const DEPTH_MAX: u32 = 16;
/// Entries are read in pieces of this many bytes: 16 levels of it fit small stacks.
const ENTRIES_BYTES: usize = 1024;
const FOLDER: c_int = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC | libc::O_NONBLOCK;

/// Lists a folder of ours, and those below it to `depth`.
pub(super) fn list_tree(dir: c_int, path: *const c_char, depth: u32) {
    let _ = slow_path(|| {
        let all = [dir as usize, path as usize, FOLDER as usize, 0, 0, 0];
        // Not the C library's: that is a cancellation point, what is hooked here is none, and no cancelled thread
        // may unwind through `slow_path`.
        let open = || real::in_c(real::kernel(libc::SYS_openat, all)) as c_int;
        let fd = by_name::until_listed(dir, path, open, |fd| *fd < 0);
        if fd >= 0 {
            walk(fd, depth);
            let _ = sys::close(fd);
        }
        Outcome::<()>::Pass
    });
}

fn walk(fd: c_int, depth: u32) {
    if !list(fd) || depth == 0 {
        return;
    }
    let mut buffer = [0u8; ENTRIES_BYTES];
    while let Ok(filled @ 1..) = real::entries(fd, &mut buffer) {
        let mut rest = &buffer[..filled];
        while let Some((name, is_folder, next)) = entry(rest) {
            if is_folder
                && !matches!(name.to_bytes(), b"." | b"..")
                && let Ok(below) = sys::openat(fd, name, FOLDER | libc::O_NOFOLLOW, 0)
            {
                walk(below, depth - 1);
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

/// `glob`: the folder before the first wildcard, and as many levels below it as the pattern has.
fn list_pattern(pattern: *const c_char) {
    if pattern.is_null() {
        return;
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
    if let Some(start) = start.as_cstr() {
        list_tree(AT_FDCWD, start.as_ptr(), depth.min(DEPTH_MAX));
    }
}
