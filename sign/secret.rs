//! Credentials as the signer holds them: nothing here can be printed by accident.
//!
//! `net` and the engine build them from the start parameters. Only the signer calls `expose`, and
//! whoever has to hand the value on to a process of the same user.

use std::fmt;

/// A text that must not reach a log: no `Display`, and `Debug` prints `***`.
///
/// Its bytes are overwritten when it is dropped. That is best effort: copies which the value's
/// maker left behind, and moves made by the compiler, are out of reach of safe code.
#[derive(Clone, PartialEq, Eq)]
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
        wipe(std::mem::take(&mut self.0).into_bytes());
    }
}

/// Overwrites a buffer before its memory goes back to the allocator.
pub fn wipe(mut bytes: Vec<u8>) {
    bytes.fill(0);
    // Without a reader the compiler may drop the stores, since the buffer is freed next.
    std::hint::black_box(&bytes);
}

/// One access key, long-lived or temporary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Public part of the key; it travels in the Authorization header.
    pub access_key_id: String,
    /// Secret part of the key; it never travels.
    pub access_key_secret: Secret,
    /// Token of temporary (STS) credentials; it travels as `x-oss-security-token`.
    pub security_token: Option<Secret>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_secret_nor_token() {
        let credentials = Credentials {
            access_key_id: "LTAI-public".into(),
            access_key_secret: Secret::new("hunter2".into()),
            security_token: Some(Secret::new("tok-abc".into())),
        };
        let shown = format!("{credentials:?} {credentials:#?}");
        assert!(shown.contains("LTAI-public") && shown.contains("***"), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("tok-abc"), "{shown}");
        assert_eq!(credentials.access_key_secret.expose(), "hunter2");
    }
}
