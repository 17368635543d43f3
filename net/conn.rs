//! One HTTP/1.1 connection as a state machine without I/O: bytes in, bytes out, time an argument.
//! Owned by a vcpu, which moves bytes between it and a socket through a driver. With https they
//! pass a TLS stage that the connection owns; what is said here of bytes means plain ones.
//! Never makes a system call, never reads a clock, never writes past a sink.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::answer::{self, FAULT_BYTES_MAX, Framing, Verdict};
use crate::error::{Error, FailureKind, Phase};
use crate::fetch::{Fetch, Finished, Query};
use crate::http1::{self, HEAD_BYTES_MAX};
use crate::job::{self, Job};
use crate::sink::{Destination, Sink, Span};
use crate::tls::{Stage, Tls};

mod deadlines;
mod sealed;

pub(crate) use deadlines::Crowd;
pub use deadlines::Timeouts;
use deadlines::{Deadlines, Look, Reason};

/// One receive of a head. Small, so that little of a body must be copied.
const HEAD_STEP_BYTES: usize = 1024;
/// Largest receive of a body.
const BODY_STEP_BYTES: usize = 4 << 20;
/// SO_RCVLOWAT of a body. Less means more wake-ups on both sides, more a sender that waits. 64 connections, loopback, huge
/// pages, medians of 5 to 7: spliced 0.34 CPU-s/GB at 2.5 GB/s (96 KiB: 0.38 at 2.2; 512 KiB: 0.37 at 2.2; 2 MiB: 0.40 at
/// 2.0), received 0.48 (512 KiB: 0.55; 2 MiB: 0.46). With 16 connections all are alike.
const LOWAT_BYTES: usize = 1 << 20;
/// Most heads with a status of 1xx before an answer.
const INTERIM_MAX: u8 = 16;
/// So much of a fresh place has pages before a receive: more than TLS opens at once, and enough for few receives.
const PRESENT_AHEAD_BYTES: usize = 2 << 20;

/// What the vcpu has to do after it told the connection something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Post what the connection wants next.
    More,
    /// The request ended: deliver [`Conn::finish`]; close the socket unless `reuse`.
    Done { reuse: bool },
    /// A kept connection was closed by the peer before it answered: send again on a fresh one.
    Stale,
    /// An idle connection is of no use any more.
    Close,
    /// Few bytes in a long time: set SO_RCVLOWAT to [`Conn::lowat`] now, so that they are seen.
    Nudge,
}

#[derive(Debug)]
enum State {
    Idle,
    Connecting,
    /// TLS is being agreed on.
    Handshake,
    /// Request bytes are still to be sent.
    Send,
    Head,
    Body(Body),
    Ended,
}

#[derive(Debug)]
enum Body {
    /// Straight into the caller's memory.
    Placed,
    /// Through the scratch buffer into `text`.
    Text { framing: Framing, bytes_max: u64, fault: bool },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Conn {
    state: State,
    job: Option<Job>,
    place: Option<Destination>,
    text: Vec<u8>,
    text_bytes_max: u64,
    out: Vec<u8>,
    sent: usize,
    scratch: Box<[u8]>,
    /// With https, from the connect on.
    stage: Option<Box<Stage>>,
    /// Bytes of the head in `scratch`.
    filled: usize,
    /// What of `scratch` is body and not in its place yet.
    early: Range<usize>,
    deadlines: Deadlines,
    /// Heads with a status of 1xx that came before this answer.
    interim: u8,
    /// The connection has answered before, and nothing came for this request yet.
    reused: bool,
    /// Some of the request has left.
    sent_some: bool,
    keep_alive: bool,
    lowat_max: usize,
    /// Server's clock of the last answer (unix seconds).
    server_date: Option<i64>,
}

impl Conn {
    pub fn new(timeouts: Timeouts, now: Instant) -> Conn {
        Conn {
            state: State::Ended,
            job: None,
            place: None,
            text: Vec::new(),
            text_bytes_max: 0,
            out: Vec::with_capacity(1024),
            sent: 0,
            scratch: vec![0; HEAD_BYTES_MAX].into_boxed_slice(),
            stage: None,
            filled: 0,
            early: 0..0,
            deadlines: Deadlines::new(timeouts, now),
            interim: 0,
            reused: false,
            sent_some: false,
            keep_alive: false,
            lowat_max: LOWAT_BYTES,
            server_date: None,
        }
    }

