//! Which records stand for which paths of MODEL_DIR, and which folders are still to be listed.
//!
//! Called by the mirror under its lock. Pure: it touches no file and no record. Nothing here looks at all
//! objects for one folder, so that a listing costs what its own folder holds.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::SystemTime;

/// Most folders in one that are listed ahead of their use.
const FEW: usize = 32;
/// Folders that wait for that.
const AHEAD_MAX: usize = 256;

/// Record numbers by path relative to MODEL_DIR.
#[derive(Default)]
pub struct Known {
    folders: HashMap<String, u32>,
    /// By folder, then by name: the newest version of each object.
    objects: HashMap<String, HashMap<String, u32>>,
    /// By folder, then by name: records of users' files that lie at the places of objects.
    theirs: HashMap<String, HashMap<String, u32>>,
    /// Folders that may be listed before a program uses them, in this order.
    ahead: VecDeque<String>,
    /// When the listing that a folder shows was asked for.
    listed: HashMap<String, SystemTime>,
    /// Folders that programs wanted and that could not be listed, or listed again, when that was tried last.
    unlisted: BTreeMap<String, NotListed>,
}

/// A folder that could not be listed when that was tried last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotListed {
    /// In words.
    pub why: String,
    /// It was listed before, and programs are served on by that; else they get an error.
    pub shows_older: bool,
}

impl Known {
    /// The record of a folder.
    pub fn folder(&self, path: &str) -> Option<u32> {
        self.folders.get(path).copied()
    }

    /// All folders with their records, those at the top first.
    pub fn folders(&self) -> impl Iterator<Item = (&str, u32)> {
        let mut all: Vec<(&str, u32)> = self.folders.iter().map(|(path, slot)| (path.as_str(), *slot)).collect();
        all.sort_by_key(|(path, _)| (path.matches('/').count() + usize::from(!path.is_empty()), *path));
        all.into_iter()
    }

    /// The names of a folder's objects.
    pub fn names_of(&self, folder: &str) -> impl Iterator<Item = &str> {
        self.objects.get(folder).into_iter().flat_map(|names| names.keys().map(String::as_str))
    }

    /// Takes a folder in.
    pub fn add_folder(&mut self, path: String, slot: u32) {
        self.folders.insert(path, slot);
    }

    /// These folders, which lie in `path`, may be listed ahead. A folder with many is no model's: those in it are listed
    /// when programs use them.
    pub fn offer(&mut self, path: &str, folders: &[String]) {
        if folders.len() <= FEW {
            // Those of the folder that was used last are the likeliest to be used next.
            folders.iter().rev().for_each(|name| self.ahead.push_front(crate::mirror::below(path, name)));
        }
        self.ahead.truncate(AHEAD_MAX);
    }

    /// A folder holds something of an engine before, which may be of old versions.
    pub fn offer_first(&mut self, path: &str) {
        self.ahead.push_front(path.to_string());
        self.ahead.truncate(AHEAD_MAX);
    }

    /// The next folder to be listed ahead, if there is one.
    pub fn next_ahead(&mut self) -> Option<String> {
        self.ahead.pop_front()
    }

    /// The record of an object.
    pub fn object(&self, folder: &str, name: &str) -> Option<u32> {
        self.objects.get(folder)?.get(name).copied()
    }

    /// Takes an object in, given by its path.
    pub fn add_object(&mut self, path: &str, slot: u32) {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        match self.objects.get_mut(folder) {
            Some(names) => names.insert(name.to_string(), slot),
            None => self.objects.entry(folder.to_string()).or_default().insert(name.to_string(), slot),
        };
    }

    /// An object is in the folder no longer.
    pub fn remove_object(&mut self, folder: &str, name: &str) {
        if let Some(names) = self.objects.get_mut(folder) {
            names.remove(name);
        }
    }

    /// Takes a user's file in that lies at an object's place, given by its path.
    pub fn add_theirs(&mut self, path: &str, slot: u32) {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.theirs.entry(folder.to_string()).or_default().insert(name.to_string(), slot);
    }

    /// Those of a folder are to be looked at anew: what was known of them.
    pub fn take_theirs(&mut self, folder: &str) -> HashMap<String, u32> {
        self.theirs.remove(folder).unwrap_or_default()
    }

    /// A folder and all below it are there no longer; the records of both kinds.
    pub fn remove_folder(&mut self, path: &str) -> (Vec<u32>, Vec<u32>) {
        let is_below =
            |other: &str| other.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let paths: Vec<String> = self.folders.keys().filter(|other| is_below(other)).cloned().collect();
        let mut folders = Vec::new();
        let mut objects = Vec::new();
        for path in paths {
            objects.extend(self.objects.remove(&path).into_iter().flat_map(HashMap::into_values));
            objects.extend(self.take_theirs(&path).into_values());
            folders.extend(self.folders.remove(&path));
            self.listed.remove(&path);
            self.unlisted.remove(&path);
        }
        self.ahead.retain(|path| !is_below(path));
        (folders, objects)
    }

