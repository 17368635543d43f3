//! The file of OSS_AUTHORIZATION_FILE_PATH: read whole, each time it is asked for.
//!
//! Called by `credentials`. Somebody else writes it: a file that is half written is an error now and good later.

use crate::credentials::Issuer;
use ossc_sign::Issued;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A larger file holds something else.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What the file holds, for a message.
const EXPECTED: &str =
    r#"{"AccessKeyId": ..., "AccessKeySecret": ...}, for temporary keys with SecurityToken and Expiration"#;

/// The file, by its absolute path.
pub(super) struct KeyFile(pub(super) PathBuf);

impl Issuer for KeyFile {
    fn name(&self) -> &'static str {
        "OSS_AUTHORIZATION_FILE_PATH"
    }

    fn fetch(&self) -> Result<Issued, String> {
        let failed = |why: String| format!("OSS_AUTHORIZATION_FILE_PATH not accessible: {}: {why}", self.0.display());
        let text = read(&self.0).map_err(failed)?;
        Issued::from_file(&text).map_err(|why| failed(format!("{why}; expected {EXPECTED}")))
    }

    /// The product has a REASON for this file.
    fn reason(&self, why: String) -> String {
        why
    }
}

/// The whole of a small regular file that somebody else writes.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    // Opening a pipe would wait for its writer.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|e| match e.kind() {
        ErrorKind::PermissionDenied => format!("{e}: let this user read it"),
        _ => e.to_string(),
    })?;
    if !file.metadata().as_ref().is_ok_and(fs::Metadata::is_file) {
        return Err("not a regular file".into());
    }
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is longer than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_such_file_is_named() {
        let folder = std::env::temp_dir().join(format!("ossc-file-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("folder");
        let path = folder.join("key.json");
        let file = KeyFile(path.clone());
        let error = |words: &str| {
            let error = file.fetch().expect_err(words);
            let start = format!("OSS_AUTHORIZATION_FILE_PATH not accessible: {}: ", path.display());
            assert!(error.starts_with(&start) && error.contains(words), "{error}");
        };
        error("No such file");
        fs::create_dir(&path).expect("a folder in its place");
        error("not a regular file");
        fs::remove_dir(&path).expect("gone");
        fs::write(&path, vec![b' '; 70_000]).expect("long");
        error("longer than 65536 bytes");
        fs::write(&path, r#"{"AccessKeyId": "id"}"#).expect("half");
        error(r#"AccessKeySecret is missing; expected {"AccessKeyId": ..."#);
        fs::write(&path, r#"{"AccessKeyId": "id", "AccessKeySecret": "s"}"#).expect("whole");
        assert_eq!(file.fetch().expect("a key").credentials.access_key_id, "id");
        fs::remove_dir_all(&folder).expect("gone");
    }
}
