//! Checks V4 header signatures. Called by `auth`. Written from the wire format alone and sharing
//! nothing with the client's signer, so that each can be evidence about the other.

use crate::auth::{self, Verifier, WRONG_SIGNATURE, check_skew};
use crate::clock;
use crate::config::Credentials;
use crate::error::OssError;
use crate::request::{Request, query_pairs};
use crate::text::{hex, percent_encode};
use ring::{digest, hmac};

const ALGORITHM: &str = "OSS4-HMAC-SHA256";

/// A parsed Authorization header: `OSS4-HMAC-SHA256 Credential=ID/DAY/REGION/PRODUCT/
/// aliyun_v4_request[,AdditionalHeaders=a;b],Signature=HEX`.
struct Authorization<'a> {
    access_key_id: &'a str,
    day: &'a str,
    region: &'a str,
    product: &'a str,
    additional: Vec<String>,
    signature: &'a str,
}

/// Checks a request with the header `Authorization: OSS4-HMAC-SHA256 ...`.
pub(crate) fn check(verifier: &Verifier, request: &Request, header: &str, now_sec: i64) -> Result<(), OssError> {
    let auth = Authorization::parse(header)
        .ok_or_else(|| OssError::invalid_argument("The Authorization header is not a V4 one."))?;
    let key = verifier.keys.of(auth.access_key_id)?;
    if request.header("x-oss-content-sha256") != Some("UNSIGNED-PAYLOAD") {
        return Err(OssError::invalid_argument("x-oss-content-sha256 must be UNSIGNED-PAYLOAD."));
    }
    let date = request.header("x-oss-date").unwrap_or_default();
    let signed_sec = clock::parse_basic(date)
        .ok_or_else(|| auth::denied("OSS authentication requires a valid x-oss-date (YYYYMMDDTHHMMSSZ)."))?;
    check_skew(signed_sec, now_sec)?;
    check_signature(verifier, request, &auth, &key.credentials, date)?;
    key.check_token(request.header("x-oss-security-token"), now_sec)
}

fn check_signature(
    verifier: &Verifier,
    request: &Request,
    auth: &Authorization<'_>,
    keys: &Credentials,
    date: &str,
) -> Result<(), OssError> {
    let canonical = canonical_request(request, &auth.additional)
        .ok_or_else(|| OssError::invalid_argument("The query cannot be percent-decoded."))?;
    let to_sign = string_to_sign(&canonical, auth, date);
    let expected = signature(&keys.access_key_secret, auth, &to_sign);
    let Verifier { region, product, .. } = verifier;
    let reason = if auth.region != region {
        format!("Invalid signing region {} in Authorization header, expected {region}.", auth.region)
    } else if auth.product != product {
        format!("Invalid signing product {} in Authorization header, expected {product}.", auth.product)
    } else if date.get(..8) != Some(auth.day) {
        "The date of the scope is not that of x-oss-date.".into()
    } else if expected != auth.signature {
        WRONG_SIGNATURE.into()
    } else {
        return Ok(());
    };
    let mut error = auth::mismatch(reason, auth.access_key_id, auth.signature, to_sign.as_bytes());
    error.details.push(("CanonicalRequest", canonical));
    Err(error)
}

impl<'a> Authorization<'a> {
    fn parse(header: &'a str) -> Option<Self> {
        let (mut credential, mut signature, mut additional) = (None, None, Vec::new());
        for part in header.strip_prefix(ALGORITHM)?.strip_prefix(' ')?.split(',') {
            match part.trim().split_once('=')? {
                ("Credential", value) => credential = Some(value),
                ("Signature", value) => signature = Some(value),
                ("AdditionalHeaders", value) => {
                    additional = value.split(';').filter(|n| !n.is_empty()).map(str::to_ascii_lowercase).collect();
                    additional.sort();
                }
                _ => return None,
            }
        }
        let mut scope = credential?.rsplitn(5, '/');
        if scope.next() != Some("aliyun_v4_request") {
            return None;
        }
        let (product, region, day) = (scope.next()?, scope.next()?, scope.next()?);
        let access_key_id = scope.next()?;
        Some(Self { access_key_id, day, region, product, additional, signature: signature? })
    }
}

/// The six parts of the canonical request, from what came on the wire. `None` if the query
/// cannot be decoded.
fn canonical_request(request: &Request, additional: &[String]) -> Option<String> {
    let mut resource = b"/".to_vec();
    if let Some(bucket) = &request.bucket {
        resource.extend_from_slice(bucket.as_bytes());
        resource.push(b'/');
        resource.extend_from_slice(&request.key);
    }
    let mut pairs: Vec<(String, String)> = query_pairs(&request.query)?
        .iter()
        .map(|(name, value)| (percent_encode(name, false), percent_encode(value, false)))
        .collect();
    pairs.sort();
    let query: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| if value.is_empty() { name } else { format!("{name}={value}") })
        .collect();
    let signed = |name: &str| {
        name.starts_with("x-oss-")
            || matches!(name, "content-type" | "content-md5")
            || additional.iter().any(|a| a == name)
    };
    let mut headers: Vec<String> = request
        .headers
        .iter()
        .filter(|(name, _)| signed(name))
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    headers.sort();
    Some(format!(
        "{}\n{}\n{}\n{}\n{}\nUNSIGNED-PAYLOAD",
        request.method,
        percent_encode(&resource, true),
        query.join("&"),
        headers.concat(),
        additional.join(";"),
    ))
}

fn string_to_sign(canonical: &str, auth: &Authorization<'_>, date: &str) -> String {
    let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let Authorization { day, region, product, .. } = auth;
    format!("{ALGORITHM}\n{date}\n{day}/{region}/{product}/aliyun_v4_request\n{hash}")
}

fn signature(secret: &str, auth: &Authorization<'_>, to_sign: &str) -> String {
    let mac =
        |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec();
    let mut key = format!("aliyun_v4{secret}").into_bytes();
    for part in [auth.day, auth.region, auth.product, "aliyun_v4_request"] {
        key = mac(&key, part);
    }
    hex(&mac(&key, to_sign))
}

#[cfg(test)]
#[path = "v4_tests.rs"]
mod tests;
