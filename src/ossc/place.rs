//! Files and folders inside MODEL_DIR: the only place that creates, renames or inspects them.
//!
//! Called by the mirror. Every step goes from a folder's descriptor to one name in it, never through a
//! symbolic link, so nothing is ever touched outside MODEL_DIR; what is a user's is never overwritten.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How names of files under construction begin.
pub const TEMPORARY: &str = ".ossc-tmp-";
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);

/// What lies at a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lies {
    /// Nothing.
    Nothing,
    /// A regular file of this size in bytes.
    File(u64),
    /// A folder.
    Folder,
    /// A symbolic link, a device, …
    Other,
}

/// A file's identity and a descriptor that keeps its inode number from being used again.
pub struct Pinned {
    fd: OwnedFd,
    /// st_dev.
    pub dev: u64,
    /// st_ino.
    pub ino: u64,
}

impl Pinned {
    /// Its O_PATH descriptor.
    pub fn descriptor(&self) -> i32 {
        std::os::fd::AsRawFd::as_raw_fd(&self.fd)
    }
}

/// MODEL_DIR.
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens MODEL_DIR, which exists.
    pub fn open(path: &Path) -> Result<Root, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map(|fd| Root { fd })
    }

    /// Device and inode.
    pub fn id(&self) -> Result<(u64, u64), Errno> {
        rustix::fs::fstat(&self.fd).map(|st| (st.st_dev, st.st_ino))
    }

    /// A folder below it; `path` is relative, `""` for MODEL_DIR itself.
    pub fn folder(&self, path: &str) -> Result<OwnedFd, Errno> {
        let mut at = rustix::io::fcntl_dupfd_cloexec(&self.fd, 3)?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if matches!(name, "." | "..") {
                return Err(Errno::INVAL);
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            at = rustix::fs::openat(&at, name, flags, Mode::empty())?;
        }
        Ok(at)
    }
}

/// What lies at `name` in `folder`.
pub fn look(folder: impl AsFd, name: &str) -> Result<Lies, Errno> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(st) => Ok(match FileType::from_raw_mode(st.st_mode) {
            FileType::RegularFile => Lies::File(st.st_size as u64),
            FileType::Directory => Lies::Folder,
            _ => Lies::Other,
        }),
        Err(Errno::NOENT) => Ok(Lies::Nothing),
        Err(e) => Err(e),
    }
}

/// True for what a file system says of a name that it cannot take: too long, or bytes that it does not know.
pub fn refuses_name(error: Errno) -> bool {
    matches!(error, Errno::NAMETOOLONG | Errno::INVAL | Errno::ILSEQ)
}

/// True for a folder with something in it.
pub fn is_filled(folder: impl AsFd, name: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let entries = rustix::fs::openat(folder, name, flags, Mode::empty()).and_then(rustix::fs::Dir::read_from);
    entries.is_ok_and(|entries| entries.flatten().any(|entry| !matches!(entry.file_name().to_bytes(), b"." | b"..")))
}

/// When names were last added to a folder or removed from it: seconds and nanoseconds.
pub fn time(folder: impl AsFd) -> Result<(i64, i64), Errno> {
    rustix::fs::fstat(folder).map(|st| (st.st_mtime, st.st_mtime_nsec as i64))
}

/// Bytes that may still be written to the folder's file system.
pub fn room(folder: impl AsFd) -> Result<u64, Errno> {
    let fs = rustix::fs::fstatvfs(folder)?;
    Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
}

