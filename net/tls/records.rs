//! The records of TLS 1.3 after the handshake (RFC 8446 section 5): rustls agrees on keys, keeps tickets and derives new
//! keys; the bytes are opened and sealed here. Used by the stage, for the sake of one thing that rustls cannot do: open
//! a record in the memory where its plain bytes belong (measured: 0.6 CPU-s/GB in place of 0.8). Never sees a
//! handshake, never lets a byte count that its key did not vouch for.

use std::ops::Range;

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::crypto::cipher::Iv;
use rustls::kernel::KernelConnection;
use rustls::{AlertDescription, ConnectionTrafficSecrets, ContentType, HandshakeType};
use rustls::{Error as Cause, InvalidMessage, PeerMisbehaved};

/// Type, version and length before each record.
const HEADER_BYTES: usize = 5;
const TAG_BYTES: usize = 16;
/// Most plain bytes of one record (RFC 8446 section 5.1).
const PLAIN_BYTES_MAX: usize = 16 << 10;
/// Longest record (RFC 8446 section 5.2).
pub(super) const SEALED_BYTES_MAX: usize = HEADER_BYTES + PLAIN_BYTES_MAX + 256;
/// Longest message of the handshake layer, as rustls has it.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Records sealed with one key; AES-GCM allows 2^24.5 (RFC 8446 section 5.5). In tests new keys are no rarity.
const KEY_RECORDS_MAX: u64 = if cfg!(test) { 3 } else { 1 << 23 };
/// New keys and warnings in a row without data; both are rustls' limits.
const UPDATES_MAX: u8 = 32;
const WARNINGS_MAX: u8 = 4;
/// Level of an alert that is not fatal.
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// See the module.
pub(super) struct Records {
    keys: KernelConnection<ClientConnectionData>,
    seal: Half,
    open: Half,
    /// Beginning of a message that goes on in the next record.
    message: Vec<u8>,
    updates: u8,
    warnings: u8,
    closed: bool,
}

/// The key of one direction.
pub(super) struct Half {
    key: LessSafeKey,
    iv: Iv,
    /// Number of the next record.
    record: u64,
}

impl Half {
    pub fn new((record, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Half, Cause> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Cause::General("keys of an unknown cipher".into())),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| Cause::General("a key of odd size".into()))?;
        Ok(Half { key: LessSafeKey::new(key), iv, record })
    }

    /// Of the next record, and of no other (RFC 8446 section 5.3).
    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        nonce.copy_from_slice(self.iv.as_ref());
        for (byte, of) in nonce[4..].iter_mut().zip(self.record.to_be_bytes()) {
            *byte ^= of;
        }
        self.record += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// Opens the record at `sealed`; its plain bytes then lie at the beginning of `bytes`. Their number and type.
    pub fn open(&mut self, bytes: &mut [u8], sealed: Range<usize>) -> Result<(usize, ContentType), Cause> {
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&bytes[sealed.start..sealed.start + HEADER_BYTES]);
        let (nonce, body) = (self.nonce(), sealed.start + HEADER_BYTES..);
        let opened = self.key.open_within(nonce, Aad::from(header), &mut bytes[..sealed.end], body);
        let plain = opened.map_err(|_| Cause::DecryptError)?;
        // Zeroes behind the type are padding.
        let end = plain.iter().rposition(|byte| *byte != 0).ok_or(PeerMisbehaved::IllegalTlsInnerPlaintext)?;
        if end > PLAIN_BYTES_MAX {
            return Err(Cause::PeerSentOversizedRecord);
        }
        Ok((end, ContentType::from(plain[end])))
    }

    /// Appends one record.
    pub fn seal(&mut self, kind: ContentType, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Cause> {
        let len = (plain.len() + 1 + TAG_BYTES) as u16;
        let [high, low] = len.to_be_bytes();
        let header = [u8::from(ContentType::ApplicationData), 3, 3, high, low];
        out.extend_from_slice(&header);
        let begin = out.len();
        out.extend_from_slice(plain);
        out.push(u8::from(kind));
        let nonce = self.nonce();
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut out[begin..]);
        out.extend_from_slice(tag.map_err(|_| Cause::EncryptError)?.as_ref());
        Ok(())
    }
}

/// Length of the record that begins here, once all of it is here.
pub(super) fn whole(bytes: &[u8]) -> Result<Option<usize>, Cause> {
    let [kind, _, _, high, low, ..] = *bytes else {
        return Ok(None);
    };
    let len = HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if len > SEALED_BYTES_MAX {
        return Err(Cause::PeerSentOversizedRecord);
    }
    // Whoever sends anything unsealed now has no key.
    if kind != u8::from(ContentType::ApplicationData) || len < HEADER_BYTES + TAG_BYTES {
        return Err(Cause::DecryptError);
    }
    Ok((bytes.len() >= len).then_some(len))
}

impl Records {
    /// After a handshake with nothing left to say; rustls has seen none of what follows it.
    pub fn after(tls: UnbufferedClientConnection) -> Result<Records, Cause> {
        let (secrets, keys) = tls.dangerous_into_kernel_connection()?;
        let (seal, open) = (Half::new(secrets.tx)?, Half::new(secrets.rx)?);
        Ok(Records { keys, seal, open, message: Vec::new(), updates: 0, warnings: 0, closed: false })
    }

