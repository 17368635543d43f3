//! What can go wrong with one request, said so that the reader of the log can act: what was tried,
//! on which object and range, in which phase, what OSS answered, and what to do about it.
//! Built by the connection and its owners, read by the engine. Never holds a secret: request
//! headers are not recorded here.

use std::fmt;
use std::ops::Range;

use quick_xml::events::Event;

use crate::kind;
pub use crate::kind::{Again, Blame, FailureKind};

/// Longest part of a server's text that is kept (bytes).
const TEXT_BYTES_MAX: usize = 512;

/// How far the request had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Before anything was sent: threads, rings, sockets.
    Start,
    /// Resolving the host name.
    Dns,
    /// TCP connect.
    Connect,
    /// TLS handshake.
    Tls,
    /// Building and signing the request.
    Sign,
    /// Sending the request.
    Send,
    /// Waiting for and reading the response head.
    Head,
    /// Judging the status line and headers.
    Status,
    /// Reading the body.
    Body,
    /// Checking the CRC-64.
    Crc,
    /// Reading a listing document.
    List,
}

impl Phase {
    /// The word used in messages.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Start => "start",
            Phase::Dns => "DNS",
            Phase::Connect => "connect",
            Phase::Tls => "TLS",
            Phase::Sign => "sign",
            Phase::Send => "send",
            Phase::Head => "head",
            Phase::Status => "status",
            Phase::Body => "body",
            Phase::Crc => "CRC",
            Phase::List => "list",
        }
    }
}

/// One failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Decides blame and retry.
    pub kind: FailureKind,
    /// How far it had come.
    pub phase: Phase,
    /// What was tried and what happened.
    pub message: Box<str>,
    /// The key, or `list PREFIX` for a listing; empty if no object is concerned.
    pub object: Box<str>,
    /// The asked range, half-open, in bytes of the object.
    pub range: Option<Range<u64>>,
    /// HTTP status, once known.
    pub status: Option<u16>,
    /// OSS `<Code>`.
    pub oss_code: Option<Box<str>>,
    /// `x-oss-request-id`: what Alibaba's support asks for.
    pub request_id: Option<Box<str>>,
    /// `x-oss-ec` or `<EC>`: for people only, never branched on.
    pub ec: Option<Box<str>>,
}

impl Error {
    /// A failure that concerns no object yet.
    pub fn new(kind: FailureKind, phase: Phase, message: impl Into<Box<str>>) -> Error {
        Error {
            kind,
            phase,
            message: message.into(),
            object: "".into(),
            range: None,
            status: None,
            oss_code: None,
            request_id: None,
            ec: None,
        }
    }

    /// Adds what was asked for.
    pub(crate) fn on(mut self, object: &str, range: Option<Range<u64>>) -> Error {
        self.object = object.into();
        self.range = range;
        self
    }

    /// A system error in `phase`; the errno decides between network and local.
    pub(crate) fn from_os(phase: Phase, tried: &str, os: &std::io::Error) -> Error {
        use std::io::ErrorKind as K;
        let kind = match os.kind() {
            _ if phase == Phase::Connect && is_shortage(os) => FailureKind::Shortage,
            _ if os.raw_os_error() == Some(libc::EHOSTDOWN) => FailureKind::Network,
            K::TimedOut => FailureKind::Timeout,
            K::ConnectionRefused
            | K::ConnectionReset
            | K::ConnectionAborted
            | K::NotConnected
            | K::BrokenPipe
            | K::HostUnreachable
            | K::NetworkUnreachable
            | K::NetworkDown => FailureKind::Network,
            _ => FailureKind::Local,
        };
        Error::new(kind, phase, format!("{tried}: {os}"))
    }

    /// Whether the same request can succeed later without anybody doing something.
    pub fn retryable(&self) -> bool {
        self.kind.retried()
    }

    /// Whether it was an answer that may be a stray one: a node that is behind, or a proxy, gave it, and another
    /// connection may bring what was asked for.
    pub fn is_doubtful(&self) -> bool {
        // A link whose target is gone has been found: that is no stray answer.
        let is_link = self.oss_code.as_deref() == Some("SymlinkTargetNotExist");
        self.status.is_some() && !is_link && matches!(self.kind.row().again, Again::Doubted | Again::Once)
    }

