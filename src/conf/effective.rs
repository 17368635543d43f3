//! What is in force: each key with its value and where that comes from, and the variables that are set.
//!
//! Called by `ossc config --effective`. It reads the configuration file as an engine does, and shows no secret.

use crate::docs::{self, default_json};
use crate::reason::Reason;
use crate::table::{Config, KEYS};
use serde_json::Value;
use std::path::Path;

/// One key.
pub struct Effective {
    /// Path in the file; a dot stands for nesting.
    pub path: &'static str,
    /// As JSON.
    pub value: Value,
    /// The file, or `default`.
    pub source: String,
}

/// All keys, with what an engine would use that reads this file.
///
/// # Errors
/// As of `Config::load`.
pub fn effective(file: &Path, is_named: bool) -> Result<Vec<Effective>, Reason> {
    Config::load(file, is_named)?;
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let root: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap_or_default();
    let one = |path: &'static str, default: String| {
        let named = path.split('.').try_fold(&root, |value, name| value.get(name));
        let default = || serde_json::from_str(&default).unwrap_or_default();
        Effective {
            path,
            value: named.cloned().unwrap_or_else(default),
            source: named.map_or("default".into(), |_| file.display().to_string()),
        }
    };
    Ok(KEYS.iter().map(|key| one(key.path, default_json(key))).collect())
}

/// All variables with their values, `None` where they are not set, and `set` in place of a secret.
pub fn variables(get: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, Option<String>)> {
    let is_secret = |name: &str| name.contains("KEY") || name.contains("TOKEN") && !name.contains("FILE");
    let shown = |name: &'static str| {
        let value = get(name).filter(|value| !value.is_empty());
        (name, value.map(|value| if is_secret(name) { "set".into() } else { value }))
    };
    docs::variables().map(|variable| shown(variable.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown_and_every_variable_is() {
        let all = variables(|name| Some(format!("value of {name}")));
        assert_eq!(all.len(), docs::variables().count());
        let shown = |name: &str| all.iter().find(|(other, _)| *other == name).and_then(|(_, value)| value.clone());
        for name in ["OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET", "OSS_SESSION_TOKEN"] {
            assert_eq!(shown(name).as_deref(), Some("set"), "{name}");
        }
        assert_eq!(shown("OSS_PATH").as_deref(), Some("value of OSS_PATH"));
        assert!(variables(|_| Some(String::new())).iter().all(|(_, value)| value.is_none()));
    }

    #[test]
    fn a_key_comes_from_the_file_or_is_the_default() {
        let folder = std::env::temp_dir().join(format!("ossc-effective-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("c.json");
        std::fs::write(&file, "\u{feff}{\"lingerSec\": 7, \"prefetch\": {\"workers\": 3}}").unwrap();
        let found = effective(&file, true).ok().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found.len(), KEYS.len());
        for one in found {
            let (value, is_default) = match one.path {
                "lingerSec" => (7, false),
                "prefetch.workers" => (3, false),
                "prefetch.vcpus" => (16, true),
                _ => continue,
            };
            assert_eq!((one.value, one.source == "default"), (value.into(), is_default), "{}", one.path);
        }
        assert!(effective(&folder.join("missing"), true).is_err());
        assert!(
            effective(&folder.join("missing"), false).is_ok_and(|all| all.iter().all(|one| one.source == "default"))
        );
    }
}
