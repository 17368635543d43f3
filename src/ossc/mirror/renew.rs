//! Folders again: when a listing is too old for a program's first use, what a newer one changes, and how programs
//! learn that what they had of a folder is no longer what it shows.
//!
//! Called at the start, by the mirror's thread for what programs touch and for objects that have changed on OSS. It never shows half of a
//! listing unannounced: while one is made real the folder's `changes` are odd, and what it replaces is marked before.

use crate::lock::lock;
use crate::mirror::inspect::Step;
use crate::mirror::known::{Known, NotListed};
use crate::mirror::listing;
use crate::mirror::listing::quiet::{self, Before, Unquiet};
use crate::mirror::listing::tree::Level;
use crate::mirror::made;
use crate::mirror::{Mirror, RENEWAL_MAX, Reason, below};
use crate::order::Look;
use crate::order::failure::Failure;
use crate::work::Patience;
use ossc_cache::region::{Object, RecordKind, state};
use ossc_cache::sys;
use ossc_net::list::ObjectEntry;
use rustix::fs::AtFlags;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a listing that a program waits for may take.
const LISTING_MAX: Duration = Duration::from_secs(60);
/// Pages of a listing that no program waits for.
const AHEAD_PAGES: u32 = 1;

/// When a listing was asked for.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    /// Milliseconds of the monotonic clock.
    pub ms: u64,
    /// The time of day.
    pub at: SystemTime,
}

impl Asked {
    pub fn now() -> Asked {
        Asked { ms: sys::now_ms(), at: SystemTime::now() }
    }
}

/// A listing with changes is being made real; programs wait for its end, which comes however this is left.
pub(crate) struct Changing<'a> {
    folder: &'a Object,
}

/// The record that a version had until a newer listing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Superseded {
    pub slot: u32,
    /// Which use of the record is the version's.
    pub incarnation: u32,
}

impl<'a> Changing<'a> {
    fn begin(folder: &'a Object) -> Changing<'a> {
        if !folder.is_changing() {
            folder.changes.fetch_add(1, Ordering::SeqCst);
        }
        Changing { folder }
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.folder.changes.fetch_add(1, Ordering::SeqCst);
    }
}

/// A folder that is to be listed.
pub(crate) struct Due {
    pub path: String,
    pub slot: u32,
    pub reason: Reason,
}

impl Due {
    /// No program has asked for it.
    pub fn is_ahead(&self) -> bool {
        self.reason == Reason::Ahead
    }
}

/// How new the listing of a folder has to be: not asked for before this time, in milliseconds of the monotonic clock. A
/// listing that takes longer than `listAgainSec` is new enough for who has waited for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Since(pub u64);

impl Mirror {
    /// What is to be listed next so that the listing of a folder (path relative to MODEL_DIR) is as new as wanted: itself,
    /// or the first unlisted one above it; `None` if it is. What is not in the bucket is no error: there is nothing to
    /// wait for.
    pub(crate) fn due(&self, path: &str, since: Since) -> Option<Due> {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        // The root folder is the first of all.
        for end in (!path.is_empty()).then_some(0).into_iter().chain(ends) {
            let slot = lock(&self.known).folder(&path[..end])?;
            let is_last = end == path.len();
            let reason = match self.is_unlisted(slot) {
                true if is_last => Reason::Touched,
                true => Reason::Background,
                false if is_last && self.is_too_old(slot, since) => Reason::Refresh,
                false => continue,
            };
            return Some(Due { path: path[..end].to_string(), slot, reason });
        }
        None
    }

    /// The next folder that may be listed ahead of its use, if there is one.
    pub(crate) fn due_ahead(&self) -> Option<Due> {
        loop {
            let mut known = lock(&self.known);
            let path = known.next_ahead()?;
            if let Some(slot) = known.folder(&path).filter(|slot| self.is_unlisted(*slot)) {
                return Some(Due { path, slot, reason: Reason::Ahead });
            }
        }
    }

