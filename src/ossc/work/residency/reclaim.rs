//! Room for parts: which memory is given back when the budget is used up.
//!
//! Called before a request is sent. Whether a program has an object open or mapped is asked of the kernel (write leases
//! on the placeholder and on the memory file), so it is right for every process, dead or alive, hooked or not. The lease
//! on the memory is held while memory is given back: not longer, and not while anything is waited for.
//! Memory that a program may have mapped is never given back.

use crate::lock::lock;
use crate::work::residency::Residency;
use crate::work::residency::unused::Unused;
use crate::work::shared::action::Action;
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::fill;
use crate::work::shared::item::Item;
use crate::work::shared::reservation::Reservation;
use ossc_cache::part::{EMPTY, READY};
use ossc_cache::region::{Object, state};
use ossc_store::plan::Class;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

/// A reader that finds no room looks again after this long.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Parts that are given back before it is asked again whether a program waits to open the memory: at 8 MiB each about a
/// millisecond of punching.
const PARTS_AT_ONCE: usize = 16;

impl Residency {
    /// A part is to be fetched as a whole: claims it, with memory and room for it. True if there was room without
    /// giving other parts back. `since`: from when on there was none.
    ///
    /// # Errors
    /// It is not to be fetched now. With what is to be done instead.
    pub fn place_part(
        &self,
        (slot, object, entry): (u32, &Object, &RegisterEntry),
        index: u32,
        class: Class,
        since: Option<Instant>,
    ) -> Result<bool, Option<Action>> {
        // The record may have become another version's while this waited.
        if !matches!(object.state(), state::LOADING | state::VERIFIED) || index >= object.parts() {
            return Err(None);
        }
        let part = self.region.part(object, index);
        if part.state() != EMPTY {
            return Err((class == Class::Demand).then_some(Action::Hurry(slot, index)));
        }
        let no_room =
            || Err(self.without_room((slot, object, entry), index, class, since.unwrap_or(self.register.now())));
        if let Err(errno) = self.open_memory(slot, object, entry) {
            self.without_memory_file(object, entry, errno);
            return no_room();
        }
        let bytes = fill::room_bytes(&self.register, object, index);
        // Room first: a claim that is given up wakes the part's readers, who would ask again at once.
        let kept = fill::claim_kept(&self.register, object, entry, index);
        let own_blocks = || class < Class::Prefetch && fill::release_blocks(&self.register, object, entry, &[index]);
        let at_once = if kept {
            None
        } else {
            self.reserve_part(bytes, class).or_else(|| own_blocks().then(|| self.reserve(bytes))?)
        };
        let roomy = kept || at_once.is_some();
        if !kept {
            let Some(room) = at_once.or_else(|| self.make_room(bytes, (slot, index), class)) else { return no_room() };
            // Already fetched or being fetched, by a demand that overtook the prefetch.
            let is_claimed = fill::claim(&self.register, object, entry, index);
            if !is_claimed {
                return Err(None);
            }
            lock(&entry.room).put(room);
        }
        object.starved.store(0, Ordering::Release);
        // It was given up while the verdict was being made; the verdict is due again when it is back.
        if object.state() == state::VERIFIED {
            object.set_state(state::LOADING);
        }
        Ok(roomy)
    }

    /// Blocks of a part are to be fetched, so many bytes: memory and room for them.
    ///
    /// # Errors
    /// There is none. With what is to be done instead.
    pub fn place_blocks(
        &self,
        (slot, object, entry): (u32, &Object, &RegisterEntry),
        item: Item,
        bytes: u64,
        class: Class,
    ) -> Result<(), Option<Action>> {
        let Item::Blocks(_, index, first, count) = item else { return Err(None) };
        let no_room = || Err(self.without_room_for_blocks(item, object, entry, index, (first, count)));
        if let Err(errno) = self.open_memory(slot, object, entry) {
            self.without_memory_file(object, entry, errno);
            return no_room();
        }
        let Some(room) = self.reserve(bytes).or_else(|| self.make_room(bytes, (slot, index), class)) else {
            return no_room();
        };
        lock(&entry.room).put(room);
        lock(&entry.check).small.entry(index).or_default().roomless = None;
        object.starved.store(0, Ordering::Release);
        Ok(())
    }

