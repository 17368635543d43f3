//! Fault rules: which requests go wrong, and how (FAULTS.md). Called by `conn` for each request.
//! Never runs rules it could not read whole: a broken file keeps the earlier rules and is
//! reported on stderr.

use crate::range;
use crate::request::Request;
use serde::Deserialize;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Operation a rule may be limited to.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operation {
    List,
    Get,
    Head,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Match {
    method: Option<String>,
    key: Option<String>,
    kind: Option<Operation>,
    /// Of a listing, decoded.
    prefix: Option<String>,
    nth: Option<u64>,
    every: Option<u64>,
    /// A byte of the object that the request asks for, among others.
    covers: Option<u64>,
    /// Part of the matching requests, chosen by `seed` and the request's number.
    share: Option<f64>,
    seed: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(default, rename = "match")]
    when: Match,
    times: Option<u64>,
    #[serde(rename = "do")]
    effect: Effects,
    /// Requests that matched, and how often the rule fired.
    #[serde(skip)]
    seen: u64,
    #[serde(skip)]
    fired: u64,
}

/// What goes wrong with one request; several rules add up, the earlier one winning.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Effects {
    pub status: Option<u16>,
    pub code: Option<String>,
    pub cut_after: Option<u64>,
    pub stall_after: Option<u64>,
    /// Length of `stall_after`'s pause.
    pub ms: Option<u64>,
    pub delay_ms: Option<u64>,
    /// Body bytes per second of this answer, whatever other connections do.
    pub conn_bytes_per_sec: Option<u64>,
    /// Requests under way that are not refused.
    pub busy_above: Option<u64>,
    pub flip_byte: Option<u64>,
    /// The same by its offset in the object.
    pub flip_object_byte: Option<u64>,
    pub ignore_range: bool,
    pub wrong_content_range: bool,
    /// Size of the object as the answer's Content-Range names it.
    pub total: Option<u64>,
    pub etag: Option<String>,
    pub drop_crc: bool,
    pub bad_crc: bool,
    pub close: bool,
    pub garbage: bool,
    /// A listing says that it goes on, and its token leads back to its beginning.
    pub loop_list: bool,
    /// A text of a document, and what stands there instead.
    pub replace: Option<(String, String)>,
    /// 200 with this text, whatever was asked for.
    pub page: Option<String>,
    /// Heads of 100 before the answer, and the pause behind each of them.
    pub interim: Option<u64>,
    pub interim_ms: Option<u64>,
    /// User headers, of 100 bytes each.
    pub headers: Option<u64>,
    /// Bytes behind the body.
    pub surplus: Option<String>,
}

/// The rules of one file, and its state when they were read.
pub(crate) struct Faults {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    read: Option<FileId>,
    complained: Option<FileId>,
}

/// mtime in ns, size and inode.
pub(crate) type FileId = (i128, u64, u64);

impl Faults {
    /// Reads the rules; a file that is missing or broken now is an error.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let read = file_id(path)?;
        let rules = parse(path)?;
        let state = State { rules, read: Some(read), complained: None };
        Ok(Self { path: path.to_owned(), state: Mutex::new(state) })
    }

    /// What shall go wrong with this request. Counts it.
    pub(crate) fn effects(&self, request: &Request) -> Effects {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.refresh(&self.path);
        let mut sum = Effects::default();
        for rule in &mut state.rules {
            if rule.fires(request) {
                sum.add(&rule.effect);
            }
        }
        if let Some(at) = sum.flip_object_byte.and_then(|at| at.checked_sub(asked(request).start)) {
            sum.flip_byte = sum.flip_byte.or(Some(at));
        }
        sum
    }
}

impl State {
    fn refresh(&mut self, path: &Path) {
        let now = match file_id(path) {
            Ok(now) => now,
            Err(_) if self.read.is_none() => return,
            Err(e) => {
                eprintln!("oss-endpoint: fault rules {}: {e}: none from now on", path.display());
                *self = Self::default();
                return;
            }
        };
        if self.read == Some(now) {
            return;
        }
        match parse(path) {
            Ok(rules) => *self = Self { rules, read: Some(now), complained: None },
            // Possibly half written: keep the earlier rules and look again at the next request.
            Err(e) if self.complained != Some(now) => {
                eprintln!("oss-endpoint: fault rules {}: {e}: the earlier ones stay", path.display());
                self.complained = Some(now);
            }
            Err(_) => {}
        }
    }
}

/// The state of a file now.
pub(crate) fn file_id(path: &Path) -> io::Result<FileId> {
    let meta = fs::metadata(path)?;
    Ok((i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()), meta.size(), meta.ino()))
}

