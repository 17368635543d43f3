//! Reads one request head and finds out bucket, key and query. Called by `conn`. Never reads a
//! request body, and never more than the limits below.

use crate::text::percent_decode;
use std::io::{self, Read};
use std::net::IpAddr;

/// Largest head, request line included. OSS keys are at most 1023 bytes, tokens a few KiB.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Most header lines.
const HEADERS_MAX: usize = 64;

/// One request as it came on the wire.
#[derive(Debug)]
pub(crate) struct Request {
    pub method: String,
    /// Path as sent, without the query.
    pub path: String,
    /// Query as sent, without `?`; empty if none.
    pub query: String,
    /// Names in lower case, values trimmed.
    pub headers: Vec<(String, String)>,
    /// `None` at service level.
    pub bucket: Option<String>,
    /// Decoded; empty at bucket level.
    pub key: Vec<u8>,
    pub keep_alive: bool,
}

/// Why no request could be read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The peer closed, idled too long or broke off: nothing to answer.
    Gone,
    /// Answer this status and close.
    Bad(u16, String),
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Pairs of the query, decoded; `None` on a broken escape.
    pub(crate) fn pairs(&self) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        query_pairs(&self.query)
    }

    /// Parses a head. `Ok(None)`: incomplete.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Unread> {
        let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Request::new(&mut slots);
        let used = match head.parse(bytes) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(Unread::Bad(431, format!("more than {HEADERS_MAX} headers")));
            }
            Err(e) => return Err(Unread::Bad(400, format!("not an HTTP/1.1 head: {e}"))),
        };
        let mut headers = Vec::with_capacity(head.headers.len());
        for h in head.headers.iter() {
            let value = std::str::from_utf8(h.value)
                .map_err(|_| Unread::Bad(400, format!("header {} is not UTF-8", h.name)))?;
            headers.push((h.name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let http11 = head.version == Some(1);
        let target = head.path.unwrap_or_default();
        let request = Self::build(head.method.unwrap_or_default(), target, headers, http11)?;
        Ok(Some((request, used)))
    }

    fn build(method: &str, target: &str, headers: Vec<(String, String)>, http11: bool) -> Result<Self, Unread> {
        let find = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let (authority, rest) = match target.strip_prefix("http://") {
            Some(absolute) => {
                let at = absolute.find('/').unwrap_or(absolute.len());
                (Some(&absolute[..at]), &absolute[at..])
            }
            None => (find("host"), target),
        };
        let host = authority.ok_or_else(|| Unread::Bad(400, "no Host header".into()))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let decoded = percent_decode(path)
            .filter(|p| p.first() == Some(&b'/'))
            .ok_or_else(|| Unread::Bad(400, format!("cannot decode the path {path}")))?;
        let (bucket, key) = resolve(host, &decoded[1..]);
        let body = find("transfer-encoding").is_some() || find("content-length").is_some_and(|n| n != "0");
        let connection = find("connection").unwrap_or_default().to_ascii_lowercase();
        let asked = if http11 { !connection.contains("close") } else { connection.contains("keep-alive") };
        Ok(Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            bucket,
            key,
            // A body is not read, so nothing can follow it on this connection.
            keep_alive: asked && !body,
            headers,
        })
    }
}

