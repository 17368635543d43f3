//! MODEL_DIR as the image of OSS_PATH: lists folders, makes sub-folders and placeholders, puts small
//! objects into real files, and says what is to be fetched ahead.
//!
//! Called by the engine at its start (root folder), by its mirror thread (folders that programs touch,
//! then the others in the background), and by its file thread (small objects). Nothing of a user's is
//! overwritten; what cannot be mirrored is skipped with a warning.

use crate::choose;
use crate::failure::Failure;
use crate::held::{Held, lock};
use crate::item::Arrived;
use crate::known::Known;
use crate::listing;
use crate::made::{self, Purpose};
use crate::place::{self, Lies, Pinned, Root};
use crate::tree::Level;
use crate::work::Work;
use ossc_cache::mark;
use ossc_cache::pages::Store;
use ossc_cache::region::{Kind, NewObject, Object, state};
use ossc_net::error::shown;
use ossc_net::list::{self, ObjectEntry};
use ossc_net::{Query, crc};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Parts are at least this long, so that a huge page (2 MiB) has one filler.
const PART_BYTES_MIN: u64 = 2 << 20;
/// Objects are cut into about this many parts, until the parts reach `partBytes`.
const PARTS_AIM: u64 = 16;

/// Sizes that decide how objects are represented.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Objects up to this many bytes become real files.
    pub materialize_bytes_max: u64,
    /// As long as they are together not more than this.
    pub materialize_total_max: u64,
    /// Longest part.
    pub part_bytes_max: u64,
    /// Requests for a page of the root folder at the start.
    pub start_attempts: u32,
    /// Requests for any other page, or for an object's facts.
    pub list_attempts: u32,
}

/// See the module.
pub struct Mirror {
    root: Root,
    work: Arc<Work>,
    store: Store,
    location: String,
    prefix: String,
    options: Options,
    materialized: AtomicU64,
    /// Held over a whole listing: one folder is listed at a time.
    known: Mutex<Known>,
}

/// Why a folder is listed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// The engine starts: a conflict is an error.
    Start,
    /// A program touched it: its weights are fetched ahead.
    Touched,
    /// Nobody touched it yet.
    Background,
    /// Again, since an object has changed or another engine had listed it.
    Refresh,
}

/// Path of `name` in the folder `path`.
fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}/{name}") }
}

/// What is to be done with one object of a listing.
enum Step {
    /// It is there already.
    Keep,
    /// Nothing is there.
    Make,
    /// An engine before has left the file that stands in for this very version, or for one that is gone.
    Leftover(made::Found),
    /// An empty file lies there that nothing is known of.
    Adopt,
    /// A file of ours holds another version: the new one takes its name.
    Replace(made::Found),
    /// Something else lies at its place.
    Conflict,
}

/// Removes what an engine before has left in a folder and OSS does not have.
fn sweep(folder: &OwnedFd, path: &str, level: &Level) {
    let is_wanted = |name: &str| level.objects.contains_key(name) || level.folders.iter().any(|folder| folder == name);
    let swept = made::sweep(folder, path, is_wanted).unwrap_or_default();
    for path in swept.removed {
        tracing::info!(path, "removed: an engine before has made it, and OSS has it no longer");
    }
    for path in swept.changed {
        tracing::warn!(
            path,
            "an engine before has made this empty file, OSS has it no longer, and it was moved or changed since: it stays, and reading it is an error"
        );
    }
}

impl Mirror {
    /// Nothing mirrored yet. `location` is OSS_PATH for messages, `prefix` its key prefix.
    pub fn new(
        root: Root,
        work: Arc<Work>,
        store: Store,
        location: String,
        prefix: String,
        options: Options,
    ) -> Mirror {
        Mirror {
            root,
            work,
            store,
            location,
            prefix,
            options,
            materialized: AtomicU64::new(0),
            known: Mutex::default(),
        }
    }

    /// The memory files' store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Lists the root folder and makes it real; any conflict is an error, found before anything is changed.
    pub fn start(&self) -> Result<(), Failure> {
        let (dev, ino) = self.root.id().map_err(|e| Failure::Local(format!("MODEL_DIR: {e}")))?;
        let slot = self.append(Kind::Folder, "", state::UNLISTED, None, (dev, ino), 0)?;
        self.work.region().header().folders_unlisted.fetch_add(1, Ordering::AcqRel);
        let mut known = lock(&self.known);
        known.add_folder(String::new(), slot, false);
        self.list_one(&mut known, "", slot, Reason::Start)?;
        // A real file is opened without a question, so an old version must be gone before a program runs.
        while let Some((path, slot)) = known.filled.pop() {
            self.list_one(&mut known, &path, slot, Reason::Background)?;
        }
        Ok(())
    }

