//! MODEL_DIR as the image of OSS_PATH: lists folders, makes sub-folders and placeholders, puts small
//! objects into real files, and says what is to be fetched ahead.
//!
//! Called by the engine at its start (root folder), by its mirror thread (folders that programs touch,
//! then the others in the background), and by its file thread (small objects). Nothing of a user's is
//! overwritten; what cannot be mirrored is skipped with a warning.

use crate::choose;
use crate::failure::Failure;
use crate::held::{Held, lock};
use crate::known::Known;
use crate::made::{self, Growing, Purpose};
use crate::memory::Memory;
use crate::place::{self, Lies, Pinned, Root};
use crate::renew::{Asked, Changing, RENEWAL_MAX, Superseded};
use crate::tree::Level;
use crate::turn;
use crate::work::{Patience, Work};
use ossc_cache::mark;
use ossc_cache::pages::{self, Store};
use ossc_cache::region::{Full, Kind, NewObject, Object, Room, state};
use ossc_net::error::shown;
use ossc_net::list::{self, ObjectEntry};
use ossc_net::{Query, crc};
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
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
    /// A listing that is older is renewed before a program uses its folder; a folder that has not changed for as
    /// long is quiet.
    pub list_again: Duration,
    /// How long the start waits for a folder to become quiet at most.
    pub start_quiet_max: Duration,
}

/// See the module.
pub struct Mirror {
    pub(crate) root: Root,
    pub(crate) work: Arc<Work>,
    store: Store,
    pub(crate) location: String,
    pub(crate) prefix: String,
    pub(crate) options: Options,
    pub(crate) materialized: AtomicU64,
    /// Long objects that are being written to disk, by their records. A record may be another version's by now.
    pub(crate) growing: Mutex<HashMap<u32, (Arc<Held>, Growing)>>,
    /// Held while a listing is made real.
    pub(crate) known: Mutex<Known>,
    /// When OSS was last asked in vain for a listing, without a success since.
    pub(crate) away_since: Mutex<Option<Instant>>,
    /// See `refill`: times of folders when they were last looked at.
    pub(crate) folder_times: Mutex<HashMap<String, (i64, i64)>>,
}

/// Why a folder is listed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The engine starts: a conflict is an error.
    Start,
    /// A program touched it: its weights are fetched ahead.
    Touched,
    /// A program touched a folder below it.
    Background,
    /// No program has touched it yet.
    Ahead,
    /// Again, since an object has changed or another engine had listed it.
    Refresh,
}

fn too_much(name: &str, full: Full) -> Failure {
    Failure::Local(format!("too much for one catalog at {}: {full:?}", shown(name)))
}

/// Path of `name` in the folder `path`.
pub(crate) fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}/{name}") }
}

/// What an object gets before its file is made: nothing is put in an old version's place that may not be had after all.
struct Reserved {
    room: Room,
    kind: Kind,
    state: u32,
    memory: Option<pages::Memory>,
}

