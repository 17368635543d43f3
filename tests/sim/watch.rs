//! Stands between the vcpus and the engine's work: sees every request begin and end, and holds it against what is
//! true. The work behind it is the engine's own.

use crate::check;
use crate::fault::Fault;
use crate::fill::Fill;
use crate::memory;
use crate::stage::{self, Few, Part, Second, Shared, Stage};
use ossc_cache::part::{EMPTY, FILLING};
use ossc_cache::region::state;
use ossc_cache::verdict::Judgement;
use ossc_engine::lock::lock;
use ossc_engine::work::Work;
use ossc_engine::work::shared::item::Item;
use ossc_net::error::FailureKind;
use ossc_net::{Fetch, Finished, Pull, Query, Sink, Source};
use ossc_store::plan::Class;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering as AtomicOrdering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Least doubtful answers before an object is given up: the first, once more at once, and again behind a listing. A refusal
/// is believed when it comes second.
const DOUBTS_MIN: u32 = 3;
const REFUSALS_MIN: u32 = 2;
/// Most of them, whether a listing comes or not; a part may be asked for by several requests.
const DOUBTS_MAX: u32 = 64;

/// Rounds that end in a mismatch before an object is given up for them.
const MISMATCHES_MIN: u32 = 3;

/// Record, and part if it is one's, that a request is for.
type Asked = (u32, Option<u32>);

/// See the module.
pub struct Watch {
    work: Arc<Work>,
    stage: Shared,
    /// Doubtful answers in a row, by record and part: all of them, and those that did not come to a second request, of
    /// which there are as many as `twice` lets there be.
    doubts: Mutex<BTreeMap<Asked, (u32, u32)>>,
}

impl Watch {
    /// Of one engine.
    pub fn new(work: Arc<Work>, stage: Shared) -> Watch {
        Watch { work, stage, doubts: Mutex::default() }
    }

    fn is_failed(&self, item: Item) -> bool {
        self.work.region().object(item.record()).is_some_and(|object| object.state() == state::FAILED)
    }

    fn begins(&self, fetch: &Fetch) {
        let mut stage = stage::lock(&self.stage);
        stage.in_flight += 1;
        let item = Item::from_token(fetch.token);
        stage.urgent.insert(fetch.token, fetch.urgent);
        stage.say(|| match &fetch.query {
            Query::Get { range: Some(range), .. } => format!("fetch: {item:?}, bytes {range:?}"),
            _ => format!("fetch: {item:?}"),
        });
        let (Item::Part(slot, index)
        | Item::Piece(slot, index, _)
        | Item::Hedge(slot, index, ..)
        | Item::Blocks(slot, index, ..)) = item
        else {
            return;
        };
        let Query::Get { range: Some(range), .. } = &fetch.query else {
            return stage.violated(format!("{item:?} asks for no range"));
        };
        let wrong = match (item, &fetch.sink) {
            (Item::Hedge(..), Sink::Buffer { bytes_max }) => {
                let fits = *bytes_max as u64 == range.end - range.start;
                second_begins(&mut stage, (slot, index), fetch.token, range)
                    .or((!fits).then_some("has a buffer of another length"))
            }
            (Item::Blocks(.., first, count), Sink::Buffer { bytes_max }) => {
                let fits = *bytes_max as u64 == range.end - range.start;
                few_begins(&mut stage, (slot, index), (first, count), fetch.token, range)
                    .or((!fits).then_some("has a buffer of another length"))
            }
            (Item::Part(..), Sink::Memory { at, len, .. }) => {
                begins_in_place(&mut stage, (slot, index), None, range, (*at as usize, *len))
            }
            (Item::Piece(.., n), Sink::Memory { at, len, .. }) => {
                begins_in_place(&mut stage, (slot, index), Some(n), range, (*at as usize, *len))
            }
            _ => Some("goes to another kind of place"),
        };
        if let Some(wrong) = wrong {
            stage.violated(format!("part {index} of record {slot} {wrong}"));
        }
    }

