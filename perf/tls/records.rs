//! A record layer of our own behind rustls' handshake: sealed bytes are received into the part's own memory and opened
//! there, each record moving to its final place in the pass that opens it. No copy but the kernel's. Used by
//! `floor_tls`, to know what rustls' copies cost. TLS 1.3 with AES-128-GCM only; a key update ends the measurement.

use crate::error::{Error, Result, Tried};
use crate::tls::unbuffered::Unbuffered;
use crate::tls::{LOWAT_BYTES_MAX, Part, Session, failed};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustix::net::{RecvFlags, recv};
use rustls::ConnectionTrafficSecrets;
use rustls::client::ClientConnectionData;
use rustls::crypto::cipher::Iv;
use rustls::kernel::KernelConnection;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::ops::Range;

/// Bytes before each record: type, version, length (RFC 8446 section 5.2).
const HEADER_BYTES: usize = 5;
const TAG_BYTES: usize = 16;
/// A record with all that may surround its plain bytes.
const SEALED_BYTES_MAX: usize = HEADER_BYTES + (16 << 10) + 256;
/// Content types.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const NEW_SESSION_TICKET: u8 = 4;

/// See the module.
pub struct Records {
    keys: KernelConnection<ClientConnectionData>,
    seal: Half,
    open: Half,
    /// For heads, and for the last record of a part, which is longer than the memory left for it.
    aside: Box<[u8]>,
    /// Sealed bytes in `aside`.
    waiting: usize,
    /// Sealed bytes in the part's memory, behind its plain ones.
    behind: usize,
    /// Most bytes of one receive.
    most: usize,
}

/// One direction.
struct Half {
    key: LessSafeKey,
    iv: Iv,
    sequence: u64,
}

impl Half {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Half> {
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
            return Err(Error::Wrong("TLS: the server chose another cipher than AES-128-GCM".into()));
        };
        let key = UnboundKey::new(&AES_128_GCM, key.as_ref()).map_err(|_| Error::Wrong("a key of odd size".into()))?;
        Ok(Half { key: LessSafeKey::new(key), iv, sequence })
    }

    /// Of the next record (RFC 8446 section 5.3).
    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        nonce.copy_from_slice(self.iv.as_ref());
        for (byte, of) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= of;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// Opens the record at `sealed` inside `bytes`; its plain bytes then begin at 0. Their number and their type.
    fn open(&mut self, bytes: &mut [u8], sealed: Range<usize>) -> Result<(usize, u8)> {
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&bytes[sealed.start..sealed.start + HEADER_BYTES]);
        let nonce = self.nonce();
        let opened =
            self.key.open_within(nonce, Aad::from(header), &mut bytes[..sealed.end], sealed.start + HEADER_BYTES..);
        let plain = opened.map_err(|_| Error::Wrong("TLS: a record that nobody sealed".into()))?;
        // Padding, if any, is zeroes behind the type.
        let end =
            plain.iter().rposition(|byte| *byte != 0).ok_or_else(|| Error::Wrong("TLS: an empty record".into()))?;
        Ok((end, plain[end]))
    }
}

/// Length of the record that begins here, once all of it is here.
fn whole(bytes: &[u8]) -> Result<Option<usize>> {
    let [kind, 3, 3, high, low, ..] = *bytes else {
        return if bytes.len() < HEADER_BYTES { Ok(None) } else { Err(Error::Wrong("TLS: no record".into())) };
    };
    let len = HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if kind != DATA || !(HEADER_BYTES + TAG_BYTES + 1..=SEALED_BYTES_MAX).contains(&len) {
        return Err(Error::Wrong(format!("TLS: a record of type {kind} with {len} bytes")));
    }
    Ok((bytes.len() >= len).then_some(len))
}

impl Records {
    /// After the handshake of `session`. `most` bytes are received at once.
    pub fn after(session: Unbuffered, most: usize) -> Result<Records> {
        let (tls, left) = session.into_parts();
        let (secrets, keys) = tls.dangerous_into_kernel_connection().map_err(failed)?;
        let mut aside = vec![0; 2 * SEALED_BYTES_MAX].into_boxed_slice();
        aside[..left.len()].copy_from_slice(&left);
        let (seal, open) = (Half::new(secrets.tx)?, Half::new(secrets.rx)?);
        Ok(Records { keys, seal, open, aside, waiting: left.len(), behind: 0, most })
    }

