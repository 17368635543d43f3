//! The origin without sockets: reads a request, writes the answer that OSS would give, or one of the many that it
//! should not. An answer is a list of pieces with the times of their arrival.
//!
//! Called by the links of the world. It keeps no connection.

use crate::bytes;
use crate::fault::Fault;
use crate::stage::Stage;
use ossc_net::crc;
use std::collections::VecDeque;
use std::fmt::Write;
use std::ops::Range;

/// One version of an object.
#[derive(Clone)]
pub struct Version {
    /// With its quotes.
    pub etag: String,
    /// Bytes.
    pub size: u64,
    /// Where its bytes begin in the table.
    pub salt: usize,
    crc64: u64,
}

impl Version {
    fn new(stage: &mut Stage, name: String, size: u64) -> Version {
        let salt = stage.rng.usize(0..bytes::SALTS);
        Version { etag: name, size, salt, crc64: crc::of(bytes::of(salt, 0..size)) }
    }
}

/// An object: its versions, the newest last.
pub struct Thing {
    /// Key in the bucket.
    pub key: String,
    /// Never empty.
    pub versions: Vec<Version>,
}

impl Thing {
    /// Number `number` of the bucket.
    pub fn new(stage: &mut Stage, number: usize, size: u64) -> Thing {
        let version = Version::new(stage, format!("\"E{number}-0\""), size);
        Thing { key: format!("o{number}"), versions: vec![version] }
    }

    /// The version that is there now.
    pub fn current(&self) -> &Version {
        self.versions.last().expect("every object has a version")
    }

    /// Another version takes its place.
    pub fn replace(&mut self, stage: &mut Stage, number: usize, size: u64) {
        let etag = format!("\"E{number}-{}\"", self.versions.len());
        self.versions.push(Version::new(stage, etag, size));
    }
}

/// What arrives at a socket.
#[derive(Debug)]
pub enum Piece {
    /// Bytes, from the second value on.
    Text(Vec<u8>, usize),
    /// Bytes of a version; the one at `flip` is wrong.
    Body {
        /// Of the version.
        salt: usize,
        /// Of the object.
        range: Range<u64>,
        /// An offset of the object.
        flip: Option<u64>,
    },
    /// The peer closes.
    Close,
    /// A reset.
    Reset,
}

impl Piece {
    /// Bytes left of it; `None` for the end of the stream.
    pub fn len(&self) -> Option<usize> {
        match self {
            Piece::Text(text, at) => Some(text.len() - at),
            Piece::Body { range, .. } => Some((range.end - range.start) as usize),
            Piece::Close | Piece::Reset => None,
        }
    }

    /// Takes its next bytes, as many as `out` holds.
    pub fn copy_next(&mut self, out: &mut [u8]) {
        match self {
            Piece::Text(text, at) => {
                out.copy_from_slice(&text[*at..*at + out.len()]);
                *at += out.len();
            }
            Piece::Body { salt, range, flip } => {
                let part = range.start..range.start + out.len() as u64;
                out.copy_from_slice(bytes::of(*salt, part.clone()));
                if let Some(at) = flip.filter(|at| part.contains(at)) {
                    out[(at - part.start) as usize] ^= 0x55;
                }
                range.start = part.end;
            }
            Piece::Close | Piece::Reset => {}
        }
    }

    /// Takes so many bytes of its begin, or all of it, as a piece of its own.
    pub fn cut_off(&mut self, bytes: usize) -> Piece {
        match self {
            Piece::Text(text, at) => {
                let from = *at;
                *at = (from + bytes).min(text.len());
                Piece::Text(text[from..*at].to_vec(), 0)
            }
            Piece::Body { salt, range, flip } => {
                let part = range.start..range.end.min(range.start + bytes as u64);
                range.start = part.end;
                Piece::Body { salt: *salt, range: part, flip: *flip }
            }
            Piece::Close => Piece::Close,
            Piece::Reset => Piece::Reset,
        }
    }
}

/// Drops of a body that drips.
const DROPS_MAX: u64 = 200;

/// Pieces by the microsecond of their arrival.
pub type Stream = VecDeque<(u64, Piece)>;

/// How patient the engine is, in microseconds, and how far away the origin.
#[derive(Clone, Copy)]
pub struct Pace {
    /// Mean time from a request to its answer.
    pub latency: u64,
    /// Response timeout.
    pub response: u64,
    /// Stall timeout.
    pub stall: u64,
    /// Least bytes a second of a body; 0: any.
    pub least: u64,
    /// On a thin link all connections take turns: bytes of a turn (0: it is none), and how long one takes.
    pub turn_bytes: usize,
    /// In microseconds.
    pub turn: u64,
}

/// A request as the origin reads it.
struct Request<'a> {
    head: bool,
    thing: usize,
    range: Option<Range<u64>>,
    etag: Option<&'a str>,
}

