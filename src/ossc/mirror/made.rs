//! Files that the engine makes in MODEL_DIR: each is marked before it has its name, and only what is marked as this
//! engine's kind's own, and is as it was left, is ever replaced or removed.
//!
//! Called by the mirror. A mark (`ossc_cache::mark`) names the file's own inode and birth, so that a copy that a user
//! makes (`cp -a`) is a user's; a file that was renamed carries another path in its mark than its own, and is a
//! user's, too. Nothing here follows a symbolic link.

pub mod turn;

use crate::folder_files::{self, Pinned, TEMPORARY};
use ossc_cache::mark::{self, Mark, MarkKind, Text};
use ossc_cache::region::{Object, RecordKind};
use ossc_cache::sys::FileId;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering;

const FILE_MODE: Mode = Mode::from_raw_mode(0o644);

/// What a new file is for.
#[derive(Clone, Copy, Debug)]
pub struct Purpose<'a> {
    /// What it stands for.
    pub kind: MarkKind,
    /// `Region::engine_key`.
    pub engine: u64,
    /// ETag of the object, with its quotes.
    pub etag: &'a str,
    /// Size of the object in bytes.
    pub object_size: u64,
    /// Path relative to MODEL_DIR.
    pub path: &'a str,
    /// Last-Modified of the object, seconds since 1970.
    pub mtime_secs: i64,
}

/// What a regular file that was found in MODEL_DIR is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Device, inode, size and time.
    pub id: FileId,
    /// What its mark says, where an engine has made this very file.
    pub made: Option<MadeBefore>,
    /// It carries the mark of another file: it is a copy.
    pub is_copy: bool,
    /// Of an empty file without a mark: what tells it from others with its number (`mark::incarnation`).
    pub incarnation: Option<u64>,
}

/// What the mark of a file says of the engine's work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MadeBefore {
    /// What it was made for.
    pub kind: MarkKind,
    /// It is as it was left.
    pub is_unchanged: bool,
    /// ETag and size of the object, and the path that it was made for; `None` where the file system keeps no
    /// attribute that could say it.
    pub version: Option<(String, u64, String)>,
}

impl Found {
    /// An engine has made it and left it like this. What stands in for an object has no bytes: where there are some a
    /// user has written them.
    pub fn is_own(&self) -> bool {
        let is_possible = |made: &MadeBefore| !made.kind.stands_in() || self.id.size == 0;
        self.made.as_ref().is_some_and(|made| made.is_unchanged && is_possible(made))
    }

    /// It is the file that was made for this record, and not a later one to which its number went.
    pub fn is_stand_in_of(&self, object: &Object) -> bool {
        let is_its = self.id.size == 0 && (self.id.dev, self.id.ino) == (object.dev(), object.ino());
        let born = object.born.load(Ordering::Acquire);
        let is_marked = || self.made.as_ref().is_some_and(|made| made.kind.stands_in());
        is_its && (born == 0 || self.incarnation == Some(born) || is_marked())
    }

    /// It is a leftover that stands in for exactly this version.
    pub fn stands_for(&self, purpose: &Purpose<'_>) -> bool {
        let is_version = |(etag, size, path): &(String, u64, String)| {
            (etag.as_str(), *size, path.as_str()) == (purpose.etag, purpose.object_size, purpose.path)
        };
        self.id.size == 0
            && self.made.as_ref().is_some_and(|made| {
                made.kind == purpose.kind && made.is_unchanged && made.version.as_ref().is_some_and(is_version)
            })
    }

    /// ETag that it was made for, if its mark says so.
    pub fn etag(&self) -> Option<&str> {
        self.made.as_ref()?.version.as_ref().map(|(etag, ..)| etag.as_str())
    }
}

/// True for what lies at the name of a large object and is not the placeholder of its record.
pub fn is_another(folder: impl AsFd, name: &str, record: &Object) -> bool {
    record.kind() == RecordKind::Large
        && rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|st| (st.st_dev, st.st_ino) != (record.dev(), record.ino()))
}

fn open_to_look(folder: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty())
}

