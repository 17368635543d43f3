//! Judges a response head against what was asked: which body follows, or why it is refused.
//! Used by the connection. Pure: never does I/O.

use std::ops::Range;

use crate::error::{Error, FailureKind, Phase};
use crate::fetch::{Query, Response};
use crate::http1::{Chunked, Head};

/// Longest error document that is read (bytes); the connection is closed if it is longer.
pub(crate) const FAULT_BYTES_MAX: u64 = 64 * 1024;

/// How the end of a body is known.
#[derive(Debug)]
pub(crate) enum Framing {
    /// Bytes still to come.
    Length(u64),
    Chunked(Chunked),
    /// The peer closes.
    Close,
}

impl Framing {
    /// Moves bytes of a document to `text`; how many of `input` belong to it.
    pub fn decode_into(&mut self, input: &[u8], text: &mut Vec<u8>, bytes_max: u64) -> Result<usize, String> {
        let room = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let n = match self {
            Framing::Chunked(chunked) => return chunked.push(input, text, room),
            Framing::Length(left) if *left > bytes_max.saturating_sub(text.len() as u64) => {
                return Err(format!("the body is longer than {bytes_max} bytes"));
            }
            Framing::Length(left) => {
                let n = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= n as u64;
                n
            }
            Framing::Close if text.len() + input.len() > room => {
                return Err(format!("the body is longer than {bytes_max} bytes"));
            }
            Framing::Close => input.len(),
        };
        text.extend_from_slice(&input[..n]);
        Ok(n)
    }

    /// Whether the body is whole; `Close` never knows.
    pub fn ended(&self) -> bool {
        match self {
            Framing::Length(left) => *left == 0,
            Framing::Chunked(chunked) => chunked.ended(),
            Framing::Close => false,
        }
    }
}

/// What follows a head.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nothing: HEAD, or an empty body.
    Done,
    /// The body of a Get: exactly so many bytes.
    Object(u64),
    /// A document of unknown length, for a buffer.
    Document(Framing),
    /// An error document of unknown or known length.
    Fault(Framing),
}

/// Decides what follows `head`.
///
/// # Errors
/// A broken or unfitting answer; the connection must be closed.
pub(crate) fn judge(query: &Query, head: &Head) -> Result<Verdict, Error> {
    if head.status >= 300 || head.status < 200 {
        return Ok(match (query, framing(head)) {
            (Query::Head { .. }, _) | (_, Framing::Length(0)) => Verdict::Done,
            _ if head.status == 304 => Verdict::Done,
            (_, framing) => Verdict::Fault(framing),
        });
    }
    let verdict = match query {
        Query::Get { range: Some(range), size, .. } if head.status == 206 => {
            part(range, *size, head).map(Verdict::Object)
        }
        Query::Get { range, size, .. } => whole(range.as_ref(), *size, head).map(Verdict::Object),
        Query::List { .. } if head.status == 200 && !head.encoded => Ok(match framing(head) {
            Framing::Length(0) => Verdict::Done,
            framing => Verdict::Document(framing),
        }),
        Query::Head { .. } if head.status == 200 => Ok(Verdict::Done),
        _ => Err(refuse(FailureKind::Protocol, "status or Content-Encoding does not fit the request".into())),
    };
    verdict.map_err(|mut error| {
        error.status = Some(head.status);
        error.request_id = head.request_id.as_deref().map(Into::into);
        error
    })
}

/// How the end of the body behind `head` is known.
pub(crate) fn framing(head: &Head) -> Framing {
    match (head.chunked, head.content_length) {
        (true, _) => Framing::Chunked(Chunked::default()),
        (_, Some(length)) => Framing::Length(length),
        _ => Framing::Close,
    }
}

/// A 206: start, end, total and length must all be what was asked for.
fn part(range: &Range<u64>, size: u64, head: &Head) -> Result<u64, Error> {
    let length = range.end - range.start;
    let Some(got) = head.content_range else {
        return Err(refuse(FailureKind::Protocol, "206 without Content-Range".into()));
    };
    if got.total != size {
        let text = format!("the object has {} bytes now, but {size} were listed", got.total);
        return Err(refuse(FailureKind::Changed, text));
    }
    if (got.first, got.last) != (range.start, range.end - 1) {
        let text =
            format!("asked for bytes {}-{}, the answer has {}-{}", range.start, range.end - 1, got.first, got.last);
        return Err(refuse(FailureKind::Protocol, text));
    }
    exact_body(length, head)
}

/// A 200 counts only if the whole object was asked for.
fn whole(range: Option<&Range<u64>>, size: u64, head: &Head) -> Result<u64, Error> {
    if head.status != 200 {
        return Err(refuse(FailureKind::Protocol, format!("status {} to a request for the whole object", head.status)));
    }
    if range.is_some_and(|range| *range != (0..size)) {
        return Err(refuse(FailureKind::Protocol, "200 with the whole object to a request for a range".into()));
    }
    exact_body(size, head)
}

fn exact_body(length: u64, head: &Head) -> Result<u64, Error> {
    if head.encoded || head.chunked {
        let text = "the body is content-encoded or chunked although the bytes themselves were asked for";
        return Err(refuse(FailureKind::Protocol, text.into()));
    }
    match head.content_length {
        Some(got) if got == length => Ok(length),
        Some(got) => Err(refuse(FailureKind::Protocol, format!("Content-Length is {got}, expected {length}"))),
        None => Err(refuse(FailureKind::Protocol, "the answer has no Content-Length".into())),
    }
}

fn refuse(kind: FailureKind, message: String) -> Error {
    Error::new(kind, Phase::Status, message)
}

/// The version check that If-Match asks the server for, done here as well.
pub(crate) fn same_version(query: &Query, head: &Head) -> Result<(), Error> {
    let (Query::Get { etag: Some(asked), .. }, Some(got)) = (query, &head.etag) else {
        return Ok(());
    };
    if asked.trim_matches('"').eq_ignore_ascii_case(got.trim_matches('"')) {
        return Ok(());
    }
    let text = crate::error::printable(&format!("asked for version {asked}, the answer is version {got}"));
    let mut error = refuse(FailureKind::Changed, text);
    error.status = Some(head.status);
    error.request_id = head.request_id.as_deref().map(Into::into);
    Err(error)
}

/// The response that a good head stands for, before the body.
pub(crate) fn response(query: &Query, head: Head) -> Response {
    let total = match query {
        Query::List { .. } => None,
        _ => head.content_range.map(|range| range.total).or(head.content_length),
    };
    Response {
        status: head.status,
        etag: head.etag,
        request_id: head.request_id.unwrap_or_default(),
        crc64_object: head.crc64,
        total,
        last_modified: head.last_modified,
        date: head.date,
        bytes: 0,
        crc64_body: None,
    }
}
