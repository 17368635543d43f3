//! Which descriptors and paths are files of ours, decided by what the kernel says they are.
//!
//! Called by the hooks after (for maps and writes: before) the real call. A descriptor's remembered state
//! saves one `fstat` per write and is never trusted for more: reads ask again whenever the kernel says
//! end-of-file, so a state that became stale costs a check and never an answer. No path is parsed here.

use crate::attach;
use crate::handle::{Facts, GONE, Handle, Slot};
use crate::identity::{self, Met, Real};
use crate::kept;
use crate::listing::{self, Listing};
use crate::log;
use crate::missing;
use crate::model_dir;
use crate::outcome::{Outcome, ask, errno, set_errno};
use crate::process;
use crate::real;
use crate::session;
use crate::taken;
use crate::waiting;
use core::ffi::{CStr, c_char, c_int};
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicUsize, Ordering::Relaxed};
use ossc_cache::region::Identity;
use ossc_cache::sys::{self, Errno, FileId};

/// A file of ours, as it was just found.
pub(crate) struct Seen {
    /// Whose it is.
    pub handle: Handle,
    /// Which of its files it is.
    pub identity: Identity,
    /// Size and the like.
    pub facts: Facts,
    /// The descriptor that it was found by; -1 for a path.
    pub fd: c_int,
}

impl Seen {
    /// A large object's placeholder: its bytes are elsewhere.
    pub(crate) fn is_placeholder(&self) -> bool {
        self.facts.large && self.identity == Identity::Placeholder
    }

    /// The file that stands in for a small object on its way.
    pub(crate) fn is_coming(&self) -> bool {
        !self.facts.large && self.identity == Identity::Placeholder
    }
}

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

/// The same, but only for a large object's placeholder.
pub(crate) fn placeholder(fd: c_int) -> Outcome<Seen> {
    of_descriptor(fd).filter(Seen::is_placeholder)
}

