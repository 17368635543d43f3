//! GET bucket: one page of keys. Called by `conn`. Never keeps state between pages: the
//! continuation token holds the last entry.

use crate::answer::{Answer, Body};
use crate::catalog::Facts;
use crate::clock;
use crate::digest::{Digests, object_type};
use crate::error::OssError;
use crate::request::Request;
use crate::store::{Stamp, Store, Visit};
use crate::text::{element, percent_encode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Documented default and maximum of max-keys.
const KEYS_DEFAULT: usize = 100;
const KEYS_MAX: usize = 1000;

/// Where a page begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum After {
    #[default]
    Start,
    /// Keys greater than this.
    Key(Vec<u8>),
    /// Keys greater than this, and not beneath this common prefix.
    Prefix(Vec<u8>),
}

/// The parameters of one listing, decoded.
#[derive(Debug, Default)]
struct Query {
    /// list-type=2.
    v2: bool,
    prefix: Vec<u8>,
    delimiter: Vec<u8>,
    keys_max: usize,
    after: After,
    url: bool,
    owner: bool,
    /// As sent: start-after or marker, and continuation-token.
    start: Option<Vec<u8>>,
    token: Option<Vec<u8>>,
}

enum Entry {
    Object { key: Vec<u8>, path: PathBuf, stamp: Stamp },
    Prefix(Vec<u8>),
}

/// Collects a page during a walk.
struct Page<'a> {
    query: &'a Query,
    entries: Vec<Entry>,
    truncated: bool,
}

/// Answers a bucket-level GET.
pub(crate) fn list(store: &Store, digests: &Digests, request: &Request) -> Result<Answer, OssError> {
    let bucket = request.bucket.as_deref().unwrap_or_default();
    let folder = store.bucket(bucket).ok_or_else(|| no_such_bucket(bucket))?;
    let query = Query::parse(request)?;
    let mut page = Page { query: &query, entries: Vec::new(), truncated: false };
    store
        .walk(&folder, &mut page)
        .map_err(|e| OssError::new(500, "InternalError", format!("listing bucket {bucket}: {e}")))?;
    let xml = page.document(&folder, bucket, (store, digests));
    let mut answer = Answer::new(200, Body::Bytes(xml.into_bytes()));
    answer.headers.push(("Content-Type", "application/xml".into()));
    Ok(answer)
}

/// The same document with a token that leads back to the beginning.
pub(crate) fn loops(document: &str) -> String {
    let go_on = element("IsTruncated", "true") + &element("NextContinuationToken", &After::Start.token());
    document.replacen(&element("IsTruncated", "false"), &go_on, 1)
}

/// 404 for a bucket that is not there.
pub(crate) fn no_such_bucket(bucket: &str) -> OssError {
    let mut error = OssError::new(404, "NoSuchBucket", "The specified bucket does not exist.");
    error.details.push(("BucketName", bucket.to_owned()));
    error
}

impl Query {
    fn parse(request: &Request) -> Result<Self, OssError> {
        let pairs =
            request.pairs().ok_or_else(|| OssError::invalid_argument("The query cannot be percent-decoded."))?;
        let mut query = Self { keys_max: KEYS_DEFAULT, ..Self::default() };
        query.v2 = pairs.iter().any(|(n, v)| n == b"list-type" && v == b"2");
        for (name, value) in pairs {
            match name.as_slice() {
                b"list-type" if value != b"2" => {
                    return Err(OssError::invalid_argument("list-type must be 2."));
                }
                b"prefix" => query.prefix = value,
                b"delimiter" => query.delimiter = value,
                b"max-keys" if !value.is_empty() => query.keys_max = keys_max(&value)?,
                b"encoding-type" if value == b"url" => query.url = true,
                b"encoding-type" if !value.is_empty() => {
                    return Err(OssError::invalid_argument("encoding-type must be url."));
                }
                b"fetch-owner" => query.owner = value == b"true",
                b"start-after" if query.v2 => query.start = Some(value),
                b"marker" if !query.v2 => query.start = Some(value),
                b"continuation-token" if query.v2 => query.token = Some(value),
                b"acl" | b"location" | b"bucketInfo" | b"stat" | b"uploads" | b"versions" => {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    return Err(OssError::new(501, "NotImplemented", format!("{name} is not served here.")));
                }
                _ => {}
            }
        }
        query.after = query.position()?;
        Ok(query)
    }

