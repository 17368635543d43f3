//! The protocols of the shared region under a checker of schedules: the product's own files, compiled
//! against `tests/model/sync.rs`. Each model runs under random, priority (PCT) and depth-first schedules;
//! each has a twin with a bug planted, which the checker must find.
//!
//! `OSSC_MODEL_SCALE` multiplies the number of schedules. The order of memory accesses is sequentially
//! consistent here; `tests/loom.rs` checks where that matters.

#[allow(dead_code)]
#[path = "../demand.rs"]
mod demand;
#[allow(dead_code)]
#[path = "../doorbell.rs"]
mod doorbell;
#[allow(dead_code)]
#[path = "../event.rs"]
mod event;
#[allow(dead_code)]
#[path = "../futex_word.rs"]
mod futex_word;
#[path = "model/lease.rs"]
mod lease;
#[allow(dead_code)]
#[path = "../life.rs"]
mod life;
#[path = "model/memory_cache.rs"]
mod memory_cache;
#[allow(dead_code)]
#[path = "../part.rs"]
mod part;
#[path = "model/region.rs"]
mod region;
#[path = "model/sync.rs"]
mod sync;
#[allow(dead_code)]
#[path = "../verdict.rs"]
mod verdict;
#[allow(dead_code)]
#[path = "../wait.rs"]
mod wait;

use event::{Events, Seen};
use lease::File;
use memory_cache::CachedMemory;
use ossc_cache::sys::{Errno, Result};
use region::{Object, Region, Wrong, assert_right, state};
use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner, thread};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use sync::{AtomicU32, AtomicU64, Bug};
use verdict::Judgement;

mod sys {
    pub use ossc_cache::sys::{Errno, Result};
}

/// Schedules per model and scheduler in a plain `cargo test`.
const SCHEDULES: usize = 400;
/// Most per scheduler until a planted bug must have been found.
const CONTROL_SCHEDULES: usize = 20_000;
const SEED: u64 = 20_260_101;

fn scale() -> usize {
    std::env::var("OSSC_MODEL_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn run(scheduler: impl Scheduler + 'static, model: impl Fn() + Send + Sync + 'static) -> usize {
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::None;
    config.stack_size = 1 << 17;
    Runner::new(scheduler, config).run(move || {
        sync::reset();
        model();
    })
}

/// All schedulers; the number of schedules that were tried.
fn explore(count: usize, model: impl Fn() + Send + Sync + Clone + 'static) -> usize {
    run(RandomScheduler::new_from_seed(SEED, count), model.clone())
        + run(PctScheduler::new_from_seed(SEED, 3, count), model.clone())
        + run(DfsScheduler::new(Some(2 * count), false), model)
}

fn holds(name: &str, model: impl Fn() + Send + Sync + Clone + 'static) {
    let schedules = explore(SCHEDULES * scale(), model);
    assert!(schedules >= 3, "{name} ran {schedules} times only");
    println!("model {name}: {schedules} schedules, no violation");
}

/// The same with something broken: a schedule must show it, by a failed assertion or a deadlock.
fn is_caught(name: &str, bug: Option<Bug>, model: impl Fn() + Send + Sync + Clone + 'static) {
    let tried = Arc::new(AtomicUsize::new(0));
    let counted = tried.clone();
    sync::plant(bug);
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        explore(CONTROL_SCHEDULES, move || {
            counted.fetch_add(1, Ordering::SeqCst);
            model();
        })
    }));
    sync::plant(None);
    let text = match &found {
        Ok(schedules) => panic!("control {name}: not found in {schedules} schedules"),
        Err(why) => why.downcast_ref::<String>().cloned().or_else(|| why.downcast_ref::<&str>().map(|s| s.to_string())),
    };
    let text = text.unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    println!("control {name}: found in schedule {} ({first})", tried.load(Ordering::SeqCst));
}

fn shared(parts: u32) -> Arc<(Region, Object)> {
    Arc::new(region::new(parts))
}

fn patient() -> Result<()> {
    Ok(())
}