    /// Takes over the records of an engine that is gone: what has arrived stays, what was being written is
    /// fetched again. The caller then has the root folder listed again; readers do not wait for that.
    pub fn adopt(&self) -> Result<(), Failure> {
        let region = *self.work.region();
        let mut known = lock(&self.known);
        let mut unlisted = 0;
        let mut wanted = Vec::new();
        for slot in 0..region.objects_len() {
            let Some(object) = region.object(slot) else { continue };
            let name = region.name(object).to_string();
            match object.kind() {
                Kind::Folder => {
                    let is_unlisted = object.state() == state::UNLISTED;
                    unlisted += u32::from(is_unlisted);
                    known.add_folder(name, slot, is_unlisted);
                }
                Kind::Small => {
                    if self.adopt_small(slot, object, &name) {
                        known.add_object(&name, slot);
                    }
                }
                Kind::Large => {
                    if self.adopt_large(slot, object, &name) {
                        wanted.push(slot);
                    }
                    known.add_object(&name, slot);
                }
            }
        }
        region.header().folders_unlisted.store(unlisted, Ordering::Release);
        tracing::warn!(
            objects = known.objects_len(),
            ready_bytes = region.header().ready_bytes.load(Ordering::Relaxed),
            "took over from an engine that is gone"
        );
        self.work.prefetch(&wanted);
        match known.folder("").is_some() {
            true => Ok(()),
            false => Err(Failure::Local("the catalog of the engine before has no root".into())),
        }
    }

    /// True if the object's file may still be ours.
    fn adopt_small(&self, slot: u32, object: &Object, name: &str) -> bool {
        match (object.state(), self.repin(object, name)) {
            (state::COMING | state::FAILED, Some(pinned)) => {
                self.materialized.fetch_add(object.size, Ordering::AcqRel);
                let held = self.held_again(object, name, pinned);
                self.work.hold(slot, held);
                object.set_state(state::COMING);
                self.work.fetch_small(slot);
                true
            }
            _ => {
                object.set_state(state::GONE);
                false
            }
        }
    }

    /// True if it is worth fetching on.
    fn adopt_large(&self, slot: u32, object: &Object, name: &str) -> bool {
        let region = self.work.region();
        let (Some(pinned), Ok(memory)) = (self.repin(object, name), self.store.memory(slot, object.size)) else {
            // Its inode number may go to somebody else now, so nobody may read under it.
            object.fail(ossc_net::error::Kind::Changed.errno());
            return false;
        };
        if object.memory_ino.load(Ordering::Acquire) != memory.ino() {
            // The predecessor died between the record and its memory file.
            region.set_memory(slot, memory.ino());
        }
        let mut held = self.held_again(object, name, pinned);
        held.memory = Some(Box::new(memory));
        self.work.adopt(slot, object, held)
    }

    /// The placeholder of a record of an engine before, if it still lies at its place.
    fn repin(&self, object: &Object, name: &str) -> Option<Pinned> {
        let (folder, name) = name.rsplit_once('/').unwrap_or(("", name));
        let folder = self.root.folder(folder).ok()?;
        let (found, pinned) = (made::look(&folder, name).ok()?, place::pinned(&folder, name).ok()?);
        let ids = [(found.id.dev, found.id.ino), (pinned.dev, pinned.ino)];
        // The number may have gone to a file of a user's in between, which has no mark.
        let stands_in = found.id.size == 0 && found.made.as_ref().is_some_and(|made| made.kind.stands_in());
        let is_version = found.etag().is_none_or(|etag| etag == object.etag());
        (stands_in && is_version && ids == [(object.dev, object.ino); 2]).then_some(pinned)
    }

    fn held_again(&self, object: &Object, name: &str, pinned: Pinned) -> Held {
        let (folder, last) = name.rsplit_once('/').unwrap_or(("", name));
        let place = (folder.to_string(), last.to_string());
        let key = format!("{}{name}", self.prefix);
        let held = Held::new(key, object.etag().to_string(), object.size, object.mtime_secs, place);
        *lock(&held.pinned) = Some(pinned);
        held
    }