    fn position(&self) -> Result<After, OssError> {
        if let Some(token) = self.token.as_ref().filter(|t| !t.is_empty()) {
            return After::from_token(token)
                .ok_or_else(|| OssError::invalid_argument("The continuation token provided is incorrect."));
        }
        Ok(match self.start.clone().filter(|s| !s.is_empty()) {
            None => After::Start,
            // NextMarker of a V1 page that ended with a common prefix is that prefix.
            Some(key) if !self.v2 && !self.delimiter.is_empty() && key.ends_with(&self.delimiter) => After::Prefix(key),
            Some(key) => After::Key(key),
        })
    }

    fn text(&self, bytes: &[u8]) -> String {
        if self.url { percent_encode(bytes, false) } else { String::from_utf8_lossy(bytes).into_owned() }
    }
}

fn keys_max(value: &[u8]) -> Result<usize, OssError> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|t| t.parse().ok())
        .filter(|n| (1..=KEYS_MAX).contains(n))
        .ok_or_else(|| OssError::invalid_argument("Argument max-keys must be an integer between 1 and 1000."))
}

impl After {
    /// Base64 of `k` or `p` and the bytes: opaque to clients, safe in XML and in a query.
    fn token(&self) -> String {
        let (kind, bytes) = match self {
            Self::Start => (b'k', &[][..]),
            Self::Key(key) => (b'k', key.as_slice()),
            Self::Prefix(prefix) => (b'p', prefix.as_slice()),
        };
        URL_SAFE_NO_PAD.encode([&[kind], bytes].concat())
    }

    fn from_token(token: &[u8]) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        match bytes.split_first()? {
            (b'k', key) => Some(Self::Key(key.to_vec())),
            (b'p', prefix) => Some(Self::Prefix(prefix.to_vec())),
            _ => None,
        }
    }

    /// Whether `key` comes after this position.
    fn admits(&self, key: &[u8]) -> bool {
        match self {
            Self::Start => true,
            Self::Key(last) => key > last.as_slice(),
            Self::Prefix(last) => key > last.as_slice() && !key.starts_with(last),
        }
    }

    /// Whether any key that starts with `folder` can come after this position.
    fn admits_below(&self, folder: &[u8]) -> bool {
        match self {
            Self::Start => true,
            Self::Key(last) => folder > last.as_slice() || last.starts_with(folder),
            Self::Prefix(last) => !folder.starts_with(last) && (folder > last.as_slice() || last.starts_with(folder)),
        }
    }
}

impl Entry {
    fn position(&self) -> After {
        match self {
            Self::Object { key, .. } => After::Key(key.clone()),
            Self::Prefix(prefix) => After::Prefix(prefix.clone()),
        }
    }
}

impl Page<'_> {
    fn last_prefix(&self) -> Option<&[u8]> {
        match self.entries.last() {
            Some(Entry::Prefix(prefix)) => Some(prefix),
            _ => None,
        }
    }

    /// The common prefix `key` falls under, if the delimiter occurs after the prefix.
    fn common_prefix(&self, key: &[u8]) -> Option<Vec<u8>> {
        let Query { prefix, delimiter, .. } = self.query;
        if delimiter.is_empty() {
            return None;
        }
        let at = key[prefix.len()..].windows(delimiter.len()).position(|w| w == delimiter.as_slice())?;
        Some(key[..prefix.len() + at + delimiter.len()].to_vec())
    }

    fn document(&self, folder: &Path, bucket: &str, (store, digests): (&Store, &Digests)) -> String {
        let query = self.query;
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult>\n");
        xml += &element("Name", bucket);
        xml += &element("Prefix", &query.text(&query.prefix));
        let (start, next) = if query.v2 { ("StartAfter", "NextContinuationToken") } else { ("Marker", "NextMarker") };
        if let Some(key) = &query.start {
            xml += &element(start, &query.text(key));
        }
        if let Some(token) = &query.token {
            xml += &element("ContinuationToken", &query.text(token));
        }
        xml += &element("MaxKeys", &query.keys_max.to_string());
        xml += &element("Delimiter", &query.text(&query.delimiter));
        if query.url {
            xml += "<EncodingType>url</EncodingType>";
        }
        xml += &element("IsTruncated", &self.truncated.to_string());
        if let Some(last) = self.entries.last().filter(|_| self.truncated) {
            let text = match last {
                _ if query.v2 => last.position().token(),
                Entry::Object { key, .. } | Entry::Prefix(key) => query.text(key),
            };
            xml += &element(next, &text);
        }
        let mut count = 0;
        for entry in &self.entries {
            xml += "\n";
            count += 1;
            match entry {
                Entry::Prefix(p) => {
                    xml += &format!("<CommonPrefixes>{}</CommonPrefixes>", element("Prefix", &query.text(p)));
                }
                Entry::Object { key, path, stamp } => match digests.etag(path, stamp) {
                    Ok(etag) => xml += &contents(query, key, (stamp, &etag), store.facts(folder, key)),
                    // Removed or rewritten since the walk: as if the page had been made later.
                    Err(_) => count -= 1,
                },
            }
        }
        if query.v2 {
            xml += &format!("\n<KeyCount>{count}</KeyCount>");
        }
        xml + "\n</ListBucketResult>\n"
    }
}

