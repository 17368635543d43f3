//! Tests of `made`, on the file system of the temporary folder and on one without attributes where it can be had.

use super::*;
use crate::folder_files::Root;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ossc-made-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn top(&self) -> OwnedFd {
        Root::open(&self.0).unwrap().folder("").unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn purpose<'a>(kind: MarkKind, path: &'a str, etag: &'a str) -> Purpose<'a> {
    Purpose { kind, engine: 5, etag, object_size: 100, path, mtime_secs: 1_000_000 }
}

fn copy_with_attributes(from: &Path, to: &Path) {
    assert!(std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[test]
fn a_placeholder_is_marked_when_it_gets_its_name() {
    let (dir, wanted) = (Folder::new("make"), purpose(MarkKind::Placeholder, "w.bin", "\"1\""));
    let top = dir.top();
    let pinned = make(&top, "w.bin", &wanted).unwrap();
    let found = look(&top, "w.bin").unwrap();
    assert_eq!((found.id.dev, found.id.ino, found.id.size), (pinned.dev, pinned.ino, 0));
    assert!(found.stands_for(&wanted) && found.is_own());
    assert_eq!(std::fs::metadata(dir.path("w.bin")).unwrap().mtime(), 1_000_000);
    for other in [
        purpose(MarkKind::Placeholder, "w.bin", "\"2\""),
        purpose(MarkKind::Coming, "w.bin", "\"1\""),
        purpose(MarkKind::Placeholder, "d/w.bin", "\"1\""),
        Purpose { object_size: 101, ..wanted },
    ] {
        assert!(!found.stands_for(&other), "{other:?}");
    }
    assert_eq!(make(&top, "w.bin", &wanted).err(), Some(Errno::EXIST));
    assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_new_version_never_takes_an_inode_over() {
    let (dir, first) = (Folder::new("replace"), purpose(MarkKind::Placeholder, "w.bin", "\"1\""));
    let top = dir.top();
    let old = make(&top, "w.bin", &first).unwrap();
    let second = purpose(MarkKind::Placeholder, "w.bin", "\"2\"");
    let new = replace(&top, "w.bin", &second, Found::is_own).unwrap();
    assert_ne!((old.dev, old.ino), (new.dev, new.ino));
    assert!(look(&top, "w.bin").unwrap().stands_for(&second));
    std::fs::write(dir.path("w.bin"), "mine").unwrap();
    assert_eq!(replace(&top, "w.bin", &first, Found::is_own).err(), Some(Errno::EXIST));
    assert_eq!(std::fs::read(dir.path("w.bin")).unwrap(), b"mine");
    assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 1);
}

#[test]
fn a_real_file_takes_the_place_of_its_stand_in_alone() {
    let (dir, coming) = (Folder::new("put"), purpose(MarkKind::Coming, "c.json", "\"1\""));
    let top = dir.top();
    let stand_in = make(&top, "c.json", &coming).unwrap();
    let is_stand_in = |found: &Found| (found.id.dev, found.id.ino) == (stand_in.dev, stand_in.ino);
    let finished = Purpose { kind: MarkKind::Finished, ..coming };
    let mut told = None;
    put(&top, "c.json", b"{}", &finished, is_stand_in, |id| told = Some(id)).unwrap();
    let (_, ino) = told.unwrap();
    let found = look(&top, "c.json").unwrap();
    assert!(found.is_own() && found.id.ino == ino && found.etag() == Some("\"1\""));
    assert_eq!(found.id.mtime_nanos, 0);
    // An edit of the same length is a user's.
    std::fs::write(dir.path("c.json"), "[]").unwrap();
    assert!(!look(&top, "c.json").unwrap().is_own());
    let refused = put(&top, "c.json", b"{}", &finished, Found::is_own, |_| ()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EEXIST));
    assert_eq!(std::fs::read(dir.path("c.json")).unwrap(), b"[]");
    put(&top, "new", b"x", &finished, |_| false, |_| ()).unwrap();
    assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 2);
}

#[test]
fn copies_and_renamed_files_are_the_users() {
    let dir = Folder::new("copies");
    let top = dir.top();
    for (name, kind) in
        [("weights", MarkKind::Placeholder), ("moved", MarkKind::Placeholder), ("old", MarkKind::Placeholder)]
    {
        make(&top, name, &purpose(kind, name, "\"1\"")).unwrap();
    }
    put(&top, "config", b"{}", &purpose(MarkKind::Finished, "config", "\"1\""), |_| false, |_| ()).unwrap();
    put(&top, "edited", b"{}", &purpose(MarkKind::Finished, "edited", "\"1\""), |_| false, |_| ()).unwrap();
    copy_with_attributes(&dir.path("weights"), &dir.path("copied weights"));
    copy_with_attributes(&dir.path("config"), &dir.path("copied config"));
    std::fs::rename(dir.path("moved"), dir.path("renamed")).unwrap();
    std::fs::write(dir.path("edited"), "[]").unwrap();
    std::fs::write(dir.path("theirs"), "").unwrap();
    assert!(look(&top, "copied weights").unwrap().made.is_none());
    assert!(look(&top, "theirs").unwrap().made.is_none());
    let mut swept = sweep(&top, "", |name, _| name == "weights").unwrap();
    swept.removed.sort();
    assert_eq!(swept.removed, ["config", "old"]);
    let mut left: Vec<_> = std::fs::read_dir(&dir.0).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["copied config", "copied weights", "edited", "renamed", "theirs", "weights"]);
}

