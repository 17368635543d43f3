//! The state word of a part and its only legal moves: Empty -> Filling -> Ready, and back to Empty by the
//! filler alone. The same word is the futex that readers sleep on.
//!
//! A part has two records. What the engine says of it lies where clients can only read; what programs say of it lies
//! where they write. Called by the engine (fills) and by clients (look, wait). It never looks at bytes: whoever publishes
//! has written and checked them before.

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence, futex_wait, futex_wake};

/// Nobody has it and nobody fetches it.
pub const EMPTY: u32 = 0;
/// A connection of the engine writes into it.
pub const FILLING: u32 = 1;
/// All bytes are there and passed the checks of their response.
pub const READY: u32 = 2;

/// The bits of the word that say the state. Above them lies a number that changes with every block that comes
/// (`Part::stir`), so that nobody falls asleep over it.
const STATE: u32 = 3;
const STIRRED: u32 = STATE + 1;

/// See `Part::pinned`.
const MAPPED: u32 = 1 << 31;

/// What the engine says of a part. Clients have it read-only.
#[repr(C)]
#[derive(Default)]
pub struct PartState {
    word: AtomicU32,
    attempts: AtomicU32,
    /// CRC-64/XZ of the part's bytes; written before the part becomes ready.
    crc64: AtomicU64,
    /// Last round (see `verdict`) in which its CRC-64 became known; 0 before the first.
    known: AtomicU32,
    /// Number of its set of blocks, counted from 1; 0 for none.
    set: AtomicU32,
}

/// What programs say of a part. Any number in it is possible, and none harms the engine: at worst memory stays longer, is
/// given back earlier and fetched again, or a reader waits for the verdict. A program that takes another's pin off can
/// make memory go that the other has mapped.
#[repr(C)]
#[derive(Default)]
pub struct PartTraces {
    /// Value of the region's clock when a reader last copied from it; 0 since it was filled.
    used: AtomicU32,
    /// Not 0: its memory stays. `MAPPED` since a program was given a map, a FILE or a transfer of it (or waits
    /// for one); the rest counts the readers that wait for it or copy from it now. The engine clears all of
    /// it when the kernel says that nobody has the object open or mapped.
    pinned: AtomicU32,
    /// Last round in which a reader was given bytes of it before the verdict; 0 before the first.
    handed: AtomicU32,
    unused: AtomicU32,
}

/// A part with records of its own, for tests.
#[derive(Default)]
pub struct OwnPart {
    state: PartState,
    traces: PartTraces,
}

impl OwnPart {
    /// The part.
    pub fn part(&self) -> Part<'_> {
        Part::new(&self.state, &self.traces)
    }
}

/// One part of an object, in the shared region.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    state: &'a PartState,
    traces: &'a PartTraces,
}