fn join(threads: Vec<thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

// Part states: two fillers, the first try of which is given up, and three sleeping readers.

fn part_states(wrong: Wrong) {
    let both = shared(1);
    let mut threads: Vec<_> = (0..2)
        .map(|_| {
            let both = both.clone();
            thread::spawn(move || {
                let (region, object) = (&both.0, &both.1);
                let part = region.part(object, 0);
                while !part.is_ready() {
                    if !region.fill(object, 0, part.attempts() == 0, wrong) {
                        part.sleep(1);
                    }
                }
            })
        })
        .collect();
    threads.extend((0..3).map(|_| {
        let both = both.clone();
        thread::spawn(move || {
            let part = both.0.part(&both.1, 0);
            while !part.is_ready() {
                part.sleep(1);
            }
            assert_right(both.0.copy(0));
        })
    }));
    join(threads);
}

#[test]
fn a_part_has_one_filler_and_wakes_all_its_waiters() {
    holds("part states", || part_states(Wrong::default()));
}

#[test]
fn planted_bugs_of_part_states_are_caught() {
    for bug in [Bug::LostWake, Bug::WakesOne, Bug::NoCompare] {
        is_caught(&format!("part states, {bug:?}"), Some(bug), || part_states(Wrong::default()));
    }
    is_caught("part states, double owner", Some(Bug::TornUpdate), || part_states(Wrong::default()));
    let early = Wrong { publishes_early: true, ..Wrong::default() };
    is_caught("part states, early publish", None, move || part_states(early));
}

// The state word of an object: failing or verifying it wakes all.

fn object_word(fails: bool) {
    let both = shared(1);
    let sleepers = (0..3)
        .map(|_| {
            let both = both.clone();
            thread::spawn(move || {
                let got = wait::whole(&both.0, &both.1, &patient);
                assert_eq!(got, if fails { Err(Errno(libc::ESTALE)) } else { Ok(()) });
            })
        })
        .collect();
    let (region, object) = (&both.0, &both.1);
    region.part(object, 0).claim();
    region.part(object, 0).publish(0);
    if fails {
        object.fail(libc::ESTALE)
    } else {
        object.set_state(state::VERIFIED)
    }
    join(sleepers);
}

#[test]
fn an_objects_end_wakes_all_who_wait_for_it() {
    holds("object word, verified", || object_word(false));
    holds("object word, failed", || object_word(true));
}

#[test]
fn planted_bugs_of_the_object_word_are_caught() {
    for bug in [Bug::LostWake, Bug::WakesOne, Bug::NoCompare] {
        is_caught(&format!("object word, {bug:?}"), Some(bug), || object_word(true));
    }
}

// Demand, doorbell and waits together: an engine that does nothing unasked, whose first try of each part fails.

fn demand() {
    let both = shared(3);
    let readers = [(0, 20), (10, 30)].map(|(start, end)| {
        let both = both.clone();
        thread::spawn(move || {
            wait::range(&both.0, &both.1, start, end, &patient).unwrap();
            for index in both.1.parts_of(start, end) {
                assert_right(both.0.copy(index));
            }
        })
    });
    let engine = thread::spawn(move || {
        let (region, object) = (&both.0, &both.1);
        while object.state() != state::VERIFIED {
            let heard = region.doorbell().heard();
            region.take_demand(|index| {
                // The first try of one part fails; the engine tries again by itself.
                while !region.part(object, index).is_ready() {
                    let fails = region.part(object, index).attempts() == 0 && index == 1;
                    region.fill(object, index, fails, Wrong::default());
                }
            });
            if object.state() != state::VERIFIED {
                region.doorbell().sleep(heard, 1);
            }
        }
    });
    let mut threads = Vec::from(readers);
    threads.push(engine);
    join(threads);
}

#[test]
fn no_demand_and_no_ring_is_lost() {
    holds("demand and doorbell", demand);
}

#[test]
fn planted_bugs_of_demand_are_caught() {
    for bug in [Bug::LostWake, Bug::NoCompare, Bug::TornUpdate] {
        is_caught(&format!("demand and doorbell, {bug:?}"), Some(bug), demand);
    }
}

// Events: three writers on a ring of two, and an engine that reads meanwhile.

struct Ring {
    places: [AtomicU64; 2],
    head: AtomicU64,
    lost: AtomicU64,
}

impl Ring {
    fn events(&self) -> Events<'_> {
        Events { places: &self.places, head: &self.head, lost: &self.lost }
    }
}

