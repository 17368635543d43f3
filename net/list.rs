//! ListObjectsV2 documents: bytes in, one page of entries out. Called by the engine with the body
//! of a list answer. Never follows pages itself, and never judges names (the mirror does).

use quick_xml::events::Event;

use crate::error::{Error, FailureKind, Phase};
use crate::fetch::Query;
use crate::xml::push_text;

/// What an entry is, from `<Type>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Type {
    /// Put in one piece (its ETag is the MD5), or no `<Type>` given.
    #[default]
    Normal,
    /// Put in parts.
    Multipart,
    /// Grows by appends.
    Appendable,
    /// A link: size and ETag listed are the link's own, so ask HEAD before trusting them.
    Symlink,
    /// A type unknown to this version.
    Other,
}

/// One `<Contents>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectEntry {
    /// Whole key, decoded.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// With its quotes, as listed: the very text If-Match takes.
    pub etag: String,
    /// Last-Modified: seconds since 1970 (UTC) and nanoseconds.
    pub last_modified: (i64, u32),
    /// As written; compare without regard to case.
    pub storage_class: String,
    /// Kind of object.
    pub kind: Type,
    /// `<RestoreInfo>` as written, if any.
    pub restore: Option<String>,
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Objects in the server's order.
    pub objects: Vec<ObjectEntry>,
    /// Common prefixes (sub-folders), decoded, with their final delimiter.
    pub prefixes: Vec<String>,
    /// Continuation token for the next page; `None` on the last.
    pub next: Option<String>,
    /// Keys, still encoded, that are not UTF-8 after decoding: they cannot be served.
    pub undecodable: Vec<String>,
    /// The prefix that the listing says it is of, decoded, if it says so.
    pub prefix: Option<String>,
}

impl Page {
    /// Itself, if it is the answer to this question and not to another one.
    ///
    /// # Errors
    /// `FailureKind::Protocol` for a listing of another prefix.
    pub fn check_prefix(self, query: &Query) -> Result<Page, Error> {
        match (query, &self.prefix) {
            (Query::List { prefix, .. }, Some(other)) if other != prefix => {
                Err(broken(format!("the listing is of {other:?}, and {prefix:?} was asked for")))
            }
            _ => Ok(self),
        }
    }
}

/// Reads one document.
///
/// # Errors
/// `FailureKind::Protocol` if it is not a complete ListBucketResult, a number or date cannot be read, or
/// it is truncated without saying where to go on.
pub fn parse(document: &[u8]) -> Result<Page, Error> {
    let text = std::str::from_utf8(document).map_err(|e| broken(format!("listing is not UTF-8: {e}")))?;
    let mut reader = quick_xml::Reader::from_str(text);
    let mut raw = Raw::default();
    let mut path: Vec<String> = Vec::new();
    let mut value = String::new();
    let mut complete = false;
    loop {
        match reader.read_event().map_err(|e| broken(format!("listing is not XML: {e}")))? {
            Event::Start(_) | Event::Empty(_) if complete => return Err(broken("elements follow the listing")),
            Event::Start(tag) => {
                path.push(tag.local_name().as_ref().to_owned());
                value.clear();
                raw.open(&path)?;
            }
            Event::Empty(tag) => {
                path.push(tag.local_name().as_ref().to_owned());
                raw.open(&path)?;
                raw.close(&path, "")?;
                complete |= path.len() == 1;
                path.pop();
            }
            Event::End(_) => {
                raw.close(&path, value.trim_matches(['\n', '\r', '\t']))?;
                value.clear();
                complete |= path.len() == 1;
                path.pop();
            }
            Event::Eof => break,
            event => push_text(&event, &mut value),
        }
    }
    if !complete {
        return Err(broken("listing ends before its last element"));
    }
    raw.finish()
}

fn broken(message: impl Into<String>) -> Error {
    Error::new(FailureKind::Protocol, Phase::List, crate::error::printable(&message.into()))
}

/// Deepest element of a listing; OSS has three levels.
const DEPTH_MAX: usize = 16;

/// The page before decoding: `EncodingType` may come after what it encodes.
#[derive(Default)]
struct Raw {
    page: Page,
    url: bool,
    /// Whether more follows, if the listing says so.
    truncated: Option<bool>,
    /// Fields of the entry that is read now, without which it is no object.
    has_size: bool,
    has_etag: bool,
}