/// The placeholder that was read through this number before, if the number still is of it: `of_descriptor` without
/// the search. A process that is not registered (the child of a fork) has to search, and registers by that.
/// ESTALE when no engine has that version any more: it is not looked up again under another one.
pub(crate) fn known(fd: c_int) -> Outcome<Seen> {
    let mark = mark_of(fd);
    if mark == LOST {
        let is_lost = sys::file_id(fd).is_ok_and(|id| identity::is_lost(&id));
        return if is_lost { Outcome::Failed(Errno(libc::EIO)) } else { Outcome::Pass };
    }
    if mark == 0 || !attach::is_attached() {
        return Outcome::Pass;
    }
    let (Ok(id), Some(handle)) = (sys::file_id(fd), Slot::from_bits(mark).handle()) else { return Outcome::Pass };
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
    // With AT_EMPTY_PATH newer kernels take a null path for an empty one.
    if path.is_null() {
        return of_id(id, dir);
    }
    // SAFETY: the kernel has just read this path and found a file by it, so it is a string.
    let name = unsafe { CStr::from_ptr(path) };
    if name.is_empty() { of_id(id, dir) } else { look_up(id, Met::Path(dir, name)) }
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

/// Most folders of one path that are listed one after the other.
const FOLDERS_DEEP: usize = 64;

/// A path as the `*at` calls take it.
pub(crate) type Named = (c_int, *const c_char);

/// Makes a call by path; while it ends in ENOENT and a folder was listed for it or meanwhile, makes it again.
pub(crate) fn until_listed<T>(dir: c_int, path: *const c_char, call: impl Fn() -> T, failed: impl Fn(&T) -> bool) -> T {
    until_all_listed(&[(dir, path)], call, failed)
}

/// The same for a call that takes several paths.
pub(crate) fn until_all_listed<T>(paths: &[Named], call: impl Fn() -> T, failed: impl Fn(&T) -> bool) -> T {
    let before = errno();
    let listings = listing::count();
    let mut got = call();
    if failed(&got) && errno() == libc::ENOENT {
        list_and_repeat(paths, before, listings, &mut || {
            got = call();
            failed(&got) && errno() == libc::ENOENT
        });
    }
    got
}

/// The part of it that is the same for all calls: `again` makes the call, and is true while it ends in ENOENT.
#[cold]
#[inline(never)]
fn list_and_repeat(paths: &[Named], before: c_int, mut listings: u64, again: &mut dyn FnMut() -> bool) {
    for _ in 0..FOLDERS_DEEP {
        let listing = paths.iter().fold(Listing::Needless, |so_far, (dir, path)| match so_far {
            Listing::Needless => listing_for(*dir, *path),
            _ => so_far,
        });
        if listing != Listing::Done && listing::count() == listings {
            // What may lie in a folder that could not be listed is not absent.
            return set_errno(match listing {
                Listing::Failed => libc::EIO,
                Listing::NoDescriptor => libc::EMFILE,
                _ => libc::ENOENT,
            });
        }
        set_errno(before);
        listings = listing::count();
        if !again() {
            return;
        }
    }
}

/// A name is about to be made: the folder that it will lie in is listed first, so that what is in the bucket is in
/// the way as it would be in a local folder. What cannot be listed is left to the call itself.
pub(crate) fn list_for_new(dir: c_int, path: *const c_char) {
    if listing::knows_all_folders() {
        return;
    }
    let mut listings = listing::count();
    for _ in 0..FOLDERS_DEEP {
        let mut target = [0u8; 1];
        let arguments = [dir as usize, path as usize, target.as_mut_ptr() as usize, target.len(), 0, 0];
        // Not there, or a link, perhaps to nothing; the kernel has read the path in both cases.
        match real::kernel(libc::SYS_readlinkat, arguments) {
            Ok(_) | Err(Errno(libc::ENOENT)) => {}
            Err(_) => return,
        }
        if listing_for(dir, path) != Listing::Done && listing::count() == listings {
            return;
        }
        listings = listing::count();
    }
}

/// What is about to be done to the file at this name must not be done to the empty one that stands in for a small
/// object on its way: waits for the object. `flags` is AT_SYMLINK_NOFOLLOW for calls that do not follow a link: what it
/// leads to may be a mount that does not answer.
pub(crate) fn settle(dir: c_int, path: *const c_char, flags: c_int) {
    let before = errno();
    let _ = ask(|| of_path(dir, path, flags).filter(Seen::is_coming).then(|seen| waiting::placed(&seen.handle).into()));
    set_errno(before);
}

/// Makes sure that what a path leads through is listed, and waits for a small object at its end, for calls that go on
/// inside the C library or the kernel.
pub(crate) fn reach(dir: c_int, path: *const c_char) {
    let arguments = [dir as usize, path as usize, libc::F_OK as usize, 0, 0, 0];
    let before = errno();
    let got = until_listed(dir, path, || real::in_c(real::kernel(libc::SYS_faccessat, arguments)), |got| *got < 0);
    if got >= 0 {
        settle(dir, path, 0);
    }
    let _ = ask(|| {
        let id = real::stat_at(dir, path, 0).map(|st| id_of(&st));
        // A script or library that is a real file of ours: its folder's listing is to be new enough.
        if let Ok(id) = id
            && id.is_file()
            && let Real::Of(handle) = real_at(&id, dir, path)
        {
            let _ = session::looked(&handle, 0);
        }
        Outcome::<()>::Pass
    });
    set_errno(before);
}

fn listing_for(dir: c_int, path: *const c_char) -> Listing {
    ask(|| Outcome::Served(missing::list_for(dir, path))).answer(Listing::Failed, || Listing::Needless)
}

/// EROFS with a log line: the answer to whatever would change an object.
pub(crate) fn refuse<T>(what: &[u8], handle: &Handle) -> Outcome<T> {
    log::line(what, handle);
    Outcome::Failed(Errno(libc::EROFS))
}

const NUMBERS: usize = 1 << 16;
/// Set when writes need no check.
const NOT_OURS: u8 = 1;
/// What one reuse of a number adds; the rest of the byte counts them, so that a slow check of the file
/// that had the number before cannot mark the one that has it now.
const REUSE: u8 = 2;

static STATES: [AtomicU8; NUMBERS] = [const { AtomicU8::new(0) }; NUMBERS];
/// Highest number that may have a state.
static HIGHEST: AtomicUsize = AtomicUsize::new(0);
/// Slot of the object that was read through a number; 0 for none, or `LOST`.
static MARKS: [AtomicU32; NUMBERS] = [const { AtomicU32::new(0) }; NUMBERS];

/// The object that was last read through a number. As good as the program's own bookkeeping: a number that
/// was given to another file past this library still has it, so the file is asked what it is.
#[inline(always)]
pub(crate) fn marked(fd: c_int) -> Option<Slot> {
    slot_in(mark_of(fd))
}

#[inline(always)]
fn mark_of(fd: c_int) -> u32 {
    usize::try_from(fd).ok().and_then(|at| MARKS.get(at)).map_or(0, |mark| mark.load(Relaxed))
}

#[inline(always)]
fn slot_in(mark: u32) -> Option<Slot> {
    (mark != 0 && mark != LOST).then_some(Slot::from_bits(mark))
}

/// False where `marked` is `None` and nothing is lost. For two instructions less it is true, too, for numbers beyond the
/// marks that share their low bits with one that has a mark.
#[inline(always)]
pub(crate) fn may_be_marked(fd: c_int) -> bool {
    MARKS[fd as usize % NUMBERS].load(Relaxed) != 0
}

/// The mark of a number whose object's bytes cannot be had (`identity::lose`). No slot: generations count to 126.
const LOST: u32 = u32::MAX;

/// What is read through this number is an error from now on.
pub(crate) fn mark_lost(fd: c_int) {
    if let Some(mark) = usize::try_from(fd).ok().and_then(|at| MARKS.get(at)) {
        HIGHEST.fetch_max(fd as usize, Relaxed);
        mark.store(LOST, Relaxed);
    }
}

/// The object is read through this number: what the client keeps of it stays until the number is gone.
pub(crate) fn mark(fd: c_int, handle: &Handle) {
    let slot = handle.slot.to_bits();
    let Some((at, mark)) = usize::try_from(fd).ok().and_then(|at| Some((at, MARKS.get(at)?))) else { return };
    if mark.load(Relaxed) == slot || !process::is_owner() {
        return;
    }
    HIGHEST.fetch_max(at, Relaxed);
    kept::used_by_one_more(handle);
    session::taken(handle);
    taken::met(handle);
    let Some(before) = slot_in(mark.swap(slot, Relaxed)) else { return };
    let before = before.handle();
    if !before.is_some_and(|before| before.is_same(handle)) {
        STAMPS[at].store(0, Relaxed);
    }
    if let Some(before) = before {
        kept::used_by_one_less(&before);
    }
}

/// What was given through a number before the verdict on its object: see `taken`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// Nothing that this library knows of, and where it comes from is not known either.
    None,
    /// Nothing: this process has opened it.
    Opened,
    /// Bytes, in this epoch of its object.
    Took(u16),
}