    /// The peer said that nothing follows.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Opens the record at `sealed`, which is a whole one; the number of its plain bytes, which then lie at the beginning
    /// of `bytes`. None are the application's in a record of TLS' own; an answer to it is appended to `out`.
    pub fn open(&mut self, bytes: &mut [u8], sealed: Range<usize>, out: &mut Vec<u8>) -> Result<usize, Cause> {
        let (n, kind) = self.open.open(bytes, sealed)?;
        if kind != ContentType::Handshake && !self.message.is_empty() {
            return Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into());
        }
        match kind {
            ContentType::ApplicationData => {
                (self.updates, self.warnings) = (0, 0);
                return Ok(n);
            }
            ContentType::Handshake => self.messages(&bytes[..n], out)?,
            ContentType::Alert => self.alert(&bytes[..n])?,
            ContentType::ChangeCipherSpec => return Err(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec.into()),
            got_type => {
                let expect_types = vec![ContentType::ApplicationData, ContentType::Handshake, ContentType::Alert];
                return Err(Cause::InappropriateMessage { expect_types, got_type });
            }
        }
        Ok(0)
    }

    /// A part of the handshake layer's stream: messages of type, length in three bytes, content (section 4).
    fn messages(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Cause> {
        if plain.is_empty() {
            return Err(InvalidMessage::InvalidEmptyPayload.into());
        }
        let mut stream = std::mem::take(&mut self.message);
        stream.extend_from_slice(plain);
        let mut rest = &stream[..];
        while let [kind, a, b, c, content @ ..] = rest {
            let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if len > MESSAGE_BYTES_MAX {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
            let Some(message) = content.get(..len) else { break };
            rest = &content[len..];
            match HandshakeType::from(*kind) {
                HandshakeType::NewSessionTicket => self.keys.handle_new_session_ticket(message)?,
                // New keys begin with a record of their own (section 5.1).
                HandshakeType::KeyUpdate if !rest.is_empty() => {
                    return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into());
                }
                HandshakeType::KeyUpdate => self.key_update(message, out)?,
                got_type => {
                    let expect_types = vec![HandshakeType::NewSessionTicket, HandshakeType::KeyUpdate];
                    return Err(Cause::InappropriateHandshakeMessage { expect_types, got_type });
                }
            }
        }
        self.message.extend_from_slice(rest);
        Ok(())
    }

    /// The peer seals with a new key from now on, and may ask for the same (section 4.6.3).
    fn key_update(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Cause> {
        let &[asked @ (0 | 1)] = message else {
            return Err(InvalidMessage::InvalidKeyUpdate.into());
        };
        self.updates += 1;
        if self.updates > UPDATES_MAX {
            return Err(PeerMisbehaved::TooManyKeyUpdateRequests.into());
        }
        self.open = Half::new(self.keys.update_rx_secret()?)?;
        if asked == 1 { self.renew(out) } else { Ok(()) }
    }

    /// Seals with a new key from now on, and says so.
    fn renew(&mut self, out: &mut Vec<u8>) -> Result<(), Cause> {
        let message = [u8::from(HandshakeType::KeyUpdate), 0, 0, 1, 0];
        self.seal.seal(ContentType::Handshake, &message, out)?;
        self.seal = Half::new(self.keys.update_tx_secret()?)?;
        Ok(())
    }

    /// Level and description (section 6). Of the warnings TLS 1.3 knows two; all else ends the session.
    fn alert(&mut self, plain: &[u8]) -> Result<(), Cause> {
        let &[level, description] = plain else {
            return Err(InvalidMessage::MessageTooShort.into());
        };
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => self.closed = true,
            AlertDescription::UserCanceled if level == WARNING && self.warnings < WARNINGS_MAX => self.warnings += 1,
            other => return Err(Cause::AlertReceived(other)),
        }
        Ok(())
    }

    /// Appends `plain`, sealed.
    pub fn write(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Cause> {
        for piece in plain.chunks(PLAIN_BYTES_MAX) {
            if self.seal.record >= KEY_RECORDS_MAX {
                self.renew(out)?;
            }
            self.seal.seal(ContentType::ApplicationData, piece, out)?;
        }
        Ok(())
    }

    /// Appends close_notify.
    pub fn close(&mut self, out: &mut Vec<u8>) -> Result<(), Cause> {
        self.seal.seal(ContentType::Alert, &[WARNING, u8::from(AlertDescription::CloseNotify)], out)
    }

    /// Appends the alert that tells the peer of `cause`; who sent an alert itself is told nothing (section 6.2).
    pub fn last_words(&mut self, cause: &Cause, out: &mut Vec<u8>) -> Result<(), Cause> {
        let description = match cause {
            Cause::AlertReceived(_) => return Ok(()),
            Cause::DecryptError => AlertDescription::BadRecordMac,
            Cause::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
            Cause::InvalidMessage(InvalidMessage::InvalidKeyUpdate) => AlertDescription::IllegalParameter,
            Cause::InvalidMessage(_) => AlertDescription::DecodeError,
            Cause::PeerMisbehaved(_)
            | Cause::InappropriateMessage { .. }
            | Cause::InappropriateHandshakeMessage { .. } => AlertDescription::UnexpectedMessage,
            _ => AlertDescription::InternalError,
        };
        self.seal.seal(ContentType::Alert, &[FATAL, u8::from(description)], out)
    }
}
