//! The talk between a starting engine and the program that starts it: settings in, one word out.
//!
//! Called by the engine. The word is `R` (ready), `O` (another engine holds the lock) or `E` (not started),
//! followed by a text for the user, which a NUL ends; then the socket is closed. Before it any number of `W` may come,
//! each with what the start waits for: the program says it where the start takes long.

use crate::credentials::Variables;
use crate::journal;
use ossc_cache::wire::Streams;
use ossc_sign::Secret;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Most bytes of settings.
const SETTINGS_MAX: u32 = 1 << 16;
/// How long a start that takes too long waits for its reason to be written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

/// Longest text of what is waited for: a starter has room for 2048 bytes at a time.
const WAIT_CHARS_MAX: usize = 400;

/// Why an engine does not start.
pub enum NotStarted {
    /// Another engine holds the lock.
    OtherEngine,
    /// The REASON.
    Reason(String),
}

impl From<String> for NotStarted {
    fn from(reason: String) -> NotStarted {
        NotStarted::Reason(reason)
    }
}

impl From<ossc_conf::Reason> for NotStarted {
    fn from(reason: ossc_conf::Reason) -> NotStarted {
        NotStarted::Reason(reason.to_string())
    }
}

/// The starter's end.
pub struct Starter {
    stream: UnixStream,
    /// Its process id.
    pub pid: i32,
    /// Folder of the memory files of an engine that is gone, or -1; known after `settings`.
    pub store: i32,
    /// Its standard streams, where they could be handed over; known after `settings`.
    pub streams: Streams,
    said: Arc<AtomicBool>,
}

impl Starter {
    /// Over the inherited socket.
    pub fn new(socket: OwnedFd) -> Starter {
        let pid = ossc_cache::wire::peer(socket.as_raw_fd()).map_or(0, |peer| peer.pid);
        Starter { stream: UnixStream::from(socket), pid, store: -1, streams: Streams::default(), said: Arc::default() }
    }

    /// Reads the settings: variables of the starter's environment.
    pub fn settings(&mut self) -> Result<Variables, String> {
        let broken = |e: std::io::Error| format!("the settings did not arrive: {e}");
        let head = ossc_cache::wire::receive_settings_head(self.stream.as_raw_fd());
        let (length, store, streams) = head.map_err(|e| broken(std::io::Error::from_raw_os_error(e.0)))?;
        (self.store, self.streams) = (store, streams);
        if length == 0 || length > SETTINGS_MAX {
            return Err("the OSS_* and OSSC_* variables together are longer than 64 KiB".into());
        }
        let mut bytes = vec![0; length as usize];
        self.stream.read_exact(&mut bytes).map_err(broken)?;
        let variables = parse(&bytes);
        ossc_sign::wipe(bytes);
        Ok(variables)
    }

    /// What the start waits for from now on, for the program's user.
    pub fn waits_for(&self, what: &str) {
        if let Ok(waiting) = self.waiting() {
            waiting.waits_for(what);
        }
    }

    /// The same for who hears of what keeps the start waiting.
    ///
    /// # Errors
    /// No descriptor can be had.
    pub fn waiting(&self) -> std::io::Result<Waiting> {
        Ok(Waiting { stream: self.stream.try_clone()?, said: self.said.clone() })
    }

    /// Says the word and ends the talk.
    pub fn say(mut self, word: char, text: &str) {
        if !self.said.swap(true, Ordering::AcqRel) {
            tell(&mut self.stream, word, text);
        }
    }

    /// Ends this process with `reason` unless the word is said within `limit`: the program that started it waits.
    pub fn say_within(&self, limit: Duration, reason: String) -> std::io::Result<()> {
        let (mut stream, said) = (self.stream.try_clone()?, self.said.clone());
        let watch = move || {
            std::thread::sleep(limit);
            if !said.swap(true, Ordering::AcqRel) {
                tracing::error!("not started: {reason}");
                journal::flush(WRITTEN_WITHIN);
                tell(&mut stream, 'E', &reason);
                std::process::exit(1);
            }
        };
        std::thread::Builder::new().name("ossc-start".into()).stack_size(256 << 10).spawn(watch).map(drop)
    }
}

/// Tells the starter what its start waits for, until the word is said.
pub struct Waiting {
    stream: UnixStream,
    said: Arc<AtomicBool>,
}

impl Waiting {
    /// This, from now on.
    pub fn waits_for(&self, what: &str) {
        if !self.said.load(Ordering::Acquire) {
            let text: String = what.replace('\0', " ").chars().take(WAIT_CHARS_MAX).collect();
            // A starter that is gone does not hear it.
            let _ = (&self.stream).write_all(format!("W{text}\0").as_bytes());
        }
    }
}

fn tell(stream: &mut UnixStream, word: char, text: &str) {
    // A starter that is gone does not hear it: the engine goes on without.
    // The NUL ends it where the end of the stream does not come: another thread has a descriptor of it, and a policy may
    // refuse the shutdown.
    let _ = stream.write_all(format!("{word}{}\0", text.replace('\0', " ")).as_bytes());
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

/// `NAME=value` entries, each ended by NUL; the first of a name counts, as for `getenv`.
fn parse(bytes: &[u8]) -> Variables {
    let mut map = Variables::new();
    for entry in bytes.split(|byte| *byte == 0) {
        if let Some((name, value)) = std::str::from_utf8(entry).ok().and_then(|text| text.split_once('=')) {
            map.entry(name.to_string()).or_insert_with(|| Secret::new(value.to_string()));
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_with_equal_signs_and_repeats() {
        let map = parse(b"MODEL_DIR=/canonical\0MODEL_DIR=../x\0OSS_SESSION_TOKEN=a=b=\0\xff=1\0");
        assert_eq!(map["MODEL_DIR"].expose(), "/canonical");
        assert_eq!(map["OSS_SESSION_TOKEN"].expose(), "a=b=");
        assert_eq!(map.len(), 2);
    }
}
