//! What a signature adds to a request. Made by `v4` and `v1`, handed on by `signer`.

use std::fmt;

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
