//! A path in a fixed buffer, built piece by piece without allocation, ending in NUL for the kernel.
//!
//! Called wherever the library has to make a path inside a hook, and by the engine for the same names.
//! What does not fit makes the whole path unusable (`as_cstr` gives `None`): it is never cut short.

use core::ffi::CStr;

/// Room for the longest path the kernel takes, NUL included.
pub const CAPACITY: usize = 4096;

/// A path under construction.
#[derive(Clone)]
pub struct CPath {
    bytes: [u8; CAPACITY],
    len: usize,
    broken: bool,
}

impl Default for CPath {
    fn default() -> Self {
        CPath { bytes: [0; CAPACITY], len: 0, broken: false }
    }
}

impl CPath {
    /// A path that begins with `bytes`.
    pub fn from(bytes: &[u8]) -> CPath {
        CPath::default().with(bytes)
    }

    /// The same path with `bytes` after it. A NUL in them makes it unusable.
    pub fn with(mut self, bytes: &[u8]) -> CPath {
        self.push(bytes);
        self
    }

    /// Nothing, as a new one.
    pub fn clear(&mut self) {
        (self.len, self.broken) = (0, false);
        self.bytes[0] = 0;
    }

    /// Puts `bytes` behind it: `with` where it lies, for stacks that have no room for a second one.
    pub fn push(&mut self, bytes: &[u8]) {
        match self.bytes.get_mut(self.len..self.len + bytes.len()) {
            Some(room) if self.len + bytes.len() < CAPACITY && !bytes.contains(&0) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
                self.bytes[self.len] = 0;
            }
            _ => self.broken = true,
        }
    }

    /// The same with a text after it whose control bytes are question marks, for a line of a log.
    pub fn with_shown(mut self, text: &[u8]) -> CPath {
        without_controls(text, |byte| self.push(&[byte.unwrap_or(b'?')]));
        self
    }

    /// The same with a text after it in quotes, as JSON and Rust write it: of control bytes, and of bytes that are no UTF-8,
    /// question marks stand there.
    pub fn with_quoted(mut self, text: &[u8]) -> CPath {
        let is_text = core::str::from_utf8(text).is_ok();
        self.push(b"\"");
        without_controls(text, |byte| match byte {
            Some(byte @ (b'"' | b'\\')) => self.push(&[b'\\', byte]),
            Some(byte) if is_text || byte.is_ascii() => self.push(&[byte]),
            _ => self.push(b"?"),
        });
        self.push(b"\"");
        self
    }

    /// The same path with a decimal number after it.
    pub fn with_number(mut self, number: u64) -> CPath {
        self.push_number(number);
        self
    }

    /// `push` of a decimal number.
    pub fn push_number(&mut self, mut number: u64) {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return self.push(&digits[at..]);
            }
        }
    }

    /// The path without its NUL.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The path for the kernel; `None` when a piece did not fit or held a NUL.
    pub fn as_cstr(&self) -> Option<&CStr> {
        if self.broken {
            return None;
        }
        CStr::from_bytes_with_nul(&self.bytes[..self.len + 1]).ok()
    }
}

/// Gives each byte of a text, and `None` for each control character.
fn without_controls(mut text: &[u8], mut each: impl FnMut(Option<u8>)) {
    while let Some((byte, rest)) = text.split_first() {
        let control = control_len(text);
        each((control == 0).then_some(*byte));
        text = if control > 0 { &text[control..] } else { rest };
    }
}

/// Length of the control character that a text begins with, or 0: those above U+007F, which terminals obey as well, have
/// two bytes of UTF-8.
fn control_len(text: &[u8]) -> usize {
    match text {
        [0xc2, 0x80..=0x9f, ..] => 2,
        [byte, ..] => usize::from(byte.is_ascii_control()),
        [] => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_numbers() {
        let path = CPath::from(b"/run/").with_number(0).with(b"-").with_number(18_446_744_073_709_551_615);
        assert_eq!(path.as_cstr().unwrap().to_bytes(), b"/run/0-18446744073709551615");
    }

    #[test]
    fn one_that_was_cleared_is_new() {
        let mut path = CPath::from(b"/long/path");
        path.clear();
        assert_eq!(path.as_cstr(), Some(c""));
        path.push(b"/a");
        path.push_number(7);
        assert_eq!(path.as_cstr(), Some(c"/a7"));
        path.push(&[b'x'; CAPACITY]);
        assert_eq!(path.as_cstr(), None);
        path.clear();
        assert_eq!(path.as_cstr(), Some(c""));
    }

    #[test]
    fn a_name_in_a_log_line_is_one_line() {
        let shown = |text: &[u8]| CPath::from(b"x=").with_shown(text).as_bytes().to_vec();
        assert_eq!(shown("a\n\0\u{e9}".as_bytes()), "x=a??\u{e9}".as_bytes());
        assert_eq!(shown("\u{9b}31m\u{7f}\u{a0}".as_bytes()), "x=?31m?\u{a0}".as_bytes());
        assert_eq!(shown(b"\xc2"), b"x=\xc2");
    }

    #[test]
    fn a_text_in_quotes_ends_where_it_ends() {
        let quoted = |text: &[u8]| CPath::default().with_quoted(text).as_bytes().to_vec();
        assert_eq!(quoted("a\"b\\\n\u{e9}".as_bytes()), "\"a\\\"b\\\\?\u{e9}\"".as_bytes());
        assert_eq!(quoted(b"\xe9x"), b"\"?x\"");
        assert_eq!(quoted("\u{9b}31m".as_bytes()), b"\"?31m\"");
    }

    #[test]
    fn what_does_not_fit_is_no_path() {
        assert!(CPath::from(&[b'x'; CAPACITY]).as_cstr().is_none());
        assert!(CPath::from(&[b'x'; CAPACITY - 1]).as_cstr().is_some());
        assert!(CPath::from(b"a\0b").as_cstr().is_none());
    }
}