fn contents(query: &Query, key: &[u8], (stamp, etag): (&Stamp, &str), facts: Option<&Facts>) -> String {
    let target = facts.and_then(|facts| facts.target.as_deref());
    let (kind, etag) = match target {
        Some(target) => ("Symlink", link_etag(target)),
        None => (object_type(stamp), etag.to_owned()),
    };
    let mut xml = String::from("<Contents>");
    xml += &element("Key", &query.text(key));
    xml += &element("LastModified", &clock::list_date(stamp.modified_sec()));
    // A bare quote is legal in element text, and is what OSS sends.
    xml += &format!("<ETag>{etag}</ETag>");
    xml += &element("Type", kind);
    xml += &element("Size", &stamp.size.to_string());
    xml += &element("StorageClass", facts.map_or("Standard", Facts::class));
    if let Some(restore) = facts.and_then(|facts| facts.restore.as_deref()) {
        xml += &element("RestoreInfo", restore);
    }
    if query.owner || !query.v2 {
        xml += "<Owner><ID>0</ID><DisplayName>0</DisplayName></Owner>";
    }
    xml + "</Contents>"
}

/// A link object's own ETag: of the name it points to.
fn link_etag(target: &[u8]) -> String {
    format!("\"{:X}\"", md5::compute(target))
}

impl Visit for Page<'_> {
    fn enter(&mut self, folder: &[u8]) -> bool {
        let prefix = self.query.prefix.as_slice();
        (folder.starts_with(prefix) || prefix.starts_with(folder))
            && self.query.after.admits_below(folder)
            && self.last_prefix().is_none_or(|last| !folder.starts_with(last))
    }

    fn wants(&self, key: &[u8]) -> bool {
        let under_last = self.last_prefix().is_some_and(|last| key.starts_with(last));
        key.starts_with(&self.query.prefix) && self.query.after.admits(key) && !under_last
    }

    fn object(&mut self, key: &[u8], path: &Path, stamp: Stamp) -> ControlFlow<()> {
        if !self.wants(key) {
            return ControlFlow::Continue(());
        }
        if self.entries.len() == self.query.keys_max {
            self.truncated = true;
            return ControlFlow::Break(());
        }
        let entry = match self.common_prefix(key) {
            Some(prefix) => Entry::Prefix(prefix),
            None => Entry::Object { key: key.to_vec(), path: path.to_owned(), stamp },
        };
        self.entries.push(entry);
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::After;

    #[test]
    fn tokens_round_trip() {
        for after in [After::Key(b"a/\xff b".to_vec()), After::Prefix(b"a/".to_vec())] {
            assert_eq!(After::from_token(after.token().as_bytes()), Some(after));
        }
        for bad in [&b"!"[..], b"", b"AAAA"] {
            assert_eq!(After::from_token(bad), None);
        }
    }

    #[test]
    fn folders_before_the_position_are_skipped() {
        let key = After::Key(b"b/m".to_vec());
        assert!(!key.admits_below(b"a/") && key.admits_below(b"b/") && key.admits_below(b"c/"));
        let prefix = After::Prefix(b"b/".to_vec());
        assert!(!prefix.admits_below(b"b/") && !prefix.admits_below(b"b/x/") && prefix.admits_below(b"c/"));
        assert!(!prefix.admits(b"b/z") && prefix.admits(b"b0"));
    }
}
