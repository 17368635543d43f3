//! Which descriptors and paths are files of ours, decided by what the kernel says they are.
//!
//! Called by the hooks after (for maps and writes: before) the real call. What is remembered of a descriptor's number
//! saves one `fstat` per write, or the search per read, and is never trusted for more: reads ask again whenever the kernel
//! says end-of-file, so what became stale costs a check and never an answer. No path is parsed here.

use crate::attach;
use crate::failed;
use crate::handle::{GONE, Handle};
use crate::identity::{self, Met, Real};
use crate::log;
use crate::marks::{self, Mark};
use crate::model_dir;
use crate::numbers;
use crate::outcome::Outcome;
use crate::real;
use crate::seen::Seen;
use core::ffi::{CStr, c_char, c_int};
use ossc_cache::region::Identity;
use ossc_cache::sys::{self, Errno, FileId};

/// The part of a `stat` that identity is about.
pub(crate) fn id_of(st: &libc::stat) -> FileId {
    FileId::from(st)
}

/// What a descriptor is, if it is ours.
pub(crate) fn of_descriptor(fd: c_int) -> Outcome<Seen> {
    match sys::file_id(fd) {
        Ok(id) => of_id(&id, fd),
        Err(_) => Outcome::Pass,
    }
}

/// The same, but only for a large object's placeholder. ESTALE for a small object's stand-in, see `stale`.
pub(crate) fn placeholder(fd: c_int) -> Outcome<Seen> {
    of_descriptor(fd).then(|seen| match seen {
        _ if seen.is_placeholder() => Outcome::Served(seen),
        _ if seen.is_coming() => stale(&seen),
        _ => Outcome::Pass,
    })
}

/// What a descriptor gives of the empty file that stands in for a small object on its way. It was opened past this
/// library's `open`, which waits, and the bytes come into another file.
pub(crate) fn stale<T>(seen: &Seen) -> Outcome<T> {
    let why = b"read of an object that was opened before it was there";
    log::line(why, &seen.handle);
    failed::tell(&seen.handle, GONE, why);
    Outcome::Failed(GONE)
}

/// The placeholder that was read through this number before, if the number still is of it: `of_descriptor` without
/// the search. A process that is not registered (the child of a fork) has to search, and registers by that.
/// ESTALE when no engine has that version any more: it is not looked up again under another one.
pub(crate) fn known(fd: c_int) -> Outcome<Seen> {
    let slot = match marks::of(fd) {
        Mark::Of(slot) if attach::is_attached() => slot,
        Mark::Lost => {
            let is_lost = sys::file_id(fd).is_ok_and(|id| identity::is_lost(&id));
            return if is_lost { Outcome::Failed(Errno(libc::EIO)) } else { Outcome::Pass };
        }
        _ => return Outcome::Pass,
    };
    let (Ok(id), Some(handle)) = (sys::file_id(fd), slot.handle()) else { return Outcome::Pass };
    let object = handle.object;
    // The program may have closed it past this library, and its number have gone to another file.
    if !id.is_empty_file()
        || (id.dev, id.ino) != (object.dev(), object.ino())
        || !identity::has_time_of(object, &id)
            && !identity::is_placeholder_of(object, &id, Met::Descriptor(fd), handle.generation())
    {
        return Outcome::Pass;
    }
    let Some(facts) = handle.facts() else { return Outcome::Failed(GONE) };
    let seen = Seen { handle, identity: Identity::Placeholder, facts, fd };
    if seen.is_placeholder() { Outcome::Served(seen) } else { Outcome::Pass }
}

/// True for a descriptor made with O_PATH, which gives a name and no bytes.
pub(crate) fn is_name_only(fd: c_int) -> bool {
    sys::fcntl(fd, libc::F_GETFL, 0).is_ok_and(|flags| flags as c_int & libc::O_PATH != 0)
}

/// What a path names, if it is ours. `flags` are those of `fstatat`.
pub(crate) fn of_path(dir: c_int, path: *const c_char, flags: c_int) -> Outcome<Seen> {
    match real::stat_at(dir, path, flags) {
        Ok(st) => of_id_at(&id_of(&st), dir, path),
        Err(_) => Outcome::Pass,
    }
}

/// The same when the path's `stat` is known already.
pub(crate) fn of_id_at(id: &FileId, dir: c_int, path: *const c_char) -> Outcome<Seen> {
    look_up(id, met_at(dir, path))
}

fn met_at<'a>(dir: c_int, path: *const c_char) -> Met<'a> {
    // With AT_EMPTY_PATH newer kernels take a null path for an empty one.
    if path.is_null() {
        return Met::Descriptor(dir);
    }
    // SAFETY: the kernel has just read this path and found a file by it, so it is a string.
    let name = unsafe { CStr::from_ptr(path) };
    if name.is_empty() { Met::Descriptor(dir) } else { Met::Path(dir, name) }
}