    /// Lists a folder (path relative to MODEL_DIR) that a program touched, and the unlisted ones above it.
    /// What is not in the bucket is no error: there is nothing to wait for.
    pub fn list(&self, path: &str) -> Result<(), Failure> {
        let mut known = lock(&self.known);
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            let Some(slot) = known.folder(&path[..end]) else { return Ok(()) };
            if self.is_unlisted(slot) {
                let reason = if end == path.len() { Reason::Touched } else { Reason::Background };
                self.list_one(&mut known, &path[..end], slot, reason)?;
            }
        }
        Ok(())
    }

    /// Waits until the small objects of a listed folder are real files, at most `within`: a program that reads
    /// the folder then does not see it change under its hands (tar complains of that). A slower origin only
    /// means that it may.
    pub fn wait_for_small(&self, path: &str, within: Duration) {
        let region = self.work.region();
        let known = lock(&self.known).objects_of(path);
        let until = Instant::now() + within;
        for object in known.into_iter().filter_map(|slot| region.object(slot)) {
            while object.state() == state::COMING {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return;
                }
                object.sleep(state::COMING, left.as_millis().max(1) as u64);
            }
        }
    }

    /// Lists the folder of an object that has changed again: the new version gets the name.
    pub fn refresh(&self, path: &str) -> Result<(), Failure> {
        let mut known = lock(&self.known);
        match known.folder(path) {
            Some(slot) => self.list_one(&mut known, path, slot, Reason::Refresh),
            None => Ok(()),
        }
    }

    /// Lists one folder that nobody has touched yet; false if there is none left. A folder that may not be listed
    /// is left to the program that touches it, and keeps no other from being listed.
    pub fn list_ahead(&self) -> Result<bool, Failure> {
        let mut known = lock(&self.known);
        let Some((path, slot)) = known.next_unlisted() else { return Ok(false) };
        match self.list_one(&mut known, &path, slot, Reason::Background) {
            Err(Failure::List(error)) if !error.retryable() => {
                known.not_ahead(slot);
                tracing::warn!(folder = path, "not listed ahead: {error}");
                Ok(true)
            }
            done => done.map(|()| true),
        }
    }

    fn is_unlisted(&self, slot: u32) -> bool {
        self.work.region().object(slot).is_some_and(|folder| folder.state() == state::UNLISTED)
    }

    fn list_one(&self, known: &mut Known, path: &str, slot: u32, reason: Reason) -> Result<(), Failure> {
        let root = path.is_empty();
        let prefix = if root { self.prefix.clone() } else { format!("{}{path}/", self.prefix) };
        let start = reason == Reason::Start;
        let attempts = if start { self.options.start_attempts } else { self.options.list_attempts };
        let level = listing::fetch(&self.work, &prefix, attempts).map_err(|e| Failure::List(Box::new(e)))?;
        if reason == Reason::Start && level.objects.is_empty() && level.folders.is_empty() {
            return Err(Failure::Empty(self.location.clone()));
        }
        for (key, why) in &level.skipped {
            tracing::warn!(key, "not mirrored: {why}");
        }
        let folder =
            self.root.folder(path).map_err(|e| Failure::Local(format!("folder {path:?} in MODEL_DIR: {e}")))?;
        let steps = self.inspect(known, &folder, path, &level, reason == Reason::Start)?;
        let _ = made::clean(&folder);
        if self.is_unlisted(slot) {
            sweep(&folder, path, &level);
        }
        for name in &level.folders {
            self.make_folder(known, &folder, below(path, name), name)?;
        }
        let slots = self.make(known, &folder, path, &level, &steps)?;
        for (name, object) in level.objects.iter().filter(|(_, object)| !object.needs_restore()) {
            known.object(path, name).into_iter().for_each(|slot| self.work.reconsider(slot, &object.etag));
        }
        if self.is_unlisted(slot) {
            let region = self.work.region();
            region.header().folders_unlisted.fetch_sub(1, Ordering::AcqRel);
            if let Some(folder) = region.object(slot) {
                folder.set_state(state::LISTED);
            }
            known.not_ahead(slot);
        }
        self.work.looked_at(path);
        self.work.region().header().listings.fetch_add(1, Ordering::AcqRel);
        tracing::info!(
            folder = path,
            objects = level.objects.len(),
            folders = level.folders.len(),
            skipped = level.skipped.len(),
            "listed"
        );
        if matches!(reason, Reason::Start | Reason::Touched) {
            self.plan(&level, &slots);
        }
        Ok(())
    }

    fn make_folder(&self, known: &mut Known, folder: &OwnedFd, path: String, name: &str) -> Result<(), Failure> {
        if known.folder(&path).is_some() {
            return Ok(());
        }
        let is_filled = place::is_filled(folder, name);
        match place::make_folder(folder, name) {
            Ok((made, is_new)) => {
                if is_new {
                    made::mark_folder(folder, name, &self.purpose(mark::Kind::Folder, &path, None));
                }
                let above = known.folder(path.rsplit_once('/').map_or("", |(above, _)| above)).unwrap_or(0);
                let slot = self.append(Kind::Folder, &path, state::UNLISTED, None, (made.dev, made.ino), above)?;
                self.work.region().header().folders_unlisted.fetch_add(1, Ordering::AcqRel);
                if is_filled {
                    known.filled.push((path.clone(), slot));
                }
                known.add_folder(path, slot, true);
            }
            Err(e) => tracing::error!(folder = path, "cannot make the folder, its objects are not served: {e}"),
        }
        Ok(())
    }

    /// Looks at each object's place before anything is changed. At the start a conflict is an error; later
    /// the object is left out.
    fn inspect(
        &self,
        known: &Known,
        folder: &OwnedFd,
        path: &str,
        level: &Level,
        strict: bool,
    ) -> Result<HashMap<String, Step>, Failure> {
        let mut steps = HashMap::new();
        for (name, object) in &level.objects {
            let lies = match place::look(folder, name) {
                Ok(lies) => lies,
                Err(e) if place::refuses_name(e) => {
                    tracing::warn!(
                        key = object.key,
                        "not mirrored: the file system of MODEL_DIR refuses its name: {e}"
                    );
                    continue;
                }
                Err(e) => return Err(Failure::Local(format!("{}: {e}", shown(name)))),
            };
            let ours = known.object(path, name).and_then(|slot| self.work.region().object(slot));
            let step = match (lies, ours) {
                (Lies::Nothing, _) => Step::Make,
                (_, Some(ours)) if ours.etag() == object.etag && ours.size == object.size => Step::Keep,
                (Lies::File(_), ours) => self.step(folder, name, object, ours)?,
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

    /// What becomes of a file that lies at an object's place and is not known to hold this version. `ours` is the
    /// record of the version before.
    fn step(&self, folder: &OwnedFd, name: &str, object: &ObjectEntry, ours: Option<&Object>) -> Result<Step, Failure> {
        let Ok(found) = made::look(folder, name) else { return Ok(Step::Conflict) };
        let is_empty = found.id.size == 0;
        let made = found.made.as_ref();
        let stands_in = made.is_some_and(|made| made.kind.stands_in());
        // The file of the version before, or one that an engine before has left: with a changed time it still
        // has no byte that could be a user's.
        let is_placeholder =
            is_empty && (stands_in || ours.is_some_and(|ours| (ours.dev, ours.ino) == (found.id.dev, found.id.ino)));
        Ok(match () {
            _ if is_placeholder && object.size > 0 => Step::Leftover(found),
            _ if is_placeholder || found.is_own() && ours.is_some() => Step::Replace(found),
            _ if is_empty && made.is_none() && (object.size > 0 || found.is_copy) => Step::Adopt,
            _ if found.id.size == object.size && self.is_same(folder, name, object)? => Step::Keep,
            // An engine before has made it, of a version that is no longer there.
            _ if found.is_own() => Step::Replace(found),
            _ => Step::Conflict,
        })
    }

    /// What a file is made for; without an object it is a folder.
    fn purpose<'a>(&self, kind: mark::Kind, path: &'a str, object: Option<&'a ObjectEntry>) -> Purpose<'a> {
        Purpose {
            kind,
            engine: self.work.region().engine_key(),
            etag: object.map_or("", |object| &object.etag),
            object_size: object.map_or(0, |object| object.size),
            path,
            mtime_secs: object.map_or(0, |object| object.last_modified.0),
        }
    }

    /// Gives an object the file that stands in for it.
    fn stand_in(
        &self,
        folder: &OwnedFd,
        name: &str,
        purpose: &Purpose<'_>,
        step: &Step,
    ) -> Result<Pinned, rustix::io::Errno> {
        match step {
            Step::Leftover(found) if found.stands_for(purpose) => place::pinned(folder, name),
            Step::Leftover(found) | Step::Replace(found) => made::replace(folder, name, purpose, |now| now == found),
            Step::Adopt => made::adopt(folder, name, purpose),
            _ => made::make(folder, name, purpose),
        }
    }

    /// True if the file at an object's place holds its bytes: by MD5 where the ETag is one, else by CRC-64.
    fn is_same(&self, folder: &OwnedFd, name: &str, object: &ObjectEntry) -> Result<bool, Failure> {
        let etag = object.etag.trim_matches('"');
        let local = |e: std::io::Error| Failure::Local(format!("{}: {e}", shown(name)));
        if etag.len() == 32 && object.kind == list::Type::Normal {
            let mut sum = md5::Context::new();
            place::read_file(folder, name, |bytes| sum.consume(bytes)).map_err(local)?;
            return Ok(format!("{:x}", sum.finalize()).eq_ignore_ascii_case(etag));
        }
        let head = Query::Head { key: object.key.clone() };
        let done = self.work.call(&head, self.options.list_attempts).map_err(|e| Failure::List(Box::new(e)))?;
        let Some(expected) = done.result.ok().and_then(|response| response.crc64_object) else {
            return Ok(false);
        };
        let mut sum = crc::Crc::new();
        place::read_file(folder, name, |bytes| sum.update(bytes)).map_err(local)?;
        Ok(sum.value() == expected)
    }

    /// Makes the files of a folder; gives the record numbers of its new large objects by name.
    fn make(
        &self,
        known: &mut Known,
        folder: &OwnedFd,
        path: &str,
        level: &Level,
        steps: &HashMap<String, Step>,
    ) -> Result<HashMap<String, u32>, Failure> {
        let mut slots = HashMap::new();
        for (name, object) in &level.objects {
            let Some(step) = steps.get(name).filter(|step| !matches!(step, Step::Keep | Step::Conflict)) else {
                continue;
            };
            let small = !object.needs_restore() && self.is_small(object.size);
            let kind = match object.size {
                0 => mark::Kind::Finished,
                _ if small => mark::Kind::Coming,
                _ => mark::Kind::Placeholder,
            };
            let whole_path = below(path, name);
            let made = self.stand_in(folder, name, &self.purpose(kind, &whole_path, Some(object)), step);
            let pinned = made.map_err(|e| {
                if small {
                    self.materialized.fetch_sub(object.size, Ordering::AcqRel);
                }
                Failure::Local(format!("cannot make the placeholder {} in MODEL_DIR: {e}", shown(name)))
            })?;
            // An empty object is an empty file: there is nothing to fetch.
            if object.size == 0 {
                continue;
            }
            let above = known.folder(path).unwrap_or(0);
            let slot = self.take_in((path, above), name, object, pinned, small)?;
            known.add_object(&whole_path, slot);
            // What is archived is not fetched ahead.
            if !small && !object.needs_restore() {
                slots.insert(name.clone(), slot);
            }
        }
        Ok(slots)
    }

    /// Gives an object its record; gives its number.
    fn take_in(
        &self,
        (path, folder): (&str, u32),
        name: &str,
        object: &ObjectEntry,
        pinned: Pinned,
        small: bool,
    ) -> Result<u32, Failure> {
        let place = (path.to_string(), name.to_string());
        let mut held = Held::new(object.key.clone(), object.etag.clone(), object.size, object.last_modified.0, place);
        let id = (pinned.dev, pinned.ino);
        *lock(&held.pinned) = Some(pinned);
        let path = below(path, name);
        if small {
            let slot = self.append(Kind::Small, &path, state::COMING, Some(object), id, folder)?;
            self.work.hold(slot, held);
            self.work.fetch_small(slot);
            return Ok(slot);
        }
        let region = self.work.region();
        let memory = self.store.memory(region.objects_len(), object.size).map_err(|e| {
            Failure::Local(format!(
                "no memory file for {} of {} bytes: {}",
                shown(name),
                object.size,
                std::io::Error::from_raw_os_error(e.0)
            ))
        })?;
        let ino = memory.ino();
        held.memory = Some(Box::new(memory));
        let slot = self.append(Kind::Large, &path, state::LOADING, Some(object), id, folder)?;
        region.set_memory(slot, ino);
        region.header().large_bytes.fetch_add(object.size, Ordering::Relaxed);
        self.work.hold(slot, held);
        if object.needs_restore() {
            self.work.refuse_archived(slot, object);
        }
        Ok(slot)
    }

    fn is_small(&self, size: u64) -> bool {
        let room = |total: u64| (total + size <= self.options.materialize_total_max).then_some(total + size);
        size <= self.options.materialize_bytes_max
            && self.materialized.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_ok()
    }

    fn append(
        &self,
        kind: Kind,
        name: &str,
        state: u32,
        object: Option<&ObjectEntry>,
        id: (u64, u64),
        folder: u32,
    ) -> Result<u32, Failure> {
        let size = object.map_or(0, |object| object.size);
        let part_bytes = if kind == Kind::Large { self.part_bytes(size) } else { 0 };
        let new = NewObject {
            kind,
            state,
            name,
            etag: object.map_or("", |object| &object.etag),
            size,
            part_bytes,
            mtime_secs: object.map_or(0, |object| object.last_modified.0),
            dev: id.0,
            ino: id.1,
            folder,
        };
        self.work
            .region()
            .append(&new)
            .map_err(|full| Failure::Local(format!("too much for one catalog at {}: {full:?}", shown(name))))
    }

    fn part_bytes(&self, size: u64) -> u32 {
        let longest = self.options.part_bytes_max;
        let aim = (size / PARTS_AIM).next_multiple_of(PART_BYTES_MIN);
        aim.clamp(PART_BYTES_MIN.min(longest), longest) as u32
    }

    fn plan(&self, level: &Level, slots: &HashMap<String, u32>) {
        let (large, small): (Vec<&str>, Vec<&str>) =
            level.objects.keys().map(String::as_str).partition(|name| slots.contains_key(*name));
        let all: Vec<&str> = level.objects.keys().map(String::as_str).collect();
        if choose::is_model(&all) {
            let order: Vec<u32> =
                choose::ahead(&large, &small).into_iter().filter_map(|at| slots.get(large[at]).copied()).collect();
            self.work.prefetch(&order);
        }
    }

    /// Puts a small object's bytes into its file. The placeholder's inode is given back for the caller to
    /// keep a while: a client may be just about to look it up.
    pub fn settle(&self, arrived: &Arrived) -> Option<Pinned> {
        let held = self.work.held(arrived.slot)?;
        let object: &Object = self.work.region().object(arrived.slot)?;
        let put = self.root.folder(&held.folder).map_err(std::io::Error::from).and_then(|folder| {
            let path = below(&held.folder, &held.name);
            let purpose = Purpose {
                kind: mark::Kind::Finished,
                engine: self.work.region().engine_key(),
                etag: &held.etag,
                object_size: held.size,
                path: &path,
                mtime_secs: held.mtime_secs,
            };
            let is_stand_in =
                |found: &made::Found| found.id.size == 0 && (found.id.dev, found.id.ino) == (object.dev, object.ino);
            made::put(folder.as_fd(), &held.name, &arrived.body, &purpose, is_stand_in)
        });
        self.work.small_is_over(&held);
        match put {
            Ok((dev, ino)) => {
                tracing::debug!(object = held.key, bytes = held.size, "in place");
                object.file_dev.store(dev, Ordering::Release);
                object.file_ino.store(ino, Ordering::Release);
                object.set_state(state::PLACED);
                lock(&held.pinned).take()
            }
            Err(e) => {
                tracing::error!(
                    object = held.key,
                    folder = held.folder,
                    "cannot write the file in MODEL_DIR, readers get EIO: {e}"
                );
                object.fail(ossc_net::error::Kind::Local.errno());
                // A full disk may have room again; what a user put at its place stays.
                if e.kind() != std::io::ErrorKind::AlreadyExists {
                    self.work.revive_later(arrived.slot);
                }
                None
            }
        }
    }

    /// The inode number of a settled object's stand-in may be used again from now on.
    pub fn forget(&self, slot: u32) {
        if let Some(object) = self.work.region().object(slot) {
            object.set_state(state::GONE);
        }
    }
}
