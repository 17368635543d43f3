//! The object that is received: `http://HOST:PORT/BUCKET/KEY` or the same with https, its size, and its cut into
//! parts. Used by `floor`, `floor-tls` and `engine`. Anonymous only.

use crate::error::{Error, Result, Tried};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// Bytes of one range request: the engine's default part (design: part 8 MiB).
pub const PART_BYTES: u64 = 8 << 20;
/// Longest wait for the resolver.
const RESOLVE_MAX: Duration = Duration::from_secs(5);

/// What to receive and how; the same words for all that receive.
#[derive(clap::Args, Debug)]
pub struct Wanted {
    /// Object, in path style; anonymous access.
    #[arg(long, value_name = "http[s]://HOST:PORT/BUCKET/KEY")]
    pub url: String,
    /// With https: trust the CAs of this PEM file (absolute path) and no others [default: the system's].
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Size of the object in bytes.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub size: u64,
    /// Connections at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub connections: u16,
    /// Where the bytes go.
    #[arg(long, value_enum, default_value_t = crate::memory::MemoryKind::Scratch)]
    pub memory: crate::memory::MemoryKind,
    /// Make the pages of each part present (madvise) before it is asked for, as the product does.
    #[arg(long)]
    pub populate: bool,
    /// Compare the received bytes with the origin's CRC-64 afterwards (not with scratch memory).
    #[arg(long)]
    pub verify: bool,
    /// Print one JSON line instead of text.
    #[arg(long)]
    pub json: bool,
}

/// A parsed and resolved URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Addresses of the host.
    pub addresses: Vec<SocketAddr>,
    /// `HOST:PORT`, as given.
    pub authority: String,
    /// Without brackets: what a certificate must name.
    pub host: String,
    pub bucket: String,
    pub key: String,
    /// https.
    pub secure: bool,
}

impl Target {
    /// A connection that sends at once, and whose receives wait for a byte for `stall_max` at most.
    pub fn connect(&self, stall_max: Duration) -> Result<TcpStream> {
        let stream =
            TcpStream::connect(self.addresses.as_slice()).tried(|| format!("connect to {}", self.authority))?;
        stream.set_nodelay(true).tried(|| "TCP_NODELAY".into())?;
        stream.set_read_timeout(Some(stall_max)).tried(|| "SO_RCVTIMEO".into())?;
        Ok(stream)
    }
}

impl Wanted {
    /// Parses and resolves the URL.
    pub fn target(&self) -> Result<Target> {
        let url = Url::parse(&self.url)?;
        let addresses = ossc_net::resolve::resolve(url.host, url.port, RESOLVE_MAX)?;
        let Url { authority, host, bucket, key, secure, .. } = url;
        let [authority, host, bucket, key] = [authority, host, bucket, key].map(str::to_owned);
        Ok(Target { addresses, authority, host, bucket, key, secure })
    }

    /// [`Wanted::target`] for what speaks one of the two only: https if `secure`.
    pub fn target_of(&self, secure: bool) -> Result<Target> {
        let target = self.target()?;
        if target.secure == secure {
            return Ok(target);
        }
        let (needed, others) = if secure { ("https", "`floor`") } else { ("http", "`floor-tls` and `engine`") };
        Err(Error::Wrong(format!("{}: this receives by {needed} only; see {others}", self.url)))
    }

    /// Number of range requests.
    pub fn parts(&self) -> u64 {
        self.size.div_ceil(PART_BYTES)
    }

    /// Bytes of one part.
    pub fn part(&self, index: u64) -> Range<u64> {
        let start = index * PART_BYTES;
        start..(start + PART_BYTES).min(self.size)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Url<'a> {
    authority: &'a str,
    /// Without brackets.
    host: &'a str,
    port: u16,
    bucket: &'a str,
    key: &'a str,
    secure: bool,
}

impl Url<'_> {
    fn parse(text: &str) -> Result<Url<'_>> {
        Url::split(text).ok_or_else(|| {
            Error::Wrong(format!("{text:?} is not http[s]://HOST:PORT/BUCKET/KEY (unescaped letters, digits, - . _ /)"))
        })
    }

    fn split(text: &str) -> Option<Url<'_>> {
        let (scheme, rest) = text.split_once("://")?;
        let secure = scheme == "https";
        let (authority, path) = rest.split_once('/')?;
        let (bucket, key) = path.split_once('/')?;
        let (host, port) = authority.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        // The key goes out as it is, so nothing that needs escaping or would be a second header.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte);
        let whole = (secure || scheme == "http")
            && !host.is_empty()
            && !bucket.is_empty()
            && !key.is_empty()
            && path.bytes().all(plain);
        whole.then_some(Url { authority, host, port: port.parse().ok()?, bucket, key, secure })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let url = Url::parse("http://127.0.0.1:9000/perf/a/b.bin").unwrap();
        let expected = Url {
            authority: "127.0.0.1:9000",
            host: "127.0.0.1",
            port: 9000,
            bucket: "perf",
            key: "a/b.bin",
            secure: false,
        };
        assert_eq!(url, expected);
        let secure = Url::parse("https://127.0.0.1:9000/perf/a/b.bin").unwrap();
        assert_eq!(secure, Url { secure: true, ..expected });
        let six = Url::parse("http://[::1]:80/b/k").unwrap();
        assert_eq!((six.authority, six.host, six.port), ("[::1]:80", "::1", 80));
        for bad in [
            "ftp://h:1/b/k",
            "://h:1/b/k",
            "h:1/b/k",
            "http://h/b/k",
            "http://h:1/b",
            "http://h:1/b/",
            "http://:1/b/k",
            "http://h:99999/b/k",
            "http://h:1/b/a b",
            "http://h:1/b/k\r\nX: 1",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn parts_cover_the_object_once() {
        let wanted = |size| Wanted {
            url: String::new(),
            ca: None,
            size,
            connections: 1,
            memory: crate::memory::MemoryKind::Scratch,
            populate: false,
            verify: false,
            json: false,
        };
        for size in [1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES] {
            let wanted = wanted(size);
            let mut at = 0;
            for index in 0..wanted.parts() {
                let part = wanted.part(index);
                assert!(part.start == at && part.end > at && part.end - at <= PART_BYTES, "{size} {part:?}");
                at = part.end;
            }
            assert_eq!(at, size);
        }
    }
}
