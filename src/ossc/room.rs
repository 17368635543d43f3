//! Room for parts: which memory is given back when the budget is used up, and when nobody needs it any more.
//!
//! Called by `work` before a request is sent (never after: what is received has its room), and by the lease
//! thread. Whether somebody has an object open or mapped is asked of the kernel (write leases on the
//! placeholder and on the memory file), so it is right for every process, dead or alive, hooked or not. The lease on
//! the memory is held while memory is given back: not longer, and not while anything is waited for.
//! Memory that a program may have mapped is never given back.

use crate::held::{Held, lock};
use crate::item::Item;
use crate::memory::Guard;
use crate::work::Work;
use ossc_cache::cpath::CPath;
use ossc_cache::pages::Lease;
use ossc_cache::plan::Class;
use ossc_cache::region::{Object, state};
use ossc_cache::sys::{self, Errno};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

/// How often leases are looked at: an idle engine wakes up less than once a second.
const TICK: Duration = Duration::from_millis(1300);
/// A reader that finds no room looks again after this long.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// So long readers are told that there is no room: they look once a slice.
const STARVED_TOLD: Duration = Duration::from_millis(5 * ossc_cache::wait::SLICE_MS);
/// Objects that were fetched ahead and never opened stay at least this long.
const UNOPENED_MIN: Duration = Duration::from_secs(10);
/// Parts that are given back before it is asked again whether a program waits to open the memory: at 8 MiB each about a
/// millisecond of punching.
const PARTS_AT_ONCE: usize = 16;

/// The lease on an object's memory, taken at a moment when its placeholder was open nowhere either. While it is held
/// nobody has the memory open or mapped, and a program that wants it waits in its `open`: programs open the memory
/// before they pin parts of it, so the pins that are there are of nobody. The placeholder may be opened meanwhile: what
/// is read through it waits for its parts like any other read.
struct Unused {
    memory: Box<dyn Guard>,
}

impl Unused {
    /// `None` if somebody uses it.
    fn take(held: &Held) -> Option<Unused> {
        let memory = held.memory.as_ref()?.lease().ok()?;
        match placeholder_lease(held) {
            Err(Errno(libc::EAGAIN)) => None,
            // Given back at once, so that no program waits for it; an error is of a file system without leases: a
            // reader that has it open sees its parts go, and waits again.
            _ => Some(Unused { memory }),
        }
    }

    /// True while no program waits to open the memory.
    fn is_alone(&self) -> bool {
        self.memory.is_whole()
    }
}

