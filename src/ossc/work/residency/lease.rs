//! What is unused: large objects that no program has used for a while are given back, and old versions end.
//!
//! Called by the lease thread (`work::leases`), for one object after the other. Whether a program has one open or mapped
//! is asked of the kernel.

use crate::lock::lock;
use crate::work::residency::Residency;
use crate::work::residency::unused::Unused;
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::fill;
use ossc_cache::part::FILLING;
use ossc_cache::region::Object;
use std::cell::OnceCell;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

/// So long readers are told that there is no room: they look once a slice.
const STARVED_TOLD: Duration = Duration::from_millis(5 * ossc_cache::wait::SLICE_MS);
/// An old version that may be open without being seen (no leases on the placeholder) goes after so long without a use,
/// also where nothing else expires.
const OLD_IDLE: Duration = Duration::from_secs(120);

/// What all objects of one look have in common.
pub struct Look<'a> {
    expire: Option<Duration>,
    /// Of the region's clock: parts that were read since the look before have this or a later number. 0 at the first.
    used_from: u32,
    /// Since when no program lives, once one has to know.
    alone: OnceCell<Option<Instant>>,
    is_nearby: &'a dyn Fn() -> bool,
}

/// What a look at an object has found.
pub enum Found {
    /// Nothing is to be done now; it is unused for long enough after this time, if there is one.
    Wait(Option<Duration>),
    /// It is an old version that no program uses.
    Old(Unused),
}

impl Residency {
    /// Begins a look. What is unused for `expire` is given back; `is_nearby` looks for programs that are no clients yet.
    pub fn begin_look<'a>(&self, expire: Option<Duration>, is_nearby: &'a dyn Fn() -> bool) -> Look<'a> {
        // A read after this has this number or a later one, a read before it an earlier one.
        let clock = self.region.header().clock.fetch_add(1, Ordering::AcqRel);
        let used_from = self.looked_clock.swap(clock.wrapping_add(1), Ordering::AcqRel);
        Look { expire, used_from, alone: OnceCell::new(), is_nearby }
    }

    /// Looks at one object. The time of a use is that of the look that sees it: never earlier than it was, and later by
    /// one look at most.
    pub fn look_at(&self, look: &Look<'_>, (slot, object, entry): (u32, &Object, &RegisterEntry)) -> Found {
        self.end_starved(object, entry);
        let parts = || (0..object.parts()).map(|index| self.region.part(object, index));
        let is_old = object.superseded.load(Ordering::Acquire) != 0;
        let busy = parts().any(|part| part.state() == FILLING);
        let empty = fill::is_empty(object, entry) && !is_old;
        // One of an old version that has no memory is ended below.
        let may = |unused: &Unused| unused.is_of_memory() || is_old;
        let unused =
            (!busy && !empty).then(|| Unused::prove(object, entry, self.region.traces(object))).flatten().filter(may);
        let mut idle_since = lock(&entry.idle_since);
        let Some(unused) = unused else {
            *idle_since = None;
            drop(idle_since);
            if !busy && empty && entry.memory.as_ref().is_some_and(|memory| memory.is_open()) {
                Unused::prove(object, entry, self.region.traces(object))
                    .into_iter()
                    .for_each(|unused| self.close_memory(slot, object, entry, unused));
            }
            // In use, also by a program whose first look at it was told of long ago, to another engine perhaps.
            if !busy && !empty {
                entry.opened.store(true, Ordering::Release);
            }
            return Found::Wait(None);
        };
        // Under the leases: a program that used it until now has counted that before it closed what it had open.
        let uses = self.region.traces(object).uses.load(Ordering::Acquire);
        let is_used = entry.uses_seen.swap(uses, Ordering::AcqRel) != uses
            // Where there are no leases on the placeholder a descriptor that stays open is told by what is read by it.
            || look.used_from != 0 && parts().any(|part| part.used() >= look.used_from);
        if unused.is_of_memory() {
            parts().for_each(|part| part.unpin());
            fill::end_kept(&self.register, object, entry);
        }
        let now = self.register.now();
        if is_used {
            *idle_since = None;
            entry.opened.store(true, Ordering::Release);
        }
        let mut since = *idle_since.get_or_insert(now);
        if !entry.opened.load(Ordering::Acquire) && uses == 0 {
            // Fetched ahead: it stays while a program lives that may still want it.
            let alone = look.alone.get_or_init(|| self.programs.alone_since(now, look.is_nearby));
            let Some(alone) = *alone else { return Found::Wait(None) };
            since = since.max(alone);
        }
        let idle = now.saturating_duration_since(since);
        let Some(expire) = look.expire.or(is_old.then_some(OLD_IDLE)) else { return Found::Wait(None) };
        if idle < expire {
            return Found::Wait(Some(expire - idle));
        }
        *idle_since = None;
        drop(idle_since);
        if is_old {
            return Found::Old(unused);
        }
        self.release(slot, entry, unused);
        tracing::info!(
            object = entry.key,
            bytes = entry.size,
            idle_secs = idle.as_secs(),
            "released: no program has used it"
        );
        Found::Wait(None)
    }

    /// Gives an object back although it is not unused for long, if no program has it open or mapped and nothing of it is
    /// under way. Bytes that were here, and how many of them are given back.
    pub fn drop_object(&self, (slot, object, entry): (u32, &Object, &RegisterEntry)) -> (u64, u64) {
        let _room = lock(&self.making);
        let here = || {
            let ready = (0..object.parts()).filter(|index| self.region.part(object, *index).is_ready());
            let bytes: u64 = ready.map(|index| object.part_range(index)).map(|range| range.end - range.start).sum();
            bytes + entry.block_bytes.load(Ordering::Acquire)
        };
        let had = here();
        let is_busy = (0..object.parts()).any(|index| self.region.part(object, index).state() == FILLING);
        if !is_busy && !entry.has_requests() {
            self.release_unused(slot, entry);
        }
        (had, had.saturating_sub(here()))
    }

    /// A large version that is not the folder's any more ends, if `void` makes its record void: all it has in memory is
    /// given back. False if something of it is under way, or cannot go yet.
    pub fn empty_version(
        &self,
        (slot, object, entry): (u32, &Object, &RegisterEntry),
        unused: Unused,
        void: impl FnOnce() -> bool,
    ) -> bool {
        let _room = lock(&self.making);
        if !void() {
            return false;
        }
        // A thread that prepares a request counts it and then looks at the state: either it sees GONE, or this sees it.
        fence(Ordering::SeqCst);
        if entry.has_requests() {
            return false;
        }
        // Memory that was made since it was looked at: nothing of it can be made any more, and the next look asks for it.
        if !unused.is_of_memory() && entry.memory.as_ref().is_some_and(|memory| memory.is_open()) {
            return false;
        }
        (0..object.parts()).for_each(|index| self.region.part(object, index).unpin());
        fill::end_kept(&self.register, object, entry);
        self.release(slot, entry, unused);
        fill::is_empty(object, entry)
    }

    /// The answer that there is no room ends when all readers that waited for it have seen it: what is asked for later
    /// is tried.
    fn end_starved(&self, object: &Object, entry: &RegisterEntry) {
        let mut since = lock(&entry.starved_since);
        if object.starved.load(Ordering::Acquire) == 0 {
            *since = None;
            return;
        }
        let now = self.register.now();
        if now.saturating_duration_since(*since.get_or_insert(now)) >= STARVED_TOLD {
            *since = None;
            object.starved.store(0, Ordering::Release);
        }
    }
}
