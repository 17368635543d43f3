//! The state machine fed by hand: every split of an answer, every cut, every deadline.
#![allow(unsafe_code)]

use super::*;
use crate::error::FailureKind;
use crate::sink::{InFile, Pages};

const BODY: &[u8] = b"0123456789abcdefghijklmnopqrstuv";
const ALONE: Crowd = Crowd { bytes: 0, connections: 0 };
const TIMEOUTS: Timeouts = Timeouts { connect_ms: 1000, response_ms: 2000, stall_ms: 400, ..Timeouts::DEFAULT };

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A connection with a request that is sent already, its sink and a clock.
struct Rig {
    conn: Conn,
    memory: Vec<u8>,
    now: Instant,
}

fn get(range: Option<std::ops::Range<u64>>) -> Query {
    Query::Get { key: "k".into(), range, etag: Some("\"E\"".into()), size: 100 }
}

impl Rig {
    fn unsent(query: Query, buffer: bool) -> Rig {
        let now = Instant::now();
        let mut rig = Rig { conn: Conn::new(TIMEOUTS, now), memory: vec![0xA5; 200], now };
        assert_eq!(rig.begin(query, buffer), Step::More);
        rig.conn.connecting(now);
        assert_eq!(rig.conn.connected(None, now), Step::More);
        rig
    }

    fn new(query: Query, buffer: bool) -> Rig {
        let mut rig = Rig::unsent(query, buffer);
        rig.send();
        rig
    }

    fn ranged() -> Rig {
        Rig::new(get(Some(8..40)), false)
    }

    /// The head of an answer has come, and at least 100 bytes/s are wanted of its body.
    fn dripping(buffer: bool) -> Rig {
        let mut rig = Rig::new(get(Some(8..40)), buffer);
        rig.conn.deadlines = Deadlines::new(Timeouts { least_bytes_per_sec: 100, ..TIMEOUTS }, rig.now);
        rig.conn.deadlines.sent(rig.now);
        let answer = part("");
        assert_eq!(rig.feed(&answer[..answer.len() - BODY.len()]), Step::More);
        rig
    }

    fn begin(&mut self, query: Query, buffer: bool) -> Step {
        let len = match &query {
            Query::Get { range: Some(range), .. } => (range.end - range.start) as usize,
            _ => 100,
        };
        let at = self.memory[50..].as_mut_ptr();
        let sink = if buffer { Sink::Buffer { bytes_max: 64 } } else { Sink::Memory { at, len, pages: Pages::Made } };
        self.begin_into(sink, query)
    }

    fn begin_into(&mut self, sink: Sink, query: Query) -> Step {
        let fetch = Fetch { token: 5, query, sink, crc: true, urgent: true };
        self.conn.begin(fetch, self.now, |_, out| {
            out.extend_from_slice(b"REQUEST");
            Ok(())
        })
    }

    fn send(&mut self) {
        let span = self.conn.outgoing().expect("something to send");
        assert_eq!(span.len(), 7);
        assert_eq!(self.conn.sent(3, self.now), Step::More);
        assert_eq!(self.conn.outgoing().expect("the rest").len(), 4);
        assert_eq!(self.conn.sent(4, self.now), Step::More);
        assert!(self.conn.outgoing().is_none());
    }

    /// Gives the machine `bytes` as a socket would; how many it took until it had enough.
    fn feed(&mut self, mut bytes: &[u8]) -> Step {
        while !bytes.is_empty() {
            let span = self.conn.space().expect("a place for bytes");
            let n = span.len().min(bytes.len());
            assert!(n > 0, "the machine waits for bytes and has no place for them");
            // SAFETY: the span is the machine's own next place, at least `n` long.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), span.at(), n) };
            bytes = &bytes[n..];
            match self.conn.received(n, self.now) {
                Step::More => {}
                step => return step,
            }
        }
        Step::More
    }

