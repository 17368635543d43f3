//! The invariants: after each event, at rest, and when an engine has stopped. Each that does not hold is a
//! violation of the stage.
//!
//! Called by the world. It changes nothing.

use crate::engine::PAGE_BYTES;
use crate::fault::Fault;
use crate::fill::Fill;
use crate::memory;
use crate::stage::{self, Stage, Truth};
use crate::world::{PART_BYTES_MAX, World};
use ossc_cache::part;
use ossc_cache::region::{Object, Region, state};
use ossc_cache::verdict::Judgement;
use ossc_engine::lock::lock;
use ossc_engine::work::Work;
use ossc_net::sim::{self, Net};
use ossc_store::plan::Class;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Items that may wait for one part or piece: in each of three classes, now and later.
const ITEMS_PER_PART: usize = 6;
/// Pieces, verdict and revival of one record.
const ITEMS_PER_RECORD: usize = 6 * ITEMS_PER_PART;

/// After each event.
pub fn always(world: &World<'_>) {
    let mut stage = stage::lock(&world.stage);
    let (mut resident, mut parts, mut blocks, mut revived) = (0, 0, 0, 0);
    let mut wrong = None;
    for truth in &mut stage.truths {
        let Some(object) = world.region.object(truth.slot) else { continue };
        let failed = object.state() == state::FAILED;
        revived += u32::from(std::mem::replace(&mut truth.failed, failed) && !failed);
        parts += truth.parts.len();
        for (index, part) in truth.parts.iter().enumerate() {
            resident += if part.resident { room(truth, index as u32) } else { truth.small_bytes(index as u32) };
            blocks += truth.blocks(index as u32) as usize;
            let state = world.region.part(object, index as u32).state();
            let text = match state {
                part::READY if !part.good => "is Ready without its bytes",
                part::FILLING if part.fill.is_none() => "is Filling, and nobody fills it",
                part::EMPTY | part::READY if part.fill.is_some() => "is being filled, and its state says nothing of it",
                _ => continue,
            };
            wrong = Some(format!("part {index} of record {} {text}", truth.slot));
        }
    }
    (0..revived).for_each(|_| stage.faults.saw(Fault::Revived));
    let (limit, gauges) = (stage.limit, world.engine.work.gauges());
    if resident + gauges.hedge_bytes > limit {
        wrong = Some(format!("{resident} bytes are resident, {gauges:?}, and {limit} are allowed"));
    }
    let setup = world.setup.net;
    if stage.in_flight > setup.vcpus * setup.workers || world.engine.net.sockets() > setup.vcpus * setup.workers {
        wrong = Some(format!("{} requests and {} sockets", stage.in_flight, world.engine.net.sockets()));
    }
    let pieces = PART_BYTES_MAX.div_ceil(world.setup.work.scale.piece_bytes_min) as usize;
    // Each block waits once.
    if gauges.planned > parts * pieces * ITEMS_PER_PART + blocks + stage.truths.len() * ITEMS_PER_RECORD {
        wrong = Some(format!("{} items wait for {parts} parts", gauges.planned));
    }
    if gauges.budget_used > limit {
        wrong = Some(format!("{} bytes of {limit} are put aside", gauges.budget_used));
    }
    if let Some(text) = wrong.or_else(|| overslept(world)) {
        stage.violated(text);
    }
}

/// After the engine heard of readers: what gives way to them, it may.
pub fn ways(work: &Work, stage: &mut Stage) {
    let (mut fresh, mut before, mut wrong) = (0, 0, None);
    for truth in &mut stage.truths {
        for (index, part) in (0..).zip(&mut truth.parts) {
            let Some(fill) = &mut part.fill else { continue };
            let marked = fill.mark(|n| work.transfers.pieces.gives_way(truth.slot, index, n));
            (fresh, before) = (fresh + marked.0, before + marked.1);
            if marked.0 > 0 && part.entry + part.pinned + part.mapped > 0 {
                wrong = Some(format!("part {index} of record {} gives way although readers wait for it", truth.slot));
            }
        }
    }
    if fresh == 0 {
        return;
    }
    if 2 * (fresh + before) > stage.in_flight {
        wrong = Some(format!("{fresh} requests of {} give way, and {before} do already", stage.in_flight));
    }
    match stage.ways.checked_sub(1) {
        Some(ways) => stage.ways = ways,
        None => wrong = Some("connections are freed again and again".into()),
    }
    if let Some(wrong) = wrong {
        stage.violated(wrong);
    }
}

