//! The state word of a part and its only legal moves: Empty -> Filling -> Ready, and back to Empty by the
//! filler alone. The same word is the futex that readers sleep on.
//!
//! Called by the engine (fills) and by clients (look, wait). It never looks at bytes: whoever publishes
//! has written and checked them before.

use crate::futex_word::WAITED;
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence, futex_wait, futex_wake};

/// Nobody has it and nobody fetches it.
pub const EMPTY: u32 = 0;
/// A connection of the engine writes into it.
pub const FILLING: u32 = 1;
/// All bytes are there and passed the checks of their response.
pub const READY: u32 = 2;

/// The bits of the word that say the state. Above them, up to the mark of those who wait, lies a number that changes
/// with every block that comes (`Part::stir`), so that nobody falls asleep over it.
const STATE: u32 = 3;
const STIRRED: u32 = STATE + 1;

/// See `Part::pinned`.
const MAPPED: u32 = 1 << 31;

/// One part of an object, in the shared region.
#[repr(C)]
#[derive(Default)]
pub struct Part {
    word: AtomicU32,
    attempts: AtomicU32,
    /// CRC-64/XZ of the part's bytes; written before the part becomes ready.
    crc64: AtomicU64,
    /// Value of the region's clock when a reader last copied from it; 0 since it was filled.
    used: AtomicU32,
    /// Not 0: its memory stays. `MAPPED` since a program was given a map, a FILE or a transfer of it (or waits
    /// for one); the rest counts the readers that wait for it or copy from it now. The engine clears all of
    /// it when the kernel says that nobody has the object open or mapped.
    pinned: AtomicU32,
    /// Last round (see `verdict`) in which its CRC-64 became known; 0 before the first.
    known: AtomicU32,
    /// Last round in which a reader was given bytes of it before the verdict; 0 before the first.
    handed: AtomicU32,
}

impl Part {
    /// EMPTY, FILLING or READY.
    pub fn state(&self) -> u32 {
        self.word.load(Ordering::Acquire) & STATE
    }

    /// True if the bytes can be read.
    pub fn is_ready(&self) -> bool {
        self.state() == READY
    }

