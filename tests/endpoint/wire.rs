//! Puts heads and bodies on a socket: sendfile, shaping, and the faults that touch bytes.
//! Called by `conn`. Never counts a byte the kernel did not take.

use crate::answer::Body;
use crate::fault::Effects;
use crate::link::Link;
use crate::rate::Rate;
use crate::stop::Stop;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Most bytes per sendfile call when nothing limits the rate.
const PIECE_BYTES_MAX: u64 = 8 << 20;

/// Bytes of a file read at once for TLS.
const SEALED_BYTES: u64 = 256 << 10;

/// Why an answer ended early; the name goes into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Fault,
    /// The peer closed or reset the connection, or took nothing for too long.
    Client,
    /// The file became shorter, or could not be read.
    File,
    Stop,
}

impl Cut {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Client => "client",
            Self::File => "file",
            Self::Stop => "stop",
        }
    }
}

/// One answer being sent.
pub(crate) struct Wire<'a> {
    pub link: &'a Link,
    /// The limit over all connections, and that of this answer.
    pub rates: [Option<&'a Rate>; 2],
    pub stop: &'a Stop,
    /// Body bytes the kernel took so far.
    pub sent: u64,
}

impl Wire<'_> {
    /// Sends a head. `more`: a body follows at once, so the kernel may hold it back for that.
    pub(crate) fn head(&self, head: &[u8], more: bool) -> Result<(), Cut> {
        self.bytes(head, more, &mut 0)
    }

    /// Sends a body, with the faults that concern its bytes.
    pub(crate) fn body(&mut self, body: &Body, effects: &Effects) -> Result<(), Cut> {
        let len = body.len();
        let end = effects.cut_after.unwrap_or(len).min(len);
        let mut stall_at = effects.stall_after.map(|at| at.min(end));
        let mut flip_at = effects.flip_byte.filter(|at| *at < end);
        let mut at = 0;
        loop {
            if stall_at == Some(at) {
                stall_at = None;
                self.sleep(Duration::from_millis(effects.ms.unwrap_or_default()))?;
            }
            if at == end {
                break;
            }
            if flip_at == Some(at) {
                flip_at = None;
                self.flipped(body, at)?;
                at += 1;
                continue;
            }
            let stops = [stall_at, flip_at].into_iter().flatten().filter(|stop| *stop > at);
            let to = stops.min().unwrap_or(end);
            self.span(body, at..to)?;
            at = to;
        }
        if effects.cut_after.is_some() { Err(Cut::Fault) } else { Ok(()) }
    }

    fn sleep(&self, time: Duration) -> Result<(), Cut> {
        if self.stop.sleep(time) { Err(Cut::Stop) } else { Ok(()) }
    }

    /// One byte of the body, inverted.
    fn flipped(&mut self, body: &Body, at: u64) -> Result<(), Cut> {
        let mut byte = [0];
        match body {
            Body::Bytes(bytes) => byte[0] = bytes[at as usize],
            Body::File { file, span } => {
                file.read_exact_at(&mut byte, span.start + at).map_err(|_| Cut::File)?;
            }
        }
        let mut sent = self.sent;
        let done = self.bytes(&[!byte[0]], false, &mut sent);
        self.sent = sent;
        done
    }

    fn span(&mut self, body: &Body, mut span: Range<u64>) -> Result<(), Cut> {
        while !span.is_empty() {
            let rates = || self.rates.into_iter().flatten();
            let piece_max = rates().map(Rate::piece_bytes_max).min().unwrap_or(PIECE_BYTES_MAX);
            let piece = piece_max.min(span.end - span.start);
            self.sleep(rates().map(|rate| rate.grant(piece)).max().unwrap_or_default())?;
            let mut sent = self.sent;
            let done = match body {
                Body::Bytes(bytes) => {
                    let from = span.start as usize;
                    self.bytes(&bytes[from..from + piece as usize], false, &mut sent)
                }
                Body::File { file, span: of_file } => {
                    let from = of_file.start + span.start;
                    self.file(file, from..from + piece, &mut sent)
                }
            };
            self.sent = sent;
            done?;
            span.start += piece;
        }
        Ok(())
    }

    fn file(&self, file: &File, span: Range<u64>, sent: &mut u64) -> Result<(), Cut> {
        if self.link.is_tls() {
            return self.sealed_file(file, span, sent);
        }
        let (mut offset, end) = (span.start as libc::off_t, span.end as libc::off_t);
        while offset < end {
            let count = (end - offset) as usize;
            // SAFETY: both descriptors are open for the call (borrowed from owners that outlive
            // it) and `offset` is a live off_t that only this call writes.
            let n = unsafe { libc::sendfile(self.link.stream.as_raw_fd(), file.as_raw_fd(), &mut offset, count) };
            match n {
                0 => return Err(Cut::File),
                n if n > 0 => *sent += n as u64,
                _ => self.failed(&io::Error::last_os_error())?,
            }
        }
        Ok(())
    }

    /// TLS needs the bytes in hand.
    fn sealed_file(&self, file: &File, span: Range<u64>, sent: &mut u64) -> Result<(), Cut> {
        let mut piece = vec![0; (span.end - span.start).min(SEALED_BYTES) as usize];
        let mut at = span.start;
        while at < span.end {
            let n = (span.end - at).min(piece.len() as u64) as usize;
            file.read_exact_at(&mut piece[..n], at).map_err(|_| Cut::File)?;
            self.bytes(&piece[..n], false, sent)?;
            at += n as u64;
        }
        Ok(())
    }

    fn bytes(&self, mut bytes: &[u8], more: bool, sent: &mut u64) -> Result<(), Cut> {
        let flags = libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
        if self.link.is_tls() {
            let mut link = self.link;
            link.write_all(bytes).and_then(|()| link.flush()).or_else(|e| self.failed(&e))?;
            *sent += bytes.len() as u64;
            return Ok(());
        }
        while !bytes.is_empty() {
            // SAFETY: the pointer and length are those of a live slice, which send only reads.
            let n = unsafe { libc::send(self.link.stream.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
            match n {
                n if n >= 0 => {
                    *sent += n as u64;
                    bytes = &bytes[n as usize..];
                }
                _ => self.failed(&io::Error::last_os_error())?,
            }
        }
        Ok(())
    }

    /// Interrupted calls are repeated; anything else ends the answer.
    fn failed(&self, error: &io::Error) -> Result<(), Cut> {
        match error.kind() {
            io::ErrorKind::Interrupted => Ok(()),
            _ if error.raw_os_error() == Some(libc::EIO) => Err(Cut::File),
            _ if self.stop.is_set() => Err(Cut::Stop),
            _ => Err(Cut::Client),
        }
    }
}