    /// Takes a request whose text is written by `write`. On an idle connection sending begins at
    /// once; else the vcpu connects next. `Step::Done` if the request cannot be sent at all.
    pub fn begin(
        &mut self,
        fetch: Fetch,
        now: Instant,
        write: impl FnOnce(&Query, &mut Vec<u8>) -> Result<(), Error>,
    ) -> Step {
        self.out.clear();
        let Fetch { token, query, sink, crc, .. } = fetch;
        let written = job::check_sink(&query, &sink).and_then(|()| write(&query, &mut self.out));
        self.place = None;
        self.early = 0..0;
        self.text.clear();
        match sink {
            Sink::Memory { at, len, pages } => self.place = Some(Destination::new(at, len, pages)),
            Sink::Buffer { bytes_max } => self.text_bytes_max = bytes_max as u64,
        }
        self.job = Some(Job::new(token, query, crc, now));
        self.server_date = None;
        if let Err(error) = written {
            // An idle connection stays as it is; nothing was sent.
            let reuse = matches!(self.state, State::Idle);
            return self.end(Err(error), reuse);
        }
        if matches!(self.state, State::Idle) {
            self.reused = true;
            self.deadlines.is_used_again(now);
            return self.send_from_start(now);
        }
        Step::More
    }

    /// A TCP connect was started; its deadline holds for the TLS handshake too.
    pub fn connecting(&mut self, now: Instant) {
        self.state = State::Connecting;
        self.stage = None;
        self.deadlines.connects(now);
    }

    /// The connect succeeded: the request is next, or with `tls` the handshake before it.
    pub fn connected(&mut self, tls: Option<&Tls>, now: Instant) -> Step {
        self.reused = false;
        self.deadlines.connected();
        self.lowat_max = LOWAT_BYTES;
        let Some(tls) = tls else {
            return self.send_from_start(now);
        };
        match tls.stage() {
            Ok(stage) => self.stage = Some(Box::new(stage)),
            Err(error) => return self.end(Err(error), false),
        }
        self.state = State::Handshake;
        self.filled = 0;
        self.opened(now)
    }

    fn send_from_start(&mut self, now: Instant) -> Step {
        self.state = State::Send;
        self.sent = 0;
        self.filled = 0;
        self.interim = 0;
        self.sent_some = false;
        self.deadlines.sends(now);
        if let (Some(place), true) = (&mut self.place, self.stage.is_some()) {
            place.receive_only();
        }
        match self.stage.as_mut().map(|stage| stage.write(&self.out)) {
            Some(Err(cause)) => self.unsealed(&cause),
            _ => Step::More,
        }
    }

    /// The request has ended and the socket stays open.
    pub fn rest(&mut self, now: Instant) {
        self.state = State::Idle;
        self.filled = 0;
        self.deadlines.rests(now);
    }

    /// Bytes still to be sent.
    pub fn outgoing(&self) -> Option<Span> {
        if let Some(stage) = &self.stage {
            return stage.outgoing();
        }
        matches!(self.state, State::Send).then(|| Span::to_send(&self.out[self.sent..]))
    }

    /// Where the next received bytes go; `None` while there is no connection.
    pub fn space(&mut self) -> Option<Span> {
        if let (Some(stage), false) = (&mut self.stage, matches!(self.state, State::Connecting | State::Ended)) {
            let body = matches!(self.state, State::Body(Body::Placed));
            return Some(stage.space(self.place.as_mut().filter(|_| body)));
        }
        match &self.state {
            State::Connecting | State::Handshake | State::Ended => None,
            State::Body(Body::Placed) => self.place.as_ref().map(|place| place.rest(BODY_STEP_BYTES)),
            State::Body(Body::Text { .. }) => Some(Span::to_fill(&mut self.scratch)),
            State::Idle | State::Send | State::Head => {
                let end = self.scratch.len().min(self.filled + HEAD_STEP_BYTES);
                Some(Span::to_fill(&mut self.scratch[self.filled..end]))
            }
        }
    }

