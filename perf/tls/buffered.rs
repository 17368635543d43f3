//! rustls' ordinary session, which keeps sealed and plain bytes in buffers of its own: what the unbuffered one saves.
//! Used by `floor_tls`.

use crate::error::{Error, Result, Tried};
use crate::tls::{Part, Session, failed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// Plain bytes of a head that are taken at once.
const HEAD_STEP_BYTES: usize = 1 << 10;

/// See the module.
pub struct Buffered(ClientConnection);

impl Buffered {
    /// Agrees on keys over a stream that blocks.
    pub fn open(config: Arc<ClientConfig>, name: ServerName<'static>, stream: &mut TcpStream) -> Result<Buffered> {
        let mut tls = ClientConnection::new(config, name).map_err(failed)?;
        while tls.is_handshaking() {
            tls.complete_io(stream).tried(|| "TLS handshake".into())?;
        }
        Ok(Buffered(tls))
    }
}

impl Session for Buffered {
    fn request(&mut self, stream: &mut TcpStream, text: &[u8]) -> Result<()> {
        self.0.writer().write_all(text).tried(|| "seal the request".into())?;
        while self.0.wants_write() {
            self.0.write_tls(stream).tried(|| "send the request".into())?;
        }
        Ok(())
    }

    fn receive(&mut self, stream: &mut TcpStream, part: &mut Part<'_>, _whole: bool) -> Result<bool> {
        match self.0.read_tls(stream) {
            Ok(0) => return Err(Error::Wrong("the server closed the connection in the middle of an answer".into())),
            Ok(_) => {}
            Err(os) if os.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(os) => return Err(os).tried(|| "receive".into()),
        }
        let mut left = self.0.process_new_packets().map_err(failed)?.plaintext_bytes_to_read();
        while left > 0 {
            let into = part.rest();
            left -= if into.is_empty() {
                let mut head = [0; HEAD_STEP_BYTES];
                let came = self.0.reader().read(&mut head).tried(|| "read the head".into())?;
                part.take(&head[..came])?;
                came
            } else {
                let came = self.0.reader().read(into).tried(|| "read the body".into())?;
                part.advance(came);
                came
            };
        }
        Ok(true)
    }
}
