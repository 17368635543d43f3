//! Room for parts: which memory is given back when the budget is used up, and when nobody needs it any more.
//!
//! Called by `work` before a request is sent (never after: what is received has its room), and by the lease
//! thread. Whether somebody has an object open or mapped is asked of the kernel (write leases on the
//! placeholder and on the memory file), so it is right for every process, dead or alive, hooked or not. The lease on
//! the memory is held while memory is given back: not longer, and not while anything is waited for.
//! Memory that a program may have mapped is never given back.

use crate::lock::lock;
use crate::process::nearby;
use crate::work::Work;
use crate::work::residency::stand::{self, Stands};
use crate::work::shared::held::Held;
use crate::work::shared::item::Item;
use crate::work::shared::memory::Guard;
use ossc_cache::plan::Class;
use ossc_cache::region::{Object, state};
use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

/// How often leases are looked at: an idle engine wakes up less than once a second.
const TICK: Duration = Duration::from_millis(1300);
/// A reader that finds no room looks again after this long.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// So long readers are told that there is no room: they look once a slice.
const STARVED_TOLD: Duration = Duration::from_millis(5 * ossc_cache::wait::SLICE_MS);

/// An old version that may be open without being seen (no leases on the placeholder) goes after so long without a use,
/// also where nothing else expires.
const OLD_IDLE: Duration = Duration::from_secs(120);
/// Parts that are given back before it is asked again whether a program waits to open the memory: at 8 MiB each about a
/// millisecond of punching.
const PARTS_AT_ONCE: usize = 16;

/// The lease on an object's memory, taken at a moment when its placeholder was open nowhere either. While it is held
/// nobody has the memory open or mapped, and a program that wants it waits in its `open`: programs open the memory
/// before they pin parts of it, so the pins that are there are of nobody. The placeholder may be opened meanwhile: what
/// is read through it waits for its parts like any other read.
pub(crate) struct Unused {
    pub memory: Box<dyn Guard>,
    /// A lease on the placeholder was granted, or it is not served any more.
    is_closed: bool,
}

impl Unused {
    /// `None` if somebody uses it.
    pub(crate) fn take(object: &Object, held: &Held) -> Option<Unused> {
        let memory = held.memory.as_ref()?.lease().ok()?;
        match stand::look(held, object) {
            Stands::Open => None,
            // Where it is not known a reader that has it open sees its parts go, and waits again.
            stands => Some(Unused { memory, is_closed: stands == Stands::Closed }),
        }
    }

    /// True if it is known that nobody had the placeholder open. Where the file system has no leases, a program that
    /// has it open and reads nothing is not seen.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// False where no memory was there when this was taken: what has been made since then may be in use.
    pub(crate) fn is_of_memory(&self) -> bool {
        self.memory.is_of_memory()
    }

    /// True while no program waits to open the memory.
    fn is_alone(&self) -> bool {
        self.memory.is_whole()
    }
}

impl Work {
    /// Puts `bytes` aside for a part, at the cost of what is not needed. False if there is nothing to give.
    /// Prefetch takes no room from anybody.
    pub(crate) fn make_room(&self, bytes: u64, wanted: (u32, u32), class: Class) -> bool {
        if class == Class::Prefetch {
            return false;
        }
        let _one_at_a_time = lock(&self.room);
        if self.budget.take(bytes) {
            return true;
        }
        let mut others = self.in_memory();
        let end_kept =
            |(slot, held): &(u32, Arc<Held>)| self.region().object(*slot).is_some_and(|o| self.end_kept(o, held));
        if others.iter().filter(|other| end_kept(other)).count() > 0 && self.budget.take(bytes) {
            return true;
        }
        let is_empty = |slot: u32, held: &Held| self.region().object(slot).is_none_or(|o| Self::is_empty(o, held));
        others.retain(|(slot, held)| *slot != wanted.0 && !is_empty(*slot, held));
        let with_idle = |(slot, held): (u32, Arc<Held>)| {
            let since = *lock(&held.idle_since);
            (since, slot, held)
        };
        let (mut idle, in_use): (Vec<_>, Vec<_>) = others.into_iter().map(with_idle).partition(|o| o.0.is_some());
        idle.sort_by_key(|(since, ..)| *since);
        if idle.iter().any(|(_, slot, held)| self.release_unused(*slot, held) && self.budget.take(bytes)) {
            return true;
        }
        let parts = self.readable_again(wanted);
        if parts.iter().any(|(_, slot, index)| self.release_parts(*slot, &[*index]) && self.budget.take(bytes)) {
            return true;
        }
        // Somebody may have ended since the last look at the leases; a reader's error would be wrong then.
        in_use.iter().any(|(_, slot, held)| self.release_unused(*slot, held) && self.budget.take(bytes))
    }

