//! The V4 signer: canonical request to Authorization header. Used through [`crate::Signer`].
//!
//! The signature covers neither Range nor If-Match unless they are named as additional headers,
//! so one signature serves all ranges of a key while the service accepts its time (15 minutes).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ring::{digest, hmac};

use crate::canon::{self, Request, SignedHeaders, UNSIGNED_PAYLOAD};
use crate::date;
use crate::secret::{self, Credentials};
use crate::signed::Signed;

const ALGORITHM: &str = "OSS4-HMAC-SHA256";
const TERMINATOR: &str = "aliyun_v4_request";

/// What a signature is valid for, besides its day.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Bare region of the bucket, such as `cn-beijing`, never `oss-cn-beijing`.
    pub region: String,
    /// `oss`, or `oss-cloudbox` for a cloud box.
    pub product: String,
}

/// Signs requests of one access key in one scope.
pub struct V4 {
    credentials: Credentials,
    scope: Scope,
    /// Depends on secret, day, region and product only: four HMACs saved per request.
    day_key: Mutex<Option<Arc<DayKey>>>,
}

struct DayKey {
    day: String,
    key: hmac::Key,
}

impl fmt::Debug for V4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("V4").field("credentials", &self.credentials).field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl V4 {
    /// A signer for one key and scope.
    pub fn new(credentials: Credentials, scope: Scope) -> Self {
        Self { credentials, scope, day_key: Mutex::new(None) }
    }

    /// See [`crate::Signer::sign`].
    pub fn sign(&self, request: &Request<'_>, unix_secs: i64) -> Signed {
        let time = date::basic_utc(unix_secs);
        let day = &time[..8];
        let token = self.credentials.security_token.as_ref().map(|token| token.expose());

        let mut own = vec![("x-oss-date", time.as_str()), ("x-oss-content-sha256", UNSIGNED_PAYLOAD)];
        own.extend(token.map(|token| ("x-oss-security-token", token)));
        let selected = SignedHeaders::select(request, &own);
        let canonical_request = canon::canonical_request(request, &selected);

        let scope = format!("{day}/{}/{}/{TERMINATOR}", self.scope.region, self.scope.product);
        let hash = hex(digest::digest(&digest::SHA256, canonical_request.as_bytes()).as_ref());
        let string_to_sign = format!("{ALGORITHM}\n{time}\n{scope}\n{hash}");
        let signature = hex(hmac::sign(&self.key_of(day).key, string_to_sign.as_bytes()).as_ref());

        let authorization = self.authorization(&scope, &selected.additional, &signature);
        let mut headers = vec![("Authorization", authorization)];
        headers.extend(own.into_iter().map(|(name, value)| (name, value.to_owned())));
        Signed { headers, canonical_request: Some(canonical_request), string_to_sign, signature }
    }

    fn authorization(&self, scope: &str, additional: &str, signature: &str) -> String {
        let id = &self.credentials.access_key_id;
        let listed = match additional {
            "" => String::new(),
            names => format!(",AdditionalHeaders={names}"),
        };
        format!("{ALGORITHM} Credential={id}/{scope}{listed},Signature={signature}")
    }

    fn key_of(&self, day: &str) -> Arc<DayKey> {
        // A poisoned lock is harmless: the entry is replaced as a whole or not at all.
        let mut cached = self.day_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = cached.as_ref().filter(|entry| entry.day == day) {
            return Arc::clone(entry);
        }
        let entry = Arc::new(DayKey { day: day.to_owned(), key: self.derive_key(day) });
        *cached = Some(Arc::clone(&entry));
        entry
    }