/// What a path names that is about to be changed, if it is ours. Where no engine can say so, what has no mark is the
/// program's to change.
pub(crate) fn changed(dir: c_int, path: *const c_char, flags: c_int) -> Outcome<Seen> {
    let Ok(st) = real::stat_at(dir, path, flags) else { return Outcome::Pass };
    let id = id_of(&st);
    match of_id_at(&id, dir, path) {
        Outcome::Failed(_) if !identity::stands_in(&id, met_at(dir, path)) => Outcome::Pass,
        seen => seen,
    }
}

/// True for descriptors that the kernel would let write.
pub(crate) fn is_writable(fd: c_int) -> bool {
    sys::fcntl(fd, libc::F_GETFL, 0)
        .is_ok_and(|flags| flags as c_int & libc::O_ACCMODE != libc::O_RDONLY && flags as c_int & libc::O_PATH == 0)
}

/// True for a file that a descriptor may write, and that has no mark: where no engine can say whose it is, it is the
/// program's to write.
pub(crate) fn is_to_write(fd: c_int) -> bool {
    is_writable(fd) && sys::file_id(fd).is_ok_and(|id| !identity::stands_in(&id, Met::Descriptor(fd)))
}

/// The same for a descriptor whose `stat` is known already.
pub(crate) fn of_id(id: &FileId, fd: c_int) -> Outcome<Seen> {
    look_up(id, Met::Descriptor(fd))
}

/// The same for a descriptor that a call by name has just given: `repeats` is how often it was made before.
pub(crate) fn of_opened(id: &FileId, fd: c_int, repeats: u32) -> Outcome<Seen> {
    look_up(id, if repeats == 0 { Met::Opened(fd) } else { Met::Descriptor(fd) })
}

/// The same for a file of which only its `stat` is known.
pub(crate) fn of_status(id: &FileId) -> Outcome<Seen> {
    look_up(id, Met::Status)
}

/// How often a record is looked for that is given up meanwhile: it is not found a second time by the same file.
const LOOKS_MAX: u32 = 3;

fn look_up(id: &FileId, met: Met<'_>) -> Outcome<Seen> {
    if !identity::could_be_ours(id) {
        return Outcome::Pass;
    }
    for _ in 0..LOOKS_MAX {
        let found = match identity::find(id, met) {
            Ok(Some(found)) => found,
            Ok(None) => return Outcome::Pass,
            Err(errno) => return Outcome::Failed(errno),
        };
        // Looked for again where the record was given up between the look and its facts.
        if let Some(facts) = found.handle.facts() {
            return Outcome::Served(Seen {
                handle: found.handle,
                identity: found.identity,
                facts,
                fd: met.descriptor(),
            });
        }
    }
    Outcome::Failed(GONE)
}

/// Whose the real file is that a descriptor is of.
pub(crate) fn real(id: &FileId, fd: c_int) -> Real {
    identity::find_real(id, Met::Descriptor(fd))
}

/// The same for a file that was met by path. A process that has no engine yet asks only files that lie in MODEL_DIR by their
/// name, or by the device of MODEL_DIR.
pub(crate) fn real_at(id: &FileId, dir: c_int, path: *const c_char) -> Real {
    if path.is_null() {
        return real(id, dir);
    }
    // SAFETY: the kernel has just read this path and found a file by it, so it is a string.
    let name = unsafe { CStr::from_ptr(path) };
    let bytes = name.to_bytes();
    let is_near = if bytes.starts_with(b"/") { model_dir::is_inside(bytes) } else { model_dir::is_on_its_device(id) };
    match (bytes.is_empty(), is_near) {
        (true, _) => real(id, dir),
        (_, true) => identity::find_real(id, Met::Path(dir, name)),
        _ => identity::find_real(id, Met::Status),
    }
}

/// EROFS with a log line: the answer to whatever would change an object.
pub(crate) fn refuse<T>(what: &[u8], handle: &Handle) -> Outcome<T> {
    log::line(what, handle);
    Outcome::Failed(Errno(libc::EROFS))
}

/// The placeholder behind a descriptor that is about to be written to.
pub(crate) fn written(fd: c_int) -> Outcome<Seen> {
    let before = numbers::state(fd);
    if fd < 0 || before.is_plain() {
        return Outcome::Pass;
    }
    let Ok(id) = sys::file_id(fd) else { return Outcome::Pass };
    if identity::could_be_ours(&id) {
        return match of_id(&id, fd).filter(Seen::is_placeholder) {
            // No engine can be asked: what has no mark is the program's to write.
            Outcome::Failed(_) if !identity::stands_in(&id, Met::Descriptor(fd)) => Outcome::Pass,
            seen => seen,
        };
    }
    numbers::set_plain(fd, before);
    Outcome::Pass
}

/// True if `is` holds of an open file whose number is below `end`, and of which it was not asked before: what is none of
/// ours is remembered until its number is closed.
pub(crate) fn any_new(end: c_int, is: impl Fn(c_int, &FileId) -> bool) -> bool {
    for fd in 0..end.min(numbers::COUNT as c_int) {
        let before = numbers::state(fd);
        if before.is_plain() {
            continue;
        }
        let Ok(id) = sys::file_id(fd) else { continue };
        if is(fd, &id) {
            return true;
        }
        if !identity::could_be_ours(&id) {
            numbers::set_plain(fd, before);
        }
    }
    false
}
