//! The bucket as seen from the wire: addresses, host, signer, and the text of each request.
//! Used by vcpus. Never opens a connection and reads no clock (time is an argument).

use std::net::SocketAddr;
use std::sync::Arc;

use crate::error::{Error, FailureKind, Phase};
use crate::fetch::Query;
use crate::tls::Tls;

/// One bucket at one endpoint, shared by all vcpus.
#[derive(Clone, Debug)]
pub struct Origin {
    /// All addresses of the endpoint; connections are spread over them.
    pub addresses: Vec<SocketAddr>,
    /// Host header: `BUCKET.endpoint` or, with `path_style`, the endpoint; with the port unless
    /// it is the default.
    pub host_header: String,
    /// Name of the bucket.
    pub bucket: String,
    /// `/BUCKET/KEY` instead of `/KEY` (IP literals and localhost).
    pub path_style: bool,
    /// `None` for plain http.
    pub tls: Option<Tls>,
    /// `None` for anonymous access.
    pub signer: Option<Arc<ossc_sign::Signer>>,
    /// User-Agent header.
    pub user_agent: String,
    /// Counts the times from which on no connection that was open is used for another request.
    pub renewal: u64,
}

impl Origin {
    /// A bucket that is asked by its own host, in plain http and unsigned. What is otherwise is set by its field.
    pub fn new(addresses: Vec<SocketAddr>, host_header: &str, bucket: &str) -> Origin {
        Origin {
            addresses,
            host_header: host_header.into(),
            bucket: bucket.into(),
            path_style: false,
            tls: None,
            signer: None,
            user_agent: concat!("oss-connector/", env!("CARGO_PKG_VERSION")).into(),
            renewal: 0,
        }
    }

    /// The same bucket, asked with another key.
    pub(crate) fn with_signer(&self, signer: ossc_sign::Signer) -> Origin {
        Origin { signer: Some(Arc::new(signer)), ..self.clone() }
    }

    /// The same, over other connections.
    pub(crate) fn renewed(&self) -> Origin {
        Origin { renewal: self.renewal + 1, ..self.clone() }
    }