impl<'a> Request<'a> {
    fn parse(text: &'a str) -> Option<Request<'a>> {
        let (method, rest) = text.split_once(" /o")?;
        let thing = rest.split_once(' ')?.0.parse().ok()?;
        let field =
            |name: &str| text.split_once(name).and_then(|(_, rest)| rest.split_once("\r\n")).map(|(value, _)| value);
        let range = field("\r\nRange: bytes=").and_then(|value| value.split_once('-'));
        let range = range.and_then(|(first, last)| Some(first.parse().ok()?..last.parse::<u64>().ok()? + 1));
        Some(Request { head: method == "HEAD", thing, range, etag: field("\r\nIf-Match: ") })
    }
}

/// An answer under construction.
struct Answer<'a> {
    stage: &'a mut Stage,
    pace: Pace,
    /// When its next piece arrives.
    at: u64,
    stream: Stream,
    close: bool,
}

/// Answers one request, whose text is whole.
pub fn answer(things: &[Thing], text: &str, stage: &mut Stage, pace: Pace) -> Stream {
    let at = stage.micros + stage.jitter(pace.latency);
    let mut answer = Answer { stage, pace, at, stream: Stream::new(), close: false };
    let request = Request::parse(text);
    match request.as_ref().and_then(|request| things.get(request.thing).map(|thing| (request, thing))) {
        Some((request, thing)) => answer.object(request, thing),
        None => answer.stage.violated(format!("the origin cannot read a request: {text:?}")),
    }
    answer.stream
}

