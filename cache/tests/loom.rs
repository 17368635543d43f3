//! The places of the shared region where the order of memory accesses matters, under a checker that tries
//! all orders: the product's own files, compiled against `tests/loom/sync.rs`. Each has a twin without
//! fences, or without the second look, which the checker must find wrong.
//!
//! What it cannot say: anything of the kernel's own ordering (copying by `pread`, punching holes, the
//! comparison inside a futex wait), and of plain memory accesses, for which relaxed atomics stand in.

#[allow(dead_code)]
#[path = "../demand.rs"]
mod demand;
#[allow(dead_code)]
#[path = "../doorbell.rs"]
mod doorbell;
#[allow(dead_code)]
#[path = "../futex_word.rs"]
mod futex_word;
#[allow(dead_code)]
#[path = "../life.rs"]
mod life;
#[allow(dead_code)]
#[path = "model/memory_cache.rs"]
mod memory_cache;
#[allow(dead_code)]
#[path = "../part.rs"]
mod part;
#[path = "loom/sync.rs"]
mod sync;
#[allow(dead_code)]
#[path = "../verdict.rs"]
mod verdict;

use demand::Demand;
use doorbell::Doorbell;
use life::Life;
use loom::thread;
use memory_cache::CachedMemory;
use part::{OwnPart, Part};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Plain};
use sync::{AtomicU32, AtomicU64, Ordering, fence};

/// What a part's memory holds when it is right; 0 is a hole, 9 half-written.
const RIGHT: u32 = 7;

fn executions(model: impl Fn() + Send + Sync + 'static) -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        counted.fetch_add(1, Plain::SeqCst);
        sync::reset();
        model();
    });
    count.load(Plain::SeqCst)
}

fn holds(name: &str, model: impl Fn() + Send + Sync + 'static) {
    let count = executions(model);
    assert!(count >= 2, "{name} has one execution only");
    println!("loom {name}: {count} executions (all up to 3 preemptions), no violation");
}

fn is_caught(name: &str, fences: bool, model: impl Fn() + Send + Sync + 'static) {
    sync::plant_fences(fences);
    let found = catch_unwind(AssertUnwindSafe(|| executions(model)));
    sync::plant_fences(true);
    match found {
        Ok(count) => panic!("control {name}: not found in {count} executions"),
        Err(_) => println!("control {name}: found"),
    }
}

struct Filled {
    own: OwnPart,
    memory: AtomicU32,
}

impl Filled {
    fn part(&self) -> Part<'_> {
        self.own.part()
    }
}

fn filled() -> Arc<Filled> {
    let filled = Filled { own: OwnPart::default(), memory: AtomicU32::new(RIGHT) };
    assert!(filled.part().claim());
    filled.part().publish(0);
    Arc::new(filled)
}

/// As `src/ossc/work/shared/fill.rs` does it.
fn release(filled: &Filled) {
    if !filled.part().take_back() {
        return;
    }
    fence(Ordering::SeqCst);
    if filled.part().is_pinned() {
        return filled.part().publish(0);
    }
    filled.memory.store(0, Ordering::Relaxed);
    filled.part().give_up();
}

fn pin_or_punch() {
    let filled = filled();
    let engine = {
        let filled = filled.clone();
        thread::spawn(move || release(&filled))
    };
    filled.part().pin();
    if filled.part().is_ready() {
        assert_eq!(filled.memory.load(Ordering::Relaxed), RIGHT, "a pinned part was punched");
    }
    engine.join().unwrap();
    if filled.part().is_ready() {
        assert_eq!(filled.memory.load(Ordering::Relaxed), RIGHT, "a part that stayed was punched");
    }
}

#[test]
fn a_pinned_part_is_never_punched() {
    holds("pin or punch", pin_or_punch);
    is_caught("pin or punch, no fences", false, pin_or_punch);
}

