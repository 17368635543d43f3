//! Audit lines: who got which bytes of which object, from the origin or from the cache. One JSON object a
//! line: time, pid, command, object, etag, range, bytes, status, request_id, source, crc.
//!
//! Called by the engine after each answer of the origin, for each verdict on a whole object, and for each first
//! open by a client. No secrets.

use crate::journal::Journal;
use crate::journal::line::{time, without_controls};
use ossc_net::Response;
use serde_json::{Value, json};
use std::ops::Range;
use std::time::SystemTime;

/// Writes audit lines.
#[derive(Clone)]
pub struct Audit {
    /// `None` where nobody reads them: no line is made.
    journal: Option<Journal>,
    bucket: String,
}

/// One answer of the origin.
pub struct Fetched<'a> {
    /// Whole key.
    pub key: &'a str,
    /// ETag as listed.
    pub etag: &'a str,
    /// The asked bytes; `None` for a listing or a whole object.
    pub range: Option<Range<u64>>,
    /// Body bytes received.
    pub bytes: u64,
    /// HTTP status, 0 when there was no answer.
    pub status: u16,
    /// x-oss-request-id.
    pub request_id: &'a str,
    /// CRC-64/XZ of the bytes, if computed.
    pub crc: Option<u64>,
}

impl Audit {
    /// Lines about objects of `bucket`.
    pub fn new(journal: Option<Journal>, bucket: &str) -> Audit {
        Audit { journal, bucket: bucket.to_string() }
    }

    /// The origin has answered with `range` of an object (its whole key, and its ETag as listed).
    pub fn answer(&self, (key, etag): (&str, &str), range: Range<u64>, response: &Response) {
        self.origin(&Fetched {
            key,
            etag,
            range: Some(range),
            bytes: response.bytes,
            status: response.status,
            request_id: &response.request_id,
            crc: response.crc64_body,
        });
    }

    /// Another place (`source`) has brought `range` of an object, with this CRC-64/XZ.
    pub fn supplied(&self, (key, etag): (&str, &str), range: Range<u64>, (source, crc64): (&str, u64)) {
        self.write(|| {
            json!({
                "time": now(),
                "pid": std::process::id(),
                "command": "ossc engine",
                "object": self.object(key),
                "etag": etag,
                "range": [range.start, range.end],
                "bytes": range.end - range.start,
                "source": source,
                "crc": crc64.to_string(),
            })
        });
    }

    /// The engine got bytes from the origin, or an error.
    pub fn origin(&self, fetched: &Fetched<'_>) {
        self.write(|| {
            json!({
                "time": now(),
                "pid": std::process::id(),
                "command": "ossc engine",
                "object": self.object(fetched.key),
                "etag": fetched.etag,
                "range": fetched.range.as_ref().map(|r| [r.start, r.end]),
                "bytes": fetched.bytes,
                "status": fetched.status,
                "request_id": fetched.request_id,
                "source": "origin",
                "crc": fetched.crc.map(|crc| crc.to_string()),
            })
        });
    }

    /// An object is here as a whole; `crc` is the CRC-64/XZ that its bytes have as OSS reports it, `None` if it
    /// could not be verified. `round` counts from 1; above it says that the bytes did not match before and were fetched
    /// again.
    pub fn verdict(&self, object: (&str, &str, u64), crc: Option<u64>, round: u32) {
        self.write(|| {
            let mut line = self.line((std::process::id(), "ossc engine"), "verify", object);
            line["verified"] = json!(crc.is_some());
            line["crc"] = json!(crc.map(|crc| crc.to_string()));
            if round > 1 {
                line["try"] = json!(round);
            }
            line
        });
    }

    /// A client process was given bytes of an object that turned out not to be its: in which try, and how many parts
    /// all readers together were given.
    pub fn misread(&self, pid: u32, command: &str, object: (&str, &str, u64), (round, parts): (u32, u32)) {
        self.write(|| {
            let mut line = self.line((pid, command), "misread", object);
            line["try"] = json!(round);
            line["parts"] = json!(parts);
            line
        });
    }

    /// A client process opened (`open`), mapped (`map`) or took as a FILE (`file`) an object in the cache.
    pub fn cache(&self, pid: u32, act: &str, object: (&str, &str, u64)) {
        self.write(|| self.line((pid, &command(pid)), act, object));
    }

    /// What a process did with an object (key, ETag, size) that is in the cache.
    fn line(&self, (pid, command): (u32, &str), act: &str, (key, etag, size): (&str, &str, u64)) -> Value {
        json!({
            "time": now(),
            "pid": pid,
            "command": command,
            "object": self.object(key),
            "etag": etag,
            "range": [0, size],
            "bytes": Value::Null,
            "status": Value::Null,
            "request_id": Value::Null,
            "source": "cache",
            "act": act,
        })
    }

    fn object(&self, key: &str) -> String {
        format!("oss://{}/{key}", self.bucket)
    }

    fn write(&self, line: impl FnOnce() -> Value) {
        if let Some(journal) = &self.journal {
            journal.audit(without_controls(line().to_string()).into_bytes());
        }
    }
}

fn now() -> String {
    time(SystemTime::now())
}

/// Name of a process, without its arguments (they may hold secrets of its own).
pub(crate) fn command(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .map_or_else(|_| String::new(), |name| name.trim_end().to_string())
}
