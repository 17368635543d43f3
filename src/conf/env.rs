//! The environment variables: looked up once, checked together, turned into `Settings`. Called by
//! the engine and by the commands of `ossc`, with `std::env::var` or a table in a test.
//!
//! It never reads the environment itself, and no value of a secret is part of an error.

use std::path::{Path, PathBuf};

use crate::credentials::{self, Credentials};
use crate::endpoint::Endpoint;
use crate::location::Location;
use crate::reason::{self, Reason};
use crate::variable::{choice, invalid};

/// Longest path of a Unix socket: `sun_path` has 108 bytes with the final NUL (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// OSSC_IO: the driver of the connections. Unset, the engine probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoDriver {
    /// `uring`
    Uring,
    /// `epoll`
    Epoll,
}

/// OSSC_SIGNATURE: the version of signatures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signature {
    /// `v4`, what OSS wants of everybody.
    #[default]
    V4,
    /// `v1`: needs no region; OSS refuses it for new accounts and buckets.
    V1,
}

/// OSSC_PAGES: the kind of cache memory, for tests. Unset, the engine probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// `tmpfs`
    Tmpfs,
    /// `memfd`
    Memfd,
}

/// What the environment says, complete enough to start an engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the access key comes from.
    pub credentials: Credentials,
    /// OSSC_SIGNATURE
    pub signature: Signature,
    /// OSS_ENDPOINT
    pub endpoint: Endpoint,
    /// The same as it was given: what tells engines apart.
    pub endpoint_text: String,
    /// OSS_REGION without `oss-`, or else the endpoint's; always there where requests are signed with V4.
    pub region: Option<String>,
    /// OSS_PATH
    pub location: Location,
    /// MODEL_DIR as given: a relative one is meant against the program's working folder, which
    /// the caller knows.
    pub model_dir: PathBuf,
    /// CONNECTOR_UDS_PATH, absolute.
    pub uds_path: Option<PathBuf>,
    /// OSSC_IO
    pub io: Option<IoDriver>,
    /// OSSC_PAGES
    pub pages: Option<PageKind>,
    /// SSL_CERT_FILE: trusted in place of the system's roots. Others use it too, so it is only
    /// checked where it counts: with an https endpoint.
    pub ssl_cert_file: Option<PathBuf>,
    /// SSL_CERT_DIR: folders, `:` between them, likewise.
    pub ssl_cert_dir: Option<String>,
    /// XDG_RUNTIME_DIR, if absolute: others are to be ignored (XDG Base Directory Specification).
    pub runtime_dir: Option<PathBuf>,
}