    fn derive_key(&self, day: &str) -> hmac::Key {
        let secret = self.credentials.access_key_secret.expose();
        let mut key = [b"aliyun_v4", secret.as_bytes()].concat();
        for step in [day, &self.scope.region, &self.scope.product, TERMINATOR] {
            let next = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), step.as_bytes());
            secret::wipe(std::mem::replace(&mut key, next.as_ref().to_vec()));
        }
        let derived = hmac::Key::new(hmac::HMAC_SHA256, &key);
        secret::wipe(key);
        derived
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    fn signer(token: Option<&str>) -> V4 {
        V4::new(
            Credentials {
                access_key_id: "ak".into(),
                access_key_secret: Secret::new("sk-hidden".into()),
                security_token: token.map(|token| Secret::new(token.into())),
            },
            Scope { region: "cn-hangzhou".into(), product: "oss".into() },
        )
    }

    fn get<'a>(headers: &'a [(&'a str, &'a str)]) -> Request<'a> {
        Request { method: "GET", bucket: Some("b"), key: Some("k"), query: &[], headers, additional_headers: &[] }
    }

    fn header<'a>(signed: &'a Signed, name: &str) -> Option<&'a str> {
        signed.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn signer_crosses_threads() {
        fn shared<T: Send + Sync>(_: &T) {}
        shared(&signer(None));
    }

    #[test]
    fn debug_hides_secret_token_and_signature() {
        let v4 = signer(Some("tok-hidden"));
        let signed = v4.sign(&get(&[]), 0);
        assert_eq!(header(&signed, "x-oss-security-token"), Some("tok-hidden"));
        let shown = format!("{v4:?} {v4:#?} {signed:?} {signed:#?}");
        assert!(shown.contains("x-oss-security-token:***"), "{shown}");
        for hidden in ["hidden", signed.signature.as_str()] {
            assert!(!shown.contains(hidden), "{hidden} in {shown}");
        }
    }

    #[test]
    fn day_key_follows_the_day_in_both_directions() {
        let kept = signer(None);
        let day = 86_400;
        for secs in [0, day - 1, day, 2 * day, day, 0] {
            let fresh = signer(None).sign(&get(&[]), secs).signature;
            assert_eq!(kept.sign(&get(&[]), secs).signature, fresh, "{secs}");
        }
        assert_ne!(kept.sign(&get(&[]), 0).signature, kept.sign(&get(&[]), day).signature);
    }

    #[test]
    fn the_key_of_a_day_is_derived_once() {
        let kept = signer(None);
        let first = kept.sign(&get(&[]), 0).signature;
        // Whoever signs again on that day uses what is kept: put another key there, and it shows.
        let other = hmac::Key::new(hmac::HMAC_SHA256, b"other");
        *kept.day_key.lock().expect("lock") = Some(Arc::new(DayKey { day: "19700101".into(), key: other }));
        assert_ne!(kept.sign(&get(&[]), 1).signature, signer(None).sign(&get(&[]), 1).signature);
        kept.sign(&get(&[]), 86_400);
        assert_eq!(kept.sign(&get(&[]), 0).signature, first, "the next day has put its own there");
    }

    #[test]
    fn range_is_not_covered_but_range_behavior_is() {
        let sign = |headers: &[(&str, &str)]| signer(None).sign(&get(headers), 0).signature;
        assert_eq!(sign(&[]), sign(&[("Range", "bytes=0-1"), ("If-Match", "\"E\"")]));
        assert_ne!(sign(&[]), sign(&[("x-oss-range-behavior", "standard")]));
        assert_eq!(sign(&[("X-OSS-A", " v ")]), sign(&[("x-oss-a", "v")]));
    }

    #[test]
    fn headers_of_the_signer_win_over_the_callers() {
        let stale = [("x-oss-date", "20000101T000000Z"), ("X-Oss-Content-Sha256", "abc")];
        let signed = signer(None).sign(&get(&stale), 0);
        assert_eq!(signed.signature, signer(None).sign(&get(&[]), 0).signature);
        assert_eq!(header(&signed, "x-oss-date"), Some("19700101T000000Z"));
        assert_eq!(header(&signed, "x-oss-content-sha256"), Some("UNSIGNED-PAYLOAD"));
        assert_eq!(header(&signed, "x-oss-security-token"), None);
    }
}