fn of_writer(pid: u32) -> Seen {
    Seen { pid, slot: pid * 1000 + 7, act: pid % 3 + 1 }
}

fn events() {
    const WRITERS: u32 = 3;
    const EACH: usize = 2;
    let ring = Arc::new(Ring { places: Default::default(), head: AtomicU64::new(0), lost: AtomicU64::new(0) });
    let writers: Vec<_> = (1..=WRITERS)
        .map(|pid| {
            let ring = ring.clone();
            thread::spawn(move || (0..EACH).for_each(|_| ring.events().tell(of_writer(pid))))
        })
        .collect();
    let mut got = Vec::new();
    let mut next = 0;
    for _ in 0..2 {
        next = ring.events().drain_from(next, |seen| got.push(seen));
    }
    join(writers);
    // A successor begins at the first place, and gets nothing twice.
    ring.events().drain_from(0, |seen| got.push(seen));
    for pid in 1..=WRITERS {
        assert!(got.iter().filter(|seen| seen.pid == pid).count() <= EACH, "an event was taken twice");
    }
    assert!(got.iter().all(|seen| *seen == of_writer(seen.pid)), "a torn event");
    let lost = ring.lost.load(Ordering::SeqCst) as usize;
    assert_eq!(got.len() + lost, WRITERS as usize * EACH, "each event is taken once or counted as lost");
}

#[test]
fn each_event_is_taken_whole_and_once_or_counted_as_lost() {
    holds("events", events);
}

#[test]
fn planted_bugs_of_events_are_caught() {
    is_caught("events, TornUpdate", Some(Bug::TornUpdate), events);
}

// Giving parts up: against readers who copy, and against programs that map.

fn give_up_and_copy(wrong: Wrong, looks_again: bool) {
    let both = shared(1);
    both.0.fill(&both.1, 0, false, wrong);
    let readers = (0..2)
        .map(|_| {
            let both = both.clone();
            thread::spawn(move || {
                let (region, object) = (&both.0, &both.1);
                loop {
                    if let Some(copied) = region.copied(object, 0, looks_again) {
                        return assert_right(copied);
                    }
                    wait::range(region, object, 0, 10, &patient).unwrap();
                }
            })
        })
        .collect();
    for _ in 0..2 {
        assert!(both.0.release(&both.1, 0, wrong), "a ready part that nobody has pinned cannot be taken back");
        both.0.fill(&both.1, 0, false, wrong);
    }
    join(readers);
}

/// A program maps (pins, waits for the whole, touches) while the verdict falls and parts are given up.
fn give_up_and_map(wrong: Wrong, pins_first: bool, trusts_verdict: bool) {
    let both = shared(2);
    both.0.fill(&both.1, 0, false, wrong);
    let engine = {
        let both = both.clone();
        thread::spawn(move || {
            both.0.fill(&both.1, 1, false, wrong);
        })
    };
    let room = {
        let both = both.clone();
        thread::spawn(move || {
            if both.0.release(&both.1, 0, wrong) {
                both.0.fill(&both.1, 0, false, wrong);
            }
        })
    };
    let (region, object) = (&both.0, &both.1);
    let pin = || (0..2).for_each(|index| region.part(object, index).pin());
    if pins_first {
        pin();
    }
    if !trusts_verdict || object.state() != state::VERIFIED {
        wait::whole(region, object, &patient).unwrap();
    }
    if !pins_first {
        pin();
    }
    for index in [0, 1, 0, 1] {
        assert_right(region.copy(index));
    }
    join(vec![engine, room]);
}

#[test]
fn nobody_accepts_a_copy_of_a_part_that_was_given_up_meanwhile() {
    holds("give-up and copy", || give_up_and_copy(Wrong::default(), true));
}

#[test]
fn a_mapped_part_stays() {
    holds("give-up and map", || give_up_and_map(Wrong::default(), true, false));
}

