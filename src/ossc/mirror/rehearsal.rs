//! The start of a mirror without its changes: the root folder is listed, each object's place looked at, and what is
//! fetched ahead is chosen; and nothing is made.
//!
//! Called by `ossc doctor`, `ossc plan` and `ossc verify`. The questions and the judgement are those of a start.

use crate::folder_files::{self, Lies};
use crate::lock::lock;
use crate::mirror::listing::tree::Level;
use crate::mirror::usage::choose;
use crate::mirror::{Mirror, Reason, below, made, too_much};
use crate::order::failure::Failure;
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::memory::{Guard, Memory};
use crate::work::{Patience, WorkOptions};
use ossc_cache::region::RecordKind;
use ossc_cache::sys::{self, Errno};
use ossc_net::error::shown;
use ossc_net::list::ObjectEntry;
use ossc_net::{Error, Query};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Folders that are listed at most on the way down to a model.
const FOLDERS_MAX: usize = 64;
/// How long that may take.
const DOWN_WITHIN: Duration = Duration::from_secs(20);

/// A folder with a model in it.
pub struct ModelFolder {
    /// Its path below OSS_PATH, empty for that itself.
    pub path: String,
    /// What it holds.
    pub level: Level,
}

impl ModelFolder {
    /// Names of its weights, in the order in which they are fetched ahead; the rest is what no program waits for first.
    pub fn weights(&self, bytes_max: u64) -> Vec<String> {
        let is_large = |name: &&str| self.level.objects.get(*name).is_some_and(|object| object.size > bytes_max);
        let (large, small): (Vec<&str>, Vec<&str>) = self.level.objects.keys().map(String::as_str).partition(is_large);
        choose::ahead(&large, &small).into_iter().map(|at| large[at].to_string()).collect()
    }
}

impl Mirror {
    /// Lists the root folder as a start does.
    ///
    /// # Errors
    /// The REASON of a start that cannot list it.
    pub fn rehearse_listing(&self) -> Result<Level, Failure> {
        let patience = Patience {
            attempts: self.options.start_attempts,
            until: Some(Instant::now() + self.options.start_within),
            outlasts: true,
        };
        let listed = self.fetch_listing("", patience, u32::MAX)?;
        match listed.map(|(level, _)| level) {
            Some(level) if !(level.objects.is_empty() && level.folders.is_empty()) => Ok(level),
            _ => Err(Failure::Empty(self.location.clone())),
        }
    }

    /// Looks at the places of what was listed.
    ///
    /// # Errors
    /// The REASON of a start that finds something of a user's in an object's or a folder's place.
    pub fn rehearse_places(&self, level: &Level) -> Result<(), Failure> {
        let local = |e: rustix::io::Errno| Failure::Local(format!("MODEL_DIR: {e}"));
        let folder = self.root.folder("").map_err(local)?;
        self.decided(&folder, "", level, Reason::Start)?;
        for name in &level.folders {
            let lies = folder_files::look(&folder, name).map_err(local)?;
            let is_ours = || made::look(&folder, name).is_ok_and(|found| found.made.is_some());
            if !matches!(lies, Lies::Nothing | Lies::Folder) && !is_ours() {
                return Err(Failure::Local(format!(
                    "{} in MODEL_DIR is no folder, and OSS has a folder of that name: remove it or choose another MODEL_DIR",
                    shown(name)
                )));
            }
        }
        Ok(())
    }

    /// The first folder with a model in it, from OSS_PATH down, level by level; else the first one with objects.
    pub fn find_model(&self, root: Level) -> Option<ModelFolder> {
        let until = Instant::now() + DOWN_WITHIN;
        let patience = Patience { attempts: 1, until: Some(until), outlasts: false };
        let (mut queue, mut filled) = (VecDeque::from([ModelFolder { path: String::new(), level: root }]), None);
        for _ in 0..FOLDERS_MAX {
            let Some(ModelFolder { path, mut level }) = queue.pop_front() else { break };
            let names: Vec<&str> = level.objects.keys().map(String::as_str).collect();
            if choose::is_model(&names) {
                return Some(ModelFolder { path, level });
            }
            for name in std::mem::take(&mut level.folders) {
                let path = below(&path, &name);
                if queue.len() < FOLDERS_MAX
                    && let Ok(Some((level, _))) = self.fetch_listing(&path, patience, 1)
                {
                    queue.push_back(ModelFolder { path, level });
                }
            }
            if !level.objects.is_empty() && filled.is_none() {
                filled = Some(ModelFolder { path, level });
            }
        }
        filled
    }