impl Answer<'_> {
    fn object(&mut self, request: &Request<'_>, thing: &Thing) {
        if self.stage.strike(Fault::ResetBeforeHead) {
            return self.piece(Piece::Reset);
        }
        if self.stage.strike(Fault::CloseBeforeHead) {
            return self.piece(Piece::Close);
        }
        if self.stage.strike(Fault::StallHead) {
            self.at += self.pace.response + 1000;
        }
        if self.stage.strike(Fault::Interim) {
            self.piece(Piece::Text(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), 0));
        }
        if self.stage.strike(Fault::InterimForEver) {
            for _ in 0..40 {
                self.piece(Piece::Text(b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec(), 0));
                self.at += self.pace.response / 4;
            }
        }
        let refusals = [
            (Fault::Throttled, 503, "SlowDown"),
            (Fault::ServerError, 500, "InternalError"),
            (Fault::Denied, 403, "AccessDenied"),
            (Fault::Gone, 404, "NoSuchKey"),
            (Fault::Refused, 400, "InvalidArgument"),
            (Fault::RangeRefused, 416, "InvalidRange"),
            (Fault::Moved, 302, "Found"),
        ];
        for (fault, status, code) in refusals {
            // Some of them are final, or soon: too many of them and nothing is ever loaded.
            let seldom = status < 500 && self.stage.rng.u32(0..8) > 0;
            if !seldom && self.stage.strike(fault) {
                return self.refuse(request, status, code);
            }
        }
        let mut version = thing.current();
        if request.etag.is_some_and(|etag| etag != version.etag) {
            if !self.stage.strike(Fault::VersionServed) {
                self.stage.faults.saw(Fault::VersionRefused);
                return self.refuse(request, 412, "PreconditionFailed");
            }
        } else if thing.versions.len() > 1 && self.stage.strike(Fault::VersionServed) {
            // A cache on the way still has the version before.
            version = &thing.versions[thing.versions.len() - 2];
        }
        self.good(request, version);
    }

    /// The answer to a request that nothing is wrong with, but for what the network does to it.
    fn good(&mut self, request: &Request<'_>, version: &Version) {
        let whole = request.range.is_none() || self.stage.strike(Fault::WholeServed);
        let asked = request.range.clone().unwrap_or(0..version.size);
        if asked.end > version.size {
            return self.refuse(request, 416, "InvalidRange");
        }
        let range = if whole { 0..version.size } else { asked };
        let mut length = range.end - range.start;
        let mut head = String::with_capacity(256);
        head.push_str(if whole { "HTTP/1.1 200 OK\r\n" } else { "HTTP/1.1 206 Partial Content\r\n" });
        if !whole {
            let shift = u64::from(self.stage.strike(Fault::WrongRange));
            let total = version.size + u64::from(self.stage.rng.u32(0..8) == 0 && self.stage.strike(Fault::OtherTotal));
            let _ = write!(head, "Content-Range: bytes {}-{}/{total}\r\n", range.start + shift, range.end - 1 + shift);
        }
        let _ = write!(head, "ETag: {}\r\n", version.etag);
        if !self.stage.strike(Fault::NoCrc) {
            let _ = write!(head, "x-oss-hash-crc64ecma: {}\r\n", version.crc64);
        }
        if self.stage.strike(Fault::WrongLength) {
            length += 1;
        }
        if !request.head && self.stage.strike(Fault::Chunked) {
            head.push_str("Transfer-Encoding: chunked\r\n");
        } else {
            let _ = write!(head, "Content-Length: {length}\r\n");
        }
        self.head(head);
        if !request.head {
            self.body(version.salt, range);
        }
        self.end();
    }

    fn refuse(&mut self, request: &Request<'_>, status: u16, code: &str) {
        let document = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>");
        let length = if request.head { 0 } else { document.len() };
        self.head(format!("HTTP/1.1 {status} No\r\nContent-Length: {length}\r\n"));
        if !request.head {
            self.piece(Piece::Text(document.into_bytes(), 0));
        }
        self.end();
    }

    fn head(&mut self, mut head: String) {
        self.close = self.stage.strike(Fault::ConnectionClose);
        if self.close {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("x-oss-request-id: 5F\r\n\r\n");
        let bytes = head.into_bytes();
        let cut = self.stage.rng.usize(1..bytes.len());
        if self.stage.strike(Fault::ResetInHead) {
            self.piece(Piece::Text(bytes[..cut].to_vec(), 0));
            return self.piece(Piece::Reset);
        }
        if self.stage.strike(Fault::CloseInHead) {
            self.piece(Piece::Text(bytes[..cut].to_vec(), 0));
            return self.piece(Piece::Close);
        }
        if self.stage.strike(Fault::SplitHead) {
            self.piece(Piece::Text(bytes[..cut].to_vec(), 0));
            self.at += self.stage.jitter(200);
            return self.piece(Piece::Text(bytes, cut));
        }
        self.piece(Piece::Text(bytes, 0));
    }

    fn body(&mut self, salt: usize, range: Range<u64>) {
        let flip = self.stage.strike(Fault::WrongByteOnce).then(|| self.stage.rng.u64(range.clone()));
        if let Some(at) = flip {
            // Counted when the engine notices.
            self.stage.faults.counts[Fault::WrongByteOnce as usize] -= 1;
            self.stage.flips.push((salt, at));
        }
        let cut = self.stage.rng.u64(range.clone());
        let (first, second) = (range.start..cut, cut..range.end);
        let body = |range: Range<u64>| Piece::Body { salt, range, flip };
        if self.stage.strike(Fault::ResetInBody) {
            self.piece(body(first));
            return self.piece(Piece::Reset);
        }
        if self.stage.strike(Fault::Truncated) {
            self.piece(body(first));
            return self.piece(Piece::Close);
        }
        if self.stage.strike(Fault::StallBody) {
            self.piece(body(first));
            self.at += self.pace.stall + 1000;
            return self.piece(body(second));
        }
        if self.stage.strike(Fault::Trickle) {
            self.piece(body(first));
            self.at += self.stage.rng.u64(self.pace.stall / 2..self.pace.stall);
            return self.piece(body(second));
        }
        if self.stage.strike(Fault::Drip) {
            return self.drip(range, body);
        }
        if self.stage.strike(Fault::SlowAnswer) {
            return self.slow_body(range, body);
        }
        if self.stage.rng.bool() {
            return self.piece(body(range));
        }
        self.piece(body(first));
        self.at += self.stage.jitter(300);
        self.piece(body(second));
    }

    /// A byte now and then, for as good as ever: until then the engine has to end it.
    fn drip(&mut self, range: Range<u64>, body: impl Fn(Range<u64>) -> Piece) {
        self.stage.dripped = Some(self.at);
        let drops = range.end.min(range.start + DROPS_MAX);
        for at in range.start..drops {
            self.at += self.pace.stall / 4;
            self.piece(body(at..at + 1));
        }
        self.piece(body(drops..range.end));
    }

    /// Bit by bit, with pauses that are long beside the latency.
    fn slow_body(&mut self, range: Range<u64>, body: impl Fn(Range<u64>) -> Piece) {
        let mean = self.stage.rng.choice([4 * self.pace.latency, self.pace.stall / 20]).unwrap_or(1000);
        let mut at = range.start;
        while at < range.end {
            let end = self.stage.rng.u64(at..range.end) + 1;
            self.at += self.stage.jitter(mean).min(self.pace.stall / 2);
            self.piece(body(at..end));
            at = end;
        }
    }

    fn end(&mut self) {
        if self.close {
            self.piece(Piece::Close);
        } else if self.stage.strike(Fault::IdleClose) {
            self.at += self.stage.rng.u64(0..20_000);
            self.piece(Piece::Close);
        } else if self.stage.strike(Fault::IdleBytes) {
            self.at += self.stage.rng.u64(0..20_000);
            self.piece(Piece::Text(b"HTTP/1.1 408 Request Timeout\r\n\r\n".to_vec(), 0));
        }
    }

    /// Nothing follows the end of a stream.
    fn piece(&mut self, piece: Piece) {
        let ended = self.stream.back().is_some_and(|(_, piece)| piece.len().is_none());
        if !ended && piece.len() != Some(0) {
            self.stream.push_back((self.at, piece));
        }
    }
}
