//! HTTP/1.1 responses: the head (by httparse) and chunked bodies. Used by the connection.
//! Never does I/O and never decides what an answer means.

use std::mem::MaybeUninit;
use std::time::SystemTime;

/// Longest head (bytes).
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers in a head. OSS limits those of users by their bytes alone: 8 KiB, so about 500 of them.
pub(crate) const HEADERS_MAX: usize = 640;
/// Longest chunk-size line or trailer line (bytes).
pub(crate) const CHUNK_LINE_BYTES_MAX: usize = 1024;
/// All trailer lines together (bytes).
pub(crate) const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// The fields of a response head that anybody here asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes of the head itself.
    pub len: usize,
    pub status: u16,
    pub keep_alive: bool,
    pub content_length: Option<u64>,
    pub chunked: bool,
    /// Any Content-Encoding but identity.
    pub encoded: bool,
    pub content_range: Option<ContentRange>,
    pub etag: Option<String>,
    pub request_id: Option<String>,
    pub crc64: Option<u64>,
    pub last_modified: Option<i64>,
    pub date: Option<i64>,
    pub ec: Option<String>,
    /// `x-oss-err`, base64.
    pub oss_err: Option<Vec<u8>>,
}

/// `bytes first-last/total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentRange {
    pub first: u64,
    pub last: u64,
    pub total: u64,
}

/// What a server says that was asked in plain http and expects TLS.
pub(crate) const TLS_SPOKEN: &str = "TLS is spoken at this port: write https:// in OSS_ENDPOINT, or check the port";

/// A TLS record that holds an alert, of any version of the protocol.
fn is_tls(bytes: &[u8]) -> bool {
    bytes.starts_with(&[21, 3])
}

/// Reads a head from the first received bytes; `None` if it is not complete.
///
/// # Errors
/// Text that says what is wrong with it.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Head>, String> {
    // Only what is there is written: a head of OSS has twenty.
    let mut headers = [MaybeUninit::uninit(); HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let len = match parser.parse_response_with_uninit_headers(&mut response, bytes, &mut headers) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) if is_tls(bytes) => return Err(TLS_SPOKEN.into()),
        Err(e) => return Err(format!("the answer is not HTTP/1: {e}")),
    };
    let status = response.code.unwrap_or(0);
    if status < 100 {
        return Err(format!("status {status:03} is none of HTTP"));
    }
    let mut head = Head { len, status, ..Head::default() };
    head.keep_alive = response.version == Some(1);
    for header in response.headers.iter() {
        head.set(header.name, header.value)?;
    }
    if head.chunked && head.content_length.is_some() {
        return Err("the answer has both Transfer-Encoding and Content-Length".into());
    }
    Ok(Some(head))
}

impl Head {
    fn set(&mut self, name: &str, value: &[u8]) -> Result<(), String> {
        let text = String::from_utf8_lossy(value);
        let text = text.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let length = decimal(text).ok_or_else(|| format!("Content-Length {text:?} is no length"))?;
                if self.content_length.is_some_and(|other| other != length) {
                    return Err("the answer has two different Content-Length".into());
                }
                self.content_length = Some(length);
            }
            "transfer-encoding" => match text.to_ascii_lowercase().as_str() {
                "identity" => {}
                "chunked" if !self.chunked => self.chunked = true,
                _ => return Err(format!("Transfer-Encoding {text:?} is not supported")),
            },
            "content-encoding" => self.encoded |= !text.is_empty() && !text.eq_ignore_ascii_case("identity"),
            "content-range" => {
                let range = content_range(text).ok_or_else(|| format!("Content-Range {text:?} cannot be read"))?;
                if self.content_range.is_some_and(|other| other != range) {
                    return Err("the answer has two different Content-Range".into());
                }
                self.content_range = Some(range);
            }
            "connection" => {
                for word in text.split(',').map(str::trim) {
                    if word.eq_ignore_ascii_case("close") {
                        self.keep_alive = false;
                    }
                }
            }
            "etag" => self.etag = Some(text.into()),
            "x-oss-request-id" => self.request_id = Some(crate::error::printable(text)),
            "x-oss-hash-crc64ecma" => self.crc64 = decimal(text),
            "last-modified" => self.last_modified = http_date(text),
            "date" => self.date = http_date(text),
            "x-oss-ec" => self.ec = Some(crate::error::printable(text)),
            "x-oss-err" => self.oss_err = Some(text.as_bytes().to_vec()),
            _ => {}
        }
        Ok(())
    }
}

