//! Programs that read and map objects, as far as the shared region sees them: demand, holds, pins, waits in slices,
//! copies that count only if the fill is the same before and after. Steps as in `ossc_cache::wait` and the library's
//! read path, without a thread that sleeps.
//!
//! Called by the world at the times that it gives back, and when what it waits for may be there.

use crate::fault::Fault;
use crate::memory;
use crate::stage::{self, Part, Shared, Stage};
use ossc_cache::block::{self, Mask};
use ossc_cache::event::ACT_GIVEN;
use ossc_cache::region::{Object, Region, Seen, state};
use ossc_cache::verdict::{Judged, Judgement};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// As `ossc_cache::wait::SLICE_MS`, in microseconds.
const SLICE: u64 = ossc_cache::wait::SLICE_MS * 1000;

/// What it does now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    Idle,
    /// Waits for a part, which it holds; up to part `end` it will read on.
    Wait {
        index: u32,
        end: u32,
    },
    /// Waits for bytes inside a part, which it holds.
    Few {
        index: u32,
        bytes: (u64, u64),
    },
    /// Has begun to copy some of them, out of this fill.
    CopyFew {
        index: u32,
        bytes: (u64, u64),
        fill: u32,
        right: bool,
    },
    /// Has begun to copy a part of this fill.
    Copy {
        index: u32,
        end: u32,
        fill: u32,
        right: bool,
    },
    /// Waits for the verdict on the object, with a part in hand that nobody may be given before it.
    Verdict {
        index: u32,
        end: u32,
        seen: Judged,
        /// It wants no more than these bytes of the part.
        few: Option<(u64, u64)>,
    },
    /// Waits for a whole object, whose parts it has pinned.
    Whole,
    /// Has it mapped.
    Mapped,
    Gone,
}

/// See the module.
pub struct Reader {
    number: u32,
    /// The record that it has open, by its place among the truths.
    record: Option<usize>,
    act: Act,
    /// What it was given of each record, as `src/preload/taken.rs` keeps it.
    given: BTreeMap<usize, Given>,
    /// When its slice is over.
    slice: u64,
    /// The next look at it, in microseconds; later ones are void.
    pub due: u64,
}

/// What a reader was given of one record since it began with it.
#[derive(Clone, Debug, Default)]
struct Given {
    /// The round in which it was given bytes before the verdict; 0 for none.
    round: u32,
    /// An error has told it that its bytes are not the object's.
    told: bool,
    /// The blocks of parts that it has bytes of, with the wrong bytes among them.
    parts: BTreeMap<u32, (Mask, Vec<u64>)>,
}

/// What readers see.
pub struct Scene<'a> {
    /// The region.
    pub region: Region,
    /// What is true.
    pub stage: &'a Shared,
    /// The newest record of each large object, by its place among the truths.
    pub latest: &'a [usize],
    /// Mean pause of a reader in microseconds.
    pub think: u64,
    /// Most reads are of a little here and there.
    pub jumps: bool,
    /// Everybody comes to an end.
    pub calm: bool,
}

impl Scene<'_> {
    fn object(&self, record: usize) -> &Object {
        let slot = stage::lock(self.stage).truths[record].slot;
        self.region.object(slot).expect("a record that was appended")
    }
}

impl Reader {
    /// Has nothing open yet.
    pub fn new(number: u32) -> Reader {
        Reader { number, record: None, act: Act::Idle, given: BTreeMap::new(), slice: 0, due: u64::MAX }
    }

    /// It will not do anything any more.
    pub fn is_gone(&self) -> bool {
        self.act == Act::Gone
    }

    /// What it waits for is decided: it would be woken.
    pub fn is_called(&self, scene: &Scene<'_>) -> bool {
        let Some(record) = self.record else { return false };
        match self.act {
            Act::Wait { index, .. } => {
                let object = scene.object(record);
                scene.region.part(object, index).is_ready() || object.state() == state::FAILED
            }
            Act::Few { index, bytes } => {
                let object = scene.object(record);
                scene.region.fill_of(object, index, bytes.0, bytes.1).is_some() || object.state() == state::FAILED
            }
            Act::Verdict { seen, .. } => {
                let object = scene.object(record);
                object.verdict.get() != seen || object.state() == state::FAILED
            }
            Act::Whole => scene.object(record).state() != state::LOADING,
            _ => false,
        }
    }

