//! Objects that the folder tree cannot express: keys that are no paths, symbolic links of OSS,
//! storage classes. Read once from a JSON file (CATALOG.md); asked by `store`, `list` and `object`.
//! Never holds bytes: the content of an object is a file below the root.

use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One entry of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    bucket: String,
    /// The key as text, or its bytes in hex.
    key: Option<String>,
    key_hex: Option<String>,
    /// The content: a file, relative to the root. Absent: the key is a file of the tree.
    file: Option<PathBuf>,
    /// Makes it a symbolic link to this key of the same bucket.
    target: Option<String>,
    /// StorageClass, `Standard` if absent.
    class: Option<String>,
    /// RestoreInfo and x-oss-restore, as OSS writes it.
    restore: Option<String>,
}

/// What the file says of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Where its content is; `None` for a file of the tree.
    pub file: Option<PathBuf>,
    pub target: Option<Vec<u8>>,
    class: Option<String>,
    pub restore: Option<String>,
}

impl Facts {
    pub(crate) fn class(&self) -> &str {
        self.class.as_deref().unwrap_or("Standard")
    }

    /// Whether GET is refused: an archive class that is not restored.
    pub(crate) fn is_archived(&self) -> bool {
        let archive = ["Archive", "ColdArchive", "DeepColdArchive"].contains(&self.class());
        let restored = self.restore.as_deref().is_some_and(|text| text.contains("ongoing-request=\"false\""));
        archive && !restored
    }
}

type Keys = BTreeMap<Vec<u8>, Facts>;

/// See the module.
#[derive(Default)]
pub(crate) struct Catalog {
    buckets: HashMap<String, Keys>,
    none: Keys,
}

impl Catalog {
    /// Reads the file; contents must exist below `root`.
    pub(crate) fn open(path: &Path, root: &Path) -> io::Result<Self> {
        let entries: Vec<Entry> = serde_json::from_slice(&fs::read(path)?)?;
        let mut catalog = Self::default();
        for (index, entry) in entries.into_iter().enumerate() {
            let bucket = entry.bucket.clone();
            let (key, facts) = entry
                .facts(root)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("entry {}: {e}", index + 1)))?;
            catalog.buckets.entry(bucket).or_default().insert(key, facts);
        }
        Ok(catalog)
    }

    /// What is said of the keys of a bucket, in byte order.
    pub(crate) fn bucket(&self, name: &str) -> &Keys {
        self.buckets.get(name).unwrap_or(&self.none)
    }
}

impl Entry {
    fn facts(self, root: &Path) -> Result<(Vec<u8>, Facts), String> {
        let key = match (self.key, self.key_hex) {
            (Some(key), None) => key.into_bytes(),
            (None, Some(hex)) => from_hex(&hex).ok_or("key_hex is not hex")?,
            _ => return Err("give either key or key_hex".into()),
        };
        let file = self.file.map(|file| root.join(file));
        if let Some(file) = file.as_ref().filter(|file| !file.is_file()) {
            return Err(format!("{} is no file", file.display()));
        }
        if key.is_empty() || (file.is_some() && self.target.is_some()) {
            return Err("the key is empty, or there is both a file and a target".into());
        }
        let target = self.target.map(String::into_bytes);
        Ok((key, Facts { file, target, class: self.class, restore: self.restore }))
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex() {
        assert_eq!(from_hex("00ffA0"), Some(vec![0, 255, 160]));
        assert_eq!((from_hex("0"), from_hex("0g")), (None, None));
    }

    #[test]
    fn restored_archives_are_readable() {
        let facts = |class: &str, restore: Option<&str>| Facts {
            class: Some(class.into()),
            restore: restore.map(Into::into),
            ..Facts::default()
        };
        assert!(facts("ColdArchive", None).is_archived());
        assert!(facts("Archive", Some("ongoing-request=\"true\"")).is_archived());
        assert!(!facts("Archive", Some("ongoing-request=\"false\", expiry-date=\"x\"")).is_archived());
        assert!(!facts("IA", None).is_archived() && !Facts::default().is_archived());
    }
}
