//! The verdict on a large object: what a part that has come means for it, and what becomes of bytes that do not match.
//!
//! Called when a part has ended or a check value was asked for, and by the demand thread, which tells of mismatches. It belongs to a version of an object, not to what is in memory: each part's CRC-64 stays known when its
//! memory is given back, and after the verdict a part that comes again is compared with its own.
//!
//! What a part means is decided under the object's lock `check`, with the part's publication: a part is never ready
//! with bytes of a round that is over. Nothing is waited for under it.

use crate::lock::lock;
use crate::work::objects::Objects;
use crate::work::shared::action::Action;
use crate::work::shared::brought::{Brought, Whole};
use crate::work::shared::check::Check;
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::fill;
use crate::work::shared::item::{DOCUMENT_BYTES_MAX, Item};
use crate::work::shared::wrong::{self, AfterMismatch};
use ossc_cache::event::ACT_GIVEN;
use ossc_cache::region::{Object, Seen, state};
use ossc_cache::verdict::Judgement;
use ossc_net::error::{FailureKind, Phase};
use ossc_net::{Error, Fetch, Finished, Query, Sink, crc};
use ossc_store::plan::Class;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

const PART_WRONG_ONCE: &str = "a part came with other bytes than before, which were verified: fetching it again";
const PART_GIVEN_UP: &str = "a part came with other bytes than before, which were verified, as often as it was fetched: \
     readers of what is not in memory get EIO, until a program opens the object again or a listing shows it again; check \
     the object in the bucket, and for a proxy that alters answers";

/// A round that ended in a mismatch.
#[derive(Clone, Copy, Debug)]
pub struct Misread {
    round: u32,
    /// Parts that readers were given.
    handed: u32,
    expected: u64,
    found: u64,
    /// What is done about it.
    after: AfterMismatch,
}

/// What a part's bytes are.
enum Came {
    /// To be published.
    Good,
    /// The whole does not match. With what is to be fetched again.
    Mismatch(Vec<u32>),
    /// Other bytes than before.
    Other,
    /// The object has failed meanwhile.
    Late,
}

impl Objects {
    /// Whatever brings a part has ended. Its filler is this thread. What is to be done then.
    pub fn part_ended(
        &self,
        (slot, object, entry): (u32, &Object, &RegisterEntry),
        index: u32,
        result: Result<Brought, Error>,
    ) -> Vec<Action> {
        let again = || Action::Push(vec![Item::Part(slot, index)], Class::Demand);
        let range = object.part_range(index);
        let Brought { crc64, whole } = match result {
            Ok(brought) => brought,
            Err(error) => {
                fill::end(&self.register, object, entry, index);
                if error.kind == FailureKind::Cancelled {
                    // Meant for a request that had ended already. While the engine ends no connection takes it any more.
                    return vec![again()];
                }
                let attempts = entry.failed_again(index);
                return vec![Action::Fail(Item::Part(slot, index), Box::new(error), attempts)];
            }
        };
        entry.failed_no_more(index);
        if let Some(memory) = &entry.memory {
            memory.unmap_pages(range.start, range.end);
        }
        let mut check = lock(&entry.check);
        check.hear(whole, entry);
        let came = self.learn((slot, object, entry), index, (&mut check, crc64));
        if matches!(came, Came::Good) {
            self.region.header().ready_bytes.fetch_add(range.end - range.start, Ordering::Relaxed);
            self.region.header().clock.fetch_add(1, Ordering::Relaxed);
            object.ready_parts.fetch_add(1, Ordering::AcqRel);
            self.region.part(object, index).publish(crc64);
            let is_unasked = self.is_due(object, &check) && !check.is_told;
            drop(check);
            self.whole(object);
            return Vec::from_iter(is_unasked.then(|| Action::Push(vec![Item::Verdict(slot)], Class::Near)));
        }
        drop(check);
        fill::end(&self.register, object, entry, index);
        match came {
            Came::Mismatch(rest) => {
                let mut actions = self.fetch_again((slot, object, entry), rest);
                // With this one, which was never ready in the round that is over: a reader that had seen it in the round
                // before does not ask for it again.
                if object.state() != state::FAILED {
                    actions.push(again());
                }
                actions
            }
            Came::Other if object.state() != state::FAILED => vec![Action::NewConnections, again()],
            _ => Vec::new(),
        }
    }