    /// One folder as OSS lists it, by its path below OSS_PATH; `None` where OSS has nothing there.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn rehearse_folder(&self, path: &str) -> Result<Option<Level>, Failure> {
        let patience = Patience { attempts: self.options.list_attempts, until: None, outlasts: false };
        let listed = self.fetch_listing(path, patience, u32::MAX)?;
        Ok(listed.map(|(level, _)| level).filter(|level| !(level.objects.is_empty() && level.folders.is_empty())))
    }

    /// ETag and CRC-64 that OSS reports of an object, by its key.
    ///
    /// # Errors
    /// They cannot be had.
    pub fn rehearse_facts(&self, key: &str) -> Result<(Option<String>, Option<u64>), Error> {
        let patience = Patience { attempts: self.options.list_attempts, until: None, outlasts: false };
        let response = self.work.scheduling.call(&Query::Head { key: key.into() }, patience)?.result?;
        Ok((response.etag, response.crc64_object))
    }

    /// What the work was started with.
    pub fn work_options(&self) -> WorkOptions {
        self.work.register.options
    }

    /// Gives the objects of a folder their records, without files and memory, and puts into the plan what the start of an
    /// engine with this folder as OSS_PATH puts there. Record numbers by name; an empty object has none.
    ///
    /// # Errors
    /// The catalog is full.
    pub fn rehearse_plan(&self, path: &str, level: &Level) -> Result<BTreeMap<String, u32>, Failure> {
        let mut slots = BTreeMap::new();
        for (number, (name, object)) in (1..).zip(&level.objects) {
            if object.size > 0 {
                let slot = self.rehearse_record(path, name, object, number)?;
                object.needs_restore().then(|| self.work.objects.refuse_archived(slot, object));
                slots.insert(name.clone(), slot);
            }
        }
        for slot in slots.values() {
            let is_small = self.region().object(*slot).is_some_and(|object| object.kind() == RecordKind::Small);
            self.work.act(is_small.then(|| self.work.transfers.materializer.fetch_once(*slot)).flatten());
        }
        self.fetch_weights(path);
        Ok(slots)
    }

    fn rehearse_record(&self, path: &str, name: &str, object: &ObjectEntry, number: u64) -> Result<u32, Failure> {
        let whole_path = below(path, name);
        let reserved = self.reserve(&whole_path, object, false)?.map_err(|full| too_much(&whole_path, full))?;
        let new = self.record((reserved.kind, reserved.state), &whole_path, Some(object), (0, number), 0);
        let mut entry = RegisterEntry::new(
            object.key.clone(),
            object.etag.clone(),
            object.size,
            object.last_modified.0,
            (path.to_string(), name.to_string()),
        );
        if reserved.kind == RecordKind::Large {
            entry.memory = Some(Box::new(Unbacked));
        }
        let slot = self.work.objects.publish(reserved.room, &new, 0);
        self.work.add_object(slot, entry);
        lock(&self.known).add_object(&whole_path, slot);
        Ok(slot)
    }
}

/// The memory of an object that is never fetched: it has no bytes, and is in use for ever.
struct Unbacked;

impl Memory for Unbacked {
    fn address(&self, _: u64) -> *mut u8 {
        std::ptr::null_mut()
    }
    fn file(&self) -> Option<i32> {
        None
    }
    fn populate(&self, _: u64, _: u64) -> sys::Result<()> {
        Ok(())
    }
    fn write_small(&self, _: u64, _: &[u8]) -> sys::Result<()> {
        Ok(())
    }
    fn read(&self, _: u64, _: &mut [u8]) -> sys::Result<()> {
        Err(Errno(libc::EIO))
    }
    fn punch(&self, _: u64, _: u64) {}
    fn unmap_pages(&self, _: u64, _: u64) {}
    fn lease(&self) -> sys::Result<Box<dyn Guard>> {
        Err(Errno(libc::EAGAIN))
    }
    fn reopen_read_only(&self) -> sys::Result<i32> {
        Err(Errno(libc::ENOSYS))
    }
    fn unlink(&self) {}
}
