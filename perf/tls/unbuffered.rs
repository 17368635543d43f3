//! rustls' unbuffered session over a buffer of our own: sealed bytes are received into it, opened in place, and each
//! record is copied to where it belongs. The cheapest that rustls' public interface allows. Used by `floor_tls`.

use crate::error::{Error, Result, Tried};
use crate::tls::{Part, RECORD_BYTES_MAX, Session, failed};
use rustix::net::{RecvFlags, recv};
use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// Room for one sealed message of the handshake, or one request.
const OUT_BYTES: usize = 16 << 10;

/// See the module.
pub struct Unbuffered {
    tls: UnbufferedClientConnection,
    input: Box<[u8]>,
    /// Received and not opened yet: `input[start..end]`.
    start: usize,
    end: usize,
    out: Box<[u8]>,
    /// Sealed bytes in `out`.
    sealed: usize,
}

impl Unbuffered {
    /// Agrees on keys over a stream that blocks. `input` is the size of the receive buffer in bytes.
    pub fn open(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        stream: &mut TcpStream,
        input: usize,
    ) -> Result<Unbuffered> {
        let tls = UnbufferedClientConnection::new(config, name).map_err(failed)?;
        let [input, out] = [input, OUT_BYTES].map(|bytes| vec![0; bytes].into_boxed_slice());
        let mut session = Unbuffered { tls, input, start: 0, end: 0, out, sealed: 0 };
        while !session.turn(stream, |_| Err(Error::Wrong("an answer before the request".into())))? {
            session.fill(stream, RecvFlags::empty(), usize::MAX)?;
        }
        Ok(session)
    }

    /// The session, and what was received and not opened yet.
    pub fn into_parts(self) -> (UnbufferedClientConnection, Vec<u8>) {
        let left = self.input[self.start..self.end].to_vec();
        (self.tls, left)
    }

    /// Opens all that is there; true if the handshake is over.
    fn turn(&mut self, stream: &mut TcpStream, mut deliver: impl FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        loop {
            let unread = &mut self.input[self.start..self.end];
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(unread);
            let mut ready = None;
            match state.map_err(failed)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(failed)?;
                        discard += record.discard;
                        deliver(record.payload)?;
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    let sealed = data.encode(&mut self.out[self.sealed..]);
                    self.sealed += sealed.map_err(|e| Error::Wrong(format!("TLS: {e}")))?;
                }
                ConnectionState::TransmitTlsData(data) => {
                    stream.write_all(&self.out[..self.sealed]).tried(|| "send".into())?;
                    self.sealed = 0;
                    data.done();
                }
                ConnectionState::WriteTraffic(_) => ready = Some(true),
                ConnectionState::BlockedHandshake => ready = Some(false),
                other => return Err(Error::Wrong(format!("TLS: the session ended: {other:?}"))),
            }
            self.start += discard;
            if let Some(ready) = ready {
                return Ok(ready);
            }
        }
    }

    /// One receive of at most `most` bytes behind what is there; false if the stream would block.
    fn fill(&mut self, stream: &TcpStream, flags: RecvFlags, most: usize) -> Result<bool> {
        // The beginning of a record at most.
        self.input.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let room = self.input[self.end..].len().min(most);
        match recv(stream, &mut self.input[self.end..self.end + room], flags) {
            Ok((0, _)) => Err(Error::Wrong("the server closed the connection in the middle of an answer".into())),
            Ok((came, _)) => {
                self.end += came;
                Ok(true)
            }
            Err(errno) if errno.kind() == ErrorKind::WouldBlock && flags.is_empty() => Ok(false),
            Err(errno) => Err(std::io::Error::from(errno)).tried(|| "receive".into()),
        }
    }
}

impl Session for Unbuffered {
    fn request(&mut self, stream: &mut TcpStream, text: &[u8]) -> Result<()> {
        let unread = &mut self.input[self.start..self.end];
        let ConnectionState::WriteTraffic(mut traffic) = self.tls.process_tls_records(unread).state.map_err(failed)?
        else {
            return Err(Error::Wrong("TLS: the session is not ready for a request".into()));
        };
        let sealed = traffic.encrypt(text, &mut self.out).map_err(|e| Error::Wrong(format!("TLS: {e}")))?;
        stream.write_all(&self.out[..sealed]).tried(|| "send the request".into())
    }

    fn receive(&mut self, stream: &mut TcpStream, part: &mut Part<'_>, whole: bool) -> Result<bool> {
        // More sealed than plain bytes come, so as many as plain ones are missing surely do.
        let surely = part.missing().saturating_sub(self.end - self.start);
        let (flags, most) = match whole && surely > RECORD_BYTES_MAX {
            true => (RecvFlags::WAITALL, surely),
            false => (RecvFlags::empty(), usize::MAX),
        };
        Ok(self.fill(stream, flags, most)? && self.turn(stream, |plain| part.push_plain(plain))?)
    }

    fn lowat(&self, missing: usize) -> usize {
        let waiting = self.end - self.start;
        missing.saturating_sub(waiting).clamp(1, self.input.len() - waiting)
    }
}