/// Makes a folder unless it is there; gives its identity.
pub fn make_folder(folder: impl AsFd, name: &str) -> Result<Pinned, Errno> {
    match rustix::fs::mkdirat(&folder, name, FOLDER_MODE) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e),
    }
    pin(rustix::fs::openat(
        folder,
        name,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Makes an empty file, or takes the empty one that is there, and gives it the object's time.
/// EEXIST if anything else lies there.
pub fn placeholder(folder: impl AsFd, name: &str, mtime_secs: i64) -> Result<Pinned, Errno> {
    let make = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&folder, name, make, FILE_MODE) {
        Ok(_) => {}
        Err(Errno::EXIST) if look(&folder, name)? == Lies::File(0) => {}
        Err(e) => return Err(e),
    }
    let pinned =
        pin(rustix::fs::openat(&folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)?;
    set_time(&folder, name, mtime_secs);
    mark(&open_to_look(&folder, name)?);
    // The inode must be the same by name and by descriptor, or clients could not recognise it
    // (some network and overlay file systems change it).
    let again = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if (again.st_dev, again.st_ino) != (pinned.dev, pinned.ino) { Err(Errno::STALE) } else { Ok(pinned) }
}

/// A new empty file that takes the name from the one that is there; descriptors of the old one keep it.
pub fn new_placeholder(folder: impl AsFd, name: &str, mtime_secs: i64) -> Result<Pinned, Errno> {
    let fresh = Fresh::make(&folder)?;
    let made = fresh.name_it(&folder, mtime_secs).and_then(|temporary| {
        let made = pinned(&folder, &temporary);
        made.and_then(|pinned| rename(&folder, &temporary, name).map(|()| pinned))
    });
    fresh.clear(&folder, made.is_err());
    made
}

/// The file that lies at `name`, whatever it is; links are not followed.
pub fn pinned(folder: impl AsFd, name: &str) -> Result<Pinned, Errno> {
    pin(rustix::fs::openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

/// Puts a whole file at `name`, replacing the empty one there: written without a name where the file system
/// can do that (else under a temporary one), then renamed.
pub fn put_file(folder: impl AsFd, name: &str, bytes: &[u8], mtime_secs: i64) -> Result<(), std::io::Error> {
    let mut fresh = Fresh::make(&folder)?;
    let written = fresh.file.write_all(bytes).and_then(|()| fresh.put(&folder, name, mtime_secs));
    fresh.clear(&folder, written.is_err());
    written
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

    /// It is whole: as `put_file`.
    pub fn put(self, name: &str, mtime_secs: i64) -> Result<(), std::io::Error> {
        let put = self.fresh.put(&self.folder, name, mtime_secs);
        self.fresh.clear(&self.folder, put.is_err());
        put
    }

    /// It is not wanted any more.
    pub fn drop_it(self) {
        self.fresh.clear(&self.folder, true);
    }
}

/// A file under construction. It gets a name only for the moment before it is renamed, so that programs
/// which read the folder meanwhile hardly ever see it.
struct Fresh {
    file: File,
    temporary: String,
    nameless: bool,
}

impl Fresh {
    fn make(folder: impl AsFd) -> Result<Fresh, Errno> {
        let temporary = format!("{TEMPORARY}{}-{:016x}", std::process::id(), fastrand::u64(..));
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        if let Ok(fd) = rustix::fs::openat(&folder, ".", flags | OFlags::TMPFILE, FILE_MODE) {
            return Ok(Fresh { file: in_use(fd), temporary, nameless: true });
        }
        let named = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&folder, temporary.as_str(), named, FILE_MODE)?;
        Ok(Fresh { file: in_use(fd), temporary, nameless: false })
    }

    /// Sets the time and links it under its temporary name.
    fn name_it(&self, folder: impl AsFd, mtime_secs: i64) -> Result<String, Errno> {
        let _ = rustix::fs::futimens(&self.file, &times(mtime_secs));
        mark(&self.file);
        if self.nameless {
            let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.file));
            rustix::fs::linkat(rustix::fs::CWD, link, &folder, self.temporary.as_str(), AtFlags::SYMLINK_FOLLOW)?;
        }
        Ok(self.temporary.clone())
    }

    /// Gives it the name of the empty file there, which it replaces.
    fn put(&self, folder: impl AsFd, name: &str, mtime_secs: i64) -> Result<(), std::io::Error> {
        match look(&folder, name)? {
            Lies::Nothing | Lies::File(0) => {
                let temporary = self.name_it(&folder, mtime_secs)?;
                Ok(rename(&folder, &temporary, name)?)
            }
            _ => Err(Errno::EXIST.into()),
        }
    }

    fn clear(&self, folder: impl AsFd, failed: bool) {
        if failed {
            let _ = rustix::fs::unlinkat(&folder, self.temporary.as_str(), AtFlags::empty());
        }
    }
}

fn rename(folder: impl AsFd, from: &str, to: &str) -> Result<(), Errno> {
    rustix::fs::renameat(&folder, from, &folder, to)
}

/// The file is locked for as long as this engine has it open: see `clean`. Where a file system has no locks, `clean`
/// finds none either, and leaves everything.
fn in_use(fd: OwnedFd) -> File {
    let _ = ossc_cache::sys::try_lock(std::os::fd::AsRawFd::as_raw_fd(&fd));
    File::from(fd)
}

/// True if no engine has it open, this one included.
fn is_left(folder: impl AsFd, name: &std::ffi::CStr) -> bool {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty());
    file.is_ok_and(|file| ossc_cache::sys::try_lock(std::os::fd::AsRawFd::as_raw_fd(&file)).is_ok())
}