#[test]
fn planted_bugs_of_giving_up_are_caught() {
    let right = Wrong::default();
    is_caught("give-up and copy, no second look", None, move || give_up_and_copy(right, false));
    let late = Wrong { takes_back_late: true, ..right };
    is_caught("give-up and copy, punched before taken back", None, move || give_up_and_copy(late, true));
    let ignores = Wrong { ignores_pins: true, ..right };
    is_caught("give-up and map, no look at the pins", None, move || give_up_and_map(ignores, true, false));
    is_caught("give-up and map, pinned after the wait", None, move || give_up_and_map(right, false, false));
    is_caught("give-up and map, trust in a stale verdict", None, move || give_up_and_map(right, true, true));
}

// Records that are used again: one of two versions, each with a memory of its own, and one part that both have in turn.

struct Versions {
    life: life::Life,
    own: part::OwnPart,
    /// Which version the record is of, twice: a reader that finds two of them was given half of each.
    fields: [AtomicU32; 2],
    memory: [AtomicU32; 2],
}

/// What the memory of a version holds when it is right.
fn bytes_of(version: u32) -> u32 {
    100 + version
}

/// A reader of a record that ends, rests for no time at all, and is used again: it gets bytes of the version that it
/// read of in the record, or nothing. `looks_again`: at the record, after the copy. `ends_first`: the engine, before it
/// writes.
fn use_again(looks_again: bool, ends_first: bool) {
    let versions = Arc::new(Versions {
        life: life::Life::new(state::LOADING),
        own: part::OwnPart::default(),
        fields: [0, 0].map(AtomicU32::new),
        memory: [bytes_of(0), 0].map(AtomicU32::new),
    });
    assert!(versions.own.part().claim());
    versions.own.part().publish(0);
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let versions = versions.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    let Some(number) = versions.life.seen() else { continue };
                    let [version, again] = [0, 1].map(|at: usize| versions.fields[at].load(sync::Ordering::Relaxed));
                    let Some(before) = versions.own.part().fill() else { continue };
                    let copied = versions.memory[version as usize].load(sync::Ordering::Relaxed);
                    if versions.own.part().fill() == Some(before) && (!looks_again || versions.life.lasts(number)) {
                        assert_eq!(version, again, "a reader was given half of two versions");
                        assert_eq!(copied, bytes_of(version), "a reader was given what its version does not hold");
                    }
                }
            })
        })
        .collect();
    if ends_first {
        versions.life.end();
    }
    if versions.own.part().take_back() {
        versions.memory[0].store(0, sync::Ordering::Relaxed);
        versions.own.part().give_up();
    }
    versions.life.rewrite();
    versions.fields.iter().for_each(|field| field.store(1, sync::Ordering::Relaxed));
    versions.own.part().renew();
    versions.life.begin(state::LOADING);
    assert!(versions.own.part().claim());
    versions.memory[1].store(bytes_of(1), sync::Ordering::Relaxed);
    versions.own.part().publish(1);
    join(readers);
}

#[test]
fn a_reader_between_two_versions_gets_one_or_nothing() {
    holds("use again", || use_again(true, true));
}

#[test]
fn planted_bugs_of_reuse_are_caught() {
    is_caught("use again, no second look", None, || use_again(false, true));
    is_caught("use again, written while it lives", None, || use_again(true, false));
}

// What a process keeps of an object.

fn cached_map(wrong: memory_cache::Wrong) {
    let cached = Arc::new(CachedMemory::new(wrong));
    let threads = (0..3)
        .map(|_| {
            let cached = cached.clone();
            thread::spawn(move || {
                cached.one_more();
                cached.begin_copy();
                cached.copy_by_map();
                cached.end_copy();
                cached.one_less();
            })
        })
        .collect();
    // Reads through a descriptor that is not counted.
    cached.begin_copy();
    cached.copy_by_map();
    cached.end_copy();
    join(threads);
}

