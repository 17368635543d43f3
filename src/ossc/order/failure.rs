//! Why a folder of MODEL_DIR is not the image of OSS_PATH: the end of a start, or a line of the log.
//!
//! Made by the mirror. Plain values.

use ossc_net::Error;

/// Why a folder is not mirrored. Displayed, each begins with the product's REASON.
#[derive(Debug)]
pub enum Failure {
    /// The origin refused or was not reached.
    List(Box<Error>),
    /// The origin was not asked, since it did not answer just now.
    Away(&'static str),
    /// OSS_PATH holds nothing.
    Empty(String),
    /// The local side: no room, no access, a user's file in the way.
    Local(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::List(error) => write!(f, "failed to list objects: {error}"),
            Failure::Away(why) => write!(f, "{why}"),
            Failure::Empty(path) => write!(f, "failed to list objects: {path} holds no objects; check OSS_PATH"),
            Failure::Local(what) => write!(f, "failed to download metadata: {what}"),
        }
    }
}
