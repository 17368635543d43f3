//! The folder tree seen as buckets and keys. Called by `list`, `object` and the up-front
//! hashing. Never leaves the root by `..`, never opens anything but regular files. Symbolic
//! links to files are followed (the owner of the tree put them there); links to folders are not
//! walked, except as a bucket.

use crate::catalog::{Catalog, Facts};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::iter::Peekable;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An empty file of this name in a folder F is the object `F/` of size 0.
pub(crate) const FOLDER_MARKER: &[u8] = b".folder-marker";

/// Identity of a file's content as far as the kernel tells: a replaced or rewritten file has
/// another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub dev: u64,
    pub inode: u64,
    pub size: u64,
    pub mtime_ns: i128,
    pub ctime_ns: i128,
}

impl Stamp {
    pub(crate) fn of(meta: &Metadata) -> Self {
        let ns = |sec: i64, nsec: i64| i128::from(sec) * 1_000_000_000 + i128::from(nsec);
        Self {
            dev: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Seconds since 1970 of the last change of content: Last-Modified.
    pub(crate) fn modified_sec(&self) -> i64 {
        self.mtime_ns.div_euclid(1_000_000_000) as i64
    }
}

/// An object opened for reading.
pub(crate) struct Open {
    pub file: File,
    pub path: PathBuf,
    pub stamp: Stamp,
}

/// What a walk meets. Keys come in byte order.
pub(crate) trait Visit {
    /// Whether to descend into the folder whose keys all start with `key` (ends in `/`).
    fn enter(&mut self, key: &[u8]) -> bool;
    /// Whether this key is of any use, asked before its file is looked at.
    fn wants(&self, _key: &[u8]) -> bool {
        true
    }
    /// One object.
    fn object(&mut self, key: &[u8], path: &Path, stamp: Stamp) -> ControlFlow<()>;
}

/// The root folder, and what is told of objects beside it.
pub(crate) struct Store {
    root: PathBuf,
    catalog: Catalog,
}

/// The link object itself has no bytes.
const LINK: &str = "/dev/null";

impl Store {
    /// `catalog` is a file of further objects (CATALOG.md).
    pub(crate) fn new(root: &Path, catalog: Option<&Path>) -> io::Result<Self> {
        let named =
            |what: &str, path: &Path, e: io::Error| io::Error::new(e.kind(), format!("{what} {}: {e}", path.display()));
        let found = root.canonicalize().map_err(|e| named("root", root, e))?;
        if !found.is_dir() {
            return Err(named("root", root, io::ErrorKind::NotADirectory.into()));
        }
        let root = found;
        let open = |path: &Path| Catalog::open(path, &root).map_err(|e| named("catalog", path, e));
        let catalog = catalog.map(open).transpose()?.unwrap_or_default();
        Ok(Self { root, catalog })
    }

    /// The bucket's folder, if there is one.
    pub(crate) fn bucket(&self, name: &str) -> Option<PathBuf> {
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        let path = self.root.join(name);
        (plain && path.is_dir()).then_some(path)
    }

    /// Names of all buckets, sorted.
    pub(crate) fn buckets(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            if let Ok(name) = entry?.file_name().into_string()
                && self.bucket(&name).is_some()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// What is told of an object beside the tree.
    pub(crate) fn facts(&self, bucket: &Path, key: &[u8]) -> Option<&Facts> {
        self.keys(bucket).get(key)
    }

    fn keys(&self, bucket: &Path) -> &BTreeMap<Vec<u8>, Facts> {
        self.catalog.bucket(bucket.file_name().and_then(OsStr::to_str).unwrap_or_default())
    }

    /// Opens the object `key` below a bucket's folder, which is the target's if it is a symbolic
    /// link; NotFound if it is none.
    pub(crate) fn open(&self, bucket: &Path, key: &[u8]) -> io::Result<Open> {
        match self.facts(bucket, key) {
            Some(Facts { target: Some(target), .. })
                if self.facts(bucket, target).is_some_and(|f| f.target.is_some()) =>
            {
                Err(io::ErrorKind::NotFound.into())
            }
            Some(Facts { target: Some(target), .. }) => self.open(bucket, target),
            Some(Facts { file: Some(path), .. }) => {
                let file = File::open(path)?;
                let stamp = Stamp::of(&file.metadata()?);
                Ok(Open { file, path: path.clone(), stamp })
            }
            _ => Self::open_in_tree(bucket, key),
        }
    }

    fn open_in_tree(bucket: &Path, key: &[u8]) -> io::Result<Open> {
        let path = bucket.join(OsStr::from_bytes(&file_key(key).ok_or(io::ErrorKind::NotFound)?));
        // O_NONBLOCK: a FIFO in the tree must not hold the connection's thread.
        let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
        let file = opened.map_err(|e| match e.raw_os_error() {
            Some(libc::ENOTDIR | libc::ENAMETOOLONG | libc::ENXIO) => io::ErrorKind::NotFound.into(),
            _ => e,
        })?;
        let meta = file.metadata()?;
        let marker = path.file_name().is_some_and(|n| n.as_bytes() == FOLDER_MARKER);
        if !meta.is_file() || (marker && (meta.len() == 0) != key.ends_with(b"/")) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Open { file, path, stamp: Stamp::of(&meta) })
    }

    /// Visits the objects below a bucket's folder in byte order of their keys.
    pub(crate) fn walk(&self, bucket: &Path, visit: &mut dyn Visit) -> io::Result<()> {
        let others = self.keys(bucket).iter().filter(|(_, facts)| facts.file.is_some() || facts.target.is_some());
        let mut merged = Merged { others: others.peekable(), visit };
        if walk_folder(bucket, &mut Vec::new(), &mut merged)?.is_continue() {
            let _ = merged.catch_up(None);
        }
        Ok(())
    }
}

/// Puts the keys that are no files between those that are.
struct Merged<'a, I: Iterator<Item = (&'a Vec<u8>, &'a Facts)>> {
    others: Peekable<I>,
    visit: &'a mut dyn Visit,
}

impl<'a, I: Iterator<Item = (&'a Vec<u8>, &'a Facts)>> Merged<'a, I> {
    /// Visits those before `key`, or all that are left.
    fn catch_up(&mut self, key: Option<&[u8]>) -> ControlFlow<()> {
        while let Some((other, facts)) = self.others.next_if(|(other, _)| key.is_none_or(|key| other.as_slice() < key))
        {
            if !self.visit.wants(other) {
                continue;
            }
            let path = facts.file.as_deref().unwrap_or(Path::new(LINK));
            if let Ok(meta) = fs::metadata(path) {
                self.visit.object(other, path, Stamp::of(&meta))?;
            }
        }
        ControlFlow::Continue(())
    }
}

impl<'a, I: Iterator<Item = (&'a Vec<u8>, &'a Facts)>> Visit for Merged<'a, I> {
    fn enter(&mut self, key: &[u8]) -> bool {
        self.visit.enter(key)
    }