impl Raw {
    fn open(&mut self, path: &[String]) -> Result<(), Error> {
        if path.len() == 1 && path[0] != "ListBucketResult" {
            return Err(broken(format!("the document is <{}>, not <ListBucketResult>", path[0])));
        }
        if path.len() > DEPTH_MAX {
            return Err(broken(format!("the document has more than {DEPTH_MAX} levels")));
        }
        if path.len() == 2 && path[1] == "Contents" {
            self.page.objects.push(ObjectEntry::default());
            (self.has_size, self.has_etag) = (false, false);
        }
        Ok(())
    }

    fn close(&mut self, path: &[String], value: &str) -> Result<(), Error> {
        let names: Vec<&str> = path.iter().skip(1).map(String::as_str).collect();
        match names.as_slice() {
            ["EncodingType"] => self.url = value.eq_ignore_ascii_case("url"),
            ["IsTruncated"] => self.truncated = Some(value.eq_ignore_ascii_case("true")),
            ["NextContinuationToken"] if !value.is_empty() => self.page.next = Some(value.to_owned()),
            ["Prefix"] => self.page.prefix = Some(value.to_owned()),
            ["CommonPrefixes", "Prefix"] => self.page.prefixes.push(value.to_owned()),
            ["Contents", name] => {
                self.has_size |= *name == "Size";
                self.has_etag |= *name == "ETag" && !value.is_empty();
                let entry = self.page.objects.last_mut().ok_or_else(|| broken("entry without <Contents>"))?;
                entry.set(name, value)?;
            }
            ["Contents"] if !(self.has_size && self.has_etag) => {
                let key = self.page.objects.last().map_or("", |entry| &entry.key);
                return Err(broken(format!("the entry of {key:?} has no Size or no ETag")));
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Page, Error> {
        let Raw { mut page, url, truncated, .. } = self;
        match truncated {
            Some(true) if page.next.is_none() => {
                return Err(broken("listing is truncated but names no NextContinuationToken"));
            }
            // Taken for the last page it would be a shorter listing.
            None if page.next.is_some() => {
                return Err(broken(
                    "listing names a NextContinuationToken and does not say whether it goes on (IsTruncated)",
                ));
            }
            Some(true) => {}
            _ => page.next = None,
        }
        if page.objects.iter().any(|object| object.key.is_empty()) {
            return Err(broken("an entry has no Key"));
        }
        if !url {
            return Ok(page);
        }
        let mut undecodable = Vec::new();
        page.objects.retain_mut(|object| keep_decoded(&mut object.key, &mut undecodable));
        page.prefixes.retain_mut(|prefix| keep_decoded(prefix, &mut undecodable));
        page.prefix = page.prefix.and_then(|prefix| decode(&prefix));
        if let Some(token) = page.next.take() {
            page.next = Some(decode(&token).ok_or_else(|| broken("NextContinuationToken is not UTF-8"))?);
        }
        page.undecodable = undecodable;
        Ok(page)
    }
}

fn keep_decoded(name: &mut String, undecodable: &mut Vec<String>) -> bool {
    match decode(name) {
        Some(decoded) => *name = decoded,
        None => undecodable.push(std::mem::take(name)),
    }
    !name.is_empty()
}

impl ObjectEntry {
    /// Whether GET is refused until somebody restores it: the cold archive classes always need it.
    /// The class Archive does not where the bucket has real-time access, so only GET can tell.
    pub fn needs_restore(&self) -> bool {
        let is = |class: &str| self.storage_class.eq_ignore_ascii_case(class);
        let restored = self.restore.as_deref().is_some_and(|text| text.contains("ongoing-request=\"false\""));
        (is("ColdArchive") || is("DeepColdArchive")) && !restored
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        match name {
            "Key" => self.key = value.to_owned(),
            "Size" => {
                self.size = value.parse().map_err(|_| broken(format!("Size {value:?} is no number")))?;
            }
            "ETag" => self.etag = value.to_owned(),
            "LastModified" => {
                self.last_modified =
                    iso_time(value).ok_or_else(|| broken(format!("LastModified {value:?} is no time")))?;
            }
            "StorageClass" => self.storage_class = value.to_owned(),
            "RestoreInfo" => self.restore = Some(value.to_owned()),
            "Type" => {
                self.kind = match value {
                    "Normal" | "" => Type::Normal,
                    "Multipart" => Type::Multipart,
                    "Appendable" => Type::Appendable,
                    "Symlink" => Type::Symlink,
                    _ => Type::Other,
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Query-unescape rules, as the official SDKs decode listings: `%XX`, and `+` is a space (a plus
/// arrives as `%2B`). A `%` without two hex digits stays. `None` if the result is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| Some(16 * hex_digit(*bytes.get(at + 1)?)? + hex_digit(*bytes.get(at + 2)?)?))
            .flatten();
        match (bytes[at], hex) {
            (_, Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// `2020-06-22T11:42:32.000Z`, fraction optional.
fn iso_time(text: &str) -> Option<(i64, u32)> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-')?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(clock, ':')?;
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !in_range || fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos = fraction.parse::<u32>().ok()? * 10_u32.pow(9 - fraction.len() as u32);
    Some((days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second, nanos))
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text.split(separator).map(|part| {
        let digits = !part.is_empty() && part.len() <= 4 && part.bytes().all(|b| b.is_ascii_digit());
        if digits { part.parse::<i64>().ok() } else { None }
    });
    let three = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(three)
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (years counted from March, so that
/// the leap day is a year's last).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://doc.oss-cn-hangzhou.aliyuncs.com">
  <Name>examplebucket</Name><Prefix>a/</Prefix><MaxKeys>1000</MaxKeys><Delimiter></Delimiter>
  <IsTruncated>true</IsTruncated><NextContinuationToken>Cg%2BJiYw--</NextContinuationToken>
  <Contents><Key>a%2Fmodel+one%2B00001.safetensors</Key><LastModified>2020-06-22T11:42:32.250Z</LastModified>
    <ETag>"5B3C1A2E053D763E1B002CC607C5A0FE-12"</ETag><Type>Multipart</Type><Size>4294967296</Size><StorageClass>Standard</StorageClass>
    <RestoreInfo>ongoing-request="true"</RestoreInfo><Owner><ID>1</ID><DisplayName>x</DisplayName></Owner></Contents>
  <Contents><Size>0</Size><ETag>&quot;D41D8CD98F00B204E9800998ECF8427E&quot;</ETag><Key>a%2F%E6%A8%A1%E5%9E%8B%01</Key></Contents>
  <Contents><Key>a%2F%FF</Key><Size>1</Size><ETag>"x"</ETag></Contents>
  <CommonPrefixes><Prefix>a%2Fb%2F</Prefix></CommonPrefixes><CommonPrefixes><Prefix>a%2Fc%2F</Prefix></CommonPrefixes>
  <KeyCount>3</KeyCount><EncodingType>url</EncodingType>
</ListBucketResult>"#;

    #[test]
    fn reads_a_page() {
        let page = parse(PAGE.as_bytes()).expect("page");
        assert_eq!(page.objects.len(), 2);
        let first = &page.objects[0];
        assert_eq!(first.key, "a/model one+00001.safetensors");
        assert_eq!((first.size, first.kind), (4_294_967_296, Type::Multipart));
        assert_eq!(first.etag, "\"5B3C1A2E053D763E1B002CC607C5A0FE-12\"");
        assert_eq!(first.last_modified, (1_592_826_152, 250_000_000));
        assert_eq!(first.storage_class, "Standard");
        assert_eq!(first.restore.as_deref(), Some("ongoing-request=\"true\""));
        let second = &page.objects[1];
        assert_eq!(second.key, "a/模型\u{1}");
        assert_eq!(second.etag, "\"D41D8CD98F00B204E9800998ECF8427E\"");
        assert_eq!((second.kind, second.last_modified), (Type::Normal, (0, 0)));
        assert_eq!(page.prefixes, ["a/b/", "a/c/"]);
        assert_eq!(page.next.as_deref(), Some("Cg+JiYw--"));
        assert_eq!(page.undecodable, ["a%2F%FF"]);
        assert_eq!(page.prefix.as_deref(), Some("a/"));
    }

    #[test]
    fn a_listing_of_another_prefix_is_no_answer() {
        let of = |prefix: &str| Query::List { prefix: prefix.into(), delimiter: None, continuation: None };
        let page = |text: &str| parse(text.as_bytes()).expect("page");
        let listing =
            "<ListBucketResult><Prefix>a%2Fb+%E6%A8%A1/</Prefix><EncodingType>url</EncodingType></ListBucketResult>";
        assert!(page(listing).check_prefix(&of("a/b 模/")).is_ok());
        assert!(page(listing).check_prefix(&of("a/")).is_err_and(|error| error.retryable()));
        assert!(page("<ListBucketResult><Prefix/></ListBucketResult>").check_prefix(&of("")).is_ok());
        assert!(page("<ListBucketResult/>").check_prefix(&of("a/")).is_ok());
    }

    #[test]
    fn names_stay_as_they_are_without_encoding_type() {
        let text = "<ListBucketResult><Contents><Key>50%25+x&amp;y&#x20;</Key><Size>1</Size><ETag>x</ETag></Contents></ListBucketResult>";
        let page = parse(text.as_bytes()).expect("page");
        assert_eq!(page.objects[0].key, "50%25+x&y ");
        assert_eq!(page.next, None);
    }

    #[test]
    fn an_empty_bucket_is_an_empty_page() {
        assert_eq!(parse(b"<ListBucketResult/>").expect("page"), Page::default());
        let text = "<ListBucketResult><IsTruncated>false</IsTruncated><NextContinuationToken>x</NextContinuationToken></ListBucketResult>";
        assert_eq!(parse(text.as_bytes()).expect("page"), Page::default());
    }

    #[test]
    fn every_cut_is_an_error_never_a_shorter_listing() {
        for end in 0..PAGE.len() {
            if let Some(cut) = PAGE.get(..end) {
                assert!(parse(cut.as_bytes()).is_err(), "cut at {end} was accepted");
            }
        }
    }

    #[test]
    fn what_is_not_a_listing_is_refused() {
        for text in [
            "<Error><Code>x</Code></Error>",
            "<html></html>",
            "<ListBucketResult/><ListBucketResult/>",
            "<ListBucketResult></ListBucketResult><ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
            "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
            "<ListBucketResult><NextContinuationToken>x</NextContinuationToken></ListBucketResult>",
            "<ListBucketResult><Contents><Size>1</Size><ETag>x</ETag></Contents></ListBucketResult>",
            "<ListBucketResult><Contents><Key>a</Key><Size>1</Size></Contents></ListBucketResult>",
            "<ListBucketResult><Contents><Key>a</Key><Size>1</Size><ETag/></Contents></ListBucketResult>",
            "<ListBucketResult><Contents><Key>a</Key><ETag>x</ETag></Contents></ListBucketResult>",
            &format!("<ListBucketResult>{}{}</ListBucketResult>", "<a>".repeat(100), "</a>".repeat(100)),
            "<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
            "<ListBucketResult><Contents><Key>a</Key><LastModified>yesterday</LastModified></Contents></ListBucketResult>",
        ] {
            let error = parse(text.as_bytes()).expect_err(text);
            assert_eq!((error.kind, error.phase), (FailureKind::Protocol, Phase::List), "{text}");
        }
    }

    #[test]
    fn cold_classes_need_a_restore() {
        let needs = |class: &str, restore: Option<&str>| {
            let restore = restore.map(Into::into);
            ObjectEntry { storage_class: class.into(), restore, ..ObjectEntry::default() }.needs_restore()
        };
        assert!(needs("ColdArchive", None) && needs("deepcoldarchive", Some("ongoing-request=\"true\"")));
        assert!(!needs("ColdArchive", Some("ongoing-request=\"false\", expiry-date=\"x\"")));
        assert!(!needs("Archive", None) && !needs("STANDARD", None) && !needs("", None));
    }

    #[test]
    fn times() {
        assert_eq!(iso_time("1970-01-01T00:00:00Z"), Some((0, 0)));
        assert_eq!(iso_time("2000-02-29T23:59:59.000Z"), Some((951_868_799, 0)));
        assert_eq!(iso_time("2026-11-22T10:00:00.5Z"), Some((1_795_341_600, 500_000_000)));
        for bad in ["", "2026-11-22", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01T+1:00:00Z"] {
            assert_eq!(iso_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn decoding() {
        assert_eq!(decode("a%2fb+c%2B%").as_deref(), Some("a/b c+%"));
        assert_eq!(decode("%zz%4").as_deref(), Some("%zz%4"));
        assert_eq!(decode("%ff"), None);
    }
}
