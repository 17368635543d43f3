//! The V1 signer, header form, for those who ask for it: private clouds and old proxies. Used
//! through [`crate::Signer`]. OSS refuses V1 for new accounts (since 2025-03) and for new buckets
//! (since 2025-09).
//!
//! V1 signs the raw key and the decoded values of some sub-resources, so nothing is encoded here.
//! Neither Range, If-Match nor Host is covered.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::canon::{Request, SignedHeaders};
use crate::date;
use crate::secret::Credentials;
use crate::signed::Signed;

/// Sub-resources that a reader may send and that are part of the resource; every name that begins
/// with `x-oss-` is one too. The parameters of a listing are not, but for the continuation token.
const SUB_RESOURCES: [&str; 16] = [
    "acl",
    "bucketInfo",
    "continuation-token",
    "location",
    "objectMeta",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "restore",
    "security-token",
    "stat",
    "symlink",
    "versionId",
];

/// Signs requests of one access key. There is nothing to keep per day or region.
#[derive(Debug)]
pub struct V1 {
    credentials: Credentials,
}

impl V1 {
    /// A signer for one key.
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials }
    }

    /// See [`crate::Signer::sign`].
    pub fn sign(&self, request: &Request<'_>, unix_secs: i64) -> Signed {
        let date = date::http_date(unix_secs);
        let token = self.credentials.security_token.as_ref().map(|token| ("x-oss-security-token", token.expose()));
        let own: Vec<(&str, &str)> = token.into_iter().collect();
        let signed = SignedHeaders::select(&Request { additional_headers: &[], ..*request }, &own);
        let string_to_sign = string_to_sign(request, &signed, &date);
        let secret = self.credentials.access_key_secret.expose();
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
        let signature = STANDARD.encode(hmac::sign(&key, string_to_sign.as_bytes()));
        let authorization = format!("OSS {}:{signature}", self.credentials.access_key_id);
        let mut headers = vec![("Authorization", authorization), ("Date", date)];
        headers.extend(own.into_iter().map(|(name, value)| (name, value.to_owned())));
        Signed { headers, canonical_request: None, string_to_sign, signature }
    }
}

fn string_to_sign(request: &Request<'_>, headers: &SignedHeaders, date: &str) -> String {
    let value = |name| headers.value(name).unwrap_or_default();
    // An x-oss-date of the caller's takes the place of the Date header.
    let date = headers.value("x-oss-date").unwrap_or(date);
    let oss = headers.lines_with("x-oss-");
    let (content_md5, content_type, resource) = (value("content-md5"), value("content-type"), resource(request));
    format!("{}\n{content_md5}\n{content_type}\n{date}\n{oss}{resource}", request.method)
}

/// `/BUCKET/KEY`, always with the bucket, and the signed sub-resources of the query in the order of
/// their names.
fn resource(request: &Request<'_>) -> String {
    let mut text = match (request.bucket, request.key) {
        (None, _) => "/".to_owned(),
        (Some(bucket), key) => format!("/{bucket}/{}", key.unwrap_or_default()),
    };
    let is_signed = |name: &str| SUB_RESOURCES.contains(&name) || name.starts_with("x-oss-");
    let mut signed: Vec<_> = request.query.iter().filter(|(name, _)| is_signed(name)).collect();
    signed.sort_unstable();
    for (at, (name, value)) in signed.into_iter().enumerate() {
        text.push(if at == 0 { '?' } else { '&' });
        text.push_str(name);
        if !value.is_empty() {
            text.push('=');
            text.push_str(value);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    fn signer(token: Option<&str>) -> V1 {
        V1::new(Credentials {
            access_key_id: "ak".into(),
            access_key_secret: Secret::new("sk-hidden".into()),
            security_token: token.map(|token| Secret::new(token.into())),
        })
    }

    fn list<'a>(query: &'a [(&'a str, &'a str)]) -> Request<'a> {
        Request { method: "GET", bucket: Some("b"), key: None, query, headers: &[], additional_headers: &[] }
    }

    #[test]
    fn the_second_page_of_a_listing_signs_its_token_decoded() {
        let page = list(&[("list-type", "2"), ("prefix", "a b/"), ("continuation-token", "x+/=")]);
        assert_eq!(resource(&page), "/b/?continuation-token=x+/=");
        let others = list(&[("zz", "1"), ("x-oss-process", "p"), ("acl", "")]);
        assert_eq!(resource(&others), "/b/?acl&x-oss-process=p");
    }

    #[test]
    fn debug_hides_secret_token_and_signature() {
        let v1 = signer(Some("tok-hidden"));
        let signed = v1.sign(&list(&[]), 0);
        assert!(signed.string_to_sign.contains("\nx-oss-security-token:tok-hidden\n"), "it is signed");
        let shown = format!("{v1:?} {v1:#?} {signed:?} {signed:#?}");
        assert!(shown.contains("x-oss-security-token:***"), "{shown}");
        for hidden in ["hidden", signed.signature.as_str()] {
            assert!(!shown.contains(hidden), "{hidden} in {shown}");
        }
    }
}