    fn ends(&self, done: &Finished) {
        let mut stage = stage::lock(&self.stage);
        stage.in_flight -= 1;
        let item = Item::from_token(done.token);
        stage.urgent.remove(&done.token);
        stage.say(|| match &done.result {
            Ok(_) => format!("done: {item:?}"),
            Err(error) => format!("failed: {item:?}: {error}"),
        });
        if let Some(error) = done.result.as_ref().err().filter(|error| error.kind == FailureKind::Timeout)
            // What the origin says of itself is another matter.
            && error.status != Some(408)
            && !stage.had_silence()
        {
            let stood = if stage.stood_until > 0 { "has stood still" } else { "has not stood still" };
            stage.violated(format!(
                "no answer was late, the process {stood}, and a request is given up: {item:?}: {error}"
            ));
        }
        match item {
            Item::Part(slot, index) => self.ends_in_place(&mut stage, (slot, index), 0, done),
            Item::Piece(slot, index, n) => self.ends_in_place(&mut stage, (slot, index), n, done),
            Item::Hedge(slot, index, ..) => second_ends(&mut stage, (slot, index), done),
            Item::Blocks(slot, index, _, count) => few_ends(&mut stage, (slot, index, count), done),
            _ => {}
        }
    }

    fn ends_in_place(&self, stage: &mut Stage, (slot, index): (u32, u32), n: u32, done: &Finished) {
        let good = done.result.is_ok();
        let kept = self.work.transfers.pieces.keeps(slot, index, n, done);
        let is_cancelled = done.result.as_ref().is_err_and(|error| error.kind == FailureKind::Cancelled);
        let gave_way = is_cancelled && self.work.transfers.pieces.gives_way(slot, index, n);
        if gave_way {
            stage.faults.saw(Fault::GaveWay);
        }
        let Some(truth) = stage.truth(slot) else { return };
        let fill = truth.parts[index as usize].fill.as_mut();
        let number = fill.as_ref().map(|fill| fill.number);
        let Some(range) = fill.and_then(|fill| if gave_way { fill.gave_way(n) } else { fill.ended(n, good, kept) })
        else {
            return stage.violated(format!("piece {n} of part {index} of record {slot} ends twice"));
        };
        if range.is_empty() || !good && kept == 0 {
            return;
        }
        let found = memory::look(truth.at + range.start as usize, (range.end - range.start) as usize);
        let (salt, flips) = (truth.salt, truth.wrong(range.clone(), found));
        stage.twice.came += range.end - range.start;
        if !stage.was_sent(salt, &flips) {
            stage.violated(format!("bytes {range:?} of record {slot} are said to be there, but are wrong"));
        }
        if !good {
            return stage.faults.saw(Fault::Kept);
        }
        let cancelled = self.work.transfers.pieces.is_unwanted(slot, index, n);
        if cancelled {
            stage.faults.saw(Fault::CancelledGood);
        }
        if cancelled || stage.seconds.iter().any(|second| Some(second.fill) == number && overlap(&second.range, &range))
        {
            stage.faults.saw(Fault::FirstWins);
        }
    }

    /// The other place is done with a part of this record.
    pub fn supplied(&self, slot: u32) {
        stage::lock(&self.stage).ending = Some(slot);
        self.work.supplied();
        stage::lock(&self.stage).ending = None;
        self.given_up();
        self.check_failed(slot);
    }

    /// Doubtful answers in a row to requests for the same part (or small object's piece, or object), this one among them.
    /// The check value of another version is one.
    fn doubted(
        &self,
        item: Item,
        result: &Result<ossc_net::Response, ossc_net::Error>,
        is_other: impl Fn(&ossc_net::Response) -> bool,
    ) -> (u32, u32) {
        // By its status, whatever the engine takes it for.
        let may_be_stray = |error: &ossc_net::Error| {
            error.is_doubtful() || matches!(error.status, Some(300..500)) && !error.retryable()
        };
        let is_doubtful = result.as_ref().map_or_else(may_be_stray, is_other);
        if !is_doubtful || matches!(item, Item::Call(_) | Item::Revive(_)) {
            return (0, 0);
        }
        let mut doubts = lock(&self.doubts);
        let count = doubts.entry((item.record(), item.asked().0)).or_default();
        count.0 += 1;
        count.1 += u32::from(!matches!(item, Item::Hedge(..)));
        *count
    }

