//! A text from the environment that must not reach a log. `env` makes it, the engine hands it to
//! the signer. It is never compared, hashed or written anywhere.

use std::fmt;

/// A secret text: no `Display`, and `Debug` prints `***`. Its bytes are overwritten on drop, as far
/// as safe code can.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes the text over.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself. Never to be formatted into a message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        // Without a reader the compiler may drop the stores, since the buffer is freed next.
        std::hint::black_box(&bytes);
    }
}
