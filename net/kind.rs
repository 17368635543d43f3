//! The table of failures: what an OSS code or HTTP status means, which errno programs see, whether
//! the request is tried again, who has to act and how. The only place that decides any of this.
//! Read by the errors, the retries and the engine, and printed as docs/ERRORS.md. Never branches
//! on EC, which may change without notice.

use libc::{EACCES, EIO, ENOENT, ENOMEM, ESTALE};

/// What kind of failure it is; a row of [`KINDS`] each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// This machine: sockets, threads, rings, disks.
    Local,
    /// This machine has no port, buffer or descriptor for one more connection now, or forbids it.
    Shortage,
    /// This machine has no memory for it.
    Memory,
    /// A setting that cannot work (no address, bad range, redirect to another endpoint).
    Config,
    /// The name could not be resolved.
    Resolve,
    /// Refused, unreachable, reset or closed by the peer or the network.
    Network,
    /// TLS was refused by one side: certificate not trusted, another name, no common version.
    Tls,
    /// Nothing came in time.
    Timeout,
    /// The peer's answer breaks HTTP or does not fit what was asked.
    Protocol,
    /// Who asks: access key, signature, token.
    Auth,
    /// What the asker may do.
    Permission,
    /// The clock of this machine is too far from the server's.
    Clock,
    /// 429, or a 503 of any code: ask less, later.
    Throttled,
    /// No such bucket or object.
    NotFound,
    /// The object is not the version that was listed (412, or another ETag).
    Changed,
    /// 416: the range is not in the object.
    Range,
    /// The object is in an archive class and not restored.
    Archived,
    /// The bytes do not have the check value that OSS reports.
    Corrupt,
    /// Another 5xx.
    Server,
    /// Another 4xx.
    Rejected,
    /// Given up because the engine stops.
    Cancelled,
}

/// Who has to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// This machine.
    Local,
    /// The configuration or the credentials.
    Config,
    /// The network or the server, and it may pass.
    Peer,
    /// The data in the bucket: gone, changed or archived.
    Data,
}

impl Blame {
    /// The word used in the manual.
    pub fn name(self) -> &'static str {
        match self {
            Blame::Local => "this machine",
            Blame::Config => "configuration",
            Blame::Peer => "network or OSS",
            Blame::Data => "the data",
        }
    }
}

/// Whether a request that failed so is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// No: the user has to act first.
    No,
    /// Once, on another connection: what refuses one request of many may be a stray node. A second refusal is one.
    Once,
    /// A few times, on other connections and behind a look at the listing: one answer of many may be a stray one.
    Doubted,
    /// As long as the outage budget lasts: the same request can succeed later by itself.
    Yes,
}

/// What follows from a kind.
#[derive(Debug)]
pub struct KindRow {
    /// Which.
    pub kind: FailureKind,
    /// The word used in the manual.
    pub name: &'static str,
    /// What has happened.
    pub means: &'static str,
    /// What programs see when it stays.
    pub errno: i32,
    /// Whether the request is made again.
    pub again: Again,
    /// Who has to do something.
    pub blame: Blame,
    /// What the user can do.
    pub advice: &'static str,
}

/// An OSS code that says more than its status.
#[derive(Debug)]
pub struct CodeRow {
    /// As in `<Code>`.
    pub code: &'static str,
    /// Its kind, whatever the status.
    pub kind: FailureKind,
    /// What the user can do; empty for that of the kind.
    pub advice: &'static str,
}

/// What a status without a known code means.
#[derive(Debug)]
pub struct StatusRow {
    /// Least status.
    pub first: u16,
    /// Greatest status.
    pub last: u16,
    /// Its kind.
    pub kind: FailureKind,
}

/// A folder that cannot be listed cannot be opened: this is what programs see, whatever the cause.
pub const UNLISTED_ERRNO: i32 = EIO;