fn parse(path: &Path) -> io::Result<Vec<Rule>> {
    let rules: Vec<Rule> = serde_json::from_slice(&fs::read(path)?)?;
    for (index, rule) in rules.iter().enumerate() {
        rule.validate().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("rule {}: {e}", index + 1)))?;
    }
    Ok(rules)
}

/// What the operation of a request is called in rules; service level counts as list.
fn kind(request: &Request) -> Operation {
    match (request.key.is_empty(), request.method.as_str()) {
        (true, _) => Operation::List,
        (false, "HEAD") => Operation::Head,
        (false, _) => Operation::Get,
    }
}

/// The bytes that a request asks for; all of them where it names no range.
fn asked(request: &Request) -> std::ops::Range<u64> {
    request.header("range").and_then(range::named).unwrap_or(0..u64::MAX)
}

impl Rule {
    fn validate(&self) -> Result<(), String> {
        let e = &self.effect;
        if *e == Effects::default() {
            return Err("\"do\" is empty".into());
        }
        if e.status.is_some_and(|s| !(300..=599).contains(&s)) {
            return Err("\"status\" must be 300 to 599".into());
        }
        if e.status.is_some() != e.code.is_some() || e.stall_after.is_some() != e.ms.is_some() {
            return Err("\"status\" goes with \"code\", \"stall_after\" with \"ms\"".into());
        }
        if e.interim_ms.is_some() && e.interim.is_none() {
            return Err("\"interim_ms\" goes with \"interim\"".into());
        }
        if [self.when.nth, self.when.every, self.times, e.conn_bytes_per_sec].contains(&Some(0)) {
            return Err("\"nth\", \"every\", \"times\" and \"conn_bytes_per_sec\" start at 1".into());
        }
        if self.when.share.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
            return Err("\"share\" must be above 0 and at most 1".into());
        }
        if self.when.seed.is_some() && self.when.share.is_none() {
            return Err("\"seed\" goes with \"share\"".into());
        }
        if e.etag.as_ref().is_some_and(|t| t.contains(|c: char| c.is_control())) {
            return Err("\"etag\" holds a control character".into());
        }
        Ok(())
    }

    fn fires(&mut self, request: &Request) -> bool {
        if !self.when.fits(request) {
            return false;
        }
        self.seen += 1;
        let due = self.when.nth.is_none_or(|n| self.seen == n)
            && self.when.every.is_none_or(|n| self.seen.is_multiple_of(n))
            && self.when.share.is_none_or(|share| chosen(self.when.seed.unwrap_or(0), self.seen) < share)
            && self.times.is_none_or(|n| self.fired < n);
        self.fired += u64::from(due);
        due
    }
}