    /// Puts `bytes` aside for a part, at the cost of what is not needed. `None` if there is nothing to give.
    /// Prefetch takes no room from other parts.
    pub fn make_room(&self, bytes: u64, wanted: (u32, u32), class: Class) -> Option<Reservation> {
        if class == Class::Prefetch {
            return None;
        }
        let _one_at_a_time = lock(&self.making);
        if let Some(room) = self.reserve(bytes) {
            return Some(room);
        }
        let mut others = self.in_memory();
        let end_kept = |(slot, entry): &(u32, Arc<RegisterEntry>)| {
            self.region.object(*slot).is_some_and(|o| fill::end_kept(&self.register, o, entry))
        };
        if others.iter().filter(|other| end_kept(other)).count() > 0
            && let Some(room) = self.reserve(bytes)
        {
            return Some(room);
        }
        let is_empty =
            |slot: u32, entry: &RegisterEntry| self.region.object(slot).is_none_or(|o| fill::is_empty(o, entry));
        others.retain(|(slot, entry)| *slot != wanted.0 && !is_empty(*slot, entry));
        let with_idle = |(slot, entry): (u32, Arc<RegisterEntry>)| {
            let since = *lock(&entry.idle_since);
            (since, slot, entry)
        };
        let (mut idle, in_use): (Vec<_>, Vec<_>) = others.into_iter().map(with_idle).partition(|o| o.0.is_some());
        idle.sort_by_key(|(since, ..)| *since);
        let without = |(_, slot, entry): &(Option<Instant>, u32, Arc<RegisterEntry>)| {
            if self.release_unused(*slot, entry) { self.reserve(bytes) } else { None }
        };
        if let Some(room) = idle.iter().find_map(without) {
            return Some(room);
        }
        let parts = self.readable_again(wanted);
        let without_part = |(_, slot, index): &(u64, u32, u32)| {
            if self.release_parts(*slot, &[*index]) { self.reserve(bytes) } else { None }
        };
        if let Some(room) = parts.iter().find_map(without_part) {
            return Some(room);
        }
        // A program may have ended since the last look at the leases; a reader's error would be wrong then.
        in_use.iter().find_map(without)
    }

    /// Gives an object back if no program has it open or mapped. True if it did.
    pub(super) fn release_unused(&self, slot: u32, entry: &RegisterEntry) -> bool {
        let Some(object) = self.region.object(slot) else { return false };
        let Some(unused) = Unused::prove(object, entry, self.region.traces(object)).filter(Unused::is_of_memory) else {
            return false;
        };
        (0..object.parts()).for_each(|index| self.region.part(object, index).unpin());
        fill::end_kept(&self.register, object, entry);
        self.release(slot, entry, unused);
        true
    }

