//! TLS between a connection and its socket, without I/O: sealed bytes in and out, plain bytes
//! handed on. Owned by the connection. With TLS 1.3 the records of a body are received into its
//! place and opened there, without a copy and without an allocation; all else is received into a
//! buffer of its own and copied once, TLS 1.2 by rustls with a copy and an allocation more.

use std::fmt;

use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};
use rustls::{Error as Cause, HandshakeKind, ProtocolVersion};

use super::records::{self, Records, SEALED_BYTES_MAX};
use super::{Tls, fault};
use crate::error::{Error, Phase};
use crate::sink::{Destination, Span};

/// Room for the handshake, and for all records of TLS 1.2. It holds the longest handshake message rustls takes (64 KiB);
/// 128 to 512 KiB cost the same, 64 KiB a seventh more (`ossc-perf floor-tls --input`).
const INPUT_BYTES: usize = 128 << 10;
/// More than a record adds to what it carries: header, nonce, tag, content type (RFC 5246, 8446).
const RECORD_EXTRA_BYTES: usize = 64;
/// Most sealed bytes of one receive into a place: they are opened while they lie in L2.
const STEP_BYTES: usize = 512 << 10;
/// A place with less room than this gets its bytes by way of the buffer, which has this size after the handshake: the
/// beginning of a record, and another record.
const PLACE_BYTES_MIN: usize = 2 * SEALED_BYTES_MAX;
/// Most plain bytes of one record (RFC 8446 section 5.1).
const RECORD_BYTES_MAX: usize = 16 << 10;

/// See the module.
pub(crate) struct Stage {
    session: Session,
    of: Tls,
    input: Box<[u8]>,
    /// Received and not yet taken: `input[start..end]`, at most one unfinished message after a turn.
    start: usize,
    end: usize,
    /// The last space was in the place, where so many sealed bytes lie behind the plain ones: less than a record
    /// after a turn.
    placed: Option<usize>,
    /// Sealed bytes a send may be reading: never changed before all of them are sent.
    sending: Vec<u8>,
    sent: usize,
    /// What is to be sent after them.
    queued: Vec<u8>,
    ready: bool,
    closed: bool,
    /// It failed: rustls must not see another byte of this stream (it asserts that).
    failed: bool,
}

/// Who opens and seals.
enum Session {
    /// The handshake, and TLS 1.2 after it.
    Rustls(Box<UnbufferedClientConnection>),
    /// TLS 1.3 after the handshake.
    Own(Box<Records>),
    /// The change from one to the other did not succeed.
    None,
}