type Row = (FailureKind, &'static str, &'static str, i32, Again, Blame, &'static str);

const fn row((kind, name, means, errno, again, blame, advice): Row) -> KindRow {
    KindRow { kind, name, means, errno, again, blame, advice }
}

/// In the order of [`FailureKind`].
pub static KINDS: &[KindRow] = &[
    row((
        FailureKind::Local,
        "local",
        "this machine refused a socket, thread, ring or file",
        EIO,
        Again::No,
        Blame::Local,
        "check limits of this machine (ulimit -n for open files, memory, threads, disk space)",
    )),
    row((
        FailureKind::Shortage,
        "shortage",
        "this machine has no free port, buffer or descriptor for a connection, or its firewall forbids it; other \
         connections go on",
        EIO,
        Again::Yes,
        Blame::Local,
        "check this machine: free ports (net.ipv4.ip_local_port_range), open files (ulimit -n), memory for sockets, firewall rules; or lower prefetch.vcpus × prefetch.workers",
    )),
    row((
        FailureKind::Memory,
        "memory",
        "there is no memory for the bytes",
        ENOMEM,
        Again::No,
        Blame::Local,
        "raise memoryLimit or the memory cgroup, or close other models",
    )),
    row((
        FailureKind::Config,
        "config",
        "a setting cannot work: no address, or the bucket is in another region (redirect)",
        EIO,
        Again::Doubted,
        Blame::Config,
        "check OSS_ENDPOINT, OSS_PATH and OSS_REGION",
    )),
    row((
        FailureKind::Resolve,
        "names",
        "the host name has no address",
        EIO,
        Again::Yes,
        Blame::Config,
        "check OSS_ENDPOINT and DNS",
    )),
    row((
        FailureKind::Network,
        "network",
        "refused, unreachable, reset or closed",
        EIO,
        Again::Yes,
        Blame::Peer,
        "check that the endpoint is reachable from here (internal or public endpoint, proxy, security group)",
    )),
    row((
        FailureKind::Tls,
        "TLS",
        "certificate not trusted, another name, or no common version",
        EIO,
        Again::No,
        Blame::Config,
        "check OSS_ENDPOINT, this machine's clock and the server's certificate (tls.caFile for a CA of your own)",
    )),
    row((
        FailureKind::Timeout,
        "timeout",
        "nothing came in time",
        EIO,
        Again::Yes,
        Blame::Peer,
        "check the network to the endpoint",
    )),
    row((
        FailureKind::Protocol,
        "protocol",
        "an answer breaks HTTP, or is not what was asked for: another range or length, encoded, too long",
        EIO,
        Again::Yes,
        Blame::Peer,
        "check for a proxy between here and OSS that alters answers",
    )),
    row((
        FailureKind::Auth,
        "auth",
        "OSS does not accept the access key, the signature or the token",
        EACCES,
        Again::Once,
        Blame::Config,
        "check the access key, its secret and token, and OSS_REGION",
    )),
    row((
        FailureKind::Permission,
        "permission",
        "the access key may not do this",
        EACCES,
        Again::Once,
        Blame::Config,
        "grant oss:ListObjects and oss:GetObject on OSS_PATH to the access key; anonymous access needs a bucket policy",
    )),
    row((
        FailureKind::Clock,
        "clock",
        "this machine's clock is too far from the server's; the next request is signed with the server's time",
        EIO,
        Again::Yes,
        Blame::Local,
        "set the clock of this machine (NTP)",
    )),
    row((
        FailureKind::Throttled,
        "throttled",
        "a limit on requests, connections or bandwidth; the engine asks less at a time",
        EIO,
        Again::Yes,
        Blame::Peer,
        "lower prefetch.vcpus × prefetch.workers or ask for a higher quota of the bucket",
    )),
    row((
        FailureKind::NotFound,
        "not found",
        "there is no such bucket or object",
        ENOENT,
        Again::Doubted,
        Blame::Data,
        "check OSS_PATH; the object may have been deleted",
    )),
    row((
        FailureKind::Changed,
        "changed",
        "the object is another version than the one that was listed",
        ESTALE,
        Again::Doubted,
        Blame::Data,
        "the object was overwritten while it was read; open it again",
    )),
    row((
        FailureKind::Range,
        "range",
        "the object ends before the asked bytes",
        ESTALE,
        Again::Doubted,
        Blame::Data,
        "the object is shorter than listed; open it again",
    )),
    row((
        FailureKind::Archived,
        "archived",
        "the object is in an archive class and not restored",
        EACCES,
        Again::No,
        Blame::Data,
        "restore the object, copy it to the Standard or IA class, or turn on real-time access of Archive objects",
    )),
    row((
        FailureKind::Corrupt,
        "corrupt",
        "the bytes do not have the CRC-64 that OSS reports, also when fetched again",
        EIO,
        Again::No,
        Blame::Data,
        "check the object in the bucket, and for a proxy that alters answers",
    )),
    row((
        FailureKind::Server,
        "server",
        "OSS had a fault",
        EIO,
        Again::Yes,
        Blame::Peer,
        "OSS had a fault; give the request id to support if it lasts",
    )),
    row((
        FailureKind::Rejected,
        "rejected",
        "OSS refuses the request itself",
        EIO,
        Again::Doubted,
        Blame::Config,
        "OSS refused the request; look the code up with the request id",
    )),
    row((
        FailureKind::Cancelled,
        "cancelled",
        "the engine stops",
        EIO,
        Again::No,
        Blame::Local,
        "nothing: the engine stops",
    )),
];

const fn code(code: &'static str, kind: FailureKind, advice: &'static str) -> CodeRow {
    CodeRow { code, kind, advice }
}

/// Codes of the OSS error documentation that a reader of objects can meet.
pub static CODES: &[CodeRow] = &[
    code("AccessDenied", FailureKind::Permission, ""),
    code("InDebt", FailureKind::Permission, "the account is in arrears: pay its bill"),
    code("UserDisable", FailureKind::Permission, "the account is disabled: ask Alibaba Cloud"),
    code("BucketDisable", FailureKind::Permission, "the bucket is disabled: ask Alibaba Cloud"),
    code(
        "InvalidAccessKeyId",
        FailureKind::Auth,
        "check OSS_ACCESS_KEY_ID: OSS does not know it, or it is disabled; a temporary one (STS.) needs OSS_SESSION_TOKEN",
    ),
    code("SignatureDoesNotMatch", FailureKind::Auth, "check OSS_ACCESS_KEY_SECRET and OSS_REGION"),
    code("InvalidSecurityToken", FailureKind::Auth, "check OSS_SESSION_TOKEN: it is not valid, or has expired"),
    code("SecurityTokenExpired", FailureKind::Auth, "get new temporary credentials: the token has expired"),
    code(
        "AccessKeyIdAndSecurityTokenNotMatch",
        FailureKind::Auth,
        "OSS_ACCESS_KEY_ID and OSS_SESSION_TOKEN do not belong together",
    ),
    code("RequestTimeTooSkewed", FailureKind::Clock, ""),
    code("InvalidObjectState", FailureKind::Archived, ""),
    code("NoSuchBucket", FailureKind::NotFound, "check the bucket in OSS_PATH, and that OSS_ENDPOINT is of its region"),
    code("NoSuchKey", FailureKind::NotFound, ""),
    code(
        "SymlinkTargetNotExist",
        FailureKind::NotFound,
        "the object is a symbolic link to an object that is gone: put its target back",
    ),
    code("NotModified", FailureKind::Changed, ""),
    code("PreconditionFailed", FailureKind::Changed, ""),
    code("InvalidRange", FailureKind::Range, ""),
    code("InvalidBucketName", FailureKind::Rejected, "check the bucket in OSS_PATH"),
    code("InvalidObjectName", FailureKind::Rejected, "check OSS_PATH"),
    code("InvalidArgument", FailureKind::Rejected, ""),
    // The official SDKs try it again.
    code("BadRequest", FailureKind::Server, ""),
    code("RequestTimeout", FailureKind::Timeout, ""),
    code("InternalError", FailureKind::Server, ""),
    code("DownloadTrafficRateLimitExceeded", FailureKind::Throttled, "ask for more bandwidth of the account or bucket"),
    code("TotalQpsLimitExceeded", FailureKind::Throttled, "ask for more requests per second of the account"),
    code("QpsLimitExceeded", FailureKind::Throttled, "ask for more requests per second of the account"),
    code("MetaOperationQpsLimitExceeded", FailureKind::Throttled, "ask for more requests per second of the account"),
    code("ActiveRequestLimitExceeded", FailureKind::Throttled, "lower prefetch.vcpus × prefetch.workers"),
    code("ServiceUnavailable", FailureKind::Throttled, ""),
    code("CpuLimitExceeded", FailureKind::Throttled, ""),
];

const fn status(first: u16, last: u16, kind: FailureKind) -> StatusRow {
    StatusRow { first, last, kind }
}

/// The first row that holds a status counts.
pub static STATUSES: &[StatusRow] = &[
    status(304, 304, FailureKind::Changed),
    // Redirects are not followed: a signature is for one host.
    status(300, 399, FailureKind::Config),
    status(401, 401, FailureKind::Auth),
    status(403, 403, FailureKind::Permission),
    status(404, 404, FailureKind::NotFound),
    status(408, 408, FailureKind::Timeout),
    status(412, 412, FailureKind::Changed),
    status(416, 416, FailureKind::Range),
    status(429, 429, FailureKind::Throttled),
    status(400, 499, FailureKind::Rejected),
    status(503, 503, FailureKind::Throttled),
    status(500, 599, FailureKind::Server),
];

impl FailureKind {
    /// What follows from it.
    pub fn row(self) -> &'static KindRow {
        // The order is that of the variants; a test holds it.
        &KINDS[self as usize]
    }

    /// What programs see.
    pub fn errno(self) -> i32 {
        self.row().errno
    }

    /// Whether the same request can succeed later without anybody doing something.
    pub fn retried(self) -> bool {
        self.row().again == Again::Yes
    }

    /// What an answer's status and `<Code>` stand for.
    pub fn of(status: u16, code: Option<&str>) -> FailureKind {
        let by_status = || STATUSES.iter().find(|row| (row.first..=row.last).contains(&status)).map(|row| row.kind);
        code.and_then(code_row).map(|row| row.kind).or_else(by_status).unwrap_or(FailureKind::Protocol)
    }
}