    /// How much of the place is filled, and what of it must have pages before the next receive (nothing, now and then,
    /// where they come with the bytes); then call [`Conn::made_present`].
    pub fn wants_present(&self) -> Option<(usize, Range<usize>)> {
        // What is unsealed with the head goes to the place at once; plain bytes that come with it can wait.
        let comes = match self.state {
            State::Body(Body::Placed) => true,
            State::Send | State::Head => self.stage.is_some(),
            _ => false,
        };
        let place = self.place.as_ref().filter(|_| comes)?;
        let wanting = match place.is_spliced() {
            true => place.wanting_spliced(self.early.len()),
            false => place.wanting(PRESENT_AHEAD_BYTES),
        };
        Some((place.filled(), wanting?))
    }

    /// The bytes of the place below `end` have pages.
    pub fn made_present(&mut self, end: usize, now: Instant) -> Step {
        if let Some(place) = &mut self.place {
            place.made_present(end);
        }
        self.take_early(now)
    }

    /// How many bytes must be there before a receive is worth a wake-up.
    pub fn lowat(&self) -> usize {
        let (State::Body(Body::Placed), Some(place)) = (&self.state, &self.place) else {
            return 1;
        };
        let missing = self.stage.as_ref().map_or(place.missing(), |stage| stage.lowat(place.missing()));
        missing.min(self.lowat_max).max(1)
    }

    /// When [`Conn::tick`] must be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// What is received now is of the body of a good answer.
    pub fn receives_body(&self) -> bool {
        matches!(self.state, State::Body(Body::Placed | Body::Text { fault: false, .. }))
    }

    /// Not usable yet: another address may still do.
    pub fn is_connecting(&self) -> bool {
        matches!(self.state, State::Connecting | State::Handshake)
    }

    /// What is tried while [`Conn::is_connecting`], for an error.
    pub fn attempt(&self) -> (Phase, String) {
        match (&self.state, &self.stage) {
            (State::Handshake, Some(stage)) => (Phase::Tls, format!("TLS handshake with {} at", stage.host())),
            _ => (Phase::Connect, "connect to".to_owned()),
        }
    }

    /// `n` bytes left.
    pub fn sent(&mut self, n: usize, now: Instant) -> Step {
        let all = match &mut self.stage {
            Some(stage) => stage.sent(n),
            None => {
                self.sent += n;
                self.sent >= self.out.len()
            }
        };
        if matches!(self.state, State::Send) {
            self.sent_some = true;
            self.deadlines.sends(now);
            if all {
                self.state = State::Head;
                self.deadlines.sent(now);
            }
        }
        Step::More
    }

    /// What to say before the socket is closed; call it when no operation is under way.
    pub fn farewell(&mut self) -> Option<Span> {
        self.stage.as_mut()?.farewell()
    }

    /// `n` bytes were received into [`Conn::space`]; 0 means the peer closed.
    pub fn received(&mut self, n: usize, now: Instant) -> Step {
        if n == 0 {
            return self.closed(self.stage.is_none());
        }
        if matches!(self.state, State::Body(Body::Placed)) {
            self.adapt_lowat(n);
        }
        match &mut self.stage {
            Some(stage) => stage.received(n),
            None => return self.arrived(n, now),
        }
        self.opened(now)
    }

    /// `n` plain bytes lie in the place or the scratch buffer.
    fn arrived(&mut self, n: usize, now: Instant) -> Step {
        match &self.state {
            State::Idle => Step::Close,
            // It was left there before this request, and answers another one.
            State::Send if self.reused && !self.sent_some => Step::Stale,
            State::Send | State::Head => {
                if self.filled == 0 && self.interim == 0 {
                    self.deadlines.head_begins(now);
                }
                self.filled += n;
                self.head(now)
            }
            State::Body(Body::Placed) => {
                if let Some(place) = &mut self.place {
                    place.advance(n);
                }
                self.placed(n, now)
            }
            State::Body(Body::Text { .. }) => self.take_text(0, n, now),
            State::Connecting | State::Handshake | State::Ended => Step::More,
        }
    }

