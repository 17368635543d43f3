//! GET and HEAD of an object. Called by `conn`. Never reads the body: it answers with an open
//! file and a span.

use crate::answer::{Answer, Body};
use crate::catalog::Facts;
use crate::clock;
use crate::digest::{Digests, object_type};
use crate::error::OssError;
use crate::list::no_such_bucket;
use crate::range::{Selection, select};
use crate::request::Request;
use crate::store::Store;
use std::io;

/// Answers an object-level GET or HEAD. `whole` ignores the Range header (a fault).
pub(crate) fn object(store: &Store, digests: &Digests, request: &Request, whole: bool) -> Result<Answer, OssError> {
    let bucket = request.bucket.as_deref().unwrap_or_default();
    let folder = store.bucket(bucket).ok_or_else(|| no_such_bucket(bucket))?;
    refuse_subresources(request)?;
    let key = String::from_utf8_lossy(&request.key).into_owned();
    let facts = store.facts(&folder, &request.key);
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound if facts.is_some_and(|facts| facts.target.is_some()) => no_target(&key),
        io::ErrorKind::NotFound => no_such_key(&key),
        _ => OssError::new(500, "InternalError", format!("reading {bucket}/{key}: {e}")),
    };
    let open = store.open(&folder, &request.key).map_err(failed)?;
    let hashes = digests.get(&open.path, &open.stamp, &open.file).map_err(failed)?;
    let etag = hashes.etag(&open.stamp);
    let modified_sec = open.stamp.modified_sec();
    let head_only = request.method == "HEAD";
    if facts.is_some_and(Facts::is_archived) && !head_only {
        return Err(archived());
    }
    let fresh = check_conditions(request, &etag, modified_sec)?;
    let size = open.stamp.size;
    let standard = request.header("x-oss-range-behavior") == Some("standard");
    // HEAD has no ranges (RFC 9110, 14.2).
    let range = request.header("range").filter(|_| !head_only && !whole && !fresh);
    let (status, span) = match range.map_or(Selection::Whole, |r| select(r, standard, size)) {
        Selection::Whole => (200, 0..size),
        Selection::Part(span) => (206, span),
        Selection::Outside => return Err(out_of_range(range.unwrap_or_default(), size)),
    };
    let mut answer = Answer::new(if fresh { 304 } else { status }, Body::File { file: open.file, span: span.clone() });
    if status == 206 {
        let text = format!("bytes {}-{}/{size}", span.start, span.end - 1);
        answer.headers.push(("Content-Range", text));
        answer.range = Some(span);
    }
    let is_link = facts.is_some_and(|facts| facts.target.is_some());
    let kind = if is_link { "Symlink" } else { object_type(&open.stamp) };
    answer.headers.extend([
        ("Content-Type", "application/octet-stream".to_owned()),
        ("Accept-Ranges", "bytes".to_owned()),
        ("ETag", etag),
        ("Last-Modified", clock::http_date(modified_sec)),
        ("x-oss-object-type", kind.to_owned()),
        ("x-oss-storage-class", facts.map_or("Standard", Facts::class).to_owned()),
        ("x-oss-hash-crc64ecma", hashes.crc.to_string()),
    ]);
    answer.headers.extend(facts.and_then(|facts| facts.restore.clone()).map(|text| ("x-oss-restore", text)));
    answer.head_only = head_only || fresh;
    Ok(answer)
}

fn no_such_key(key: &str) -> OssError {
    let mut error = OssError::new(404, "NoSuchKey", "The specified key does not exist.");
    error.details.push(("Key", key.to_owned()));
    error
}

fn no_target(key: &str) -> OssError {
    let mut error = OssError::new(404, "SymlinkTargetNotExist", "The symlink target object does not exist.");
    error.details.push(("Key", key.to_owned()));
    error
}

fn archived() -> OssError {
    OssError::new(403, "InvalidObjectState", "The operation is not valid for the object's state")
}

fn out_of_range(range: &str, size: u64) -> OssError {
    let mut error = OssError::new(416, "InvalidRange", "The requested range cannot be satisfied.");
    error.details = vec![("ActualObjectSize", size.to_string()), ("RangeRequested", range.to_owned())];
    error
}

fn refuse_subresources(request: &Request) -> Result<(), OssError> {
    let pairs = request.pairs().ok_or_else(|| OssError::invalid_argument("The query cannot be percent-decoded."))?;
    let refused = [&b"acl"[..], b"symlink", b"tagging", b"uploadId", b"x-oss-process", b"versionId"];
    match pairs.iter().find(|(name, _)| refused.contains(&name.as_slice())) {
        Some((name, _)) => {
            let name = String::from_utf8_lossy(name);
            Err(OssError::new(501, "NotImplemented", format!("{name} is not served here.")))
        }
        None => Ok(()),
    }
}

/// 412 or nothing; true means 304. Entity tags win over dates (RFC 9110, 13.2.2).
fn check_conditions(request: &Request, etag: &str, modified_sec: i64) -> Result<bool, OssError> {
    let failed = |condition: &str| {
        let message = "At least one of the pre-conditions you specified did not hold.";
        let mut error = OssError::new(412, "PreconditionFailed", message);
        error.details.push(("Condition", condition.to_owned()));
        error
    };
    let date = |name: &str| request.header(name).and_then(clock::parse_http);
    match request.header("if-match") {
        Some(tags) if !names(tags, etag) => return Err(failed("If-Match")),
        Some(_) => {}
        None if date("if-unmodified-since").is_some_and(|limit| modified_sec > limit) => {
            return Err(failed("If-Unmodified-Since"));
        }
        None => {}
    }
    Ok(match request.header("if-none-match") {
        Some(tags) => names(tags, etag),
        None => date("if-modified-since").is_some_and(|limit| modified_sec <= limit),
    })
}

/// Whether a list of entity tags (quotes optional, as OSS takes them) names `etag`.
fn names(tags: &str, etag: &str) -> bool {
    let bare = |t: &str| t.trim().trim_matches('"').to_owned();
    tags.split(',').any(|t| t.trim() == "*" || bare(t) == bare(etag))
}
