//! Audit lines: who got which bytes of which object, from the origin or from the cache. One JSON object a
//! line: time, pid, command, object, etag, range, bytes, status, request_id, source, crc.
//!
//! Called by the engine after each answer of the origin, for each verdict on a whole object, and for each first
//! open by a client. No secrets.

use crate::journal::Journal;
use crate::journal::line::{time, without_controls};
use ossc_net::Finished;
use ossc_net::error::FailureKind;
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

impl Audit {
    /// Lines about objects of `bucket`.
    pub fn new(journal: Option<Journal>, bucket: &str) -> Audit {
        Audit { journal, bucket: bucket.to_string() }
    }

    /// A request for an object (its whole key, and its ETag as listed) has ended.
    pub fn ended(&self, object: (&str, &str), done: &Finished) {
        if self.journal.is_some()
            && let Some(line) = self.answer(object, done)
        {
            self.write(|| line);
        }
    }

    /// What OSS answered, also where the answer failed, was cut, or is not wanted any more: each byte that has come is in
    /// one line. A request that was cancelled before its first byte has none.
    fn answer(&self, (key, etag): (&str, &str), done: &Finished) -> Option<Value> {
        let (error, came) = (done.result.as_ref().err(), done.result.as_ref().ok().or(done.partial.as_ref()));
        if came.is_none() && error.is_some_and(|error| error.kind == FailureKind::Cancelled) {
            return None;
        }
        let is_asked = done.range.is_some() || came.is_some_and(|response| response.bytes > 0);
        let status = came.map(|response| response.status).or_else(|| error?.status);
        let request_id = came.map(|response| response.request_id.as_str()).or_else(|| error?.request_id.as_deref());
        Some(json!({
            "time": now(),
            "pid": std::process::id(),
            "command": "ossc engine",
            "object": self.object(key),
            "etag": etag,
            "range": done.range.as_ref().map(|range| [range.start, range.end]),
            "bytes": is_asked.then(|| came.map_or(0, |response| response.bytes)),
            "status": status.unwrap_or(0),
            "request_id": request_id.unwrap_or_default(),
            "source": "origin",
            "crc": came.and_then(|response| response.crc64_body).map(|crc| crc.to_string()),
        }))
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

#[cfg(test)]
mod tests {
    use super::*;
    use ossc_net::error::Phase;
    use ossc_net::retry::Hint;
    use ossc_net::{Error, Response};
    use std::time::Duration;

    /// What came of a request for bytes 10 to 20, and the line of it: status, bytes, request id.
    fn line(result: Result<Response, Error>, partial: Option<Response>) -> Option<(u64, u64, String)> {
        let (retry_hint, elapsed) = (Hint::No, Duration::ZERO);
        let done = Finished {
            token: 0,
            range: Some(10..20),
            result,
            body: Vec::new(),
            partial,
            retry_hint,
            elapsed,
            worker: 0,
        };
        let line = Audit::new(None, "b").answer(("k", "e"), &done)?;
        assert_eq!((&line["object"], &line["range"]), (&json!("oss://b/k"), &json!([10, 20])));
        let number = |name: &str| line[name].as_u64().unwrap();
        Some((number("status"), number("bytes"), line["request_id"].as_str()?.to_string()))
    }

    #[test]
    fn each_byte_that_came_is_in_one_line() {
        let answer = |bytes| Response { status: 206, bytes, request_id: "R".into(), ..Response::default() };
        let error = |kind, status| Error { status, ..Error::new(kind, Phase::Body, "x") };
        assert_eq!(line(Ok(answer(10)), None), Some((206, 10, "R".into())));
        let cut = Err(error(FailureKind::Network, None));
        assert_eq!(line(cut, Some(answer(7))), Some((206, 7, "R".into())));
        // Another request was faster.
        let unwanted = || Err(error(FailureKind::Cancelled, None));
        assert_eq!(line(unwanted(), Some(answer(3))), Some((206, 3, "R".into())));
        assert_eq!(line(unwanted(), None), None);
        assert_eq!(line(Err(error(FailureKind::Throttled, Some(503))), None), Some((503, 0, String::new())));
        assert_eq!(line(Err(error(FailureKind::Network, None)), None), Some((0, 0, String::new())));
    }
}