    fn finish(&mut self) -> Finished {
        let done = self.conn.finish(self.now, 3).expect("a request has ended");
        assert_eq!((done.token, done.worker), (5, 3));
        assert!(self.conn.finish(self.now, 3).is_none(), "ended twice");
        let outside = self.memory[..50].iter().chain(&self.memory[150..]);
        assert!(outside.into_iter().all(|byte| *byte == 0xA5), "written outside the sink");
        done
    }

    fn error(&mut self) -> Error {
        self.finish().result.expect_err("an error")
    }
}

fn part(extra: &str) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: 32\r\nContent-Range: bytes 8-39/100\r\nETag: \"E\"\r\n\
         x-oss-request-id: R1\r\n{extra}\r\n"
    );
    [head.as_bytes(), BODY].concat()
}

#[test]
fn every_split_of_an_answer_gives_the_same_bytes() {
    let answer = part("");
    for cut in 0..=answer.len() {
        for second in [cut, (cut + 1).min(answer.len()), answer.len()] {
            let mut rig = Rig::ranged();
            let mut step = Step::More;
            for piece in [&answer[..cut], &answer[cut..second], &answer[second..]] {
                if !piece.is_empty() {
                    assert_eq!(step, Step::More, "cut {cut} {second}");
                    step = rig.feed(piece);
                }
            }
            assert_eq!(step, Step::Done { reuse: true }, "cut {cut} {second}");
            let response = rig.finish().result.expect("response");
            assert_eq!(&rig.memory[50..82], BODY);
            assert_eq!((response.bytes, response.total), (32, Some(100)));
            assert_eq!(response.crc64_body, Some(crate::crc::of(BODY)));
        }
    }
}

#[test]
fn every_cut_of_an_answer_is_an_error() {
    let answer = part("");
    for cut in 0..answer.len() {
        let mut rig = Rig::ranged();
        assert_eq!(rig.feed(&answer[..cut]), Step::More);
        assert_eq!(rig.conn.received(0, rig.now), Step::Done { reuse: false }, "cut {cut}");
        let error = rig.error();
        assert_eq!(error.kind, FailureKind::Network, "cut {cut}");
        let in_body = cut >= answer.len() - BODY.len();
        assert_eq!(error.phase, if in_body { Phase::Body } else { Phase::Head }, "cut {cut}");
        assert_eq!(error.range, Some(8..40));
    }
}

#[test]
fn heads_that_do_not_fit_are_refused_before_a_byte_counts() {
    let head = |status: &str, fields: &str| format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\n0123456789").into_bytes();
    let cases: &[(&str, &str, FailureKind)] = &[
        ("206 P", "Content-Length: 32", FailureKind::Protocol),
        ("206 P", "Content-Length: 32\r\nContent-Range: bytes 9-40/100", FailureKind::Protocol),
        ("206 P", "Content-Length: 32\r\nContent-Range: bytes 8-38/100", FailureKind::Protocol),
        ("206 P", "Content-Length: 32\r\nContent-Range: bytes 8-39/101", FailureKind::Changed),
        ("206 P", "Content-Length: 31\r\nContent-Range: bytes 8-39/100", FailureKind::Protocol),
        ("206 P", "Content-Range: bytes 8-39/100", FailureKind::Protocol),
        ("206 P", "Transfer-Encoding: chunked\r\nContent-Range: bytes 8-39/100", FailureKind::Protocol),
        (
            "206 P",
            "Content-Length: 32\r\nContent-Range: bytes 8-39/100\r\nContent-Encoding: gzip",
            FailureKind::Protocol,
        ),
        ("206 P", "Content-Length: 32\r\nContent-Range: bytes 8-39/100\r\nETag: \"F\"", FailureKind::Changed),
        ("200 OK", "Content-Length: 100", FailureKind::Protocol),
        ("200 OK", "Content-Length: 32", FailureKind::Protocol),
        ("204 No", "X: y", FailureKind::Protocol),
        ("101 Up", "X: y", FailureKind::Protocol),
    ];
    for (status, fields, kind) in cases {
        let mut rig = Rig::ranged();
        let mut step = rig.feed(&head(status, fields));
        if step == Step::More {
            step = rig.conn.received(0, rig.now);
        }
        assert_eq!(step, Step::Done { reuse: false }, "{status} {fields}");
        assert_eq!(rig.error().kind, *kind, "{status} {fields}");
        assert!(rig.memory.iter().all(|byte| *byte == 0xA5), "{status} {fields}");
    }
}