/// Looks at the regular file at `name`. One that may not be read is a user's.
pub fn look(folder: impl AsFd, name: &str) -> Result<Found, Errno> {
    let st = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(st.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    match open_to_look(&folder, name) {
        Ok(file) => look_at(&file),
        Err(Errno::ACCESS | Errno::PERM | Errno::AGAIN) => {
            Ok(Found { id: id_of(&st), made: None, is_copy: false, incarnation: None })
        }
        Err(e) => Err(e),
    }
}

/// True for an empty file that an engine has made to stand for an object, at a path that may lead through links.
pub fn is_stand_in(path: &Path) -> bool {
    let found = path.canonicalize().ok().and_then(|path| {
        let folder = File::open(path.parent()?).ok()?;
        look(folder, path.file_name()?.to_str()?).ok()
    });
    found.is_some_and(|found| found.is_own() && found.made.is_some_and(|made| made.kind.stands_in()))
}

fn id_of(st: &rustix::fs::Stat) -> FileId {
    FileId {
        dev: st.st_dev,
        ino: st.st_ino,
        size: st.st_size as u64,
        mode: st.st_mode,
        mtime_secs: st.st_mtime,
        mtime_nanos: st.st_mtime_nsec as u32,
    }
}

fn look_at(file: &OwnedFd) -> Result<Found, Errno> {
    let id = id_of(&rustix::fs::fstat(file)?);
    let by_time = || mark::by_time(&id).map(|kind| MadeBefore { kind, is_unchanged: true, version: None });
    let found = |made: Option<MadeBefore>, is_copy: bool| {
        let incarnation = (made.is_none() && id.size == 0).then(|| mark::incarnation(file.as_raw_fd())).flatten();
        Ok(Found { id, made, is_copy, incarnation })
    };
    let Ok(text) = Text::of_descriptor(file.as_raw_fd()) else { return found(by_time(), false) };
    let Some(said) = text.mark() else { return found(None, false) };
    let born = mark::born(file.as_raw_fd()).map_err(|e| Errno::from_raw_os_error(e.0))?;
    let is_copy = !said.is_of(&id, born);
    let version = Some((said.etag.to_string(), said.object_size, said.path.to_string()));
    let made = MadeBefore { kind: said.kind, is_unchanged: said.is_unchanged(&id), version };
    found((!is_copy).then_some(made), is_copy)
}

/// Makes an empty file where nothing lies: EEXIST if anything does.
pub fn make(folder: impl AsFd, name: &str, purpose: &Purpose<'_>) -> Result<Pinned, Errno> {
    let fresh = Fresh::make(&folder)?;
    let made = fresh.mark(purpose).and_then(|_| fresh.link(&folder, name));
    // Without a name it has left nothing.
    if !fresh.nameless {
        fresh.clear(&folder);
    }
    made?;
    let pinned = folder_files::pinned(&folder, name)?;
    // The inode must be the same by name and by descriptor, or clients could not recognise it (some network and
    // overlay file systems change it).
    if (pinned.dev, pinned.ino) == fresh.id()? { Ok(pinned) } else { Err(Errno::STALE) }
}

/// Takes the empty file that lies at `name` for an object's: it is marked where it lies, if it still is what was found.
/// EEXIST if it is not, or if somebody writes into it meanwhile: then it has no mark.
pub fn adopt(folder: impl AsFd, name: &str, purpose: &Purpose<'_>, found: &Found) -> Result<Pinned, Errno> {
    let file = open_to_look(&folder, name)?;
    if found.id.size != 0 || look_at(&file)? != *found {
        return Err(Errno::EXIST);
    }
    let file = File::from(file);
    mark_file(&file, purpose)?;
    if rustix::fs::fstat(&file)?.st_size != 0 {
        // With the time of its last byte: the time of the mark may be one, too.
        unmark(&file);
        return Err(Errno::EXIST);
    }
    let (pinned, id) = (folder_files::pinned(&folder, name)?, id_of(&rustix::fs::fstat(&file)?));
    if (pinned.dev, pinned.ino) == (id.dev, id.ino) { Ok(pinned) } else { Err(Errno::STALE) }
}

/// It is a user's after all.
fn unmark(file: &File) {
    let _ = rustix::fs::fremovexattr(file, mark::ATTRIBUTE);
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let _ = rustix::fs::futimens(file, &Timestamps { last_access: now, last_modification: now });
}

/// A new empty file takes the name from the one that is there, if that still is what `may` says; descriptors of the
/// old one keep it. EEXIST if it is not.
pub fn replace(
    folder: impl AsFd,
    name: &str,
    purpose: &Purpose<'_>,
    may: impl Fn(&Found) -> bool,
) -> Result<Pinned, Errno> {
    let fresh = Fresh::make(&folder)?;
    let made = fresh.mark(purpose).and_then(|has_attribute| fresh.take_name(&folder, name, has_attribute, may));
    fresh.clear(&folder);
    made?;
    let pinned = folder_files::pinned(&folder, name)?;
    if (pinned.dev, pinned.ino) == fresh.id()? { Ok(pinned) } else { Err(Errno::STALE) }
}

/// Puts a whole file at `name`, in the place of what `may` says (or of nothing). EEXIST if something else is there.
/// `known` is told device and inode of the new file before it can be seen by its name.
pub fn put(
    folder: impl AsFd,
    name: &str,
    bytes: &[u8],
    purpose: &Purpose<'_>,
    may: impl Fn(&Found) -> bool,
    known: impl FnOnce((u64, u64)),
) -> Result<(), std::io::Error> {
    let mut fresh = Fresh::make(&folder)?;
    if let Err(e) = fresh.file.write_all(bytes) {
        fresh.clear(&folder);
        return Err(e);
    }
    fresh.put(&folder, name, purpose, may, known)
}

/// A file that is written piece by piece before it takes its name.
pub struct Growing {
    folder: OwnedFd,
    fresh: Fresh,
}

impl Growing {
    /// A new one for a name in `folder`.
    pub fn new(folder: OwnedFd) -> Result<Growing, Errno> {
        let fresh = Fresh::make(&folder)?;
        Ok(Growing { folder, fresh })
    }

    /// Writes one piece.
    pub fn write(&self, bytes: &[u8], at: u64) -> Result<(), std::io::Error> {
        self.fresh.file.write_all_at(bytes, at)
    }

    /// How many bytes it has, with holes that may be left.
    pub fn len(&self) -> Result<u64, std::io::Error> {
        self.fresh.file.metadata().map(|file| file.len())
    }

    /// It is whole: as `put`.
    pub fn put(
        self,
        name: &str,
        purpose: &Purpose<'_>,
        may: impl Fn(&Found) -> bool,
        known: impl FnOnce((u64, u64)),
    ) -> Result<(), std::io::Error> {
        self.fresh.put(&self.folder, name, purpose, may, known)
    }

    /// It is not wanted any more.
    pub fn drop_it(self) {
        self.fresh.clear(&self.folder);
    }
}

/// A file under construction. It has no name, where the file system can do that, or a temporary one, until it takes
/// its own.
struct Fresh {
    file: File,
    temporary: String,
    nameless: bool,
}

impl Fresh {
    fn make(folder: impl AsFd) -> Result<Fresh, Errno> {
        let temporary = format!("{TEMPORARY}{}-{:016x}", std::process::id(), fastrand::u64(..));
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        if let Ok(fd) = rustix::fs::openat(&folder, ".", flags | OFlags::TMPFILE, FILE_MODE) {
            return Ok(Fresh { file: in_use(fd), temporary, nameless: true });
        }
        let named = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = in_use(rustix::fs::openat(&folder, temporary.as_str(), named, FILE_MODE)?);
        // From its first moment on, so that what a killed engine leaves is known.
        let nothing =
            Purpose { kind: MarkKind::Finished, engine: 0, etag: "", object_size: 0, path: "", mtime_secs: 0 };
        mark_file(&file, &nothing)?;
        Ok(Fresh { file, temporary, nameless: false })
    }

    fn id(&self) -> Result<(u64, u64), Errno> {
        rustix::fs::fstat(&self.file).map(|st| (st.st_dev, st.st_ino))
    }

    /// Sets time and mark; true if the mark is an attribute.
    fn mark(&self, purpose: &Purpose<'_>) -> Result<bool, Errno> {
        mark_file(&self.file, purpose)
    }

    /// Takes the name of what `may` says, or of nothing, with all of its bytes.
    fn put(
        &self,
        folder: impl AsFd,
        name: &str,
        purpose: &Purpose<'_>,
        may: impl Fn(&Found) -> bool,
        known: impl FnOnce((u64, u64)),
    ) -> Result<(), std::io::Error> {
        let put = self.mark(purpose).and_then(|has_attribute| {
            known(self.id()?);
            match folder_files::look(&folder, name)? {
                folder_files::Lies::Nothing => self.link(&folder, name),
                _ => self.take_name(&folder, name, has_attribute, may),
            }
        });
        self.clear(&folder);
        Ok(put?)
    }

    /// Gives it a name that nothing has.
    fn link(&self, folder: impl AsFd, name: &str) -> Result<(), Errno> {
        if self.nameless {
            let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            return rustix::fs::linkat(rustix::fs::CWD, own, &folder, name, AtFlags::SYMLINK_FOLLOW);
        }
        let no_replace = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&folder, self.temporary.as_str(), &folder, name, no_replace) {
            // Before Linux 3.15, and on some file systems.
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::linkat(&folder, self.temporary.as_str(), &folder, name, AtFlags::empty())
            }
            renamed => renamed,
        }
    }

    /// Takes the name of a file that `may` says. The two exchange their names first, so that a file which a user puts
    /// there at this very moment is seen, and gets its name back.
    fn take_name(
        &self,
        folder: impl AsFd,
        name: &str,
        has_attribute: bool,
        may: impl Fn(&Found) -> bool,
    ) -> Result<(), Errno> {
        if !look(&folder, name).is_ok_and(|found| may(&found)) {
            return Err(Errno::EXIST);
        }
        let temporary = self.temporary.as_str();
        if self.nameless {
            self.link(&folder, temporary)?;
        }
        let exchange = || rustix::fs::renameat_with(&folder, temporary, &folder, name, RenameFlags::EXCHANGE);
        // What lies under a temporary name is removed by the next engine, unless its mark says that it is a user's.
        let exchanged = if has_attribute { exchange() } else { Err(Errno::NOSYS) };
        match exchanged {
            // The one that gave way may have no mark, by which it would be known later.
            Ok(()) if look(&folder, temporary).is_ok_and(|found| may(&found)) => {
                let _ = rustix::fs::unlinkat(&folder, temporary, AtFlags::empty());
                Ok(())
            }
            Ok(()) => exchange().and(Err(Errno::EXIST)),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rustix::fs::renameat(&folder, temporary, &folder, name)
            }
            Err(e) => Err(e),
        }
    }

    /// Removes what is left under the temporary name: this file, if it got no other, or the one that it has replaced.
    fn clear(&self, folder: impl AsFd) {
        if is_left_over(&folder, &self.temporary) {
            let _ = rustix::fs::unlinkat(&folder, self.temporary.as_str(), AtFlags::empty());
        }
    }
}