    /// In words, for a violation.
    pub fn describe(&self) -> String {
        format!("reader {} of record {:?}: {:?}", self.number, self.record, self.act)
    }

    /// Goes on; when to look at it again.
    pub fn step(&mut self, scene: &Scene<'_>) -> u64 {
        let now = stage::lock(scene.stage).micros;
        match (self.act, self.record) {
            (Act::Wait { index, end }, Some(record)) => self.wait(scene, record, index, end, now),
            (Act::Copy { index, end, fill, right }, Some(record)) => {
                self.copied(scene, record, (index, end), (fill, right), now);
            }
            (Act::Few { index, bytes }, Some(record)) => self.wait_few(scene, record, index, bytes, now),
            (Act::CopyFew { index, bytes, fill, right }, Some(record)) => {
                self.copied_few(scene, record, (index, bytes), (fill, right), now);
            }
            (Act::Verdict { index, end, seen, few }, Some(record)) => {
                self.judged(scene, record, (index, end, few), seen, now);
            }
            (Act::Whole, Some(record)) => self.whole(scene, record, now),
            (Act::Mapped, Some(record)) => self.unmap(scene, record),
            (Act::Gone, _) => return u64::MAX,
            _ => self.choose(scene, now),
        }
        let mut stage = stage::lock(scene.stage);
        match self.act {
            Act::Wait { .. } | Act::Few { .. } | Act::Verdict { .. } | Act::Whole => self.slice,
            Act::Copy { .. } | Act::CopyFew { .. } => now + 1 + stage.jitter(20),
            Act::Mapped => now + stage.jitter(scene.think * 4),
            Act::Idle => now + 1 + if scene.calm { 0 } else { stage.jitter(scene.think) },
            Act::Gone => u64::MAX,
        }
    }

    fn choose(&mut self, scene: &Scene<'_>, now: u64) {
        let Some(record) = self.record else { return self.open(scene) };
        if scene.calm {
            self.close(scene, record);
            self.act = Act::Gone;
            return;
        }
        let object = scene.object(record);
        let roll = stage::lock(scene.stage).rng.u32(0..if scene.jumps { 400 } else { 100 });
        match roll {
            100.. => self.begin_few(scene, record, now),
            0..25 => self.begin_few(scene, record, now),
            25..50 => {
                let mut stage = stage::lock(scene.stage);
                let first = if stage.rng.bool() { 0 } else { stage.rng.u32(0..object.parts()) };
                let end = stage.rng.u32(first..object.parts()) + 1;
                drop(stage);
                self.begin(scene, record, first, end, now);
            }
            50..65 => self.map(scene, record, now),
            65..72 => self.storm(scene),
            72..78 => {
                let mut stage = stage::lock(scene.stage);
                let index = stage.rng.u32(0..object.parts());
                stage.armed = Some(object.first_part() + index);
            }
            78..84 => self.die(scene, record),
            84..96 => self.close(scene, record),
            _ => {}
        }
    }

    fn open(&mut self, scene: &Scene<'_>) {
        if scene.calm || scene.latest.is_empty() {
            self.act = Act::Gone;
            return;
        }
        let mut stage = stage::lock(scene.stage);
        let record = scene.latest[stage.rng.usize(0..scene.latest.len())];
        stage.truths[record].users += 1;
        let slot = stage.truths[record].slot;
        stage.say(|| format!("reader {} opens record {slot}", self.number));
        drop(stage);
        self.record = Some(record);
        // Who was told of wrong bytes begins anew.
        if self.given.get(&record).is_some_and(|given| given.told) {
            self.given.remove(&record);
        }
        scene.region.tell(Seen { pid: 1000 + self.number, slot, act: 1 });
    }

