//! Folders that give way to an object of their name: only those that an engine has made, and in which nothing of a
//! user's lies.
//!
//! Called by the mirror. It follows no links, and it removes nothing but files and folders that an engine has made.

use crate::folder_files::{self, Lies};
use crate::mirror::made;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::os::fd::{AsFd, OwnedFd};

/// Levels below each other that are looked at.
const DEPTH_MAX: u32 = 64;

/// True for a folder that only engines have made, with all that is in it.
pub fn gives_way(folder: impl AsFd, name: &str) -> bool {
    look(folder, name, DEPTH_MAX)
}

/// Removes such a folder; what is a user's by now keeps it from going.
pub fn remove(folder: impl AsFd, name: &str) {
    if look(&folder, name, DEPTH_MAX) {
        clear(&folder, name, DEPTH_MAX);
    }
}

fn open(folder: impl AsFd, name: &str) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty())
}

fn look(folder: impl AsFd, name: &str, depth: u32) -> bool {
    let Ok(inside) = open(folder, name) else { return false };
    let Some(names) = made::names(&inside).ok().filter(|_| depth > 0) else { return false };
    let is_ours = |name: &String| match folder_files::look(&inside, name) {
        Ok(Lies::File(_)) => made::look(&inside, name).is_ok_and(|found| found.is_own()),
        Ok(Lies::Folder) => look(&inside, name, depth - 1),
        _ => false,
    };
    names.iter().all(is_ours) && (made::is_own_folder(&inside) || !names.is_empty())
}

fn clear(folder: impl AsFd, name: &str, depth: u32) {
    let Ok(inside) = open(&folder, name) else { return };
    for name in made::names(&inside).ok().filter(|_| depth > 0).unwrap_or_default() {
        match folder_files::look(&inside, &name) {
            Ok(Lies::File(_)) if made::look(&inside, &name).is_ok_and(|found| found.is_own()) => {
                let _ = rustix::fs::unlinkat(&inside, name.as_str(), AtFlags::empty());
            }
            Ok(Lies::Folder) => clear(&inside, &name, depth - 1),
            _ => {}
        }
    }
    // Not of a folder that has something in it.
    let _ = rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder_files::Root;
    use ossc_cache::mark::MarkKind;
    use std::path::PathBuf;

    struct Folder(PathBuf);
    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("ossc-turn-{}-{name}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Folder(path)
        }
    }
    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// A folder with a file and a folder in it, as an engine makes them; `None` without extended attributes.
    fn made(dir: &Folder) -> Option<OwnedFd> {
        let top = Root::open(&dir.0).unwrap().folder("").unwrap();
        for path in ["d", "d/e"] {
            let (above, name) = path.rsplit_once('/').map_or(("", path), |(above, name)| (above, name));
            let above = Root::open(&dir.0).unwrap().folder(above).unwrap();
            let (folder, _) = folder_files::make_folder(&above, name).unwrap();
            made::mark_folder(&folder, &purpose(MarkKind::Folder));
        }
        let below = Root::open(&dir.0).unwrap().folder("d/e").unwrap();
        made::put(&below, "f", b"bytes", &purpose(MarkKind::Finished), |_| true, |_| ()).unwrap();
        made::is_own_folder(&below).then_some(top)
    }

    fn purpose(kind: MarkKind) -> made::Purpose<'static> {
        made::Purpose { kind, engine: 1, etag: "\"E\"", object_size: 5, path: "", mtime_secs: 7 }
    }

    #[test]
    fn what_only_engines_made_goes() {
        let dir = Folder::new("goes");
        let Some(top) = made(&dir) else { return };
        assert!(gives_way(&top, "d"));
        remove(&top, "d");
        assert_eq!(folder_files::look(&top, "d").unwrap(), Lies::Nothing);
    }

    #[test]
    fn a_users_file_or_folder_keeps_it() {
        for what in ["file", "folder", "link"] {
            let dir = Folder::new(what);
            let Some(top) = made(&dir) else { return };
            let place = dir.0.join("d/e/mine");
            match what {
                "file" => std::fs::write(place, "x").unwrap(),
                "folder" => std::fs::create_dir(place).unwrap(),
                _ => std::os::unix::fs::symlink("f", place).unwrap(),
            }
            assert!(!gives_way(&top, "d"), "{what}");
            remove(&top, "d");
            assert!(dir.0.join("d/e/f").exists(), "{what}");
        }
    }

    #[test]
    fn an_empty_folder_of_a_users_and_a_copy_of_ours_stay() {
        let dir = Folder::new("empty");
        let Some(top) = made(&dir) else { return };
        std::fs::create_dir(dir.0.join("theirs")).unwrap();
        assert!(!gives_way(&top, "theirs"));
        let mut mark = [0u8; 2048];
        let of = open(&top, "d").unwrap();
        let len = rustix::fs::fgetxattr(&of, "user.ossc.made", &mut mark[..]).unwrap();
        let copy = open(&top, "theirs").unwrap();
        rustix::fs::fsetxattr(&copy, "user.ossc.made", &mark[..len], rustix::fs::XattrFlags::empty()).unwrap();
        assert!(!gives_way(&top, "theirs"), "the attribute came with a copy");
    }
}