/// Gives an open file its time and its mark; true if the mark is an attribute.
///
/// # Errors
/// EOPNOTSUPP if it can be marked in no way.
fn mark_file(file: &File, purpose: &Purpose<'_>) -> Result<bool, Errno> {
    let st = rustix::fs::fstat(file)?;
    let nanos = mark::nanos(purpose.kind, st.st_ino, st.st_size as u64, purpose.mtime_secs);
    // A real file's time is its object's, without a fraction, where an attribute says what it is.
    let is_real = purpose.kind == MarkKind::Finished;
    set_time(file, purpose.mtime_secs, if is_real { 0 } else { nanos });
    if set_attribute(file.as_raw_fd(), purpose).is_ok() {
        return Ok(true);
    }
    set_time(file, purpose.mtime_secs, nanos);
    let kept = id_of(&rustix::fs::fstat(file)?);
    if mark::by_time(&kept) == Some(purpose.kind) { Ok(false) } else { Err(Errno::OPNOTSUPP) }
}

fn set_time(file: &File, secs: i64, nanos: u32) {
    let time = Timespec { tv_sec: secs, tv_nsec: i64::from(nanos) };
    let times = Timestamps { last_access: time, last_modification: time };
    // Where it cannot be set the attribute is the mark; `mark_file` looks at it.
    let _ = rustix::fs::futimens(file, &times);
}

