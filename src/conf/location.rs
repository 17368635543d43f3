//! OSS_PATH: the bucket and the folder of the model. Called by `env`; the engine lists and reads
//! below it. It never decodes: what stands after the bucket is the key's own text.

use std::fmt;

use crate::reason::{INVALID_URI, Reason};

/// Longest object name of OSS, in bytes.
const KEY_BYTES_MAX: usize = 1023;

/// A folder in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    bucket: String,
    prefix: String,
}

impl Location {
    /// Parses `oss://BUCKET/PATH/`; the final slash is added if it is missing, since a prefix
    /// without it also matches the siblings (`Qwen3-8B` and `Qwen3-8B-FP8`).
    ///
    /// # Errors
    /// `invalid uri`, with the text and what is wrong with it. A text with user information, or a URL with a query, is not
    /// repeated, since that may be a key or a signature.
    pub fn parse(text: &str) -> Result<Self, Reason> {
        let fail = |why: &str| {
            let form = "expected oss://BUCKET/PATH/, such as oss://examplebucket/qwen/Qwen3-8B/";
            let named = if may_hold_secret(text) { "…".into() } else { text.escape_debug().to_string() };
            Err(Reason::new(INVALID_URI, format!("{why} in OSS_PATH `{named}`; {form}")))
        };
        let Some(rest) = text.strip_prefix("oss://") else {
            return fail("no oss:// at the start");
        };
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !is_bucket_name(bucket) {
            return fail("a bucket name that is not 3 to 63 of a-z, 0-9 and - (not first or last)");
        }
        if path.starts_with(['/', '\\']) {
            return fail("a path that starts with a slash");
        }
        if path.chars().any(char::is_control) {
            return fail("a control character");
        }
        let mut prefix = path.to_owned();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        if prefix.len() > KEY_BYTES_MAX {
            return fail("a path of more than 1023 bytes");
        }
        Ok(Self { bucket: bucket.to_owned(), prefix })
    }

    /// Name of the bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Prefix of all keys below the folder: empty for the whole bucket, else ends with `/`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oss://{}/{}", self.bucket, self.prefix)
    }
}

/// True if a secret may be in an OSS_PATH: user information, or what belongs to a URL. No location has either.
pub(crate) fn may_hold_secret(text: &str) -> bool {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let is_url = scheme != "oss";
    rest.trim_start_matches('/').split('/').next().is_some_and(|authority| authority.contains(['@', ':']))
        || is_url && text.contains(['@', '?'])
}

/// 3 to 63 of lower-case letters, digits and `-`, which is neither first nor last.
fn is_bucket_name(text: &str) -> bool {
    (3..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_repeated() {
        for text in [
            "oss://id:secret@examplebucket/a/",
            "oss://id:secret/",
            "oss:///id:secret@examplebucket/a/",
            "https://examplebucket.oss-cn-beijing.aliyuncs.com/a?Signature=secret",
            "https://id:secret@host/a",
            "s3://id:secret@bucket/",
        ] {
            let said = Location::parse(text).unwrap_err().to_string();
            assert!(said.contains("in OSS_PATH `…`; expected") && !said.contains("secret"), "{said}");
        }
        let said = Location::parse("oss://B/secret@x?y").unwrap_err().to_string();
        assert!(said.contains("`oss://B/secret@x?y`"), "{said}");
    }

    #[test]
    fn bucket_and_prefix() {
        let longest = "b".repeat(63);
        let longest_uri = format!("oss://{longest}");
        for (text, bucket, prefix) in [
            ("oss://examplebucket/qwen/Qwen3-8B/", "examplebucket", "qwen/Qwen3-8B/"),
            ("oss://examplebucket/qwen/Qwen3-8B", "examplebucket", "qwen/Qwen3-8B/"),
            ("oss://examplebucket/", "examplebucket", ""),
            ("oss://examplebucket", "examplebucket", ""),
            ("oss://a-1/模型 v1+%20?x#y//z", "a-1", "模型 v1+%20?x#y//z/"),
            (longest_uri.as_str(), longest.as_str(), ""),
        ] {
            let location = Location::parse(text).unwrap_or_else(|reason| panic!("{reason}"));
            assert_eq!((location.bucket(), location.prefix()), (bucket, prefix), "{text}");
            assert_eq!(Location::parse(&location.to_string()), Ok(location), "{text}");
        }
    }

    #[test]
    fn bad_texts_are_invalid_uris() {
        let (long_bucket, long_path) =
            (format!("oss://{}/", "b".repeat(64)), format!("oss://bkt/{}", "k".repeat(1023)));
        for (text, why) in [
            ("", "no oss://"),
            ("examplebucket/x/", "no oss://"),
            ("s3://examplebucket/", "no oss://"),
            ("OSS://examplebucket/", "no oss://"),
            ("oss:/examplebucket/", "no oss://"),
            ("oss://", "a bucket name"),
            ("oss:///x/", "a bucket name"),
            ("oss://ab/", "a bucket name"),
            ("oss://-abc/", "a bucket name"),
            ("oss://abc-/", "a bucket name"),
            ("oss://Abc/", "a bucket name"),
            ("oss://a.bc/", "a bucket name"),
            ("oss://a_bc/", "a bucket name"),
            ("oss://id:pw@abc/", "a bucket name"),
            ("oss://bücket/", "a bucket name"),
            (long_bucket.as_str(), "a bucket name"),
            ("oss://abc//x/", "a path that starts with a slash"),
            ("oss://abc/\\x/", "a path that starts with a slash"),
            ("oss://abc/x\n/", "a control character"),
            ("oss://abc/x\0/", "a control character"),
            (long_path.as_str(), "a path of more than 1023 bytes"),
        ] {
            let reason = Location::parse(text).expect_err(text);
            assert_eq!(reason.kind(), "invalid uri");
            assert!(reason.to_string().starts_with(&format!("invalid uri: {why}")), "{reason}");
            assert!(!reason.to_string().chars().any(char::is_control), "{reason:?}");
        }
    }
}