/// What is to be done with one object of a listing.
pub(crate) enum Step {
    /// It is there already.
    Keep,
    /// A file with its bytes is there, which no record knows.
    Take,
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

/// Removes what an engine before has left in a folder and OSS does not have.
fn sweep(folder: &OwnedFd, path: &str, level: &Level) {
    // A file of ours at the name of a folder is in its way.
    let is_folder = |name: &str| level.folders.iter().any(|folder| folder == name);
    let is_wanted = |name: &str, is_file: bool| level.objects.contains_key(name) || !is_file && is_folder(name);
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
            growing: Mutex::default(),
            known: Mutex::default(),
            away_since: Mutex::default(),
            folder_times: Mutex::default(),
        }
    }

    /// The memory files' store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Lists the root folder and makes it real; any conflict is an error, found before anything is changed.
    pub fn start(&self) -> Result<(), Failure> {
        let (dev, ino) = self.root.id().map_err(|e| Failure::Local(format!("MODEL_DIR: {e}")))?;
        let slot = self.append_folder("", (dev, ino), 0)?;
        self.work.region().header().folders_unlisted.fetch_add(1, Ordering::AcqRel);
        lock(&self.known).add_folder(String::new(), slot, false);
        let until = Instant::now() + self.options.start_quiet_max;
        self.list_quiet("", slot, Reason::Start, until)?;
        // A real file is opened without a question, so an old version must be gone before a program runs.
        loop {
            let Some((path, slot)) = lock(&self.known).filled.pop() else { return Ok(()) };
            self.list_quiet(&path, slot, Reason::Background, until)?;
        }
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

    pub(crate) fn is_unlisted(&self, slot: u32) -> bool {
        self.work.region().object(slot).is_some_and(|folder| folder.state() == state::UNLISTED)
    }

    /// Makes a folder what its listing says.
    pub(crate) fn make_real(
        &self,
        path: &str,
        slot: u32,
        reason: Reason,
        level: &Level,
        asked: Asked,
    ) -> Result<(), Failure> {
        let mut known = lock(&self.known);
        let known = &mut *known;
        for (key, why) in &level.skipped {
            tracing::warn!(key, "not mirrored: {why}");
        }
        let folder =
            self.root.folder(path).map_err(|e| Failure::Local(format!("folder {path:?} in MODEL_DIR: {e}")))?;
        let steps = self.inspect(known, &folder, path, level, reason == Reason::Start)?;
        // Before programs are told to wait for the end of the changes: this asks OSS.
        let programs = self.programs(&folder, path, level, &steps);
        let (changing, old) = self.begin_changes(known, (path, slot), level, &steps);
        self.end_growing();
        let _ = made::clean(&folder);
        self.clear_away(&folder, path, level, &old);
        if self.is_unlisted(slot) {
            sweep(&folder, path, level);
        }
        for name in &level.folders {
            self.make_folder(known, &folder, below(path, name), name)?;
        }
        let slots = self.make(known, (&folder, &programs), path, level, (&steps, &old))?;
        for (name, object) in level.objects.iter().filter(|(_, object)| !object.needs_restore()) {
            known.object(path, name).into_iter().for_each(|slot| self.work.reconsider(slot, &object.etag));
        }
        self.listed(known, path, slot, asked, changing);
        tracing::info!(
            folder = path,
            objects = level.objects.len(),
            folders = level.folders.len(),
            skipped = level.skipped.len(),
            "listed"
        );
        // Of a folder that a program uses what is new is fetched ahead, too.
        if !matches!(reason, Reason::Background | Reason::Ahead) {
            self.plan(level, &slots);
        }
        Ok(())
    }

    /// The folder's content is what the listing says.
    fn listed(&self, known: &mut Known, path: &str, slot: u32, asked: Asked, changing: Option<Changing<'_>>) {
        let header = self.work.region().header();
        if let Some(folder) = self.work.region().object(slot) {
            folder.listed_ms.store(asked.ms, Ordering::Release);
            if self.is_unlisted(slot) {
                header.folders_unlisted.fetch_sub(1, Ordering::AcqRel);
                folder.set_state(state::LISTED);
                known.not_ahead(slot);
            }
        }
        known.listed(path, asked.at);
        drop(changing);
        header.listings.fetch_add(1, Ordering::AcqRel);
    }

    fn make_folder(&self, known: &mut Known, folder: &OwnedFd, path: String, name: &str) -> Result<(), Failure> {
        let before = known.folder(&path);
        if let Some(slot) = before {
            if self.is_there(slot, folder, name) {
                return Ok(());
            }
            self.forget_folder(slot);
        }
        let is_filled = place::is_filled(folder, name);
        match place::make_folder(folder, name) {
            Ok((made, is_new)) => {
                if is_new {
                    made::mark_folder(folder, name, &self.purpose(mark::Kind::Folder, &path, None));
                }
                let above = known.folder(path.rsplit_once('/').map_or("", |(above, _)| above)).unwrap_or(0);
                let slot = self.append_folder(&path, (made.dev, made.ino), above)?;
                self.work.region().header().folders_unlisted.fetch_add(1, Ordering::AcqRel);
                if is_filled {
                    known.filled.push((path.clone(), slot));
                }
                known.add_folder(path, slot, true);
            }
            Err(e) => {
                // What was known below a folder that is no more has no place either.
                let (folders, objects) = known.remove_folder(&path);
                objects.into_iter().for_each(|slot| self.supersede(slot));
                folders.into_iter().filter(|slot| Some(*slot) != before).for_each(|slot| self.forget_folder(slot));
                tracing::error!(folder = path, "cannot make the folder, its objects are not served: {e}");
            }
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
            let ours = known.object(path, name).and_then(|slot| self.current(path, name, slot));
            let step = match (lies, ours) {
                (Lies::Nothing, _) => Step::Make,
                (Lies::Folder, _) if turn::gives_way(folder, name) => Step::Turn,
                (_, Some(ours)) if *ours.etag() == *object.etag && ours.size() == object.size => Step::Keep,
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
        let is_placeholder = is_empty
            && (stands_in || ours.is_some_and(|ours| (ours.dev(), ours.ino()) == (found.id.dev, found.id.ino)));
        Ok(match () {
            _ if is_placeholder && object.size > 0 => Step::Leftover(found),
            _ if is_placeholder || found.is_own() && ours.is_some() => Step::Replace(found),
            _ if is_empty && made.is_none() && (object.size > 0 || found.is_copy) => Step::Adopt(found),
            _ if is_empty && object.size == 0 => Step::Keep,
            _ if found.id.size == object.size && self.is_same(folder, name, object)? => Step::Take,
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
            Step::Adopt(found) => made::adopt(folder, name, purpose, found),
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
        let patience = Patience { attempts: self.options.list_attempts, until: Some(Instant::now() + RENEWAL_MAX) };
        let done = self.work.call(&head, patience).map_err(|e| Failure::List(Box::new(e)))?;
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
        (folder, programs): (&OwnedFd, &HashSet<String>),
        path: &str,
        level: &Level,
        (steps, old): (&HashMap<String, Step>, &HashMap<String, Superseded>),
    ) -> Result<HashMap<String, u32>, Failure> {
        let mut slots = HashMap::new();
        let above = known.folder(path).unwrap_or(0);
        for (name, object) in &level.objects {
            let Some(step) = steps.get(name).filter(|step| !matches!(step, Step::Keep | Step::Conflict)) else {
                continue;
            };
            if matches!(step, Step::Take) {
                self.take_file(known, folder, path, (name, object))?;
                continue;
            }
            let whole_path = below(path, name);
            // An empty object is an empty file: there is nothing to fetch.
            let reserved = match object.size {
                0 => None,
                _ => match self.reserve(&whole_path, object, programs.contains(name))? {
                    Ok(reserved) => Some(reserved),
                    Err(full) if self.is_unlisted(above) => return Err(too_much(&whole_path, full)),
                    Err(full) => {
                        self.leave_out(known, (&whole_path, object), old.get(name), full);
                        continue;
                    }
                },
            };
            if matches!(step, Step::Turn) {
                self.turn(known, folder, path, name);
            }
            let kind = match &reserved {
                None => mark::Kind::Finished,
                Some(reserved) if reserved.kind == Kind::Small => mark::Kind::Coming,
                Some(_) => mark::Kind::Placeholder,
            };
            let made = self.stand_in(folder, name, &self.purpose(kind, &whole_path, Some(object)), step);
            let pinned = match made {
                Ok(pinned) => pinned,
                Err(e) => {
                    reserved.into_iter().for_each(|reserved| self.give_back(reserved, &whole_path, object));
                    if matches!(step, Step::Adopt(_)) && e == rustix::io::Errno::EXIST {
                        tracing::error!(
                            "{} in MODEL_DIR was empty, and a user has changed it; it is not served",
                            shown(name)
                        );
                        continue;
                    }
                    let why = format!("cannot make the placeholder {} in MODEL_DIR: {e}", shown(name));
                    return Err(Failure::Local(why));
                }
            };
            // A record of this very version, whose file was away.
            let before = known.object(path, name);
            known.remove_object(path, name);
            if let Some(reserved) = reserved {
                let large = reserved.kind == Kind::Large;
                let slot = self.take_in((path, above), name, object, pinned, reserved);
                known.add_object(&whole_path, slot);
                // What is archived is not fetched ahead.
                if large && !object.needs_restore() {
                    slots.insert(name.clone(), slot);
                }
            }
            before.into_iter().for_each(|slot| self.supersede(slot));
        }
        Ok(slots)
    }

    /// There is no room for an object's record: the version before, if there is one, stays the folder's.
    fn leave_out(&self, known: &mut Known, (path, object): (&str, &ObjectEntry), old: Option<&Superseded>, full: Full) {
        let kept = old.filter(|old| self.work.keep_on(old.slot, old.incarnation));
        kept.into_iter().for_each(|old| known.add_object(path, old.slot));
        let stays = kept.is_some();
        tracing::error!(
            object = object.key,
            etag = object.etag,
            "left out, {}: {full:?} of the catalog are full of versions in use; end programs that hold old ones, raise partBytes, or give parts of the bucket a MODEL_DIR of their own",
            if stays { "the version before stays" } else { "the object is not shown" }
        );
    }

    /// What was reserved for an object that could not be made.
    fn give_back(&self, reserved: Reserved, path: &str, object: &ObjectEntry) {
        if reserved.kind == Kind::Small {
            self.uncount(object.size);
        }
        self.work.give_room_back(reserved.room, path);
    }

    /// Room for an object's record and its memory file; `Ok(Err(_))` if the catalog is full.
    fn reserve(&self, name: &str, object: &ObjectEntry, is_program: bool) -> Result<Result<Reserved, Full>, Failure> {
        let is_small = !object.needs_restore() && (is_program || self.is_small(object.size));
        let (kind, state) = if is_small { (Kind::Small, state::COMING) } else { (Kind::Large, state::LOADING) };
        let room = match self.work.reserve(&self.record((kind, state), name, Some(object), (0, 0), 0)) {
            Ok(room) => room,
            Err(full) => {
                if is_small {
                    self.uncount(object.size);
                }
                return Ok(Err(full));
            }
        };
        let memory = match kind {
            Kind::Large => match self.store.new_memory(room.slot, object.size) {
                Ok(memory) => Some(memory),
                Err(e) => {
                    self.work.give_room_back(room, name);
                    let (what, why) = (shown(name), std::io::Error::from_raw_os_error(e.0));
                    return Err(Failure::Local(format!("no memory file for {what} of {} bytes: {why}", object.size)));
                }
            },
            _ => None,
        };
        Ok(Ok(Reserved { room, kind, state, memory }))
    }

    /// Gives an object its record; its number.
    fn take_in(
        &self,
        (path, folder): (&str, u32),
        name: &str,
        object: &ObjectEntry,
        pinned: Pinned,
        reserved: Reserved,
    ) -> u32 {
        let place = (path.to_string(), name.to_string());
        let mut held = Held::new(object.key.clone(), object.etag.clone(), object.size, object.last_modified.0, place);
        let id = (pinned.dev, pinned.ino);
        *lock(&held.pinned) = Some(pinned);
        let path = below(path, name);
        let memory_ino = reserved.memory.as_ref().map_or(0, pages::Memory::ino);
        held.memory = reserved.memory.map(|memory| Box::new(memory) as Box<dyn Memory>);
        let new = self.record((reserved.kind, reserved.state), &path, Some(object), id, folder);
        // FUSE and network file systems use the number of a file again that is pinned, but not open.
        self.work.region().number_is_anothers(id.0, id.1);
        let slot = self.work.publish(reserved.room, &new, memory_ino);
        self.work.hold(slot, held);
        if reserved.kind == Kind::Small {
            self.work.fetch_small(slot);
            return slot;
        }
        self.work.region().header().large_bytes.fetch_add(object.size, Ordering::Relaxed);
        if object.needs_restore() {
            self.work.refuse_archived(slot, object);
        }
        slot
    }

    /// Gives a record to a file that has an object's bytes already, so that its uses are seen.
    fn take_file(
        &self,
        known: &mut Known,
        folder: &OwnedFd,
        path: &str,
        (name, object): (&str, &ObjectEntry),
    ) -> Result<(), Failure> {
        // Gone again, or what cannot be looked at: then it is a file like any other.
        let Ok(made::Found { id: file, .. }) = made::look(folder, name) else { return Ok(()) };
        // The time that the file has: by it and its size the record knows the file.
        let entry = ObjectEntry { last_modified: (file.mtime_secs, 0), ..object.clone() };
        let above = known.folder(path).unwrap_or(0);
        let path = below(path, name);
        let new = self.record((Kind::Small, state::PLACED), &path, Some(&entry), (file.dev, file.ino), above);
        let room = self.work.reserve(&new).map_err(|full| too_much(&path, full))?;
        let slot = self.work.publish(room, &new, 0);
        if let Some(object) = self.work.region().object(slot) {
            object.settled.store(1, Ordering::Release);
        }
        self.work.region().set_file(slot, (file.dev, file.ino));
        self.count(object.size);
        known.add_object(&path, slot);
        Ok(())
    }

    /// A small object counts from now on; a longer one is a program, which does not.
    pub(crate) fn count(&self, size: u64) {
        if size <= self.options.materialize_bytes_max {
            self.materialized.fetch_add(size, Ordering::AcqRel);
        }
    }

    /// It counts no more.
    pub(crate) fn uncount(&self, size: u64) {
        if size <= self.options.materialize_bytes_max {
            self.materialized.fetch_sub(size, Ordering::AcqRel);
        }
    }

    fn is_small(&self, size: u64) -> bool {
        let room = |total: u64| (total + size <= self.options.materialize_total_max).then_some(total + size);
        size <= self.options.materialize_bytes_max
            && self.materialized.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_ok()
    }

    fn append_folder(&self, path: &str, id: (u64, u64), above: u32) -> Result<u32, Failure> {
        let new = self.record((Kind::Folder, state::UNLISTED), path, None, id, above);
        let room = self.work.reserve(&new).map_err(|full| too_much(path, full))?;
        Ok(self.work.publish(room, &new, 0))
    }

    fn record<'a>(
        &self,
        (kind, state): (Kind, u32),
        name: &'a str,
        object: Option<&'a ObjectEntry>,
        id: (u64, u64),
        folder: u32,
    ) -> NewObject<'a> {
        let size = object.map_or(0, |object| object.size);
        NewObject {
            kind,
            state,
            name,
            etag: object.map_or("", |object| &object.etag),
            size,
            part_bytes: if kind == Kind::Large { self.part_bytes(size) } else { 0 },
            mtime_secs: object.map_or(0, |object| object.last_modified.0),
            dev: id.0,
            ino: id.1,
            folder,
        }
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
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