fn set_attribute(fd: i32, purpose: &Purpose<'_>) -> Result<(), ossc_cache::sys::Errno> {
    let id = ossc_cache::sys::file_id(fd)?;
    let mark = Mark {
        kind: purpose.kind,
        ino: id.ino,
        born: mark::born(fd)?,
        size: id.size,
        mtime: (id.mtime_secs, id.mtime_nanos),
        engine: purpose.engine,
        object_size: purpose.object_size,
        etag: purpose.etag,
        path: purpose.path,
    };
    ossc_cache::sys::fsetxattr(fd, mark::ATTRIBUTE, mark.to_string().as_bytes())
}

/// Marks a folder that the engine has just made. Where that cannot be done nothing is lost: a folder is known by the
/// catalog.
pub fn mark_folder(folder: &Pinned, purpose: &Purpose<'_>) {
    let _ = set_attribute(folder.descriptor(), purpose);
}

/// True for a folder that an engine has made.
pub fn is_own_folder(folder: &OwnedFd) -> bool {
    let is_of = |text: &Text| {
        let (mark, fd) = (text.mark()?, folder.as_raw_fd());
        let id = ossc_cache::sys::file_id(fd).ok()?;
        Some(mark.kind == MarkKind::Folder && mark.is_of(&id, mark::born(fd).ok()?))
    };
    Text::of_descriptor(folder.as_raw_fd()).is_ok_and(|text| is_of(&text) == Some(true))
}