/// After a turn of a vcpu: of what comes on its connections, that which something waits for is served first.
pub fn ranks(net: &Net, links: &[sim::Link], stage: &mut Stage) {
    // An idle connection waits for the head of its next answer, whatever that will be: it has the rank 0.
    let of =
        |link: &sim::Link| Some((*stage.urgent.get(&net.token(*link)?)?, net.rank(*link).filter(|rank| *rank > 0)?));
    let ranks: Vec<(bool, u64)> = links.iter().filter_map(of).collect();
    let urgent = ranks.iter().filter(|(urgent, _)| *urgent).map(|(_, rank)| *rank).max();
    let ahead = ranks.iter().filter(|(urgent, _)| !*urgent).map(|(_, rank)| *rank).min();
    if urgent.zip(ahead).is_some_and(|(urgent, ahead)| urgent > ahead) {
        stage.violated(format!("what a reader waits for is served behind what is fetched ahead: {ranks:?}"));
    }
}

/// Nobody with a free worker sleeps while there is work.
fn overslept(world: &World<'_>) -> Option<String> {
    let now = sim::now();
    let sleeps = |vcpu: usize| {
        let sleep = world.sleeps[vcpu]?;
        let late = sleep.free && !world.engine.net.is_called(vcpu) && sleep.until.is_none_or(|until| until > now);
        late.then(|| format!("vcpu {vcpu} sleeps, has a free worker, and there is work: a wake-up is lost"))
    };
    let sleeper = (0..world.sleeps.len()).find_map(sleeps)?;
    // Where the request window limits the prefetch, who ends a request begins the next: when it has closed what it has to.
    let few = world.engine.work.scheduling.window_limit() < world.setup.work.requests_max;
    let closes = || (0..world.sleeps.len()).any(|vcpu| world.engine.net.closes(vcpu));
    let due = world.engine.work.scheduling.due(now)?;
    (due < Class::Prefetch || !few || !closes()).then_some(sleeper)
}

/// When all readers are gone and no fault strikes any more.
pub fn at_rest(world: &World<'_>) {
    let gauges = world.engine.work.gauges();
    let mut stage = stage::lock(&world.stage);
    let mut wrong = Vec::new();
    if gauges.roomless + gauges.flights + gauges.hedges > 0 || gauges.small_bytes > 0 {
        wrong.push(format!("not back to zero: {gauges:?}"));
    }
    let mut ready_bytes = 0;
    for truth in &stage.truths {
        let Some(object) = world.region.object(truth.slot) else { continue };
        wrong.extend(record_at_rest(world.region, object, truth));
        for index in (0..object.parts()).filter(|index| world.region.part(object, *index).is_ready()) {
            let range = truth.range(index);
            ready_bytes += range.end - range.start;
        }
    }
    wrong.extend(budget(world, &stage));
    let counted = world.region.header().ready_bytes.load(Ordering::Relaxed) - world.ready_before;
    if counted != ready_bytes {
        wrong.push(format!("{counted} bytes are counted as ready, and {ready_bytes} are"));
    }
    violated(&mut stage, wrong);
}

/// While nothing is under way: as much is put aside as there is memory in use.
fn budget(world: &World<'_>, stage: &Stage) -> Option<String> {
    let mut used = 0;
    for truth in &stage.truths {
        let Some(object) = world.region.object(truth.slot) else { continue };
        let kept = |index: u32| {
            world.engine.work.entry(truth.slot).is_some_and(|entry| lock(&entry.kept_parts).contains(&index))
        };
        let in_use = |index: &u32| world.region.part(object, *index).state() != part::EMPTY || kept(*index);
        used += (0..object.parts()).filter(in_use).map(|index| room(truth, index)).sum::<u64>();
        used += (0..object.parts()).map(|index| truth.small_bytes(index)).sum::<u64>();
    }
    let put_aside = world.engine.work.gauges().budget_used;
    (put_aside != used).then(|| format!("{put_aside} bytes are put aside, and {used} are in use"))
}