    fn close(&mut self, scene: &Scene<'_>, record: usize) {
        stage::lock(scene.stage).truths[record].users -= 1;
        self.record = None;
    }

    /// All that is not read yet, of all objects at once.
    fn storm(&self, scene: &Scene<'_>) {
        stage::lock(scene.stage).faults.saw(Fault::DemandStorm);
        for record in scene.latest {
            let object = scene.object(*record);
            scene.region.demand(object, 0, object.parts());
        }
    }

    /// Its holds and pins stay in the region: nobody is left to take them back.
    fn die(&mut self, scene: &Scene<'_>, record: usize) {
        stage::lock(scene.stage).faults.saw(Fault::ReaderDied);
        if let Some(truth) = stage::lock(scene.stage).truths.get_mut(record) {
            match self.act {
                Act::Wait { index, .. }
                | Act::Copy { index, .. }
                | Act::Few { index, .. }
                | Act::CopyFew { index, .. }
                | Act::Verdict { index, .. } => truth.parts[index as usize].entry -= 1,
                Act::Whole => truth.parts.iter_mut().for_each(|part| part.pinned -= 1),
                Act::Mapped => truth.parts.iter_mut().for_each(|part| part.mapped -= 1),
                Act::Idle | Act::Gone => {}
            }
        }
        self.close(scene, record);
        self.given.clear();
        self.act = Act::Idle;
    }

    fn begin(&mut self, scene: &Scene<'_>, record: usize, index: u32, end: u32, now: u64) {
        let object = scene.object(record);
        scene.region.part(object, index).pin_for_copy();
        stage::lock(scene.stage).truths[record].parts[index as usize].entry += 1;
        scene.region.demand(object, index, end);
        (self.act, self.slice) = (Act::Wait { index, end }, now + SLICE);
        self.wait(scene, record, index, end, now);
    }

    /// As `wait::range`, for one part.
    fn wait(&mut self, scene: &Scene<'_>, record: usize, index: u32, end: u32, now: u64) {
        let object = scene.object(record);
        if let Some(fill) = scene.region.part(object, index).fill() {
            return match self.may_take(scene, record, index, None) {
                May::Take => {
                    let right = is_right(&stage::lock(scene.stage), record, index);
                    self.act = Act::Copy { index, end, fill, right };
                }
                May::Wait(seen) => {
                    stage::lock(scene.stage).faults.saw(Fault::LastWaits);
                    scene.region.demand_unknown(object, seen.round);
                    (self.act, self.slice) = (Act::Verdict { index, end, seen, few: None }, now + SLICE);
                }
                May::Fail => self.let_go(scene, record, index),
            };
        }
        let starved = self.slice <= now && object.starved.load(Ordering::Acquire) != 0;
        if object.state() == state::FAILED || starved {
            if starved {
                stage::lock(scene.stage).faults.saw(Fault::Starved);
            }
            return self.let_go(scene, record, index);
        }
        let roll = stage::lock(scene.stage).rng.u32(0..64);
        if roll == 0 && !scene.calm {
            return self.die(scene, record);
        }
        if self.slice <= now {
            scene.region.demand(object, index, end);
            self.slice = now + SLICE;
        }
    }

    /// As `src/preload/taken.rs`.
    fn may_take(&mut self, scene: &Scene<'_>, record: usize, index: u32, few: Option<(u64, u64)>) -> May {
        let object = scene.object(record);
        let judged = object.verdict.get();
        let given = self.given.entry(record).or_default();
        if given.round != 0 && (given.told || given.round != judged.round) {
            given.told = true;
            stage::lock(scene.stage).faults.saw(Fault::WrongHandedOut);
            return May::Fail;
        }
        match judged.judgement {
            Judgement::Matched | Judgement::Nothing => return May::Take,
            Judgement::Wrong => return May::Fail,
            Judgement::Open if scene.region.header().reads_wait.load(Ordering::Relaxed) != 0 => {
                return May::Wait(judged);
            }
            Judgement::Open => {}
        }
        if !hands_out(scene.region, object, index, few, judged.round) {
            return May::Wait(judged);
        }
        if given.round == 0 {
            given.round = judged.round;
            let slot = stage::lock(scene.stage).truths[record].slot;
            scene.region.tell(Seen { pid: 1000 + self.number, slot, act: ACT_GIVEN });
        }
        May::Take
    }