    /// Lists a folder, again and again until it is quiet, but not beyond `until`.
    pub(crate) fn list_quiet(&self, path: &str, slot: u32, until: Instant) -> Result<(), Failure> {
        let reason = Reason::Start;
        let patience = Patience {
            attempts: self.options.start_attempts,
            until: Some(Instant::now() + self.options.start_within),
            outlasts: true,
        };
        loop {
            let Some((level, asked)) = self.fetch_listing(path, patience, u32::MAX)? else {
                return Ok(());
            };
            if level.objects.is_empty() && level.folders.is_empty() {
                return Err(Failure::Empty(self.location.clone()));
            }
            let before = self.before(path, slot, &level);
            if let Some(unquiet) = quiet::look(&level, before, self.options.list_again.as_secs()) {
                let wait = Duration::from_secs(unquiet.wait_secs);
                if Instant::now() + wait <= until {
                    self.say_unquiet(path, &unquiet);
                    let (name, ago) = (ossc_net::error::shown(&unquiet.name), unquiet.ago_secs);
                    self.work.scheduling.waits_for(&format!(
                        "objects to be left alone for listAgainSec, since {name} was changed {ago} s before"
                    ));
                    std::thread::sleep(wait);
                    continue;
                }
                self.warn_unquiet(path, &unquiet);
            }
            return self.make_real(path, slot, reason, &level, asked);
        }
    }

    /// Asks OSS what is in a folder, in so many pages at most: `None` if there are more.
    pub(super) fn fetch_listing(
        &self,
        path: &str,
        patience: Patience,
        pages: u32,
    ) -> Result<Option<(Level, Asked)>, Failure> {
        let prefix = if path.is_empty() { self.prefix.clone() } else { format!("{}{path}/", self.prefix) };
        let asked = Asked::now();
        let level = listing::fetch(&self.work, &prefix, patience, pages);
        level.map(|level| level.map(|level| (level, asked))).map_err(|e| Failure::List(Box::new(e)))
    }

    /// What was known of a folder before this listing of it.
    fn before(&self, path: &str, slot: u32, level: &Level) -> Before {
        if self.is_unlisted(slot) {
            let left = |folder: OwnedFd| level.objects.iter().any(|(name, object)| leaves_other(&folder, name, object));
            return if self.root.folder(path).is_ok_and(left) { Before::Other } else { Before::Nothing };
        }
        let known = lock(&self.known).named_objects_of(path);
        let is_same = |(name, slot): &(String, u32)| {
            let record = self.work.region().object(*slot);
            record.is_some_and(|record| level.objects.get(name).is_some_and(|object| record.etag() == object.etag))
        };
        // Empty objects have no record.
        let filled = level.objects.values().filter(|object| object.size > 0).count();
        if known.len() == filled && known.iter().all(is_same) { Before::Same } else { Before::Other }
    }

    fn is_too_old(&self, slot: u32, Since(ms): Since) -> bool {
        self.work.region().object(slot).is_some_and(|folder| folder.listed_ms.load(Ordering::Acquire) < ms)
    }

    /// Lists what is due. With `impatient` a folder that is being changed is shown as it is.
    ///
    /// # Errors
    /// A folder that was never listed and cannot be. One that was is served on as it is, with a line in the log.
    pub(crate) fn list_one(&self, due: &Due, impatient: bool) -> Result<Look, Failure> {
        let done = self.list_or_fail(due, impatient);
        if let Err(why) = done.as_ref().map_err(ToString::to_string)
            && !due.is_ahead()
        {
            let mut known = lock(&self.known);
            known.not_listed(&due.path, NotListed { why, shows_older: due.reason == Reason::Refresh });
            self.count_unlisted(&known);
        }
        match done {
            Err(failure) if due.reason == Reason::Refresh => {
                self.not_renewed(&due.path, due.slot, &failure);
                Ok(Look::Done)
            }
            done => done,
        }
    }

    /// For the line that ends a load.
    pub(crate) fn count_unlisted(&self, known: &Known) {
        let count = known.unlisted().len() as u64;
        self.work.register.counters.folders_not_listed.store(count, Ordering::Relaxed);
    }

    /// Folders that could not be listed, or listed again, when that was tried last, with the reasons.
    pub fn unlisted(&self) -> BTreeMap<String, NotListed> {
        lock(&self.known).unlisted().clone()
    }

