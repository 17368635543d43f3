//! One connection: read a request, decide, answer, log, repeat. Started by `server`, one thread
//! each. Never lets one request's failure reach another connection.

use crate::answer::{Answer, Body, Frame};
use crate::auth::Verifier;
use crate::clock;
use crate::digest::Digests;
use crate::error::OssError;
use crate::fault::{Effects, Faults};
use crate::link::Link;
use crate::list;
use crate::log::{Line, RequestLog};
use crate::object::object;
use crate::range;
use crate::rate::Rate;
use crate::request::{self, Request, Unread};
use crate::stop::Stop;
use crate::store::Store;
use crate::wire::{Cut, Wire};
use std::io::{self, Read};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long, and for how many bytes, a peer may go on sending after its last answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: u64 = 4 << 20;

/// What all connections share.
pub(crate) struct Shared {
    pub store: Store,
    pub digests: Digests,
    pub verifier: Verifier,
    pub faults: Option<Faults>,
    pub log: Option<RequestLog>,
    pub rate: Option<Rate>,
    pub stop: Stop,
    pub first_byte_delay: Duration,
    pub clock_ahead_sec: i64,
    pub now_fixed: Option<i64>,
    pub ids: Ids,
    /// Requests that are being answered.
    pub busy: AtomicU64,
}

/// Makes request ids: 24 upper-case hex digits, unique among endpoints of one machine.
pub(crate) struct Ids {
    start: [u32; 2],
    next: AtomicU32,
}

impl Ids {
    pub(crate) fn new() -> Self {
        let now = clock::now_float();
        let salt = (now.fract() * 1e9) as u32 ^ std::process::id().rotate_left(16);
        Self { start: [now as u32, salt], next: AtomicU32::new(0) }
    }

    fn next(&self) -> String {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:08X}{:08X}{n:08X}", self.start[0], self.start[1])
    }
}

/// One request's life, for its log line.
struct Exchange {
    conn: u64,
    time: f64,
    started: Instant,
    request_id: String,
    /// Requests under way when it came, itself included.
    busy: u64,
    status: u16,
    code: Option<String>,
    range: Option<std::ops::Range<u64>>,
    sent: u64,
    cut: Option<Cut>,
}

/// Serves a connection until it ends.
pub(crate) fn serve(shared: &Shared, link: &Link, conn: u64) {
    let mut buffer = Vec::new();
    while !shared.stop.is_set() {
        let keep = match request::read(&mut &*link, &mut buffer) {
            Ok(request) => shared.exchange(link, conn, &request),
            Err(Unread::Gone) => return,
            Err(Unread::Bad(status, reason)) => shared.refuse(link, conn, status, &reason),
        };
        if !keep {
            break;
        }
    }
    linger(&link.stream);
}

/// Ends our side and swallows what the peer still sends: closing with unread bytes would reset
/// the connection, and the peer might lose the end of its answer.
fn linger(mut stream: &std::net::TcpStream) {
    let ended = stream.shutdown(Shutdown::Write);
    let limited = stream.set_read_timeout(Some(LINGER));
    if ended.and(limited).is_ok() {
        let _ = io::copy(&mut (&mut stream).take(LINGER_BYTES_MAX), &mut io::sink());
    }
}

impl Shared {
    /// Answers one request; false if the connection has to be closed.
    fn exchange(&self, link: &Link, conn: u64, request: &Request) -> bool {
        let effects = self.faults.as_ref().map(|f| f.effects(request)).unwrap_or_default();
        let mut exchange = self.begin(conn);
        exchange.busy = self.busy.fetch_add(1, Ordering::Relaxed) + 1;
        exchange.range = request.header("range").and_then(range::named);
        let delay = self.first_byte_delay + Duration::from_millis(effects.delay_ms.unwrap_or(0));
        if self.stop.sleep(delay) {
            exchange.cut = Some(Cut::Stop);
        } else {
            self.respond(link, request, &effects, &mut exchange);
        }
        self.busy.fetch_sub(1, Ordering::Relaxed);
        self.finish(request, &exchange);
        if exchange.cut.is_none() && !request.keep_alive {
            // A peer that is gone needs no word.
            let _ = link.say_goodbye();
        }
        exchange.cut.is_none() && request.keep_alive
    }

