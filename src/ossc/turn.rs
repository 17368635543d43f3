//! Folders that give way to an object of their name: only those that an engine has made, and in which nothing of a
//! user's lies.
//!
//! Called by the mirror. It follows no links, and it removes nothing but files and folders that an engine has made.

use crate::place::{self, Lies};
use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags};
use std::os::fd::{AsFd, OwnedFd};

/// Extended attribute of a folder that an engine has made: its device and inode, so that a copy is not taken for it.
const MARK: &str = "user.ossc.folder";
/// Levels below each other that are looked at.
const DEPTH_MAX: u32 = 64;

/// Marks a folder that an engine has just made. Where the file system has no such attributes, a folder is known by
/// files in it that are an engine's.
pub fn mark(folder: impl AsFd, name: &str) {
    if let Ok(inside) = open(folder, name) {
        let _ = rustix::fs::fsetxattr(&inside, MARK, text(&inside).as_bytes(), XattrFlags::empty());
    }
}

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

fn text(folder: &OwnedFd) -> String {
    rustix::fs::fstat(folder).map_or_else(|_| String::new(), |st| format!("{} {}", st.st_dev, st.st_ino))
}

fn is_marked(folder: &OwnedFd) -> bool {
    let mut found = [0u8; 64];
    let len = rustix::fs::fgetxattr(folder, MARK, &mut found[..]).unwrap_or(0);
    len > 0 && found.get(..len) == Some(text(folder).as_bytes())
}

/// The names in a folder; `None` if they cannot be read.
fn names(folder: &OwnedFd) -> Option<Vec<String>> {
    let entries = rustix::fs::Dir::read_from(folder).ok()?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.ok()?;
        let name = entry.file_name().to_str().ok()?;
        if !matches!(name, "." | "..") {
            names.push(name.to_string());
        }
    }
    Some(names)
}

fn look(folder: impl AsFd, name: &str, depth: u32) -> bool {
    let Ok(inside) = open(folder, name) else { return false };
    let Some(names) = names(&inside).filter(|_| depth > 0) else { return false };
    let is_ours = |name: &String| match place::look(&inside, name) {
        Ok(Lies::File(_)) => place::is_own(&inside, name),
        Ok(Lies::Folder) => look(&inside, name, depth - 1),
        _ => false,
    };
    names.iter().all(is_ours) && (is_marked(&inside) || !names.is_empty())
}

fn clear(folder: impl AsFd, name: &str, depth: u32) {
    let Ok(inside) = open(&folder, name) else { return };
    for name in names(&inside).filter(|_| depth > 0).unwrap_or_default() {
        match place::look(&inside, &name) {
            Ok(Lies::File(_)) if place::is_own(&inside, &name) => drop(place::remove(&inside, &name)),
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
    use crate::place::Root;
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
            place::make_folder(&above, name).unwrap();
            mark(&above, name);
        }
        let below = Root::open(&dir.0).unwrap().folder("d/e").unwrap();
        place::put_file(&below, "f", b"bytes", 7).unwrap();
        place::is_own(&below, "f").then_some(top)
    }

    #[test]
    fn what_only_engines_made_goes() {
        let dir = Folder::new("goes");
        let Some(top) = made(&dir) else { return };
        assert!(gives_way(&top, "d"));
        remove(&top, "d");
        assert_eq!(place::look(&top, "d").unwrap(), Lies::Nothing);
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
        let (dev, ino) = (1, 2);
        let copy = open(&top, "theirs").unwrap();
        assert!(!gives_way(&top, "theirs"));
        let other = format!("{dev} {ino}");
        rustix::fs::fsetxattr(&copy, MARK, other.as_bytes(), XattrFlags::empty()).unwrap();
        assert!(!gives_way(&top, "theirs"), "the attribute came with a copy");
    }
}