    /// Ready parts, and parts with blocks, that no program has mapped, in the order of their giving up: those that were
    /// read, the longest ago first; then those that wait for a reader, from the end of their object.
    fn readable_again(&self, wanted: (u32, u32)) -> Vec<(u64, u32, u32)> {
        let region = self.region;
        let mut parts = Vec::new();
        for (slot, entry) in self.in_memory() {
            let Some(object) = region.object(slot) else { continue };
            let ready = (0..object.parts()).filter(|index| region.part(object, *index).is_ready());
            let free = |index: &u32| !region.part(object, *index).is_pinned();
            for index in ready.chain(fill::parts_with_blocks(&entry)).filter(free) {
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
    /// a program has the object open); never for prefetch.
    fn without_room(
        &self,
        (slot, object, entry): (u32, &Object, &RegisterEntry),
        index: u32,
        class: Class,
        since: Instant,
    ) -> Option<Action> {
        let waited = self.register.now().saturating_duration_since(since);
        match class {
            Class::Prefetch => entry.planned.store(false, Ordering::Release),
            Class::Near => {}
            Class::Demand if self.is_starved(waited) => self.starve(object, entry, index),
            Class::Demand => {
                let mut roomless = lock(&self.roomless);
                let Some(known) = roomless.insert((slot, index), since) else {
                    return Some(Action::PushLater(Item::Again(slot, index), Class::Demand, LOOK_AGAIN));
                };
                // Asked for again meanwhile: it is in the plan.
                roomless.insert((slot, index), known.min(since));
            }
        }
        None
    }

    /// The same for blocks: later, unless there will be none.
    fn without_room_for_blocks(
        &self,
        item: Item,
        object: &Object,
        entry: &RegisterEntry,
        index: u32,
        blocks: (u32, u32),
    ) -> Option<Action> {
        let now = self.register.now();
        let since = *lock(&entry.check).small.entry(index).or_default().roomless.get_or_insert(now);
        if self.is_starved(now.saturating_duration_since(since)) {
            fill::asked_no_more(entry, index, blocks);
            self.starve(object, entry, index);
            return None;
        }
        Some(Action::PushLater(item, Class::Demand, LOOK_AGAIN))
    }

    /// True if there will be no room for a reader who has waited so long for it.
    fn is_starved(&self, waited: Duration) -> bool {
        waited >= self.options.outage_budget || self.everything_is_mapped()
    }

    /// Tells readers of a part that there is no room for it.
    fn starve(&self, object: &Object, entry: &RegisterEntry, index: u32) {
        // It is not tried any more: a later failure is the first of another trouble.
        entry.out_of_trouble();
        let (limit, used) = (self.budget.limit(), self.budget.used());
        // Once for all the parts that its readers wait for.
        if object.starved.swap(ossc_net::error::FailureKind::Memory.errno() as u32, Ordering::AcqRel) == 0 {
            tracing::error!(
                object = entry.key,
                index,
                limit,
                used,
                "no memory for a reader: programs have mapped or hold all of the budget; raise memoryLimit or close other models"
            );
        }
        let part = self.region.part(object, index);
        if part.claim() {
            part.give_up();
        }
    }

    fn everything_is_mapped(&self) -> bool {
        let region = self.region;
        let with_object = |(slot, entry): (u32, Arc<RegisterEntry>)| Some((region.object(slot)?, entry));
        self.in_memory().into_iter().filter_map(with_object).all(|(object, entry)| {
            let is_mapped = |index: &u32| region.part(object, *index).is_mapped();
            fill::parts_with_blocks(&entry).iter().all(is_mapped)
                && (0..object.parts()).map(|index| region.part(object, index)).all(|part| match part.state() {
                    READY => part.is_mapped(),
                    state => state == EMPTY,
                })
        })
    }

    /// Gives an object's parts back, or as many of them as can be before a program wants to open its memory; with the
    /// last of them the memory file goes.
    pub(super) fn release(&self, slot: u32, entry: &RegisterEntry, unused: Unused) {
        let Some(object) = self.region.object(slot) else { return };
        let all: Vec<u32> = (0..object.parts()).collect();
        let given = |parts: &[u32]| unused.is_alone() && self.release_parts(slot, parts);
        if all.chunks(PARTS_AT_ONCE).all(given) || !unused.is_alone() {
            entry.planned.store(false, Ordering::Release);
            entry.made_way.store(false, Ordering::Release);
        }
        if fill::is_empty(object, entry) {
            self.close_memory(slot, object, entry, unused);
        }
    }

    /// Gives ready parts back, but those that a program has mapped; false if there are such.
    fn release_parts(&self, slot: u32, indexes: &[u32]) -> bool {
        let region = self.region;
        let Some((object, entry)) = self.register.get(slot) else { return false };
        fill::release_blocks(&self.register, object, &entry, indexes);
        let verified = object.state() == state::VERIFIED;
        if verified {
            object.set_state(state::LOADING);
        }
        let taken: Vec<u32> = indexes.iter().copied().filter(|index| region.part(object, *index).take_back()).collect();
        // A program that maps a part now has pinned it before it looked at its state: either it sees it
        // gone, or this sees it pinned.
        fence(Ordering::SeqCst);
        let stays = |index: &u32| {
            region.part(object, *index).is_pinned() && fill::put_back(&self.register, object, &entry, *index)
        };
        let (mapped, free): (Vec<u32>, Vec<u32>) = taken.into_iter().partition(stays);
        if verified && free.is_empty() {
            object.set_state(state::VERIFIED);
        }
        for index in free {
            fill::empty(&self.register, object, &entry, index);
        }
        mapped.is_empty()
    }
}
