//! Which records stand for which paths of MODEL_DIR, and which folders are still to be listed.
//!
//! Called by the mirror under its lock. Pure: it touches no file and no record. Nothing here looks at all
//! objects for one folder, so that a listing costs what its own folder holds.

use std::collections::{BTreeMap, HashMap};

/// Record numbers by path relative to MODEL_DIR.
#[derive(Default)]
pub struct Known {
    folders: HashMap<String, u32>,
    /// By folder, then by name: the newest version of each object.
    objects: HashMap<String, HashMap<String, u32>>,
    /// Folders to be listed in the background, the oldest record first.
    unlisted: BTreeMap<u32, String>,
    /// Folders that held something before they were listed: files of an engine before may be old versions.
    pub filled: Vec<(String, u32)>,
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

    /// Takes a folder in; `unlisted` ones are offered by [`Known::next_unlisted`].
    pub fn add_folder(&mut self, path: String, slot: u32, unlisted: bool) {
        if unlisted {
            self.unlisted.insert(slot, path.clone());
        }
        self.folders.insert(path, slot);
    }

    /// The folder is listed, or shall not be listed unasked any more.
    pub fn not_ahead(&mut self, slot: u32) {
        self.unlisted.remove(&slot);
    }

    /// A folder that nobody has touched yet.
    pub fn next_unlisted(&self) -> Option<(String, u32)> {
        self.unlisted.first_key_value().map(|(slot, path)| (path.clone(), *slot))
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
    }

    #[test]
    fn folders_are_offered_until_they_are_listed() {
        let mut known = Known::default();
        known.add_folder(String::new(), 0, false);
        known.add_folder("b".into(), 5, true);
        known.add_folder("a".into(), 7, true);
        assert_eq!(known.next_unlisted(), Some(("b".into(), 5)));
        known.not_ahead(5);
        assert_eq!(known.next_unlisted(), Some(("a".into(), 7)));
        known.not_ahead(7);
        assert_eq!((known.next_unlisted(), known.folder("b")), (None, Some(5)));
        known.add_folder("a/c".into(), 9, false);
        assert_eq!(known.folders().map(|(path, _)| path).collect::<Vec<_>>(), ["", "a", "b", "a/c"]);
    }
}
