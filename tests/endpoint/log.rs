//! One JSON line per finished request. Called by `conn`. Never logs credentials: Authorization
//! and the security token are not among its fields.

use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A finished request. `range` is half-open: what was served, or what was asked for when the
/// answer was an error.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    /// Seconds since 1970 when the request's head had been read.
    pub time: f64,
    /// Number of the connection, from 1.
    pub conn: u64,
    pub method: &'a str,
    pub path: &'a str,
    pub bucket: &'a str,
    pub key: &'a str,
    pub query: &'a str,
    pub range: Option<[u64; 2]>,
    /// 0 when nothing that is HTTP was sent.
    pub status: u16,
    pub code: Option<&'a str>,
    pub request_id: &'a str,
    /// Body bytes put on the socket.
    pub bytes_sent: u64,
    pub duration_ms: f64,
    pub if_match: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    /// Why the answer was not finished: `fault`, `client`, `file` or `stop`.
    pub cut: Option<&'a str>,
}

/// The log file; each line is one write to a file opened for appending.
pub(crate) struct RequestLog(Mutex<File>);

impl RequestLog {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Mutex::new(OpenOptions::new().create(true).append(true).open(path)?)))
    }

    /// Appends; a full disk is reported on stderr, the endpoint goes on.
    pub(crate) fn write(&self, line: &Line<'_>) {
        let mut text = match serde_json::to_vec(line) {
            Ok(text) => text,
            Err(e) => return eprintln!("oss-endpoint: log line of {}: {e}", line.request_id),
        };
        text.push(b'\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = file.write_all(&text) {
            eprintln!("oss-endpoint: writing the request log: {e}");
        }
    }
}
