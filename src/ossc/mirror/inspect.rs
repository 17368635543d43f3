//! What is to be done with each object of a listing, by what lies at its place in MODEL_DIR.
//!
//! Called by the mirror before it makes a listing real. It changes nothing. What has to be asked of OSS, or read from
//! the disk, is found out without the mirror's lock, so that no folder waits for another one's answers.

use crate::folder_files::{self, Lies};
use crate::lock::lock;
use crate::mirror::known::Known;
use crate::mirror::listing::tree::Level;
use crate::mirror::made;
use crate::mirror::made::turn;
use crate::mirror::{Mirror, RENEWAL_MAX, Reason, below};
use crate::order::failure::Failure;
use crate::work::Patience;
use ossc_cache::mark::MarkKind;
use ossc_cache::region::Object;
use ossc_net::error::shown;
use ossc_net::list::{self, ObjectEntry};
use ossc_net::{Query, crc};
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::MutexGuard;
use std::time::Instant;

/// How often a folder is looked at anew in which somebody changes files meanwhile.
const LOOKS_MAX: u32 = 4;

/// What is to be done with one object of a listing.
pub(crate) enum Step {
    /// It is there already.
    Keep,
    /// A file with its bytes is there, which no record knows.
    Take,
    /// A file of its length is there: whether it has its bytes is to be found out.
    Compare,
    /// Nothing is there.
    Make,
    /// An engine before has left the file that stands in for this very version, or for one that is gone.
    Leftover(made::Found),
    /// An empty file lies there that nothing is known of.
    Adopt(made::Found),
    /// A file of ours holds another version: the new one takes its name.
    Replace(made::Found),
    /// A folder that only engines made lies at its place, with nothing of a user's in it: it gives way.
    Turn,
    /// Something else lies at its place.
    Conflict,
}

/// The mirror's lock, what is to be done with each object, and which new large ones are programs.
type Decided<'a> = (MutexGuard<'a, Known>, HashMap<String, Step>, HashSet<String>);

