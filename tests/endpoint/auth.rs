//! Who sent a request, and may he? Called by `conn` before anything else is looked at. Finds out
//! the version of the signature and leaves its check to `v1` or `v4`. Signed URLs are refused.

use crate::clock;
use crate::error::OssError;
use crate::keys::Keys;
use crate::request::Request;
use crate::{v1, v4};

/// OSS refuses dates further than this from its own clock (RequestTimeTooSkewed).
const SKEW_MAX_SEC: u64 = 15 * 60;

/// What requests are checked against.
pub(crate) struct Verifier {
    pub keys: Keys,
    /// Of the V4 scope.
    pub region: String,
    /// Of the V4 scope.
    pub product: String,
    /// Unsigned requests are answered too.
    pub anonymous: bool,
    /// V1 signatures are accepted, as OSS does for old accounts and buckets.
    pub v1: bool,
}

impl Verifier {
    /// Checks `request` at `now_sec` (seconds since 1970).
    pub(crate) fn check(&self, request: &Request, now_sec: i64) -> Result<(), OssError> {
        let Some(header) = request.header("authorization") else {
            return self.check_unsigned(request);
        };
        if !header.starts_with("OSS ") {
            return v4::check(self, request, header, now_sec);
        }
        if !self.v1 {
            return Err(OssError { ec: "0002-00000080", ..denied("V1 signatures are not supported, use V4.") });
        }
        v1::check(&self.keys, request, header, now_sec)
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
}

/// 403 AccessDenied.
pub(crate) fn denied(message: &str) -> OssError {
    OssError::new(403, "AccessDenied", message)
}

/// Whether a request signed at `signed_sec` is of now.
pub(crate) fn check_skew(signed_sec: i64, now_sec: i64) -> Result<(), OssError> {
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

/// SignatureDoesNotMatch with what was signed here, for a client to compare.
pub(crate) fn mismatch(reason: String, access_key_id: &str, signature: &str, to_sign: &[u8]) -> OssError {
    let mut error = OssError::new(403, "SignatureDoesNotMatch", reason);
    let bytes: Vec<String> = to_sign.iter().map(|b| format!("{b:02X}")).collect();
    error.details = vec![
        ("OSSAccessKeyId", access_key_id.to_owned()),
        ("SignatureProvided", signature.to_owned()),
        ("StringToSign", String::from_utf8_lossy(to_sign).into_owned()),
        ("StringToSignBytes", bytes.join(" ")),
    ];
    error
}

/// What SignatureDoesNotMatch says when nothing else is wrong.
pub(crate) const WRONG_SIGNATURE: &str = "The request signature we calculated does not match the signature you \
    provided. Check your key and signing method.";
