//! Folders inside MODEL_DIR, and what lies in them.
//!
//! Called by the mirror and by `made`, which makes files. Every step goes from a folder's descriptor to one name in it, never through a
//! symbolic link, so nothing is ever touched outside MODEL_DIR; what is a user's is never overwritten.

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How names of files under construction begin.
pub const TEMPORARY: &str = ".ossc-tmp-";
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
    /// How many there are of those that are counted, this one among them.
    counted: Option<Arc<AtomicUsize>>,
    /// st_dev.
    pub dev: u64,
    /// st_ino.
    pub ino: u64,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(count) = &self.counted {
            count.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Pinned {
    /// It is one of these from now on, until it goes.
    pub fn count_in(&mut self, count: &Arc<AtomicUsize>) {
        if self.counted.is_none() {
            count.fetch_add(1, Ordering::AcqRel);
            self.counted = Some(count.clone());
        }
    }

    /// Its descriptor.
    pub fn descriptor(&self) -> i32 {
        std::os::fd::AsRawFd::as_raw_fd(&self.fd)
    }

    /// What tells it from later files with its number; 0 where nothing does.
    pub fn incarnation(&self) -> u64 {
        ossc_cache::mark::incarnation(self.descriptor()).unwrap_or(0)
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

    /// The folder itself, opened to be read.
    pub fn opened(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, ".", flags, Mode::empty())
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

/// True for what says that nothing can be made at a name for now, whatever lies there: no access, no room, no quota, a
/// read-only file system, a fault of the disk.
pub fn refuses_new(error: Errno) -> bool {
    let for_good = matches!(error, Errno::EXIST | Errno::NOTDIR | Errno::LOOP | Errno::MLINK);
    !for_good && !refuses_name(error)
}

/// What the user can do where a file or folder cannot be made.
pub fn advice(error: Errno) -> &'static str {
    match error {
        Errno::ACCESS | Errno::PERM => "let this user write there, or choose another MODEL_DIR",
        Errno::ROFS => "mount it to be written to, or choose another MODEL_DIR",
        Errno::NOSPC | Errno::DQUOT => "make room there, or choose another MODEL_DIR",
        Errno::STALE => {
            "its file system (an overlay, or one of a network) has changed the inode number of a new file: start once more, or choose a MODEL_DIR on a local disk or a volume"
        }
        _ => "choose a MODEL_DIR on a local disk or a volume",
    }
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
pub fn free_bytes(folder: impl AsFd) -> Result<u64, Errno> {
    let fs = rustix::fs::fstatvfs(folder)?;
    Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
}

/// Makes a folder unless it is there; gives its identity with a descriptor, and whether it was made now.
pub fn make_folder(folder: impl AsFd, name: &str) -> Result<(Pinned, bool), Errno> {
    let is_new = match rustix::fs::mkdirat(&folder, name, FOLDER_MODE) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        // A policy or a file system may refuse before it looks what is there.
        Err(_) if look(&folder, name) == Ok(Lies::Folder) => false,
        Err(e) => return Err(e),
    };
    // What is new is opened to be marked; what a user has made may be closed to this one.
    let access = if is_new { OFlags::RDONLY } else { OFlags::PATH };
    let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pinned = pin(rustix::fs::openat(folder, name, flags, Mode::empty())?)?;
    Ok((pinned, is_new))
}

/// The file that lies at `name`, whatever it is; links are not followed.
pub fn pinned(folder: impl AsFd, name: &str) -> Result<Pinned, Errno> {
    pin(rustix::fs::openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
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
    Ok(Pinned { fd, counted: None, dev: st.st_dev, ino: st.st_ino })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    struct Folder(PathBuf);
    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("ossc-folder-files-{}-{name}", std::process::id()));
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
    fn links_lead_nowhere() {
        let dir = Folder::new("links");
        let root = Root::open(&dir.0).unwrap();
        std::os::unix::fs::symlink("/tmp", dir.0.join("out")).unwrap();
        assert!(root.folder("out").is_err());
        assert_eq!(root.folder("../x").err(), Some(Errno::INVAL));
        let top = root.folder("").unwrap();
        assert_eq!(look(&top, "out").unwrap(), Lies::Other);
        assert!(make_folder(&top, "out").is_err());
        make_folder(&top, "in").unwrap();
        assert!(root.folder("in").is_ok());
    }
}
