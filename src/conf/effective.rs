//! What is in force: each key with its value and where that comes from, and the variables that are set.
//!
//! Called by `ossc config --effective`. It reads the configuration file as an engine does, and shows no secret.

use crate::credentials::SOURCES;
use crate::docs::{self, Variable, default_json};
use crate::reason::Reason;
use crate::table::{Config, KEYS};
use crate::{endpoint, location};
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
    let shown = |variable: &'static Variable| {
        let value = get(variable.name).filter(|value| !value.is_empty());
        (variable.name, value.map(|value| if is_secret(variable, &value) { "set".into() } else { value }))
    };
    docs::variables().map(shown).collect()
}

/// True for a key, and for an address or OSS_PATH that the refusal of an engine does not repeat either.
fn is_secret(variable: &Variable, value: &str) -> bool {
    let is_key = || SOURCES.iter().any(|source| source.secrets.contains(&variable.name));
    let may_hold_one = || match variable.name {
        "OSS_PATH" => location::may_hold_secret(value),
        name => (name.ends_with("_URL") || name.ends_with("_ENDPOINT")) && endpoint::may_hold_secret(value),
    };
    is_key() || may_hold_one()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown_and_every_variable_is() {
        let all = variables(|name| Some(format!("value of {name}")));
        assert_eq!(all.len(), docs::variables().count());
        let shown = |name: &str| all.iter().find(|(other, _)| *other == name).and_then(|(_, value)| value.clone());
        let sounds_so = |name: &str| ["KEY", "SECRET", "TOKEN"].iter().any(|word| name.contains(word));
        for (name, value) in &all {
            let is_set = value.as_deref() == Some("set");
            assert_eq!(is_set, sounds_so(name) && *name != "ALIBABA_CLOUD_OIDC_TOKEN_FILE", "{name}");
        }
        assert_eq!(shown("OSS_PATH").as_deref(), Some("value of OSS_PATH"));
        for (name, value, is_shown) in [
            ("OSS_ENDPOINT", "https://me:pass@host", false),
            ("OSS_ENDPOINT", "me:pa/ss@host", false),
            ("OSSC_STS_URL", "http://me:pass@host:1", false),
            ("OSS_ENDPOINT", "https://host:1", true),
            ("OSS_ENDPOINT", "https://host/path", true),
            ("OSS_PATH", "oss://key:secret@bucket/a/", false),
            ("OSS_PATH", "oss://key:secret/", false),
            ("OSS_PATH", "https://bucket.host/a?Signature=b", false),
            ("OSS_PATH", "oss://bucket/a@b?c/", true),
            ("MODEL_DIR", "/a@b", true),
        ] {
            let all = variables(|other| (other == name).then(|| value.into()));
            let found = all.iter().find(|(other, _)| *other == name).and_then(|(_, value)| value.clone());
            assert_eq!(found.as_deref(), Some(if is_shown { value } else { "set" }), "{name} {value}");
        }
        // Each variable that takes an address.
        for variable in docs::variables().filter(|variable| variable.text.contains("http://")) {
            assert!(variable.name.ends_with("_URL") || variable.name.ends_with("_ENDPOINT"), "{}", variable.name);
        }
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
