//! One folder of OSS_PATH as OSS lists it: all its pages, symbolic links followed, sorted into what can be
//! mirrored and what cannot.
//!
//! Called by the mirror, whose thread waits for the answers. It touches no file and no record.

use crate::tree::Level;
use crate::work::{Patience, Work};
use ossc_net::list::{self, ObjectEntry, Type};
use ossc_net::{Error, Finished, Query};

/// Links whose targets are asked for at a time.
const LINKS_AT_ONCE: usize = 256;

/// Lists the keys below `prefix` (empty, or ending in `/`), one level deep.
///
/// # Errors
/// Of the listing itself, or of what a link leads to if that may be had later; a link that leads nowhere is
/// skipped with its reason.
pub fn fetch(work: &Work, prefix: &str, patience: Patience) -> Result<Level, Error> {
    let (mut objects, mut prefixes, mut skipped, mut continuation) = (Vec::new(), Vec::new(), Vec::new(), None);
    let mut date = None;
    loop {
        let query = Query::List { prefix: prefix.to_string(), delimiter: Some("/".into()), continuation };
        let done = work.call(&query, patience)?;
        let page = list::parse(&done.body)?;
        // Of the first page: what changes while later ones come is not older than it seems.
        date = date.or(done.result?.date);
        skipped.extend(page.undecodable.into_iter().map(|key| (key, "the key is not UTF-8".to_string())));
        objects.extend(page.objects);
        prefixes.extend(page.prefixes);
        continuation = page.next;
        if continuation.is_none() {
            break;
        }
    }
    let (links, mut objects): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| object.kind == Type::Symlink);
    for some in links.chunks(LINKS_AT_ONCE) {
        let queries: Vec<Query> = some.iter().map(|link| Query::Head { key: link.key.clone() }).collect();
        for (link, answer) in some.iter().zip(work.call_all(&queries, patience)) {
            match followed(link, answer)? {
                Ok(object) => objects.push(object),
                Err(why) => skipped.push((link.key.clone(), why)),
            }
        }
    }
    let mut level = Level::new(prefix, objects, &prefixes);
    level.skipped.extend(skipped);
    level.date = date;
    Ok(level)
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