    /// A send or receive failed.
    pub fn broken(&mut self, sending: bool, os: &io::Error) -> Step {
        let spliced = self.place.as_ref().is_some_and(Destination::is_spliced);
        let (phase, tried) = match (&self.state, sending) {
            (State::Body(Body::Placed), false) if spliced && is_full(os) => {
                let error = Error::new(FailureKind::Memory, Phase::Body, format!("splice the body into memory: {os}"));
                return self.end(Err(error), false);
            }
            (State::Idle, _) => return Step::Close,
            (State::Body(Body::Text { fault: true, .. }), _) => return self.refuse(false),
            (State::Body(_), _) => (Phase::Body, "receive the body"),
            (_, true) => (Phase::Send, "send the request"),
            (_, false) => (Phase::Head, "receive the answer"),
        };
        let error = Error::from_os(phase, tried, os);
        if self.stale() && error.kind == FailureKind::Network {
            return Step::Stale;
        }
        self.end(Err(error), false)
    }

    /// The connect failed at every address tried.
    pub fn fail(&mut self, error: Error) -> Step {
        self.end(Err(error), false)
    }

    /// Whether [`Conn::tick`] has something to do.
    pub fn is_due(&self, now: Instant) -> bool {
        self.deadlines.is_due(now)
    }

    /// Does what is due by now. `crowd` is what all connections bring.
    pub fn tick(&mut self, now: Instant, crowd: Crowd) -> Step {
        let reason = match self.deadlines.look(now, self.body_bytes(), crowd) {
            Look::Early => return Step::More,
            Look::Rested => return Step::Close,
            Look::Half if matches!(self.state, State::Body(Body::Placed)) => {
                // The bytes that came may be too few for SO_RCVLOWAT.
                self.lowat_max = 1;
                return Step::Nudge;
            }
            Look::Half => Reason::Stall,
            Look::Over(reason) => reason,
        };
        if self.deadlines.has_rested_long() && self.stale() {
            return Step::Stale;
        }
        if let State::Body(Body::Text { fault: true, .. }) = &self.state {
            return self.refuse(false);
        }
        let host = self.stage.as_ref().map_or("the endpoint", |stage| stage.host());
        let (phase, text) = reason.words(self.deadlines.timeouts(), host, self.body_bytes());
        self.end(Err(Error::new(FailureKind::Timeout, phase, text)), false)
    }

    /// This process did not run for as long: no deadline has come nearer meanwhile.
    pub fn lay_still(&mut self, pause: Duration) {
        self.deadlines.lay_still(pause);
    }

    /// Token of the request under way.
    pub fn token(&self) -> Option<u64> {
        self.job.as_ref().map(Job::token)
    }

    /// The request is to end; `why` is for its error.
    pub fn cancel(&mut self, why: &str) -> Step {
        if self.job.is_none() {
            return Step::Close;
        }
        let phase = match &self.state {
            State::Connecting => Phase::Connect,
            State::Handshake => Phase::Tls,
            State::Body(_) => Phase::Body,
            _ => Phase::Head,
        };
        self.end(Err(Error::new(FailureKind::Cancelled, phase, why)), false)
    }

    /// The outcome of the request that ended; call it when no operation is under way.
    pub fn finish(&mut self, now: Instant, worker: u32) -> Option<Finished> {
        let job = self.job.take()?;
        let text = std::mem::take(&mut self.text);
        let place = self.place.take();
        let bytes = place.as_ref().map_or(text.len(), Destination::filled);
        Some(job.finished(text, bytes as u64, now, worker))
    }

    /// The server's clock, if the last answer said the request's time is off.
    pub fn clock_seen(&self) -> Option<i64> {
        let skewed = self.job.as_ref()?.kind() == Some(FailureKind::Clock);
        self.server_date.filter(|_| skewed)
    }

    fn stale(&self) -> bool {
        self.reused && self.filled == 0 && matches!(self.state, State::Send | State::Head)
    }

