//! MODEL_DIR as the image of OSS_PATH: lists folders, makes sub-folders and placeholders, puts small
//! objects into real files, and says what is to be fetched ahead.
//!
//! Called by the engine at its start (root folder), by its mirror thread (folders that programs touch,
//! then the others in the background), and by its file thread (small objects). Nothing of a user's is
//! overwritten; what cannot be mirrored is skipped with a warning.

pub mod arrive;
pub mod inspect;
pub mod known;
pub mod listing;
pub mod listings;
pub mod made;
pub mod program;
mod refill;
pub mod rehearsal;
pub mod renew;
mod takeover;
mod theirs;
mod usage;

use crate::folder_files::{self, Pinned, Root};
use crate::lock::lock;
use crate::mirror::inspect::Step;
use crate::mirror::known::Known;
use crate::mirror::listing::quiet;
use crate::mirror::listing::tree::Level;
use crate::mirror::made::{Growing, Purpose};
use crate::mirror::renew::{Asked, Changing, Superseded};
use crate::order::failure::Failure;
use crate::work::Work;
use crate::work::leases;
use crate::work::residency::lazy::Lazy;
use crate::work::shared::entry::RegisterEntry;
use ossc_cache::mark;
use ossc_cache::region::{Full, NewObject, OBJECTS_MAX, PARTS_MAX, RecordKind, RecordSpace, state};
use ossc_conf::Config;
use ossc_net::error::shown;
use ossc_net::list::ObjectEntry;
use ossc_store::pages::Store;
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Parts are at least this long, so that a huge page (2 MiB) has one filler.
const PART_BYTES_MIN: u64 = 2 << 20;
/// Objects are cut into about this many parts, until the parts reach `partBytes`.
const PARTS_AIM: u64 = 16;
/// Folders that no program uses may take one of so many equal parts of the catalog and of `materializeTotal`.
const AHEAD_SHARE: u64 = 4;
/// So many objects are made at a time; then others that need the mirror have their turn.
const AT_ONCE: usize = 256;
const TURN: Duration = Duration::from_micros(50);

/// A start that OSS does not answer says why so long before `startTimeoutSec` is over.
const START_MARGIN: Duration = Duration::from_secs(1);

/// Sizes that decide how objects are represented.
#[derive(Clone, Copy, Debug)]
pub struct MirrorOptions {
    /// Objects up to this many bytes become real files.
    pub materialize_bytes_max: u64,
    /// As long as they are together not more than this.
    pub materialize_total_max: u64,
    /// Longest part.
    pub part_bytes_max: u64,
    /// Requests for a page of the root folder at the start.
    pub start_attempts: u32,
    /// How long an origin that is away is asked for that page.
    pub start_within: Duration,
    /// Requests for any other page, or for an object's facts.
    pub list_attempts: u32,
    /// A listing that is older is renewed before a program uses its folder; a folder that has not changed for as
    /// long is quiet.
    pub list_again: Duration,
    /// How long the start waits for a folder to become quiet at most.
    pub start_quiet_max: Duration,
}

impl MirrorOptions {
    /// Those of a configuration.
    pub fn of(config: &Config) -> MirrorOptions {
        MirrorOptions {
            materialize_bytes_max: config.materialize_bytes_max,
            materialize_total_max: config.materialize_total_bytes_max,
            part_bytes_max: config.part_bytes,
            start_attempts: config.start_attempts,
            // The reason of the last failure is said before the time is over.
            start_within: config.start_timeout - (config.start_timeout / 4).min(START_MARGIN),
            list_attempts: config.list_attempts,
            list_again: config.list_again,
            // The rest is for the network.
            start_quiet_max: Duration::from_secs(quiet::patience_secs(config.list_again.as_secs()))
                .min(config.start_timeout / 2),
        }
    }
}

/// See the module.
pub struct Mirror {
    pub(crate) root: Arc<Root>,
    pub(crate) work: Arc<Work>,
    pub(crate) store: Arc<Store>,
    pub(crate) location: String,
    pub(crate) prefix: String,
    pub(crate) options: MirrorOptions,
    pub(crate) materialized: AtomicU64,
    /// Long objects that are being written to disk, by their records. A record may be another version's by now.
    pub(crate) growing: Mutex<HashMap<u32, (Arc<RegisterEntry>, Growing)>>,
    /// Held while a listing is made real.
    pub(crate) known: Mutex<Known>,
    /// When OSS was last asked in vain for a listing, without a success since.
    pub(crate) away_since: Mutex<Option<Instant>>,
    /// Folders whose weights are being fetched ahead, or were: see `usage`.
    pub(crate) ahead: Mutex<HashSet<String>>,
    /// See `refill`: times of folders when they were last looked at.
    pub(crate) folder_times: Mutex<HashMap<String, (i64, i64)>>,
}

