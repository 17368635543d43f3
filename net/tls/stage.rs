//! TLS between a connection and its socket, without I/O: sealed bytes in and out, plain bytes
//! handed on. Owned by the connection. Copies each decrypted record once, into its destination,
//! and allocates nothing per record but what rustls does.

use std::fmt;

use rustls::Error as Cause;
use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};

use super::{Tls, fault};
use crate::error::{Error, Phase};
use crate::sink::Span;

/// Room for received records. It stays in L2 (64 and 256 KiB cost the same, engine.md section 4)
/// and holds the longest handshake message rustls takes (64 KiB).
const INPUT_BYTES: usize = 128 << 10;
/// More than a record adds to what it carries: header, nonce, tag, content type (RFC 5246, 8446).
const RECORD_EXTRA_BYTES: usize = 64;
/// Most plain bytes of one record (RFC 8446 section 5.1).
const RECORD_BYTES_MAX: usize = 16 << 10;

/// See the module.
pub(crate) struct Stage {
    tls: UnbufferedClientConnection,
    of: Tls,
    input: Box<[u8]>,
    /// Received and not yet taken: `input[start..end]`, at most one unfinished message after a turn.
    start: usize,
    end: usize,
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

impl Stage {
    /// A session that has not said anything yet; [`Stage::turn`] makes the first message.
    pub(super) fn new(of: &Tls) -> Result<Stage, Error> {
        let tls = UnbufferedClientConnection::new(of.config.clone(), of.name.clone())
            .map_err(|cause| fault::error(&of.host, Phase::Tls, &cause))?;
        Ok(Stage {
            tls,
            of: of.clone(),
            input: vec![0; INPUT_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
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

    /// Where the next sealed bytes go.
    pub fn space(&mut self) -> Span {
        // What is left is less than a record: moved here only, once per receive.
        self.input.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        Span::to_fill(&mut self.input[self.end..])
    }

    /// Sealed bytes that must come before `missing` plain ones are there, at most what fits.
    pub fn lowat(&self, missing: usize) -> usize {
        let waiting = self.end - self.start;
        missing.saturating_sub(waiting).min(self.input.len() - waiting)
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
        self.end += n;
    }

    /// Takes all that was received; `deliver` gets the plain bytes, in order, of one record each.
    pub fn turn(&mut self, deliver: impl FnMut(&[u8])) -> Result<(), Cause> {
        if self.failed {
            return Err(Cause::General("the session has failed before".into()));
        }
        let was_ready = self.ready;
        let outcome = self.take(deliver);
        if outcome.is_err() {
            self.failed = true;
            self.last_words();
        }
        self.refill();
        if self.ready && !was_ready {
            self.of.count(self.tls.handshake_kind());
        }
        outcome
    }

    fn take(&mut self, mut deliver: impl FnMut(&[u8])) -> Result<(), Cause> {
        loop {
            let unread = &mut self.input[self.start..self.end];
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(unread);
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
                Ok(ConnectionState::WriteTraffic(_)) => (self.ready, blocked) = (true, true),
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => blocked = true,
                Ok(other) => return Err(Cause::General(format!("a state no client has: {other:?}"))),
                Err(cause) => {
                    self.start += discard;
                    return Err(cause);
                }
            }
            self.start += discard;
            if blocked && self.end - self.start == self.input.len() {
                return Err(Cause::PeerSentOversizedRecord);
            }
            if blocked {
                return Ok(());
            }
        }
    }

    /// Seals `plain`; the session must be [`Stage::ready`].
    pub fn write(&mut self, plain: &[u8]) -> Result<(), Cause> {
        if self.failed {
            return Err(Cause::HandshakeNotComplete);
        }
        let records = plain.len().div_ceil(RECORD_BYTES_MAX).max(1);
        let guess = plain.len() + records * RECORD_EXTRA_BYTES;
        let unread = &mut self.input[self.start..self.end];
        match self.tls.process_tls_records(unread).state? {
            ConnectionState::WriteTraffic(mut traffic) => append(&mut self.queued, guess, |out| {
                traffic.encrypt(plain, out).map_err(|refused| match refused {
                    EncryptError::InsufficientSize(size) => Short::By(size),
                    EncryptError::EncryptExhausted => Short::Never,
                })
            })?,
            _ => return Err(Cause::HandshakeNotComplete),
        }
        self.refill();
        Ok(())
    }

    /// The alert that tells the peer why this side gives up. Asked for only while there is one, which
    /// rustls hands out before it looks at the stream.
    fn last_words(&mut self) {
        while self.tls.wants_write() {
            let unread = &mut self.input[self.start..self.end];
            let Ok(ConnectionState::EncodeTlsData(mut data)) = self.tls.process_tls_records(unread).state else {
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
            let unread = &mut self.input[self.start..self.end];
            if let Ok(ConnectionState::WriteTraffic(mut traffic)) = self.tls.process_tls_records(unread).state {
                // Without room for it the socket is closed without a word, which harms nobody.
                let _ = append(&mut self.queued, RECORD_EXTRA_BYTES, |out| {
                    traffic.queue_close_notify(out).map_err(|_| Short::Never)
                });
            }
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