    /// The peer closed; `clean` unless TLS was not ended by close_notify, when anybody on the way
    /// may have cut the stream.
    fn closed(&mut self, clean: bool) -> Step {
        if self.stale() {
            return Step::Stale;
        }
        let bytes = self.body_bytes();
        let (phase, text) = match &mut self.state {
            State::Idle => return Step::Close,
            State::Body(Body::Text { fault: true, .. }) => return self.refuse(false),
            State::Body(Body::Text { framing: Framing::Close, .. }) if clean => return self.end(Ok(()), false),
            State::Body(_) if clean => (Phase::Body, format!("the peer closed after {bytes} bytes of the body")),
            State::Body(_) => {
                (Phase::Body, format!("the TLS stream broke off without close_notify after {bytes} bytes of the body"))
            }
            State::Handshake => (Phase::Tls, "the peer closed during the TLS handshake".to_owned()),
            State::Connecting | State::Ended => return Step::More,
            _ if self.filled == 0 => (Phase::Head, "the peer closed before it answered".to_owned()),
            _ => (Phase::Head, "the peer closed inside the head of the answer".to_owned()),
        };
        self.end(Err(Error::new(FailureKind::Network, phase, text)), false)
    }

    fn body_bytes(&self) -> usize {
        self.place.as_ref().map_or(self.text.len(), Destination::filled)
    }

    /// Some bytes of the head are there.
    fn head(&mut self, now: Instant) -> Step {
        let head = match http1::parse(&self.scratch[..self.filled]) {
            Ok(None) if self.filled < HEAD_BYTES_MAX => return Step::More,
            Ok(None) => {
                return self.violation(format!("the head of the answer is longer than {HEAD_BYTES_MAX} bytes"));
            }
            Ok(Some(head)) => head,
            Err(text) if text == http1::TLS_SPOKEN => {
                return self.end(Err(Error::new(FailureKind::Tls, Phase::Head, text)), false);
            }
            Err(text) => return self.violation(text),
        };
        if (100..200).contains(&head.status) && head.status != 101 {
            self.scratch.copy_within(head.len..self.filled, 0);
            self.filled -= head.len;
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return self.violation(format!("more than {INTERIM_MAX} heads came before the answer"));
            }
            if self.interim == 1 {
                self.deadlines.interim(now);
            }
            return if self.filled == 0 { Step::More } else { self.head(now) };
        }
        // An answer before the whole request was sent leaves the connection in doubt.
        self.keep_alive = head.keep_alive && matches!(self.state, State::Head);
        self.server_date = head.date;
        let Some(job) = &mut self.job else {
            return Step::Close;
        };
        let verdict = match answer::judge(&job.query, &head) {
            Ok(verdict) => verdict,
            Err(error) => return self.end(Err(error), false),
        };
        let start = head.len;
        if head.status >= 300 || head.status < 200 {
            job.refused = Some(head);
            return self.body_begins(verdict, start, now);
        }
        if let Err(error) = answer::same_version(&job.query, &head) {
            return self.end(Err(error), false);
        }
        job.response = answer::response(&job.query, head);
        self.body_begins(verdict, start, now)
    }

    /// The head is judged; `scratch[start..filled]` is already body.
    fn body_begins(&mut self, verdict: Verdict, start: usize, now: Instant) -> Step {
        let early = self.filled - start;
        self.deadlines.body_begins(now);
        self.body_byte(now);
        let (framing, bytes_max, fault) = match verdict {
            Verdict::Done => return self.complete(early == 0),
            Verdict::Object(length) if self.place.is_some() => {
                return self.placed_begins(length, start, now);
            }
            Verdict::Object(0) => return self.complete(early == 0),
            Verdict::Object(length) => (Framing::Length(length), self.text_bytes_max, false),
            Verdict::Document(framing) => (framing, self.text_bytes_max, false),
            Verdict::Fault(framing) => (framing, FAULT_BYTES_MAX, true),
        };
        self.state = State::Body(Body::Text { framing, bytes_max, fault });
        if early == 0 { Step::More } else { self.take_text(start, self.filled, now) }
    }