    /// Whether a doubtful answer is believed when it comes a second time, without a look at the listing: that says
    /// nothing of who may read.
    pub fn is_believed_twice(&self) -> bool {
        self.kind.row().again == Again::Once
    }

    /// Whether the same request can succeed with other credentials of the same source: those that
    /// were used have ended, or are unknown by now. Codes as in the OSS error documentation.
    pub fn wants_other_credentials(&self) -> bool {
        let code = self.oss_code.as_deref().unwrap_or_default();
        let named = matches!(
            code,
            "SecurityTokenExpired"
                | "InvalidSecurityToken"
                | "InvalidAccessKeyId"
                | "AccessKeyIdAndSecurityTokenNotMatch"
        );
        self.status == Some(401) || (self.status == Some(403) && named)
    }

    /// Who has to do something.
    pub fn blame(&self) -> Blame {
        self.kind.row().blame
    }

    /// What the user can do.
    pub fn advice(&self) -> &'static str {
        // What OSS says of the state of an object tells nothing of a listing.
        let is_listing = self.object.starts_with("list ");
        if is_listing && matches!(self.kind, FailureKind::Changed | FailureKind::Range) {
            return "no listing has such an answer: check for a proxy between here and OSS that alters requests";
        }
        let of_code = self.oss_code.as_deref().and_then(kind::code_row).filter(|row| row.kind == self.kind);
        of_code.map(|row| row.advice).filter(|advice| !advice.is_empty()).unwrap_or(self.kind.row().advice)
    }

    /// The error that an HTTP status stands for, with what its document says.
    pub(crate) fn from_status(status: u16, fault: Fault) -> Error {
        let kind = if fault.is_of_another_region() {
            FailureKind::Config
        } else {
            FailureKind::of(status, fault.code.as_deref())
        };
        let mut message = match (fault.message, kind) {
            (Some(text), _) => text,
            (None, FailureKind::Config) => {
                "OSS redirects to another endpoint, which is not followed (the bucket is in another region)".into()
            }
            (None, _) => "OSS refused the request and gave no reason".into(),
        };
        if let Some(endpoint) = fault.endpoint {
            message = format!("{message} (the bucket's endpoint: {endpoint})").into();
        }
        let mut error = Error::new(kind, Phase::Status, message);
        error.status = Some(status);
        error.oss_code = fault.code;
        error.request_id = fault.request_id;
        error.ec = fault.ec;
        error
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.object.is_empty() {
            write!(f, "{}: ", shown(&self.object))?;
        }
        if let Some(range) = &self.range {
            write!(f, "bytes {}..{}: ", range.start, range.end)?;
        }
        write!(f, "{} phase: {}", self.phase.name(), self.message)?;
        let mut open = " (";
        let status = self.status.map(|status| status.to_string());
        let details = [
            ("status", status.as_deref()),
            ("code", self.oss_code.as_deref()),
            ("request id", self.request_id.as_deref()),
            ("EC", self.ec.as_deref()),
        ];
        for (name, value) in details.into_iter().filter_map(|(n, v)| v.map(|v| (n, v))) {
            write!(f, "{open}{name} {value}")?;
            open = ", ";
        }
        if open != " (" {
            f.write_str(")")?;
        }
        write!(f, "; {}", self.advice())
    }
}

impl std::error::Error for Error {}

/// What passes by itself while other connections go on: no free source port, no buffers, no descriptors; or a rule of this
/// machine's own that refuses connections, which the network looks like that is set up late.
pub(crate) fn is_shortage(os: &std::io::Error) -> bool {
    matches!(
        os.raw_os_error(),
        Some(
            libc::EADDRNOTAVAIL
                | libc::EADDRINUSE
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::EMFILE
                | libc::ENFILE
                | libc::EACCES
                | libc::EPERM
        )
    )
}

/// What an error document of OSS says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fault {
    pub code: Option<Box<str>>,
    pub message: Option<Box<str>>,
    pub request_id: Option<Box<str>>,
    pub ec: Option<Box<str>>,
    /// Where the bucket is, when the request went elsewhere.
    pub endpoint: Option<Box<str>>,
}

