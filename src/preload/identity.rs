//! What a file is: a file of ours, the program's own, or one of ours that nobody serves.
//!
//! Called by `file`, with what the real call found. The catalog of the engine decides by device and inode. An empty
//! file that the catalog does not know is asked for its mark (`ossc_cache::mark`), wherever it lies and by whatever
//! name it was met; one that is marked and not served is an error with a line, never an empty file. Paths are
//! looked at only to find out which folder has to be listed, and to name the file in that line.

use crate::attach::{self, attach, attached};
use crate::descriptors;
use crate::environ;
use crate::handle::{GONE, Handle};
use crate::listing::{self, Listing};
use crate::log;
use crate::missing;
use crate::model_dir;
use crate::real;
use crate::say::{self, say};
use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering};
use ossc_cache::cpath::CPath;
use ossc_cache::mark::{self, MarkKind, Text};
use ossc_cache::region::{Identity, Object, Region};
use ossc_cache::sys::{self, Errno, FileId, Result};

/// How a file was met, by which it can be asked for its mark.
#[derive(Clone, Copy)]
pub(crate) enum Met<'a> {
    /// By a descriptor.
    Descriptor(i32),
    /// By a descriptor whose name is opened once more if no engine serves the file.
    Opened(i32),
    /// By a path, relative to a folder's descriptor.
    Path(i32, &'a CStr),
    /// Inside the C library: all that is known is its status.
    Status,
}

impl Met<'_> {
    /// The descriptor, or -1.
    pub(crate) fn descriptor(self) -> i32 {
        match self {
            Met::Descriptor(fd) | Met::Opened(fd) => fd,
            _ => -1,
        }
    }

    /// Runs `act` on a descriptor of the file; `None` when there can be none.
    fn with<T>(self, flags: i32, act: impl FnOnce(i32) -> T) -> Option<T> {
        match self {
            Met::Descriptor(fd) | Met::Opened(fd) => Some(act(fd)),
            Met::Path(dir, path) => descriptors::with(dir, path, flags | libc::O_CLOEXEC, act),
            Met::Status => None,
        }
    }

    /// The attribute that says what the file stands for.
    fn text(self) -> Result<Text> {
        let named = |fd: i32| {
            let link = CPath::from(b"/proc/self/fd/").with_number(fd as u64);
            Text::of_path(link.as_cstr().ok_or(Errno(libc::EIO))?)
        };
        match self {
            Met::Descriptor(fd) | Met::Opened(fd) => match Text::of_descriptor(fd) {
                // An O_PATH descriptor can only be asked by a name.
                Err(Errno(libc::EBADF)) => named(fd),
                asked => asked,
            },
            Met::Path(dir, path) if dir == libc::AT_FDCWD || path.to_bytes().starts_with(b"/") => Text::of_path(path),
            Met::Path(..) => self.with(libc::O_PATH, named).unwrap_or(Err(Errno(libc::ENODATA))),
            Met::Status => Err(Errno(libc::ENODATA)),
        }
    }

    /// True where the name by which the file was met leads, or may lead, to another file by now: the listing that this look
    /// has caused replaces what an engine before has left. The caller looks again.
    fn is_replaced(self, id: &FileId) -> bool {
        match self {
            Met::Opened(_) => true,
            Met::Path(dir, path) => {
                real::stat_at(dir, path.as_ptr(), 0).is_ok_and(|st| (st.st_dev, st.st_ino) != (id.dev, id.ino))
            }
            Met::Descriptor(_) | Met::Status => false,
        }
    }

    /// Where the file lies, as the kernel names it.
    fn path(self) -> Option<CPath> {
        self.with(libc::O_PATH, environ::descriptor_path).flatten()
    }
}

/// True if a file could be ours: an empty regular file, or, once attached, any file on the device of the memory
/// files.
#[inline]
pub(crate) fn could_be_ours(id: &FileId) -> bool {
    id.is_empty_file() || id.dev == attach::memory_dev() && id.is_file() || is_lost(id)
}

/// Device and inode of what stands at descriptor 0 for an object whose bytes cannot be had; 0 if there is none.
static LOST: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Constructor: from now on this file is an error.
pub(crate) fn lose(id: &FileId) {
    LOST[0].store(id.dev, Ordering::Relaxed);
    LOST[1].store(id.ino, Ordering::Relaxed);
}

/// True for the file that `lose` was told of.
#[inline]
pub(crate) fn is_lost(id: &FileId) -> bool {
    id.ino == LOST[1].load(Ordering::Relaxed) && id.dev == LOST[0].load(Ordering::Relaxed) && id.ino != 0
}

/// A file of ours.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    /// Whose it is.
    pub handle: Handle,
    /// Which of its files it is.
    pub identity: Identity,
}