    /// The folder shows a listing that was asked for at this time.
    pub fn listed(&mut self, path: &str, at: SystemTime) {
        self.listed.insert(path.to_string(), at);
        self.unlisted.remove(path);
    }

    /// The folder could not be listed.
    pub fn not_listed(&mut self, path: &str, found: NotListed) {
        self.unlisted.insert(path.to_string(), found);
    }

    /// Folders that could not be listed when that was tried last, with the reasons.
    pub fn unlisted(&self) -> &BTreeMap<String, NotListed> {
        &self.unlisted
    }

    /// When the listing that a folder shows was asked for; `None` if an engine before has made it.
    pub fn listed_at(&self, path: &str) -> Option<SystemTime> {
        self.listed.get(path).copied()
    }

    /// Names and records of the objects of one folder.
    pub fn named_objects_of(&self, folder: &str) -> Vec<(String, u32)> {
        let names = self.objects.get(folder).into_iter().flatten();
        names.map(|(name, slot)| (name.clone(), *slot)).collect()
    }

    /// The records of the objects of one folder.
    pub fn objects_of(&self, folder: &str) -> Vec<u32> {
        self.objects.get(folder).map_or_else(Vec::new, |names| names.values().copied().collect())
    }

    /// How many objects there are.
    pub fn objects_len(&self) -> usize {
        self.objects.values().map(HashMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_by_folder_and_name() {
        let mut known = Known::default();
        known.add_object("a", 1);
        known.add_object("d/a", 2);
        known.add_object("d/a", 3);
        known.add_object("d/e/a", 4);
        assert_eq!((known.object("", "a"), known.object("d", "a"), known.object("d", "e")), (Some(1), Some(3), None));
        assert_eq!((known.objects_of("d"), known.objects_of("x").len(), known.objects_len()), (vec![3], 0, 3));
        assert_eq!(known.named_objects_of("d"), [("a".to_string(), 3)]);
        known.remove_object("d", "a");
        known.remove_object("x", "a");
        assert_eq!((known.object("d", "a"), known.object("", "a")), (None, Some(1)));
    }

    #[test]
    fn what_is_there_no_longer_is_forgotten() {
        let mut known = Known::default();
        for (path, slot) in [("", 0), ("d", 1), ("d/e", 2), ("dd", 3)] {
            known.add_folder(path.into(), slot);
        }
        for (path, slot) in [("d/a", 4), ("d/e/b", 5), ("dd/c", 6), ("a", 7)] {
            known.add_object(path, slot);
        }
        known.listed("d", SystemTime::UNIX_EPOCH);
        for path in ["d/e", "dd", "d"] {
            known.not_listed(path, NotListed { why: "why".into(), shows_older: false });
        }
        known.listed("d", SystemTime::UNIX_EPOCH);
        assert_eq!(known.unlisted().keys().collect::<Vec<_>>(), ["d/e", "dd"]);
        known.offer("d", &["e".into()]);
        known.remove_object("", "a");
        assert_eq!(known.object("", "a"), None);
        let (mut folders, mut objects) = known.remove_folder("d");
        folders.sort_unstable();
        objects.sort_unstable();
        assert_eq!((folders, objects), (vec![1, 2], vec![4, 5]));
        assert_eq!((known.folder("dd"), known.named_objects_of("dd")), (Some(3), vec![("c".to_string(), 6)]));
        assert_eq!((known.next_ahead(), known.listed_at("d")), (None, None));
        assert_eq!(known.unlisted().keys().collect::<Vec<_>>(), ["dd"]);
    }

    #[test]
    fn folders_of_a_few_are_offered_and_those_of_the_newest_first() {
        let mut known = Known::default();
        for (path, slot) in [("", 0), ("b", 5), ("a", 7), ("a/c", 9)] {
            known.add_folder(path.into(), slot);
        }
        assert_eq!(known.folders().map(|(path, _)| path).collect::<Vec<_>>(), ["", "a", "b", "a/c"]);
        known.offer("", &["a".into(), "b".into()]);
        known.offer("a", &["c".into()]);
        let many: Vec<String> = (0..=FEW).map(|n| format!("m{n}")).collect();
        known.offer("a/c", &many);
        known.offer_first("b");
        let offered: Vec<String> = std::iter::from_fn(|| known.next_ahead()).collect();
        assert_eq!(offered, ["b", "a/c", "a", "b"]);
        known.offer("x", &many[1..]);
        assert_eq!(known.next_ahead(), Some("x/m1".into()));
    }
}