#[test]
fn whole_objects_take_200_only() {
    for (range, status, good) in [(None, "200 OK", true), (Some(0..100), "200 OK", true), (None, "206 P", false)] {
        let mut rig = Rig::new(get(range), false);
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: 100\r\nContent-Range: bytes 0-99/100\r\n\r\n");
        let step = rig.feed(&[head.as_bytes(), &[7; 100]].concat());
        assert_eq!(step, Step::Done { reuse: good });
        assert_eq!(rig.finish().result.is_ok(), good);
        assert_eq!(rig.memory[50..150].iter().all(|byte| *byte == 7), good, "{status}");
    }
}

#[test]
fn error_answers_carry_their_document() {
    let document =
        "<Error><Code>PreconditionFailed</Code><Message>At least one of the pre-conditions failed</Message></Error>";
    for (framing, has_length) in
        [(format!("Content-Length: {}", document.len()), true), ("Connection: close".to_owned(), false)]
    {
        let answer = format!(
            "HTTP/1.1 412 Precondition Failed\r\nx-oss-request-id: R2\r\nETag: \"NEW\"\r\n{framing}\r\n\r\n{document}"
        );
        for cut in 0..answer.len() {
            let mut rig = Rig::ranged();
            let mut step = rig.feed(&answer.as_bytes()[..cut]);
            assert_eq!(step, Step::More);
            step = rig.feed(&answer.as_bytes()[cut..]);
            if !has_length {
                assert_eq!(step, Step::More);
                step = rig.conn.received(0, rig.now);
            }
            // It may be a stray one: the next request goes elsewhere.
            assert_eq!(step, Step::Done { reuse: false }, "cut {cut}");
            let error = rig.error();
            assert_eq!((error.kind, error.status), (FailureKind::Changed, Some(412)));
            assert_eq!(error.oss_code.as_deref(), Some("PreconditionFailed"));
            assert!(error.message.contains("\"E\"") && error.message.contains("\"NEW\""), "{error}");
            assert!(rig.memory.iter().all(|byte| *byte == 0xA5), "an error document reached the sink");
        }
    }
}

#[test]
fn a_broken_error_document_still_gives_the_status() {
    let mut rig = Rig::ranged();
    let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 500\r\n\r\n<Error><Code>NoSuchKey</Code>";
    assert_eq!(rig.feed(answer), Step::More);
    rig.now += ms(401);
    assert_eq!(rig.conn.tick(rig.now, ALONE), Step::Done { reuse: false });
    let error = rig.error();
    assert_eq!((error.kind, error.oss_code.as_deref()), (FailureKind::NotFound, Some("NoSuchKey")));

    let mut rig = Rig::ranged();
    let answer = b"HTTP/1.1 500 X\r\nContent-Length: 1000000\r\n\r\n<";
    assert_eq!(rig.feed(answer), Step::Done { reuse: false });
    assert_eq!(rig.error().kind, FailureKind::Server);
}

#[test]
fn head_requests_have_no_body_whatever_their_length_says() {
    use base64::Engine as _;
    let mut rig = Rig::new(Query::Head { key: "k".into() }, true);
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 123456\r\nETag: \"E\"\r\nx-oss-hash-crc64ecma: 9\r\n\r\n";
    assert_eq!(rig.feed(answer), Step::Done { reuse: true });
    let response = rig.finish().result.expect("response");
    assert_eq!((response.total, response.bytes, response.crc64_object), (Some(123_456), 0, Some(9)));
    rig.conn.rest(rig.now);
    assert_eq!(rig.begin(Query::Head { key: "k".into() }, true), Step::More);
    rig.send();
    let document =
        base64::engine::general_purpose::STANDARD.encode("<Error><Code>NoSuchKey</Code><EC>0026-00000001</EC></Error>");
    let answer = format!("HTTP/1.1 404 Not Found\r\nContent-Length: 99\r\nx-oss-err: {document}\r\n\r\n");
    assert_eq!(rig.feed(answer.as_bytes()), Step::Done { reuse: false });
    let error = rig.error();
    assert_eq!(
        (error.kind, error.oss_code.as_deref(), error.ec.as_deref()),
        (FailureKind::NotFound, Some("NoSuchKey"), Some("0026-00000001"))
    );
}