/// As `src/preload/copy.rs` does it.
fn copy_or_refill(looks_again: bool) {
    let filled = filled();
    let engine = {
        let filled = filled.clone();
        thread::spawn(move || {
            release(&filled);
            if filled.part().claim() {
                filled.memory.store(9, Ordering::Relaxed);
                filled.memory.store(RIGHT, Ordering::Relaxed);
                filled.part().publish(0);
            }
        })
    };
    fence(Ordering::SeqCst);
    let before = filled.part().fill();
    let copied = filled.memory.load(Ordering::Relaxed);
    fence(Ordering::SeqCst);
    let after = if looks_again { filled.part().fill() } else { before };
    if before.is_some() && before == after {
        assert_eq!(copied, RIGHT, "a reader accepted wrong bytes");
    }
    engine.join().unwrap();
}

#[test]
fn a_copy_is_accepted_only_if_the_fill_stayed() {
    holds("copy or refill", || copy_or_refill(true));
    is_caught("copy or refill, no second look", true, || copy_or_refill(false));
    is_caught("copy or refill, no fences", false, || copy_or_refill(true));
}

/// The check of the whole object has failed: its parts are fetched again over what is there.
fn copy_or_refetch() {
    let filled = filled();
    let engine = {
        let filled = filled.clone();
        thread::spawn(move || {
            assert!(filled.part().retract() && filled.part().claim());
            filled.memory.store(9, Ordering::Relaxed);
            filled.part().publish(0);
        })
    };
    let fills = || {
        fence(Ordering::SeqCst);
        filled.part().fill()
    };
    let before = fills();
    // Two bytes of one copy: of one fill, or copied again.
    let copied = [0, 1].map(|_| filled.memory.load(Ordering::Relaxed));
    if before.is_some() && before == fills() {
        assert_eq!(copied[0], copied[1], "a reader accepted a mix of two fills");
    }
    engine.join().unwrap();
}

#[test]
fn a_copy_is_not_a_mix_of_two_fills() {
    holds("copy or refetch", copy_or_refetch);
    is_caught("copy or refetch, no fences", false, copy_or_refetch);
}

fn bell([rings, sleeps]: &[AtomicU32; 2]) -> Doorbell<'_> {
    Doorbell { rings, sleeps }
}

/// One reader asks, one engine takes: it gets the bit now, or does not sleep, or is woken.
fn doorbell() {
    let words = [AtomicU32::new(0), AtomicU32::new(0)];
    let shared = Arc::new((words, [AtomicU64::default()], [AtomicU64::default()]));
    let engine = {
        let shared = shared.clone();
        thread::spawn(move || {
            let mut got = false;
            let heard = bell(&shared.0).heard();
            Demand { bits: &shared.1, summary: &shared.2 }.drain(|_| got = true);
            if !got {
                bell(&shared.0).sleep(heard, 1);
            }
            got
        })
    };
    Demand { bits: &shared.1, summary: &shared.2 }.set(5);
    bell(&shared.0).ring();
    // An engine that slept on a demand that it has not seen would be a deadlock.
    let got = engine.join().unwrap();
    let mut left = got;
    Demand { bits: &shared.1, summary: &shared.2 }.drain(|part| left = part == 5);
    assert!(left, "a demand was lost");
}

#[test]
fn a_ring_is_heard_or_wakes() {
    holds("doorbell", doorbell);
    is_caught("doorbell, no fences", false, doorbell);
}

fn cached_map() {
    let cached = Arc::new(CachedMemory::new(memory_cache::Wrong::Nothing));
    cached.one_more();
    cached.begin_copy();
    cached.copy_by_map();
    cached.end_copy();
    let closer = {
        let cached = cached.clone();
        thread::spawn(move || cached.one_less())
    };
    cached.begin_copy();
    cached.copy_by_map();
    cached.end_copy();
    closer.join().unwrap();
}

#[test]
fn a_cached_map_goes_only_when_nobody_copies() {
    holds("cached map", cached_map);
    is_caught("cached map, no fences", false, cached_map);
}

/// A record with two fields, which are equal in each of its uses.
struct Record {
    life: Life,
    fields: [AtomicU32; 2],
}