    /// Takes the right to fill; false if another has it or the part is ready.
    pub fn claim(&self) -> bool {
        let taken = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            (word & STATE == EMPTY).then_some(word & WAITED | FILLING)
        });
        if taken.is_ok() {
            // Whoever sees the new number sees that the part has left READY.
            self.attempts.fetch_add(1, Ordering::Release);
            // Whoever meets a byte of this fill meets its number too; no instruction on x86-64.
            fence(Ordering::Release);
        }
        taken.is_ok()
    }

    /// Publishes the bytes to every process. Only the filler calls it, after the last byte and its checks.
    pub fn publish(&self, crc64: u64) {
        self.crc64.store(crc64, Ordering::Relaxed);
        if self.word.swap(READY, Ordering::AcqRel) & WAITED != 0 {
            futex_wake(&self.word);
        }
    }

    /// Gives the right to fill back without bytes. Only the filler calls it, after its last write is over.
    /// Readers are woken: they look at the object, which may have failed meanwhile.
    pub fn give_up(&self) {
        if self.word.swap(EMPTY, Ordering::AcqRel) & WAITED != 0 {
            futex_wake(&self.word);
        }
    }

    /// Takes a ready part back, to be fetched again: the check of the whole object has failed, or its
    /// memory is given up. True if it was ready.
    pub fn retract(&self) -> bool {
        let taken = self.leave_ready(EMPTY);
        self.used.store(0, Ordering::Relaxed);
        taken
    }

    /// Takes a ready part for its memory to be given up; nobody fills it until `give_up`. A reader that
    /// copies meanwhile sees that its fill is no longer the one it began with, and waits again.
    pub fn take_back(&self) -> bool {
        let taken = self.leave_ready(FILLING);
        if taken {
            self.attempts.fetch_add(1, Ordering::AcqRel);
            self.used.store(0, Ordering::Relaxed);
        }
        taken
    }

    /// A reader that was about to sleep when the part became ready has left its mark in the word for good.
    fn leave_ready(&self, to: u32) -> bool {
        let left = |word: u32| (word & STATE == READY).then_some(word & WAITED | to);
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, left).is_ok()
    }

    /// Number of the fill whose bytes are ready; `None` while none are. The same number before and after a
    /// copy means that the bytes were there all the time.
    pub fn fill(&self) -> Option<u32> {
        self.fill_if(|| false)
    }

    /// The same where bytes of it may be there although it is not ready: `has_blocks` says whether they are.
    #[inline(always)]
    pub fn fill_if(&self, has_blocks: impl FnOnce() -> bool) -> Option<u32> {
        let fill = self.attempts.load(Ordering::Acquire);
        (self.is_ready() || has_blocks()).then_some(fill)
    }

    /// From now on its memory stays; to be called before the wait for it. The engine takes a part back,
    /// fences, and looks at the pins; this pins, fences, and looks at the state: one of them sees the other.
    pub fn pin(&self) {
        self.pinned.fetch_or(MAPPED, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Like `pin`, for the time of one wait and copy: until `unpin_after_copy`. A reader that wants several parts holds
    /// one after the other, else readers could hold all of a small budget and wait for each other.
    pub fn pin_for_copy(&self) {
        self.pinned.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Ends a `pin_for_copy`, unless the engine has cleared it meanwhile.
    pub fn unpin_after_copy(&self) {
        let less = |pinned: u32| (pinned & !MAPPED != 0).then(|| pinned - 1);
        let _ = self.pinned.fetch_update(Ordering::Release, Ordering::Relaxed, less);
    }

    /// Engine only, under the leases of the object: nobody has it.
    pub fn unpin(&self) {
        self.pinned.store(0, Ordering::SeqCst);
    }

    /// See `pin` and `pin_for_copy`.
    pub fn is_pinned(&self) -> bool {
        self.pinned.load(Ordering::SeqCst) != 0
    }

    /// See `pin`: true if it stays for more than the copy that is under way.
    pub fn is_mapped(&self) -> bool {
        self.pinned.load(Ordering::SeqCst) & MAPPED != 0
    }

    /// A reader has copied from it at this time of the region's clock.
    pub fn touch(&self, clock: u32) {
        self.used.store(clock.max(1), Ordering::Relaxed);
    }

    /// See `touch`; 0 since it was filled.
    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    /// Engine only: the part becomes another object's, and is empty whatever it was. Fills go on being counted: a
    /// reader of the object before can never take a fill of the next one for the one that it began with.
    pub fn renew(&self) {
        let before = self.word.swap(EMPTY, Ordering::AcqRel);
        if before & STATE != EMPTY {
            // As in `take_back`.
            self.attempts.fetch_add(1, Ordering::AcqRel);
        }
        self.crc64.store(0, Ordering::Relaxed);
        self.used.store(0, Ordering::Relaxed);
        self.known.store(0, Ordering::Relaxed);
        self.handed.store(0, Ordering::Relaxed);
        self.pinned.store(0, Ordering::SeqCst);
        if before & WAITED != 0 {
            futex_wake(&self.word);
        }
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
        self.crc64.load(Ordering::Relaxed)
    }

    /// Engine only, before it publishes: its bytes as they came in this round have this CRC-64, which stays known when
    /// their memory is given back.
    pub fn learn(&self, crc64: u64, round: u32) {
        self.crc64.store(crc64, Ordering::Relaxed);
        self.known.store(round, Ordering::Release);
    }

    /// True if its CRC-64 is known in this round, whether its bytes are still here or not.
    pub fn is_known(&self, round: u32) -> bool {
        self.known.load(Ordering::Acquire) == round
    }

    /// A reader is about to be given bytes of it before the verdict; true if it is the first of this round.
    pub fn hand_out(&self, round: u32) -> bool {
        self.handed.swap(round, Ordering::AcqRel) != round
    }

    /// True if a reader was given bytes of it, or is about to be, before the verdict of this round.
    pub fn is_handed_out(&self, round: u32) -> bool {
        self.handed.load(Ordering::Acquire) == round
    }

    /// How often a fill was started.
    pub fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Sleeps until the state may have changed, at most `ms` milliseconds. Spurious returns are allowed.
    pub fn sleep(&self, ms: u64) {
        self.sleep_unless(ms, || false);
    }

    /// The same, unless `is_there` says that what is waited for has come, which `stir` tells of.
    pub fn sleep_unless(&self, ms: u64, is_there: impl FnOnce() -> bool) {
        let seen = self.word.fetch_or(WAITED, Ordering::AcqRel) | WAITED;
        if seen & STATE != READY && !is_there() {
            let _ = futex_wait(&self.word, seen, ms);
        }
    }

    /// Engine only: a block of it has come. Whoever marks the word from now on sees it; whoever did before is woken.
    pub fn stir(&self) {
        let next = |word: u32| Some((word & !WAITED).wrapping_add(STIRRED) & !WAITED);
        let before = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        if before.is_ok_and(|word| word & WAITED != 0) {
            futex_wake(&self.word);
        }
    }

    /// Engine only: its blocks were taken back. A reader that copies meanwhile sees by the number that they were.
    pub fn lose_blocks(&self) {
        self.attempts.fetch_add(1, Ordering::AcqRel);
        self.used.store(0, Ordering::Relaxed);
    }
}