    fn object(&mut self, key: &[u8], path: &Path, stamp: Stamp) -> ControlFlow<()> {
        self.catch_up(Some(key))?;
        self.visit.object(key, path, stamp)
    }
}

/// The relative path of a key; `None` if no path can stand for it.
fn file_key(key: &[u8]) -> Option<Vec<u8>> {
    let mut path = key.to_vec();
    if key.ends_with(b"/") {
        path.extend_from_slice(FOLDER_MARKER);
    }
    let plain = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.contains(&0);
    path.split(|b| *b == b'/').all(plain).then_some(path)
}

/// Sorting entries as `name` (files) and `name/` (folders) yields the byte order of whole keys.
fn walk_folder(folder: &Path, key: &mut Vec<u8>, visit: &mut dyn Visit) -> io::Result<ControlFlow<()>> {
    let mut names: Vec<(Vec<u8>, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let mut name = entry.file_name().as_bytes().to_vec();
        if entry.file_type()?.is_dir() {
            name.push(b'/');
        } else if name == FOLDER_MARKER && !key.is_empty() && entry.metadata().is_ok_and(|m| m.len() == 0) {
            name.clear();
        } else if name == FOLDER_MARKER && key.is_empty() {
            continue;
        }
        names.push((name, entry.path()));
    }
    names.sort();
    let depth = key.len();
    for (name, path) in names {
        key.truncate(depth);
        key.extend_from_slice(&name);
        let flow = if name.ends_with(b"/") {
            if visit.enter(key) { still_there(walk_folder(&path, key, visit))? } else { ControlFlow::Continue(()) }
        } else {
            match fs::metadata(&path) {
                Ok(meta) if meta.is_file() => visit.object(key, &path, Stamp::of(&meta)),
                // Removed meanwhile, a dangling link, or not a file: not an object.
                _ => ControlFlow::Continue(()),
            }
        };
        if flow.is_break() {
            return Ok(flow);
        }
    }
    key.truncate(depth);
    Ok(ControlFlow::Continue(()))
}

/// A folder removed during the walk has no objects.
fn still_there(walked: io::Result<ControlFlow<()>>) -> io::Result<ControlFlow<()>> {
    match walked {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(ControlFlow::Continue(())),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::file_key;

    #[test]
    fn keys_that_are_paths() {
        assert_eq!(file_key(b"a/b.bin").unwrap(), b"a/b.bin");
        assert_eq!(file_key(b"a/").unwrap(), b"a/.folder-marker");
        for bad in [&b""[..], b"/a", b"a//b", b"../a", b"a/../b", b"a/..", b".", b"a/./b", b"a\0b", b"/", b"//"] {
            assert_eq!(file_key(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