    /// The endpoint's clock.
    fn now_sec(&self) -> i64 {
        self.now_fixed.unwrap_or_else(|| clock::now_sec() + self.clock_ahead_sec)
    }

    fn begin(&self, conn: u64) -> Exchange {
        Exchange {
            conn,
            time: clock::now_float(),
            started: Instant::now(),
            request_id: self.ids.next(),
            busy: 0,
            status: 0,
            code: None,
            range: None,
            sent: 0,
            cut: None,
        }
    }

    fn respond(&self, link: &Link, request: &Request, effects: &Effects, exchange: &mut Exchange) {
        let own_rate = effects.conn_bytes_per_sec.map(Rate::new);
        let rates = [self.rate.as_ref(), own_rate.as_ref()];
        let mut wire = Wire { link, rates, stop: &self.stop, sent: 0 };
        if effects.close {
            exchange.cut = Some(Cut::Fault);
            return;
        }
        if effects.garbage {
            let _ = wire.head(b"\x16\x03\x01\x00\x00 this is not HTTP \xff\xfe\r\n\r\n", false);
            exchange.cut = Some(Cut::Fault);
            return;
        }
        if let Err(cut) = interim(&wire, effects) {
            exchange.cut = Some(cut);
            return;
        }
        let mut answer = self.answer(request, effects, exchange.busy).unwrap_or_else(|error| {
            let host = request.header("host").unwrap_or_default();
            Answer::error(&error, &exchange.request_id, host, request.method == "HEAD")
        });
        distort(&mut answer, effects);
        exchange.status = answer.status;
        exchange.code = answer.code.clone();
        if answer.status < 300 {
            exchange.range = answer.range.clone();
        }
        let frame = Frame {
            now_sec: self.now_sec(),
            request_id: &exchange.request_id,
            server_time_ms: exchange.started.elapsed().as_millis(),
            keep_alive: request.keep_alive,
        };
        let with_body = !answer.head_only && answer.body.len() > 0;
        let head = answer.head(&frame);
        // With a cut or stall at 0 the head must not wait for body bytes.
        let at_once =
            effects.cut_after == Some(0) || effects.stall_after == Some(0) || rates.iter().any(Option::is_some);
        let mut done = wire.head(&head, with_body && !at_once);
        if done.is_ok() && !answer.head_only {
            done = wire.body(&answer.body, effects);
        }
        if let Some(surplus) = effects.surplus.as_ref().filter(|_| done.is_ok()) {
            done = wire.head(surplus.as_bytes(), false);
        }
        exchange.sent = wire.sent;
        exchange.cut = done.err();
    }

    fn answer(&self, request: &Request, effects: &Effects, busy: u64) -> Result<Answer, OssError> {
        if effects.busy_above.is_some_and(|most| busy > most) {
            return Err(OssError::new(503, "ActiveRequestLimitExceeded", "Too many requests at a time."));
        }
        if let (Some(status), Some(code)) = (effects.status, &effects.code) {
            return Err(OssError::new(status, code, "This answer was ordered by a fault rule."));
        }
        self.verifier.check(request, self.now_sec())?;
        if let Some(page) = &effects.page {
            let mut answer = Answer::new(200, Body::Bytes(page.clone().into_bytes()));
            answer.headers.push(("Content-Type", "text/html".into()));
            return Ok(answer);
        }
        match (request.method.as_str(), &request.bucket, request.key.is_empty()) {
            ("GET" | "HEAD", Some(_), false) => object(&self.store, &self.digests, request, effects.ignore_range),
            ("GET", Some(_), true) => list::list(&self.store, &self.digests, request),
            ("GET", None, _) => Err(OssError::new(501, "NotImplemented", "Listing buckets is not served here.")),
            _ => Err(OssError::new(
                405,
                "MethodNotAllowed",
                "The specified method is not allowed against this resource.",
            )),
        }
    }

