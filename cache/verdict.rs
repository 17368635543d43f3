//! The verdict on an object's bytes, and what a reader may be given before it.
//!
//! The engine compares the CRC-64 of the whole object, folded from those of its parts, with the one that OSS
//! reports. Readers need not wait for that: each part may be handed out when it has come, but the last part that
//! nobody was given yet waits for the verdict, so that no reader has all of an object that may be wrong. After a
//! mismatch a new round begins: all parts are fetched again, and nothing of the round before counts.
//!
//! Part of a record of the catalog. Called by the engine, which alone judges, and by clients, which look, wait and
//! count what they hand out. It knows no bytes and waits for nothing by itself.

use crate::futex_word::FutexWord;
use crate::part::Part;
use crate::sync::{AtomicU32, Ordering};

/// What the engine says of an object's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Judgement {
    /// Not compared yet.
    Open = 0,
    /// They have the check value that OSS reports.
    Matched = 1,
    /// There is no check value to compare, or comparing is switched off.
    Nothing = 2,
    /// They do not match, also after they were fetched again.
    Wrong = 3,
}

/// A judgement and the round that it is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judged {
    /// What is said.
    pub judgement: Judgement,
    /// Counted from 1; each mismatch ends one and begins the next.
    pub round: u32,
}

const JUDGEMENT_BITS: u32 = 2;
/// Bits of the count of parts that were handed out: an object has at most `PARTS_MAX` parts, and one stays.
const COUNT_BITS: u32 = 20;
const COUNT_MASK: u32 = (1 << COUNT_BITS) - 1;

impl Judged {
    /// Where every object begins.
    pub const FIRST: Judged = Judged { judgement: Judgement::Open, round: 1 };

    /// True if no reader has to wait for it any more, and its bytes are as good as can be known.
    pub fn is_given(self) -> bool {
        matches!(self.judgement, Judgement::Matched | Judgement::Nothing)
    }

    /// The same round with another judgement.
    pub fn with(self, judgement: Judgement) -> Judged {
        Judged { judgement, ..self }
    }

    /// The next round, not judged yet.
    pub fn next(self) -> Judged {
        Judged { judgement: Judgement::Open, round: self.round + 1 }
    }

    fn word(self) -> u32 {
        (self.round - 1) << JUDGEMENT_BITS | self.judgement as u32
    }

    fn from_word(word: u32) -> Judged {
        let judgement = match word & ((1 << JUDGEMENT_BITS) - 1) {
            0 => Judgement::Open,
            1 => Judgement::Matched,
            2 => Judgement::Nothing,
            _ => Judgement::Wrong,
        };
        Judged { judgement, round: (word >> JUDGEMENT_BITS) + 1 }
    }
}

/// See the module. Clients have it read-only.
#[repr(transparent)]
pub struct Verdict(FutexWord);

/// How many of something were handed out in a round: the lowest bits of the round, and the count. Clients write it.
#[repr(transparent)]
#[derive(Default)]
pub struct Handed(AtomicU32);

impl Default for Verdict {
    fn default() -> Verdict {
        Verdict(FutexWord::new(Judged::FIRST.word()))
    }
}

fn tag(round: u32) -> u32 {
    round << COUNT_BITS
}

impl Verdict {
    /// What is said now.
    pub fn get(&self) -> Judged {
        Judged::from_word(self.0.get())
    }

    /// True where a reader needs to look at nothing else: judged, and in the first round. One load.
    #[inline(always)]
    pub fn is_plain(&self) -> bool {
        let word = self.0.get();
        word == Judgement::Matched as u32 || word == Judgement::Nothing as u32
    }

    /// Engine only: judges, and wakes who waits for it. What was handed out in an earlier round does not count any more.
    pub fn set(&self, judged: Judged, handed: &Handed) {
        if judged.round != self.get().round {
            // First, so that nobody who sees the new round counts in the old one.
            handed.begin(judged.round);
        }
        self.0.set(judged.word());
    }

    /// Engine only: the object has failed, so who waits for the verdict has to look at it.
    pub fn stir(&self) {
        self.0.stir();
    }

    /// Engine only: the record is another object's from now on.
    pub fn renew(&self, handed: &Handed) {
        handed.begin(Judged::FIRST.round);
        self.0.set(Judged::FIRST.word());
    }

    /// Sleeps while `seen` is what is said and the object has not `failed`, at most `ms` milliseconds. Spurious returns
    /// are allowed.
    pub fn sleep(&self, seen: Judged, ms: u64, failed: impl FnOnce() -> bool) {
        self.0.sleep_unless(seen.word(), ms, failed);
    }
}

impl Handed {
    /// True if bytes of this part, one of `parts`, may be given to a reader in this round before the verdict: it was
    /// seen to be ready, and counts as handed out from then on. False for the last one that is left, when the round is over, and for bytes of a round
    /// that is over and about to be taken back: of this one they are known before they are ready.
    pub fn hand_out(&self, part: Part<'_>, parts: u32, round: u32) -> bool {
        part.is_known(round) && self.hand_out_whole(part, parts, round)
    }

    /// The same for a part all of whose bytes were seen to be of this round, block by block.
    pub fn hand_out_whole(&self, part: Part<'_>, parts: u32, round: u32) -> bool {
        if part.is_handed_out(round) {
            return true;
        }
        // Counted first and marked then: there are never more marks than counted parts, whoever dies in between.
        if !self.add(parts, round) {
            return false;
        }
        if !part.hand_out(round) {
            self.take_off(round);
        }
        true
    }

    /// Engine only: a round begins.
    pub fn begin(&self, round: u32) {
        self.0.store(tag(round), Ordering::SeqCst);
    }

    /// True if it counts in this round.
    pub fn is_of(&self, round: u32) -> bool {
        self.0.load(Ordering::SeqCst) & !COUNT_MASK == tag(round)
    }

    /// How many in this round.
    pub fn count(&self, round: u32) -> u32 {
        let word = self.0.load(Ordering::SeqCst);
        if word & !COUNT_MASK == tag(round) { word & COUNT_MASK } else { 0 }
    }

    /// One more, of `all`. False for the last one, and when the round is over.
    pub fn add(&self, all: u32, round: u32) -> bool {
        let more = |word: u32| {
            let may = word & !COUNT_MASK == tag(round) && (word & COUNT_MASK) + 1 < all;
            may.then(|| word + 1)
        };
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// One less: another reader has marked the same.
    pub fn take_off(&self, round: u32) {
        let less = |word: u32| (word & !COUNT_MASK == tag(round) && word & COUNT_MASK > 0).then(|| word - 1);
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    }
}
