//! The choice between both versions of a signature. `net` holds one [`Signer`] per origin and calls it from any thread.
//!
//! A signer never retries, reads no clock (time is an argument) and writes no log.

use crate::canon::Request;
use crate::signed::Signed;
use crate::v1::V1;
use crate::v4::V4;

/// Signs requests of one access key; credentials that were renewed need a new one.
#[derive(Debug)]
pub enum Signer {
    /// What OSS wants of every client.
    V4(V4),
    /// Only where a user asked for it: OSS refuses it for new accounts and buckets.
    V1(V1),
}

impl Signer {
    /// Signs `request` as of `unix_secs` (UTC seconds since 1970, years 1970 to 9999). The service
    /// refuses times that are more than about 15 minutes off its own.
    pub fn sign(&self, request: &Request<'_>, unix_secs: i64) -> Signed {
        match self {
            Signer::V4(v4) => v4.sign(request, unix_secs),
            Signer::V1(v1) => v1.sign(request, unix_secs),
        }
    }
}