impl Fault {
    /// A bucket of another region answers 403 AccessDenied; only the text tells it from a missing
    /// permission. An unknown text costs no more than that the advice is about permissions.
    fn is_of_another_region(&self) -> bool {
        self.message.as_deref().is_some_and(|text| text.contains("must be addressed using the specified endpoint"))
    }

    /// Reads `<Error>` by local names. What cannot be read is left out: the status still counts.
    pub fn from_xml(document: &[u8]) -> Fault {
        let mut fault = Fault::default();
        let text = String::from_utf8_lossy(document);
        let mut reader = quick_xml::Reader::from_str(&text);
        let (mut depth, mut name, mut value) = (0_usize, String::new(), String::new());
        loop {
            match reader.read_event() {
                Ok(Event::Start(tag)) => {
                    depth += 1;
                    name.clear();
                    name.push_str(tag.local_name().as_ref());
                    value.clear();
                }
                Ok(Event::End(_)) => {
                    if depth == 2 {
                        fault.set(&name, &value);
                    }
                    name.clear();
                    depth = depth.saturating_sub(1);
                }
                Ok(Event::Eof) | Err(_) => return fault,
                Ok(event) => crate::xml::push_text(&event, &mut value),
            }
        }
    }

    /// The header `x-oss-err` of a HEAD answer: the same document in base64.
    pub fn from_header(value: &[u8]) -> Fault {
        use base64::Engine as _;
        match base64::engine::general_purpose::STANDARD.decode(value) {
            Ok(document) => Fault::from_xml(&document),
            Err(_) => Fault::default(),
        }
    }

    /// The first word counts, so that a document cut short never says something else.
    fn set(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        let place = match name {
            "Code" => &mut self.code,
            "Message" => &mut self.message,
            "RequestId" => &mut self.request_id,
            "EC" => &mut self.ec,
            "Endpoint" => &mut self.endpoint,
            _ => return,
        };
        place.get_or_insert_with(|| printable(value).into());
    }
}

/// A server's text, bounded and without control characters, so that it cannot forge log lines.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() >= TEXT_BYTES_MAX {
            break;
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}