#[test]
fn documents_are_bounded() {
    let list = || Query::List { prefix: String::new(), delimiter: None, continuation: None };
    for (framing, body) in [
        ("Content-Length: 65", "x".repeat(65)),
        ("X: y", "x".repeat(65)),
        ("Transfer-Encoding: chunked", format!("41\r\n{}", "x".repeat(65))),
    ] {
        let mut rig = Rig::new(list(), true);
        let answer = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{body}");
        assert_eq!(rig.feed(answer.as_bytes()), Step::Done { reuse: false }, "{framing}");
        let error = rig.error();
        assert_eq!((error.kind, error.phase), (FailureKind::Protocol, Phase::Body));
        assert!(error.message.contains("longer than 64 bytes"), "{error}");
    }
}

#[test]
fn a_get_into_a_buffer_must_be_whole_too() {
    let mut rig = Rig::new(get(Some(8..40)), true);
    let answer = part("");
    assert_eq!(rig.feed(&answer), Step::Done { reuse: true });
    let done = rig.finish();
    assert_eq!(done.body, BODY);
    assert_eq!(done.result.expect("response").crc64_body, Some(crate::crc::of(BODY)));

    let mut rig = Rig::new(get(Some(8..40)), true);
    assert_eq!(rig.feed(&answer[..answer.len() - 1]), Step::More);
    assert_eq!(rig.conn.received(0, rig.now), Step::Done { reuse: false });
    let done = rig.finish();
    let came = &BODY[..BODY.len() - 1];
    let partial = done.partial.expect("what had come");
    assert!(done.body == came && done.result.is_err());
    assert_eq!((partial.bytes, partial.crc64_body), (came.len() as u64, Some(crate::crc::of(came))));
}

#[test]
fn sinks_that_do_not_fit_are_refused_before_sending() {
    let now = Instant::now();
    let mut byte = 0_u8;
    for (query, sink) in [
        (get(Some(0..2)), Sink::Memory { at: &raw mut byte, len: 1, pages: Pages::Made }),
        (get(None), Sink::Memory { at: &raw mut byte, len: 1, pages: Pages::Made }),
        (get(None), Sink::Buffer { bytes_max: 99 }),
        (Query::Head { key: "k".into() }, Sink::Memory { at: &raw mut byte, len: 1, pages: Pages::Made }),
    ] {
        let mut conn = Conn::new(TIMEOUTS, now);
        let fetch = Fetch { token: 0, query, sink, crc: false, urgent: true };
        let step = conn.begin(fetch, now, |_, _| panic!("nothing may be written"));
        assert_eq!(step, Step::Done { reuse: false });
        let error = conn.finish(now, 0).expect("ended").result.expect_err("refused");
        assert_eq!((error.kind, error.phase), (FailureKind::Local, Phase::Start));
    }
}

#[test]
fn interim_answers_are_skipped_and_early_ones_end_the_connection() {
    let mut rig = Rig::ranged();
    let answer = [b"HTTP/1.1 100 Continue\r\n\r\n".as_slice(), &part("")].concat();
    assert_eq!(rig.feed(&answer), Step::Done { reuse: true });
    rig.finish().result.expect("response");

    let mut rig = Rig::unsent(get(Some(8..40)), false);
    assert_eq!(rig.feed(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), Step::Done { reuse: false });
    assert_eq!(rig.error().kind, FailureKind::Throttled);
}