    /// The check value that came is of another version than the record is of.
    fn is_other_version(&self, item: Item, etag: Option<&str>) -> bool {
        let of = |slot| stage::lock(&self.stage).truth(slot).map(|truth| truth.etag.clone());
        matches!(item, Item::Verdict(slot) if of(slot).is_some_and(|own| etag.is_some_and(|etag| etag != own)))
    }

    /// What was asked for is here.
    fn doubted_no_more(&self, item: Item) {
        let (slot, index) = (item.record(), item.asked().0);
        let Some(object) = self.work.region().object(slot) else { return };
        let is_here = |index: &u32| object.parts() == 0 || self.work.region().part(object, *index).is_ready();
        if index.is_none_or(|index| is_here(&index))
            && lock(&self.doubts).remove(&(slot, index)).is_some_and(|(all, _)| all == 1)
        {
            stage::lock(&self.stage).faults.saw(Fault::StrayBorne);
        }
    }

    /// An object is given up for what OSS answers only when it was asked once more, and again behind a listing; and
    /// then it is.
    fn given_up_for(&self, item: Item, (count, in_place): (u32, u32), (is_refusal, errno): (bool, i32)) {
        let slot = item.record();
        let least = if is_refusal { REFUSALS_MIN } else { DOUBTS_MIN };
        let Some(object) = self.work.region().object(slot) else { return };
        // Another request for the same may have ended it for another reason.
        let failed = object.state() == state::FAILED && object.errno.load(AtomicOrdering::Acquire) == errno as u32;
        let mut stage = stage::lock(&self.stage);
        if failed && count < least && !object.is_superseded() {
            stage.violated(format!("record {slot} is given up after {count} doubtful answers to {item:?}"));
        } else if in_place > DOUBTS_MAX {
            stage
                .violated(format!("{item:?} was asked for {in_place} times, and each answer is that it cannot be had"));
        }
    }

    /// What the end of a request has made of its part.
    fn landed(&self, was_cancelled: bool, copies_before: u64, limit_before: usize) {
        let mut stage = stage::lock(&self.stage);
        match self.work.scheduling.window_limit().cmp(&limit_before) {
            Ordering::Greater => stage.faults.saw(Fault::WindowGrows),
            Ordering::Less => stage.faults.saw(Fault::WindowShrinks),
            Ordering::Equal => {}
        }
        if stage.copies > copies_before {
            stage.faults.saw(if was_cancelled { Fault::SecondWins } else { Fault::SecondSaves });
        }
        drop(stage);
        self.given_up();
    }

    /// Parts that nobody fills any more. The end of any request, also of one that is not sent, may give one up.
    fn given_up(&self) {
        let mut stage = stage::lock(&self.stage);
        let region = self.work.region();
        let mut empty = Vec::new();
        for truth in &stage.truths {
            let Some(object) = region.object(truth.slot) else { continue };
            let given_up =
                |(index, part): &(u32, &Part)| part.fill.is_some() && region.part(object, *index).state() != FILLING;
            empty.extend((0..).zip(&truth.parts).filter(given_up).map(|(index, _)| (truth.slot, index)));
        }
        empty.into_iter().for_each(|(slot, index)| stage.gave_up(slot, index));
    }

    /// Second requests that this pull did not begin, since there was no room for them.
    fn roomless(&self, pull: &Pull) {
        let begun = match pull {
            Pull::Fetch(Fetch { token, query: Query::Get { range, .. }, .. }) => {
                range.clone().filter(|_| matches!(Item::from_token(*token), Item::Hedge(..)))
            }
            _ => None,
        };
        let mut stage = stage::lock(&self.stage);
        for (slot, range) in
            std::mem::take(&mut stage.tried).into_iter().filter(|tried| Some(&tried.1) != begun.as_ref())
        {
            let Some(truth) = stage.truth(slot) else { continue };
            if let Some(fill) = &mut truth.parts[(range.start / truth.part_bytes) as usize].fill {
                fill.lost(&range);
            }
        }
    }

