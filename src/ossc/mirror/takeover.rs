//! What an engine that is gone has left in the catalog: which of its records still are of something that lies in
//! MODEL_DIR.
//!
//! Called once at the start, before anything is listed. It lists nothing itself, and changes no file.

use crate::folder_files::{self, Pinned};
use crate::lock::lock;
use crate::mirror::Mirror;
use crate::mirror::made;
use crate::order::failure::Failure;
use crate::work::residency::lazy::Lazy;
use crate::work::shared::entry::RegisterEntry;
use crate::work::takeover;
use ossc_cache::region::{Object, RecordKind, state, unfetched};
use std::sync::atomic::Ordering;

impl Mirror {
    /// Takes over the records of an engine that is gone: what has arrived stays, what was being written is
    /// fetched again. The caller then has the root folder listed again; readers do not wait for that.
    pub fn adopt(&self) -> Result<(), Failure> {
        let region = *self.work.region();
        let mut known = lock(&self.known);
        let mut unlisted = 0;
        let mut wanted = Vec::new();
        region.header().ready_bytes.store(0, Ordering::Relaxed);
        region.header().large_bytes.store(0, Ordering::Relaxed);
        let left = self.work.objects.adopt_catalog();
        // What the engine before had no time to give back.
        left.gone.into_iter().for_each(|slot| self.store().remove(slot));
        for object in left.old.into_iter().filter_map(|slot| Some((slot, region.object(slot)?))) {
            self.adopt_large(object.0, object.1, &region.name(object.1));
        }
        for slot in 0..region.objects_len() {
            let Some(object) = region.object(slot).filter(|object| object.state() != state::GONE) else { continue };
            let name = region.name(object).to_string();
            match object.kind() {
                RecordKind::Folder => {
                    let is_unlisted = object.state() == state::UNLISTED;
                    unlisted += u32::from(is_unlisted);
                    self.finish_changes(object);
                    known.add_folder(name, slot);
                }
                // Of a version that is no longer the folder's.
                RecordKind::Small if object.is_superseded() => self.work.objects.let_rest(slot),
                RecordKind::Small if object.is_in_the_way() => known.add_theirs(&name, slot),
                RecordKind::Small => {
                    if self.adopt_small(slot, object, &name) {
                        known.add_object(&name, slot);
                    }
                }
                RecordKind::Large => {
                    if let Some(is_wanted) = self.adopt_large(slot, object, &name) {
                        known.add_object(&name, slot);
                        wanted.extend(is_wanted.then_some(slot));
                    }
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
                self.count(object.size());
                let entry = self.entry_again(object, name, Some(pinned));
                self.work.add_object(slot, entry);
                object.set_state(state::COMING);
                let folder = self.work.region().folder_of(object);
                if folder.is_none_or(|folder| folder.unfetched.load(Ordering::Acquire) != unfetched::WAITS) {
                    self.work.act(self.work.transfers.materializer.fetch(slot));
                }
                true
            }
            (state::PLACED, _) if self.is_in_place(object, name) => {
                self.count(object.size());
                object.settled.store(1, Ordering::Release);
                true
            }
            _ => {
                self.work.objects.let_rest(slot);
                false
            }
        }
    }

    /// True if the real file of a small object lies where it was put.
    fn is_in_place(&self, object: &Object, name: &str) -> bool {
        let (folder, name) = name.rsplit_once('/').unwrap_or(("", name));
        let id = (object.file_dev.load(Ordering::Acquire), object.file_ino.load(Ordering::Acquire));
        let lies = self.root.folder(folder).and_then(|folder| folder_files::pinned(&folder, name));
        lies.is_ok_and(|lies| (lies.dev, lies.ino) == id)
    }

    /// `None` for a version that lies at its place no more; else true if it is worth fetching on.
    fn adopt_large(&self, slot: u32, object: &Object, name: &str) -> Option<bool> {
        let region = self.work.region();
        let ino = object.memory_ino.load(Ordering::Acquire);
        let memory = match ino {
            // None of its parts were there.
            0 => Some(Lazy::new(self.store.clone(), slot, object.size())),
            _ => {
                let memory = self.store().memory(slot, object.size()).ok().filter(|memory| memory.ino() == ino);
                memory.map(|memory| Lazy::with(self.store.clone(), slot, object.size(), memory))
            }
        };
        let Some(memory) = memory else {
            // Its bytes are lost. What lies at its place gets a record with the next listing.
            self.work.objects.let_rest(slot);
            return None;
        };
        let ready = (0..object.parts()).filter(|index| region.part(object, *index).is_ready());
        let bytes = ready.map(|index| object.part_range(index)).map(|range| range.end - range.start).sum();
        region.header().ready_bytes.fetch_add(bytes, Ordering::Relaxed);
        region.header().large_bytes.fetch_add(object.size(), Ordering::Relaxed);
        // One that was old for the engine before is so whatever lies there.
        let pinned = if object.state() == state::GONE { None } else { self.repin(object, name) };
        let is_old = pinned.is_none();
        let mut entry = self.entry_again(object, name, pinned);
        entry.memory = Some(Box::new(memory));
        if is_old {
            takeover::adopt_old(&self.work, slot, object, entry);
            return None;
        }
        object.superseded.store(0, Ordering::Release);
        Some(takeover::adopt(&self.work, slot, object, entry))
    }

    /// The placeholder of a record of an engine before, if it still lies at its place.
    fn repin(&self, object: &Object, name: &str) -> Option<Pinned> {
        let (folder, name) = name.rsplit_once('/').unwrap_or(("", name));
        let folder = self.root.folder(folder).ok()?;
        let (found, pinned) = (made::look(&folder, name).ok()?, folder_files::pinned(&folder, name).ok()?);
        let ids = [(found.id.dev, found.id.ino), (pinned.dev, pinned.ino)];
        // The number may have gone to a file of a user's in between, which has no mark.
        let stands_in = found.is_stand_in_of(object) && found.made.as_ref().is_some_and(|made| made.kind.stands_in());
        // Without an attribute the time has to be the object's.
        let has_time = found.id.mtime_secs == object.mtime_secs();
        let is_version = found.etag().map_or(has_time, |etag| *etag == *object.etag());
        (stands_in && is_version && ids == [(object.dev(), object.ino()); 2]).then_some(pinned)
    }

    fn entry_again(&self, object: &Object, name: &str, pinned: Option<Pinned>) -> RegisterEntry {
        let (folder, last) = name.rsplit_once('/').unwrap_or(("", name));
        let place = (folder.to_string(), last.to_string());
        let key = format!("{}{name}", self.prefix);
        let mut entry = RegisterEntry::new(key, object.etag().to_string(), object.size(), object.mtime_secs(), place);
        entry.root = Some(self.root.clone());
        // The engine before may have known nothing that tells it from later files, and have had a descriptor.
        let born = pinned.as_ref().map_or(0, Pinned::incarnation);
        object.born.store(born, Ordering::Release);
        *lock(&entry.pinned) = pinned.filter(|_| born == 0);
        entry
    }
}
