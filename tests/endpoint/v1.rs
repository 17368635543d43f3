//! Checks V1 header signatures. Called by `auth`. Written from the wire format alone and sharing
//! nothing with the client's signer, so that each can be evidence about the other.

use crate::auth::{self, WRONG_SIGNATURE, check_skew};
use crate::clock;
use crate::error::OssError;
use crate::keys::Keys;
use crate::request::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// Query parameters that are part of the signed resource, besides all that begin with `x-oss-`:
/// those of any operation, for this endpoint is to be no more lenient than OSS.
const SIGNED_PARAMETERS: &str = " acl append asyncFetch bucketInfo callback callback-var cname comp continuation-token \
    cors delete encryption endTime group inventory inventoryId lifecycle link live location logging metaQuery \
    objectInfo objectMeta partNumber policy position qos qosInfo referer replication replicationLocation \
    replicationProgress requestPayment response-cache-control response-content-disposition \
    response-content-encoding response-content-language response-content-type response-expires restore \
    security-token sequential startTime stat status symlink tagging transferAcceleration uploadId uploads \
    versionId versioning versions vod website worm wormExtend wormId ";

/// Checks a request with the header `Authorization: OSS ID:SIGNATURE`.
pub(crate) fn check(keys: &Keys, request: &Request, header: &str, now_sec: i64) -> Result<(), OssError> {
    let parts = header.strip_prefix("OSS ").and_then(|rest| rest.split_once(':'));
    let (id, signature) =
        parts.ok_or_else(|| OssError::invalid_argument("The Authorization header is not a V1 one."))?;
    let key = keys.of(id)?;
    let date = date(request);
    let signed_sec =
        clock::parse_http(date).ok_or_else(|| auth::denied("OSS authentication requires a valid Date."))?;
    check_skew(signed_sec, now_sec)?;
    let to_sign =
        string_to_sign(request).ok_or_else(|| OssError::invalid_argument("The query cannot be percent-decoded."))?;
    let secret = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.credentials.access_key_secret.as_bytes());
    if STANDARD.encode(hmac::sign(&secret, &to_sign)) != signature {
        return Err(auth::mismatch(WRONG_SIGNATURE.into(), id, signature, &to_sign));
    }
    key.check_token(request.header("x-oss-security-token"), now_sec)
}

/// `x-oss-date` stands in for `Date`.
fn date(request: &Request) -> &str {
    request.header("x-oss-date").or_else(|| request.header("date")).unwrap_or_default()
}

/// What is signed, as bytes: keys need not be UTF-8. `None` if the query cannot be decoded.
fn string_to_sign(request: &Request) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let header = |name| request.header(name).unwrap_or_default();
    for line in [request.method.as_str(), header("content-md5"), header("content-type"), date(request)] {
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    let mut own: Vec<&(String, String)> = request.headers.iter().filter(|(n, _)| n.starts_with("x-oss-")).collect();
    own.sort();
    for (name, value) in own {
        text.extend_from_slice(format!("{name}:{value}\n").as_bytes());
    }
    text.push(b'/');
    if let Some(bucket) = &request.bucket {
        text.extend_from_slice(bucket.as_bytes());
        text.push(b'/');
        text.extend_from_slice(&request.key);
    }
    let mut pairs = request.pairs()?;
    pairs.retain(|(name, _)| is_signed(name));
    pairs.sort();
    let mut mark = b'?';
    for (name, value) in pairs {
        text.push(mark);
        text.extend_from_slice(&name);
        if !value.is_empty() {
            text.push(b'=');
            text.extend_from_slice(&value);
        }
        mark = b'&';
    }
    Some(text)
}

fn is_signed(name: &[u8]) -> bool {
    let listed = |name: &str| SIGNED_PARAMETERS.contains(&format!(" {name} "));
    std::str::from_utf8(name).is_ok_and(|name| name.starts_with("x-oss-") || listed(name))
}

#[cfg(test)]
#[path = "v1_tests.rs"]
mod tests;