    /// Gives an object back if nobody has it open or mapped. True if it did.
    pub(crate) fn release_unused(&self, slot: u32, held: &Held) -> bool {
        let Some(object) = self.region().object(slot) else { return false };
        let Some(unused) = Unused::take(object, held).filter(Unused::is_of_memory) else { return false };
        (0..object.parts()).for_each(|index| self.region().part(object, index).unpin());
        self.end_kept(object, held);
        self.release(slot, held, unused);
        true
    }

    /// None of its parts are here.
    pub(crate) fn is_empty(object: &Object, held: &Held) -> bool {
        let is_empty = object.ready_parts.load(Ordering::Acquire) == 0 && lock(&held.kept).is_empty();
        is_empty && held.block_bytes.load(Ordering::Acquire) == 0
    }

    /// Ready parts, and parts with blocks, that no program has mapped, in the order of their giving up: those that were
    /// read, the longest ago first; then those that wait for a reader, from the end of their object.
    fn readable_again(&self, wanted: (u32, u32)) -> Vec<(u64, u32, u32)> {
        let region = self.region();
        let mut parts = Vec::new();
        for (slot, held) in self.in_memory() {
            let Some(object) = region.object(slot) else { continue };
            let ready = (0..object.parts()).filter(|index| region.part(object, *index).is_ready());
            let free = |index: &u32| !region.part(object, *index).is_pinned();
            for index in ready.chain(self.parts_with_blocks(&held)).filter(free) {
                let ahead = slot == wanted.0 && index > wanted.1;
                let order = match region.part(object, index).used() {
                    0 if ahead => u64::MAX - u64::from(index - wanted.1),
                    0 => u64::MAX / 2 - u64::from(index),
                    clock => u64::from(clock),
                };
                parts.push((order, slot, index));
            }
        }
        parts.sort_unstable();
        parts
    }

    /// There was no room for this part since then: later for a reader, unless everything is mapped, or it has
    /// waited for as long as for an origin that is out (a process that died in a copy holds its part as long as
    /// anybody has the object open); never for prefetch.
    pub(crate) fn without_room(&self, slot: u32, index: u32, class: Class, since: Instant) {
        let waited = (self.options.now)().saturating_duration_since(since);
        let (Some(object), Some(held)) = (self.region().object(slot), self.held(slot)) else { return };
        match class {
            Class::Prefetch => held.planned.store(false, Ordering::Release),
            Class::Near => {}
            Class::Demand if self.is_starved(waited) => self.starve(object, &held, index),
            Class::Demand => {
                let mut roomless = lock(&self.roomless);
                let known = roomless.insert((slot, index), since);
                if let Some(known) = known {
                    // Asked for again meanwhile: it is in the plan.
                    roomless.insert((slot, index), known.min(since));
                } else {
                    drop(roomless);
                    self.scheduling.push_later(Item::Again(slot, index), Class::Demand, LOOK_AGAIN);
                }
            }
        }
    }

    /// True if there will be no room for a reader who has waited so long for it.
    pub(crate) fn is_starved(&self, waited: Duration) -> bool {
        waited >= self.options.outage_budget || self.everything_is_mapped()
    }

    /// Tells readers of a part that there is no room for it.
    pub(crate) fn starve(&self, object: &Object, held: &Held, index: u32) {
        // It is not tried any more: a later failure is the first of another trouble.
        held.out_of_trouble();
        let (limit, used) = (self.budget.limit(), self.budget.used());
        // Once for all the parts that its readers wait for.
        if object.starved.swap(ossc_net::error::Kind::Memory.errno() as u32, Ordering::AcqRel) == 0 {
            tracing::error!(
                object = held.key,
                index,
                limit,
                used,
                "no memory for a reader: programs have mapped or hold all of the budget; raise memoryLimit or close other models"
            );
        }
        let part = self.region().part(object, index);
        if part.claim() {
            part.give_up();
        }
    }

    fn everything_is_mapped(&self) -> bool {
        let region = self.region();
        let with_object = |(slot, held): (u32, Arc<Held>)| Some((region.object(slot)?, held));
        self.in_memory().into_iter().filter_map(with_object).all(|(object, held)| {
            let is_mapped = |index: &u32| region.part(object, *index).is_mapped();
            self.parts_with_blocks(&held).iter().all(is_mapped)
                && (0..object.parts()).map(|index| region.part(object, index)).all(|part| match part.state() {
                    ossc_cache::part::READY => part.is_mapped(),
                    state => state == ossc_cache::part::EMPTY,
                })
        })
    }

