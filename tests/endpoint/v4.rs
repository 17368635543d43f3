//! Checks V4 header signatures. Called by `conn` before anything else is looked at. Written
//! from the wire format alone and sharing nothing with the client's signer, so that each can
//! be evidence about the other. Never accepts V1 or signed URLs.

use crate::clock;
use crate::config::Credentials;
use crate::error::OssError;
use crate::request::{Request, query_pairs};
use crate::text::{hex, percent_encode};
use ring::{digest, hmac};

const ALGORITHM: &str = "OSS4-HMAC-SHA256";
/// OSS refuses dates further than this from its own clock (RequestTimeTooSkewed).
const SKEW_MAX_SEC: u64 = 15 * 60;

/// What a signature is checked against.
pub(crate) struct Verifier {
    pub credentials: Option<Credentials>,
    pub region: String,
    pub product: String,
    pub anonymous: bool,
}

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

impl Verifier {
    /// Checks `request` at `now_sec` (seconds since 1970).
    pub(crate) fn check(&self, request: &Request, now_sec: i64) -> Result<(), OssError> {
        let Some(header) = request.header("authorization") else {
            return self.check_unsigned(request);
        };
        if header.starts_with("OSS ") {
            return Err(OssError { ec: "0002-00000080", ..denied("V1 signatures are not supported, use V4.") });
        }
        let auth = Authorization::parse(header)
            .ok_or_else(|| OssError::invalid_argument("The Authorization header is not a V4 one."))?;
        let keys = self.credentials.as_ref().filter(|c| c.access_key_id == auth.access_key_id);
        let keys = keys.ok_or_else(|| {
            let message = "The OSS Access Key Id you provided does not exist in our records.";
            let mut error = OssError::new(403, "InvalidAccessKeyId", message);
            error.details.push(("OSSAccessKeyId", auth.access_key_id.to_owned()));
            error
        })?;
        if request.header("x-oss-content-sha256") != Some("UNSIGNED-PAYLOAD") {
            return Err(OssError::invalid_argument("x-oss-content-sha256 must be UNSIGNED-PAYLOAD."));
        }
        let date = request.header("x-oss-date").unwrap_or_default();
        check_date(date, now_sec)?;
        self.check_signature(request, &auth, keys, date)?;
        check_token(keys, request.header("x-oss-security-token"))
    }

    fn check_unsigned(&self, request: &Request) -> Result<(), OssError> {
        if request.query.contains("x-oss-signature") || request.query.contains("OSSAccessKeyId=") {
            return Err(denied("Signed URLs are not supported, sign the header."));
        }
        if self.anonymous {
            return Ok(());
        }
        Err(denied("You have no right to access this object because of bucket acl."))
    }

    fn check_signature(
        &self,
        request: &Request,
        auth: &Authorization<'_>,
        keys: &Credentials,
        date: &str,
    ) -> Result<(), OssError> {
        let canonical = canonical_request(request, &auth.additional)
            .ok_or_else(|| OssError::invalid_argument("The query cannot be percent-decoded."))?;
        let to_sign = string_to_sign(&canonical, auth, date);
        let expected = signature(&keys.access_key_secret, auth, &to_sign);
        let reason = if auth.region != self.region {
            format!("Invalid signing region {} in Authorization header, expected {}.", auth.region, self.region)
        } else if auth.product != self.product {
            format!("Invalid signing product {} in Authorization header, expected {}.", auth.product, self.product)
        } else if date.get(..8) != Some(auth.day) {
            "The date of the scope is not that of x-oss-date.".into()
        } else if expected != auth.signature {
            "The request signature we calculated does not match the signature you provided. \
             Check your key and signing method."
                .into()
        } else {
            return Ok(());
        };
        let mut error = OssError::new(403, "SignatureDoesNotMatch", reason);
        let bytes: Vec<String> = to_sign.bytes().map(|b| format!("{b:02X}")).collect();
        error.details = vec![
            ("OSSAccessKeyId", auth.access_key_id.to_owned()),
            ("SignatureProvided", auth.signature.to_owned()),
            ("StringToSign", to_sign),
            ("StringToSignBytes", bytes.join(" ")),
            ("CanonicalRequest", canonical),
        ];
        Err(error)
    }
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

fn denied(message: &str) -> OssError {
    OssError::new(403, "AccessDenied", message)
}

fn check_date(date: &str, now_sec: i64) -> Result<(), OssError> {
    let signed_sec = clock::parse_basic(date)
        .ok_or_else(|| denied("OSS authentication requires a valid x-oss-date (YYYYMMDDTHHMMSSZ)."))?;
    if signed_sec.abs_diff(now_sec) <= SKEW_MAX_SEC {
        return Ok(());
    }
    let message = "The difference between the request time and the current time is too large.";
    let mut error = OssError::new(403, "RequestTimeTooSkewed", message);
    error.details = vec![
        ("MaxAllowedSkewMilliseconds", (SKEW_MAX_SEC * 1000).to_string()),
        ("RequestTime", clock::list_date(signed_sec)),
        ("ServerTime", clock::list_date(now_sec)),
    ];
    Err(error)
}

fn check_token(keys: &Credentials, sent: Option<&str>) -> Result<(), OssError> {
    match (keys.security_token.as_deref(), sent) {
        (Some(expected), Some(sent)) if expected == sent => Ok(()),
        (None, None) => Ok(()),
        (Some(_), None) => {
            Err(OssError::new(403, "InvalidAccessKeyId", "This access key id needs its security token."))
        }
        _ => Err(OssError::new(403, "InvalidSecurityToken", "The security token you provided is invalid.")),
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
