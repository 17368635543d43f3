//! OSS_ENDPOINT: where the service is, how a bucket is addressed there, and which region it tells.
//! Called by `env`; used by the engine to resolve, connect and write the Host header.
//!
//! It resolves no name and opens no connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::reason::{INVALID_ENDPOINT, Reason};

const OSS_DOMAIN: &str = ".aliyuncs.com";

/// The protocol below the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain TCP, port 80.
    Http,
    /// TLS, port 443; what an endpoint without a scheme means.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A parsed endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// Lower case.
    Name(String),
    Ip(IpAddr),
}

impl Endpoint {
    /// Parses `[http://|https://]HOST[:PORT][/]`.
    ///
    /// # Errors
    /// `invalid endpoint`, with the text and what is wrong with it. A text with user information
    /// or a query is not repeated, since that may be a password or a signature.
    pub fn parse(text: &str) -> Result<Self, Reason> {
        let text = text.trim();
        let fail = |why: &str| {
            let named = if may_hold_secret(text) { "…".into() } else { text.escape_debug().to_string() };
            let form = "expected [http://|https://]HOST[:PORT], such as \
                        http://oss-cn-beijing-internal.aliyuncs.com";
            Err(Reason::new(INVALID_ENDPOINT, format!("{why} in OSS_ENDPOINT `{named}`; {form}")))
        };
        let (scheme, rest) = match text.split_once("://") {
            None => (Scheme::Https, text),
            Some((name, rest)) if name.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some((name, rest)) if name.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some(_) => return fail("unknown scheme"),
        };
        if rest.contains('@') {
            return fail("user information");
        }
        if rest.contains(['?', '#']) {
            return fail("a query or fragment");
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '\\']) {
            return fail("a path");
        }
        match split_authority(authority, scheme.default_port()) {
            Ok((host, port)) => Ok(Self { scheme, host, port }),
            Err(why) => fail(why),
        }
    }

    /// http or https.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address itself, if the endpoint is one: nothing to resolve.
    pub fn ip(&self) -> Option<IpAddr> {
        match &self.host {
            Host::Ip(ip) => Some(*ip),
            Host::Name(_) => None,
        }
    }

    /// True where the bucket is the first segment of the path (`/BUCKET/KEY`): addresses and
    /// `localhost`, which have no sub-domains. Elsewhere it is the first label of the host.
    pub fn is_path_style(&self) -> bool {
        match &self.host {
            Host::Ip(_) => true,
            Host::Name(name) => name == "localhost",
        }
    }

    /// The name to resolve and to expect in the certificate: with the bucket in front, unless the
    /// style is path style. IPv6 without brackets.
    pub fn connect_host(&self, bucket: &str) -> String {
        match &self.host {
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) if self.is_path_style() => name.clone(),
            Host::Name(name) => format!("{bucket}.{name}"),
        }
    }

    /// Value of the Host header: `connect_host`, IPv6 in brackets, and the port unless it is the
    /// scheme's own.
    pub fn host_header(&self, bucket: &str) -> String {
        let host = match &self.host {
            Host::Ip(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => self.connect_host(bucket),
        };
        if self.port == self.scheme.default_port() { host } else { format!("{host}:{}", self.port) }
    }

    /// The name to resolve of a service that has no buckets. IPv6 without brackets.
    pub fn service_host(&self) -> String {
        match &self.host {
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) => name.clone(),
        }
    }

    /// Value of the Host header of such a service.
    pub fn service_host_header(&self) -> String {
        let host = match &self.host {
            Host::Ip(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => self.service_host(),
        };
        if self.port == self.scheme.default_port() { host } else { format!("{host}:{}", self.port) }
    }

    /// The region in the host name, if it has one of the forms `oss-R.aliyuncs.com`,
    /// `oss-R-internal.aliyuncs.com` and `R.oss.aliyuncs.com` (dual stack).
    ///
    /// None for the acceleration hosts, which serve all regions, and for names of the user's own.
    pub fn infer_region(&self) -> Option<String> {
        let Host::Name(name) = &self.host else {
            return None;
        };
        let labels = name.strip_suffix(OSS_DOMAIN)?;
        let region = match labels.split_once('.') {
            None => {
                let label = labels.strip_suffix("-internal").unwrap_or(labels);
                label.strip_prefix("oss-").filter(|region| !region.starts_with("accelerate"))?
            }
            Some((region, "oss")) => region,
            Some(_) => return None,
        };
        // Every region is named AREA-PLACE, such as us-west-1.
        region.contains('-').then(|| region.to_owned())
    }

    /// True if the host is an OSS host that already starts with `bucket`: a frequent mistake,
    /// which would put the bucket there twice.
    pub(crate) fn names_bucket(&self, bucket: &str) -> bool {
        match &self.host {
            Host::Name(name) => {
                let rest = name.strip_prefix(bucket).and_then(|rest| rest.strip_prefix('.'));
                rest.is_some_and(|rest| rest.starts_with("oss-") && rest.ends_with(OSS_DOMAIN))
            }
            Host::Ip(_) => false,
        }
    }
}