/// Digits only: no sign, no space.
fn decimal(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// `bytes 0-499/1000`. The form of a 416, `bytes */1000`, has no range: the empty one stands for it.
fn content_range(text: &str) -> Option<ContentRange> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let total = decimal(total)?;
    if range == "*" {
        return Some(ContentRange { first: 1, last: 0, total });
    }
    let (first, last) = range.split_once('-')?;
    Some(ContentRange { first: decimal(first)?, last: decimal(last)?, total })
}

fn http_date(text: &str) -> Option<i64> {
    let time = httpdate::parse_http_date(text).ok()?;
    i64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// Decoder of a chunked body, for small documents only.
#[derive(Debug, Default)]
pub(crate) struct Chunked {
    state: Chunk,
    line: Vec<u8>,
    trailer_bytes: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    #[default]
    Size,
    Data(u64),
    /// The line end after a chunk's data.
    DataEnd,
    Trailer,
    End,
}

impl Chunked {
    /// Takes bytes, appends data to `out` (at most `bytes_max` in all) and returns how many bytes
    /// it used. Fewer than given only at the end of the body.
    ///
    /// # Errors
    /// Text that says what is wrong with the body.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Result<usize, String> {
        let mut at = 0;
        while at < input.len() && self.state != Chunk::End {
            if let Chunk::Data(missing) = self.state {
                let n = (input.len() - at).min(usize::try_from(missing).unwrap_or(usize::MAX));
                if out.len() + n > bytes_max {
                    return Err(format!("the body is longer than {bytes_max} bytes"));
                }
                out.extend_from_slice(&input[at..at + n]);
                at += n;
                let left = missing - n as u64;
                self.state = if left == 0 { Chunk::DataEnd } else { Chunk::Data(left) };
                continue;
            }
            let byte = input[at];
            at += 1;
            if byte == b'\n' {
                self.line_end()?;
            } else if self.line.len() >= CHUNK_LINE_BYTES_MAX {
                return Err("a line of the chunked body is too long".into());
            } else {
                self.line.push(byte);
            }
        }
        Ok(at)
    }

    pub fn ended(&self) -> bool {
        self.state == Chunk::End
    }

    fn line_end(&mut self) -> Result<(), String> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").ok_or("a line of the chunked body ends without CR")?;
        self.state = match self.state {
            Chunk::Size => {
                let digits = line.split(|&byte| byte == b';').next().unwrap_or(line).trim_ascii();
                match chunk_size(digits).ok_or("a chunk size cannot be read")? {
                    0 => Chunk::Trailer,
                    size => Chunk::Data(size),
                }
            }
            Chunk::DataEnd if line.is_empty() => Chunk::Size,
            Chunk::DataEnd => return Err("a chunk is longer than its size".into()),
            Chunk::Trailer if line.is_empty() => Chunk::End,
            Chunk::Trailer => {
                self.trailer_bytes += line.len();
                if self.trailer_bytes > TRAILER_BYTES_MAX {
                    return Err("the trailer of the chunked body is too long".into());
                }
                Chunk::Trailer
            }
            state @ (Chunk::Data(_) | Chunk::End) => state,
        };
        Ok(())
    }
}