/// How long OSS is asked for a newer listing before what is known is served on, and for what a listing needs to know of
/// its objects beside.
pub(crate) const RENEWAL_MAX: Duration = Duration::from_secs(10);

/// Why a folder is listed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The engine starts: a conflict is an error.
    Start,
    /// A program touched it.
    Touched,
    /// A program touched a folder below it.
    Background,
    /// No program has touched it yet.
    Ahead,
    /// Again, since an object has changed or another engine had listed it.
    Refresh,
}

fn cannot_make(what: &str, name: &str, e: rustix::io::Errno) -> Failure {
    Failure::Local(format!("cannot make the {what} {} in MODEL_DIR: {e}: {}", shown(name), folder_files::advice(e)))
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
    room: RecordSpace,
    kind: RecordKind,
    state: u32,
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
        options: MirrorOptions,
    ) -> Mirror {
        Mirror {
            root: Arc::new(root),
            work,
            store: Arc::new(store),
            location,
            prefix,
            options,
            materialized: AtomicU64::new(0),
            growing: Mutex::default(),
            known: Mutex::default(),
            away_since: Mutex::default(),
            ahead: Mutex::default(),
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
        lock(&self.known).add_folder(String::new(), slot);
        let until = Instant::now() + self.options.start_quiet_max;
        // What an engine before has left in sub-folders is settled when they are listed: a program that opens a file of
        // an engine's has its folder listed before.
        self.list_quiet("", slot, until)
    }

    /// Waits until the small objects of a listed folder are real files, at most `within`: a program that reads
    /// the folder then does not see it change under its hands (tar complains of that). A slower origin only
    /// means that it may.
    pub fn wait_for_small(&self, path: &str, within: Duration) {
        let region = self.work.region();
        let known = lock(&self.known).objects_of(path);
        let until = Instant::now() + within;
        let begun = known.into_iter().filter(|slot| self.work.transfers.materializer.is_begun(*slot));
        for object in begun.filter_map(|slot| region.object(slot)) {
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
        for (key, why) in &level.skipped {
            tracing::warn!(key, "not mirrored: {why}");
        }
        let folder = self
            .root
            .folder(path)
            .map_err(|e| Failure::Local(format!("folder {path:?} in MODEL_DIR: {e}: was it removed or replaced?")))?;
        if reason == Reason::Ahead && !self.may_be_ahead(level) {
            return Ok(());
        }
        let Some((mut known, steps, programs)) = self.decided(&folder, path, level, reason)? else { return Ok(()) };
        let (changing, old) = self.begin_changes(&mut known, (path, slot), level, &steps);
        self.end_growing();
        let _ = made::clean(&folder);
        self.clear_away(&folder, path, level, &old);
        if self.is_unlisted(slot) {
            sweep(&folder, path, level);
        }
        for name in &level.folders {
            self.make_folder(&mut known, (&folder, reason == Reason::Start), below(path, name), name)?;
        }
        let (mut known, slots) = self.make(known, (&folder, &programs), path, level, (&steps, &old))?;
        for (name, object) in level.objects.iter().filter(|(_, object)| !object.needs_restore()) {
            known
                .object(path, name)
                .into_iter()
                .for_each(|slot| self.work.act(self.work.objects.reconsider(slot, &object.etag)));
        }
        self.note_theirs(&mut known, (&folder, path, slot), level, &steps);
        self.used_or_not(&known, (path, slot), reason);
        self.listed(&mut known, path, slot, asked, changing);
        known.offer(path, &level.folders);
        tracing::info!(
            folder = path,
            objects = level.objects.len(),
            folders = level.folders.len(),
            skipped = level.skipped.len(),
            "listed"
        );
        drop(known);
        self.plan_new(path, reason, &slots);
        Ok(())
    }

    /// True if what a folder holds that nobody has asked for leaves enough for those that programs use.
    fn may_be_ahead(&self, level: &Level) -> bool {
        let is_small = |object: &&ObjectEntry| object.size <= self.options.materialize_bytes_max;
        let bytes: u64 = level.objects.values().filter(is_small).map(|object| object.size).sum();
        let materialized = self.materialized.load(Ordering::Acquire);
        let records = u64::from(self.work.region().objects_len()) + level.objects.len() as u64;
        materialized + bytes <= self.options.materialize_total_max / AHEAD_SHARE
            && records + level.folders.len() as u64 <= u64::from(OBJECTS_MAX) / AHEAD_SHARE
            && self.work.objects.parts_left() >= u64::from(PARTS_MAX) / AHEAD_SHARE
    }

    /// The folder's content is what the listing says. That something was listed is told first: who has found a name missing
    /// before looks whether that has changed since, and only then whether anything is left to be listed.
    fn listed(&self, known: &mut Known, path: &str, slot: u32, asked: Asked, changing: Option<Changing<'_>>) {
        let header = self.work.region().header();
        known.listed(path, asked.at);
        self.count_unlisted(known);
        header.listings.fetch_add(1, Ordering::AcqRel);
        if let Some(folder) = self.work.region().object(slot) {
            folder.listed_ms.store(asked.ms, Ordering::Release);
            drop(changing);
            if self.is_unlisted(slot) {
                folder.set_state(state::LISTED);
                header.folders_unlisted.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    fn make_folder(
        &self,
        known: &mut Known,
        (folder, is_start): (&OwnedFd, bool),
        path: String,
        name: &str,
    ) -> Result<(), Failure> {
        if let Some(slot) = known.folder(&path) {
            if self.is_there(slot, folder, name) {
                return Ok(());
            }
            self.forget_folder(slot);
        }
        let unlisted = &self.work.region().header().folders_unlisted;
        // Before its name can be seen: from then on what lies in it must not be called absent.
        unlisted.fetch_add(1, Ordering::AcqRel);
        let is_taken_in = self.take_folder_in(known, (folder, is_start), path, name);
        if !matches!(is_taken_in, Ok(true)) {
            unlisted.fetch_sub(1, Ordering::AcqRel);
        }
        is_taken_in.map(drop)
    }

    /// False where there can be no such folder.
    fn take_folder_in(
        &self,
        known: &mut Known,
        (folder, is_start): (&OwnedFd, bool),
        path: String,
        name: &str,
    ) -> Result<bool, Failure> {
        match folder_files::make_folder(folder, name) {
            Ok((made, is_new)) => {
                if is_new {
                    made::mark_folder(&made, &self.purpose(mark::MarkKind::Folder, &path, None));
                }
                let above = known.folder(path.rsplit_once('/').map_or("", |(above, _)| above)).unwrap_or(0);
                let slot = self.append_folder(&path, (made.dev, made.ino), above)?;
                if !is_new && folder_files::is_filled(folder, name) {
                    known.offer_first(&path);
                }
                known.add_folder(path, slot);
                Ok(true)
            }
            // The folder is not to be had for now: what lies in it must not be called absent.
            Err(e) if folder_files::refuses_new(e) => Err(cannot_make("folder", &path, e)),
            // As for a file at an object's place.
            Err(e) if is_start && !folder_files::refuses_name(e) => {
                let why = format!(
                    "{} in MODEL_DIR is no folder, and OSS has a folder of that name: remove it or choose another MODEL_DIR",
                    shown(&path)
                );
                Err(Failure::Local(why))
            }
            Err(e) => {
                // What was known below a folder that is no more has no place either; its own record was forgotten before.
                let before = known.folder(&path);
                let (folders, objects) = known.remove_folder(&path);
                objects.into_iter().for_each(|slot| self.supersede(slot));
                folders.into_iter().filter(|slot| Some(*slot) != before).for_each(|slot| self.forget_folder(slot));
                tracing::error!(folder = path, "cannot make the folder, its objects are not served: {e}");
                Ok(false)
            }
        }
    }

    /// What a file is made for; without an object it is a folder.
    fn purpose<'a>(&self, kind: mark::MarkKind, path: &'a str, object: Option<&'a ObjectEntry>) -> Purpose<'a> {
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
            Step::Leftover(found) if found.stands_for(purpose) => folder_files::pinned(folder, name),
            Step::Leftover(found) | Step::Replace(found) => made::replace(folder, name, purpose, |now| now == found),
            Step::Adopt(found) => made::adopt(folder, name, purpose, found),
            _ => made::make(folder, name, purpose),
        }
    }

    /// Makes the files of a folder; gives the record numbers of its new large objects by name.
    fn make<'a>(
        &'a self,
        mut known: MutexGuard<'a, Known>,
        (folder, programs): (&OwnedFd, &HashSet<String>),
        path: &str,
        level: &Level,
        (steps, old): (&HashMap<String, Step>, &HashMap<String, Superseded>),
    ) -> Result<(MutexGuard<'a, Known>, HashMap<String, u32>), Failure> {
        let mut slots = HashMap::new();
        let above = known.folder(path).unwrap_or(0);
        for (count, (name, object)) in level.objects.iter().enumerate() {
            if count % AT_ONCE == AT_ONCE - 1 {
                known = self.let_others(known);
                if known.folder(path) != Some(above) {
                    return Err(Failure::Local(format!("the folder {path:?} in MODEL_DIR has gone meanwhile")));
                }
            }
            let known = &mut *known;
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
                None => mark::MarkKind::Finished,
                Some(reserved) if reserved.kind == RecordKind::Small => mark::MarkKind::Coming,
                Some(_) => mark::MarkKind::Placeholder,
            };
            // What a program has open of the version before stays, without its name.
            let stood =
                old.get(name).map(|old| old.slot).filter(|_| matches!(step, Step::Leftover(_) | Step::Replace(_)));
            stood.into_iter().for_each(|slot| self.work.residency.keep_stand(slot));
            let made = self.stand_in(folder, name, &self.purpose(kind, &whole_path, Some(object)), step);
            stood.into_iter().for_each(|slot| self.work.residency.drop_stand(slot));
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
                    return Err(cannot_make("placeholder", name, e));
                }
            };
            // A record of this very version, whose file was away.
            let before = known.object(path, name);
            known.remove_object(path, name);
            if let Some(reserved) = reserved {
                let large = reserved.kind == RecordKind::Large;
                let slot = self.take_in((path, above), name, object, pinned, reserved);
                known.add_object(&whole_path, slot);
                // What is archived is not fetched ahead.
                if large && !object.needs_restore() {
                    slots.insert(name.clone(), slot);
                }
            }
            before.into_iter().for_each(|slot| self.supersede(slot));
        }
        Ok((known, slots))
    }

    /// Others that wait for the mirror have their turn.
    fn let_others<'a>(&'a self, known: MutexGuard<'a, Known>) -> MutexGuard<'a, Known> {
        drop(known);
        // Else this thread would mostly have it again before they wake up.
        std::thread::sleep(TURN);
        lock(&self.known)
    }

    /// There is no room for an object's record: the version before, if there is one, stays the folder's.
    fn leave_out(&self, known: &mut Known, (path, object): (&str, &ObjectEntry), old: Option<&Superseded>, full: Full) {
        let kept = old.filter(|old| self.work.objects.keep_on(old.slot, old.incarnation));
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
        if reserved.kind == RecordKind::Small {
            self.uncount(object.size);
        }
        self.work.objects.give_room_back(reserved.room, path);
    }

    /// Room for an object's record and its memory file; `Ok(Err(_))` if the catalog is full.
    fn reserve(&self, name: &str, object: &ObjectEntry, is_program: bool) -> Result<Result<Reserved, Full>, Failure> {
        let is_small = !object.needs_restore() && (is_program || self.is_small(object.size));
        let (kind, state) =
            if is_small { (RecordKind::Small, state::COMING) } else { (RecordKind::Large, state::LOADING) };
        let room = match leases::reserve(&self.work, &self.record((kind, state), name, Some(object), (0, 0), 0)) {
            Ok(room) => room,
            Err(full) => {
                if is_small {
                    self.uncount(object.size);
                }
                return Ok(Err(full));
            }
        };
        Ok(Ok(Reserved { room, kind, state }))
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
        let mut entry =
            RegisterEntry::new(object.key.clone(), object.etag.clone(), object.size, object.last_modified.0, place);
        entry.root = Some(self.root.clone());
        let (id, born) = ((pinned.dev, pinned.ino), pinned.incarnation());
        if born == 0 {
            *lock(&entry.pinned) = Some(pinned);
        }
        let path = below(path, name);
        if reserved.kind == RecordKind::Large {
            entry.memory = Some(Box::new(Lazy::new(self.store.clone(), reserved.room.slot, object.size)));
        }
        let new = self.record((reserved.kind, reserved.state), &path, Some(object), id, folder);
        // Of a file that is gone.
        self.work.region().number_is_anothers(id.0, id.1);
        let slot = self.work.objects.publish(reserved.room, &new, 0);
        self.work.region().object(slot).into_iter().for_each(|object| object.born.store(born, Ordering::Release));
        self.work.add_object(slot, entry);
        if reserved.kind == RecordKind::Small {
            return slot;
        }
        self.work.region().header().large_bytes.fetch_add(object.size, Ordering::Relaxed);
        if object.needs_restore() {
            self.work.objects.refuse_archived(slot, object);
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
        let new = self.record((RecordKind::Small, state::PLACED), &path, Some(&entry), (file.dev, file.ino), above);
        let room = leases::reserve(&self.work, &new).map_err(|full| too_much(&path, full))?;
        let slot = self.work.objects.publish(room, &new, 0);
        if let Some(object) = self.work.region().object(slot) {
            object.settled.store(1, Ordering::Release);
        }
        self.work.register.set_file(slot, (file.dev, file.ino));
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
        let new = self.record((RecordKind::Folder, state::UNLISTED), path, None, id, above);
        let room = leases::reserve(&self.work, &new).map_err(|full| too_much(path, full))?;
        // Of a stand-in that has given way to its real file a moment ago.
        self.work.region().number_is_anothers(id.0, id.1);
        Ok(self.work.objects.publish(room, &new, 0))
    }

    fn record<'a>(
        &self,
        (kind, state): (RecordKind, u32),
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
            part_bytes: if kind == RecordKind::Large { self.part_bytes(size) } else { 0 },
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
}

#[cfg(test)]
#[path = "mirror/mirror_tests.rs"]
mod tests;