fn cached_descriptor(wrong: memory_cache::Wrong) {
    let cached = Arc::new(CachedMemory::new(wrong));
    cached.one_more();
    cached.begin_copy();
    let first = cached.cached_memory();
    cached.assert_ours(first);
    cached.end_copy();
    cached.program_closes();
    let closer = {
        let cached = cached.clone();
        thread::spawn(move || cached.one_less())
    };
    let readers = (0..2)
        .map(|_| {
            let cached = cached.clone();
            thread::spawn(move || {
                cached.begin_copy();
                let fd = cached.cached_memory();
                cached.assert_ours(fd);
                cached.end_copy();
            })
        })
        .collect();
    join(readers);
    join(vec![closer]);
}

#[test]
fn a_cached_map_goes_only_when_nobody_copies() {
    holds("cached map", || cached_map(memory_cache::Wrong::Nothing));
}

#[test]
fn a_cached_descriptor_is_the_memory_file_whoever_was_faster() {
    holds("cached descriptor", || cached_descriptor(memory_cache::Wrong::Nothing));
}

#[test]
fn planted_bugs_of_what_is_kept_are_caught() {
    is_caught("cached map, no look at the readers", None, || cached_map(memory_cache::Wrong::IgnoresReaders));
    is_caught("cached descriptor, trust in the faster", None, || {
        cached_descriptor(memory_cache::Wrong::TrustsTheFaster)
    });
}

// Release against programs that open, map, duplicate, fork and exit.

/// A program maps the object, as `client::memory_of` does: what it has mapped is right as long as it is mapped.
fn maps(both: &(Region, Object), file: &Arc<File>, pins_first: bool) {
    let (region, object) = (&both.0, &both.1);
    let pin = || region.part(object, 0).pin();
    if pins_first {
        pin();
        wait::range(region, object, 0, 10, &patient).unwrap();
        file.open();
    } else {
        file.open();
        pin();
        wait::range(region, object, 0, 10, &patient).unwrap();
    }
    // The map and a duplicate; then the descriptor goes.
    file.share();
    file.share();
    file.leave();
    assert_right(region.copy(0));
    // The child of a fork has the map, too, and ends later than its parent.
    file.share();
    file.leave();
    file.leave();
    assert_right(region.copy(0));
    file.leave();
}

fn release_and_open(wrong: Wrong, pins_first: bool) {
    let both = shared(1);
    let file = Arc::new(File::default());
    both.0.fill(&both.1, 0, false, Wrong::default());
    let programs: Vec<_> = (0..2)
        .map(|_| {
            let (both, file) = (both.clone(), file.clone());
            thread::spawn(move || maps(&both, &file, pins_first))
        })
        .collect();
    let room = {
        let (both, file) = (both.clone(), file.clone());
        thread::spawn(move || {
            both.0.look_at_lease(&both.1, &file, false, wrong);
            both.0.release(&both.1, 0, Wrong::default());
            serve(&both);
        })
    };
    both.0.look_at_lease(&both.1, &file, true, wrong);
    serve(&both);
    join(programs);
    join(vec![room]);
}

/// What is not there is fetched again.
fn serve(both: &(Region, Object)) {
    both.0.fill(&both.1, 0, false, Wrong::default());
}

#[test]
fn a_release_never_reaches_what_a_program_has_mapped() {
    holds("release and open", || release_and_open(Wrong::default(), false));
}

#[test]
fn planted_bugs_of_the_lease_are_caught() {
    let right = Wrong::default();
    let drops = Wrong { drops_lease: true, ..right };
    is_caught("release and open, the lease dropped at once", None, move || release_and_open(drops, false));
    let shares = Wrong { shares_lease: true, ..right };
    is_caught("release and open, two threads with one lease", None, move || release_and_open(shares, false));
    is_caught("release and open, pinned before it is open", None, move || release_and_open(right, true));
}

// What is given before the verdict, and what after a mismatch.

/// What a model reader does wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    Right,
    /// Takes the last part like every other.
    WithoutCount,
    /// Goes on after a mismatch.
    WithoutStamp,
    /// Takes bytes of the round before for those of this one.
    WithoutKnown,
}