impl Mirror {
    /// Decides about all objects of a folder. At the start a conflict is an error; `None` for a folder that no program has
    /// asked for and of which something would have to be asked.
    pub(crate) fn decided(
        &self,
        folder: &OwnedFd,
        path: &str,
        level: &Level,
        reason: Reason,
    ) -> Result<Option<Decided<'_>>, Failure> {
        let (mut same, mut programs) = (HashMap::new(), None);
        for look in 0..=LOOKS_MAX + 1 {
            let known = lock(&self.known);
            let mut steps = self.inspect(&known, folder, path, level, &same, reason == Reason::Start)?;
            let unsure: Vec<String> =
                steps.iter().filter(|(_, step)| matches!(step, Step::Compare)).map(|(name, _)| name.clone()).collect();
            if unsure.is_empty() || look >= LOOKS_MAX {
                steps.retain(|_, step| !matches!(step, Step::Compare));
                if let Some(programs) = programs.take().or_else(|| self.no_programs(level, &steps)) {
                    return Ok(Some((known, steps, programs)));
                }
            }
            drop(known);
            if reason == Reason::Ahead {
                return Ok(None);
            }
            for name in unsure {
                let Some(object) = level.objects.get(&name) else { continue };
                let is_same = self.is_same(folder, &name, object)?;
                same.insert(name, is_same);
            }
            programs = Some(self.programs(folder, path, level, &steps));
        }
        Err(Failure::Local(format!("the folder {path:?} in MODEL_DIR changes all the time")))
    }

    /// Looks at each object's place before anything is changed. At the start a conflict is an error; later
    /// the object is left out.
    fn inspect(
        &self,
        known: &Known,
        folder: &OwnedFd,
        path: &str,
        level: &Level,
        same: &HashMap<String, bool>,
        strict: bool,
    ) -> Result<HashMap<String, Step>, Failure> {
        let mut steps = HashMap::new();
        for (name, object) in &level.objects {
            let lies = match folder_files::look(folder, name) {
                Ok(lies) => lies,
                Err(e) if folder_files::refuses_name(e) => {
                    tracing::warn!(
                        key = object.key,
                        "not mirrored: the file system of MODEL_DIR refuses its name: {e}"
                    );
                    continue;
                }
                Err(e) => return Err(Failure::Local(format!("{}: {e}", shown(name)))),
            };
            let ours = known.object(path, name).and_then(|slot| self.current(path, name, slot));
            let step = match (lies, ours) {
                (Lies::Nothing, _) => Step::Make,
                (Lies::Folder, _) if turn::gives_way(folder, name) => Step::Turn,
                (lies, Some(ours)) if *ours.etag() == *object.etag && ours.size() == object.size => {
                    self.moved_back(folder, (path, name), (lies, ours), object).map_or(Step::Keep, Step::Leftover)
                }
                (Lies::File(_), ours) => self.step(folder, name, object, (ours, same)),
                _ => Step::Conflict,
            };
            if matches!(step, Step::Conflict) {
                let why = format!(
                    "{} in MODEL_DIR is neither empty nor the object {}: empty the folder or choose another one",
                    shown(name),
                    shown(&object.key)
                );
                if strict {
                    return Err(Failure::Local(why));
                }
                tracing::error!("{why}; it is not served");
            }
            steps.insert(name.clone(), step);
        }
        Ok(steps)
    }

    /// The file that lies at a known object's place where it is not the one of the object's record: an earlier one that was
    /// made for this very version and place, and was moved back over the one that was made again meanwhile.
    fn moved_back(
        &self,
        folder: &OwnedFd,
        (path, name): (&str, &str),
        (lies, ours): (Lies, &Object),
        object: &ObjectEntry,
    ) -> Option<made::Found> {
        let is_another = lies == Lies::File(0) && made::is_another(folder, name, ours);
        let found = is_another.then(|| made::look(folder, name).ok()).flatten()?;
        let path = below(path, name);
        found.stands_for(&self.purpose(MarkKind::Placeholder, &path, Some(object))).then_some(found)
    }

    /// What becomes of a file that lies at an object's place and is not known to hold this version. `ours` is the
    /// record of the version before; `same` says which files have the bytes of their objects, as far as it is known.
    fn step(
        &self,
        folder: &OwnedFd,
        name: &str,
        object: &ObjectEntry,
        (ours, same): (Option<&Object>, &HashMap<String, bool>),
    ) -> Step {
        let Ok(found) = made::look(folder, name) else { return Step::Conflict };
        let is_empty = found.id.size == 0;
        let made = found.made.as_ref();
        let stands_in = made.is_some_and(|made| made.kind.stands_in());
        // The file of the version before, or one that an engine before has left: with a changed time it still
        // has no byte that could be a user's.
        let is_placeholder = is_empty && (stands_in || ours.is_some_and(|ours| found.is_stand_in_of(ours)));
        let has_bytes = (found.id.size == object.size).then(|| same.get(name).copied());
        match () {
            _ if is_placeholder && object.size > 0 => Step::Leftover(found),
            _ if is_placeholder || found.is_own() && ours.is_some() => Step::Replace(found),
            _ if is_empty && made.is_none() && (object.size > 0 || found.is_copy) => Step::Adopt(found),
            _ if is_empty && object.size == 0 => Step::Keep,
            _ if has_bytes == Some(None) => Step::Compare,
            _ if has_bytes == Some(Some(true)) => Step::Take,
            // An engine before has made it, of a version that is no longer there.
            _ if found.is_own() => Step::Replace(found),
            _ => Step::Conflict,
        }
    }

    /// True if the file at an object's place holds its bytes: by MD5 where the ETag is one, else by CRC-64.
    fn is_same(&self, folder: &OwnedFd, name: &str, object: &ObjectEntry) -> Result<bool, Failure> {
        let etag = object.etag.trim_matches('"');
        let local = |e: std::io::Error| Failure::Local(format!("{}: {e}", shown(name)));
        if etag.len() == 32 && object.kind == list::Type::Normal {
            let mut sum = md5::Context::new();
            folder_files::read_file(folder, name, |bytes| sum.consume(bytes)).map_err(local)?;
            return Ok(format!("{:x}", sum.finalize()).eq_ignore_ascii_case(etag));
        }
        let head = Query::Head { key: object.key.clone() };
        let until = Some(Instant::now() + RENEWAL_MAX);
        let patience = Patience { attempts: self.options.list_attempts, until, outlasts: false };
        let done = self.work.scheduling.call(&head, patience).map_err(|e| Failure::List(Box::new(e)))?;
        let Some(expected) = done.result.ok().and_then(|response| response.crc64_object) else {
            return Ok(false);
        };
        let mut sum = crc::Crc::new();
        folder_files::read_file(folder, name, |bytes| sum.update(bytes)).map_err(local)?;
        Ok(sum.value() == expected)
    }
}