impl Settings {
    /// Looks every variable up by its name and checks it. An empty value counts as unset, and
    /// white space around any value but a path is dropped (a key read from a file often ends in
    /// a newline).
    ///
    /// # Errors
    /// The first REASON found, in the order MODEL_DIR, OSS_PATH, OSS_ENDPOINT, access key,
    /// region, others.
    pub fn from_lookup(get: impl Fn(&str) -> Option<String>) -> Result<Self, Reason> {
        let raw = |name: &str| get(name).filter(|value| !value.is_empty());
        // A copy of a secret would stay in freed memory.
        let trimmed = |value: String| if value.trim() == value { value } else { value.trim().to_owned() };
        let text = |name: &str| raw(name).map(trimmed).filter(|v| !v.is_empty());

        let Some(model_dir) = raw("MODEL_DIR") else {
            return unset(reason::MODEL_DIR_NOT_SET, "set it to the folder the program loads from");
        };
        let Some(location) = text("OSS_PATH") else {
            return unset(reason::PATH_NOT_SET, "set it to oss://BUCKET/PATH/ of the model");
        };
        let location = Location::parse(&location)?;
        let Some(endpoint) = text("OSS_ENDPOINT") else {
            let advice = "set it, for example to http://oss-cn-beijing-internal.aliyuncs.com";
            return unset(reason::ENDPOINT_NOT_SET, advice);
        };
        let endpoint_text = endpoint;
        let endpoint = Endpoint::parse(&endpoint_text)?;
        refuse_bucket_in_host(&endpoint, location.bucket())?;
        let credentials = credentials::source(&text)?;
        let signature = choice(&text, "OSSC_SIGNATURE", &[("v4", Signature::V4), ("v1", Signature::V1)])?;
        let signature = signature.unwrap_or_default();
        let needed = !matches!(credentials, Credentials::Anonymous) && signature == Signature::V4;
        let region = region(&text, &endpoint, needed)?;
        Ok(Self {
            credentials,
            signature,
            endpoint,
            endpoint_text,
            region,
            location,
            model_dir: PathBuf::from(model_dir),
            uds_path: raw("CONNECTOR_UDS_PATH").map(uds_path).transpose()?,
            io: choice(&text, "OSSC_IO", &[("uring", IoDriver::Uring), ("epoll", IoDriver::Epoll)])?,
            pages: choice(&text, "OSSC_PAGES", &[("tmpfs", PageKind::Tmpfs), ("memfd", PageKind::Memfd)])?,
            ssl_cert_file: raw("SSL_CERT_FILE").map(PathBuf::from),
            ssl_cert_dir: raw("SSL_CERT_DIR"),
            runtime_dir: raw("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_absolute()),
        })
    }

    /// True if requests go out unsigned.
    pub fn is_anonymous(&self) -> bool {
        matches!(self.credentials, Credentials::Anonymous)
    }
}

fn unset<T>(kind: &'static str, advice: &str) -> Result<T, Reason> {
    Err(Reason::new(kind, advice))
}

fn refuse_bucket_in_host(endpoint: &Endpoint, bucket: &str) -> Result<(), Reason> {
    if endpoint.names_bucket(bucket) {
        let detail = format!("`{endpoint}` starts with the bucket; leave `{bucket}.` out of OSS_ENDPOINT");
        return Err(Reason::new(reason::INVALID_ENDPOINT, detail));
    }
    Ok(())
}

fn region(text: &impl Fn(&str) -> Option<String>, endpoint: &Endpoint, needed: bool) -> Result<Option<String>, Reason> {
    let Some(named) = text("OSS_REGION") else {
        let inferred = endpoint.infer_region();
        if inferred.is_none() && needed {
            let detail = format!("`{endpoint}` names none; set OSS_REGION, for example to cn-beijing");
            return Err(Reason::new(reason::NO_REGION, detail));
        }
        return Ok(inferred);
    };
    let lower = named.to_ascii_lowercase();
    // Older SDKs want `oss-cn-beijing`; the scope of a signature wants it bare.
    let bare = lower.strip_prefix("oss-").unwrap_or(&lower);
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if bare.is_empty() || !bare.bytes().all(plain) {
        let shown = named.escape_debug();
        return invalid("OSS_REGION", format!("is `{shown}`; expected a region such as cn-beijing"));
    }
    Ok(Some(bare.to_owned()))
}

fn uds_path(text: String) -> Result<PathBuf, Reason> {
    if !Path::new(&text).is_absolute() || text.contains('\0') {
        return invalid("CONNECTOR_UDS_PATH", "is not an absolute path");
    }
    if text.len() > SOCKET_PATH_BYTES_MAX {
        let why = format!("has {} bytes; a socket path has at most {SOCKET_PATH_BYTES_MAX}", text.len());
        return invalid("CONNECTOR_UDS_PATH", why);
    }
    Ok(PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;

    const COMPLETE: &[(&str, &str)] = &[
        ("MODEL_DIR", "/tmp/model"),
        ("OSS_PATH", "oss://examplebucket/qwen/Qwen3-8B"),
        ("OSS_ENDPOINT", "http://oss-cn-beijing-internal.aliyuncs.com"),
        ("OSS_ACCESS_KEY_ID", "LTAI-id"),
        ("OSS_ACCESS_KEY_SECRET", "hunter2"),
        ("OSS_SESSION_TOKEN", "tok-abc"),
    ];

    /// COMPLETE with some values replaced; None removes one.
    fn settings(changes: &[(&str, Option<&str>)]) -> Result<Settings, Reason> {
        Settings::from_lookup(|name| {
            if let Some((_, value)) = changes.iter().find(|(changed, _)| *changed == name) {
                return value.map(str::to_owned);
            }
            COMPLETE.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn good(changes: &[(&str, Option<&str>)]) -> Settings {
        settings(changes).unwrap_or_else(|reason| panic!("{changes:?}: {reason}"))
    }

    fn key(settings: &Settings) -> &ossc_sign::Credentials {
        match &settings.credentials {
            Credentials::Key(key) => key,
            other => panic!("{other:?}"),
        }
    }

    const ANONYMOUS: [(&str, Option<&str>); 2] = [("OSS_ACCESS_KEY_ID", Some("")), ("OSS_ACCESS_KEY_SECRET", None)];

    #[test]
    fn complete_environment() {
        let s = good(&[]);
        let key = key(&s);
        assert_eq!((key.access_key_id.as_str(), key.access_key_secret.expose()), ("LTAI-id", "hunter2"));
        assert_eq!(key.security_token.as_ref().map(|token| token.expose()), Some("tok-abc"));
        assert_eq!(s.region.as_deref(), Some("cn-beijing"));
        assert_eq!(s.location.to_string(), "oss://examplebucket/qwen/Qwen3-8B/");
        assert_eq!(s.model_dir, Path::new("/tmp/model"));
        assert_eq!((s.io, s.pages), (None, None));
        assert_eq!((&s.uds_path, &s.runtime_dir), (&None, &None));
        assert!(!s.is_anonymous());
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?} {:#?}", good(&[]), good(&[]));
        assert!(shown.contains("LTAI-id") && shown.contains("***"), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("tok-abc"), "{shown}");
    }

    #[test]
    fn empty_keys_mean_anonymous_and_need_no_region() {
        let s = good(&[ANONYMOUS[0], ANONYMOUS[1], ("OSS_ENDPOINT", Some("http://127.0.0.1:9"))]);
        assert!(s.is_anonymous());
        assert_eq!(s.region, None);
        assert_eq!(good(&ANONYMOUS).region.as_deref(), Some("cn-beijing"));
    }

    #[test]
    fn v1_needs_no_region() {
        let address = ("OSS_ENDPOINT", Some("http://127.0.0.1:9"));
        assert!(settings(&[address]).is_err());
        let s = good(&[address, ("OSSC_SIGNATURE", Some("v1"))]);
        assert_eq!((s.signature, s.region), (Signature::V1, None));
        assert_eq!(good(&[]).signature, Signature::V4);
    }

    #[test]
    fn values_are_trimmed_and_the_region_is_bare() {
        let s = good(&[
            ("OSS_ACCESS_KEY_SECRET", Some(" hunter2\n")),
            ("OSS_SESSION_TOKEN", Some("")),
            ("OSS_REGION", Some(" oss-CN-Shanghai ")),
        ]);
        let key = key(&s);
        assert_eq!(key.access_key_secret.expose(), "hunter2");
        assert!(key.security_token.is_none());
        assert_eq!(s.region.as_deref(), Some("cn-shanghai"), "OSS_REGION wins over the endpoint");
        assert_eq!(good(&[("MODEL_DIR", Some(" a "))]).model_dir, Path::new(" a "));
    }

    #[test]
    fn own_variables() {
        let s = good(&[
            ("OSSC_IO", Some("epoll")),
            ("OSSC_PAGES", Some("memfd")),
            ("CONNECTOR_UDS_PATH", Some("/run/c.sock")),
            ("XDG_RUNTIME_DIR", Some("/run/user/7")),
        ]);
        assert_eq!((s.io, s.pages), (Some(IoDriver::Epoll), Some(PageKind::Memfd)));
        assert_eq!(s.uds_path.as_deref(), Some(Path::new("/run/c.sock")));
        assert_eq!(s.runtime_dir.as_deref(), Some(Path::new("/run/user/7")));
        let s =
            good(&[("OSSC_IO", Some("uring")), ("OSSC_PAGES", Some("tmpfs")), ("XDG_RUNTIME_DIR", Some("relative"))]);
        assert_eq!((s.io, s.pages), (Some(IoDriver::Uring), Some(PageKind::Tmpfs)));
        assert_eq!(s.runtime_dir, None);
        let s = good(&[("SSL_CERT_FILE", Some("ca.pem")), ("SSL_CERT_DIR", Some("/a:/b"))]);
        assert_eq!((s.ssl_cert_file.as_deref(), s.ssl_cert_dir.as_deref()), (Some(Path::new("ca.pem")), Some("/a:/b")));
    }

    #[test]
    fn every_bad_value_has_its_reason() {
        let long = format!("/{}", "s".repeat(107));
        for (name, value, start) in [
            ("MODEL_DIR", None, "MODEL_DIR not set: "),
            ("MODEL_DIR", Some(""), "MODEL_DIR not set: "),
            ("OSS_PATH", None, "OSS_PATH not set: "),
            ("OSS_PATH", Some("  "), "OSS_PATH not set: "),
            ("OSS_PATH", Some("/tmp/model"), "invalid uri: "),
            ("OSS_ENDPOINT", None, "OSS_ENDPOINT not set: "),
            ("OSS_ENDPOINT", Some("ftp://x"), "invalid endpoint: "),
            (
                "OSS_ENDPOINT",
                Some("examplebucket.oss-cn-beijing.aliyuncs.com"),
                "invalid endpoint: `https://examplebucket.oss-cn-beijing.aliyuncs.com` starts with the bucket",
            ),
            ("OSS_ENDPOINT", Some("127.0.0.1"), "failed to infer region from endpoint: "),
            ("OSS_ENDPOINT", Some("oss-accelerate.aliyuncs.com"), "failed to infer region from endpoint: "),
            ("OSS_ACCESS_KEY_SECRET", None, "OSS_ACCESS_KEY_SECRET not set: "),
            ("OSS_ACCESS_KEY_SECRET", Some("\n"), "OSS_ACCESS_KEY_SECRET not set: "),
            ("OSS_ACCESS_KEY_ID", Some(""), "OSS_ACCESS_KEY_ID not set: "),
            ("OSS_ACCESS_KEY_ID", Some("a\r\nX: y"), "invalid environment variable: OSS_ACCESS_KEY_ID holds"),
            ("OSS_ACCESS_KEY_SECRET", Some("hun ter2"), "invalid environment variable: OSS_ACCESS_KEY_SECRET holds"),
            ("OSS_SESSION_TOKEN", Some("hunter2\u{e9}"), "invalid environment variable: OSS_SESSION_TOKEN holds"),
            ("OSS_REGION", Some("cn beijing"), "invalid environment variable: OSS_REGION is"),
            ("OSS_REGION", Some("oss-"), "invalid environment variable: OSS_REGION is"),
            ("OSS_REGION", Some("a/b"), "invalid environment variable: OSS_REGION is"),
            ("CONNECTOR_UDS_PATH", Some("a.sock"), "invalid environment variable: CONNECTOR_UDS_PATH is"),
            (
                "CONNECTOR_UDS_PATH",
                Some(long.as_str()),
                "invalid environment variable: CONNECTOR_UDS_PATH has 108 bytes",
            ),
            ("OSSC_IO", Some("io_uring"), "invalid environment variable: OSSC_IO is `io_uring`"),
            ("OSSC_PAGES", Some("huge"), "invalid environment variable: OSSC_PAGES is `huge`"),
            ("OSSC_SIGNATURE", Some("4"), "invalid environment variable: OSSC_SIGNATURE is `4`"),
        ] {
            let reason = settings(&[(name, value)]).expect_err(name).to_string();
            assert!(reason.starts_with(start), "{name}={value:?}: {reason}");
            assert!(reason.len() > start.len() + 5, "an advice follows: {reason}");
            assert!(!reason.contains("hun") && !reason.contains("tok-abc"), "{reason}");
        }
    }

    #[test]
    fn every_variable_that_is_looked_up_is_in_the_manual() {
        let asked = RefCell::new(BTreeSet::new());
        Settings::from_lookup(|name| {
            asked.borrow_mut().insert(name.to_owned());
            COMPLETE.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        })
        .expect("complete");
        let asked = asked.into_inner();
        let others = asked.iter().filter(|name| !credentials::names_credentials(name)).count();
        assert_eq!(others, 11, "{asked:?}");
        for name in asked {
            assert!(crate::docs::variables().any(|v| v.name == name), "{name}");
        }
    }
}
