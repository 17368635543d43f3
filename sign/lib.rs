//! Signatures of OSS requests, header form: version 4, and version 1 for those who ask for it; and the
//! documents that temporary credentials come in.
//!
//! `net` calls it once per request. It never opens a connection, reads no clock (time is an
//! argument), no environment and no file, and imports no other crate of this workspace.
//! An anonymous client has no signer at all: its requests carry none of these headers.
#![forbid(unsafe_code)]

mod canon;
mod date;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod issued;
mod secret;
mod signed;
mod signer;
mod v1;
mod v4;

#[cfg(test)]
mod golden;

pub use canon::{Request, percent_encode, query_string};
pub use date::{http_date, utc};
pub use issued::Issued;
pub use secret::{Credentials, Secret, wipe};
pub use signed::Signed;
pub use signer::Signer;
pub use v1::V1;
pub use v4::{Scope, V4};