    /// As `wait::verdict`, with the part held.
    fn judged(
        &mut self,
        scene: &Scene<'_>,
        record: usize,
        (index, end, few): (u32, u32, Option<(u64, u64)>),
        seen: Judged,
        now: u64,
    ) {
        let object = scene.object(record);
        if object.verdict.get() != seen
            && let Some(bytes) = few
        {
            scene.region.demand_bytes(object, bytes.0, bytes.1);
            (self.act, self.slice) = (Act::Few { index, bytes }, now + SLICE);
            return self.wait_few(scene, record, index, bytes, now);
        }
        if object.verdict.get() != seen {
            scene.region.demand(object, index, end);
            (self.act, self.slice) = (Act::Wait { index, end }, now + SLICE);
            return self.wait(scene, record, index, end, now);
        }
        let starved = self.slice <= now && object.starved.load(Ordering::Acquire) != 0;
        if object.state() == state::FAILED || starved {
            if starved {
                stage::lock(scene.stage).faults.saw(Fault::Starved);
            }
            return self.let_go(scene, record, index);
        }
        if self.slice <= now {
            scene.region.demand_unknown(object, seen.round);
            self.slice = now + SLICE;
        }
    }

    /// It was given a part with success. Nobody has all of a version but with a verdict, and who has wrong bytes is given
    /// nothing after it.
    fn has(&mut self, scene: &Scene<'_>, record: usize, index: u32, few: Option<(u64, u64)>) {
        let object = scene.object(record);
        let judged = object.verdict.get();
        let mut stage = stage::lock(scene.stage);
        let range = few.map_or_else(|| object.part_range(index), |bytes| bytes.0..bytes.1);
        let flips = wrong_in(&stage, record, index, &range);
        let given = self.given.entry(record).or_default();
        let (blocks, wrong) = given.parts.entry(index).or_default();
        *blocks |= object.blocks_of(index, range.start, range.end);
        wrong.retain(|at| !range.contains(at));
        wrong.extend(flips);
        let all =
            |(index, (blocks, _)): (&u32, &(Mask, Vec<u64>))| *blocks == block::mask(0, object.blocks_len(*index));
        let has_all = given.parts.len() == object.parts() as usize && given.parts.iter().all(all);
        let has_wrong = given.parts.values().any(|(_, flips)| !flips.is_empty());
        let text = match judged.judgement {
            Judgement::Open | Judgement::Wrong if has_all => {
                "has all parts, and there is no verdict that they are right"
            }
            Judgement::Matched if has_wrong => "has wrong bytes, and was given more after the verdict",
            _ => return,
        };
        let text = format!("{} {text}", self.describe());
        stage.violated(text);
    }

    fn copied(&mut self, scene: &Scene<'_>, record: usize, part: (u32, u32), begun: (u32, bool), now: u64) {
        let ((index, end), (fill, right)) = (part, begun);
        let object = scene.object(record);
        let word = scene.region.part(object, index);
        if word.fill() != Some(fill) {
            // Given up meanwhile: it is waited for and copied again.
            scene.region.demand(object, index, end);
            (self.act, self.slice) = (Act::Wait { index, end }, now + SLICE);
            return;
        }
        if !right || !is_right(&stage::lock(scene.stage), record, index) {
            let text = format!("{} got wrong bytes", self.describe());
            stage::lock(scene.stage).violated(text);
        }
        self.has(scene, record, index, None);
        word.touch(scene.region.header().clock.load(Ordering::Relaxed));
        self.let_go(scene, record, index);
        if index + 1 < end && !scene.calm {
            self.begin(scene, record, index + 1, end, now);
        }
    }