    fn list_or_fail(&self, due: &Due, impatient: bool) -> Result<Look, Failure> {
        let Due { path, slot, reason } = due;
        let (slot, reason) = (*slot, *reason);
        let is_renewal = reason == Reason::Refresh;
        if is_renewal && let Some(failure) = self.is_away() {
            return Err(failure);
        }
        let (most, pages) = match reason {
            // What no program has asked for must not cost much.
            Reason::Ahead => (RENEWAL_MAX, AHEAD_PAGES),
            Reason::Refresh => (RENEWAL_MAX, u32::MAX),
            // As long as a program waits for it.
            _ => (LISTING_MAX, u32::MAX),
        };
        let attempts = if reason == Reason::Ahead { 1 } else { self.options.list_attempts };
        let patience = Patience { attempts, until: Some(Instant::now() + most), outlasts: false };
        let answer = self.fetch_listing(path, patience, pages);
        let answer = answer.inspect_err(|failure| {
            if let Failure::List(error) = failure
                && error.retryable()
                && reason != Reason::Ahead
            {
                *lock(&self.away_since) = Some(Instant::now());
            }
        })?;
        *lock(&self.away_since) = None;
        let Some((level, asked)) = answer else {
            tracing::debug!(folder = path, "not listed ahead: it has more than one page");
            return Ok(Look::Done);
        };
        let before = self.before(path, slot, &level);
        match quiet::look(&level, before, self.options.list_again.as_secs()) {
            Some(unquiet) if !impatient => {
                self.say_unquiet(path, &unquiet);
                return Ok(Look::Wait(Duration::from_secs(unquiet.wait_secs)));
            }
            Some(unquiet) => self.warn_unquiet(path, &unquiet),
            None => {}
        }
        self.make_real(path, slot, reason, &level, asked).map(|()| Look::Done)
    }

    /// OSS did not answer just now: a burst of programs and folders waits for that once.
    fn is_away(&self) -> Option<Failure> {
        let since = (*lock(&self.away_since))?;
        let text = "OSS did not answer a moment ago";
        (since.elapsed() < self.options.list_again).then_some(Failure::Away(text))
    }

    /// What is known of the folder is served on, and counts as new for as long as a listing does.
    fn not_renewed(&self, path: &str, slot: u32, failure: &Failure) {
        if let Some(folder) = self.work.region().object(slot) {
            folder.listed_ms.store(sys::now_ms(), Ordering::Release);
        }
        let listed = lock(&self.known).listed_at(path);
        let since = listed.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        tracing::warn!(
            folder = path,
            listed_unix_secs = since.map(|since| since.as_secs()),
            listed_secs_ago = listed.and_then(|at| at.elapsed().ok()).map(|age| age.as_secs()),
            "not listed again: programs get the folder as it was listed then: {failure}"
        );
    }

    pub(crate) fn say_unquiet(&self, path: &str, unquiet: &Unquiet) {
        let object = self.key(path, unquiet);
        tracing::info!(object, "changed {} s ago: waiting until the folder is quiet", unquiet.ago_secs);
    }

    pub(crate) fn warn_unquiet(&self, path: &str, unquiet: &Unquiet) {
        let object = self.key(path, unquiet);
        tracing::warn!(
            object,
            "changed {} s ago, and the folder has not been quiet for as long as programs wait: shown as it is now",
            unquiet.ago_secs
        );
    }

    fn key(&self, path: &str, unquiet: &Unquiet) -> String {
        format!("{}{}", self.prefix, below(path, &unquiet.name))
    }