    /// What a part means that has come with this CRC-64.
    fn learn(
        &self,
        (slot, object, entry): (u32, &Object, &RegisterEntry),
        index: u32,
        (check, crc64): (&mut Check, u64),
    ) -> Came {
        let (part, judged) = (self.region.part(object, index), object.verdict.get());
        if judged.judgement == Judgement::Wrong {
            return Came::Late;
        }
        if !part.is_known(judged.round) {
            if let Some(pair) = self.compare_blocks(object, entry, index, judged.round) {
                return Came::Mismatch(self.mismatch(slot, object, entry, check, pair));
            }
            part.learn(crc64, judged.round);
            check.known += 1;
            // A part that OSS was not asked for does not say what the whole has.
            let is_whole = check.known == object.parts() && (check.is_told || !self.options.verify_crc);
            return if is_whole { self.judge(slot, object, entry, check) } else { Came::Good };
        }
        if !self.options.verify_crc || part.crc64() == crc64 {
            let range = object.part_range(index);
            self.register.counters.refetched_bytes.fetch_add(range.end - range.start, Ordering::Relaxed);
            check.wrong.remove(&index);
            self.compare_blocks(object, entry, index, judged.round);
            return Came::Good;
        }
        let (expected, found) = (part.crc64(), crc64);
        if judged.judgement == Judgement::Open {
            return Came::Mismatch(self.mismatch(slot, object, entry, check, (expected, found)));
        }
        self.register.counters.mismatches.fetch_add(1, Ordering::Relaxed);
        let after = AfterMismatch::count(check.wrong.entry(index).or_default());
        if after == AfterMismatch::AgainBehindListing {
            self.list_again(entry);
        }
        if after != AfterMismatch::GivenUp {
            tracing::warn!(
                object = entry.key,
                etag = entry.etag,
                index,
                expected,
                found,
                phase = "CRC",
                "{PART_WRONG_ONCE}"
            );
        } else {
            tracing::error!(
                object = entry.key,
                etag = entry.etag,
                index,
                expected,
                found,
                phase = "CRC",
                "{PART_GIVEN_UP}"
            );
            self.give_up(object, entry, &wrong::corrupt(&entry.key, (expected, found)));
        }
        Came::Other
    }

    /// The CRC-64 of every part is known: is the whole what the origin says it is?
    fn judge(&self, slot: u32, object: &Object, entry: &RegisterEntry, check: &mut Check) -> Came {
        let expected = *lock(&entry.crc64);
        let Some(expected) = expected.filter(|_| self.options.verify_crc) else {
            tracing::info!(
                object = entry.key,
                bytes = entry.size,
                seconds = format!("{:.3}", entry.seconds(self.register.now())),
                "loaded; not verified: {}",
                if self.options.verify_crc { "the origin gave no CRC-64" } else { "verifyCrc is off" }
            );
            self.accept(object, entry, None);
            return Came::Good;
        };
        let found = (0..object.parts()).fold(0, |sum, index| {
            let range = object.part_range(index);
            crc::combine(sum, self.region.part(object, index).crc64(), range.end - range.start)
        });
        if found != expected {
            return Came::Mismatch(self.mismatch(slot, object, entry, check, (expected, found)));
        }
        let seconds = format!("{:.3}", entry.seconds(self.register.now()));
        let (bytes, misled) =
            (entry.size, check.misled + lock(&entry.given).len() * usize::from(self.is_to_be_told(slot)));
        match object.verdict.get().round {
            1 => tracing::info!(object = entry.key, bytes, seconds, crc64 = expected, "loaded and verified"),
            _ if misled == 0 => {
                tracing::info!(object = entry.key, bytes, seconds, crc64 = expected, "fetched again and verified")
            }
            _ => tracing::warn!(
                object = entry.key,
                bytes,
                crc64 = expected,
                "fetched again and verified; {misled} processes had read other bytes and get EIO"
            ),
        }
        self.accept(object, entry, Some(expected));
        Came::Good
    }

    /// The CRC-64 of every part is known, and the verdict is not given yet.
    fn is_due(&self, object: &Object, check: &Check) -> bool {
        object.verdict.get().judgement == Judgement::Open && check.known == object.parts()
    }

    /// The verdict: `crc64` is the check value that the bytes have, `None` if there was none to compare.
    fn accept(&self, object: &Object, entry: &RegisterEntry, crc64: Option<u64>) {
        let judged = object.verdict.get();
        let judgement = if crc64.is_some() { Judgement::Matched } else { Judgement::Nothing };
        object.verdict.set(judged.with(judgement), &self.region.traces(object).handed);
        entry.matched();
        lock(&entry.given).clear();
        self.audit.verdict((&entry.key, &entry.etag, entry.size), crc64, judged.round);
    }