/// Reads from `stream` into `buffer` until a head is whole; bytes after it stay in `buffer`.
pub(crate) fn read(stream: &mut impl Read, buffer: &mut Vec<u8>) -> Result<Request, Unread> {
    loop {
        if !buffer.is_empty() {
            if let Some((request, used)) = Request::parse(buffer)? {
                buffer.drain(..used);
                return Ok(request);
            }
            if buffer.len() >= HEAD_BYTES_MAX {
                return Err(Unread::Bad(431, format!("the head exceeds {HEAD_BYTES_MAX} bytes")));
            }
        }
        let mut piece = [0; 4096];
        let room = piece.len().min(HEAD_BYTES_MAX - buffer.len());
        match stream.read(&mut piece[..room]) {
            Ok(0) => return Err(Unread::Gone),
            Ok(n) => buffer.extend_from_slice(&piece[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(Unread::Gone),
        }
    }
}

/// Decoded pairs of a raw query, in order. A plus is a space, as oss2 sends it (and signs `%20`).
pub(crate) fn query_pairs(query: &str) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let pair = |p: &str| {
        let (name, value) = p.split_once('=').unwrap_or((p, ""));
        Some((percent_decode(&name.replace('+', " "))?, percent_decode(&value.replace('+', " "))?))
    };
    query.split('&').filter(|p| !p.is_empty()).map(pair).collect()
}

/// Bucket and key. IP literals, `localhost` and single-label hosts are path style, all others
/// carry the bucket in their first label.
fn resolve(host: &str, path: &[u8]) -> (Option<String>, Vec<u8>) {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let label = name.split_once('.').map(|(label, _)| label);
    match label {
        Some(label) if name.parse::<IpAddr>().is_err() => (Some(label.to_owned()), path.to_vec()),
        _ => {
            let cut = path.iter().position(|b| *b == b'/');
            let (bucket, key) = cut.map_or((path, &[][..]), |at| (&path[..at], &path[at + 1..]));
            let bucket = (!bucket.is_empty()).then(|| String::from_utf8_lossy(bucket).into_owned());
            (bucket, key.to_vec())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Request {
        Request::parse(text.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn addressing() {
        let rows = [
            ("127.0.0.1:80", "/b/k/x", Some("b"), "k/x"),
            ("[::1]:80", "/b/", Some("b"), ""),
            ("localhost", "/b", Some("b"), ""),
            ("oss:80", "/b//k", Some("b"), "/k"),
            ("b.oss-cn-test.example:80", "/k%20x?q=1", Some("b"), "k x"),
            ("b.oss-cn-test.example", "//k", Some("b"), "/k"),
            ("b.localhost:1", "/k", Some("b"), "k"),
            ("127.0.0.1", "/", None, ""),
        ];
        for (host, target, bucket, key) in rows {
            let r = parsed(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!((r.bucket.as_deref(), r.key.as_slice()), (bucket, key.as_bytes()), "{host} {target}");
            assert!(r.keep_alive);
        }
        let r = parsed("GET http://1.2.3.4:5/b/k?x HTTP/1.0\r\n\r\n");
        assert_eq!((r.bucket.as_deref(), r.query.as_str(), r.keep_alive), (Some("b"), "x", false));
        assert!(!parsed("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n").keep_alive);
    }

    #[test]
    fn a_plus_in_a_query_is_a_space() {
        let pairs = query_pairs("a+b=c+d%2Be&f").unwrap();
        assert_eq!(pairs, [(b"a b".to_vec(), b"c d+e".to_vec()), (b"f".to_vec(), b"".to_vec())]);
    }

    #[test]
    fn limits() {
        let mut long = &vec![b'a'; HEAD_BYTES_MAX * 2][..];
        assert!(matches!(read(&mut long, &mut Vec::new()), Err(Unread::Bad(431, _) | Unread::Bad(400, _))));
        let path = "a".repeat(HEAD_BYTES_MAX);
        let mut long = format!("GET /{path} HTTP/1.1\r\n\r\n").into_bytes();
        long.truncate(HEAD_BYTES_MAX * 2);
        assert!(matches!(read(&mut &long[..], &mut Vec::new()), Err(Unread::Bad(431, _))));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        assert!(matches!(read(&mut many.as_bytes(), &mut Vec::new()), Err(Unread::Bad(431, _))));
        for bad in ["GET / HTTP/1.1\r\n\r\n", "GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", "G T\r\n\r\n"] {
            assert!(matches!(Request::parse(bad.as_bytes()), Err(Unread::Bad(400, _))), "{bad}");
        }
    }

    #[test]
    fn pipelined_heads_stay() {
        let two = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n";
        let (mut stream, mut buffer) = (&two[..], Vec::new());
        assert_eq!(read(&mut stream, &mut buffer).unwrap().path, "/a");
        assert_eq!(read(&mut stream, &mut buffer).unwrap().path, "/b");
        assert!(matches!(read(&mut stream, &mut buffer), Err(Unread::Gone)));
    }
}
