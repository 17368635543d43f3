//! Memory files and their descriptors: as many at a time as this process may have, for objects that are in memory or are
//! being read.
//!
//! Called by `reclaim` before a part is claimed and where the last part of an object is given back, and by the attach
//! server. Where descriptors are short, what was used longest ago gives way.

use crate::lock::lock;
use crate::work::residency::Residency;
use crate::work::residency::unused::Unused;
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::fill;
use crate::work::shared::memory::Guard;
use ossc_cache::region::{Object, state};
use ossc_cache::sys::{Errno, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Residency {
    /// The large objects whose memory is there.
    pub(super) fn in_memory(&self) -> Vec<(u32, Arc<RegisterEntry>)> {
        self.register.large_if(|_, entry| entry.memory.as_ref().is_some_and(|memory| memory.is_open()))
    }

    /// Those that a look at the leases may find something to do for.
    pub fn to_look_at(&self) -> Vec<(u32, Arc<RegisterEntry>)> {
        self.register.large_if(|slot, entry| {
            let is_told = |object: &Object| object.starved.load(Ordering::Acquire) != 0 || object.is_superseded();
            entry.memory.as_ref().is_some_and(|memory| memory.is_open())
                || self.region.object(slot).is_some_and(is_told)
        })
    }

    /// Makes an object's memory, if it is not there. Where as many are there as may be, one that no program uses goes.
    pub fn open_memory(&self, slot: u32, object: &Object, entry: &RegisterEntry) -> Result<()> {
        let Some(memory) = entry.memory.as_ref().filter(|memory| !memory.is_open()) else { return Ok(()) };
        if object.state() == state::GONE {
            return Err(Errno(libc::ESTALE));
        }
        if self.memory_files.load(Ordering::Acquire) >= self.options.memory_files_max {
            let _one_at_a_time = lock(&self.making);
            let limit = self.options.memory_files_max;
            let closed = self.close_down_to(limit - limit / 16 - 1, slot);
            tracing::debug!(closed, limit, "released: descriptors are wanted for others");
        }
        if self.memory_files.load(Ordering::Acquire) >= self.options.memory_files_max {
            return Err(Errno(libc::EMFILE));
        }
        if let Some(ino) = memory.open()? {
            self.memory_files.fetch_add(1, Ordering::AcqRel);
            self.register.set_memory(slot, ino);
        }
        Ok(())
    }

    /// A read-only descriptor of an object's memory for a client; `None` for a record that has none.
    pub fn hand_memory(&self, slot: u32) -> Option<Result<i32>> {
        let (object, entry) = self.register.get(slot)?;
        entry.begin_request();
        let memory = entry.memory.as_ref();
        let open = || {
            let opened = self.open_memory(slot, object, &entry);
            opened.inspect_err(|errno| self.without_memory_file(object, &entry, *errno))
        };
        let handed = memory.map(|memory| open().and_then(|()| memory.reopen_read_only()));
        entry.end_request();
        handed
    }

    /// Gives objects back that no program has open or mapped, those that were used longest ago first, until no more memory files
    /// are there than this; how many it were. The caller holds `making`.
    pub fn close_down_to(&self, enough: usize, but: u32) -> u32 {
        let mut all = self.in_memory();
        all.retain(|(slot, _)| *slot != but);
        // Those in use have no time since when they are not.
        all.sort_by_cached_key(|(_, entry)| lock(&entry.idle_since).map_or((1, None), |since| (0, Some(since))));
        let mut closed = 0;
        for (slot, entry) in all {
            if self.memory_files.load(Ordering::Acquire) <= enough {
                break;
            }
            closed += u32::from(self.release_unused(slot, &entry));
        }
        closed
    }

    /// All parts of an object are given back: its memory goes, if no request is under way for it.
    pub(super) fn close_memory(&self, slot: u32, object: &Object, entry: &RegisterEntry, unused: Unused) {
        let Some(memory) = &entry.memory else { return };
        let is_empty = |index: u32| self.region.part(object, index).state() == ossc_cache::part::EMPTY;
        let may = |guard: &dyn Guard| {
            let may = guard.is_whole()
                && fill::is_empty(object, entry)
                && !entry.has_requests()
                && (0..object.parts()).all(is_empty);
            if may {
                // A program that opens the file from now on, by its name or after the guard, finds that it is not the object's.
                self.register.clear_memory(slot);
            }
            may
        };
        let closed = memory.close(unused.memory, &may);
        if closed {
            self.memory_files.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Says once that an object's memory cannot be had now.
    pub(super) fn without_memory_file(&self, object: &Object, entry: &RegisterEntry, errno: Errno) {
        // Of its next trouble it is told again when readers have got an error.
        if object.starved.load(Ordering::Acquire) == 0 && !entry.told_no_file.swap(true, Ordering::AcqRel) {
            let why = std::io::Error::from_raw_os_error(errno.0);
            tracing::warn!(
                object = entry.key,
                etag = entry.etag,
                files = self.memory_files.load(Ordering::Acquire),
                limit = self.options.memory_files_max,
                "no memory file for it now: {why}; raise the hard limit of open files (ulimit -Hn) if programs use so many objects at a time"
            );
        }
    }
}
