//! What must hold for any bytes that a peer sends and any key that a bucket has: called with inputs
//! of a fuzzer (tests/fuzz) and, in the unit tests, with the corpus that is kept there. Not part of
//! the product; each function panics when its property is broken, and returns nothing.

mod conn;

use crate::error::{Fault, printable};
use crate::fetch::Query;
use crate::http1::{self, Chunked};
use crate::list::{self, Page};
use crate::origin::Origin;

pub use conn::conn;

/// Bytes to text by `String::from_utf8_lossy`, then to fields: what a field may grow to.
const TEXT_BYTES_MAX: usize = 4096;

/// Cuts of `bytes` to try: the last byte, and some that the bytes choose themselves.
fn cuts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let seed = bytes.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let len = bytes.len();
    let chosen = (0..6).map(move |n| seed.wrapping_mul(2 * n + 1).wrapping_add(n) % len.max(1));
    chosen.chain(len.checked_sub(1)).filter(move |at| *at < len)
}

/// A response head, and a chunked body behind it.
pub fn head(bytes: &[u8]) {
    let whole = http1::parse(bytes);
    for at in cuts(bytes) {
        match (http1::parse(&bytes[..at]), &whole) {
            (Ok(Some(cut)), Ok(Some(head))) => assert_eq!(&cut, head, "cut at {at}"),
            (Ok(Some(_)), _) => panic!("a head of {at} bytes is none when more follow"),
            (Err(_), Ok(_)) => panic!("what is broken after {at} bytes is whole when more follow"),
            (Ok(None), Ok(Some(head))) => assert!(at < head.len, "cut at {at}"),
            (Ok(None), _) | (Err(_), Err(_)) => {}
        }
    }
    let body = match whole {
        Ok(Some(head)) => {
            assert!(head.len <= bytes.len() && (100..1000).contains(&head.status), "{head:?}");
            assert!(!(head.chunked && head.content_length.is_some()), "two lengths");
            assert!([&head.request_id, &head.ec].into_iter().flatten().all(|text| fits_a_log(text)), "{head:?}");
            &bytes[head.len..]
        }
        _ => bytes,
    };
    chunked(body);
}

/// However it is split, a chunked body is the same, and never longer than it may be.
fn chunked(body: &[u8]) {
    const BODY_BYTES_MAX: usize = 1000;
    let (mut at_once, mut whole) = (Chunked::default(), Vec::new());
    let used = at_once.push(body, &mut whole, BODY_BYTES_MAX);
    assert!(whole.len() <= BODY_BYTES_MAX);
    let (mut split, mut parts, mut taken) = (Chunked::default(), Vec::new(), 0);
    let mut failed = false;
    for piece in body.chunks(1 + body.len() % 7) {
        match split.push(piece, &mut parts, BODY_BYTES_MAX) {
            Ok(n) => taken += n,
            Err(_) => failed = true,
        }
        if failed || split.ended() {
            break;
        }
    }
    assert_eq!(failed, used.is_err());
    if let Ok(used) = used {
        assert_eq!((taken, at_once.ended(), parts), (used, split.ended(), whole));
        assert!(at_once.ended() || used == body.len());
    }
}

/// A listing document. What was cut is never a shorter listing.
pub fn list(bytes: &[u8]) {
    let whole = list::parse(bytes);
    if let Ok(page) = &whole {
        let Page { objects, prefixes, next, undecodable, prefix: _ } = page;
        let keys = objects.iter().map(|object| &object.key).chain(prefixes).chain(undecodable).chain(next);
        let mut bytes_of_names = 0;
        for key in keys {
            assert!(!key.is_empty());
            bytes_of_names += key.len();
        }
        assert!(bytes_of_names < bytes.len(), "names longer than the document");
    }
    for at in cuts(bytes) {
        if let (Ok(cut), Ok(page)) = (list::parse(&bytes[..at]), &whole) {
            assert_eq!(&cut, page, "cut at {at}");
        }
    }
}

/// An error document, plain and in a header. What was cut never says something else.
pub fn fault(bytes: &[u8]) {
    use base64::Engine as _;
    let whole = Fault::from_xml(bytes);
    let fields = |fault: Fault| [fault.code, fault.message, fault.request_id, fault.ec];
    for text in fields(whole.clone()).into_iter().flatten() {
        assert!(!text.is_empty() && fits_a_log(&text), "{text:?}");
    }
    let coded = base64::engine::general_purpose::STANDARD.encode(bytes);
    assert_eq!(Fault::from_header(coded.as_bytes()), whole);
    // As it comes, it may be no base64 at all.
    Fault::from_header(bytes);
    for at in cuts(bytes) {
        let cut = fields(Fault::from_xml(&bytes[..at]));
        for (cut, whole) in cut.iter().zip(fields(whole.clone())) {
            assert!(cut.is_none() || *cut == whole, "cut at {at}: {cut:?}, {whole:?}");
        }
    }
    let text = printable(&String::from_utf8_lossy(bytes));
    assert!(fits_a_log(&text));
    assert_eq!(printable(&text), text);
}

fn fits_a_log(text: &str) -> bool {
    text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control)
}