    /// Not data: tickets are kept, all else ends the measurement.
    fn control(keys: &mut KernelConnection<ClientConnectionData>, kind: u8, mut plain: &[u8]) -> Result<()> {
        while let (HANDSHAKE, [NEW_SESSION_TICKET, a, b, c, rest @ ..]) = (kind, plain) {
            let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let ticket = rest.get(..len).ok_or_else(|| Error::Wrong("TLS: a ticket in pieces".into()))?;
            keys.handle_new_session_ticket(ticket).map_err(failed)?;
            plain = &rest[len..];
        }
        match kind {
            HANDSHAKE if plain.is_empty() => Ok(()),
            ALERT => Err(Error::Wrong(format!("TLS: alert {plain:?}"))),
            _ => Err(Error::Wrong(format!("TLS: a message of type {kind} that is not handled here"))),
        }
    }

    /// Into the part's memory, which has room for more than a record.
    fn straight(&mut self, stream: &TcpStream, part: &mut Part<'_>, surely: Option<usize>) -> Result<bool> {
        let bytes = part.rest();
        let end = bytes.len().min(self.behind + self.most);
        let Some(came) = fill(stream, &mut bytes[self.behind..end], surely)? else { return Ok(false) };
        let (mut at, end, mut filled) = (0, self.behind + came, 0);
        while let Some(len) = whole(&bytes[at..end])? {
            let (plain, kind) = self.open.open(&mut bytes[filled..], at - filled..at - filled + len)?;
            match kind {
                DATA => filled += plain,
                _ => Records::control(&mut self.keys, kind, &bytes[filled..filled + plain])?,
            }
            at += len;
        }
        bytes.copy_within(at..end, filled);
        self.behind = end - at;
        part.advance(filled);
        Ok(true)
    }

    /// Opens what lies aside, and copies it.
    fn open_aside(&mut self, part: &mut Part<'_>) -> Result<()> {
        let mut at = 0;
        while let Some(len) = whole(&self.aside[at..self.waiting])? {
            let record = &mut self.aside[at..at + len];
            let (plain, kind) = self.open.open(record, 0..len)?;
            match kind {
                DATA => part.push_plain(&record[..plain])?,
                _ => Records::control(&mut self.keys, kind, &record[..plain])?,
            }
            at += len;
        }
        self.aside.copy_within(at..self.waiting, 0);
        self.waiting -= at;
        Ok(())
    }
}

/// One receive; `None` if the stream would block.
fn fill(stream: &TcpStream, into: &mut [u8], surely: Option<usize>) -> Result<Option<usize>> {
    let (flags, most) = surely.map_or((RecvFlags::empty(), into.len()), |n| (RecvFlags::WAITALL, n.min(into.len())));
    match recv(stream, &mut into[..most], flags) {
        Ok((0, _)) => Err(Error::Wrong("the server closed the connection in the middle of an answer".into())),
        Ok((came, _)) => Ok(Some(came)),
        Err(errno) if errno.kind() == ErrorKind::WouldBlock && surely.is_none() => Ok(None),
        Err(errno) => Err(std::io::Error::from(errno)).tried(|| "receive".into()),
    }
}

impl Session for Records {
    fn request(&mut self, stream: &mut TcpStream, text: &[u8]) -> Result<()> {
        let mut record = [text, &[DATA]].concat();
        let len = (record.len() + TAG_BYTES) as u16;
        let header = [&[DATA, 3, 3][..], &len.to_be_bytes()].concat();
        let nonce = self.seal.nonce();
        let tag = self.seal.key.seal_in_place_separate_tag(nonce, Aad::from(&header), &mut record);
        let tag = tag.map_err(|_| Error::Wrong("TLS: the request cannot be sealed".into()))?;
        stream.write_all(&[&header, &record, tag.as_ref()].concat()).tried(|| "send the request".into())
    }

    fn receive(&mut self, stream: &mut TcpStream, part: &mut Part<'_>, whole: bool) -> Result<bool> {
        let room = part.rest().len();
        if room > 2 * SEALED_BYTES_MAX {
            if self.waiting > 0 {
                part.rest()[..self.waiting].copy_from_slice(&self.aside[..self.waiting]);
                (self.behind, self.waiting) = (self.waiting, 0);
            }
            return self.straight(stream, part, whole.then_some(room - self.behind));
        }
        if self.behind > 0 {
            self.aside[..self.behind].copy_from_slice(&part.rest()[..self.behind]);
            (self.waiting, self.behind) = (self.behind, 0);
        }
        let Some(came) = fill(stream, &mut self.aside[self.waiting..], None)? else { return Ok(false) };
        self.waiting += came;
        self.open_aside(part)?;
        Ok(true)
    }

    fn lowat(&self, missing: usize) -> usize {
        missing.saturating_sub(self.behind + self.waiting).clamp(1, self.most.min(LOWAT_BYTES_MAX))
    }
}
