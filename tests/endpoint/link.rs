//! A connection's bytes, plain or through TLS. Made by `server`, used by one connection thread.
//! Never says close_notify by itself: a stream that a fault cuts stays cut.

use rustls::{ServerConfig, ServerConnection};
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// See the module.
pub(crate) struct Link {
    pub stream: TcpStream,
    tls: Option<RefCell<ServerConnection>>,
}

impl Link {
    /// With `tls` the handshake happens with the first read.
    pub(crate) fn new(stream: TcpStream, tls: Option<&Arc<ServerConfig>>) -> io::Result<Self> {
        let tls = tls.map(|config| ServerConnection::new(config.clone())).transpose().map_err(io::Error::other)?;
        Ok(Self { stream, tls: tls.map(RefCell::new) })
    }

    /// Whether bytes go through TLS, where the kernel cannot send a file by itself.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Says that nothing follows; without TLS that is the socket's end alone.
    pub(crate) fn say_goodbye(&self) -> io::Result<()> {
        match &self.tls {
            None => Ok(()),
            Some(tls) => {
                let mut tls = tls.borrow_mut();
                tls.send_close_notify();
                while tls.wants_write() {
                    tls.write_tls(&mut &self.stream)?;
                }
                Ok(())
            }
        }
    }
}

impl Read for &Link {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &self.tls {
            None => (&self.stream).read(bytes),
            Some(tls) => rustls::Stream::new(&mut *tls.borrow_mut(), &mut &self.stream).read(bytes),
        }
    }
}

impl Write for &Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.tls {
            None => (&self.stream).write(bytes),
            Some(tls) => rustls::Stream::new(&mut *tls.borrow_mut(), &mut &self.stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &self.tls {
            None => Ok(()),
            Some(tls) => rustls::Stream::new(&mut *tls.borrow_mut(), &mut &self.stream).flush(),
        }
    }
}