    /// Answers bytes that are not a request this endpoint reads.
    fn refuse(&self, link: &Link, conn: u64, status: u16, reason: &str) -> bool {
        let mut exchange = self.begin(conn);
        let error = OssError::new(status, "BadRequest", reason);
        let answer = Answer::error(&error, &exchange.request_id, "", false);
        let now_sec = self.now_sec();
        let frame = Frame { now_sec, request_id: &exchange.request_id, server_time_ms: 0, keep_alive: false };
        let head = answer.head(&frame);
        let mut wire = Wire { link, rates: [None; 2], stop: &self.stop, sent: 0 };
        let done = wire.head(&head, true).and_then(|()| wire.body(&answer.body, &Effects::default()));
        exchange.sent = wire.sent;
        exchange.status = status;
        exchange.code = Some(error.code);
        exchange.cut = done.err();
        let unread = Request {
            method: String::new(),
            path: String::new(),
            query: String::new(),
            headers: Vec::new(),
            bucket: None,
            key: Vec::new(),
            keep_alive: false,
        };
        self.finish(&unread, &exchange);
        false
    }

    fn finish(&self, request: &Request, exchange: &Exchange) {
        let Some(log) = &self.log else { return };
        log.write(&Line {
            time: exchange.time,
            conn: exchange.conn,
            method: &request.method,
            path: &request.path,
            bucket: request.bucket.as_deref().unwrap_or_default(),
            key: &String::from_utf8_lossy(&request.key),
            query: &request.query,
            range: exchange.range.as_ref().map(|r| [r.start, r.end]),
            status: exchange.status,
            code: exchange.code.as_deref(),
            request_id: &exchange.request_id,
            bytes_sent: exchange.sent,
            duration_ms: exchange.started.elapsed().as_secs_f64() * 1e3,
            if_match: request.header("if-match"),
            user_agent: request.header("user-agent"),
            cut: exchange.cut.map(Cut::name),
        });
    }
}

/// What is no answer yet.
fn interim(wire: &Wire<'_>, effects: &Effects) -> Result<(), Cut> {
    for _ in 0..effects.interim.unwrap_or(0) {
        wire.head(b"HTTP/1.1 100 Continue\r\n\r\n", false)?;
        if wire.stop.sleep(Duration::from_millis(effects.interim_ms.unwrap_or(0))) {
            return Err(Cut::Stop);
        }
    }
    Ok(())
}

/// The faults that change an answer's head, and a document's text.
fn distort(answer: &mut Answer, effects: &Effects) {
    if let Body::Bytes(text) = &mut answer.body
        && effects.loop_list
    {
        *text = list::loops(&String::from_utf8_lossy(text)).into_bytes();
    }
    if let (Body::Bytes(text), Some((from, to))) = (&mut answer.body, &effects.replace) {
        *text = String::from_utf8_lossy(text).replace(from, to).into_bytes();
    }
    for number in 0..effects.headers.unwrap_or(0) {
        answer.headers.push(("x-oss-meta-some", format!("{number:<80}.")));
    }
    if effects.wrong_content_range
        && let (Some(span), Body::File { .. }) = (answer.range.clone(), &answer.body)
    {
        let total = answer.header("Content-Range").and_then(|r| r.rsplit('/').next()).unwrap_or("*").to_owned();
        answer.set("Content-Range", Some(format!("bytes {}-{}/{total}", span.start + 1, span.end)));
    }
    if let (Some(total), Some(range)) = (effects.total, answer.header("Content-Range").map(str::to_owned)) {
        let span = range.split('/').next().unwrap_or_default();
        answer.set("Content-Range", Some(format!("{span}/{total}")));
    }
    if let Some(etag) = effects.etag.as_ref().filter(|_| answer.header("ETag").is_some()) {
        answer.set("ETag", Some(format!("\"{}\"", etag.trim_matches('"'))));
    }
    if let Some(crc) = answer.header("x-oss-hash-crc64ecma").and_then(|c| c.parse::<u64>().ok()) {
        if effects.drop_crc {
            answer.set("x-oss-hash-crc64ecma", None);
        } else if effects.bad_crc {
            answer.set("x-oss-hash-crc64ecma", Some((crc ^ 1).to_string()));
        }
    }
}