    /// Appends the whole request to `out`, signed as of `unix_secs`.
    ///
    /// # Errors
    /// `FailureKind::Config` in phase sign if a value cannot stand in a header or the range is not in
    /// the object.
    pub(crate) fn write_request(&self, query: &Query, unix_secs: i64, out: &mut Vec<u8>) -> Result<(), Error> {
        let parts = Parts::of(query)?;
        let key = parts.key;
        let path = self.path(key);
        let own: Vec<(&str, &str)> = parts.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let signed = self.signer.as_ref().map(|signer| {
            let request = ossc_sign::Request {
                method: parts.method,
                bucket: Some(&self.bucket),
                key,
                query: &parts.query,
                headers: &own,
                additional_headers: &[],
            };
            signer.sign(&request, unix_secs).headers
        });
        let date = ossc_sign::http_date(unix_secs);
        let fixed = [
            ("Host", self.host_header.as_str()),
            ("User-Agent", self.user_agent.as_str()),
            ("Date", date.as_str()),
            ("Accept-Encoding", "identity"),
        ];
        let signed: Vec<(&str, &str)> = signed.iter().flatten().map(|(name, value)| (*name, value.as_str())).collect();
        // A date that was signed is the one that goes out.
        let fixed = fixed.into_iter().filter(|(name, _)| signed.iter().all(|(other, _)| other != name));
        out.extend_from_slice(format!("{} {path}", parts.method).as_bytes());
        if !parts.query.is_empty() {
            out.push(b'?');
            out.extend_from_slice(ossc_sign::query_string(&parts.query).as_bytes());
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        for (name, value) in fixed.chain(own).chain(signed.iter().copied()) {
            push_header(name, value, out)?;
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn path(&self, key: Option<&str>) -> String {
        let key = ossc_sign::percent_encode(key.unwrap_or("").as_bytes(), true);
        if self.path_style { format!("/{}/{key}", self.bucket) } else { format!("/{key}") }
    }
}

/// What of a query goes into the request.
struct Parts<'a> {
    method: &'static str,
    key: Option<&'a str>,
    query: Vec<(&'a str, &'a str)>,
    headers: Vec<(&'static str, String)>,
}

impl<'a> Parts<'a> {
    fn of(query: &'a Query) -> Result<Parts<'a>, Error> {
        let mut parts = Parts { method: "GET", key: None, query: Vec::new(), headers: Vec::new() };
        match query {
            Query::List { prefix, delimiter, continuation } => {
                parts.query.extend([("list-type", "2"), ("max-keys", "1000"), ("encoding-type", "url")]);
                let given = [
                    ("prefix", Some(prefix)),
                    ("delimiter", delimiter.as_ref()),
                    ("continuation-token", continuation.as_ref()),
                ];
                parts.query.extend(given.into_iter().filter_map(|(name, value)| {
                    value.filter(|value| !value.is_empty()).map(|value| (name, value.as_str()))
                }));
            }
            Query::Get { key, range, etag, size } => {
                parts.key = Some(key);
                if let Some(range) = range {
                    if range.start >= range.end || range.end > *size {
                        return Err(Error::new(
                            FailureKind::Config,
                            Phase::Sign,
                            format!("the range is empty or not inside the object's {size} bytes"),
                        ));
                    }
                    // Without the second header OSS answers an out-of-range request with 200 and
                    // the whole object.
                    parts.headers.push(("Range", format!("bytes={}-{}", range.start, range.end - 1)));
                    parts.headers.push(("x-oss-range-behavior", "standard".into()));
                }
                if let Some(etag) = etag {
                    parts.headers.push(("If-Match", etag.clone()));
                }
            }
            Query::Head { key } => {
                parts.method = "HEAD";
                parts.key = Some(key);
            }
        }
        if parts.key == Some("") {
            return Err(Error::new(FailureKind::Config, Phase::Sign, "the key is empty"));
        }
        Ok(parts)
    }
}

fn push_header(name: &str, value: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    if value.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return Err(Error::new(
            FailureKind::Config,
            Phase::Sign,
            format!("the value of {name} has control characters"),
        ));
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(path_style: bool, signed: bool) -> Origin {
        let credentials = ossc_sign::Credentials {
            access_key_id: "ak".into(),
            access_key_secret: ossc_sign::Secret::new("very-secret".into()),
            security_token: None,
        };
        let scope = ossc_sign::Scope { region: "cn-beijing".into(), product: "oss".into() };
        let signer = signed.then(|| ossc_sign::Signer::V4(ossc_sign::V4::new(credentials, scope)));
        let user_agent = "ossc/0.1".into();
        Origin {
            path_style,
            signer: signer.map(Arc::new),
            user_agent,
            ..Origin::new(Vec::new(), "b.oss-cn-beijing.aliyuncs.com", "b")
        }
    }

    fn text(origin: &Origin, query: &Query) -> Result<String, Error> {
        let mut out = Vec::new();
        origin.write_request(query, 1_700_000_000, &mut out)?;
        Ok(String::from_utf8(out).expect("ASCII"))
    }

    fn get(range: Option<std::ops::Range<u64>>) -> Query {
        Query::Get { key: "a dir/ü+1".into(), range, etag: Some("\"E\"".into()), size: 100 }
    }

    #[test]
    fn ranged_get() {
        let request = text(&origin(false, false), &get(Some(8..16))).expect("request");
        assert_eq!(
            request,
            "GET /a%20dir/%C3%BC%2B1 HTTP/1.1\r\nHost: b.oss-cn-beijing.aliyuncs.com\r\nUser-Agent: ossc/0.1\r\n\
             Date: Tue, 14 Nov 2023 22:13:20 GMT\r\nAccept-Encoding: identity\r\nRange: bytes=8-15\r\n\
             x-oss-range-behavior: standard\r\nIf-Match: \"E\"\r\n\r\n"
        );
    }

    #[test]
    fn whole_get_and_head_have_no_range() {
        let whole = text(&origin(true, false), &get(None)).expect("request");
        assert!(whole.starts_with("GET /b/a%20dir/%C3%BC%2B1 HTTP/1.1\r\n"), "{whole}");
        assert!(!whole.contains("ange: ") && !whole.contains("range-behavior"), "{whole}");
        let head = text(&origin(false, false), &Query::Head { key: "k".into() }).expect("request");
        assert!(head.starts_with("HEAD /k HTTP/1.1\r\n"), "{head}");
    }

    #[test]
    fn list_keeps_the_slash_of_the_bucket_and_encodes_the_token() {
        let query = Query::List { prefix: "m/".into(), delimiter: Some("/".into()), continuation: Some("a+b=".into()) };
        let request = text(&origin(true, false), &query).expect("request");
        let line = "GET /b/?list-type=2&max-keys=1000&encoding-type=url&prefix=m%2F&delimiter=%2F&continuation-token=a%2Bb%3D HTTP/1.1\r\n";
        assert!(request.starts_with(line), "{request}");
    }

    #[test]
    fn signed_requests_carry_the_signers_headers_and_no_secret() {
        let request = text(&origin(false, true), &get(Some(0..1))).expect("request");
        assert!(
            request.contains("\r\nAuthorization: OSS4-HMAC-SHA256 Credential=ak/20231114/cn-beijing/oss/"),
            "{request}"
        );
        assert!(request.contains("\r\nx-oss-date: 20231114T221320Z\r\n"), "{request}");
        assert!(!request.contains("very-secret"));
        assert!(!format!("{:?}", origin(false, true)).contains("very-secret"));
    }

    #[test]
    fn a_v1_request_has_one_date_and_no_v4_header() {
        let credentials = ossc_sign::Credentials {
            access_key_id: "ak".into(),
            access_key_secret: ossc_sign::Secret::new("very-secret".into()),
            security_token: Some(ossc_sign::Secret::new("token".into())),
        };
        let signer = Some(ossc_sign::Signer::V1(ossc_sign::V1::new(credentials)));
        let request =
            text(&Origin { signer: signer.map(Arc::new), ..origin(false, false) }, &get(Some(0..1))).expect("request");
        assert!(request.contains("\r\nAuthorization: OSS ak:"), "{request}");
        assert!(request.contains("\r\nx-oss-security-token: token\r\n"), "{request}");
        assert_eq!(request.matches("\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n").count(), 1, "{request}");
        assert!(!request.contains("x-oss-date") && !request.contains("content-sha256"), "{request}");
    }

    #[test]
    fn bad_values_never_reach_the_wire() {
        let split = Query::Get { key: "k".into(), range: None, etag: Some("x\r\nEvil: 1".into()), size: 1 };
        for query in [split, get(Some(5..5)), get(Some(90..101)), Query::Head { key: String::new() }] {
            let error = text(&origin(false, false), &query).expect_err("refused");
            assert_eq!((error.kind, error.phase), (FailureKind::Config, Phase::Sign), "{query:?}");
        }
    }
}