#[test]
fn a_folder_that_is_not_wanted_is_swept_and_users_files_in_it_stay() {
    let dir = Folder::new("below");
    let top = dir.top();
    for name in ["empty", "filled"] {
        let (folder, _) = folder_files::make_folder(&top, name).unwrap();
        mark_folder(&folder, &purpose(MarkKind::Folder, name, ""));
        let inner = Root::open(&dir.0).unwrap().folder(name).unwrap();
        let path = format!("{name}/w");
        make(&inner, "w", &purpose(MarkKind::Placeholder, &path, "\"1\"")).unwrap();
    }
    std::fs::write(dir.path("filled/notes"), "mine").unwrap();
    std::fs::create_dir(dir.path("theirs")).unwrap();
    let mut swept = sweep(&top, "", |_, _| false).unwrap();
    swept.removed.sort();
    assert_eq!(swept.removed, ["empty/w", "filled/w"]);
    assert!(!dir.path("empty").exists() && dir.path("theirs").exists());
    assert_eq!(std::fs::read(dir.path("filled/notes")).unwrap(), b"mine");
}

#[test]
fn an_empty_file_is_adopted_where_it_lies() {
    let (dir, wanted) = (Folder::new("adopt"), purpose(MarkKind::Placeholder, "w", "\"1\""));
    let top = dir.top();
    std::fs::write(dir.path("w"), "").unwrap();
    let ino = std::fs::metadata(dir.path("w")).unwrap().ino();
    let found = look(&top, "w").unwrap();
    assert_eq!(adopt(&top, "w", &wanted, &found).unwrap().ino, ino);
    assert!(look(&top, "w").unwrap().stands_for(&wanted));
}

/// A user fills the empty file before it is marked, or with a mark on it already: it is a user's.
#[test]
fn a_file_that_was_empty_a_moment_ago_is_not_adopted() {
    let (dir, wanted) = (Folder::new("filled"), purpose(MarkKind::Placeholder, "w", "\"1\""));
    let top = dir.top();
    std::fs::write(dir.path("w"), "").unwrap();
    let found = look(&top, "w").unwrap();
    std::fs::write(dir.path("w"), "mine").unwrap();
    assert_eq!(adopt(&top, "w", &wanted, &found).err(), Some(Errno::EXIST));
    assert!(look(&top, "w").unwrap().made.is_none());
    let file = File::open(dir.path("w")).unwrap();
    mark_file(&file, &wanted).unwrap();
    assert!(!look(&top, "w").unwrap().is_own(), "what stands in has no bytes");
    assert!(sweep(&top, "", |_, _| false).unwrap().removed.is_empty());
    unmark(&file);
    assert!(look(&top, "w").unwrap().made.is_none());
    assert_eq!(std::fs::read(dir.path("w")).unwrap(), b"mine");
}

#[test]
fn a_placeholder_without_its_mark_leaves_nothing_when_it_is_replaced() {
    let (dir, wanted) = (Folder::new("unmarked"), purpose(MarkKind::Placeholder, "w", "\"1\""));
    let top = dir.top();
    std::fs::write(dir.path("w"), "").unwrap();
    let found = look(&top, "w").unwrap();
    assert!(found.made.is_none());
    replace(&top, "w", &wanted, |now| *now == found).unwrap();
    assert!(look(&top, "w").unwrap().stands_for(&wanted));
    assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 1);
}

#[test]
fn leftovers_under_temporary_names_go_but_not_what_is_in_use() {
    let dir = Folder::new("clean");
    let top = dir.top();
    let finished = purpose(MarkKind::Finished, "long", "\"1\"");
    let left = format!("{TEMPORARY}1-2");
    put(&top, &left, b"half", &finished, |_| false, |_| ()).unwrap();
    std::fs::write(dir.path("keep"), "").unwrap();
    let growing = Growing::new(dir.top()).unwrap();
    growing.fresh.mark(&finished).unwrap();
    let temporary = growing.fresh.temporary.clone();
    if growing.fresh.nameless {
        growing.fresh.link(&top, &temporary).unwrap();
    }
    clean(&top).unwrap();
    assert!(!dir.path(&left).exists() && dir.path(&temporary).exists() && dir.path("keep").exists());
    std::fs::remove_file(dir.path(&temporary)).unwrap();
}

#[test]
fn a_file_is_written_piece_by_piece_before_it_has_its_name() {
    let (dir, finished) = (Folder::new("growing"), purpose(MarkKind::Finished, "long", "\"1\""));
    let growing = Growing::new(dir.top()).unwrap();
    growing.write(b"cd", 2).unwrap();
    growing.write(b"ab", 0).unwrap();
    assert!(!dir.path("long").exists());
    growing.put("long", &finished, |_| false, |_| ()).unwrap();
    assert_eq!(std::fs::read(dir.path("long")).unwrap(), b"abcd");
    assert!(look(dir.top(), "long").unwrap().is_own());
    let other = Growing::new(dir.top()).unwrap();
    other.write(b"x", 0).unwrap();
    other.drop_it();
    assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 1);
}

#[test]
fn the_file_system_is_asked_what_it_keeps() {
    let dir = Folder::new("probe");
    let keeps = probe(dir.top()).unwrap().unwrap();
    assert_eq!(keeps.file_dev, std::fs::metadata(&dir.0).unwrap().dev());
    assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 0);
}