/// Finds the record of a file. `Ok(None)` for the program's own.
///
/// # Errors
/// EIO or ESTALE for a file of ours that no engine serves.
pub(crate) fn find(id: &FileId, met: Met<'_>) -> Result<Option<Found>> {
    if is_lost(id) {
        return Err(Errno(libc::EIO));
    }
    if let Some((generation, region)) = attached()
        && let Some(found) = found_in(generation, region, id, met)
    {
        return Ok(Some(found));
    }
    if !id.is_empty_file() {
        return Ok(known_before(id));
    }
    match marked(id, met) {
        Some(asked) if asked.kind.stands_in() => served(id, met, &asked).map(Some),
        Some(_) => Ok(None),
        None => by_place(id, met),
    }
}

/// Whether an empty file with the number of a record's placeholder is that very file, and not a later one to which the
/// number went. Another engine may have given it to another object's file, so the mark has to name the version. Where the
/// file has none (its file system has no attributes, or a backup or a user's hand took it away), what tells files with one
/// number apart says it; where there is no such thing, the engine pins the number for as long as it lives, if the kernel
/// gives the numbers out.
pub(crate) fn is_placeholder_of(object: &Object, id: &FileId, met: Met<'_>, generation: u32) -> bool {
    if let Ok(text) = met.text()
        && let Some(mark) = text.mark()
    {
        let is_version = (mark.object_size, mark.etag) == (object.size(), &*object.etag());
        return mark.ino == id.ino && mark.kind.stands_in() && is_version;
    }
    let born = object.born.load(Ordering::Acquire);
    match met.with(libc::O_PATH, |fd| mark::incarnation(fd) == Some(born)) {
        Some(is_its) if born != 0 => is_its,
        // Met inside the C library, where only its time can be asked.
        None if born != 0 => has_time_of(object, id) && attach::alive(generation).is_ok(),
        // Where nothing pins numbers (NFS, 9p, CIFS) the time that the engine gave the file is all there is.
        _ => {
            let is_pinned = |fd| sys::fs_type(fd).is_ok_and(mark::keeps_pinned_numbers);
            attach::alive(generation).is_ok()
                && (met.with(libc::O_PATH, is_pinned) != Some(false) || has_time_of(object, id))
        }
    }
}

/// True for an empty file whose time is the mark of a placeholder with its number, and its object's. It costs no call.
pub(crate) fn has_time_of(object: &Object, id: &FileId) -> bool {
    id.mtime_secs == object.mtime_secs() && mark::by_time(id).is_some_and(MarkKind::stands_in)
}

/// An unmarked empty file: where it lies is a hint that an engine may know it all the same (the mark went with a backup,
/// say), once the folder is listed. EIO when no engine can be asked, or the folder cannot be listed; EMFILE when the
/// program has no descriptor left to look at the folder with.
fn by_place(id: &FileId, met: Met<'_>) -> Result<Option<Found>> {
    if !may_be_unlisted(id, met) {
        return if is_unseen(id, met) { Err(Errno(libc::EMFILE)) } else { Ok(None) };
    }
    let find = || {
        let (generation, region) = attach().or_else(attach::last_known).ok_or(Errno(libc::EIO))?;
        Ok(found_in(generation, region, id, met))
    };
    if let Some(found) = find()? {
        return Ok(Some(found));
    }
    let listings = listing::count();
    match list_folder_of(met) {
        Listing::Failed => return Err(Errno(libc::EIO)),
        Listing::NoDescriptor => return Err(Errno(libc::EMFILE)),
        Listing::Needless | Listing::Done => {}
    }
    match find()? {
        // The listing may have given its name to another file.
        None if listing::count() != listings && matches!(met, Met::Opened(_)) => Err(GONE),
        found => Ok(found),
    }
}

/// True for a file that lies in MODEL_DIR by its name, or by what its folder is where it was met by another mount, and where
/// a folder may have to be listed for the catalog to know it.
fn may_be_unlisted(id: &FileId, met: Met<'_>) -> bool {
    if listing::knows_all_folders() || !model_dir::is_on_its_device(id) {
        return false;
    }
    let Some(path) = met.path() else { return false };
    let is_elsewhere = || met.with(libc::O_PATH, |fd| model_dir::may_be_named_otherwise(id, fd)) == Some(true);
    model_dir::is_inside(path.as_bytes()) || is_elsewhere() && missing::may_be_ours(parent(path.as_bytes()))
}

/// True for a file whose folder may have to be listed, and a process that has no descriptor left to see where it lies: the
/// name that it was met by has to do.
fn is_unseen(id: &FileId, met: Met<'_>) -> bool {
    let Met::Path(dir, name) = met else { return false };
    model_dir::is_on_its_device(id)
        && descriptors::are_used_up()
        && missing::unseen(dir, name.to_bytes(), Errno(libc::EMFILE)) == Listing::NoDescriptor
}

