//! A folder whose files were removed, or were moved away and back, while the engine goes on: a program that starts then
//! finds them again.
//!
//! Called by the attach server for each new client (`emptied`, which only looks) and by the mirror's thread
//! (`refresh` of what was found). A file that one program removes stays away until another one starts.

use crate::folder_files::{self, Lies};
use crate::lock::lock;
use crate::mirror::known::Known;
use crate::mirror::{Mirror, made};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

/// Folders that are looked at for one client; the others are found out when they are listed again.
const FOLDERS_MAX: usize = 64;

impl Mirror {
    /// Listed folders in which something is missing that was made there, or is another file. One look at the time of each
    /// folder, as long as nothing in it was added or removed; never waits for a listing that is under way.
    pub fn emptied(&self) -> Vec<String> {
        let Ok(known) = self.known.try_lock() else { return Vec::new() };
        let mut times = lock(&self.folder_times);
        let mut found = Vec::new();
        for (path, slot) in known.folders().take(FOLDERS_MAX) {
            if self.is_unlisted(slot) {
                continue;
            }
            match self.root.folder(path) {
                Ok(folder) => {
                    let Ok(time) = folder_files::time(&folder) else { continue };
                    if times.insert(path.to_string(), time) != Some(time) && self.is_missing(&known, &folder, path) {
                        found.push(path.to_string());
                    }
                }
                // The folder above makes it again.
                Err(Errno::NOENT) => found.push(path.rsplit_once('/').map_or("", |(above, _)| above).to_string()),
                Err(_) => {}
            }
        }
        found.sort();
        found.dedup();
        found
    }

    /// True if nothing lies at the name of an object of the folder, or an empty file that is not the one made last.
    fn is_missing(&self, known: &Known, folder: &OwnedFd, path: &str) -> bool {
        let is_another = |name: &str| {
            let record = known.object(path, name).and_then(|slot| self.work.region().object(slot));
            record.is_some_and(|record| made::is_another(folder, name, record))
        };
        known.names_of(path).any(|name| match folder_files::look(folder, name) {
            Ok(Lies::Nothing) => true,
            Ok(Lies::File(0)) => is_another(name),
            _ => false,
        })
    }

    /// True if the folder of a record still lies at its name.
    pub(crate) fn is_there(&self, slot: u32, folder: &OwnedFd, name: &str) -> bool {
        let record = self.work.region().object(slot).map(|record| (record.dev(), record.ino()));
        folder_files::pinned(folder, name).is_ok_and(|now| Some((now.dev, now.ino)) == record)
    }

    /// A folder was removed, with what was in it.
    pub(crate) fn forget_folder(&self, slot: u32) {
        if self.is_unlisted(slot) {
            self.work.region().header().folders_unlisted.fetch_sub(1, Ordering::AcqRel);
        }
        self.work.objects.let_rest(slot);
    }
}