fn chunk_size(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    digits.iter().try_fold(0_u64, |size, &byte| Some(size * 16 + u64::from(char::from(byte).to_digit(16)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 206 Partial Content\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\nContent-Length: 8\r\n\
        Content-Range: bytes 8-15/100\r\nETag: \"E\"\r\nx-oss-request-id: 5F\r\nx-oss-hash-crc64ecma: 18446744073709551615\r\n\
        Last-Modified: Thu, 01 Jan 1970 00:00:10 GMT\r\nConnection: keep-alive\r\n\r\n";

    #[test]
    fn an_alert_of_tls_is_no_broken_head() {
        for version in 0..=4 {
            assert_eq!(parse(&[21, 3, version, 0, 2, 2, 70]), Err(TLS_SPOKEN.to_owned()));
        }
        assert!(parse(b"\x16\x03\x03").is_err_and(|why| why.contains("not HTTP/1")));
    }

    #[test]
    fn heads_parse_only_when_complete() {
        for end in 0..HEAD.len() {
            assert_eq!(parse(&HEAD.as_bytes()[..end]), Ok(None), "at {end}");
        }
        let head = parse(HEAD.as_bytes()).expect("head").expect("complete");
        assert_eq!((head.len, head.status, head.keep_alive), (HEAD.len(), 206, true));
        assert_eq!(head.content_length, Some(8));
        assert_eq!(head.content_range, Some(ContentRange { first: 8, last: 15, total: 100 }));
        assert_eq!(head.crc64, Some(u64::MAX));
        assert_eq!((head.date, head.last_modified), (Some(1_700_000_000), Some(10)));
        assert_eq!((head.etag.as_deref(), head.request_id.as_deref()), (Some("\"E\""), Some("5F")));
    }

    #[test]
    fn ambiguous_lengths_are_refused() {
        for fields in [
            "Content-Length: 8\r\nContent-Length: 9",
            "Content-Length: 8\r\nTransfer-Encoding: chunked",
            "Content-Length: +8",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: gzip, chunked",
            "Content-Range: bytes 1-2",
            "Content-Range: bytes 0-1/9\r\nContent-Range: bytes 1-2/9",
        ] {
            assert!(parse(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n").as_bytes()).is_err(), "{fields}");
        }
    }

    #[test]
    fn keep_alive_follows_version_and_connection() {
        let keep = |head: &str| parse(head.as_bytes()).expect("head").expect("complete").keep_alive;
        assert!(keep("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!keep("HTTP/1.0 200 OK\r\n\r\n"));
        assert!(!keep("HTTP/1.1 200 OK\r\nConnection: Keep-Alive, Close\r\n\r\n"));
    }

    #[test]
    fn a_status_below_100_is_an_error() {
        for status in ["000", "020", "099"] {
            assert!(parse(format!("HTTP/1.1 {status} OK\r\n\r\n").as_bytes()).is_err(), "{status}");
        }
    }

    #[test]
    fn too_many_headers_are_an_error() {
        let head = |count: u32| {
            let many: String = (0..count).map(|i| format!("x-oss-meta-{i}: x\r\n")).collect();
            parse(format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 7\r\n\r\n").as_bytes())
        };
        assert_eq!(head(500).unwrap().unwrap().content_length, Some(7), "as many as OSS lets a user have");
        assert!(head(641).is_err());
    }

    #[test]
    fn chunked_bodies_split_anywhere() {
        let body = b"5;x=y\r\nhello\r\n1\r\n \r\n0006\r\nworld!\r\n0\r\nTrailer: 1\r\n\r\nNEXT";
        for cut in 0..body.len() - 4 {
            let (mut chunked, mut out) = (Chunked::default(), Vec::new());
            assert_eq!(chunked.push(&body[..cut], &mut out, 12), Ok(cut), "cut {cut}");
            assert!(!chunked.ended(), "cut {cut}");
            assert_eq!(chunked.push(&body[cut..], &mut out, 12), Ok(body.len() - 4 - cut), "cut {cut}");
            assert!(chunked.ended() && out == b"hello world!", "cut {cut}");
        }
    }

    #[test]
    fn broken_chunks_are_errors() {
        for body in ["x\r\n", "\r\n", "5\nhello", "1\r\nab\r\n", "fffffffff\r\n", "-1\r\n"] {
            let mut out = Vec::new();
            assert!(Chunked::default().push(body.as_bytes(), &mut out, 100).is_err(), "{body:?}");
        }
        let mut out = Vec::new();
        assert!(Chunked::default().push(b"5\r\nhello", &mut out, 4).is_err());
        assert!(Chunked::default().push(&[b'1'; 2000], &mut out, 4).is_err());
    }
}