/// Removes what a killed engine left under temporary names.
pub fn clean(folder: impl AsFd) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let readable = rustix::fs::openat(&folder, ".", flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(readable)? {
        let entry = entry?;
        if entry.file_name().to_bytes().starts_with(TEMPORARY.as_bytes()) && is_left(&folder, entry.file_name()) {
            let _ = rustix::fs::unlinkat(&folder, entry.file_name(), AtFlags::empty());
        }
    }
    Ok(())
}

/// Extended attribute of files that an engine has made: size and time as it left them. A file whose size and
/// time still are those is nobody else's.
const MARK: &str = "user.ossc.made";

fn made_as(file: impl AsFd) -> Result<String, Errno> {
    let st = rustix::fs::fstat(file)?;
    Ok(format!("{} {}", st.st_size, st.st_mtime))
}

/// Marks a file as made by an engine. Where the file system has no such attributes, leftovers count as a user's.
fn mark(file: impl AsFd) {
    if let Ok(text) = made_as(&file) {
        let _ = rustix::fs::fsetxattr(file, MARK, text.as_bytes(), rustix::fs::XattrFlags::empty());
    }
}

fn open_to_look(folder: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty())
}

/// True for a file that an engine has made and nobody has changed since.
pub fn is_own(folder: impl AsFd, name: &str) -> bool {
    let mut text = [0u8; 64];
    let own = open_to_look(folder, name).and_then(|file| {
        let len = rustix::fs::fgetxattr(&file, MARK, &mut text[..])?;
        Ok(text.get(..len) == Some(made_as(&file)?.as_bytes()))
    });
    own.unwrap_or(false)
}

/// Removes files that an engine before has made and that are not wanted any more; gives their names.
pub fn sweep(folder: impl AsFd, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let readable = rustix::fs::openat(&folder, ".", flags, Mode::empty())?;
    let mut removed = Vec::new();
    for entry in rustix::fs::Dir::read_from(readable)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        let is_left = !is_wanted(name) && matches!(look(&folder, name), Ok(Lies::File(_))) && is_own(&folder, name);
        if is_left && rustix::fs::unlinkat(&folder, name, AtFlags::empty()).is_ok() {
            removed.push(name.to_string());
        }
    }
    Ok(removed)
}

/// Feeds the content of a file to `each`, piece by piece.
pub fn read_file(folder: impl AsFd, name: &str, mut each: impl FnMut(&[u8])) -> Result<(), std::io::Error> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(folder, name, flags, Mode::empty())?);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            got => each(&buffer[..got]),
        }
    }
}

fn pin(fd: OwnedFd) -> Result<Pinned, Errno> {
    let st = rustix::fs::fstat(&fd)?;
    Ok(Pinned { fd, dev: st.st_dev, ino: st.st_ino })
}

fn set_time(folder: impl AsFd, name: &str, secs: i64) {
    // The time is a courtesy; a file system that refuses it still serves the bytes.
    let _ = rustix::fs::utimensat(folder, name, &times(secs), AtFlags::SYMLINK_NOFOLLOW);
}