    /// Gives an object's parts back, or as many of them as can be before a program wants to open its memory; with the
    /// last of them the memory file goes.
    pub(crate) fn release(&self, slot: u32, held: &Held, unused: Unused) {
        let Some(object) = self.region().object(slot) else { return };
        let all: Vec<u32> = (0..object.parts()).collect();
        let given = |parts: &[u32]| unused.is_alone() && self.release_parts(slot, parts);
        if all.chunks(PARTS_AT_ONCE).all(given) || !unused.is_alone() {
            held.planned.store(false, Ordering::Release);
            held.made_way.store(false, Ordering::Release);
        }
        if Self::is_empty(object, held) {
            self.close_memory(slot, object, held, unused);
        }
    }

    /// Gives ready parts back, but those that a program has mapped; false if there are such.
    fn release_parts(&self, slot: u32, indexes: &[u32]) -> bool {
        let region = self.region();
        let (Some(object), Some(held)) = (region.object(slot), self.held(slot)) else { return false };
        self.release_blocks(object, &held, indexes);
        let verified = object.state() == state::VERIFIED;
        if verified {
            object.set_state(state::LOADING);
        }
        let taken: Vec<u32> = indexes.iter().copied().filter(|index| region.part(object, *index).take_back()).collect();
        // A program that maps a part now has pinned it before it looked at its state: either it sees it
        // gone, or this sees it pinned.
        fence(Ordering::SeqCst);
        let stays = |index: &u32| region.part(object, *index).is_pinned() && self.put_back(object, &held, *index);
        let (mapped, free): (Vec<u32>, Vec<u32>) = taken.into_iter().partition(stays);
        if verified && free.is_empty() {
            object.set_state(state::VERIFIED);
        }
        for index in free {
            self.empty(object, &held, index);
        }
        mapped.is_empty()
    }

    /// A part that was taken back is empty from now on.
    pub(crate) fn empty(&self, object: &Object, held: &Held, index: u32) {
        let range = object.part_range(index);
        self.region().header().ready_bytes.fetch_sub(range.end - range.start, Ordering::Relaxed);
        object.ready_parts.fetch_sub(1, Ordering::AcqRel);
        self.end_fill(object, held, index);
    }

    /// Who has the right to fill a part gives its memory back, then its room, then the right. What a program has
    /// pinned stays for the next fill: it may be reading there.
    pub(crate) fn end_fill(&self, object: &Object, held: &Held, index: u32) {
        let part = self.region().part(object, index);
        if part.is_pinned() {
            lock(&held.kept).insert(index);
        } else {
            let range = object.part_range(index);
            if let Some(memory) = &held.memory {
                memory.punch(range.start, range.end);
            }
            self.budget.give(self.room_bytes(object, index));
        }
        part.give_up();
    }

    /// Takes the right to fill a part whose memory and room `end_fill` has left. Under the lock `check`: a block that comes
    /// must not find it empty and not kept, and go to memory that is a program's or about to go.
    pub(crate) fn claim_kept(&self, object: &Object, held: &Held, index: u32) -> bool {
        let _check = lock(&held.check);
        let mut kept = lock(&held.kept);
        let ours = kept.contains(&index) && self.region().part(object, index).claim();
        if ours {
            kept.remove(&index);
        }
        ours
    }

    /// Gives back what `end_fill` has left for programs that have it pinned no more. True if there was such.
    pub(crate) fn end_kept(&self, object: &Object, held: &Held) -> bool {
        let part = |index: &u32| self.region().part(object, *index);
        let free: Vec<u32> = lock(&held.kept).iter().copied().filter(|index| !part(index).is_pinned()).collect();
        let ended = |index: &u32| {
            // A fill of it takes it over.
            let ours = self.claim_kept(object, held, *index);
            if ours {
                self.end_fill(object, held, *index);
            }
            ours
        };
        free.iter().filter(|index| ended(index)).count() > 0
    }

    /// Memory that a part takes, in bytes: the last one of an object ends with a whole page.
    pub(crate) fn room_bytes(&self, object: &Object, index: u32) -> u64 {
        let range = object.part_range(index);
        let end =
            if range.end == object.size() { range.end.next_multiple_of(self.options.page_bytes) } else { range.end };
        end - range.start
    }

    /// The answer that there is no room ends when all who waited for it have seen it: what is asked for later is tried.
    fn end_starved(&self, object: &Object, held: &Held) {
        let mut since = lock(&held.starved_since);
        if object.starved.load(Ordering::Acquire) == 0 {
            *since = None;
            return;
        }
        let now = (self.options.now)();
        if now.saturating_duration_since(*since.get_or_insert(now)) >= STARVED_TOLD {
            *since = None;
            object.starved.store(0, Ordering::Release);
        }
    }