/// How the file system of MODEL_DIR keeps what a mark needs.
#[derive(Clone, Copy, Debug)]
pub struct FsFeatures {
    /// Extended attributes.
    pub attributes: bool,
    /// Device of a file, which on an overlay is not its folder's.
    pub file_dev: u64,
}

/// Makes a file to find out what the file system keeps; `None` where none can be made now.
///
/// # Errors
/// The reason why placeholders cannot be told from empty files there.
pub fn probe(folder: impl AsFd) -> Result<Option<FsFeatures>, String> {
    let name = format!("{TEMPORARY}{}-probe", std::process::id());
    let kind = MarkKind::Placeholder;
    let purpose = Purpose { kind, engine: 1, etag: "\"0\"", object_size: 1, path: "", mtime_secs: 1_700_000_000 };
    let remove = || rustix::fs::unlinkat(&folder, name.as_str(), AtFlags::empty());
    let _ = remove();
    let made = make(&folder, &name, &purpose);
    let found = look(&folder, &name);
    let _ = remove();
    let elsewhere = |why: &str| Err(format!("{why}: use a folder on another file system"));
    match (made, found) {
        (Ok(pinned), Ok(Found { id, made: Some(made), .. })) if (id.dev, id.ino) == (pinned.dev, pinned.ino) => {
            Ok(Some(FsFeatures { attributes: made.version.is_some(), file_dev: id.dev }))
        }
        (Err(Errno::OPNOTSUPP), _) => elsewhere(
            "its file system keeps neither extended attributes nor times finer than a second, by which placeholders are told from empty files",
        ),
        (Err(Errno::STALE) | Ok(_), _) => {
            elsewhere("its file system does not give a file's inode number and mark back")
        }
        (Err(_), _) => Ok(None),
    }
}

/// The file is locked for as long as its engine has it open: see `clean`. Where a file system has no locks, `clean`
/// finds none either, and leaves everything.
fn in_use(fd: OwnedFd) -> File {
    let _ = ossc_cache::sys::try_lock(fd.as_raw_fd());
    File::from(fd)
}

/// True if no engine has it open, this one included.
fn is_unused(folder: impl AsFd, name: &str) -> bool {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty());
    file.is_ok_and(|file| ossc_cache::sys::try_lock(file.as_raw_fd()).is_ok())
}