fn times(secs: i64) -> Timestamps {
    let time = Timespec { tv_sec: secs, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    struct Folder(PathBuf);
    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("ossc-place-{}-{name}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Folder(path)
        }
    }
    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn placeholders_are_adopted_and_files_are_not() {
        let dir = Folder::new("adopt");
        let root = Root::open(&dir.0).unwrap();
        let top = root.folder("").unwrap();
        let first = placeholder(&top, "w.bin", 1_000_000).unwrap();
        let again = placeholder(&top, "w.bin", 1_000_000).unwrap();
        assert_eq!((first.dev, first.ino), (again.dev, again.ino));
        let modified = std::fs::metadata(dir.0.join("w.bin")).unwrap().modified().unwrap();
        assert_eq!(modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 1_000_000);
        std::fs::write(dir.0.join("mine"), "x").unwrap();
        assert_eq!(placeholder(&top, "mine", 0).err(), Some(Errno::EXIST));
        assert_eq!(put_file(&top, "mine", b"y", 0).unwrap_err().raw_os_error(), Some(libc::EEXIST));
        assert_eq!(std::fs::read(dir.0.join("mine")).unwrap(), b"x");
        put_file(&top, "w.bin", b"bytes", 5).unwrap();
        assert_eq!(std::fs::read(dir.0.join("w.bin")).unwrap(), b"bytes");
        assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn own_leftovers_are_known_until_somebody_changes_them() {
        let dir = Folder::new("own");
        let top = Root::open(&dir.0).unwrap().folder("").unwrap();
        placeholder(&top, "weights", 7).unwrap();
        put_file(&top, "config", b"{}", 8).unwrap();
        put_file(&top, "edited", b"{}", 9).unwrap();
        std::fs::write(dir.0.join("edited"), "[]").unwrap();
        std::fs::write(dir.0.join("theirs"), "").unwrap();
        if !is_own(&top, "config") {
            return; // No extended attributes on this file system: then nothing is ever removed.
        }
        assert!(is_own(&top, "weights") && !is_own(&top, "edited") && !is_own(&top, "theirs"));
        let mut gone = sweep(&top, |name| name == "weights").unwrap();
        gone.sort();
        assert_eq!(gone, ["config"]);
        assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 3);
    }

    #[test]
    fn links_lead_nowhere() {
        let dir = Folder::new("links");
        let root = Root::open(&dir.0).unwrap();
        std::os::unix::fs::symlink("/tmp", dir.0.join("out")).unwrap();
        assert!(root.folder("out").is_err());
        assert_eq!(root.folder("../x").err(), Some(Errno::INVAL));
        let top = root.folder("").unwrap();
        assert_eq!(look(&top, "out").unwrap(), Lies::Other);
        assert_eq!(placeholder(&top, "out", 0).err(), Some(Errno::EXIST));
        assert!(make_folder(&top, "out").is_err());
        make_folder(&top, "in").unwrap();
        assert!(root.folder("in").is_ok());
    }

    #[test]
    fn a_file_that_is_being_made_is_not_cleaned_away() {
        let dir = Folder::new("in-use");
        let top = Root::open(&dir.0).unwrap().folder("").unwrap();
        let count = || std::fs::read_dir(&dir.0).unwrap().count();
        let fresh = Fresh::make(&top).unwrap();
        let temporary = fresh.name_it(&top, 5).unwrap();
        clean(&top).unwrap();
        assert_eq!(count(), 1, "it is in use");
        rename(&top, &temporary, "done").unwrap();
        let growing = Growing::new(top.try_clone().unwrap()).unwrap();
        growing.write(b"cd", 2).unwrap();
        growing.write(b"ab", 0).unwrap();
        clean(&top).unwrap();
        growing.put("long", 6).unwrap();
        assert_eq!(std::fs::read(dir.0.join("long")).unwrap(), b"abcd");
        let left = Fresh::make(&top).unwrap();
        left.name_it(&top, 5).unwrap();
        drop(left);
        clean(&top).unwrap();
        assert_eq!(count(), 2, "what nobody has open goes");
    }

    #[test]
    fn leftovers_under_temporary_names_go() {
        let dir = Folder::new("clean");
        std::fs::write(dir.0.join(format!("{TEMPORARY}1-2")), "half").unwrap();
        std::fs::write(dir.0.join("keep"), "").unwrap();
        clean(Root::open(&dir.0).unwrap().folder("").unwrap()).unwrap();
        assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 1);
    }
}