/// 0, `OPENED`, or an epoch.
static STAMPS: [AtomicU16; NUMBERS] = [const { AtomicU16::new(0) }; NUMBERS];
const OPENED: u16 = u16::MAX;

/// See `Stamp`.
pub(crate) fn stamp(fd: c_int) -> Stamp {
    match usize::try_from(fd).ok().and_then(|at| STAMPS.get(at)).map_or(0, |stamp| stamp.load(Relaxed)) {
        0 => Stamp::None,
        OPENED => Stamp::Opened,
        epoch => Stamp::Took(epoch),
    }
}

/// See `Stamp`.
pub(crate) fn set_stamp(fd: c_int, stamp: Stamp) {
    let value = match stamp {
        Stamp::None => 0,
        Stamp::Opened => OPENED,
        Stamp::Took(epoch) => epoch,
    };
    let Some((at, place)) = usize::try_from(fd).ok().and_then(|at| Some((at, STAMPS.get(at)?))) else { return };
    if place.load(Relaxed) != value && process::is_owner() {
        HIGHEST.fetch_max(at, Relaxed);
        place.store(value, Relaxed);
    }
}

/// `new` is a duplicate of `fd`.
pub(crate) fn copy_stamp(fd: c_int, new: c_int) {
    if new >= 0 {
        set_stamp(new, stamp(fd));
    }
}

fn unmark(at: usize) {
    if MARKS[at].load(Relaxed) == 0 || !process::is_owner() {
        return;
    }
    let before = slot_in(MARKS[at].swap(0, Relaxed));
    if let Some(before) = before.and_then(Slot::handle) {
        session::let_go(&before);
        kept::used_by_one_less(&before);
    }
}

/// A number was closed, or names another file now.
pub(crate) fn forget(fd: c_int) {
    if let Some(at) = usize::try_from(fd).ok().filter(|at| *at < NUMBERS) {
        unmark(at);
        set_stamp(fd, Stamp::None);
    }
    if let Some(state) = usize::try_from(fd).ok().and_then(|at| STATES.get(at)) {
        let seen = state.load(Relaxed);
        if seen & NOT_OURS != 0 {
            state.store((seen & !NOT_OURS).wrapping_add(REUSE), Relaxed);
        }
    }
}

/// The same for all numbers from `from` to `to`.
pub(crate) fn forget_range(from: u32, to: u32) {
    let end = HIGHEST.load(Relaxed).min(to as usize);
    for fd in from as usize..=end {
        forget(fd as c_int);
    }
}

/// True if writes to this number are known to need no check.
#[inline(always)]
pub(crate) fn is_plain(fd: c_int) -> bool {
    usize::try_from(fd).ok().and_then(|at| STATES.get(at)).is_some_and(|state| state.load(Relaxed) & NOT_OURS != 0)
}

/// The placeholder behind a descriptor that is about to be written to.
pub(crate) fn written(fd: c_int) -> Outcome<Seen> {
    let Ok(at) = usize::try_from(fd) else { return Outcome::Pass };
    let state = STATES.get(at);
    let before = state.map_or(0, |state| state.load(Relaxed));
    if before & NOT_OURS != 0 {
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
    set_plain(at, before);
    Outcome::Pass
}

/// The file behind a number is none of ours, if the number is the same reuse still as when it had the state `before`.
fn set_plain(at: usize, before: u8) {
    if let Some(state) = STATES.get(at)
        && process::is_owner()
    {
        HIGHEST.fetch_max(at, Relaxed);
        let _ = state.compare_exchange(before, before | NOT_OURS, Relaxed, Relaxed);
    }
}

/// True if `is` holds of an open file whose number is below `end`, and of which it was not asked before: what is none of
/// ours is remembered until its number is closed.
pub(crate) fn any_new(end: c_int, is: impl Fn(c_int, &FileId) -> bool) -> bool {
    for (at, state) in STATES.iter().enumerate().take(end.max(0) as usize) {
        let before = state.load(Relaxed);
        if before & NOT_OURS != 0 {
            continue;
        }
        let Ok(id) = sys::file_id(at as c_int) else { continue };
        if is(at as c_int, &id) {
            return true;
        }
        if !identity::could_be_ours(&id) {
            set_plain(at, before);
        }
    }
    false
}