/// A key (text before the first byte 0) and other values, on their way to the wire and back.
pub fn key(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.splitn(2, '\0');
    let (key, other) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    for keep_slash in [true, false] {
        let coded = ossc_sign::percent_encode(bytes, keep_slash);
        assert_eq!(unescaped(&coded, keep_slash), bytes, "{coded}");
    }
    listed(key);
    // Half the work each: signing is most of it.
    asked(bytes.len().is_multiple_of(2), key, other, &text);
}

/// What a request asks for can be read back from its target.
fn asked(path_style: bool, key: &str, other: &str, text: &str) {
    let start = if path_style { "/bkt/" } else { "/" };
    let query = Query::Get { key: key.into(), range: None, etag: Some(other.into()), size: 1 };
    if let Some(target) = target(path_style, &query) {
        let path = target.strip_prefix(start).unwrap_or_else(|| panic!("{target}"));
        assert_eq!(unescaped(path, true), key.as_bytes());
    } else {
        assert!(key.is_empty() || other.bytes().any(|byte| byte < b' ' || byte == 0x7f), "{other:?}");
    }
    let query = Query::List { prefix: key.into(), delimiter: Some(other.into()), continuation: Some(text.into()) };
    let target = target(path_style, &query).expect("any value can be listed for");
    let (path, pairs) = target.split_once('?').unwrap_or_else(|| panic!("{target}"));
    assert_eq!(path, start);
    let pairs: Vec<(&str, Vec<u8>)> =
        pairs.split('&').filter_map(|pair| pair.split_once('=')).map(|(n, v)| (n, unescaped(v, false))).collect();
    for (name, value) in [("prefix", key), ("delimiter", other), ("continuation-token", text)] {
        let found: Vec<&[u8]> = pairs.iter().filter(|(n, _)| *n == name).map(|(_, v)| v.as_slice()).collect();
        let sent: Vec<&[u8]> = Some(value.as_bytes()).into_iter().filter(|value| !value.is_empty()).collect();
        assert_eq!(found, sent, "{name} in {target}");
    }
}

/// A key that the service lists under `encoding-type=url` arrives as it is, and so does one that XML
/// can hold without.
fn listed(key: &str) {
    if key.is_empty() {
        return;
    }
    let document = |key: &str, kind: &str| {
        let entry = format!("<Contents><Key>{key}</Key><Size>1</Size><ETag>x</ETag></Contents>");
        let page = format!("<ListBucketResult>{entry}<EncodingType>{kind}</EncodingType></ListBucketResult>");
        list::parse(page.as_bytes()).expect("a listing").objects[0].key.clone()
    };
    let coded = ossc_sign::percent_encode(key.as_bytes(), false);
    assert_eq!(document(&coded, "url"), key);
    assert_eq!(document(&coded.replace("%20", "+"), "url"), key);
    let references: String = key.chars().map(|c| format!("&#x{:x};", c as u32)).collect();
    if !key.contains('\0') && key.trim_matches(['\n', '\r', '\t']) == key {
        assert_eq!(document(&references, ""), key);
    }
}

/// The request's target, if the query can be sent: one line of its own, and one head.
fn target(path_style: bool, query: &Query) -> Option<String> {
    let credentials = ossc_sign::Credentials {
        access_key_id: "ak".into(),
        access_key_secret: ossc_sign::Secret::new("very-secret".into()),
        security_token: None,
    };
    let scope = ossc_sign::Scope { region: "cn-test".into(), product: "oss".into() };
    let signer = if path_style {
        ossc_sign::Signer::V4(ossc_sign::V4::new(credentials, scope))
    } else {
        ossc_sign::Signer::V1(ossc_sign::V1::new(credentials))
    };
    let origin = Origin { path_style, signer: Some(signer.into()), ..Origin::new(Vec::new(), "h", "bkt") };
    let mut out = Vec::new();
    origin.write_request(query, 1_700_000_000, &mut out).ok()?;
    let text = String::from_utf8(out).expect("UTF-8");
    let (head, rest) = text.split_once("\r\n\r\n").expect("an end");
    assert_eq!(rest, "", "bytes behind the head");
    assert!(!head.replace("\r\n", "").chars().any(char::is_control), "{head:?}");
    let names = head.split("\r\n").skip(1).filter_map(|line| line.split_once(": ")).map(|(name, _)| name);
    assert_eq!(names.filter(|name| *name == "Authorization").count(), 1);
    let target = head.strip_prefix("GET ")?.split(' ').next()?;
    assert!(head.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{head}");
    Some(target.to_owned())
}

/// Undoes percent-encoding by its definition, and nothing may stand there that needs none.
fn unescaped(text: &str, slash: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            assert!(byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || (slash && byte == b'/'), "{text}");
            bytes.push(byte);
            continue;
        }
        let digits = std::str::from_utf8(&rest[..2]).expect("two digits");
        assert!(digits.bytes().all(|digit| b"0123456789ABCDEF".contains(&digit)), "{text}");
        bytes.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
        rest = &rest[2..];
    }
    bytes
}

#[cfg(test)]
#[path = "../tests/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
#[test]
fn kept_inputs() {
    replay::replay("head", head);
    replay::replay("list", list);
    replay::replay("fault", fault);
    replay::replay("key", key);
    replay::replay("conn", conn);
}