    /// A listing of this folder is about to be made real: marks what it replaces, and says that names may lead to either
    /// version until the returned value is dropped. `None` if the listing shows what is known.
    ///
    /// What is replaced is known no more from here on, whatever becomes of its successor: its record ends when nobody
    /// uses it, and is another object's then.
    pub(crate) fn begin_changes(
        &self,
        known: &mut Known,
        (path, slot): (&str, u32),
        level: &Level,
        steps: &HashMap<String, Step>,
    ) -> (Option<Changing<'_>>, HashMap<String, Superseded>) {
        let mut old = HashMap::new();
        for (name, slot) in known.named_objects_of(path) {
            let record = self.current(path, &name, slot);
            let is_same =
                |record: &Object| level.objects.get(&name).is_some_and(|object| *record.etag() == *object.etag);
            if record.is_some_and(is_same) {
                continue;
            }
            known.remove_object(path, &name);
            if let Some(record) = record {
                old.insert(name, Superseded { slot, incarnation: record.incarnation() });
            }
        }
        let is_made = |name: &String| !matches!(steps.get(name), None | Some(Step::Keep | Step::Conflict));
        let is_new = |(name, object): (&String, &ObjectEntry)| {
            object.size > 0 && is_made(name) && known.object(path, name).is_none()
        };
        let is_other = !old.is_empty() || !self.is_unlisted(slot) && level.objects.iter().any(is_new);
        let changing = self.work.region().object(slot).filter(|_| is_other).map(Changing::begin);
        old.values().for_each(|before| self.supersede(before.slot));
        (changing, old)
    }

    /// The record that is known for an object, while it is that object's and the folder's version.
    pub(crate) fn current(&self, path: &str, name: &str, slot: u32) -> Option<&Object> {
        let region = self.work.region();
        let object = region.object(slot)?;
        let is_living = object.state() != state::GONE && !object.is_superseded();
        (is_living && region.name(object) == *below(path, name)).then_some(object)
    }

    /// The engine before ended while it made a listing real: the folder is listed again at its next use.
    pub(crate) fn finish_changes(&self, folder: &Object) {
        if folder.is_changing() {
            folder.listed_ms.store(0, Ordering::Release);
            folder.changes.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The folder shows another version of this object now, or none.
    pub(crate) fn supersede(&self, slot: u32) {
        let Some(object) = self.work.region().object(slot) else { return };
        if object.is_superseded() {
            return;
        }
        self.work.objects.supersede(slot);
        if object.kind() == RecordKind::Small && !object.is_in_the_way() {
            self.uncount(object.size());
        }
        if object.kind() == RecordKind::Small && object.state() == state::COMING {
            self.work.entry(slot).into_iter().for_each(|entry| self.work.transfers.materializer.is_over(&entry));
            // Programs that wait for it open what is there now.
            object.set_state(state::PLACED);
        }
    }

    /// Removes the files of objects that OSS has no longer, unless a user has changed them.
    pub(crate) fn clear_away(&self, folder: &OwnedFd, path: &str, level: &Level, old: &HashMap<String, Superseded>) {
        for (name, before) in old.iter().filter(|(name, _)| !level.objects.contains_key(*name)) {
            let is_ours =
                self.work.region().object(before.slot).is_some_and(|object| is_untouched(object, folder, name));
            if !is_ours {
                continue;
            }
            self.work.residency.keep_stand(before.slot);
            let removed = rustix::fs::unlinkat(folder, name.as_str(), AtFlags::empty());
            self.work.residency.drop_stand(before.slot);
            if removed.is_ok() {
                tracing::info!(folder = path, name, "removed: OSS has it no longer");
            }
        }
    }

    /// An object has a name that was a folder's, in which nothing of a user's lies.
    pub(crate) fn turn(&self, known: &mut Known, folder: &OwnedFd, path: &str, name: &str) {
        let (folders, objects) = known.remove_folder(&below(path, name));
        objects.into_iter().for_each(|slot| self.supersede(slot));
        folders.into_iter().for_each(|slot| self.forget_folder(slot));
        crate::mirror::made::turn::remove(folder, name);
        tracing::info!(folder = path, name, "a folder has given way to the object of its name");
    }
}

/// True if what lies at a record's place is what the engine has put there, and it was not changed since.
fn is_untouched(object: &Object, folder: &OwnedFd, name: &str) -> bool {
    made::look(folder, name).is_ok_and(|found| found.is_own() || found.is_stand_in_of(object))
}

/// True if what lies at an object's place tells of another version: a file that an engine before has made for it.
fn leaves_other(folder: &OwnedFd, name: &str, object: &ObjectEntry) -> bool {
    let Ok(found) = made::look(folder, name) else { return false };
    match found.etag() {
        Some(etag) => etag != object.etag,
        None => found.is_own() && found.id.size > 0 && found.id.size != object.size,
    }
}
