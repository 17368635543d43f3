//! The file of OSS_AUTHORIZATION_FILE_PATH. Called by `credentials`; it opens no file.

use super::{Credentials, SourceRow, absolute};
use crate::docs::Variable;
use crate::reason::{self, Reason};

pub(super) const SOURCE: SourceRow = SourceRow {
    word: "file",
    line: "the file of `OSS_AUTHORIZATION_FILE_PATH`",
    secrets: &[],
    missing: "OSS_AUTHORIZATION_FILE_PATH",
    variables: &[Variable {
        name: "OSS_AUTHORIZATION_FILE_PATH",
        need: "no",
        text: "JSON file with `AccessKeyId`, `AccessKeySecret` and, if they are temporary, `SecurityToken` and \
               `Expiration` (`2024-08-02T15:04:05Z`). Absolute. Read again before `Expiration`, each minute without \
               one, and when OSS refuses the key; replace it by rename.",
    }],
    find: |text, _| {
        let Some(path) = text("OSS_AUTHORIZATION_FILE_PATH") else { return Ok(None) };
        let path = absolute(path).map_err(|why| Reason::new(reason::FILE_NOT_ACCESSIBLE, why))?;
        Ok(Some(Credentials::File(path)))
    },
};