    /// What the engine made of bytes that do not match: their parts are empty again, also those whose memory stays for
    /// readers. A mismatch of the whole begins a round of its own.
    fn check_failed(&self, slot: u32) {
        let (Some(object), mut stage) = (self.work.region().object(slot), stage::lock(&self.stage)) else { return };
        let (judged, failed) = (object.verdict.get(), object.state() == state::FAILED);
        let Some(truth) = stage.truth(slot) else { return };
        let (reasons, was_round) = (truth.is_misjudged(), truth.round);
        let is_over = judged.round != was_round;
        let mut gone = 0;
        for (index, part) in (0..).zip(&mut truth.parts).filter(|(_, part)| part.good) {
            let state = self.work.region().part(object, index).state();
            if state == EMPTY {
                (part.good, part.allowance, part.differs) = (false, 1, false);
                part.flips.clear();
                gone += 1;
            }
        }
        truth.parts.iter_mut().for_each(|part| part.small_differs = false);
        let is_wrong = judged.judgement == Judgement::Wrong;
        let given_up = failed && reasons && (is_wrong || judged.is_given());
        let was_refused = std::mem::replace(&mut truth.refused, is_wrong);
        let tried_again = was_refused && !is_wrong;
        truth.tried_again |= tried_again;
        truth.mismatches += u32::from(is_over);
        let too_soon = is_wrong && truth.mismatches < MISMATCHES_MIN && !truth.tried_again;
        let borne = judged.is_given() && !failed && truth.mismatches + 1 == MISMATCHES_MIN;
        if judged.is_given() {
            (truth.mismatches, truth.tried_again) = (0, false);
        }
        if is_over || truth.refused {
            truth.begin_round(judged.round);
        }
        let text = match () {
            () if (is_over || gone > 0) && !reasons => "is fetched again although its bytes were right",
            () if judged.judgement == Judgement::Matched && !truth.is_sound() => "is said to be right, and is not",
            () if is_over && judged.round != was_round + 1 => "has skipped a round",
            () if is_over && judged.is_given() => "was judged before it was fetched again",
            () if too_soon => "is given up for fewer mismatches than may be stray",
            () => "",
        };
        if !text.is_empty() {
            stage.violated(format!("record {slot} {text}"));
        }
        if tried_again {
            stage.faults.saw(Fault::WrongTriedAgain);
        }
        if borne {
            stage.faults.saw(Fault::WrongByteTwice);
        }
        if given_up {
            stage.faults.saw(Fault::WrongByteThrice);
        } else if is_over || gone > 0 {
            stage.faults.saw(Fault::WrongByteOnce);
        }
    }
}

/// A request that receives in place; what is wrong with it.
pub fn begins_in_place(
    stage: &mut Stage,
    (slot, index): (u32, u32),
    piece: Option<u32>,
    range: &Range<u64>,
    sink: (usize, usize),
) -> Option<&'static str> {
    let (begins, n) = (piece.is_none(), piece.unwrap_or(0));
    stage.fills += u64::from(begins);
    let number = stage.fills;
    let Some(truth) = stage.truth(slot) else { return Some("is none") };
    let whole = truth.range(index);
    let inside = whole.start <= range.start && range.end <= whole.end && (!begins || range.start == whole.start);
    let fits = inside && sink == (truth.at + range.start as usize, (range.end - range.start) as usize);
    let part = &mut truth.parts[index as usize];
    let mut wrong = match &part.fill {
        _ if !fits => Some("has another place than its own"),
        None if !begins => Some("gets a piece, and nobody fills it"),
        Some(_) if begins => Some("has two owners"),
        _ if part.good => Some("is fetched although it is there"),
        _ if !part.small.is_empty() => Some("is fetched as a whole while blocks of it are there"),
        _ if begins && part.allowance == 0 => Some("is fetched again without a reason"),
        _ => None,
    };
    part.allowance -= u32::from(begins && part.allowance > 0);
    wrong = part.fill.get_or_insert_with(|| Fill::new(number)).request_in_place(n, range.clone()).or(wrong);
    if n > 0 {
        stage.faults.saw(Fault::Piece);
    }
    wrong
}

