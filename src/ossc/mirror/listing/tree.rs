//! From keys to names in MODEL_DIR. Pure: which keys can be mirrored, and what is in one folder.
//!
//! Called by the mirror with listing pages. It decides by bytes alone and never touches a file system.

use ossc_cache::region::ETAG_MAX;
use ossc_net::list::ObjectEntry;
use std::collections::{BTreeMap, HashSet};

/// Longest name in a folder in bytes (NAME_MAX of Linux).
pub const NAME_BYTES_MAX: usize = 255;

/// What a listing says about one folder.
#[derive(Debug, Default)]
pub struct Level {
    /// Sub-folders by name.
    pub folders: Vec<String>,
    /// Objects by name.
    pub objects: BTreeMap<String, ObjectEntry>,
    /// Keys that cannot be mirrored, with the reason.
    pub skipped: Vec<(String, String)>,
    /// When OSS answered, by its own clock: seconds since 1970.
    pub date: Option<i64>,
}

impl Level {
    /// Sorts what was listed under `prefix` (empty, or ending in `/`).
    pub fn new(prefix: &str, objects: Vec<ObjectEntry>, prefixes: &[String]) -> Level {
        let mut level = Level::default();
        for folder in prefixes {
            let name = folder.strip_prefix(prefix).unwrap_or(folder);
            match refusal(name.strip_suffix('/').unwrap_or(name)) {
                None => level.folders.push(name.trim_end_matches('/').to_string()),
                Some(why) => level.skipped.push((folder.clone(), why.to_string())),
            }
        }
        let folders: HashSet<String> = level.folders.iter().cloned().collect();
        for object in objects {
            let name = object.key.strip_prefix(prefix).unwrap_or(&object.key).to_string();
            if name.is_empty() {
                // The folder's own marker object.
                continue;
            }
            let why = match refusal(&name) {
                None if folders.contains(&name) => Some("a folder has the same name"),
                None if object.etag.is_empty() => Some("the listing names no ETag, so its version cannot be held"),
                None if object.etag.len() > ETAG_MAX => Some("its ETag is too long"),
                other => other,
            };
            match why {
                None => drop(level.objects.insert(name, object)),
                Some(why) => level.skipped.push((object.key.clone(), why.to_string())),
            }
        }
        level
    }
}

/// Why a name cannot be a file's or folder's name; `None` if it can.
fn refusal(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("an empty name between slashes"),
        "." | ".." => Some("it would leave the folder"),
        _ if name.len() > NAME_BYTES_MAX => Some("the name is longer than 255 bytes"),
        _ if name.contains('\0') => Some("it holds a NUL byte"),
        _ if name.contains('/') => Some("it holds a slash"),
        _ if name.starts_with(crate::folder_files::TEMPORARY) => {
            Some("the name is reserved for files that are being written")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str) -> ObjectEntry {
        ObjectEntry { key: key.into(), etag: "\"E\"".into(), ..ObjectEntry::default() }
    }

    #[test]
    fn one_level_of_names() {
        let prefixes = ["m/sub/".to_string(), "m/both/".into(), "m//".into(), "m/../".into()];
        let keys = ["m/", "m/config.json", "m/both", "m/.", &format!("m/{}", "x".repeat(256)), "m/a\0b", "m/ü +%.txt"];
        let level = Level::new("m/", keys.iter().map(|key| object(key)).collect(), &prefixes);
        assert_eq!(level.folders, ["sub", "both"]);
        assert_eq!(level.objects.keys().collect::<Vec<_>>(), ["config.json", "ü +%.txt"]);
        let skipped: Vec<&str> = level.skipped.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(skipped.len(), 6);
        assert!(skipped.contains(&"m//") && skipped.contains(&"m/../") && skipped.contains(&"m/both"));
    }

    #[test]
    fn versions_that_cannot_be_held_are_skipped() {
        let of = |etag: String| ObjectEntry { key: "k".into(), etag, ..ObjectEntry::default() };
        for etag in [String::new(), "x".repeat(ETAG_MAX + 1)] {
            let level = Level::new("", vec![of(etag)], &[]);
            assert_eq!((level.objects.len(), level.skipped.len()), (0, 1));
        }
    }

    #[test]
    fn names_that_linux_takes_are_taken_as_they_are() {
        let names = ["a\nb", "\u{7f}\u{1b}[31m", "e\u{301}", "\u{e9}", " ", "-rf", "a\\b", &"x".repeat(255)];
        let level = Level::new("", names.iter().map(|name| object(name)).collect(), &[]);
        assert_eq!((level.objects.len(), level.skipped.len()), (names.len(), 0));
    }

    #[test]
    fn a_whole_bucket() {
        let level = Level::new("", vec![object("/lead"), object("a")], &["/".into(), "d/".into()]);
        assert_eq!((level.folders.as_slice(), level.objects.len()), (["d".to_string()].as_slice(), 1));
        assert_eq!(level.skipped.len(), 2);
    }
}
