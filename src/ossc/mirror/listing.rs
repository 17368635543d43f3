//! One folder of OSS_PATH as OSS lists it: all its pages, symbolic links followed, sorted into what can be
//! mirrored and what cannot.
//!
//! Called by the mirror, whose thread waits for the answers. It touches no file and no record.

pub mod quiet;
pub mod tree;

use crate::mirror::listing::tree::Level;
use crate::work::{Patience, Work};
use ossc_cache::region::OBJECTS_MAX;
use ossc_net::error::{FailureKind, Phase};
use ossc_net::list::{self, ObjectEntry, Type};
use ossc_net::{Error, Finished, Query, Response};
use std::collections::HashSet;
use std::time::Instant;

/// Pages without a name that may follow each other.
const EMPTY_PAGES_MAX: u32 = 16;
/// Documents of one page that cannot be read.
const DOCUMENTS_MAX: u32 = 4;
/// Links whose targets are asked for at a time.
const LINKS_AT_ONCE: usize = 256;

/// Lists the keys below `prefix` (empty, or ending in `/`), one level deep.
///
/// `None` if there are more pages than `pages_max`.
///
/// # Errors
/// Of the listing itself, or of what a link leads to if that may be had later; a link that leads nowhere is
/// skipped with its reason. A listing that does not go on, or has more than the catalog can hold, is one, too.
pub fn fetch(work: &Work, prefix: &str, patience: Patience, pages_max: u32) -> Result<Option<Level>, Error> {
    let (mut objects, mut prefixes, mut skipped, mut continuation) = (Vec::new(), Vec::new(), Vec::new(), None);
    let (mut date, mut progress) = (None, Progress::default());
    for page in 1.. {
        let query = Query::List { prefix: prefix.to_string(), delimiter: Some("/".into()), continuation };
        let (parsed, response) = one_page(work, &query, patience)?;
        progress.check(prefix, &parsed, &response.request_id)?;
        // Of the first page: what changes while later ones come is not older than it seems.
        date = date.or(response.date);
        skipped.extend(parsed.undecodable.into_iter().map(|key| (key, "the key is not UTF-8".to_string())));
        objects.extend(parsed.objects);
        prefixes.extend(parsed.prefixes);
        continuation = parsed.next;
        if continuation.is_none() {
            break;
        }
        if page >= pages_max {
            return Ok(None);
        }
    }
    let (links, mut objects): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| object.kind == Type::Symlink);
    for some in links.chunks(LINKS_AT_ONCE) {
        let queries: Vec<Query> = some.iter().map(|link| Query::Head { key: link.key.clone() }).collect();
        for (link, answer) in some.iter().zip(work.scheduling.call_all(&queries, patience)) {
            match followed(link, answer)? {
                Ok(object) => objects.push(object),
                Err(why) => skipped.push((link.key.clone(), why)),
            }
        }
    }
    let mut level = Level::new(prefix, objects, &prefixes);
    level.skipped.extend(skipped);
    level.date = date;
    Ok(Some(level))
}

/// One page of a listing. A document that is cut or broken is asked for again.
fn one_page(work: &Work, query: &Query, patience: Patience) -> Result<(list::Page, Response), Error> {
    for tried in 1.. {
        let done = work.scheduling.call(query, patience)?;
        let response = done.result?;
        match list::parse(&done.body).and_then(|page| page.check_prefix(query)) {
            Ok(page) => return Ok((page, response)),
            Err(error) if tried < DOCUMENTS_MAX && patience.until.is_none_or(|until| Instant::now() < until) => {
                tracing::warn!(request_id = response.request_id, "{error}; asking for the page again ({tried})");
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::new(FailureKind::Protocol, Phase::List, "no page"))
}

/// Whether the pages of a listing go on: a continuation token that leads back would be followed for ever.
#[derive(Default)]
struct Progress {
    tokens: HashSet<String>,
    /// First name of the page before.
    first: Option<String>,
    names: u64,
    empty: u32,
}

impl Progress {
    fn check(&mut self, prefix: &str, page: &list::Page, request_id: &str) -> Result<(), Error> {
        let error = |why: String| {
            let mut error = Error::new(FailureKind::Protocol, Phase::Body, why);
            (error.object, error.request_id) = (format!("list {prefix}").into(), Some(request_id.into()));
            error
        };
        let first = page.objects.first().map(|object| &object.key).or(page.prefixes.first());
        let count = page.objects.len() + page.prefixes.len() + page.undecodable.len();
        self.names += count as u64;
        self.empty = if count == 0 { self.empty + 1 } else { 0 };
        if self.names > u64::from(OBJECTS_MAX) {
            let most = OBJECTS_MAX;
            return Err(error(format!(
                "the folder has more than {most} objects and sub-folders, as many as one MODEL_DIR can have: choose a deeper OSS_PATH"
            )));
        }
        let is_again = first.is_some() && first == self.first.as_ref();
        let is_known = page.next.as_ref().is_some_and(|token| !self.tokens.insert(token.clone()));
        if is_again || is_known || self.empty > EMPTY_PAGES_MAX {
            let (names, pages) = (self.names, self.tokens.len());
            return Err(error(format!(
                "the listing does not go on: after {names} names its continuation token leads back or nowhere ({pages} pages)"
            )));
        }
        self.first = first.cloned();
        Ok(())
    }
}

/// A link with the size, ETag and time of its target, which HEAD and GET of the link answer for; what a
/// listing says of it is the link object's own.
fn followed(link: &ObjectEntry, answer: Result<Finished, Error>) -> Result<Result<ObjectEntry, String>, Error> {
    let response = match answer.and_then(|done| done.result) {
        Ok(response) => response,
        Err(error) if error.retryable() => return Err(error),
        Err(error) => return Ok(Err(format!("it is a symbolic link that cannot be followed: {error}"))),
    };
    let (Some(size), Some(etag)) = (response.total, response.etag) else {
        return Ok(Err("it is a symbolic link, and HEAD names no size or no ETag of its target".into()));
    };
    let last_modified = response.last_modified.map_or(link.last_modified, |secs| (secs, 0));
    Ok(Ok(ObjectEntry { size, etag, last_modified, ..link.clone() }))
}
