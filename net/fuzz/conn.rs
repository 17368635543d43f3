//! A whole connection under a peer that sends any bytes in any pieces, stops when it likes, and
//! closes. The first bytes of an input choose the request and the pieces, the rest is what comes.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use crate::conn::{Conn, Crowd, Step, Timeouts};
use crate::error::FailureKind;
use crate::fetch::{Fetch, Finished, Query};
use crate::sink::{Pages, Sink};

const OBJECT_BYTES: u64 = 100;
const MEMORY_BYTES: usize = 200;
/// Where the sink begins; around it nothing may be written.
const MARGIN_BYTES: usize = 50;
const BUFFER_BYTES_MAX: usize = 600;

struct Rig {
    conn: Conn,
    memory: Vec<u8>,
    sink_bytes: usize,
    now: Instant,
    ended: usize,
}

/// One connection with up to three requests, one after the other.
pub fn conn(bytes: &[u8]) {
    let Some((&[kind, pieces, pause], mut rest)) = bytes.split_first_chunk::<3>() else {
        return;
    };
    let now = Instant::now();
    let timeouts = Timeouts { connect_ms: 1000, response_ms: 2000, stall_ms: 400, ..Timeouts::default() };
    let mut rig =
        Rig { conn: Conn::new(timeouts, now), memory: vec![0xA5; MEMORY_BYTES], sink_bytes: 0, now, ended: 0 };
    let mut open = false;
    for number in 0..3 {
        let mut step = rig.begin(kind >> (2 * number), open);
        while step == Step::More {
            let piece = (1 + usize::from(pieces.rotate_left(rest.len() as u32))).min(rest.len());
            if piece == 0 && rest.is_empty() {
                step = rig.conn.received(0, rig.now);
                break;
            }
            if pause != 0 && rest.len().is_multiple_of(usize::from(pause)) {
                rig.now += Duration::from_millis(u64::from(pieces) * 3);
                step = rig.conn.tick(rig.now, Crowd::default());
            }
            if step == Step::Nudge {
                assert_eq!(rig.conn.lowat(), 1);
                step = Step::More;
            }
            if step == Step::More {
                step = rig.feed(&mut rest, piece);
            }
        }
        open = rig.end(step);
        if !open {
            return;
        }
    }
}

impl Rig {
    fn begin(&mut self, kind: u8, open: bool) -> Step {
        let etag = Some("\"E\"".into());
        let (query, buffer) = match kind & 3 {
            0 => (Query::Get { key: "k".into(), range: Some(8..40), etag, size: OBJECT_BYTES }, false),
            1 => (Query::Get { key: "k".into(), range: None, etag, size: OBJECT_BYTES }, true),
            2 => (Query::List { prefix: "p/".into(), delimiter: None, continuation: None }, true),
            _ => (Query::Head { key: "k".into() }, true),
        };
        self.sink_bytes = if buffer { 0 } else { 32 };
        self.memory.fill(0xA5);
        let at = self.memory[MARGIN_BYTES..].as_mut_ptr();
        let sink = if buffer {
            Sink::Buffer { bytes_max: BUFFER_BYTES_MAX }
        } else {
            Sink::Memory { at, len: self.sink_bytes, pages: Pages::Made }
        };
        let fetch = Fetch { token: 7, query, sink, crc: true, urgent: true };
        let step = self.conn.begin(fetch, self.now, |_, out| {
            out.extend_from_slice(b"REQUEST");
            Ok(())
        });
        assert_eq!(step, Step::More);
        if !open {
            self.conn.connecting(self.now);
            assert_eq!(self.conn.connected(None, self.now), Step::More);
        }
        self.conn.sent(7, self.now)
    }

    /// Moves at most `piece` bytes of `rest` to where the machine wants its next ones.
    fn feed(&mut self, rest: &mut &[u8], piece: usize) -> Step {
        let span = self.conn.space().expect("a place for bytes");
        let n = span.len().min(piece);
        assert!(n > 0, "the machine waits for bytes and has no place for them");
        // SAFETY: the span is the machine's own next place, at least `n` long.
        unsafe { std::ptr::copy_nonoverlapping(rest.as_ptr(), span.at(), n) };
        *rest = &rest[n..];
        self.conn.received(n, self.now)
    }

    /// The request has ended exactly once; true if the connection takes another.
    fn end(&mut self, step: Step) -> bool {
        let reuse = match step {
            Step::Done { reuse } => reuse,
            Step::Stale => {
                assert!(self.ended > 0, "a fresh connection is not stale");
                return false;
            }
            other => panic!("the request ended by {other:?}"),
        };
        let done = self.conn.finish(self.now, 3).expect("a request has ended");
        assert!(self.conn.finish(self.now, 3).is_none(), "ended twice");
        self.ended += 1;
        self.check(&done);
        if reuse {
            self.conn.rest(self.now);
        }
        reuse
    }

    fn check(&self, done: &Finished) {
        let sink = MARGIN_BYTES..MARGIN_BYTES + self.sink_bytes;
        let outside = self.memory[..sink.start].iter().chain(&self.memory[sink.end..]);
        assert!(outside.into_iter().all(|byte| *byte == 0xA5), "written outside the sink");
        assert!(done.body.len() <= BUFFER_BYTES_MAX);
        match &done.result {
            Ok(response) => {
                let body = if self.sink_bytes > 0 { &self.memory[sink] } else { &done.body };
                assert_eq!(response.bytes, body.len() as u64);
                assert_eq!(response.crc64_body, Some(crate::crc::of(body)));
                assert!(matches!(response.status, 200 | 206));
            }
            Err(error) => {
                let came = if self.sink_bytes > 0 { &self.memory[sink] } else { &done.body };
                match &done.partial {
                    Some(partial) => {
                        let came = &came[..partial.bytes as usize];
                        assert_eq!(partial.crc64_body, Some(crate::crc::of(came)));
                        assert!(self.sink_bytes > 0 || came.len() == done.body.len());
                        assert!(matches!(partial.status, 200 | 206), "a document is no body");
                    }
                    None => assert!(done.body.is_empty()),
                }
                assert_ne!(error.kind, FailureKind::Local, "{error}");
                assert!(!error.to_string().chars().any(char::is_control), "{error}");
            }
        }
    }
}