    /// A little of one part, as the library's small reads.
    fn begin_few(&mut self, scene: &Scene<'_>, record: usize, now: u64) {
        let object = scene.object(record);
        let mut stage = stage::lock(scene.stage);
        let index = stage.rng.u32(0..object.parts());
        let range = object.part_range(index);
        let most = (range.end - range.start).min(stage.rng.choice([16, 300, 2000]).unwrap_or(16));
        let start = stage.rng.u64(range.start..range.end);
        let bytes = (start, (start + stage.rng.u64(1..=most)).min(range.end));
        stage.truths[record].parts[index as usize].entry += 1;
        drop(stage);
        scene.region.part(object, index).pin_for_copy();
        scene.region.demand_bytes(object, bytes.0, bytes.1);
        (self.act, self.slice) = (Act::Few { index, bytes }, now + SLICE);
        self.wait_few(scene, record, index, bytes, now);
    }

    /// As `wait_bytes::bytes`, for one part.
    fn wait_few(&mut self, scene: &Scene<'_>, record: usize, index: u32, bytes: (u64, u64), now: u64) {
        let object = scene.object(record);
        if let Some(fill) = scene.region.fill_of(object, index, bytes.0, bytes.1) {
            return match self.may_take(scene, record, index, Some(bytes)) {
                May::Take => {
                    let right = is_right_in(&stage::lock(scene.stage), record, index, bytes);
                    self.act = Act::CopyFew { index, bytes, fill, right };
                }
                May::Wait(seen) => {
                    scene.region.demand_unknown(object, seen.round);
                    let end = index + 1;
                    (self.act, self.slice) = (Act::Verdict { index, end, seen, few: Some(bytes) }, now + SLICE);
                }
                May::Fail => self.let_go(scene, record, index),
            };
        }
        let starved = self.slice <= now && object.starved.load(Ordering::Acquire) != 0;
        if object.state() == state::FAILED || starved {
            if starved {
                stage::lock(scene.stage).faults.saw(Fault::Starved);
            }
            return self.let_go(scene, record, index);
        }
        if self.slice <= now {
            scene.region.demand_bytes(object, bytes.0, bytes.1);
            self.slice = now + SLICE;
        }
    }

    fn copied_few(
        &mut self,
        scene: &Scene<'_>,
        record: usize,
        (index, bytes): (u32, (u64, u64)),
        (fill, right): (u32, bool),
        now: u64,
    ) {
        let object = scene.object(record);
        if scene.region.fill_of(object, index, bytes.0, bytes.1) != Some(fill) {
            scene.region.demand_bytes(object, bytes.0, bytes.1);
            (self.act, self.slice) = (Act::Few { index, bytes }, now + SLICE);
            return;
        }
        if !right || !is_right_in(&stage::lock(scene.stage), record, index, bytes) {
            let text = format!("{} got wrong bytes", self.describe());
            stage::lock(scene.stage).violated(text);
        }
        self.has(scene, record, index, Some(bytes));
        let part = scene.region.part(object, index);
        if !part.is_ready() {
            stage::lock(scene.stage).faults.saw(Fault::FewRead);
        }
        part.touch(scene.region.header().clock.load(Ordering::Relaxed));
        self.let_go(scene, record, index);
    }

    fn let_go(&mut self, scene: &Scene<'_>, record: usize, index: u32) {
        scene.region.part(scene.object(record), index).unpin_after_copy();
        stage::lock(scene.stage).truths[record].parts[index as usize].entry -= 1;
        self.act = Act::Idle;
    }

    fn map(&mut self, scene: &Scene<'_>, record: usize, now: u64) {
        let object = scene.object(record);
        (0..object.parts()).for_each(|index| scene.region.part(object, index).pin());
        each_part(scene, record, |part| part.pinned += 1);
        scene.region.demand(object, 0, object.parts());
        (self.act, self.slice) = (Act::Whole, now + SLICE);
        self.whole(scene, record, now);
    }