    /// If all parts are here and judged, the object says so. A part that is given up meanwhile takes it back.
    fn whole(&self, object: &Object) {
        let is_whole = || object.ready_parts.load(Ordering::Acquire) == object.parts();
        let is_given = object.verdict.get().is_given();
        if is_given && is_whole() && object.state() == state::LOADING {
            object.set_state(state::VERIFIED);
            if !is_whole() {
                object.set_state(state::LOADING);
            }
        }
    }

    /// Nothing of this round counts any more. All is fetched once more, or the object fails. The parts that are to be
    /// taken back.
    pub(super) fn mismatch(
        &self,
        slot: u32,
        object: &Object,
        entry: &RegisterEntry,
        check: &mut Check,
        (expected, found): (u64, u64),
    ) -> Vec<u32> {
        let (judged, after) = (object.verdict.get(), entry.mismatched());
        check.again = true;
        check.known = 0;
        self.register.counters.mismatches.fetch_add(1, Ordering::Relaxed);
        let handed = self.handed_parts(object, judged.round);
        lock(&self.misreads).push((slot, Misread { round: judged.round, handed, expected, found, after }));
        let is_last = after == AfterMismatch::GivenUp;
        let next = if is_last { judged.next().with(Judgement::Wrong) } else { judged.next() };
        object.verdict.set(next, &self.region.traces(object).handed);
        match after {
            AfterMismatch::Again => {}
            AfterMismatch::AgainBehindListing => {
                self.list_again(entry);
            }
            AfterMismatch::GivenUp => {
                self.give_up(object, entry, &wrong::corrupt(&entry.key, (expected, found)));
            }
        }
        fill::drop_all_blocks(&self.register, object, entry, check);
        // What is ready now is of the old round: nothing is published while the lock is held.
        let of_old = |index: &u32| self.region.part(object, *index).is_ready();
        (0..object.parts()).filter(of_old).collect()
    }

    /// What was handed out or kept of a round that is over is taken back, and fetched once more if that may help.
    pub(super) fn fetch_again(
        &self,
        (slot, object, entry): (u32, &Object, &RegisterEntry),
        old: Vec<u32>,
    ) -> Vec<Action> {
        let bytes = |index: &u32| object.part_range(*index).end - object.part_range(*index).start;
        self.register.counters.refetched_bytes.fetch_add(old.iter().map(bytes).sum(), Ordering::Relaxed);
        for index in &old {
            if self.region.part(object, *index).take_back() {
                fill::empty(&self.register, object, entry, *index);
            }
        }
        // The demand thread tells of it.
        self.region.doorbell().ring();
        if object.state() == state::FAILED {
            return Vec::new();
        }
        let again = old.into_iter().map(|index| Item::Part(slot, index)).collect();
        vec![Action::NewConnections, Action::Push(again, Class::Demand)]
    }

    /// An object that was given up since its bytes were wrong is fetched and judged anew, in the round that has begun then:
    /// nothing came of it yet.
    pub(super) fn judge_anew(&self, object: &Object, entry: &RegisterEntry) {
        let _check = lock(&entry.check);
        let judged = object.verdict.get();
        if judged.judgement == Judgement::Wrong {
            object.verdict.set(judged.with(Judgement::Open), &self.region.traces(object).handed);
        }
    }

    /// Where nothing is compared no reader waits for a verdict.
    pub fn excuse(&self, slot: u32) {
        let open = self.region.object(slot).filter(|object| object.verdict.get().judgement == Judgement::Open);
        if let Some(object) = open.filter(|_| !self.options.verify_crc) {
            object.verdict.set(object.verdict.get().with(Judgement::Nothing), &self.region.traces(object).handed);
        }
    }

    /// Takes the state of the check over from an engine that is gone. What is ready must be of this round.
    pub fn adopt_check(&self, object: &Object, entry: &RegisterEntry) {
        self.judge_anew(object, entry);
        let judged = object.verdict.get();
        let known = |index: &u32| self.region.part(object, *index).is_known(judged.round);
        lock(&entry.check).known = (0..object.parts()).filter(known).count() as u32;
    }

    /// After a take-over, or when an object that had failed is tried again: where no part that comes would bring the
    /// verdict, the check value is asked for.
    pub fn ask_verdict_again(&self, slot: u32, object: &Object) -> Option<Action> {
        let entry = self.register.entry(slot)?;
        if self.is_due(object, &lock(&entry.check)) {
            return Some(Action::Push(vec![Item::Verdict(slot)], Class::Near));
        }
        self.whole(object);
        None
    }