/// The same for one that receives into a buffer.
fn second_begins(stage: &mut Stage, (slot, index): (u32, u32), token: u64, range: &Range<u64>) -> Option<&'static str> {
    let Some(fill) = stage.truth(slot).and_then(|truth| truth.parts[index as usize].fill.as_mut()) else {
        return Some("is asked for a second time, and nobody fills it");
    };
    let (number, mut wrong) = (fill.number, fill.ask_again(range));
    let others: Vec<&Second> =
        stage.seconds.iter().filter(|other| other.fill == number && overlap(&other.range, range)).collect();
    let is_twin = others.len() == 1 && others[0].range == *range;
    if !(others.is_empty() || is_twin) {
        wrong = Some("has more second requests for the same bytes than a chunk and its twin");
    } else if stage.seconds.iter().any(|other| other.token == token) {
        wrong = Some("has two requests with one token");
    }
    stage.faults.saw(if is_twin { Fault::Twin } else { Fault::Second });
    stage.seconds.push(Second { token, fill: number, range: range.clone() });
    stage.twice.asked += range.end - range.start;
    if stage.twice.asked > stage.twice.came * stage.twice.percent / 100 {
        wrong = Some("is asked for a second time, which is more than may be");
    }
    wrong
}

/// A request for some blocks of a part; what is wrong with it.
fn few_begins(
    stage: &mut Stage,
    (slot, index): (u32, u32),
    (first, count): (u32, u32),
    token: u64,
    range: &Range<u64>,
) -> Option<&'static str> {
    let Some(truth) = stage.truth(slot) else { return Some("is none") };
    let is_its = *range == (truth.block(index, first).start..truth.block(index, first + count - 1).end);
    let part = &truth.parts[index as usize];
    let wrong = match () {
        () if !is_its => Some("is asked for in blocks that are none"),
        () if part.good || part.fill.is_some() => Some("is asked for in blocks although it comes as a whole"),
        () if part.mapped > 0 => Some("is asked for in blocks, and is mapped"),
        () if (first..first + count).any(|n| part.small.contains_key(&n)) => Some("has the blocks that are asked for"),
        () => None,
    };
    let is_twice = stage.few.iter().any(|few| few.slot == slot && overlap(&few.range, range) || few.token == token);
    stage.few.push(Few { token, slot, range: range.clone() });
    stage.faults.saw(Fault::Few);
    if is_twice { Some("has blocks that are asked for twice") } else { wrong }
}

fn few_ends(stage: &mut Stage, (slot, index, count): (u32, u32, u32), done: &Finished) {
    let Some(at) = stage.few.iter().position(|few| few.token == done.token) else {
        return stage.violated(format!("blocks of part {index} of record {slot} end twice"));
    };
    let few = stage.few.swap_remove(at);
    let kept = done.partial.as_ref().filter(|_| done.result.as_ref().is_err_and(ossc_net::Error::retryable));
    let whole = match (&done.result, kept, stage.truth(slot)) {
        (Ok(_), ..) => done.body.len(),
        // Of a failed request the whole blocks count, but for the last one that was asked for.
        (_, Some(kept), Some(truth)) => {
            let block = truth.block_bytes();
            ((kept.bytes / block).min(u64::from(count) - 1) * block) as usize
        }
        _ => 0,
    };
    if whole > 0 {
        stage.few_came(slot, index, few.range.start, &done.body[..whole]);
    }
    if whole > 0 && done.result.is_err() {
        stage.faults.saw(Fault::FewKept);
    }
}

