//! What of a request is signed, and V4's canonical form of it: the one text that client and service
//! both hash. Called by `v4` and `v1`; the two encoders are public because the request line must spell key and query the same way.
//!
//! It never decodes: what comes in is raw, what goes out is encoded exactly once.

use std::collections::BTreeMap;

/// The body hash of a V4 request by header: the literal that the service asks for.
pub(crate) const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// What is to be signed. `key`, names and values are raw: not percent-encoded, any UTF-8.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Upper-case HTTP method.
    pub method: &'a str,
    /// `None` addresses the service (the list of buckets).
    pub bucket: Option<&'a str>,
    /// `None` addresses the bucket (a listing). Ignored without a bucket.
    pub key: Option<&'a str>,
    /// Every pair of the query, in any order; an empty value means a bare name.
    pub query: &'a [(&'a str, &'a str)],
    /// The request's headers. Only `x-oss-*`, Content-Type, Content-MD5 and the additional ones
    /// are signed. Those that the signer adds itself are ignored here.
    pub headers: &'a [(&'a str, &'a str)],
    /// Names of further headers to sign, in any case and order; those that are absent or signed
    /// anyway are dropped.
    pub additional_headers: &'a [&'a str],
}

/// Percent-encodes every byte but `A-Z a-z 0-9 - _ . ~`, upper-case hex; `keep_slash` leaves `/`
/// alone too (keys in a path), otherwise it becomes `%2F` (names and values of a query).
pub fn percent_encode(bytes: &[u8], keep_slash: bool) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 4);
    for &byte in bytes {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
        if plain || (keep_slash && byte == b'/') {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    text
}

/// The query as it goes on the wire, in the given order, without `?`. An empty value is written
/// as the bare name; the signature is the same for `name` and `name=`.
pub fn query_string(query: &[(&str, &str)]) -> String {
    encoded_pairs(query).iter().map(pair_text).collect::<Vec<_>>().join("&")
}

fn encoded_pairs(query: &[(&str, &str)]) -> Vec<(String, String)> {
    query
        .iter()
        .map(|(name, value)| (percent_encode(name.as_bytes(), false), percent_encode(value.as_bytes(), false)))
        .collect()
}

fn pair_text((name, value): &(String, String)) -> String {
    if value.is_empty() { name.clone() } else { format!("{name}={value}") }
}

/// Names and values of the signed headers plus the list of additional names.
pub(crate) struct SignedHeaders {
    /// Lower-case name to trimmed value, sorted by name.
    lines: BTreeMap<String, String>,
    /// Lower-case, sorted, joined by `;`; empty if there is none.
    pub(crate) additional: String,
}

impl SignedHeaders {
    /// Selects what is signed of `request`; `own` (lower-case names) are added and win.
    pub(crate) fn select(request: &Request<'_>, own: &[(&str, &str)]) -> Self {
        let wanted: Vec<String> = request.additional_headers.iter().map(|name| name.to_ascii_lowercase()).collect();
        let mut lines = BTreeMap::new();
        let mut additional = Vec::new();
        for (name, value) in request.headers {
            let name = name.to_ascii_lowercase();
            let by_default = signed_by_default(&name);
            if !by_default && !wanted.contains(&name) {
                continue;
            }
            if !by_default && !additional.contains(&name) {
                additional.push(name.clone());
            }
            lines.insert(name, value.trim().to_owned());
        }
        for (name, value) in own {
            lines.insert((*name).to_owned(), (*value).to_owned());
        }
        additional.sort_unstable();
        Self { lines, additional: additional.join(";") }
    }

    /// The value of a signed header, by its lower-case name.
    pub(crate) fn value(&self, lower_name: &str) -> Option<&str> {
        self.lines.get(lower_name).map(String::as_str)
    }

    /// The lines of all names that begin so, each ending in a newline.
    pub(crate) fn lines_with(&self, prefix: &str) -> String {
        let lines = self.lines.iter().filter(|(name, _)| name.starts_with(prefix));
        lines.map(|(name, value)| format!("{name}:{value}\n")).collect()
    }
}

fn signed_by_default(lower_name: &str) -> bool {
    lower_name.starts_with("x-oss-") || matches!(lower_name, "content-type" | "content-md5")
}

/// The canonical request, lines joined by `\n`, without a final one.
pub(crate) fn canonical_request(request: &Request<'_>, headers: &SignedHeaders) -> String {
    let mut pairs = encoded_pairs(request.query);
    pairs.sort_unstable();
    let query = pairs.iter().map(pair_text).collect::<Vec<_>>().join("&");
    // Each header line ends in a newline of its own, and one more closes the block.
    let lines = headers.lines_with("");
    let (method, uri, additional) = (request.method, canonical_uri(request), &headers.additional);
    format!("{method}\n{uri}\n{query}\n{lines}\n{additional}\n{UNSIGNED_PAYLOAD}")
}

/// Always with the bucket, whatever the address style of the connection is.
fn canonical_uri(request: &Request<'_>) -> String {
    let raw = match (request.bucket, request.key) {
        (None, _) => "/".to_owned(),
        (Some(bucket), key) => format!("/{bucket}/{}", key.unwrap_or_default()),
    };
    percent_encode(raw.as_bytes(), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_keeps_only_the_unreserved() {
        assert_eq!(percent_encode(b"AZaz09-_.~", false), "AZaz09-_.~");
        assert_eq!(percent_encode(b"a/b c+d%", true), "a/b%20c%2Bd%25");
        assert_eq!(percent_encode(b"a/b", false), "a%2Fb");
        assert_eq!(percent_encode("()'!*模\0\u{7f}".as_bytes(), true), "%28%29%27%21%2A%E6%A8%A1%00%7F");
        assert_eq!(percent_encode(b"//../x", true), "//../x");
    }

    #[test]
    fn query_keeps_order_and_writes_empty_values_bare() {
        assert_eq!(query_string(&[]), "");
        assert_eq!(
            query_string(&[("prefix", "d/ +"), ("acl", ""), ("list-type", "2")]),
            "prefix=d%2F%20%2B&acl&list-type=2"
        );
    }

    #[test]
    fn service_and_bucket_have_their_own_uri() {
        let mut request =
            Request { method: "GET", bucket: None, key: None, query: &[], headers: &[], additional_headers: &[] };
        assert_eq!(canonical_uri(&request), "/");
        request.bucket = Some("b");
        assert_eq!(canonical_uri(&request), "/b/");
        request.key = Some("/k//é");
        assert_eq!(canonical_uri(&request), "/b//k//%C3%A9");
    }
}
