//! Folders again: when a listing is too old for a program's first use, what a newer one changes, and how programs
//! learn that what they had of a folder is no longer what it shows.
//!
//! Called at the start, by the mirror's thread for what programs touch and for objects that have changed on OSS. It never shows half of a
//! listing unannounced: while one is made real the folder's `changes` are odd, and what it replaces is marked before.

use crate::failure::Failure;
use crate::held::lock;
use crate::known::Known;
use crate::listing;
use crate::made;
use crate::mirror::{Mirror, Reason, Step, below};
use crate::quiet::{self, Before, Unquiet};
use crate::tree::Level;
use crate::work::Patience;
use ossc_cache::region::{Kind, Object, state};
use ossc_cache::sys::{self, FileId};
use ossc_net::list::ObjectEntry;
use rustix::fs::AtFlags;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long OSS is asked for a newer listing before what is known is served on, and for what a listing needs to know of
/// its objects beside.
pub(crate) const RENEWAL_MAX: Duration = Duration::from_secs(10);

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

/// What came of a look at a folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// The folder shows a listing that is new enough, or the newest that could be had.
    Done,
    /// It is being changed on OSS: to be looked at again after this long.
    Wait(Duration),
}

/// How old the listing of a folder may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// `listAgainSec`.
    Fresh,
    /// Not asked for before this time, in milliseconds of the monotonic clock.
    Since(u64),
}

