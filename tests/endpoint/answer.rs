//! An answer before it goes on the wire. Made by `list`, `object` and from errors; changed by
//! faults; sent by `conn`. Never touches a socket.

use crate::clock;
use crate::error::OssError;
use base64::Engine as _;
use std::fs::File;
use std::ops::Range;

/// Where the body's bytes come from.
pub(crate) enum Body {
    Bytes(Vec<u8>),
    File { file: File, span: Range<u64> },
}

impl Body {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { span, .. } => span.end - span.start,
        }
    }
}

/// Status, headers of its own, and body. The general headers come with `head`.
pub(crate) struct Answer {
    pub status: u16,
    /// OSS code, if this is an error.
    pub code: Option<String>,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
    /// Send the head alone (HEAD, 304); Content-Length still tells the body's size.
    pub head_only: bool,
    /// Served bytes of the object, for the log.
    pub range: Option<Range<u64>>,
}

/// What every head carries whatever the answer.
pub(crate) struct Frame<'a> {
    /// For Date.
    pub now_sec: i64,
    pub request_id: &'a str,
    pub server_time_ms: u128,
    pub keep_alive: bool,
}

impl Answer {
    pub(crate) fn new(status: u16, body: Body) -> Self {
        Self { status, code: None, headers: Vec::new(), body, head_only: false, range: None }
    }

    /// The XML document of an error; for HEAD it goes into `x-oss-err` as base64.
    pub(crate) fn error(error: &OssError, request_id: &str, host: &str, head_only: bool) -> Self {
        let xml = error.document(request_id, host);
        let mut answer = if head_only {
            let mut answer = Self::new(error.status, Body::Bytes(Vec::new()));
            let coded = base64::engine::general_purpose::STANDARD.encode(&xml);
            answer.headers.push(("x-oss-err", coded));
            answer
        } else {
            Self::new(error.status, Body::Bytes(xml.into_bytes()))
        };
        answer.headers.push(("Content-Type", "application/xml".into()));
        answer.headers.push(("x-oss-ec", error.ec.into()));
        answer.head_only = head_only;
        answer.code = Some(error.code.clone());
        answer
    }

    /// Replaces a header; without a value removes it.
    pub(crate) fn set(&mut self, name: &'static str, value: Option<String>) {
        self.headers.retain(|(n, _)| *n != name);
        self.headers.extend(value.map(|v| (name, v)));
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str())
    }

    /// The head's bytes. 304 has no Content-Length.
    pub(crate) fn head(&self, frame: &Frame<'_>) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\nServer: AliyunOSS\r\n", self.status, reason(self.status));
        head += &format!("Date: {}\r\n", clock::http_date(frame.now_sec));
        if self.status != 304 {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        head += if frame.keep_alive { "Connection: keep-alive\r\n" } else { "Connection: close\r\n" };
        head += &format!("x-oss-request-id: {}\r\n", frame.request_id);
        head += &format!("x-oss-server-time: {}\r\n", frame.server_time_ms);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        head.into_bytes()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        412 => "Precondition Failed",
        416 => "Requested Range Not Satisfiable",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
