//! An OSS endpoint of our own, from a folder tree: sub-folders of the root are buckets, paths
//! below are keys. Called by the tests, the demo and the performance runs (as a library or as
//! the `oss-endpoint` program). It never writes below its root, never shares code with the
//! client's signer, and is not a store for anything that matters.
//!
//! Life of a request: `request` reads the head and resolves bucket and key, `fault` decides
//! what shall go wrong, `auth` checks who asks, `list` or `object` makes an `answer`,
//! `wire` puts it on the socket, `log` writes one line.
//!
//! Replace objects by rename. A file rewritten in place can be served half old and half new, and
//! two rewrites of one size within a tick of the kernel's clock look like the same content.

mod answer;
mod auth;
mod catalog;
mod certificate;
mod clock;
mod config;
mod conn;
mod digest;
mod error;
mod fault;
mod keys;
mod link;
mod list;
mod log;
mod object;
mod range;
mod rate;
mod request;
mod server;
mod stop;
mod store;
mod text;
mod v1;
mod v4;
#[cfg(test)]
mod vectors;
mod wire;

pub use certificate::Certificate;
pub use config::{Config, Credentials};
pub use server::Endpoint;
