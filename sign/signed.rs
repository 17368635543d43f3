//! What a signature adds to a request, and the choice between both versions of it. `net` holds one
//! [`Signer`] per origin and calls it from any thread.
//!
//! A signer never retries, reads no clock (time is an argument) and writes no log.

use std::fmt;

use crate::canon::Request;
use crate::v1::V1;
use crate::v4::V4;

/// The outcome of signing: the headers to add to the request, and the texts that a
/// SignatureDoesNotMatch answer of the service can be compared with.
///
/// All but `signature` may hold the security token. `Debug` hides it and the signature.
#[derive(Clone)]
pub struct Signed {
    /// Authorization, the date that was signed, and x-oss-security-token if any; with V4
    /// x-oss-content-sha256 too. They replace headers of the same name.
    pub headers: Vec<(&'static str, String)>,
    /// The text whose hash V4 signs; V1 has none.
    pub canonical_request: Option<String>,
    /// The text that is signed; it never holds the secret key.
    pub string_to_sign: String,
    /// V4: lower-case hex of HMAC-SHA256; V1: base64 of HMAC-SHA1.
    pub signature: String,
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        f.debug_struct("Signed")
            .field("headers", &names)
            .field("canonical_request", &self.canonical_request.as_deref().map(without_token))
            .field("string_to_sign", &without_token(&self.string_to_sign))
            .finish_non_exhaustive()
    }
}

fn without_token(text: &str) -> String {
    let hide = |line| if str::starts_with(line, "x-oss-security-token:") { "x-oss-security-token:***" } else { line };
    text.split('\n').map(hide).collect::<Vec<_>>().join("\n")
}

/// Signs requests of one access key; credentials that were renewed need a new one.
#[derive(Debug)]
pub enum Signer {
    /// What OSS wants of everybody.
    V4(V4),
    /// Only where somebody asked for it: OSS refuses it for new accounts and buckets.
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
