//! What the commands print, and how a command ends that cannot print it.
//!
//! Called by the commands for all that goes to the standard streams. A reader of standard output that has seen enough
//! (`| head`) is no failure; a full disk is one, since whoever reads the file would take a part for the whole. What cannot
//! be written to standard error changes nothing: the status says what there is to say.

use crate::journal::line::without_controls;
use ossc_net::error::shown;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;
use std::io::{ErrorKind, Result, Write};
use std::process::ExitCode;

/// Tells the user, on standard error, in one line: names of objects in it may hold any character.
pub fn tell(text: &str) {
    let _ = std::io::stderr().write_all(format!("{}\n", shown(text)).as_bytes());
}

/// True if what reads standard output is gone.
pub fn is_left() -> bool {
    let (stdout, now) = (std::io::stdout(), Timespec { tv_sec: 0, tv_nsec: 0 });
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// A document as one line of JSON, without a control character: a terminal may be what reads it.
pub fn document(value: &Value) -> String {
    format!("{}\n", without_controls(value.to_string()))
}

/// Prints a text, and flushes it. False when its reader takes no more.
///
/// # Errors
/// What keeps it from being printed.
pub fn print(text: &str) -> Result<bool> {
    taken(&mut std::io::stdout().lock(), text)
}

/// Prints all that a command has to say; its status.
pub fn only(command: &str, text: &str) -> ExitCode {
    end(command, print(text).map(drop))
}

/// The status of a command that has printed.
pub fn end(command: &str, printed: Result<()>) -> ExitCode {
    match printed {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => lost(command, &e),
        _ => ExitCode::SUCCESS,
    }
}

/// Says that what a command printed is not all there; its status.
pub fn lost(command: &str, error: &std::io::Error) -> ExitCode {
    tell(&format!("ossc {command}: cannot write to standard output: {error}"));
    ExitCode::FAILURE
}

fn taken(out: &mut impl Write, text: &str) -> Result<bool> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes nothing.
    struct Refusing(ErrorKind);
    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_a_failure_and_a_reader_that_is_gone_is_none() {
        let full = taken(&mut Refusing(ErrorKind::StorageFull), "text");
        assert_eq!(full.map_err(|e| e.kind()), Err(ErrorKind::StorageFull));
        assert!(!taken(&mut Refusing(ErrorKind::BrokenPipe), "text").unwrap());
        let mut text = Vec::new();
        assert!(taken(&mut text, "text").unwrap());
        assert_eq!(text, b"text");
    }

    #[test]
    fn a_document_is_one_line_that_no_terminal_obeys() {
        let value = serde_json::json!({"name": "c1\u{9b}31m\u{7f}\n"});
        let text = document(&value);
        assert!(text.strip_suffix('\n').is_some_and(|line| !line.contains(char::is_control)), "{text:?}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