    /// As `wait::whole`.
    fn whole(&mut self, scene: &Scene<'_>, record: usize, now: u64) {
        let object = scene.object(record);
        let is_ready = |index: u32| scene.region.part(object, index).is_ready();
        let missing = (0..object.parts()).any(|index| !is_ready(index));
        let starved = self.slice <= now && missing && object.starved.load(Ordering::Acquire) != 0;
        if object.state() == state::FAILED || starved {
            if starved {
                stage::lock(scene.stage).faults.saw(Fault::Starved);
            }
            each_part(scene, record, |part| part.pinned -= 1);
            self.act = Act::Idle;
            return;
        }
        // Who has bytes of another round gets no map either.
        let round = object.verdict.get().round;
        if self.given.get(&record).is_some_and(|given| given.round != 0 && given.round != round) {
            self.given.entry(record).or_default().told = true;
            each_part(scene, record, |part| part.pinned -= 1);
            self.act = Act::Idle;
            return;
        }
        if !missing && object.state() == state::VERIFIED {
            self.act = Act::Mapped;
            each_part(scene, record, |part| (part.pinned, part.mapped) = (part.pinned - 1, part.mapped + 1));
            return self.check_map(scene, record);
        }
        if self.slice <= now {
            scene.region.demand(object, 0, object.parts());
            self.slice = now + SLICE;
        }
    }

    fn unmap(&mut self, scene: &Scene<'_>, record: usize) {
        self.check_map(scene, record);
        each_part(scene, record, |part| part.mapped -= 1);
        self.act = Act::Idle;
        let roll = stage::lock(scene.stage).rng.u32(0..8);
        if roll == 0 {
            self.die(scene, record);
        }
    }

    /// A map shows the version that was listed, and nothing else, as long as it lives.
    fn check_map(&self, scene: &Scene<'_>, record: usize) {
        let verified = scene.object(record).verified() == Some(true);
        let mut stage = stage::lock(scene.stage);
        let truth = &stage.truths[record];
        let found = memory::look(truth.at, truth.size as usize);
        let right = crate::bytes::of(truth.salt, 0..truth.size);
        if found != right && verified {
            stage.violated(format!("{} shows wrong bytes", self.describe()));
        }
    }
}

/// What may be done with a part that is ready.
enum May {
    Take,
    Wait(Judged),
    Fail,
}

fn each_part(scene: &Scene<'_>, record: usize, act: impl FnMut(&mut Part)) {
    stage::lock(scene.stage).truths[record].parts.iter_mut().for_each(act);
}

/// As `Fills::hand_out` of the library.
fn hands_out(region: Region, object: &Object, index: u32, few: Option<(u64, u64)>, round: u32) -> bool {
    let part = region.part(object, index);
    let Some((start, end)) = few.filter(|_| !part.is_known(round)) else {
        return region.traces(object).handed.hand_out(part, object.parts(), round);
    };
    let Some(blocks) = region.blocks(object, index) else { return false };
    let counts = (object.blocks_len(index), object.parts());
    let mut wanted = block::numbers(object.blocks_of(index, start, end));
    wanted.all(|number| blocks.hand_out(number, &region.traces(object).handed, part, counts, round))
}

/// The wrong bytes that the origin has sent of a range inside a part.
fn wrong_in(stage: &Stage, record: usize, index: u32, range: &Range<u64>) -> Vec<u64> {
    let part = &stage.truths[record].parts[index as usize];
    let all = part.flips.iter().filter(|_| part.good).chain(part.small.values().flatten());
    all.copied().filter(|at| range.contains(at)).collect()
}

fn is_right_in(stage: &Stage, record: usize, index: u32, (start, end): (u64, u64)) -> bool {
    let truth = &stage.truths[record];
    let found = memory::look(truth.at + start as usize, (end - start) as usize);
    let mut sent = wrong_in(stage, record, index, &(start..end));
    sent.sort_unstable();
    truth.wrong(start..end, found) == sent
}

fn is_right(stage: &Stage, record: usize, index: u32) -> bool {
    let truth = &stage.truths[record];
    let range = truth.range(index);
    truth.is_right(index, memory::look(truth.at + range.start as usize, (range.end - range.start) as usize))
}