fn placeholder_lease(held: &Held) -> Result<Lease, Errno> {
    let pinned = lock(&held.pinned);
    let fd = pinned.as_ref().ok_or(Errno(libc::ENOENT))?.descriptor();
    let path = CPath::from(b"/proc/self/fd/").with_number(fd as u64);
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    Lease::take_owned(sys::openat(sys::AT_FDCWD, path.as_cstr().ok_or(Errno(libc::EIO))?, flags, 0)?)
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
        let mut others = self.large();
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
    fn release_unused(&self, slot: u32, held: &Held) -> bool {
        let (Some(object), Some(unused)) = (self.region().object(slot), Unused::take(held)) else { return false };
        (0..object.parts).for_each(|index| self.region().part(object, index).unpin());
        self.end_kept(object, held);
        self.release(slot, held, &unused);
        true
    }

    /// It has no memory.
    fn is_empty(object: &Object, held: &Held) -> bool {
        object.ready_parts.load(Ordering::Acquire) == 0 && lock(&held.kept).is_empty()
    }

    /// Ready parts that no program has mapped, in the order of their giving up: those that were
    /// read, the longest ago first; then those that wait for a reader, from the end of their object.
    fn readable_again(&self, wanted: (u32, u32)) -> Vec<(u64, u32, u32)> {
        let region = self.region();
        let mut parts = Vec::new();
        for (slot, _) in self.large() {
            let Some(object) = region.object(slot) else { continue };
            let free = |index: &u32| region.part(object, *index).is_ready() && !region.part(object, *index).is_pinned();
            for index in (0..object.parts).filter(free) {
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
            Class::Demand if waited >= self.options.outage_budget || self.everything_is_mapped() => {
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
            Class::Demand => {
                let mut roomless = lock(&self.roomless);
                let known = roomless.insert((slot, index), since);
                if let Some(known) = known {
                    // Asked for again meanwhile: it is in the plan.
                    roomless.insert((slot, index), known.min(since));
                } else {
                    drop(roomless);
                    self.push_later(Item::Again(slot, index), Class::Demand, LOOK_AGAIN);
                }
            }
        }
    }

    fn everything_is_mapped(&self) -> bool {
        let region = self.region();
        self.large().iter().filter_map(|(slot, _)| region.object(*slot)).all(|object| {
            (0..object.parts).map(|index| region.part(object, index)).all(|part| match part.state() {
                ossc_cache::part::READY => part.is_mapped(),
                state => state == ossc_cache::part::EMPTY,
            })
        })
    }

    /// Gives an object's parts back, or as many of them as can be before a program wants to open its memory.
    fn release(&self, slot: u32, held: &Held, unused: &Unused) {
        let Some(object) = self.region().object(slot) else { return };
        let all: Vec<u32> = (0..object.parts).collect();
        let given = |parts: &[u32]| unused.is_alone() && self.release_parts(slot, parts);
        if all.chunks(PARTS_AT_ONCE).all(given) || !unused.is_alone() {
            held.planned.store(false, Ordering::Release);
            held.made_way.store(false, Ordering::Release);
        }
    }

    /// Gives ready parts back, but those that a program has mapped; false if there are such.
    fn release_parts(&self, slot: u32, indexes: &[u32]) -> bool {
        let region = self.region();
        let (Some(object), Some(held)) = (region.object(slot), self.held(slot)) else { return false };
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

    /// Gives back what `end_fill` has left for programs that have it pinned no more. True if there was such.
    fn end_kept(&self, object: &Object, held: &Held) -> bool {
        let part = |index: &u32| self.region().part(object, *index);
        let free: Vec<u32> = lock(&held.kept).iter().copied().filter(|index| !part(index).is_pinned()).collect();
        let ended = |index: &u32| {
            // A fill of it takes it over.
            let ours = part(index).claim();
            if ours && lock(&held.kept).remove(index) {
                self.end_fill(object, held, *index);
            } else if ours {
                part(index).give_up();
            }
            ours
        };
        free.iter().filter(|index| ended(index)).count() > 0
    }

    /// Memory that a part takes, in bytes: the last one of an object ends with a whole page.
    pub(crate) fn room_bytes(&self, object: &Object, index: u32) -> u64 {
        let range = object.part_range(index);
        let end =
            if range.end == object.size { range.end.next_multiple_of(self.options.page_bytes) } else { range.end };
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

    /// Looks at every large object once: who is unused for `expire` is given back.
    /// The time until the first of those that are unused now has been so long enough, if there is one.
    pub fn look_at_leases(&self, expire: Option<Duration>) -> Option<Duration> {
        let mut soonest: Option<Duration> = None;
        let region = self.region();
        for (slot, held) in self.large() {
            let Some(object) = region.object(slot) else { continue };
            self.end_starved(object, &held);
            let states = || (0..object.parts).map(|index| region.part(object, index).state());
            let busy = states().any(|part| part == ossc_cache::part::FILLING);
            let empty = Self::is_empty(object, &held);
            let unused = (!busy && !empty).then(|| Unused::take(&held)).flatten();
            let mut idle_since = lock(&held.idle_since);
            let Some(unused) = unused else {
                *idle_since = None;
                // In use, also by a program whose first look at it was told of long ago, to another engine perhaps.
                if !busy && !empty {
                    held.opened.store(true, Ordering::Release);
                }
                continue;
            };
            (0..object.parts).for_each(|index| region.part(object, index).unpin());
            self.end_kept(object, &held);
            let now = (self.options.now)();
            let idle = now.saturating_duration_since(*idle_since.get_or_insert(now));
            let opened = held.opened.load(Ordering::Acquire);
            let Some(expire) = expire.map(|expire| if opened { expire } else { expire.max(UNOPENED_MIN) }) else {
                continue;
            };
            if idle < expire {
                let left = expire - idle;
                soonest = Some(soonest.map_or(left, |soonest| soonest.min(left)));
            } else {
                *idle_since = None;
                drop(idle_since);
                self.release(slot, &held, &unused);
                tracing::info!(
                    object = held.key,
                    bytes = held.size,
                    idle_secs = idle.as_secs(),
                    "released: nobody has used it"
                );
            }
        }
        soonest
    }
}

/// The lease thread: looks again and again, for ever.
pub fn keep(work: &Work, expire: Option<Duration>) {
    let mut wait = TICK;
    loop {
        std::thread::sleep(wait);
        wait = work.look_at_leases(expire).map_or(TICK, |soonest| soonest.min(TICK));
    }
}