fn found_in(generation: u32, region: Region, id: &FileId, met: Met<'_>) -> Option<Found> {
    let (number, incarnation, identity) = region.find_use(id.dev, id.ino)?;
    let handle = Handle::new(generation, region, number, incarnation)?;
    if identity == Identity::Placeholder && !is_placeholder_of(handle.object, id, met, generation) {
        return None;
    }
    Some(Found { handle, identity })
}

/// Whose a real file is.
#[derive(Clone, Copy)]
pub(crate) enum Real {
    /// This small object's.
    Of(Handle),
    /// The program's own, or one that a user has changed.
    Theirs,
    /// An engine has made it, and listings came meanwhile that do not show it: its name may lead to another file.
    Again,
    /// It may be an object's, this process has used an engine's listing, and none can be asked whether they go together.
    Unknown,
}

/// Finds the small object whose real file this is.
pub(crate) fn find_real(id: &FileId, met: Met<'_>) -> Real {
    let known = |(generation, region): (u32, Region)| {
        let number = region.find_file((id.dev, id.ino), id.size, id.mtime_secs)?;
        let incarnation = region.object(number)?.incarnation();
        Handle::new(generation, region, number, incarnation)
    };
    let find = || attached().or_else(attach::last_known).and_then(known);
    if let Some(handle) = find() {
        return Real::Of(handle);
    }
    // Of another engine's listing, perhaps: its time has no fraction, or one that is a mark.
    let could_be = id.mtime_nanos == 0 || mark::by_time(id).is_some();
    if matches!(met, Met::Status) {
        return Real::Theirs;
    }
    let listings = listing::count();
    let is_finished = |asked: &Asked| asked.kind == MarkKind::Finished && asked.is_of(id);
    let asked = if could_be { marked(id, met).filter(is_finished) } else { None };
    let unknown = || if attach::last_known().is_some() { Real::Unknown } else { Real::Theirs };
    let listed = || match find() {
        Some(handle) => Real::Of(handle),
        None if listing::count() != listings => Real::Again,
        None => Real::Theirs,
    };
    let Some(asked) = asked else {
        // Without a mark it may lie at an object's place all the same, in a folder that no program has used yet.
        if !may_be_unlisted(id, met) {
            return Real::Theirs;
        }
        return if list_folder_of(met) == Listing::Failed { unknown() } else { listed() };
    };
    let Some((generation, _)) = attach() else { return unknown() };
    // That engine may be gone, and another have listed the folder.
    let _ = attach::alive(generation);
    let Some((_, region)) = attached() else { return unknown() };
    if let Some(handle) = find() {
        return Real::Of(handle);
    }
    // A leftover in a folder that this engine has not listed yet.
    if region.header().folders_unlisted.load(Ordering::Acquire) != 0
        && let Some(folder) = folder_of(&asked, met, region)
    {
        listing::list(folder.as_bytes());
    }
    listed()
}

/// A memory file that this process's parent had open: the child registers, as for everything of ours.
fn known_before(id: &FileId) -> Option<Found> {
    let (generation, region) = attach::last_known()?;
    let found = found_in(generation, region, id, Met::Status)?;
    let _ = attach();
    Some(found)
}

/// True for an empty file that says of itself that it stands in for an object.
pub(crate) fn stands_in(id: &FileId, met: Met<'_>) -> bool {
    marked(id, met).is_some_and(|asked| asked.kind.stands_in())
}

/// What a file said of itself.
struct Asked {
    kind: MarkKind,
    /// Without an attribute the time alone has spoken.
    text: Option<Text>,
}

impl Asked {
    /// True if this engine, or one before it that served the same, has made it.
    fn is_by(&self, region: Region) -> bool {
        self.text.as_ref().and_then(Text::mark).is_none_or(|mark| mark.engine == region.engine_key())
    }

    /// False for a copy of the file that was marked.
    fn is_of(&self, id: &FileId) -> bool {
        self.text.as_ref().and_then(Text::mark).is_none_or(|mark| mark.ino == id.ino)
    }
}

/// Asks a file for its mark.
fn marked(id: &FileId, met: Met<'_>) -> Option<Asked> {
    if let Ok(text) = met.text() {
        let kind = match text.mark() {
            // A copy that carries the mark of another file and was changed since is the program's own.
            Some(mark) => (mark.ino == id.ino || mark.is_unchanged(id)).then_some(mark.kind),
            // Of an engine of another version.
            None => Some(MarkKind::Placeholder),
        };
        if let Some(kind) = kind {
            return Some(Asked { kind, text: Some(text) });
        }
    }
    let kind = mark::by_time(id)?;
    let is_of_kernel = met.with(libc::O_PATH, |fd| sys::fs_type(fd).is_ok_and(mark::is_of_kernel));
    (is_of_kernel != Some(true)).then_some(Asked { kind, text: None })
}

