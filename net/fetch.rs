//! What the engine asks for and what it gets back: plain values that cross between the engine and
//! the vcpu threads. Nothing here does I/O.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::retry::Hint;
use crate::sink::Sink;

/// What to ask OSS for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// One page of ListObjectsV2 (at most 1000 entries); the body is for [`crate::list::parse`].
    List {
        /// Only keys that begin with it; end it with `/` or siblings match too.
        prefix: String,
        /// `/` for one folder level, `None` for all levels.
        delimiter: Option<String>,
        /// [`crate::list::Page::next`] of the page before.
        continuation: Option<String>,
    },
    /// Bytes of an object.
    Get {
        /// Whole key, raw.
        key: String,
        /// Half-open, not empty, inside `size`; `None` for the whole object.
        range: Option<Range<u64>>,
        /// As listed, with its quotes: goes out as If-Match and is compared with the answer's.
        etag: Option<String>,
        /// Size of the object as listed (bytes); another total is an error.
        size: u64,
    },
    /// Metadata of an object.
    Head {
        /// Whole key, raw.
        key: String,
    },
}

impl Query {
    /// How errors name the object: the key, or `list PREFIX`.
    pub(crate) fn object(&self) -> String {
        match self {
            Query::List { prefix, .. } => format!("list {prefix:?}"),
            Query::Get { key, .. } | Query::Head { key } => key.clone(),
        }
    }

    /// The asked range, if any.
    pub(crate) fn range(&self) -> Option<Range<u64>> {
        match self {
            Query::Get { range, .. } => range.clone(),
            _ => None,
        }
    }
}

/// One request.
#[derive(Debug)]
pub struct Fetch {
    /// The caller's own number, given back in [`Finished`].
    pub token: u64,
    /// What to ask for.
    pub query: Query,
    /// Where the body goes.
    pub sink: Sink,
    /// Compute the CRC-64/XZ of the body as it arrives.
    pub crc: bool,
    /// Somebody waits for it: where bytes of many answers have come, its own go first.
    pub urgent: bool,
}

/// The end of one request. Delivered exactly once per [`Fetch`]; nothing writes to its sink after.
#[derive(Debug)]
pub struct Finished {
    /// Of the fetch.
    pub token: u64,
    /// The bytes that were asked for; `None` for all of an object, for a head and for a listing.
    pub range: Option<Range<u64>>,
    /// The response, or why there is none. On an error the sink's content is undefined
    /// behind what `partial` says.
    pub result: Result<Response, Error>,
    /// The body of a `Sink::Buffer`, or what `partial` says of it; empty for a `Sink::Memory`.
    pub body: Vec<u8>,
    /// Of a failed answer to a `Query::Get`: the bytes at its beginning that had come until then, in order.
    pub partial: Option<Response>,
    /// What to do next about a failure.
    pub retry_hint: Hint,
    /// From the pull to the end.
    pub elapsed: Duration,
    /// Which worker did it: vcpu * workers + slot.
    pub worker: u32,
}

/// What a successful answer said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// 200 or 206.
    pub status: u16,
    /// With its quotes, as sent.
    pub etag: Option<String>,
    /// `x-oss-request-id`; empty if the server sent none.
    pub request_id: String,
    /// `x-oss-hash-crc64ecma`: of the whole object, whatever the range.
    pub crc64_object: Option<u64>,
    /// Size of the whole object in bytes (Content-Range, or Content-Length of a whole answer).
    pub total: Option<u64>,
    /// Seconds since 1970 (UTC).
    pub last_modified: Option<i64>,
    /// The server's clock: seconds since 1970 (UTC).
    pub date: Option<i64>,
    /// Body bytes delivered.
    pub bytes: u64,
    /// CRC-64/XZ of the body, if the fetch asked for it.
    pub crc64_body: Option<u64>,
}

/// Where vcpus get their work from. Called on vcpu threads; must not block, and must not call
/// [`crate::Vcpus::stop`].
pub trait Source: Send + Sync {
    /// The next request for a free worker, or when to ask again.
    fn pull(&self, now: Instant) -> Pull;
    /// The end of a request.
    fn finished(&self, done: Finished);
    /// Bytes of a body have come after a time without any.
    fn flows_again(&self, _now: Instant) {}
    /// Makes the pages of these bytes of a fetch's fresh `Sink::Memory` present, or says why its request has to end.
    /// Called after the request was sent, for a few MiB at a time: other connections wait meanwhile. `filled` bytes
    /// of the sink have come. No bytes at all, where they are spliced: that only tells how far it is.
    fn make_present(&self, _token: u64, _filled: usize, _bytes: Range<usize>) -> Result<(), Error> {
        Ok(())
    }
}

/// The answer to [`Source::pull`].
#[derive(Debug)]
pub enum Pull {
    /// Do this.
    Fetch(Fetch),
    /// Nothing now: ask again at that time (in the future, or vcpus spin), or when woken by
    /// [`crate::Vcpus::wake`].
    Until(Option<Instant>),
}