#[test]
fn a_head_without_end_is_refused() {
    let mut rig = Rig::ranged();
    let endless = ["HTTP/1.1 206 P\r\nX: ".as_bytes(), &[b'x'; 20_000]].concat();
    assert_eq!(rig.feed(&endless), Step::Done { reuse: false });
    assert!(rig.error().message.contains("16384"));
}

#[test]
fn connection_close_and_trailing_bytes_prevent_reuse() {
    let mut rig = Rig::ranged();
    assert_eq!(rig.feed(&part("Connection: close\r\n")), Step::Done { reuse: false });
    rig.finish().result.expect("response");
    // More bytes than the length says came with the head: refused.
    let mut rig = Rig::ranged();
    assert_eq!(rig.feed(&[&part("")[..], b"x"].concat()), Step::Done { reuse: false });
    assert_eq!(rig.error().kind, FailureKind::Protocol);
}

#[test]
fn a_kept_connection_is_stale_only_before_the_first_byte() {
    let kept = || {
        let mut rig = Rig::ranged();
        assert_eq!(rig.feed(&part("")), Step::Done { reuse: true });
        rig.finish().result.expect("response");
        rig.conn.rest(rig.now);
        rig
    };
    let reset = || io::Error::from_raw_os_error(libc::ECONNRESET);
    let mut rig = kept();
    assert_eq!(rig.conn.received(0, rig.now), Step::Close, "idle");
    let mut rig = kept();
    assert_eq!(rig.conn.tick(rig.now + ms(TIMEOUTS.idle_ms), ALONE), Step::Close, "idle too long");
    let mut rig = kept();
    assert_eq!(rig.begin(get(Some(8..40)), false), Step::More);
    assert_eq!(rig.conn.broken(true, &reset()), Step::Stale);
    // On the fresh connection the request goes out again, whole, and is stale no more.
    rig.conn.connecting(rig.now);
    assert_eq!(rig.conn.connected(None, rig.now), Step::More);
    rig.send();
    assert_eq!(rig.conn.broken(false, &reset()), Step::Done { reuse: false });
    assert_eq!(rig.error().kind, FailureKind::Network);
    let mut rig = kept();
    assert_eq!(rig.begin(get(Some(8..40)), false), Step::More);
    rig.send();
    assert_eq!(rig.feed(b"H"), Step::More);
    assert_eq!(rig.conn.received(0, rig.now), Step::Done { reuse: false });
    assert_eq!(rig.error().phase, Phase::Head);
}

#[test]
fn each_deadline_names_its_phase() {
    let start = Instant::now();
    let mut conn = Conn::new(TIMEOUTS, start);
    let mut memory = [0_u8; 32];
    let sink = Sink::Memory { at: memory.as_mut_ptr(), len: 32, pages: Pages::Made };
    let fetch = Fetch { token: 0, query: get(Some(8..40)), sink, crc: false, urgent: true };
    assert_eq!(conn.begin(fetch, start, |_, _| Ok(())), Step::More);
    conn.connecting(start);
    assert_eq!(conn.tick(start + ms(999), ALONE), Step::More);
    assert_eq!(conn.tick(start + ms(1000), ALONE), Step::Done { reuse: false });
    let error = conn.finish(start, 0).expect("ended").result.expect_err("late");
    assert_eq!((error.kind, error.phase), (FailureKind::Timeout, Phase::Connect));

    let mut rig = Rig::unsent(get(Some(8..40)), false);
    assert_eq!(rig.conn.tick(rig.now + ms(2000), ALONE), Step::Done { reuse: false });
    assert_eq!(rig.error().phase, Phase::Send);

    let mut rig = Rig::ranged();
    assert_eq!(rig.conn.tick(rig.now + ms(1999), ALONE), Step::More);
    assert_eq!(rig.conn.tick(rig.now + ms(2000), ALONE), Step::Done { reuse: false });
    assert_eq!(rig.error().phase, Phase::Head);

    // A head that trickles does not live for ever: its deadline is set by its first byte.
    let mut rig = Rig::ranged();
    let begun = rig.now;
    for byte in &part("")[..4] {
        rig.now += ms(99);
        assert_eq!(rig.feed(&[*byte]), Step::More);
    }
    assert_eq!(rig.conn.tick(begun + ms(99 + 400), ALONE), Step::Done { reuse: false });
    assert_eq!(rig.error().phase, Phase::Head);
}