/// The record of a file that is marked as one that stands in for an object.
fn served(id: &FileId, met: Met<'_>, asked: &Asked) -> Result<Found> {
    let Some((mut generation, mut region)) = attach().or_else(attach::last_known) else {
        return Err(lost(id, met, asked, Errno(libc::EIO)));
    };
    loop {
        if let Some(found) = found_in(generation, region, id, met) {
            return Ok(found);
        }
        // A leftover in a folder that this engine has not listed yet, or its own file that was moved away and back.
        let may_be_known = asked.is_by(region) && asked.is_of(id);
        let is_listed = (may_be_known || region.header().folders_unlisted.load(Ordering::Acquire) != 0)
            && match folder_of(asked, met, region) {
                Some(folder) => listing::list(folder.as_bytes()),
                None => list_folder_of(met) == Listing::Done,
            };
        if is_listed && let Some(found) = found_in(generation, region, id, met) {
            return Ok(found);
        }
        // The engine could not be asked, and may be listing that folder for others.
        let is_unlisted = || region.header().folders_unlisted.load(Ordering::Acquire) != 0;
        let may_come = || is_unlisted() && asked.is_of(id) && asked.is_by(region) && attach::alive(generation).is_ok();
        if !is_listed && may_come() && descriptors::are_used_up() {
            match listing::by_others(&region, || found_in(generation, region, id, met)) {
                Some(found) => return Ok(found),
                None if is_unlisted() => return Err(Errno(libc::EMFILE)),
                None => {}
            }
        }
        // The engine of this region may be gone, and another have taken the file over.
        match attach::alive(generation) {
            Ok(()) => break,
            Err(attach::MOVED) => {}
            Err(_) => return Err(lost(id, met, asked, Errno(libc::EIO))),
        }
        match attach().or_else(attach::last_known) {
            Some((next, next_region)) if next != generation => (generation, region) = (next, next_region),
            _ => break,
        }
    }
    Err(lost(id, met, asked, Errno(libc::ESTALE)))
}

/// The folder that has to be listed for a file to be known: by the mark, if this engine's kind has made it, else by
/// where the file lies.
fn folder_of(asked: &Asked, met: Met<'_>, region: Region) -> Option<CPath> {
    let named = asked.text.as_ref().and_then(Text::mark).filter(|mark| mark.engine == region.engine_key());
    if let Some(mark) = named {
        let folder = mark.path.rfind('/').map_or("", |cut| &mark.path[..cut]);
        return Some(CPath::from(folder.as_bytes()));
    }
    let path = met.path().filter(|path| model_dir::is_inside(path.as_bytes()))?;
    Some(CPath::from(parent(path.as_bytes())))
}

fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) | None => b"/",
        Some(cut) => &path[..cut],
    }
}

/// Lists the folder that a file lies in, if it is an unlisted one of MODEL_DIR by its numbers or its path: also where
/// the path does not say so, behind a bind mount, say.
fn list_folder_of(met: Met<'_>) -> Listing {
    met.path().map_or(Listing::Needless, |path| missing::list_folder(parent(path.as_bytes())))
}

/// A marked file that no engine serves: one line on stderr and in the log, once for each file.
fn lost(id: &FileId, met: Met<'_>, asked: &Asked, errno: Errno) -> Errno {
    let is_final = errno != GONE || !met.is_replaced(id);
    if is_final && !say::is_told(id) {
        let mark = asked.text.as_ref().and_then(Text::mark);
        let marked = CPath::from(mark.map_or(b"a file", |mark| mark.path.as_bytes()));
        // A file without a name any more is named as it was made.
        let name = met.path().filter(|path| !path.as_bytes().ends_with(b" (deleted)")).unwrap_or(marked);
        let why: &[u8] = match errno.0 {
            libc::EIO if attach::engine_runs() => {
                b"this file stands for an object on OSS and this process cannot reach its engine, so reading it is an error"
            }
            libc::EIO => {
                b"this file stands for an object on OSS and no engine serves it, so reading it is an error (are ENABLE_CONNECTOR=1 and the OSS_ variables set?)"
            }
            _ => {
                b"this file stands for an object that the engine of this MODEL_DIR does not serve (an older version, another MODEL_DIR's, or a copy without its bytes), so reading it is an error"
            }
        };
        say(&[b"oss connector: ", name.as_bytes(), b": ", why, b"\n"]);
        log::named(why, name.as_bytes());
    }
    errno
}
