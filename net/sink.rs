//! Where body bytes go, and the only place that touches the caller's memory by address.
//! Used by the connection and the drivers. Never writes outside what the caller named.
#![allow(unsafe_code)]

use std::ops::Range;
use std::os::fd::RawFd;

/// Huge pages of x86-64, in bytes.
const HUGE_BYTES: usize = 2 << 20;
/// Other pages, in bytes.
const SMALL_BYTES: usize = 4096;

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
        /// Whether it has them.
        pages: Pages,
    },
    /// A buffer of ours, given back in [`crate::Finished::body`].
    Buffer {
        /// A longer body is an error.
        bytes_max: usize,
    },
}

/// The pages of memory that bytes are received into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// They are there.
    Made,
    /// They have to be made: [`crate::Source::make_present`] is called for a range before a byte goes there.
    Fresh,
    /// The same; and the memory is a shared mapping of a file, where plain bytes may be spliced to: then the kernel
    /// makes the pages, and `make_present` is called for what comes with the head, and later only to tell of progress.
    File(InFile),
}

/// A place in a file on tmpfs. The descriptor stays open as long as the memory is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFile {
    /// Open for writing.
    pub fd: RawFd,
    /// Bytes from its begin.
    pub offset: u64,
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
pub(crate) struct Destination {
    at: *mut u8,
    len: usize,
    filled: usize,
    /// So many of its bytes have pages; of a place that is spliced into, so many were told of.
    present: usize,
    /// Bytes are spliced to here.
    file: Option<InFile>,
}

impl Destination {
    pub fn new(at: *mut u8, len: usize, pages: Pages) -> Destination {
        let file = if let Pages::File(file) = pages { Some(file) } else { None };
        Destination { at, len, filled: 0, present: if pages == Pages::Made { len } else { 0 }, file }
    }

    /// Its bytes are not as they come from the socket: they are received and never spliced.
    pub fn receive_only(&mut self) {
        self.file = None;
    }

    pub fn is_spliced(&self) -> bool {
        self.file.is_some()
    }

    /// The same as `wanting` for a place that is spliced into. Pages are wanted for the first `early` bytes, which
    /// are copied; later none, but who knows how far it is is told after each huge page.
    pub fn wanting_spliced(&self, early: usize) -> Option<Range<usize>> {
        if early > self.present {
            return Some(0..early.next_multiple_of(SMALL_BYTES).min(self.len));
        }
        (self.filled >= self.present + HUGE_BYTES).then_some(self.filled..self.filled)
    }

    /// The next `n` bytes have pages.
    pub fn has_pages(&self, n: usize) -> bool {
        self.filled + n <= self.present
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

    /// The next bytes to receive into, at most `max`, and only where there are pages or a file that gets them.
    pub fn rest(&self, max: usize) -> Span {
        let file = self.file.map(|file| InFile { offset: file.offset + self.filled as u64, ..file });
        let room = if file.is_some() { self.missing() } else { self.present - self.filled };
        Span { at: self.at.wrapping_add(self.filled), len: room.min(max), file }
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

    /// `n` bytes were received into [`Destination::rest`].
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
    file: Option<InFile>,
}

impl Span {
    /// To receive into.
    pub fn to_fill(bytes: &mut [u8]) -> Span {
        Span { at: bytes.as_mut_ptr(), len: bytes.len(), file: None }
    }

    /// To send from; drivers never write through it.
    pub fn to_send(bytes: &[u8]) -> Span {
        Span { at: bytes.as_ptr().cast_mut(), len: bytes.len(), file: None }
    }

    pub fn at(&self) -> *mut u8 {
        self.at
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// What comes is spliced to here instead, which is the same memory.
    pub fn file(&self) -> Option<InFile> {
        self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_fills_in_order_and_never_beyond() {
        let mut memory = [0_u8; 8];
        let mut place = Destination::new(memory.as_mut_ptr(), 6, Pages::Made);
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
        let mut place = Destination::new((3 * HUGE_BYTES - 4096) as *mut u8, 2 * HUGE_BYTES, Pages::Fresh);
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
    fn a_place_that_is_spliced_into_wants_pages_for_what_is_copied_alone() {
        let mut memory = vec![0_u8; 3 * HUGE_BYTES];
        let file = InFile { fd: 7, offset: 1 << 23 };
        let mut place = Destination::new(memory.as_mut_ptr(), 3 * HUGE_BYTES, Pages::File(file));
        assert_eq!((place.wanting_spliced(0), place.wanting_spliced(700)), (None, Some(0..4096)));
        place.made_present(4096);
        assert!(place.has_pages(700));
        place.copy_in(&[1; 700]);
        assert_eq!(place.rest(4 << 20).file(), Some(InFile { fd: 7, offset: (1 << 23) + 700 }));
        assert_eq!((place.rest(4 << 20).len(), place.wanting_spliced(0)), (4 << 20, None));
        place.advance(4 << 20);
        let told = 700 + (4 << 20);
        assert_eq!(place.wanting_spliced(0), Some(told..told));
        place.made_present(told);
        assert_eq!(place.wanting_spliced(0), None);
        place.receive_only();
        assert_eq!((place.is_spliced(), place.rest(4096).file(), place.rest(4096).len()), (false, None, 0));
    }

    #[test]
    #[should_panic(expected = "more bytes than the sink takes")]
    fn a_place_refuses_one_byte_too_many() {
        let mut memory = [0_u8; 2];
        Destination::new(memory.as_mut_ptr(), 1, Pages::Made).copy_in(b"ab");
    }
}