/// The row of a code, if it has one.
pub fn code_row(code: &str) -> Option<&'static CodeRow> {
    CODES.iter().find(|row| row.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_the_kinds_and_say_something() {
        for (index, row) in KINDS.iter().enumerate() {
            assert_eq!(row.kind as usize, index, "{}", row.name);
            assert!(!row.advice.is_empty() && !row.means.is_empty(), "{}", row.name);
        }
        assert_eq!(FailureKind::Cancelled as usize + 1, KINDS.len(), "a kind has no row");
        for (index, row) in CODES.iter().enumerate() {
            assert!(CODES[..index].iter().all(|other| other.code != row.code), "{} twice", row.code);
        }
    }

    #[test]
    fn codes_win_over_statuses() {
        let cases = [
            (403, Some("AccessDenied"), FailureKind::Permission, false),
            (403, Some("SignatureDoesNotMatch"), FailureKind::Auth, false),
            (403, Some("RequestTimeTooSkewed"), FailureKind::Clock, true),
            (403, Some("InvalidObjectState"), FailureKind::Archived, false),
            (403, None, FailureKind::Permission, false),
            (401, None, FailureKind::Auth, false),
            (404, Some("NoSuchKey"), FailureKind::NotFound, false),
            (408, Some("RequestTimeout"), FailureKind::Timeout, true),
            (412, None, FailureKind::Changed, false),
            (304, None, FailureKind::Changed, false),
            (416, None, FailureKind::Range, false),
            (429, None, FailureKind::Throttled, true),
            (503, Some("DownloadTrafficRateLimitExceeded"), FailureKind::Throttled, true),
            (503, Some("NeverHeardOf"), FailureKind::Throttled, true),
            (500, None, FailureKind::Server, true),
            (502, None, FailureKind::Server, true),
            (400, Some("BadRequest"), FailureKind::Server, true),
            (301, None, FailureKind::Config, false),
            (307, Some("TemporaryRedirect"), FailureKind::Config, false),
            (400, Some("InvalidArgument"), FailureKind::Rejected, false),
            (418, Some("BadErrorResponse"), FailureKind::Rejected, false),
            (199, None, FailureKind::Protocol, true),
        ];
        for (status, code, kind, retried) in cases {
            assert_eq!((FailureKind::of(status, code), kind.retried()), (kind, retried), "{status} {code:?}");
        }
    }
}