/// A key or name for a line of text: control characters, which a key may hold, are escaped.
pub fn shown(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Error xmlns="http://doc.oss-cn-hangzhou.aliyuncs.com"><Code>AccessDenied</Code><Message>You have no right &amp; no luck &#33;</Message>
<RequestId>57ABD896CCB80C366955</RequestId><HostId>x.oss-cn-hangzhou.aliyuncs.com</HostId><EC>0003-00000001</EC></Error>"#;

    #[test]
    fn reads_the_error_document() {
        let fault = Fault::from_xml(DOCUMENT.as_bytes());
        assert_eq!(fault.code.as_deref(), Some("AccessDenied"));
        assert_eq!(fault.message.as_deref(), Some("You have no right & no luck !"));
        assert_eq!(fault.request_id.as_deref(), Some("57ABD896CCB80C366955"));
        assert_eq!(fault.ec.as_deref(), Some("0003-00000001"));
    }

    #[test]
    fn reads_the_error_header_of_a_head_answer() {
        use base64::Engine as _;
        let coded = base64::engine::general_purpose::STANDARD.encode(DOCUMENT);
        assert_eq!(Fault::from_header(coded.as_bytes()), Fault::from_xml(DOCUMENT.as_bytes()));
        assert_eq!(Fault::from_header(b"!!"), Fault::default());
    }

    #[test]
    fn cut_or_foreign_documents_lose_only_what_is_missing() {
        let cut = &DOCUMENT.as_bytes()[..DOCUMENT.find("<HostId>").unwrap_or(0) + 4];
        assert_eq!(Fault::from_xml(cut).code.as_deref(), Some("AccessDenied"));
        assert_eq!(Fault::from_xml(b"<html><body>Bad gateway</body></html>").code, None);
        assert_eq!(Fault::from_xml(b"\xff\xfe<"), Fault::default());
        let twice = "<Error><Code>AccessDenied</Code><Code>InternalError</Code></Error>";
        assert_eq!(Fault::from_xml(twice.as_bytes()).code.as_deref(), Some("AccessDenied"));
    }

    #[test]
    fn a_bucket_of_another_region_is_a_matter_of_settings() {
        let text = "The bucket you are attempting to access must be addressed using the specified endpoint.";
        let document = format!(
            "<Error><Code>AccessDenied</Code><Message>{text}</Message><Endpoint>oss-cn-x.aliyuncs.com</Endpoint></Error>"
        );
        let error = Error::from_status(403, Fault::from_xml(document.as_bytes()));
        assert_eq!(error.kind, FailureKind::Config);
        assert!(error.message.contains("oss-cn-x.aliyuncs.com") && error.advice().contains("OSS_ENDPOINT"), "{error}");
    }

    #[test]
    fn a_listing_cannot_be_opened_again() {
        let of = |object: &str| {
            let error = Error::from_status(412, Fault { code: Some("PreconditionFailed".into()), ..Fault::default() });
            Error { object: object.into(), ..error }.advice()
        };
        assert!(of("a/b").contains("open it again") && !of("list \"a/\"").contains("open it again"));
    }

    #[test]
    fn a_code_may_have_advice_of_its_own() {
        let advice = |status, code: Option<&str>| {
            Error::from_status(status, Fault { code: code.map(Into::into), ..Fault::default() }).advice()
        };
        assert!(advice(403, Some("InDebt")).contains("arrears"));
        assert_eq!(advice(403, Some("AccessDenied")), FailureKind::Permission.row().advice);
        assert_eq!(advice(403, Some("NeverHeardOf")), FailureKind::Permission.row().advice);
    }

    #[test]
    fn other_credentials_help_where_these_have_ended() {
        let wants = |status, code: &str| {
            let fault = Fault { code: Some(code.into()), ..Fault::default() };
            Error::from_status(status, fault).wants_other_credentials()
        };
        assert!(wants(403, "SecurityTokenExpired") && wants(403, "InvalidAccessKeyId") && wants(401, "Unauthorized"));
        assert!(!wants(403, "AccessDenied") && !wants(403, "SignatureDoesNotMatch") && !wants(404, "NoSuchKey"));
    }

    #[test]
    fn display_names_everything() {
        let error = Error::from_status(403, Fault::from_xml(DOCUMENT.as_bytes())).on("a/b.bin", Some(8..16));
        let text = error.to_string();
        for part in [
            "a/b.bin",
            "bytes 8..16",
            "status",
            "403",
            "AccessDenied",
            "57ABD896CCB80C366955",
            "0003-00000001",
            "oss:GetObject",
        ] {
            assert!(text.contains(part), "{part} missing in {text}");
        }
    }

    #[test]
    fn a_shortage_of_this_machine_passes_and_says_what_to_look_at() {
        let of = |phase, errno| Error::from_os(phase, "connect", &std::io::Error::from_raw_os_error(errno));
        for errno in [
            libc::EADDRNOTAVAIL,
            libc::EADDRINUSE,
            libc::ENOBUFS,
            libc::ENOMEM,
            libc::EMFILE,
            libc::ENFILE,
            libc::EACCES,
            libc::EPERM,
        ] {
            let error = of(Phase::Connect, errno);
            assert!(error.kind == FailureKind::Shortage && error.retryable(), "{error}");
            assert!(error.blame() == Blame::Local && error.advice().contains("ip_local_port_range"), "{error}");
        }
        assert_eq!(of(Phase::Connect, libc::EHOSTDOWN).kind, FailureKind::Network);
        assert_eq!(of(Phase::Connect, libc::EAFNOSUPPORT).kind, FailureKind::Local);
        assert_eq!(of(Phase::Start, libc::EMFILE).kind, FailureKind::Local, "a ring or thread");
    }

    #[test]
    fn errors_are_small_enough_to_return_by_value() {
        assert!(size_of::<Error>() < 128, "{} bytes", size_of::<Error>());
    }

    #[test]
    fn a_key_cannot_forge_lines() {
        assert_eq!(shown("a\n2026 ERROR b\u{1b}é"), "a\\n2026 ERROR b\\u{1b}é");
        let error = Error::new(FailureKind::Server, Phase::Body, "x").on("a\nb", None);
        assert!(!error.to_string().contains('\n'), "{error}");
    }

    #[test]
    fn server_text_cannot_forge_lines() {
        assert_eq!(printable("a\nb\u{1b}c"), "a b c");
        assert_eq!(printable(&"x".repeat(4096)).len(), TEXT_BYTES_MAX);
    }
}
