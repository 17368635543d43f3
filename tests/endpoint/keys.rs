//! The access keys an endpoint accepts: the one it was started with, and those of a file that is
//! read again when it changes, so that keys can be rotated and tokens can end. Called by `auth`.
//! Never prints a secret.

use crate::clock;
use crate::config::Credentials;
use crate::error::OssError;
use crate::fault::{FileId, file_id};
use serde::Deserialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// One accepted key.
#[derive(Clone)]
pub(crate) struct Key {
    pub credentials: Credentials,
    /// Seconds since 1970 from which on it is refused (SecurityTokenExpired); `None` is never.
    pub ends_sec: Option<i64>,
}

/// An entry of the file, spelt as credential services of Alibaba Cloud spell it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Entry {
    access_key_id: String,
    access_key_secret: String,
    security_token: Option<String>,
    expiration: Option<String>,
}

/// All accepted keys.
pub(crate) struct Keys {
    given: Option<Key>,
    file: Option<(PathBuf, Mutex<Read>)>,
}

/// What was read last; of a file that is broken later the earlier keys stay.
struct Read {
    keys: Vec<Key>,
    seen: FileId,
}

impl Keys {
    /// `given` never ends; a `file` that is missing or broken now is an error.
    pub(crate) fn open(given: Option<Credentials>, file: Option<&Path>) -> io::Result<Self> {
        let given = given.map(|credentials| Key { credentials, ends_sec: None });
        let file = file.map(|path| read(path).map(|read| (path.to_owned(), Mutex::new(read)))).transpose()?;
        Ok(Self { given, file })
    }

    /// The key of this id, which may have ended.
    pub(crate) fn of(&self, access_key_id: &str) -> Result<Key, OssError> {
        let fits = |key: &&Key| key.credentials.access_key_id == access_key_id;
        let given = self.given.iter().find(fits).cloned();
        given.or_else(|| self.in_file(access_key_id)).ok_or_else(|| {
            let message = "The OSS Access Key Id you provided does not exist in our records.";
            let mut error = OssError::new(403, "InvalidAccessKeyId", message);
            error.details.push(("OSSAccessKeyId", access_key_id.to_owned()));
            error
        })
    }

    fn in_file(&self, access_key_id: &str) -> Option<Key> {
        let (path, read_last) = self.file.as_ref()?;
        let mut last = read_last.lock().unwrap_or_else(PoisonError::into_inner);
        if file_id(path).is_ok_and(|now| now != last.seen) {
            match read(path) {
                Ok(now) => *last = now,
                // Possibly half written: looked at again at the next request.
                Err(e) => eprintln!("oss-endpoint: keys {}: {e}: the earlier ones stay", path.display()),
            }
        }
        last.keys.iter().find(|key| key.credentials.access_key_id == access_key_id).cloned()
    }
}

impl Key {
    /// Whether the security token that was `sent` belongs to this key and is good at `now_sec`.
    pub(crate) fn check_token(&self, sent: Option<&str>, now_sec: i64) -> Result<(), OssError> {
        match (self.credentials.security_token.as_deref(), sent) {
            (Some(expected), Some(sent)) if expected == sent => {}
            (None, None) => {}
            (Some(_), None) => {
                return Err(OssError::new(403, "InvalidAccessKeyId", "This access key id needs its security token."));
            }
            _ => {
                return Err(OssError::new(403, "InvalidSecurityToken", "The security token you provided is invalid."));
            }
        }
        if self.ends_sec.is_some_and(|end| now_sec >= end) {
            let message = "The security token you provided has expired.";
            return Err(OssError::new(403, "SecurityTokenExpired", message));
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Read> {
    let seen = file_id(path)?;
    let entries: Vec<Entry> = serde_json::from_slice(&fs::read(path)?)?;
    let keys = entries.into_iter().map(key).collect::<io::Result<_>>()?;
    Ok(Read { keys, seen })
}

fn key(entry: Entry) -> io::Result<Key> {
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is not a date"));
    let date = |text: String| clock::parse_rfc3339(&text).ok_or_else(|| invalid(&text));
    Ok(Key {
        credentials: Credentials {
            access_key_id: entry.access_key_id,
            access_key_secret: entry.access_key_secret,
            security_token: entry.security_token,
        },
        ends_sec: entry.expiration.map(date).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_file_come_go_and_end() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("keys");
        let put = |text: &str| {
            fs::write(folder.path().join("new"), text).unwrap();
            fs::rename(folder.path().join("new"), &path).unwrap();
        };
        put(r#"[{"AccessKeyId":"a","AccessKeySecret":"s","SecurityToken":"t","Expiration":"2025-02-01T09:08:07Z"}]"#);
        let given = Credentials { access_key_id: "g".into(), access_key_secret: "s".into(), security_token: None };
        let keys = Keys::open(Some(given), Some(&path)).unwrap();
        let code = |result: Result<(), OssError>| result.map_err(|error| error.code);
        let end = 1_738_400_887;
        let a = keys.of("a").ok().unwrap();
        assert_eq!(code(a.check_token(Some("t"), end - 1)), Ok(()));
        assert_eq!(code(a.check_token(Some("t"), end)), Err("SecurityTokenExpired".into()));
        assert_eq!(code(a.check_token(Some("x"), end)), Err("InvalidSecurityToken".into()));
        assert_eq!(code(a.check_token(None, end)), Err("InvalidAccessKeyId".into()));
        assert!(keys.of("g").is_ok() && keys.of("b").is_err());
        put(r#"[{"AccessKeyId":"b","AccessKeySecret":"s"}]"#);
        assert!(keys.of("b").is_ok() && keys.of("g").is_ok());
        assert_eq!(keys.of("a").err().map(|error| error.code), Some("InvalidAccessKeyId".into()));
        put("[{");
        assert!(keys.of("b").is_ok(), "the earlier keys stay");
        assert!(Keys::open(None, Some(&path)).is_err());
    }
}
