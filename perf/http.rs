//! The request for a range and the head of its answer, as far as a floor needs them. Used by all receivers but the
//! engine, which has its own. Does no I/O.

use crate::error::{Error, Result};
use crate::target::Target;
use std::ops::Range;

/// Longest head accepted.
pub const HEAD_BYTES_MAX: usize = 16 << 10;

/// What a head said that is needed.
pub struct Head {
    pub len: usize,
    pub crc64: Option<u64>,
}

/// As text.
pub fn request(target: &Target, range: &Range<u64>) -> String {
    let Target { authority, bucket, key, .. } = target;
    format!(
        "GET /{bucket}/{key} HTTP/1.1\r\nHost: {authority}\r\nRange: bytes={}-{}\r\nx-oss-range-behavior: standard\r\n\r\n",
        range.start,
        range.end - 1
    )
}

/// `None` while the head is not complete.
pub fn parse(bytes: &[u8], range: &Range<u64>, size: u64) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let len = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(e) => return Err(Error::Wrong(format!("not an HTTP answer: {e}"))),
    };
    let status = response.code.unwrap_or(0);
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let expected = format!("bytes {}-{}/{size}", range.start, range.end - 1);
    let length = header("content-length").and_then(|text| text.parse::<u64>().ok());
    if status != 206 || header("content-range") != Some(&expected) || length != Some(range.end - range.start) {
        return Err(Error::Wrong(format!(
            "status {status}, Content-Range {:?}, Content-Length {length:?}, request id {:?}; expected 206 and {expected:?}",
            header("content-range"),
            header("x-oss-request-id")
        )));
    }
    let crc64 = header("x-oss-hash-crc64ecma").and_then(|text| text.parse().ok());
    Ok(Some(Head { len, crc64 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\ncontent-range: bytes 5-14/100\r\nx-oss-hash-crc64ecma: 18446744073709551615\r\n\r\n";

    #[test]
    fn heads() {
        let head = parse(format!("{GOOD}body").as_bytes(), &(5..15), 100).unwrap().unwrap();
        assert_eq!((head.len, head.crc64), (GOOD.len(), Some(u64::MAX)));
        assert!(parse(&GOOD.as_bytes()[..40], &(5..15), 100).unwrap().is_none());
    }

    #[test]
    fn an_answer_to_something_else_is_no_figure() {
        for (from, to) in [("206 Partial Content", "200 OK"), ("5-14", "4-13"), ("/100", "/101"), (": 10", ": 9")] {
            assert!(parse(GOOD.replace(from, to).as_bytes(), &(5..15), 100).is_err(), "{to}");
        }
    }
}