#[test]
fn a_body_is_nudged_at_half_time_and_ends_at_the_stall() {
    let mut rig = Rig::ranged();
    let answer = part("");
    assert_eq!(rig.feed(&answer[..answer.len() - 20]), Step::More);
    assert_eq!(rig.conn.lowat(), 20);
    let last = rig.now;
    assert_eq!(rig.conn.tick(last + ms(199), ALONE), Step::More);
    assert_eq!(rig.conn.tick(last + ms(200), ALONE), Step::Nudge);
    assert_eq!(rig.conn.lowat(), 1);
    assert_eq!(rig.conn.deadline(), Some(last + ms(400)));
    // Six bytes come: the mark follows the speed, the clock starts again.
    rig.now = last + ms(300);
    assert_eq!(rig.feed(&answer[answer.len() - 20..answer.len() - 14]), Step::More);
    assert_eq!(rig.conn.lowat(), 3);
    assert_eq!(rig.conn.deadline(), Some(rig.now + ms(200)));
    rig.now += ms(100);
    assert_eq!(rig.feed(&answer[answer.len() - 14..answer.len() - 13]), Step::More);
    assert_eq!(rig.conn.lowat(), 6);
    assert_eq!(rig.conn.tick(rig.now + ms(200), ALONE), Step::Nudge);
    assert_eq!(rig.conn.tick(rig.now + ms(400), ALONE), Step::Done { reuse: false });
    let error = rig.error();
    assert_eq!((error.kind, error.phase), (FailureKind::Timeout, Phase::Body));
    assert_eq!(error.request_id.as_deref(), Some("R1"));
    assert!(error.message.contains("after 19 bytes"), "{error}");
}

#[test]
fn a_long_body_wakes_for_the_mark_and_a_short_one_for_all_of_it() {
    const LEN: usize = LOWAT_BYTES;
    let spliced = Pages::File(InFile { fd: -1, offset: 0 });
    for (pages, len) in [(Pages::Made, LEN + 1), (spliced, LEN + 1), (spliced, LEN - 1)] {
        let now = Instant::now();
        let mut rig = Rig { conn: Conn::new(TIMEOUTS, now), memory: vec![0; len], now };
        let at = rig.memory.as_mut_ptr();
        let query = Query::Get { key: "k".into(), range: Some(0..len as u64), etag: None, size: len as u64 };
        assert_eq!(rig.begin_into(Sink::Memory { at, len, pages }, query), Step::More);
        rig.conn.connecting(now);
        assert_eq!(rig.conn.connected(None, now), Step::More);
        rig.send();
        let range = format!("Content-Length: {len}\r\nContent-Range: bytes 0-{}/{len}", len - 1);
        let head = format!("HTTP/1.1 206 Partial Content\r\n{range}\r\nETag: \"E\"\r\nx-oss-request-id: R1\r\n\r\n");
        assert_eq!((rig.feed(head.as_bytes()), rig.conn.lowat()), (Step::More, len.min(LEN)));
    }
}

#[test]
fn cancel_ends_every_state_once() {
    let mut rig = Rig::ranged();
    assert_eq!(rig.conn.cancel("the engine stops"), Step::Done { reuse: false });
    assert_eq!(rig.error().kind, FailureKind::Cancelled);
    assert_eq!(rig.conn.cancel("the engine stops"), Step::Close);
}