impl fmt::Display for Endpoint {
    /// `http://HOST` or `http://HOST:PORT`, without a bucket.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.as_str())?;
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
            Host::Ip(ip) => write!(f, "{ip}")?,
            Host::Name(name) => f.write_str(name)?,
        }
        if self.port == self.scheme.default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// True if a secret may be in an address: user information, or a query. No endpoint has either.
pub(crate) fn may_hold_secret(address: &str) -> bool {
    address.contains(['@', '?'])
}

fn split_authority(text: &str, default_port: u16) -> Result<(Host, u16), &'static str> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (ip, rest) = bracketed.split_once(']').ok_or("an unclosed bracket")?;
        let ip: Ipv6Addr = ip.parse().map_err(|_| "no IPv6 address inside the brackets")?;
        let port = match rest {
            "" => default_port,
            rest => parse_port(rest.strip_prefix(':').ok_or("text after the bracket")?)?,
        };
        return Ok((Host::Ip(IpAddr::V6(ip)), port));
    }
    let (host, port) = match text.split_once(':') {
        None => (text, default_port),
        Some((_, port)) if port.contains(':') => return Err("an IPv6 address without brackets"),
        Some((host, port)) => (host, parse_port(port)?),
    };
    Ok((parse_host(host)?, port))
}

fn parse_port(text: &str) -> Result<u16, &'static str> {
    // `parse` alone would accept a plus sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err("a port that is not 1 to 65535"),
    }
}

