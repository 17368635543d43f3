//! A path that led nowhere: which folder of ours its name would lie in, and whether that folder still has to be
//! listed.
//!
//! Called by `by_name::until_listed` after a call by path ended in ENOENT, and before calls that make a name. It walks
//! the path as the kernel does, symbolic links included, up to the last folder that exists, and decides nothing
//! about files. It allocates nothing and follows at most as many links as the kernel.

use crate::environ;
use crate::folder;
use crate::listing::{self, Listing};
use crate::model_dir;
use core::ffi::{CStr, c_char};
use ossc_cache::cpath::{CAPACITY, CPath};
use ossc_cache::sys::{self, AT_FDCWD, Errno, FileId, Result};

/// Symbolic links that the kernel follows in one path (path_resolution(7)).
const LINKS_MAX: u32 = 40;
const FOLDER: i32 = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;

/// Lists the folder that the path's missing name would lie in, if that is an unlisted one of ours. Each listing may
/// make the next folder of the path appear: the caller repeats its call, and asks again.
pub(crate) fn list_for(dir: i32, path: *const c_char) -> Listing {
    if path.is_null() {
        return Listing::Needless;
    }
    // SAFETY: the kernel has just read this path and answered ENOENT (or has found a link), so it is a string.
    let path = unsafe { CStr::from_ptr(path) };
    // Where all folders are listed the name may still be new in one whose listing is old. Names from elsewhere that lead
    // there find it when something else of the folder is used.
    let is_elsewhere = || path.to_bytes().starts_with(b"/") && !model_dir::is_inside(path.to_bytes());
    if path.is_empty() || listing::knows_all_folders() && is_elsewhere() {
        return Listing::Needless;
    }
    // Mostly the folder is there and the name is not.
    let bytes = path.to_bytes();
    let (upper, _) = split_last(bytes);
    match open_folder(dir, upper) {
        Ok(folder) => {
            let listing = list_and_close(folder);
            if listing == Listing::Needless && is_link(dir, path) { walk(dir, bytes) } else { listing }
        }
        Err(Errno(libc::ENOENT)) => walk(dir, bytes),
        Err(errno) => unseen(dir, bytes, errno),
    }
}

/// Lists a folder, given by its absolute path, if it is an unlisted one of ours.
pub(crate) fn list_folder(path: &[u8]) -> Listing {
    match open_folder(AT_FDCWD, path) {
        Ok(folder) => list_and_close(folder),
        Err(errno) if is_want(errno) => Listing::NoDescriptor,
        Err(_) => Listing::Needless,
    }
}

/// Has a folder, given by its absolute path, as a program finds it that reads it: with the small objects in it.
pub(crate) fn enter_folder(path: &[u8]) {
    if let Ok(folder) = open_folder(AT_FDCWD, path) {
        let _ = sys::file_id(folder).map(|id| folder::opened(&id, folder));
        let _ = sys::close(folder);
    }
}

/// True for a folder, given by its absolute path, of which the engine has to be asked whether it is one of ours.
pub(crate) fn may_be_ours(path: &[u8]) -> bool {
    let Ok(folder) = open_folder(AT_FDCWD, path) else { return false };
    let may = sys::file_id(folder).is_ok_and(|id| folder::may_be_ours(&id, folder));
    let _ = sys::close(folder);
    may
}

/// A folder could not be looked at. Where that is for want of a descriptor, its name says whether it may be one of ours.
pub(crate) fn unseen(dir: i32, path: &[u8], errno: Errno) -> Listing {
    if !is_want(errno) || listing::knows_all_folders() {
        return Listing::Needless;
    }
    let is_inside = match dir {
        _ if path.starts_with(b"/") => model_dir::is_inside(path),
        AT_FDCWD => model_dir::is_inside(environ::below_working_folder(path).as_bytes()),
        _ => environ::descriptor_path(dir).is_some_and(|folder| model_dir::is_inside(folder.as_bytes())),
    };
    if is_inside { Listing::NoDescriptor } else { Listing::Needless }
}

/// There was no descriptor or memory to look with.
pub(crate) fn is_want(errno: Errno) -> bool {
    matches!(errno.0, libc::EMFILE | libc::ENFILE | libc::ENOMEM)
}