impl<'a> Part<'a> {
    /// The part with these records.
    pub fn new(state: &'a PartState, traces: &'a PartTraces) -> Part<'a> {
        Part { state, traces }
    }

    /// EMPTY, FILLING or READY.
    pub fn state(&self) -> u32 {
        self.state.word.load(Ordering::Acquire) & STATE
    }

    /// True if the bytes can be read.
    pub fn is_ready(&self) -> bool {
        self.state() == READY
    }

    /// Takes the right to fill; false if another has it or the part is ready.
    pub fn claim(&self) -> bool {
        let taken = self.state.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            (word & STATE == EMPTY).then_some(word & !STATE | FILLING)
        });
        if taken.is_ok() {
            // Whoever sees the new number sees that the part has left READY.
            self.state.attempts.fetch_add(1, Ordering::Release);
            // Whoever meets a byte of this fill meets its number too; no instruction on x86-64.
            fence(Ordering::Release);
        }
        taken.is_ok()
    }

    /// Publishes the bytes to every process. Only the filler calls it, after the last byte and its checks.
    pub fn publish(&self, crc64: u64) {
        self.state.crc64.store(crc64, Ordering::Relaxed);
        self.turn(READY);
    }

    /// Only the filler calls it: moves to another state, and wakes who waits.
    fn turn(&self, to: u32) {
        let turned = |word: u32| Some(word & !STATE | to);
        let _ = self.state.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, turned);
        futex_wake(&self.state.word);
    }

    /// Gives the right to fill back without bytes. Only the filler calls it, after its last write is over.
    /// Readers are woken: they look at the object, which may have failed meanwhile.
    pub fn give_up(&self) {
        self.turn(EMPTY);
    }

    /// Takes a ready part back, to be fetched again: the check of the whole object has failed, or its
    /// memory is given up. True if it was ready.
    pub fn retract(&self) -> bool {
        let taken = self.leave_ready(EMPTY);
        self.traces.used.store(0, Ordering::Relaxed);
        taken
    }

    /// Takes a ready part for its memory to be given up; nobody fills it until `give_up`. A reader that
    /// copies meanwhile sees that its fill is no longer the one it began with, and waits again.
    pub fn take_back(&self) -> bool {
        let taken = self.leave_ready(FILLING);
        if taken {
            self.state.attempts.fetch_add(1, Ordering::AcqRel);
            self.traces.used.store(0, Ordering::Relaxed);
        }
        taken
    }

    fn leave_ready(&self, to: u32) -> bool {
        let left = |word: u32| (word & STATE == READY).then_some(word & !STATE | to);
        self.state.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, left).is_ok()
    }

    /// Number of the fill whose bytes are ready; `None` while none are. The same number before and after a
    /// copy means that the bytes were there all the time.
    pub fn fill(&self) -> Option<u32> {
        self.fill_if(|| false)
    }

    /// The same where bytes of it may be there although it is not ready: `has_blocks` says whether they are.
    #[inline(always)]
    pub fn fill_if(&self, has_blocks: impl FnOnce() -> bool) -> Option<u32> {
        let fill = self.state.attempts.load(Ordering::Acquire);
        (self.is_ready() || has_blocks()).then_some(fill)
    }

    /// From now on its memory stays; to be called before the wait for it. The engine takes a part back,
    /// fences, and looks at the pins; this pins, fences, and looks at the state: one of them sees the other.
    pub fn pin(&self) {
        self.traces.pinned.fetch_or(MAPPED, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Like `pin`, for the time of one wait and copy: until `unpin_after_copy`. A reader that wants several parts holds
    /// one after the other, else readers could hold all of a small budget and wait for each other.
    pub fn pin_for_copy(&self) {
        self.traces.pinned.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Ends a `pin_for_copy`, unless the engine has cleared it meanwhile.
    pub fn unpin_after_copy(&self) {
        let less = |pinned: u32| (pinned & !MAPPED != 0).then(|| pinned - 1);
        let _ = self.traces.pinned.fetch_update(Ordering::Release, Ordering::Relaxed, less);
    }

    /// Engine only, under the leases of the object: nobody has it.
    pub fn unpin(&self) {
        self.traces.pinned.store(0, Ordering::SeqCst);
    }

    /// See `pin` and `pin_for_copy`.
    pub fn is_pinned(&self) -> bool {
        self.traces.pinned.load(Ordering::SeqCst) != 0
    }

    /// See `pin`: true if it stays for more than the copy that is under way.
    pub fn is_mapped(&self) -> bool {
        self.traces.pinned.load(Ordering::SeqCst) & MAPPED != 0
    }

    /// A reader has copied from it at this time of the region's clock.
    pub fn touch(&self, clock: u32) {
        self.traces.used.store(clock.max(1), Ordering::Relaxed);
    }

    /// See `touch`; 0 since it was filled.
    pub fn used(&self) -> u32 {
        self.traces.used.load(Ordering::Relaxed)
    }

    /// Engine only: the part becomes another object's, and is empty whatever it was. Fills go on being counted: a
    /// reader of the object before can never take a fill of the next one for the one that it began with.
    pub fn renew(&self) {
        if self.state() != EMPTY {
            self.turn(EMPTY);
            // As in `take_back`.
            self.state.attempts.fetch_add(1, Ordering::AcqRel);
        }
        self.state.crc64.store(0, Ordering::Relaxed);
        self.state.known.store(0, Ordering::Relaxed);
        self.state.set.store(0, Ordering::Release);
        // Only what was ever used is touched: most of these are of parts that no program has read.
        for trace in [&self.traces.used, &self.traces.handed, &self.traces.pinned] {
            if trace.load(Ordering::Relaxed) != 0 {
                trace.store(0, Ordering::SeqCst);
            }
        }
    }

    /// Number of its set of blocks (see `block`); `None` where it has none.
    pub fn set(&self) -> Option<u32> {
        self.state.set.load(Ordering::Acquire).checked_sub(1)
    }

    /// Engine only: this set is its own from now on.
    pub fn give_set(&self, number: u32) {
        self.state.set.store(number + 1, Ordering::Release);
    }

    /// A new engine takes over: what its predecessor was writing is torn. True if it was.
    pub fn disown(&self) -> bool {
        let torn = self.state() == FILLING;
        if torn {
            self.give_up();
        }
        torn
    }

    /// CRC-64/XZ of the part; meaningful once it is ready.
    pub fn crc64(&self) -> u64 {
        self.state.crc64.load(Ordering::Relaxed)
    }

    /// Engine only, before it publishes: its bytes as they came in this round have this CRC-64, which stays known when
    /// their memory is given back.
    pub fn learn(&self, crc64: u64, round: u32) {
        self.state.crc64.store(crc64, Ordering::Relaxed);
        self.state.known.store(round, Ordering::Release);
    }

    /// True if its CRC-64 is known in this round, whether its bytes are still here or not.
    pub fn is_known(&self, round: u32) -> bool {
        self.state.known.load(Ordering::Acquire) == round
    }

    /// A reader is about to be given bytes of it before the verdict; true if it is the first of this round.
    pub fn hand_out(&self, round: u32) -> bool {
        self.traces.handed.swap(round, Ordering::AcqRel) != round
    }

    /// True if a reader was given bytes of it, or is about to be, before the verdict of this round.
    pub fn is_handed_out(&self, round: u32) -> bool {
        self.traces.handed.load(Ordering::Acquire) == round
    }

    /// How often a fill was started.
    pub fn attempts(&self) -> u32 {
        self.state.attempts.load(Ordering::Relaxed)
    }

    /// Sleeps until the state may have changed, at most `ms` milliseconds. Spurious returns are allowed.
    pub fn sleep(&self, ms: u64) {
        self.sleep_unless(ms, || false);
    }

    /// The same, unless `is_there` says that what is waited for has come, which `stir` tells of.
    pub fn sleep_unless(&self, ms: u64, is_there: impl FnOnce() -> bool) {
        let seen = self.state.word.load(Ordering::Acquire);
        if seen & STATE != READY && !is_there() {
            let _ = futex_wait(&self.state.word, seen, ms);
        }
    }

    /// Engine only: a block of it has come. Whoever looks at the word from now on sees it; whoever did before is woken.
    pub fn stir(&self) {
        self.state.word.fetch_add(STIRRED, Ordering::AcqRel);
        futex_wake(&self.state.word);
    }

    /// Engine only: its blocks were taken back. A reader that copies meanwhile sees by the number that they were.
    pub fn lose_blocks(&self) {
        self.state.attempts.fetch_add(1, Ordering::AcqRel);
        self.traces.used.store(0, Ordering::Relaxed);
    }
}