/// Are they the right bytes?
fn second_ends(stage: &mut Stage, (slot, index): (u32, u32), done: &Finished) {
    let Some(at) = stage.seconds.iter().position(|second| second.token == done.token) else {
        return stage.violated(format!("a second request for part {index} of record {slot} ends twice"));
    };
    let second = stage.seconds.swap_remove(at);
    let Some(truth) = stage.truth(slot) else { return };
    match &done.result {
        Ok(_) => {
            let is_whole = done.body.len() as u64 == second.range.end - second.range.start;
            let (salt, flips) = (truth.salt, truth.wrong(second.range.clone(), &done.body));
            if !is_whole || !stage.was_sent(salt, &flips) {
                stage.violated(format!("a second request for bytes {:?} of record {slot} is wrong", second.range));
            }
        }
        Err(error) => {
            if let Some(fill) = truth.parts[index as usize].fill.as_mut().filter(|fill| fill.number == second.fill) {
                fill.lost(&second.range);
            }
            if error.kind != FailureKind::Cancelled {
                stage.faults.saw(Fault::SecondFailed);
            }
        }
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

impl Source for Watch {
    fn pull(&self, now: Instant) -> Pull {
        let pull = self.work.pull(now);
        if let Pull::Fetch(fetch) = &pull
            && !fetch.urgent
            && !matches!(Item::from_token(fetch.token), Item::Hedge(..))
            && self.work.scheduling.due(now).is_some_and(|class| class < Class::Prefetch)
        {
            let item = Item::from_token(fetch.token);
            stage::lock(&self.stage).violated(format!("{item:?} is fetched ahead while a reader waits for another"));
        }
        self.given_up();
        self.roomless(&pull);
        match &pull {
            Pull::Fetch(fetch) => self.begins(fetch),
            Pull::Until(at) => {
                let mut stage = stage::lock(&self.stage);
                if at.is_some_and(|at| at <= now) {
                    stage.violated("the plan is asked again at once: vcpus would spin".into());
                }
                // Somebody asks for a part at this very moment: the plan was looked at, and nobody sleeps yet.
                if let Some(part) = stage.armed.take() {
                    stage.faults.saw(Fault::RacedDemand);
                    drop(stage);
                    self.work.demanded(part);
                    check::ways(&self.work, &mut stage::lock(&self.stage));
                }
            }
        }
        pull
    }

    fn make_present(&self, token: u64, filled: usize, bytes: Range<usize>) -> Result<(), ossc_net::Error> {
        stage::lock(&self.stage).presents = true;
        let made = self.work.make_present(token, filled, bytes);
        stage::lock(&self.stage).presents = false;
        made
    }

    fn flows_again(&self, now: Instant) {
        self.work.flows_again(now);
    }

    fn finished(&self, done: Finished) {
        self.ends(&done);
        let item = Item::from_token(done.token);
        let retryable = done.result.as_ref().is_err_and(ossc_net::Error::retryable);
        let cancelled = done.result.as_ref().is_err_and(|error| error.kind == FailureKind::Cancelled);
        let limit = self.work.scheduling.window_limit();
        let copies = stage::lock(&self.stage).copies;
        let failed_before = self.is_failed(item);
        let is_other = |response: &ossc_net::Response| self.is_other_version(item, response.etag.as_deref());
        let is_good = done.result.as_ref().is_ok_and(|response| !is_other(response));
        let doubts = self.doubted(item, &done.result, is_other);
        let of_error = |error: &ossc_net::Error| (error.is_believed_twice(), error.kind.errno());
        let reason = done.result.as_ref().err().map_or((false, FailureKind::Changed.errno()), of_error);
        if let Item::Part(slot, _)
        | Item::Piece(slot, ..)
        | Item::Hedge(slot, ..)
        | Item::Blocks(slot, ..)
        | Item::Verdict(slot) = item
        {
            stage::lock(&self.stage).ending = Some(slot);
            self.work.finished(done);
            stage::lock(&self.stage).ending = None;
            self.landed(cancelled, copies, limit);
            self.check_failed(slot);
        } else {
            self.work.finished(done);
        }
        if is_good && !matches!(item, Item::Call(_) | Item::Revive(_)) {
            self.doubted_no_more(item);
        } else if doubts.0 > 0 && !failed_before {
            self.given_up_for(item, doubts, reason);
        }
        // What is given up begins anew, if at all.
        if failed_before || self.is_failed(item) {
            lock(&self.doubts).retain(|(other, _), _| *other != item.record());
        }
        if retryable && self.is_failed(item) {
            stage::lock(&self.stage).faults.saw(Fault::Outage);
        }
    }
}