fn parse_host(text: &str) -> Result<Host, &'static str> {
    if text.is_empty() {
        return Err("no host");
    }
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(IpAddr::V4(ip)));
    }
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() > 253 || !text.split('.').all(label_ok) {
        return Err("a host that is no valid name");
    }
    // Some resolvers read `10.1` or `256.1.1.1` as an address; no top-level domain is a number.
    if text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        return Err("an incomplete IPv4 address");
    }
    Ok(Host::Name(text.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Endpoint {
        Endpoint::parse(text).unwrap_or_else(|reason| panic!("{text}: {reason}"))
    }

    #[test]
    fn scheme_port_style_and_host_header() {
        for (text, shown, port, path_style, header) in [
            (
                "http://oss-cn-beijing-internal.aliyuncs.com",
                "http://oss-cn-beijing-internal.aliyuncs.com",
                80,
                false,
                "bkt.oss-cn-beijing-internal.aliyuncs.com",
            ),
            (
                " OSS-cn-beijing.AliyunCS.com/ ",
                "https://oss-cn-beijing.aliyuncs.com",
                443,
                false,
                "bkt.oss-cn-beijing.aliyuncs.com",
            ),
            ("HTTPS://h.example:443", "https://h.example", 443, false, "bkt.h.example"),
            ("https://h.example:80", "https://h.example:80", 80, false, "bkt.h.example:80"),
            ("http://h_1.example:8080", "http://h_1.example:8080", 8080, false, "bkt.h_1.example:8080"),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000", 9000, true, "127.0.0.1:9000"),
            ("127.0.0.1", "https://127.0.0.1", 443, true, "127.0.0.1"),
            ("http://[::1]:9000/", "http://[::1]:9000", 9000, true, "[::1]:9000"),
            ("http://[2001:DB8:0:0::7]", "http://[2001:db8::7]", 80, true, "[2001:db8::7]"),
            ("http://LocalHost:1", "http://localhost:1", 1, true, "localhost:1"),
            ("localhost.example", "https://localhost.example", 443, false, "bkt.localhost.example"),
        ] {
            let endpoint = parse(text);
            assert_eq!(endpoint.to_string(), shown, "{text}");
            assert_eq!(endpoint.port(), port, "{text}");
            assert_eq!(endpoint.is_path_style(), path_style, "{text}");
            assert_eq!(endpoint.host_header("bkt"), header, "{text}");
            let scheme = if shown.starts_with("https") { Scheme::Https } else { Scheme::Http };
            assert_eq!(endpoint.scheme(), scheme, "{text}");
            assert_eq!(parse(shown), endpoint, "what is shown parses to the same");
        }
    }

    #[test]
    fn connect_host_has_no_port_and_no_brackets() {
        assert_eq!(parse("http://[::1]:9000").connect_host("b"), "::1");
        assert_eq!(parse("http://[::1]:9000").ip(), Some("::1".parse().unwrap()));
        assert_eq!(parse("http://10.0.0.1:9000").connect_host("b"), "10.0.0.1");
        assert_eq!(parse("localhost:9000").connect_host("b"), "localhost");
        assert_eq!(parse("h.example:9000").connect_host("b"), "b.h.example");
        assert_eq!(parse("h.example:9000").ip(), None);
    }

    #[test]
    fn bad_texts_are_refused_with_the_cause() {
        let long = format!("{}.example", "a".repeat(64));
        for (text, why) in [
            ("", "no host"),
            ("http://", "no host"),
            ("http://:80", "no host"),
            ("ftp://h", "unknown scheme"),
            ("://h", "unknown scheme"),
            ("http:/h", "a path"),
            ("http:///h", "a path"),
            ("http://h/p", "a path"),
            ("http://h//", "a path"),
            ("h\\p", "a path"),
            ("http://h?x", "a query or fragment"),
            ("http://h#x", "a query or fragment"),
            ("http://h:", "a port that is not 1 to 65535"),
            ("http://h:0", "a port that is not 1 to 65535"),
            ("http://h:65536", "a port that is not 1 to 65535"),
            ("http://h:+80", "a port that is not 1 to 65535"),
            ("http://h:8 0", "a port that is not 1 to 65535"),
            ("http://::1", "an IPv6 address without brackets"),
            ("http://[::1", "an unclosed bracket"),
            ("http://[::1]80", "text after the bracket"),
            ("http://[fe80::1%eth0]", "no IPv6 address inside the brackets"),
            ("http://[1.2.3.4]", "no IPv6 address inside the brackets"),
            ("http://256.1.1.1", "an incomplete IPv4 address"),
            ("http://10.1", "an incomplete IPv4 address"),
            ("h..example", "a host that is no valid name"),
            ("h.example.", "a host that is no valid name"),
            ("-h.example", "a host that is no valid name"),
            ("h-.example", "a host that is no valid name"),
            ("h\r\nX: y", "a port that is not 1 to 65535"),
            ("h\r\nX", "a host that is no valid name"),
            ("h h", "a host that is no valid name"),
            ("hé.example", "a host that is no valid name"),
            (long.as_str(), "a host that is no valid name"),
        ] {
            let reason = Endpoint::parse(text).expect_err(text).to_string();
            assert!(!reason.chars().any(char::is_control), "{reason:?}");
            let cause = reason.strip_prefix("invalid endpoint: ").expect("the kind first");
            assert!(cause.starts_with(why), "{text:?}: {reason}");
        }
    }

    #[test]
    fn user_information_is_refused_and_not_repeated() {
        let reason = Endpoint::parse("http://id:hunter2@h.example").expect_err("refused").to_string();
        assert!(reason.starts_with("invalid endpoint: user information"), "{reason}");
        assert!(!reason.contains("hunter2"), "{reason}");
        let reason = Endpoint::parse("https://b.h.example/a?Signature=hunter2").expect_err("refused").to_string();
        assert!(!reason.contains("hunter2"), "{reason}");
        let reason = Endpoint::parse("ftp://id:hunter2@h").expect_err("refused").to_string();
        assert!(!reason.contains("hunter2"), "{reason}");
    }

    #[test]
    fn region_is_inferred_from_oss_hosts_only() {
        for (text, region) in [
            ("oss-cn-beijing.aliyuncs.com", Some("cn-beijing")),
            ("oss-cn-beijing-internal.aliyuncs.com", Some("cn-beijing")),
            ("http://OSS-US-West-1.aliyuncs.com:8080", Some("us-west-1")),
            ("oss-ap-southeast-1-internal.aliyuncs.com", Some("ap-southeast-1")),
            ("cn-hangzhou.oss.aliyuncs.com", Some("cn-hangzhou")),
            ("oss-accelerate.aliyuncs.com", None),
            ("oss-accelerate-overseas.aliyuncs.com", None),
            ("oss.aliyuncs.com", None),
            ("oss-internal.aliyuncs.com", None),
            ("oss-.aliyuncs.com.example", None),
            ("bkt.oss-cn-beijing.aliyuncs.com", None),
            ("cn-wulanchabu-b-internal.oss-data-acc.aliyuncs.com", None),
            ("cb-1.cn-heyuan.oss-cloudbox.aliyuncs.com", None),
            ("oss-cn-beijing.aliyuncs.com.example", None),
            ("oss-cn-beijing.example.com", None),
            ("static.example.com", None),
            ("127.0.0.1", None),
            ("[::1]", None),
            ("localhost", None),
        ] {
            let inferred = Endpoint::parse(text).ok().and_then(|endpoint| endpoint.infer_region());
            assert_eq!(inferred.as_deref(), region, "{text}");
        }
    }

    #[test]
    fn a_bucket_in_the_host_is_noticed() {
        assert!(parse("bkt.oss-cn-beijing.aliyuncs.com").names_bucket("bkt"));
        assert!(!parse("oss-cn-beijing.aliyuncs.com").names_bucket("bkt"));
        assert!(!parse("bkt.example.com").names_bucket("bkt"));
        assert!(!parse("oss-cn-beijing.aliyuncs.com").names_bucket("oss-cn-beijing"));
    }
}
