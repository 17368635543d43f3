//! Why a primary cannot start: the part of `failed to launch oss connector: REASON` that this
//! crate finds out. Called by the other files here; shown by `ossc` and the library.

use std::fmt;

/// A REASON of the product, kept word for word since people search for it, plus what went wrong
/// in particular and what to do. `Display` is `KIND: DETAIL`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Reason {
    kind: &'static str,
    detail: String,
}

/// Kinds that the product documents (its FAQ on model loading).
pub(crate) const MODEL_DIR_NOT_SET: &str = "MODEL_DIR not set";
pub(crate) const PATH_NOT_SET: &str = "OSS_PATH not set";
pub(crate) const ENDPOINT_NOT_SET: &str = "OSS_ENDPOINT not set";
pub(crate) const SECRET_NOT_SET: &str = "OSS_ACCESS_KEY_SECRET not set";
pub(crate) const FILE_NOT_ACCESSIBLE: &str = "OSS_AUTHORIZATION_FILE_PATH not accessible";
pub(crate) const NO_REGION: &str = "failed to infer region from endpoint";
pub(crate) const INVALID_URI: &str = "invalid uri";
pub(crate) const BAD_CONFIG: &str = "failed to parse config file";
/// Kinds of our own, in the same manner, where the product documents none.
pub(crate) const ID_NOT_SET: &str = "OSS_ACCESS_KEY_ID not set";
pub(crate) const INVALID_ENDPOINT: &str = "invalid endpoint";
pub(crate) const INVALID_VARIABLE: &str = "invalid environment variable";

impl Reason {
    pub(crate) fn new(kind: &'static str, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// The constant part, such as `OSS_PATH not set`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.detail)
    }
}