    /// Looks at every large object once: what is unused for `expire` is given back, and old versions that nobody uses end.
    /// `is_nearby` looks for programs that are no clients yet. The time until the first of those that are unused now has
    /// been so long enough, if there is one.
    ///
    /// The time of a use is that of the look that sees it: never earlier than it was, and later by one look at most.
    pub fn look_at_leases(&self, expire: Option<Duration>, is_nearby: &dyn Fn() -> bool) -> Option<Duration> {
        let _alone = lock(&self.looking);
        self.end_unused_versions();
        self.end_rest();
        // A read after this has this number or a later one, a read before it an earlier one.
        let clock = self.region().header().clock.fetch_add(1, Ordering::AcqRel);
        let look = Look {
            expire,
            used_from: self.looked_clock.swap(clock.wrapping_add(1), Ordering::AcqRel),
            alone: OnceCell::new(),
            is_nearby,
        };
        let large = self.to_look_at();
        large.iter().filter_map(|(slot, held)| self.look_at(&look, *slot, self.region().object(*slot)?, held)).min()
    }

    fn look_at(&self, look: &Look<'_>, slot: u32, object: &Object, held: &Arc<Held>) -> Option<Duration> {
        self.end_starved(object, held);
        let parts = || (0..object.parts()).map(|index| self.region().part(object, index));
        let is_old = object.superseded.load(Ordering::Acquire) != 0;
        let busy = parts().any(|part| part.state() == ossc_cache::part::FILLING);
        let empty = Self::is_empty(object, held) && !is_old;
        // One of an old version that has no memory is ended below.
        let may = |unused: &Unused| unused.is_of_memory() || is_old;
        let unused = (!busy && !empty).then(|| Unused::take(object, held)).flatten().filter(may);
        let mut idle_since = lock(&held.idle_since);
        let Some(unused) = unused else {
            *idle_since = None;
            drop(idle_since);
            if !busy && empty && held.memory.as_ref().is_some_and(|memory| memory.is_open()) {
                Unused::take(object, held).into_iter().for_each(|unused| self.close_memory(slot, object, held, unused));
            }
            // In use, also by a program whose first look at it was told of long ago, to another engine perhaps.
            if !busy && !empty {
                held.opened.store(true, Ordering::Release);
            }
            return None;
        };
        // Under the leases: whoever used it until now has counted that before it closed what it had open.
        let uses = object.uses.load(Ordering::Acquire);
        let is_used = held.uses_seen.swap(uses, Ordering::AcqRel) != uses
            // Where there are no leases on the placeholder a descriptor that stays open is told by what is read by it.
            || look.used_from != 0 && parts().any(|part| part.used() >= look.used_from);
        if unused.is_of_memory() {
            parts().for_each(|part| part.unpin());
            self.end_kept(object, held);
        }
        let now = (self.options.now)();
        if is_used {
            *idle_since = None;
            held.opened.store(true, Ordering::Release);
        }
        let mut since = *idle_since.get_or_insert(now);
        if !held.opened.load(Ordering::Acquire) && uses == 0 {
            // Fetched ahead: it stays while a program lives that may still want it.
            let alone = look.alone.get_or_init(|| self.programs.alone_since(now, look.is_nearby));
            since = since.max((*alone)?);
        }
        let (idle, expire) = (now.saturating_duration_since(since), look.expire.or(is_old.then_some(OLD_IDLE))?);
        if idle < expire {
            return Some(expire - idle);
        }
        *idle_since = None;
        drop(idle_since);
        if is_old {
            self.end_version(slot, object, held, unused);
            return None;
        }
        self.release(slot, held, unused);
        tracing::info!(
            object = held.key,
            bytes = held.size,
            idle_secs = idle.as_secs(),
            "released: no program has used it"
        );
        None
    }
}

/// What all objects of one look have in common.
struct Look<'a> {
    expire: Option<Duration>,
    /// Of the region's clock: parts that were read since the look before have this or a later number. 0 at the first.
    used_from: u32,
    /// Since when no program lives, once one has to know.
    alone: OnceCell<Option<Instant>>,
    is_nearby: &'a dyn Fn() -> bool,
}

/// The lease thread: looks again and again, for ever.
pub fn keep(work: &Work, expire: Option<Duration>) {
    let header = work.region().header();
    let folder = (header.model_dev.load(Ordering::Acquire), header.model_ino.load(Ordering::Acquire));
    let is_nearby = || !nearby::processes(folder).is_empty();
    let mut wait = TICK;
    loop {
        std::thread::sleep(wait);
        wait = work.look_at_leases(expire, &is_nearby).map_or(TICK, |soonest| soonest.min(TICK));
    }
}

#[cfg(test)]
#[path = "room_tests.rs"]
mod tests;