impl Stage {
    /// A session that has not said anything yet; [`Stage::turn`] makes the first message.
    pub(super) fn new(of: &Tls) -> Result<Stage, Error> {
        let tls = UnbufferedClientConnection::new(of.config.clone(), of.name.clone())
            .map_err(|cause| fault::error(&of.host, Phase::Tls, &cause))?;
        Ok(Stage {
            session: Session::Rustls(Box::new(tls)),
            of: of.clone(),
            input: vec![0; INPUT_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            placed: None,
            sending: Vec::with_capacity(2048),
            sent: 0,
            queued: Vec::with_capacity(2048),
            ready: false,
            closed: false,
            failed: false,
        })
    }

    /// The handshake is over.
    pub fn ready(&self) -> bool {
        self.ready
    }

    /// The peer said that nothing follows (close_notify).
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Host of the certificate.
    pub fn host(&self) -> &str {
        &self.of.host
    }

    /// Where the next sealed bytes go; `place` is where a body's plain bytes belong.
    pub fn space(&mut self, place: Option<&mut Destination>) -> Span {
        if let (Session::Own(_), Some(place)) = (&self.session, place) {
            let unfilled = place.unfilled();
            if unfilled.len() >= PLACE_BYTES_MIN {
                // What was left in the buffer is less than a record.
                let waiting = self.placed.unwrap_or_else(|| {
                    let waiting = &self.input[self.start..self.end];
                    unfilled[..waiting.len()].copy_from_slice(waiting);
                    (self.start, self.end) = (0, 0);
                    waiting.len()
                });
                self.placed = Some(waiting);
                let end = unfilled.len().min(waiting + STEP_BYTES);
                return Span::to_fill(&mut unfilled[waiting..end]);
            }
            if let Some(waiting) = self.placed.take() {
                self.input[..waiting].copy_from_slice(&unfilled[..waiting]);
                (self.start, self.end) = (0, waiting);
            }
        }
        // What is left is less than a record: moved here only, once per receive.
        self.input.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        Span::to_fill(&mut self.input[self.end..])
    }

    /// The last [`Stage::space`] was in the place: [`Stage::turn_in`] takes what was received.
    pub fn in_place(&self) -> bool {
        self.placed.is_some()
    }

    /// Sealed bytes that must come before `missing` plain ones are there, at most what fits.
    pub fn lowat(&self, missing: usize) -> usize {
        match self.placed {
            Some(waiting) => missing.saturating_sub(waiting).min(STEP_BYTES),
            None => {
                let waiting = self.end - self.start;
                missing.saturating_sub(waiting).min(self.input.len() - waiting)
            }
        }
    }

    /// Sealed bytes to be sent.
    pub fn outgoing(&self) -> Option<Span> {
        (self.sent < self.sending.len()).then(|| Span::to_send(&self.sending[self.sent..]))
    }

    /// `n` of them left; true when nothing is left to send.
    pub fn sent(&mut self, n: usize) -> bool {
        self.sent += n;
        self.refill();
        self.sent >= self.sending.len()
    }

    fn refill(&mut self) {
        if self.sent >= self.sending.len() {
            self.sending.clear();
            self.sent = 0;
            std::mem::swap(&mut self.sending, &mut self.queued);
        }
    }

    /// `n` bytes were received into [`Stage::space`].
    pub fn received(&mut self, n: usize) {
        match &mut self.placed {
            Some(waiting) => *waiting += n,
            None => self.end += n,
        }
    }

    /// Takes all that was received; `deliver` gets the plain bytes, in order, of one record each.
    pub fn turn(&mut self, mut deliver: impl FnMut(&[u8])) -> Result<(), Cause> {
        self.attempt(|stage| {
            stage.agree(&mut deliver)?;
            stage.open(&mut deliver)
        })
    }

    /// Takes all that was received into `place`, opens the whole records there and fills the place with what was in
    /// them; how many bytes.
    pub fn turn_in(&mut self, place: &mut Destination) -> Result<usize, Cause> {
        self.attempt(|stage| stage.open_in(place))
    }

    fn attempt<T>(&mut self, turn: impl FnOnce(&mut Stage) -> Result<T, Cause>) -> Result<T, Cause> {
        if self.failed {
            return Err(Cause::General("the session has failed before".into()));
        }
        let outcome = turn(self);
        if let Err(cause) = &outcome {
            self.failed = true;
            self.last_words(cause);
        }
        self.refill();
        outcome
    }

    /// As long as rustls has the session: all that was received.
    fn agree(&mut self, deliver: &mut impl FnMut(&[u8])) -> Result<(), Cause> {
        while let Session::Rustls(tls) = &mut self.session {
            let unread = &mut self.input[self.start..self.end];
            let UnbufferedStatus { mut discard, state } = tls.process_tls_records(unread);
            let mut blocked = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        deliver(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => append(&mut self.queued, 1024, |out| {
                    data.encode(out).map_err(|refused| match refused {
                        EncodeError::InsufficientSize(size) => Short::By(size),
                        EncodeError::AlreadyEncoded => Short::Never,
                    })
                })?,
                // It is queued, and everything queued is sent in order.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.closed = true,
                Ok(ConnectionState::WriteTraffic(_)) => blocked = true,
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => blocked = true,
                Ok(other) => return Err(Cause::General(format!("a state no client has: {other:?}"))),
                Err(cause) => {
                    self.start += discard;
                    return Err(cause);
                }
            }
            self.start += discard;
            // The last word of the handshake is queued, and rustls has not looked at what follows it.
            let agreed = !tls.is_handshaking() && !tls.wants_write();
            if agreed && !self.ready {
                self.agreed()?;
            }
            if blocked && self.end - self.start == self.input.len() {
                return Err(Cause::PeerSentOversizedRecord);
            }
            if blocked {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The handshake is over. With TLS 1.3 rustls keeps only what it needs for new keys and tickets.
    fn agreed(&mut self) -> Result<(), Cause> {
        let Session::Rustls(tls) = std::mem::replace(&mut self.session, Session::None) else {
            return Ok(());
        };
        let kind: Option<HandshakeKind> = tls.handshake_kind();
        self.session = match tls.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => {
                self.shrink();
                Session::Own(Box::new(Records::after(*tls)?))
            }
            _ => Session::Rustls(tls),
        };
        self.ready = true;
        self.of.count(kind);
        Ok(())
    }

    /// Keeps as much of the buffer as heads, documents and the ends of bodies need.
    fn shrink(&mut self) {
        let waiting = &self.input[self.start..self.end];
        if waiting.len() <= PLACE_BYTES_MIN {
            let mut input = vec![0; PLACE_BYTES_MIN].into_boxed_slice();
            input[..waiting.len()].copy_from_slice(waiting);
            (self.start, self.end) = (0, waiting.len());
            self.input = input;
        }
    }

    /// The whole records of the buffer.
    fn open(&mut self, deliver: &mut impl FnMut(&[u8])) -> Result<(), Cause> {
        let Session::Own(records) = &mut self.session else { return Ok(()) };
        while !self.closed
            && let Some(len) = records::whole(&self.input[self.start..self.end])?
        {
            let record = &mut self.input[self.start..self.start + len];
            let n = records.open(record, 0..len, &mut self.queued)?;
            if n > 0 {
                deliver(&record[..n]);
            }
            self.start += len;
            self.closed = records.closed();
        }
        Ok(())
    }

    /// The whole records of `place`. Each moves to its end while it is opened; what is left moves once.
    fn open_in(&mut self, place: &mut Destination) -> Result<usize, Cause> {
        let (Session::Own(records), Some(end)) = (&mut self.session, self.placed) else {
            return Err(Cause::General("nothing was received into the place".into()));
        };
        let bytes = place.unfilled();
        let (mut at, mut filled) = (0, 0);
        while !self.closed
            && let Some(len) = records::whole(&bytes[at..end])?
        {
            let sealed = at - filled..at - filled + len;
            filled += records.open(&mut bytes[filled..], sealed, &mut self.queued)?;
            at += len;
            self.closed = records.closed();
        }
        bytes.copy_within(at..end, filled);
        place.advance(filled);
        self.placed = Some(end - at);
        Ok(filled)
    }

    /// Seals `plain`; the session must be [`Stage::ready`].
    pub fn write(&mut self, plain: &[u8]) -> Result<(), Cause> {
        if self.failed || !self.ready {
            return Err(Cause::HandshakeNotComplete);
        }
        match &mut self.session {
            Session::Own(records) => records.write(plain, &mut self.queued)?,
            Session::Rustls(tls) => {
                let records = plain.len().div_ceil(RECORD_BYTES_MAX).max(1);
                let guess = plain.len() + records * RECORD_EXTRA_BYTES;
                let unread = &mut self.input[self.start..self.end];
                let ConnectionState::WriteTraffic(mut traffic) = tls.process_tls_records(unread).state? else {
                    return Err(Cause::HandshakeNotComplete);
                };
                append(&mut self.queued, guess, |out| {
                    traffic.encrypt(plain, out).map_err(|refused| match refused {
                        EncryptError::InsufficientSize(size) => Short::By(size),
                        EncryptError::EncryptExhausted => Short::Never,
                    })
                })?;
            }
            Session::None => return Err(Cause::HandshakeNotComplete),
        }
        self.refill();
        Ok(())
    }

    /// The alert that tells the peer why this side gives up. Of rustls it is asked for only while there is one, which
    /// it hands out before it looks at the stream.
    fn last_words(&mut self, cause: &Cause) {
        let tls = match &mut self.session {
            Session::Rustls(tls) => tls,
            Session::Own(records) => return drop(records.last_words(cause, &mut self.queued)),
            Session::None => return,
        };
        while tls.wants_write() {
            let unread = &mut self.input[self.start..self.end];
            let Ok(ConnectionState::EncodeTlsData(mut data)) = tls.process_tls_records(unread).state else {
                return;
            };
            let encoded = append(&mut self.queued, 64, |out| {
                data.encode(out).map_err(|refused| match refused {
                    EncodeError::InsufficientSize(size) => Short::By(size),
                    EncodeError::AlreadyEncoded => Short::Never,
                })
            });
            if encoded.is_err() {
                return;
            }
        }
    }

    /// What to say before the socket is closed: an alert that waits, or close_notify. Nothing if a
    /// send stopped half way.
    pub fn farewell(&mut self) -> Option<Span> {
        if self.sent > 0 {
            return None;
        }
        if self.sending.is_empty() && self.ready && !self.failed {
            // Without room for it the socket is closed without a word, which harms nobody.
            let _ = match &mut self.session {
                Session::Own(records) => records.close(&mut self.queued),
                Session::Rustls(tls) => close(tls, &mut self.input[self.start..self.end], &mut self.queued),
                Session::None => Ok(()),
            };
            self.refill();
        }
        self.outgoing()
    }

    /// What `cause` means in `phase`.
    pub fn fault(&self, phase: Phase, cause: &Cause) -> Error {
        fault::error(&self.of.host, phase, cause)
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.end - self.start;
        f.debug_struct("Stage").field("host", &self.of.host).field("waiting", &waiting).finish_non_exhaustive()
    }
}

/// Appends close_notify.
fn close(tls: &mut UnbufferedClientConnection, unread: &mut [u8], out: &mut Vec<u8>) -> Result<(), Cause> {
    let ConnectionState::WriteTraffic(mut traffic) = tls.process_tls_records(unread).state? else {
        return Ok(());
    };
    append(out, RECORD_EXTRA_BYTES, |room| traffic.queue_close_notify(room).map_err(|_| Short::Never))
}

/// Why rustls did not write.
enum Short {
    By(InsufficientSizeError),
    Never,
}

/// Lets `write` append to `out`, which gets `guess` bytes of room, or what is asked for.
fn append(
    out: &mut Vec<u8>,
    guess: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Short>,
) -> Result<(), Cause> {
    let had = out.len();
    let mut room = guess;
    loop {
        out.resize(had + room, 0);
        match write(&mut out[had..]) {
            Ok(n) => {
                out.truncate(had + n);
                return Ok(());
            }
            Err(Short::By(size)) if size.required_size > room => room = size.required_size,
            Err(_) => {
                out.truncate(had);
                return Err(Cause::General("a message could not be sealed".into()));
            }
        }
    }
}
