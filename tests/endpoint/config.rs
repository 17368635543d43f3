//! What an endpoint is started with. Made by the command line and by tests. Never prints a secret.

use crate::certificate::Certificate;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A key pair that an endpoint accepts.
#[derive(Clone)]
pub struct Credentials {
    /// Access key id, as in `Credential=ID/...`.
    pub access_key_id: String,
    /// Access key secret.
    pub access_key_secret: String,
    /// When set, `x-oss-security-token` must carry exactly this (STS).
    pub security_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .field("security_token", &self.security_token.is_some())
            .finish_non_exhaustive()
    }
}

/// Settings of one endpoint.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder whose sub-folders are the buckets.
    pub root: PathBuf,
    /// Objects that the tree cannot express (CATALOG.md).
    pub catalog: Option<PathBuf>,
    /// Address to bind; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Speak https with this certificate.
    pub tls: Option<Certificate>,
    /// Accepted key pair; without one, and without `keys`, every signed request is refused
    /// (InvalidAccessKeyId).
    pub credentials: Option<Credentials>,
    /// Further accepted keys, a JSON array as `--keys` describes it, re-read when it changes.
    pub keys: Option<PathBuf>,
    /// Accept V1 signatures too.
    pub v1: bool,
    /// Region in the V4 scope, e.g. `cn-test`.
    pub region: String,
    /// Product in the V4 scope: `oss`, or `oss-cloudbox`.
    pub product: String,
    /// Answer unsigned requests too.
    pub anonymous: bool,
    /// Where one JSON line per finished request is appended.
    pub log: Option<PathBuf>,
    /// Fault rules (FAULTS.md), re-read when the file changes.
    pub faults: Option<PathBuf>,
    /// Body bytes per second over all connections; `None` is unlimited.
    pub rate_bytes_per_sec: Option<u64>,
    /// So many of them to one connection, then as many to the next; `None` shares them evenly.
    pub turn_bytes: Option<u64>,
    /// Wait before the first byte of each answer.
    pub first_byte_delay: Duration,
    /// Compute the CRC of every object before `start` returns, not in the background.
    pub hash_first: bool,
    /// How far its clock is ahead of this machine's, in seconds; negative is behind.
    pub clock_ahead_sec: i64,
    /// Seconds since 1970 taken as "now" when dates of signatures are checked (fixed vectors).
    pub now_fixed: Option<i64>,
}

impl Config {
    /// Defaults for a folder: a free loopback port, region `cn-test`, anonymous requests refused.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            catalog: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            credentials: None,
            keys: None,
            v1: false,
            region: "cn-test".into(),
            product: "oss".into(),
            anonymous: false,
            log: None,
            faults: None,
            rate_bytes_per_sec: None,
            turn_bytes: None,
            first_byte_delay: Duration::ZERO,
            hash_first: false,
            clock_ahead_sec: 0,
            now_fixed: None,
        }
    }
}
