//! Where body bytes go, and the only place that touches the caller's memory by address.
//! Used by the connection and the drivers. Never writes outside what the caller named.
#![allow(unsafe_code)]

use std::ops::Range;

/// Huge pages of x86-64, in bytes.
const HUGE_BYTES: usize = 2 << 20;

/// Where the body of an answer goes.
///
/// # Safety contract of `Memory`
/// From the pull until its [`crate::Finished`] is delivered, the caller keeps `at .. at + len`
/// mapped and writable, and nobody else reads or writes it. Building a `Memory` that breaks this
/// is undefined behaviour although no `unsafe` word is asked for; there is one place in the
/// engine that builds them, from the mapping of the cache.
#[derive(Debug)]
pub enum Sink {
    /// The body's final place; `len` must be the length of the asked range (bytes).
    Memory {
        /// First byte.
        at: *mut u8,
        /// Bytes.
        len: usize,
        /// Its pages have to be made: [`crate::Source::make_present`] is called for a range before a byte goes there.
        fresh: bool,
    },
    /// A buffer of ours, given back in [`crate::Finished::body`].
    Buffer {
        /// A longer body is an error.
        bytes_max: usize,
    },
}

impl Sink {
    /// Copies a body into a `Memory` of the same length. The contract of `Memory` holds during the call: no fetch
    /// into it is under way.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn fill(&self, body: &[u8]) {
        let Sink::Memory { at, len, .. } = self else { return };
        assert_eq!(*len, body.len(), "a body of another length");
        // SAFETY: by the contract above these bytes are mapped and nobody else uses them; `body` is a buffer of ours.
        unsafe { std::ptr::copy_nonoverlapping(body.as_ptr(), *at, *len) };
    }
}

// SAFETY: by the contract above nobody else uses the memory while the fetch is under way, so it
// may be written from the vcpu thread that the fetch was moved to.
unsafe impl Send for Sink {}

/// The caller's memory with how far it is filled.
#[derive(Debug)]
pub(crate) struct Place {
    at: *mut u8,
    len: usize,
    filled: usize,
    /// So many of its bytes have pages.
    present: usize,
}

impl Place {
    pub fn new(at: *mut u8, len: usize, fresh: bool) -> Place {
        Place { at, len, filled: 0, present: if fresh { 0 } else { len } }
    }

    /// What has to be made present before `ahead` more bytes may come (less at the end of the place): whole huge
    /// pages, since one is the least that the kernel makes at a time.
    pub fn wanting(&self, ahead: usize) -> Option<Range<usize>> {
        let wanted = self.len.min(self.filled + ahead);
        let pages_end = |offset: usize| (self.at as usize + offset).next_multiple_of(HUGE_BYTES) - self.at as usize;
        (wanted > self.present).then(|| self.present..pages_end(wanted).min(self.len))
    }

    /// Its bytes below `end` have pages now.
    pub fn made_present(&mut self, end: usize) {
        self.present = end.min(self.len);
    }

    pub fn filled(&self) -> usize {
        self.filled
    }

    pub fn missing(&self) -> usize {
        self.len - self.filled
    }

    /// The next bytes to receive into, at most `max`, and only where there are pages.
    pub fn rest(&self, max: usize) -> Span {
        Span { at: self.at.wrapping_add(self.filled), len: (self.present - self.filled).min(max) }
    }

    /// What is not filled yet and has pages. No receive into it may be under way.
    pub fn unfilled(&mut self) -> &mut [u8] {
        // SAFETY: inside the sink, which by its contract is mapped and nobody else's; a receive into it ends before the
        // connection is told, and the borrow ends before the next one begins.
        unsafe { std::slice::from_raw_parts_mut(self.at.add(self.filled), self.present - self.filled) }
    }

    /// Copies bytes that came with the head.
    pub fn copy_in(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.present - self.filled, "more bytes than the sink takes, or than it has pages for");
        // SAFETY: the assertion keeps it inside the sink, which is ours by the contract of Sink;
        // `bytes` is a receive buffer of ours and cannot overlap it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at.add(self.filled), bytes.len()) };
        self.filled += bytes.len();
    }

    /// `n` bytes were received into [`Place::rest`].
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.missing(), "the kernel reports more bytes than were asked for");
        self.filled += n;
    }

    /// The last `n` filled bytes.
    pub fn last(&self, n: usize) -> &[u8] {
        assert!(n <= self.filled, "those bytes are not filled yet");
        // SAFETY: inside the filled part of the sink; no receive is under way while the
        // connection handles one that ended, so nothing writes to it during this borrow.
        unsafe { std::slice::from_raw_parts(self.at.add(self.filled - n), n) }
    }
}

/// Memory that a driver reads from or receives into. Whoever hands one to a driver keeps the
/// memory in place until the driver reported the end of that operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    at: *mut u8,
    len: usize,
}

impl Span {
    /// To receive into.
    pub fn to_fill(bytes: &mut [u8]) -> Span {
        Span { at: bytes.as_mut_ptr(), len: bytes.len() }
    }

    /// To send from; drivers never write through it.
    pub fn to_send(bytes: &[u8]) -> Span {
        Span { at: bytes.as_ptr().cast_mut(), len: bytes.len() }
    }

    pub fn at(&self) -> *mut u8 {
        self.at
    }

    pub fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_fills_in_order_and_never_beyond() {
        let mut memory = [0_u8; 8];
        let mut place = Place::new(memory.as_mut_ptr(), 6, false);
        place.copy_in(b"abc");
        assert_eq!((place.filled(), place.missing(), place.rest(100).len(), place.rest(2).len()), (3, 3, 3, 2));
        assert_eq!(place.last(2), b"bc");
        place.copy_in(b"def");
        assert_eq!(place.rest(100).len(), 0);
        assert_eq!(&memory, b"abcdef\0\0");
    }

    #[test]
    fn a_fresh_place_takes_bytes_only_where_pages_were_made() {
        // Addresses alone: nothing is written.
        let mut place = Place::new((3 * HUGE_BYTES - 4096) as *mut u8, 2 * HUGE_BYTES, true);
        assert_eq!(place.rest(100).len(), 0);
        assert_eq!(place.wanting(100), Some(0..4096));
        place.made_present(4096);
        assert_eq!((place.wanting(4096), place.rest(usize::MAX).len()), (None, 4096));
        assert_eq!(place.wanting(4097), Some(4096..4096 + HUGE_BYTES));
        place.made_present(4096 + HUGE_BYTES);
        place.advance(4096 + HUGE_BYTES);
        assert_eq!(place.wanting(usize::MAX >> 1), Some(4096 + HUGE_BYTES..2 * HUGE_BYTES));
        place.made_present(2 * HUGE_BYTES);
        assert_eq!((place.wanting(1), place.rest(usize::MAX).len()), (None, HUGE_BYTES - 4096));
    }

    #[test]
    #[should_panic(expected = "more bytes than the sink takes")]
    fn a_place_refuses_one_byte_too_many() {
        let mut memory = [0_u8; 2];
        Place::new(memory.as_mut_ptr(), 1, false).copy_in(b"ab");
    }
}