fn record_at_rest(region: Region, object: &Object, truth: &Truth) -> Vec<String> {
    let mut wrong = Vec::new();
    let ready = (0..object.parts()).filter(|index| region.part(object, *index).is_ready()).count() as u32;
    let (state, judged) = (object.state(), object.verdict.get());
    if object.ready_parts.load(Ordering::Acquire) != ready {
        wrong.push(format!("{ready} parts of record {} are ready, and others are counted", truth.slot));
    }
    match state {
        state::COMING => wrong.push(format!("small object {} never came", truth.slot)),
        state::LOADING if ready == object.parts() => wrong.push(format!("record {} has no verdict", truth.slot)),
        // OSS may have another version by the time that it is asked for the check value: readers have an error then.
        state::FAILED => {}
        _ if object.parts() > 0 && known(region, object) == object.parts() && judged.judgement == Judgement::Open => {
            wrong.push(format!("all of record {} is known, and it has no verdict", truth.slot));
        }
        state::VERIFIED if ready < object.parts() => {
            wrong.push(format!("record {} is whole, with parts missing", truth.slot))
        }
        _ => {}
    }
    for index in (0..object.parts()).filter(|index| region.part(object, *index).is_ready()) {
        let range = truth.range(index);
        let bytes = memory::look(truth.at + range.start as usize, (range.end - range.start) as usize);
        let spoiled = !truth.parts[index as usize].flips.is_empty()
            && state == state::VERIFIED
            && object.verified() == Some(true);
        if spoiled || !truth.is_right(index, bytes) {
            wrong.push(format!("part {index} of record {} has wrong bytes", truth.slot));
        }
    }
    wrong
}

/// Parts whose check value is known in this round.
fn known(region: Region, object: &Object) -> u32 {
    let round = object.verdict.get().round;
    (0..object.parts()).filter(|index| region.part(object, *index).is_known(round)).count() as u32
}

/// After an engine has stopped: nothing is under way, and nothing is lost.
pub fn stopped(world: &World<'_>) {
    let mut stage = stage::lock(&world.stage);
    let mut wrong = Vec::new();
    let connections: usize = (0..world.setup.net.vcpus).map(|vcpu| world.engine.net.connections(vcpu)).sum();
    if stage.in_flight + connections + world.engine.net.sockets() > 0 {
        wrong.push(format!("stopped with {} requests under way, {connections} connections", stage.in_flight));
    }
    let gauges = world.engine.work.gauges();
    if gauges.hedges + stage.seconds.len() > 0 {
        wrong.push(format!("stopped with second requests under way: {gauges:?}"));
    }
    for truth in &stage.truths {
        let filled =
            (0..).zip(&truth.parts).filter_map(|(index, part)| Some((truth.range(index), part.fill.as_ref()?)));
        // What waits for pieces that were not asked for yet, or are to be asked for again, is another engine's to begin anew.
        let lost = |(range, fill): &(Range<u64>, &Fill)| {
            fill.asked() == range.end - range.start && !fill.has_failed() || fill.is_under_way()
        };
        wrong.extend(filled.filter(lost).map(|_| "stopped with a part being filled".into()));
    }
    wrong.extend(budget(world, &stage));
    violated(&mut stage, wrong);
}

fn violated(stage: &mut Stage, wrong: Vec<String>) {
    if !wrong.is_empty() {
        stage.violated(wrong.join("; "));
    }
}

/// As the engine counts it: the last part ends with a whole page.
fn room(truth: &Truth, index: u32) -> u64 {
    let range = truth.range(index);
    let end = if range.end == truth.size { range.end.next_multiple_of(PAGE_BYTES) } else { range.end };
    end - range.start
}
