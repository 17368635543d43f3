//! Signatures of OSS requests: version 4, header form, and nothing else.
//!
//! `net` calls it once per request. It never opens a connection, reads no clock (time is an
//! argument), no environment and no file, and imports no other crate of this workspace.
//! An anonymous client has no signer at all: its requests carry none of these headers.
//! Version 1 is left out on purpose: OSS refuses it for new accounts (since 2025-03) and for new
//! buckets (since 2025-09).
#![forbid(unsafe_code)]

mod canon;
mod date;
mod secret;
mod v4;

#[cfg(test)]
mod golden;

pub use canon::{Request, percent_encode, query_string};
pub use secret::{Credentials, Secret};
pub use v4::{Scope, Signed, V4};