#[test]
fn the_servers_clock_is_seen_only_when_ours_is_refused() {
    let answer = |code: &str| {
        let document = format!("<Error><Code>{code}</Code></Error>");
        format!(
            "HTTP/1.1 403 Forbidden\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\nContent-Length: {}\r\n\r\n{document}",
            document.len()
        )
    };
    for (code, seen) in [("RequestTimeTooSkewed", Some(1_700_000_000)), ("InvalidObjectState", None)] {
        let mut rig = Rig::ranged();
        assert_eq!(rig.feed(answer(code).as_bytes()), Step::Done { reuse: true });
        assert_eq!(rig.conn.clock_seen(), seen, "{code}");
    }
}

#[test]
fn redirects_are_not_followed_and_refusals_without_a_document_have_their_meaning() {
    for (head, kind) in [
        ("301 Moved\r\nLocation: http://elsewhere.example/k\r\nContent-Length: 0", FailureKind::Config),
        ("307 Temporary\r\nLocation: http://elsewhere.example/k\r\nContent-Length: 0", FailureKind::Config),
        ("304 Not Modified\r\nETag: \"F\"", FailureKind::Changed),
        ("416 Range\r\nContent-Range: bytes */7\r\nContent-Length: 0", FailureKind::Range),
        ("403 Forbidden\r\nContent-Length: 0", FailureKind::Permission),
        ("401 Unauthorized\r\nContent-Length: 0", FailureKind::Auth),
        ("429 Too Many\r\nContent-Length: 0", FailureKind::Throttled),
    ] {
        let mut rig = Rig::ranged();
        let step = rig.feed(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes());
        let error = rig.error();
        assert_eq!(step, Step::Done { reuse: !error.is_doubtful() }, "{head}");
        assert_eq!((error.kind, error.phase), (kind, Phase::Status), "{head}");
        assert!(rig.memory.iter().all(|byte| *byte == 0xA5), "{head}");
    }
}

#[test]
fn a_drip_is_cut_although_a_byte_comes_now_and_then() {
    for buffer in [false, true] {
        let mut rig = Rig::dripping(buffer);
        let mut drops = 0;
        let step = loop {
            rig.now += ms(100);
            assert_eq!(rig.feed(&BODY[drops..=drops]), Step::More);
            drops += 1;
            match rig.conn.tick(rig.now, ALONE) {
                Step::More => {}
                step => break step,
            }
        };
        assert_eq!((step, drops), (Step::Done { reuse: false }, 4));
        let error = rig.error();
        assert!(error.kind == FailureKind::Timeout && error.retryable(), "{error}");
        assert!(error.message.contains("leastBytesPerSec (100)"), "{error}");
    }
}

#[test]
fn heads_before_the_answer_are_bounded_in_number_and_time() {
    let mut rig = Rig::ranged();
    let interim = b"HTTP/1.1 103 Early Hints\r\n\r\n";
    let begin = rig.now;
    let step = loop {
        match rig.feed(interim) {
            Step::More => rig.now += ms(300),
            step => break step,
        }
        match rig.conn.tick(rig.now, ALONE) {
            Step::More => {}
            step => break step,
        }
    };
    assert_eq!(step, Step::Done { reuse: false });
    assert!(rig.now - begin < ms(3000), "{:?}", rig.now - begin);
    assert_eq!(rig.error().kind, FailureKind::Timeout);
    let mut rig = Rig::ranged();
    assert_eq!(rig.feed(&interim.repeat(17)), Step::Done { reuse: false });
    assert_eq!(rig.error().kind, FailureKind::Protocol);
    let mut rig = Rig::ranged();
    assert_eq!(rig.feed(&[&interim.repeat(16)[..], &part("")].concat()), Step::Done { reuse: true });
}

#[test]
fn a_doubtful_answer_ends_its_connection() {
    for (status, reuse) in
        [("404 No", false), ("412 No", false), ("302 No", false), ("403 No", false), ("503 No", true)]
    {
        let mut rig = Rig::ranged();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno");
        assert_eq!(rig.feed(answer.as_bytes()), Step::Done { reuse }, "{status}");
        assert_eq!(rig.error().is_doubtful(), !reuse);
    }
}