/// A number in 0..1 for the n-th request: the same in every run of a seed, and for a repeated
/// request another one than for the first (splitmix64's finalizer).
fn chosen(seed: u64, n: u64) -> f64 {
    let mut z = seed.wrapping_add(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

impl Match {
    fn fits(&self, request: &Request) -> bool {
        let key_fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => request.key.starts_with(start.as_bytes()),
            None => request.key == pattern.as_bytes(),
        };
        self.method.as_ref().is_none_or(|m| m.eq_ignore_ascii_case(&request.method))
            && self.kind.is_none_or(|k| k == kind(request))
            && self.key.as_ref().is_none_or(key_fits)
            && self.covers.is_none_or(|at| asked(request).contains(&at))
            && self.prefix.as_ref().is_none_or(|prefix| {
                request.pairs().is_some_and(|pairs| pairs.iter().any(|(n, v)| n == b"prefix" && v == prefix.as_bytes()))
            })
    }
}

impl Effects {
    fn add(&mut self, other: &Self) {
        if self.status.is_none() {
            (self.status, self.code) = (other.status, other.code.clone());
        }
        if self.stall_after.is_none() {
            (self.stall_after, self.ms) = (other.stall_after, other.ms);
        }
        self.cut_after = self.cut_after.or(other.cut_after);
        self.delay_ms = self.delay_ms.or(other.delay_ms);
        self.busy_above = self.busy_above.or(other.busy_above);
        self.conn_bytes_per_sec = self.conn_bytes_per_sec.or(other.conn_bytes_per_sec);
        self.flip_byte = self.flip_byte.or(other.flip_byte);
        self.flip_object_byte = self.flip_object_byte.or(other.flip_object_byte);
        self.etag = self.etag.take().or_else(|| other.etag.clone());
        self.ignore_range |= other.ignore_range;
        self.wrong_content_range |= other.wrong_content_range;
        self.drop_crc |= other.drop_crc;
        self.bad_crc |= other.bad_crc;
        self.close |= other.close;
        self.garbage |= other.garbage;
        self.loop_list |= other.loop_list;
        if self.interim.is_none() {
            (self.interim, self.interim_ms) = (other.interim, other.interim_ms);
        }
        self.replace = self.replace.take().or_else(|| other.replace.clone());
        self.page = self.page.take().or_else(|| other.page.clone());
        self.headers = self.headers.or(other.headers);
        self.total = self.total.or(other.total);
        self.surplus = self.surplus.take().or_else(|| other.surplus.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str) -> Request {
        let text = format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        Request::parse(text.as_bytes()).unwrap().unwrap().0
    }

    fn rule(json: &str) -> Rule {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn counting() {
        let fire = |json: &str| {
            let mut rule = rule(json);
            (0..6).map(|_| u8::from(rule.fires(&request("/b/k")))).collect::<Vec<_>>()
        };
        assert_eq!(fire(r#"{"match":{"nth":2},"do":{"close":true}}"#), [0, 1, 0, 0, 0, 0]);
        assert_eq!(fire(r#"{"match":{"every":3},"do":{"close":true}}"#), [0, 0, 1, 0, 0, 1]);
        assert_eq!(fire(r#"{"match":{"every":2},"times":2,"do":{"close":true}}"#), [0, 1, 0, 1, 0, 0]);
        assert_eq!(fire(r#"{"times":1,"do":{"close":true}}"#), [1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn shares_are_kept_and_repeatable() {
        let fired = |seed: u64| {
            let mut rule = rule(&format!(r#"{{"match":{{"share":0.05,"seed":{seed}}},"do":{{"close":true}}}}"#));
            (0..10_000).map(|_| rule.fires(&request("/b/k"))).collect::<Vec<_>>()
        };
        for seed in [1, 2, 77] {
            let count = fired(seed).into_iter().filter(|f| *f).count();
            // Three standard deviations of the binomial distribution.
            assert!((435..=565).contains(&count), "seed {seed}: {count}");
        }
        assert_eq!(fired(1), fired(1));
        assert_ne!(fired(1), fired(2));
    }

    #[test]
    fn matching() {
        let fits = |when: &str, target: &str| {
            rule(&format!(r#"{{"match":{when},"do":{{"close":true}}}}"#)).when.fits(&request(target))
        };
        assert!(fits(r#"{"key":"a/*"}"#, "/b/a/x") && !fits(r#"{"key":"a/*"}"#, "/b/c"));
        assert!(fits(r#"{"key":"a"}"#, "/b/a") && !fits(r#"{"key":"a"}"#, "/b/ab"));
        assert!(fits(r#"{"kind":"list"}"#, "/b/?prefix=a") && !fits(r#"{"kind":"list"}"#, "/b/a"));
        assert!(fits(r#"{"prefix":"a/"}"#, "/b/?prefix=a%2F") && !fits(r#"{"prefix":"a/"}"#, "/b/?prefix=a"));
        assert!(!fits(r#"{"kind":"head"}"#, "/b/a") && !fits(r#"{"method":"HEAD"}"#, "/b/a"));
        assert!(fits(r#"{"method":"get","kind":"get"}"#, "/b/a"));
        let covers = |range: &str| {
            let text = format!("GET /b/a HTTP/1.1\r\nHost: 127.0.0.1\r\n{range}\r\n");
            let request = Request::parse(text.as_bytes()).unwrap().unwrap().0;
            rule(r#"{"match":{"covers":10},"do":{"close":true}}"#).when.fits(&request)
        };
        assert!(covers("Range: bytes=10-10\r\n") && covers("") && covers("Range: bytes=0-99\r\n"));
        assert!(!covers("Range: bytes=0-9\r\n") && !covers("Range: bytes=11-99\r\n"));
    }

    #[test]
    fn broken_rules_are_named() {
        for bad in [
            r#"{"do":{}}"#,
            r#"{"do":{"status":503}}"#,
            r#"{"do":{"status":200,"code":"x"}}"#,
            r#"{"do":{"stall_after":1}}"#,
            r#"{"do":{"interim_ms":1}}"#,
            r#"{"match":{"nth":0},"do":{"close":true}}"#,
            r#"{"match":{"share":0},"do":{"close":true}}"#,
            r#"{"match":{"share":1.5},"do":{"close":true}}"#,
            r#"{"match":{"seed":1},"do":{"close":true}}"#,
            r#"{"do":{"conn_bytes_per_sec":0}}"#,
        ] {
            assert!(rule(bad).validate().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Rule>(r#"{"do":{"explode":true}}"#).is_err());
        assert!(serde_json::from_str::<Rule>(r#"{"match":{"bucket":"b"},"do":{"close":true}}"#).is_err());
    }
}