    /// The request for an object's check value.
    pub fn ask_verdict(&self, slot: u32) -> Option<Fetch> {
        let query = Query::Head { key: self.register.entry(slot)?.key.clone() };
        let sink = Sink::Buffer { bytes_max: DOCUMENT_BYTES_MAX };
        Some(Fetch { token: Item::Verdict(slot).token(), query, sink, crc: false, urgent: true })
    }

    /// It has come, or failed.
    pub fn verdict_ended(&self, slot: u32, done: Finished) -> Vec<Action> {
        let Some((object, entry)) = self.register.get(slot) else { return Vec::new() };
        let (error, attempts) = match done.result {
            Ok(response) if response.etag.as_deref().is_none_or(|etag| etag == entry.etag) => {
                entry.doubt_no_more(Item::Verdict(slot).asked());
                let mut check = lock(&entry.check);
                check.hear(Whole::Said(response.crc64_object), &entry);
                let came =
                    if self.is_due(object, &check) { self.judge(slot, object, &entry, &mut check) } else { Came::Good };
                drop(check);
                if let Came::Mismatch(old) = came {
                    return self.fetch_again((slot, object, &entry), old);
                }
                self.whole(object);
                return Vec::new();
            }
            Ok(response) => {
                let text = format!(
                    "HEAD {}: its ETag is {} now, and was {} when it was listed",
                    entry.key,
                    response.etag.as_deref().unwrap_or_default(),
                    entry.etag
                );
                let mut error = Error::new(FailureKind::Changed, Phase::Status, text);
                error.status = Some(response.status);
                (error, 1)
            }
            Err(error) => (error, entry.attempts.fetch_add(1, Ordering::Relaxed) + 1),
        };
        vec![Action::Fail(Item::Verdict(slot), Box::new(error), attempts)]
    }

    /// A process was given bytes before the verdict. Its name is taken now, since it may be gone when it is wanted.
    fn given_early(&self, pid: u32, entry: &RegisterEntry) {
        lock(&entry.given).entry(pid).or_insert_with(|| crate::journal::audit::command(pid));
    }

    /// A client met an object: a line for the audit file. True if it has opened it.
    pub fn seen(&self, seen: Seen) -> bool {
        let Some(entry) = self.register.entry(seen.slot) else { return false };
        if seen.act == ACT_GIVEN {
            self.given_early(seen.pid, &entry);
            return false;
        }
        entry.opened.store(true, Ordering::Release);
        if seen.act == 1
            && let Some(object) = self.register.region.object(seen.slot)
        {
            let ready = u64::from(object.ready_parts.load(Ordering::Relaxed)) * u64::from(object.part_bytes());
            self.register.counters.opened(entry.size, ready);
        }
        let act = match seen.act {
            1 => "open",
            2 => "map",
            _ => "file",
        };
        self.audit.cache(seen.pid, act, (&entry.key, &entry.etag, entry.size));
        seen.act == 1
    }

    fn is_to_be_told(&self, slot: u32) -> bool {
        lock(&self.misreads).iter().any(|one| one.0 == slot)
    }

    /// Tells log and audit of rounds that ended in a mismatch: which processes were given what. Called by the demand
    /// thread behind the events, so that all who were given something before are known.
    pub fn tell_misreads(&self) {
        let misreads = std::mem::take(&mut *lock(&self.misreads));
        for (slot, misread) in misreads {
            let Some((object, entry)) = self.register.get(slot) else { continue };
            let given = std::mem::take(&mut *lock(&entry.given));
            lock(&entry.check).misled += given.len();
            self.tell_misread(object, &entry, misread, &given);
        }
    }

    fn tell_misread(&self, object: &Object, entry: &RegisterEntry, misread: Misread, given: &BTreeMap<u32, String>) {
        let Misread { round, handed, expected, found, after } = misread;
        let (key, etag, parts, what) = (&entry.key, &entry.etag, object.parts(), after.text());
        if given.is_empty() && handed == 0 {
            return match after {
                AfterMismatch::GivenUp => tracing::error!(object = key, etag, expected, found, phase = "CRC", "{what}"),
                _ => tracing::warn!(object = key, etag, expected, found, phase = "CRC", "{what}"),
            };
        }
        let names: Vec<String> = given.iter().map(|(pid, command)| format!("{pid} {command}")).collect();
        let readers = if names.is_empty() { "processes that are not known".to_string() } else { names.join(", ") };
        tracing::error!(
            object = key,
            etag,
            expected,
            found,
            handed,
            parts,
            phase = "CRC",
            "{what}; {handed} of {parts} parts were given to readers before, who get EIO: {readers}"
        );
        for (pid, command) in given {
            self.audit.misread(*pid, command, (key, etag, entry.size), (round, handed));
        }
    }
}