/// A program reads all parts, from `first` on, as `src/preload/taken.rs` and `copy.rs` do. What it has in the end, if
/// no error has told it that its bytes are wrong.
fn reads(both: &(Region, Object), first: u32, how: Reads) -> Option<Vec<u32>> {
    let (region, object) = (&both.0, &both.1);
    let (parts, mut has, mut took) = (2, Vec::new(), None);
    for index in (0..parts).map(|step| (first + step) % parts) {
        loop {
            let start = u64::from(index) * 10;
            wait::range(region, object, start, start + 10, &patient).unwrap();
            let part = region.part(object, index);
            let Some(fill) = part.fill() else { continue };
            let judged = object.verdict.get();
            if took.is_some_and(|round| round != judged.round) && how != Reads::WithoutStamp {
                return None;
            }
            let may = match how {
                Reads::WithoutCount => part.is_known(judged.round),
                Reads::WithoutKnown => {
                    part.learn(part.crc64(), judged.round);
                    object.handed.hand_out(part, parts, judged.round)
                }
                _ => object.handed.hand_out(part, parts, judged.round),
            };
            if !judged.is_given() {
                if !may {
                    wait::verdict(region, object, judged, &patient).unwrap();
                    continue;
                }
                part.hand_out(judged.round);
                took.get_or_insert(judged.round);
                if object.verdict.get() != judged {
                    continue;
                }
            }
            let copied = region.copy(index);
            if part.fill() == Some(fill) {
                has.push(copied);
                break;
            }
        }
        let is_given = object.verdict.get().is_given();
        assert!(has.len() < parts as usize || is_given, "all parts were given before the verdict");
    }
    Some(has)
}

fn verdicts(is_wrong_once: bool, how: Reads) {
    let both = shared(2);
    let readers = (0..2)
        .map(|first| {
            let both = both.clone();
            thread::spawn(move || {
                for copied in reads(&both, first, how).unwrap_or_default() {
                    assert_right(copied);
                }
            })
        })
        .collect();
    let (region, object) = (&both.0, &both.1);
    if is_wrong_once {
        region.fill_of_round(object, 0, 1, false);
        region.fill_of_round(object, 1, 1, true);
        region.begin_round(object);
    }
    let judged = object.verdict.get();
    // The check value comes late, as after a take-over.
    (0..2).for_each(|index| region.fill_of_round(object, index, judged.round, true));
    object.verdict.set(judged.with(Judgement::Matched), &object.handed);
    join(readers);
}

/// The object fails while its parts are here and the verdict is not.
fn verdict_fails() {
    let both = shared(2);
    (0..2).for_each(|index| both.0.fill_of_round(&both.1, index, 1, true));
    let sleepers = (0..2)
        .map(|_| {
            let both = both.clone();
            thread::spawn(move || {
                let judged = both.1.verdict.get();
                assert_eq!(wait::verdict(&both.0, &both.1, judged, &patient), Err(Errno(libc::ESTALE)));
            })
        })
        .collect();
    both.1.fail(libc::ESTALE);
    join(sleepers);
}

#[test]
fn the_failure_of_an_object_ends_the_wait_for_its_verdict() {
    holds("verdict, failed", verdict_fails);
    is_caught("verdict, failed, LostWake", Some(Bug::LostWake), verdict_fails);
}

#[test]
fn nobody_is_given_all_parts_before_the_verdict_and_nobody_a_mix() {
    holds("verdict, right", || verdicts(false, Reads::Right));
    holds("verdict, wrong once", || verdicts(true, Reads::Right));
}

#[test]
fn planted_bugs_of_the_verdict_are_caught() {
    is_caught("verdict, the last part is not counted", None, || verdicts(false, Reads::WithoutCount));
    is_caught("verdict, read on after a mismatch", None, || verdicts(true, Reads::WithoutStamp));
    is_caught("verdict, old bytes in a new round", None, || verdicts(true, Reads::WithoutKnown));
    for bug in [Bug::LostWake, Bug::WakesOne, Bug::NoCompare, Bug::TornUpdate] {
        is_caught(&format!("verdict, {bug:?}"), Some(bug), || verdicts(true, Reads::Right));
    }
}