/// Folder and last name of a path; slashes at its end do not count.
fn split_last(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    match path[..end].iter().rposition(|byte| *byte == b'/') {
        Some(0) => (b"/", &path[1..end]),
        Some(cut) => (&path[..cut], &path[cut + 1..end]),
        None if end == 0 => (b"/", b""),
        None => (b".", &path[..end]),
    }
}

fn open_folder(dir: i32, path: &[u8]) -> Result<i32> {
    let path = CPath::from(path);
    sys::openat(dir, path.as_cstr().ok_or(Errno(libc::ENAMETOOLONG))?, FOLDER, 0)
}

fn is_link(dir: i32, path: &CStr) -> bool {
    sys::readlink(dir, path, &mut [0u8; 1]).is_ok()
}

fn list_and_close(folder: i32) -> Listing {
    let listing = sys::file_id(folder).map_or(Listing::Needless, |id: FileId| folder::list_if_ours(&id, folder));
    let _ = sys::close(folder);
    listing
}

/// What is left of a path, at the end of the buffer: a link's target goes before it.
struct Rest {
    bytes: [u8; CAPACITY],
    start: usize,
}

impl Rest {
    fn new(path: &[u8]) -> Option<Rest> {
        let mut rest = Rest { bytes: [0; CAPACITY], start: CAPACITY };
        rest.put_before(path).then_some(rest)
    }

    fn put_before(&mut self, path: &[u8]) -> bool {
        let Some(start) = self.start.checked_sub(path.len() + 1) else { return false };
        self.bytes[start..start + path.len()].copy_from_slice(path);
        self.bytes[start + path.len()] = b'/';
        self.start = start;
        true
    }

    fn is_absolute(&self) -> bool {
        self.bytes.get(self.start) == Some(&b'/')
    }

    /// The next name, with a NUL in the place of its slash; `None` at the end.
    fn next_name(&mut self) -> Option<&CStr> {
        while self.bytes.get(self.start) == Some(&b'/') {
            self.start += 1;
        }
        let len = self.bytes.get(self.start..)?.iter().position(|byte| *byte == b'/')?;
        let from = self.start;
        self.start += len + 1;
        self.bytes[from + len] = 0;
        CStr::from_bytes_with_nul(&self.bytes[from..from + len + 1]).ok()
    }
}

/// Goes down name by name; lists the last folder that is there.
fn walk(dir: i32, path: &[u8]) -> Listing {
    let Some(mut rest) = Rest::new(path) else { return Listing::Needless };
    let (mut links, mut target) = (0, [0u8; CAPACITY]);
    let start = if rest.is_absolute() { open_folder(AT_FDCWD, b"/") } else { open_folder(dir, b".") };
    let mut at = match start {
        Ok(at) => at,
        Err(errno) => return unseen(dir, path, errno),
    };
    loop {
        let step = match rest.next_name() {
            Some(name) => down(at, name, &mut target),
            // It is there by now.
            None => Step::End,
        };
        match step {
            Step::Into(next) => {
                let _ = sys::close(at);
                at = next;
            }
            Step::Link(len) if links < LINKS_MAX && rest.put_before(&target[..len]) => {
                links += 1;
                if target[0] == b'/' {
                    let _ = sys::close(at);
                    let Ok(root) = open_folder(AT_FDCWD, b"/") else { return Listing::Needless };
                    at = root;
                }
            }
            Step::Absent => return list_and_close(at),
            Step::Unseen(errno) => {
                let _ = sys::close(at);
                return unseen(dir, path, errno);
            }
            Step::End | Step::Link(_) => {
                let _ = sys::close(at);
                return Listing::Needless;
            }
        }
    }
}

enum Step {
    /// A folder, opened.
    Into(i32),
    /// A link that leads nowhere: length of its target.
    Link(usize),
    /// There is no such name.
    Absent,
    /// It could not be looked at.
    Unseen(Errno),
    /// Something else.
    End,
}

fn down(at: i32, name: &CStr, target: &mut [u8; CAPACITY]) -> Step {
    match sys::openat(at, name, FOLDER, 0) {
        Ok(next) => return Step::Into(next),
        Err(Errno(libc::ENOENT)) => {}
        Err(errno) if is_want(errno) => return Step::Unseen(errno),
        Err(_) => return Step::End,
    }
    match sys::readlink(at, name, target) {
        Ok(len) if len > 0 && len < CAPACITY => Step::Link(len),
        Err(Errno(libc::ENOENT)) => Step::Absent,
        _ => Step::End,
    }
}