const LOADING: u32 = 3;

/// The record of a version that ends is used again while a reader looks: it reads one of the two, or nothing.
/// `marks`: the engine ends the use before it writes; `looks_again`: the reader does.
fn use_again(marks: bool, looks_again: bool) {
    let record = Record { life: Life::new(LOADING), fields: [1, 1].map(AtomicU32::new) };
    let record = Arc::new(record);
    let engine = {
        let record = record.clone();
        thread::spawn(move || {
            if marks {
                record.life.end();
            }
            record.life.rewrite();
            record.fields.iter().for_each(|field| field.store(2, Ordering::Relaxed));
            record.life.begin(LOADING);
        })
    };
    if let Some(number) = record.life.seen() {
        let fields = [0, 1].map(|at: usize| record.fields[at].load(Ordering::Relaxed));
        if !looks_again || record.life.lasts(number) {
            assert_eq!(fields[0], fields[1], "a reader was given two versions");
            assert_eq!(fields[0], number + 1, "a reader was given another version than it saw");
        }
    }
    engine.join().unwrap();
}

#[test]
fn a_record_is_of_one_version_or_nothing() {
    holds("use again", || use_again(true, true));
    is_caught("use again, no second look", true, || use_again(true, false));
    is_caught("use again, written while it lives", true, || use_again(false, true));
    is_caught("use again, no fences", false, || use_again(true, true));
}

/// The parts of a dropped version become another object's while a reader of the dropped one copies: it must not take
/// the other's fill for the one that its own memory holds.
fn parts_of_another(asks_for_the_record: bool) {
    struct Both {
        life: Life,
        filled: Filled,
    }
    let filled = Filled { own: OwnPart::default(), memory: AtomicU32::new(RIGHT) };
    assert!(filled.part().claim());
    filled.part().publish(0);
    let both = Arc::new(Both { life: Life::new(LOADING), filled });
    let engine = {
        let both = both.clone();
        thread::spawn(move || {
            both.life.end();
            release(&both.filled);
            // Another object's record has the part now, and its bytes are in another memory file.
            both.filled.part().renew();
            if both.filled.part().claim() {
                both.filled.part().publish(1);
            }
        })
    };
    let number = both.life.seen();
    fence(Ordering::SeqCst);
    let before = both.filled.part().fill();
    let copied = both.filled.memory.load(Ordering::Relaxed);
    fence(Ordering::SeqCst);
    let is_there = before.is_some() && before == both.filled.part().fill();
    if let Some(number) = number
        && is_there
        && (!asks_for_the_record || both.life.lasts(number))
    {
        assert_eq!(copied, RIGHT, "a reader accepted what its object's memory holds no more");
    }
    engine.join().unwrap();
}

#[test]
fn a_part_of_another_object_is_not_taken_for_ones_own() {
    holds("parts of another", || parts_of_another(true));
    is_caught("parts of another, no look at the record", true, || parts_of_another(false));
}

/// Two readers, each with another part of two: one of them has to wait for the verdict.
fn hand_out(counts: bool) {
    let shared = Arc::new((verdict::Handed::default(), [OwnPart::default(), OwnPart::default()]));
    shared.0.begin(1);
    shared.1.iter().for_each(|own| own.part().learn(5, 1));
    let takes = move |shared: &(verdict::Handed, [OwnPart; 2]), index: usize| match counts {
        true => shared.0.hand_out(shared.1[index].part(), 2, 1),
        // A look at the count, and the count afterwards.
        false => shared.0.count(1) == 0 && (shared.0.hand_out(shared.1[index].part(), 3, 1)),
    };
    let other = {
        let shared = shared.clone();
        thread::spawn(move || takes(&shared, 1))
    };
    let both = [takes(&shared, 0), other.join().unwrap()];
    assert_ne!(both, [true, true], "all parts were given before the verdict");
}

#[test]
fn the_last_part_is_given_to_nobody() {
    holds("hand-out", || hand_out(true));
    is_caught("hand-out, looked at and then counted", true, || hand_out(false));
}
