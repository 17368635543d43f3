//! What can go wrong in a measurement. Used by every command; a figure that is in doubt is an error, never
//! a number.

use std::io;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call of the system failed.
    #[error("{what}: {os}")]
    System { what: String, os: io::Error },
    /// The engine's network side gave up.
    #[error("{0}")]
    Net(#[from] ossc_net::Error),
    /// The answer, the arguments or a child's output are not what a figure can be built on.
    #[error("{0}")]
    Wrong(String),
}

/// What the commands return.
pub type Result<T> = std::result::Result<T, Error>;

/// Names what was tried when a call of the system fails.
pub trait Tried<T> {
    /// `what` is computed on failure only.
    fn tried(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Tried<T> for io::Result<T> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|os| Error::System { what: what(), os })
    }
}
