//! Users' files at the places of objects: they stay what they are, and programs must not take them for the model.
//!
//! Called by the mirror when a listing is made real. Each such file gets a record, by which the library knows it. One that
//! lay there before this engine listed the folder is an error to read, as it is at the start for the root folder. One that
//! came later is what a program has put there under the engine's eyes: it is read, and named. Nothing here touches a file.

use crate::mirror::inspect::Step;
use crate::mirror::known::Known;
use crate::mirror::listing::tree::Level;
use crate::mirror::{Mirror, below, made};
use crate::order::failure::Failure;
use crate::work::leases;
use ossc_cache::region::{NewObject, Object, RecordKind, state};
use ossc_cache::sys::FileId;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

impl Mirror {
    /// Gives records to the users' files that lie at the places of a folder's objects, and takes those back that are of
    /// files which lie there no more.
    pub(crate) fn note_theirs(
        &self,
        known: &mut Known,
        (folder, path, slot): (&OwnedFd, &str, u32),
        level: &Level,
        steps: &HashMap<String, Step>,
    ) {
        let is_first = self.is_unlisted(slot);
        let mut before = known.take_theirs(path);
        let in_the_way = |name: &&String| matches!(steps.get(*name), Some(Step::Conflict));
        for name in level.objects.keys().filter(in_the_way) {
            // What is no regular file is read as what it is, or leads elsewhere.
            let Ok(made::Found { id: file, .. }) = made::look(folder, name) else { continue };
            let whole_path = below(path, name);
            let old = before.get(name).and_then(|slot| Some((*slot, self.work.region().object(*slot)?)));
            if let Some((slot, object)) = old
                && is_of(object, &file)
            {
                before.remove(name);
                known.add_theirs(&whole_path, slot);
                continue;
            }
            // It was an error before it was changed, so it still is.
            let was_refused = old.is_some_and(|(_, object)| object.errno.load(Ordering::Acquire) != 0);
            let errno = if is_first || was_refused { libc::ESTALE } else { 0 };
            match self.record_theirs(&whole_path, slot, &file, errno) {
                Ok(Some(slot)) => known.add_theirs(&whole_path, slot),
                Ok(None) => {}
                Err(why) => tracing::error!("programs are not told of a user's file at an object's place: {why}"),
            }
        }
        before.into_values().for_each(|slot| self.work.objects.supersede(slot));
    }

    /// The record's number; `None` where the file is another object's by another name.
    fn record_theirs(&self, path: &str, folder: u32, file: &FileId, errno: i32) -> Result<Option<u32>, Failure> {
        let region = self.work.region();
        let other = region.find_any_file(file.dev, file.ino).and_then(|slot| region.object(slot));
        if other.is_some_and(|other| !other.is_in_the_way() && !other.is_superseded()) {
            return Ok(None);
        }
        let new = NewObject {
            kind: RecordKind::Small,
            state: state::FAILED,
            name: path,
            etag: "",
            size: file.size,
            part_bytes: 0,
            mtime_secs: file.mtime_secs,
            dev: 0,
            ino: 0,
            folder,
        };
        let room = leases::reserve(&self.work, &new).map_err(|full| crate::mirror::too_much(path, full))?;
        let slot = self.work.objects.publish(room, &new, 0);
        if let Some(object) = region.object(slot) {
            object.errno.store(errno as u32, Ordering::Release);
            object.settled.store(1, Ordering::Release);
        }
        self.work.register.set_file(slot, (file.dev, file.ino));
        Ok(Some(slot))
    }
}

fn is_of(object: &Object, file: &FileId) -> bool {
    let id = (object.file_dev.load(Ordering::Acquire), object.file_ino.load(Ordering::Acquire));
    object.is_in_the_way()
        && (id, object.size(), object.mtime_secs()) == ((file.dev, file.ino), file.size, file.mtime_secs)
}
