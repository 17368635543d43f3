//! Sinks whose pages are made while their bytes come, over real sockets: with both drivers, with and without TLS.

use super::*;
use crate::tls::tests::{BOTH, Ca, ONLY_TLS12};
use std::io;

/// The token is the address of memory that nobody can touch yet; that of an odd one cannot be had. Small tokens are of
/// other tests, whose memory has pages.
pub(super) fn make_present(token: u64, filled: usize, bytes: Range<usize>) -> Result<(), Error> {
    if token < 4096 {
        return Ok(());
    }
    assert!(filled <= bytes.start, "bytes {bytes:?} are wanted when {filled} have come");
    if token & 1 == 1 {
        return Err(Error::new(FailureKind::Memory, Phase::Body, "no pages"));
    }
    let at = (token as usize + bytes.start) as *mut u8;
    // SAFETY: inside the reservation of the test that asked, which stays until its end.
    let rc = unsafe { libc::mprotect(at.cast(), bytes.len(), libc::PROT_READ | libc::PROT_WRITE) };
    if rc == 0 { Ok(()) } else { Err(Error::from_os(Phase::Body, "mprotect", &io::Error::last_os_error())) }
}

/// Addresses for a fresh sink: a byte that comes before its page was made is a fault, not a byte.
struct Fresh {
    at: *mut u8,
    len: usize,
}

impl Fresh {
    fn new(len: usize) -> Fresh {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        Fresh { at: at.cast(), len }
    }

    fn get(&self, mark: u64) -> Fetch {
        let sink = Sink::Memory { at: self.at, len: self.len, pages: Pages::Fresh };
        Fetch { token: self.at as u64 | mark, query: query(0..self.len as u64), sink, crc: true, urgent: true }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: all of it was received, so all of it was made present.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // SAFETY: its own mapping; the request into it has ended.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

/// A few huge pages and a bit, a body that comes with its head, and memory that cannot be had.
fn no_byte_comes_early(rig: &Rig) {
    for len in [(9 << 20) + 5, 40] {
        let memory = Fresh::new(len);
        rig.push(memory.get(0));
        let response = rig.next().result.expect("a response");
        assert!(memory.bytes() == content(0..len as u64), "wrong bytes");
        assert_eq!(response.crc64_body, Some(crc::of(memory.bytes())));
    }
    let memory = Fresh::new(9 << 20);
    rig.push(memory.get(1));
    assert_eq!(rig.next().result.expect_err("no memory").kind, FailureKind::Memory);
    rig.push(memory.get(0));
    assert!(rig.next().result.is_ok(), "the next request is served");
}

#[test]
fn no_byte_comes_before_its_page_was_made() {
    on_both(|driver| {
        let server = serve(good);
        no_byte_comes_early(&Rig::new(driver, vec![server.address], 2, 1));
    });
}

#[test]
fn nor_is_one_opened_there() {
    on_both(|driver| {
        for versions in [BOTH, ONLY_TLS12] {
            let ca = Ca::new("fresh");
            let server = tls::serve_tls("127.0.0.1:0", ca.server(&["127.0.0.1"], 4000, versions), good);
            no_byte_comes_early(&tls::rig(driver, &ca.tls("127.0.0.1"), &server, 2));
        }
    });
}