    fn placed_begins(&mut self, length: u64, start: usize, now: Instant) -> Step {
        if (self.filled - start) as u64 > length {
            return self.violation("more bytes follow the head than Content-Length says".into());
        }
        self.state = State::Body(Body::Placed);
        self.early = start..self.filled;
        self.take_early(now)
    }

    /// Copies what came with the head to its place, once that has pages.
    fn take_early(&mut self, now: Instant) -> Step {
        let Some(place) = &mut self.place else {
            return Step::Close;
        };
        if self.early.is_empty() || !place.has_pages(self.early.len()) {
            return Step::More;
        }
        let early = std::mem::take(&mut self.early);
        let n = early.len();
        place.copy_in(&self.scratch[early]);
        self.placed(n, now)
    }

    /// The last `n` bytes of the place are new.
    fn placed(&mut self, n: usize, now: Instant) -> Step {
        let (Some(place), Some(job)) = (&self.place, &mut self.job) else {
            return Step::Close;
        };
        if let Some(crc) = &mut job.crc {
            crc.update(place.last(n));
        }
        if place.missing() == 0 {
            return self.complete(true);
        }
        self.body_byte(now);
        Step::More
    }

    /// Some of the body came; a placed one is nudged at half time.
    fn body_byte(&mut self, now: Instant) {
        self.deadlines.byte(now, self.place.is_some());
    }

    /// Half of what half a stall time brought, doubled again by each receive in time.
    fn adapt_lowat(&mut self, n: usize) {
        let next = if self.deadlines.is_half_over() { n / 2 } else { self.lowat_max.saturating_mul(2) };
        self.lowat_max = next.clamp(1, LOWAT_BYTES);
    }

    /// `scratch[start..end]` are bytes of a document.
    fn take_text(&mut self, start: usize, end: usize, now: Instant) -> Step {
        let State::Body(Body::Text { framing, bytes_max, fault }) = &mut self.state else {
            return Step::More;
        };
        let (bytes_max, fault, had) = (*bytes_max, *fault, self.text.len());
        let input = &self.scratch[start..end];
        let taken = framing.decode_into(input, &mut self.text, bytes_max);
        let ended = framing.ended();
        match taken {
            Err(_) if fault => return self.refuse(false),
            Err(text) => {
                return self.end(Err(Error::new(FailureKind::Protocol, Phase::Body, text)), false);
            }
            Ok(used) => {
                if let Some(crc) = self.job.as_mut().and_then(|job| job.crc.as_mut()) {
                    crc.update(&self.text[had..]);
                }
                if ended {
                    return self.complete(used == input.len());
                }
            }
        }
        self.deadlines.byte(now, false);
        Step::More
    }

    /// The body is whole; `clean` if nothing followed it.
    fn complete(&mut self, clean: bool) -> Step {
        let reuse = clean && self.keep_alive;
        if self.job.as_ref().is_some_and(|job| job.refused.is_some()) {
            return self.refuse(reuse);
        }
        self.end(Ok(()), reuse)
    }

    /// Ends with the error that the refused head and its document stand for.
    fn refuse(&mut self, reuse: bool) -> Step {
        let Some(error) = self.job.as_mut().and_then(|job| job.refusal(&self.text)) else {
            return self.violation("an error answer without a head".into());
        };
        self.text.clear();
        // What is doubted is asked for again on another connection.
        let reuse = reuse && !error.is_doubtful();
        self.end(Err(error), reuse)
    }

    fn violation(&mut self, text: String) -> Step {
        self.end(Err(Error::new(FailureKind::Protocol, Phase::Head, text)), false)
    }

    fn end(&mut self, result: Result<(), Error>, reuse: bool) -> Step {
        if let Some(job) = &mut self.job {
            job.end(result);
        }
        self.state = State::Ended;
        self.deadlines.end();
        Step::Done { reuse }
    }
}

/// What a file says that has no memory for more bytes.
fn is_full(os: &io::Error) -> bool {
    matches!(os.raw_os_error(), Some(libc::ENOSPC | libc::ENOMEM | libc::EFBIG | libc::EDQUOT))
}

#[cfg(test)]
#[path = "conn_tests.rs"]
mod tests;