impl Mirror {
    /// Lists a folder (path relative to MODEL_DIR) whose listing is not as new as wanted, and the unlisted ones above it.
    /// What is not in the bucket is no error: there is nothing to wait for. With `impatient` a folder that is being
    /// changed is shown as it is.
    ///
    /// # Errors
    /// A folder that was never listed and cannot be. One that was is served on as it is, with a line in the log.
    pub fn look(&self, path: &str, wanted: Wanted, impatient: bool) -> Result<Look, Failure> {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            let Some(slot) = lock(&self.known).folder(&path[..end]) else { return Ok(Look::Done) };
            let is_last = end == path.len();
            let reason = match self.is_unlisted(slot) {
                true if is_last => Reason::Touched,
                true => Reason::Background,
                false if is_last && self.is_too_old(slot, wanted) => Reason::Refresh,
                false => continue,
            };
            if let wait @ Look::Wait(_) = self.list_one(&path[..end], slot, reason, impatient)? {
                return Ok(wait);
            }
        }
        Ok(Look::Done)
    }

    /// Lists one folder that no program has touched yet; false if there is none left. A folder that may not be listed,
    /// or is being changed, is left to the program that touches it, and keeps no other from being listed.
    pub fn list_ahead(&self) -> Result<bool, Failure> {
        let Some((path, slot)) = lock(&self.known).next_unlisted() else { return Ok(false) };
        match self.list_one(&path, slot, Reason::Ahead, false) {
            Err(Failure::List(error)) if !error.retryable() => {
                tracing::warn!(folder = path, "not listed ahead: {error}");
            }
            Ok(Look::Wait(_)) => {}
            done => return done.map(|_| true),
        }
        lock(&self.known).not_ahead(slot);
        Ok(true)
    }

    /// Lists a folder, again and again until it is quiet, but not beyond `until`.
    pub(crate) fn list_quiet(&self, path: &str, slot: u32, reason: Reason, until: Instant) -> Result<(), Failure> {
        let attempts = if reason == Reason::Start { self.options.start_attempts } else { self.options.list_attempts };
        loop {
            let (level, asked) = self.ask(path, attempts, None)?;
            if reason == Reason::Start && level.objects.is_empty() && level.folders.is_empty() {
                return Err(Failure::Empty(self.location.clone()));
            }
            let before = self.before(path, slot, &level);
            if let Some(unquiet) = quiet::look(&level, before, self.options.list_again.as_secs()) {
                let wait = Duration::from_secs(unquiet.wait_secs);
                if Instant::now() + wait <= until {
                    self.say_unquiet(path, &unquiet);
                    std::thread::sleep(wait);
                    continue;
                }
                self.warn_unquiet(path, &unquiet);
            }
            return self.make_real(path, slot, reason, &level, asked);
        }
    }

    /// Asks OSS what is in a folder.
    fn ask(&self, path: &str, attempts: u32, until: Option<Instant>) -> Result<(Level, Asked), Failure> {
        let prefix = if path.is_empty() { self.prefix.clone() } else { format!("{}{path}/", self.prefix) };
        let asked = Asked::now();
        let level = listing::fetch(&self.work, &prefix, Patience { attempts, until });
        level.map(|level| (level, asked)).map_err(|e| Failure::List(Box::new(e)))
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

    fn is_too_old(&self, slot: u32, wanted: Wanted) -> bool {
        let Some(folder) = self.work.region().object(slot) else { return false };
        let asked_ms = folder.listed_ms.load(Ordering::Acquire);
        match wanted {
            Wanted::Fresh => u128::from(sys::now_ms().saturating_sub(asked_ms)) > self.options.list_again.as_millis(),
            Wanted::Since(ms) => asked_ms < ms,
        }
    }

    fn list_one(&self, path: &str, slot: u32, reason: Reason, impatient: bool) -> Result<Look, Failure> {
        match self.list_or_fail(path, slot, reason, impatient) {
            Err(failure) if reason == Reason::Refresh => {
                self.not_renewed(path, slot, &failure);
                Ok(Look::Done)
            }
            done => done,
        }
    }

    fn list_or_fail(&self, path: &str, slot: u32, reason: Reason, impatient: bool) -> Result<Look, Failure> {
        let is_renewal = reason == Reason::Refresh;
        if is_renewal && let Some(failure) = self.is_away() {
            return Err(failure);
        }
        // What no program waits for must not hold up what others wait for, for long.
        let until = matches!(reason, Reason::Refresh | Reason::Ahead).then(|| Instant::now() + RENEWAL_MAX);
        let (level, asked) = self.ask(path, self.options.list_attempts, until).inspect_err(|failure| {
            if let Failure::List(error) = failure
                && error.retryable()
            {
                *lock(&self.away_since) = Some(Instant::now());
            }
        })?;
        *lock(&self.away_since) = None;
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
        self.work.supersede(slot);
        if object.kind() == Kind::Small {
            self.uncount(object.size());
        }
        if object.kind() == Kind::Small && object.state() == state::COMING {
            self.work.held(slot).into_iter().for_each(|held| self.work.small_is_over(&held));
            // Programs that wait for it open what is there now.
            object.set_state(state::PLACED);
        }
    }

    /// Removes the files of objects that OSS has no longer, unless a user has changed them.
    pub(crate) fn clear_away(&self, folder: &OwnedFd, path: &str, level: &Level, old: &HashMap<String, Superseded>) {
        for (name, before) in old.iter().filter(|(name, _)| !level.objects.contains_key(*name)) {
            let is_ours =
                self.work.region().object(before.slot).is_some_and(|object| is_untouched(object, folder, name));
            if is_ours && rustix::fs::unlinkat(folder, name.as_str(), AtFlags::empty()).is_ok() {
                tracing::info!(folder = path, name, "removed: OSS has it no longer");
            }
        }
    }

    /// An object has a name that was a folder's, in which nothing of a user's lies.
    pub(crate) fn turn(&self, known: &mut Known, folder: &OwnedFd, path: &str, name: &str) {
        let (folders, objects) = known.remove_folder(&below(path, name));
        objects.into_iter().for_each(|slot| self.supersede(slot));
        folders.into_iter().for_each(|slot| self.forget_folder(slot));
        crate::turn::remove(folder, name);
        tracing::info!(folder = path, name, "a folder has given way to the object of its name");
    }
}

/// True if what lies at a record's place is what the engine has put there, and it was not changed since.
fn is_untouched(object: &Object, folder: &OwnedFd, name: &str) -> bool {
    let is_placeholder = |id: &FileId| id.size == 0 && (id.dev, id.ino) == (object.dev(), object.ino());
    made::look(folder, name).is_ok_and(|found| found.is_own() || is_placeholder(&found.id))
}

/// True if what lies at an object's place tells of another version: a file that an engine before has made for it.
fn leaves_other(folder: &OwnedFd, name: &str, object: &ObjectEntry) -> bool {
    let Ok(found) = made::look(folder, name) else { return false };
    match found.etag() {
        Some(etag) => etag != object.etag,
        None => found.is_own() && found.id.size > 0 && found.id.size != object.size,
    }
}