/// Removes what a killed engine left under temporary names, and nothing that an engine has open.
pub fn clean(folder: impl AsFd) -> Result<(), Errno> {
    for name in names(&folder)? {
        if name.starts_with(TEMPORARY) && is_left_over(&folder, &name) && is_unused(&folder, &name) {
            let _ = rustix::fs::unlinkat(&folder, name.as_str(), AtFlags::empty());
        }
    }
    Ok(())
}

/// True for a file of an engine's, finished or not. Without attributes no user's file ever gets a temporary name.
fn is_left_over(folder: impl AsFd, name: &str) -> bool {
    match look(&folder, name) {
        Ok(Found { made: Some(_), .. }) => true,
        Ok(Found { is_copy, .. }) => !is_copy && open_to_look(&folder, name).is_ok_and(|file| !has_attributes(&file)),
        Err(_) => false,
    }
}

fn has_attributes(file: &OwnedFd) -> bool {
    !matches!(Text::of_descriptor(file.as_raw_fd()), Err(ossc_cache::sys::Errno(libc::EOPNOTSUPP)))
}

/// The names in a folder that are text.
pub fn names(folder: impl AsFd) -> Result<Vec<String>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let readable = rustix::fs::openat(&folder, ".", flags, Mode::empty())?;
    let entries = rustix::fs::Dir::read_from(readable)?.flatten();
    let texts = entries.filter_map(|entry| entry.file_name().to_str().ok().map(str::to_string));
    Ok(texts.filter(|name| name != "." && name != "..").collect())
}

/// Most entries that one sweep looks at below a folder that OSS does not have: a user's own tree may lie there.
const SWEPT_MAX: usize = 20_000;

/// What a sweep has done.
#[derive(Default, Debug)]
pub struct Swept {
    /// Paths of files that were removed.
    pub removed: Vec<String>,
    /// Paths of placeholders that were changed since an engine made them: they stay.
    pub changed: Vec<String>,
    looked_at: usize,
}

/// Removes files that an engine before has made, is left unchanged, and that are not wanted any more: in the folder
/// `path` (relative to MODEL_DIR), and in the folders below it that are not wanted either. `is_wanted` is told a name, and
/// whether a file lies there.
pub fn sweep(folder: impl AsFd, path: &str, is_wanted: impl Fn(&str, bool) -> bool) -> Result<Swept, Errno> {
    let mut swept = Swept::default();
    sweep_into(&mut swept, folder, path, &is_wanted)?;
    Ok(swept)
}

fn sweep_into(
    swept: &mut Swept,
    folder: impl AsFd,
    path: &str,
    is_wanted: &dyn Fn(&str, bool) -> bool,
) -> Result<(), Errno> {
    for name in names(&folder)? {
        swept.looked_at += 1;
        let lies = folder_files::look(&folder, &name);
        if is_wanted(&name, matches!(lies, Ok(folder_files::Lies::File(_)))) || swept.looked_at > SWEPT_MAX {
            continue;
        }
        let below = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        match lies {
            Ok(folder_files::Lies::File(_)) => sweep_file(swept, &folder, &name, below),
            Ok(folder_files::Lies::Folder) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let Ok(inner) = rustix::fs::openat(&folder, name.as_str(), flags, Mode::empty()) else { continue };
                let _ = sweep_into(swept, &inner, &below, &|_, _| false);
                if is_own_folder(&inner) {
                    // A folder with something in it stays.
                    let _ = rustix::fs::unlinkat(&folder, name.as_str(), AtFlags::REMOVEDIR);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn sweep_file(swept: &mut Swept, folder: impl AsFd, name: &str, path: String) {
    let Ok(found) = look(&folder, name) else { return };
    let Some(made) = &found.made else { return };
    let is_at_its_place = made.version.as_ref().is_none_or(|(.., of)| *of == path);
    // Without an attribute nobody can tell whether a user has moved it here.
    let is_nameless = made.version.is_none() && found.id.size > 0;
    if found.is_own() && is_at_its_place && !is_nameless {
        if rustix::fs::unlinkat(&folder, name, AtFlags::empty()).is_ok() {
            swept.removed.push(path);
        }
    } else if made.kind.stands_in() && found.id.size == 0 {
        swept.changed.push(path);
    }
}

#[cfg(test)]
#[path = "made_tests.rs"]
mod tests;
