//! What the receivers of `floor-tls` share: the trusted CAs and suites, the part that is being received, and what a
//! TLS session does for it. Never looks at an event; see `floor_tls` for who waits for what.

use crate::error::{Error, Result};
use crate::http::{HEAD_BYTES_MAX, parse};
use crate::target::{Target, Wanted};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{CipherSuite, ClientConfig, RootCertStore};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;

pub mod records;
pub mod unbuffered;

/// Most plain bytes of one record (RFC 8446 section 5.1).
pub const RECORD_BYTES_MAX: usize = 16 << 10;
/// The receive mark is not set higher: more saves no wake-ups that cost anything.
pub const LOWAT_BYTES_MAX: usize = 512 << 10;

/// One connection's TLS. Made with the handshake behind it.
pub trait Session {
    /// Seals and sends.
    fn request(&mut self, stream: &mut TcpStream, text: &[u8]) -> Result<()>;

    /// One receive, and what it brought goes to `part`. `whole` waits (MSG_WAITALL) for as many bytes as surely come.
    /// False if the stream does not block and has nothing.
    fn receive(&mut self, stream: &mut TcpStream, part: &mut Part<'_>, whole: bool) -> Result<bool>;

    /// SO_RCVLOWAT while `missing` plain bytes are to come.
    fn lowat(&self, missing: usize) -> usize {
        missing.clamp(1, LOWAT_BYTES_MAX)
    }
}

/// Whom to trust and what to offer: AES-128-GCM first, as the product, which is the cheapest.
pub fn config(wanted: &Wanted) -> Result<Arc<ClientConfig>> {
    let Some(file) = &wanted.ca else {
        return Err(Error::Wrong("https needs --ca FILE here".into()));
    };
    let unusable = |why: String| Error::Wrong(format!("--ca {}: {why}", file.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| unusable(e.to_string()))? {
        let certificate = certificate.map_err(|e| unusable(e.to_string()))?;
        roots.add(certificate).map_err(|e| unusable(e.to_string()))?;
    }
    let mut cipher_suites = ring::default_provider().cipher_suites;
    cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let provider = CryptoProvider { cipher_suites, ..ring::default_provider() };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(failed)?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// Whom the certificate must name.
pub fn name(target: &Target) -> Result<ServerName<'static>> {
    ServerName::try_from(target.host.clone()).map_err(|e| Error::Wrong(format!("{}: {e}", target.host)))
}

/// A session's failure.
pub fn failed(cause: rustls::Error) -> Error {
    Error::Wrong(format!("TLS: {cause}"))
}

/// One range of the object on its way.
pub struct Part<'a> {
    range: Range<u64>,
    size: u64,
    body: &'a mut [u8],
    filled: usize,
    head: Vec<u8>,
    begun: bool,
    pub crc64: Option<u64>,
}

impl<'a> Part<'a> {
    /// `body` has the length of `range`, which is one of an object of `size` bytes.
    pub fn new(range: Range<u64>, size: u64, body: &'a mut [u8]) -> Part<'a> {
        Part { range, size, body, filled: 0, head: Vec::new(), begun: false, crc64: None }
    }

    /// Plain bytes that are still to come at least; 1 before the head is known.
    pub fn missing(&self) -> usize {
        if self.begun { self.body.len() - self.filled } else { 1 }
    }

    /// Takes plain bytes, in order.
    pub fn push_plain(&mut self, mut plain: &[u8]) -> Result<()> {
        if !self.begun {
            let had = self.head.len();
            self.head.extend_from_slice(plain);
            let Some(head) = parse(&self.head, &self.range, self.size)? else {
                let short = self.head.len() < HEAD_BYTES_MAX;
                return if short { Ok(()) } else { Err(Error::Wrong("a head without an end".into())) };
            };
            (self.begun, self.crc64) = (true, head.crc64);
            plain = &plain[head.len - had..];
        }
        let into = self.rest();
        if plain.len() > into.len() {
            return Err(Error::Wrong("more bytes than were asked for".into()));
        }
        into[..plain.len()].copy_from_slice(plain);
        self.filled += plain.len();
        Ok(())
    }

    /// Where the rest of the body goes; nothing before the head is known.
    pub fn rest(&mut self) -> &mut [u8] {
        let end = if self.begun { self.body.len() } else { self.filled };
        &mut self.body[self.filled..end]
    }

    /// `n` bytes were written to [`Part::rest`].
    pub fn advance(&mut self, n: usize) {
        self.filled += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_takes_its_head_and_then_its_body_in_any_pieces() {
        let head = "HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\nContent-Range: bytes 5-14/100\r\nx-oss-hash-crc64ecma: 7\r\n\r\n";
        let answer = [head.as_bytes(), b"0123456789"].concat();
        for piece in [1, 7, head.len(), head.len() + 3, answer.len()] {
            let mut body = [0; 10];
            let mut part = Part::new(5..15, 100, &mut body);
            for plain in answer.chunks(piece) {
                assert!(part.missing() > 0);
                part.push_plain(plain).unwrap();
            }
            assert_eq!((part.missing(), part.crc64), (0, Some(7)));
            assert!(part.push_plain(b"x").is_err(), "a byte too many");
            assert_eq!(&body, b"0123456789");
        }
    }
}
