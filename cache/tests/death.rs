//! A process dies at every step of its work on the shared region, and the others go on.
//!
//! The product's own files are compiled against `tests/death/sync.rs`, where each atomic operation and futex
//! call is a step. For each step k of each sequence (engine and client side), a forked child runs the
//! sequence on a fresh region and ends at k, while two readers of this process wait for bytes. Then this
//! process does what a new engine does (`src/ossc/mirror/takeover.rs`, `adopt`), and all must be well: the readers get
//! the right bytes, each record can be found or appended again, no event is torn or given twice, and the
//! demand of the living is served.

#[allow(dead_code)]
#[path = "../block.rs"]
mod block;
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
#[allow(dead_code)]
#[path = "../index.rs"]
mod index;
#[allow(dead_code)]
#[path = "../life.rs"]
mod life;
#[allow(dead_code)]
#[path = "../part.rs"]
mod part;
#[allow(dead_code)]
#[path = "../region.rs"]
mod region;
#[path = "death/sync.rs"]
mod sync;
#[allow(dead_code)]
#[path = "../verdict.rs"]
mod verdict;
#[allow(dead_code)]
#[path = "../wait.rs"]
mod wait;
#[allow(dead_code)]
#[path = "../waits.rs"]
mod waits;

use core::sync::atomic::{AtomicU64 as Plain, Ordering::SeqCst};
use region::{Identity, NewObject, Object, REGION_BYTES, RecordKind, RecordSpace, Region, Seen, state};
use std::time::{Duration, Instant};

mod sys {
    #[allow(unused_imports)]
    pub use ossc_cache::sys::*;
}
use sys::Errno;

const PARTS: u32 = 4;
const PART: u64 = 4096;
const MEMORY_DEV: u64 = 77;
/// What each part's memory holds when it is right, plus its index.
const RIGHT: u64 = 1000;
const HALF: u64 = 5;
/// A reader that waits longer has been forgotten.
const PATIENCE: Duration = Duration::from_secs(10);

/// What both sides of a model run share: the region, and one word per part for its memory.
struct Node {
    region: Region,
    memory: *const Plain,
}

// SAFETY: the memory is a shared mapping of atomics.
unsafe impl Sync for Node {}

impl Node {
    fn new() -> Node {
        let files = sys::memfds(c"death").unwrap();
        let region = Region::create(files, "/m", "/l").unwrap();
        files.into_iter().for_each(|fd| sys::close(fd).unwrap());
        // SAFETY: a new mapping.
        let memory = unsafe {
            sys::mmap(0, 4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)
        };
        let node = Node { region, memory: memory.unwrap() as *const Plain };
        node.region.header().memory_dev.store(MEMORY_DEV, SeqCst);
        node.region.append(&large("a", 1)).unwrap();
        node.region.set_memory(0, 501);
        node
    }

    fn memory(&self, index: u32) -> &Plain {
        // SAFETY: within the page.
        unsafe { &*self.memory.add(index as usize) }
    }

    fn object(&self) -> &Object {
        self.region.object(0).unwrap()
    }

    /// The engine's fill of one part, with a step between its two halves.
    fn fill(&self, index: u32) -> bool {
        let part = self.region.part(self.object(), index);
        if !part.claim() {
            return false;
        }
        self.memory(index).store(HALF, SeqCst);
        sync::step();
        self.memory(index).store(RIGHT + u64::from(index), SeqCst);
        part.publish(u64::from(index));
        self.object().ready_parts.fetch_add(1, SeqCst);
        true
    }

    fn assert_right(&self, index: u32, k: i64) {
        assert_eq!(self.memory(index).load(SeqCst), RIGHT + u64::from(index), "wrong bytes in part {index}, step {k}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // SAFETY: both mappings are this model's own, and its threads and child are gone.
        unsafe {
            sys::munmap(self.region.base() as usize, REGION_BYTES).unwrap();
            sys::munmap(self.memory as usize, 4096).unwrap();
        }
    }
}

fn large(name: &str, ino: u64) -> NewObject<'_> {
    let size = PART * u64::from(PARTS);
    NewObject {
        kind: RecordKind::Large,
        state: state::LOADING,
        name,
        etag: "\"E\"",
        size,
        part_bytes: PART as u32,
        mtime_secs: 1,
        dev: 9,
        ino,
        folder: 0,
    }
}

// The sequences that die. They allocate nothing: they run in a fork of a process with threads.

fn engine_fills(node: &Node) {
    node.region.take_demand(|part, _| {
        node.fill(part);
    });
    node.region.take_events(0, |_| ());
    (0..PARTS).for_each(|index| {
        node.fill(index);
    });
    node.object().set_state(state::VERIFIED);
}

fn engine_gives_up(node: &Node) {
    node.fill(0);
    node.fill(1);
    for (index, punches) in [(0, true), (1, false)] {
        let part = node.region.part(node.object(), index);
        if part.take_back() {
            sync::fence(SeqCst);
            if part.is_pinned() || !punches {
                part.publish(part.crc64());
            } else {
                node.memory(index).store(0, SeqCst);
                sync::step();
                part.give_up();
            }
        }
    }
    node.region.part(node.object(), 1).retract();
    let part = node.region.part(node.object(), 2);
    if part.claim() {
        node.memory(2).store(HALF, SeqCst);
        part.give_up();
    }
}

fn engine_lists(node: &Node) {
    if let Ok(slot) = node.region.append(&large("dir/b", 2)) {
        node.region.set_memory(slot, 502);
    }
    node.region.header().listings.fetch_add(1, SeqCst);
    node.region.doorbell().sleep(node.region.doorbell().heard(), 1);
}

/// As `src/ossc/work/leases.rs` and `cache/store/catalog.rs` do it: a version that nobody uses ends, and its record and parts are
/// used again by the next one.
fn engine_replaces(node: &Node) {
    let region = &node.region;
    let old = OLD.load(SeqCst) as u32;
    let Some(object) = region.object(old) else { return };
    region.void(old);
    for index in 0..PARTS {
        let part = region.part(object, index);
        if part.take_back() {
            part.give_up();
        }
    }
    let room = RecordSpace { slot: old, first_part: object.first_part(), parts: PARTS, name_at: object.name_place().0 };
    region.write(&room, &NewObject { etag: "\"E2\"", ..large("old", 4) }, 504);
}

/// The record that `engine_replaces` uses again; the child gets it by the fork.
static OLD: Plain = Plain::new(0);

/// A version that is dropped: one of its parts is ready.
fn with_old_version(node: &Node) {
    let region = &node.region;
    let old = region.append(&large("old", 3)).unwrap();
    region.set_memory(old, 503);
    let part = region.part(region.object(old).unwrap(), 1);
    assert!(part.claim());
    part.publish(0);
    OLD.store(u64::from(old), SeqCst);
}

/// After the death the record is the old version's, the new one's, or nobody's, and never half of each; who began to
/// read the old one knows when it is no more; and the record can be used again.
fn assert_one_version(node: &Node, before: u32, k: i64) {
    let region = &node.region;
    let old = OLD.load(SeqCst) as u32;
    let object = region.object(old).unwrap();
    let (a, b) = (region.find(9, 3), region.find(9, 4));
    assert!(a.is_none() || b.is_none(), "both versions are found, step {k}");
    let etag = if b.is_some() { "\"E2\"" } else { "\"E\"" };
    if a.is_some() || b.is_some() {
        assert!(object.etag() == etag && object.parts() == PARTS && region.name(object) == "old", "a mix, step {k}");
        assert_eq!(object.lasts(before), a.is_some(), "step {k}");
    } else {
        assert!(object.seen().is_none() && !object.lasts(before), "a record that nobody finds lives, step {k}");
    }
    assert_eq!(region.find(MEMORY_DEV, 503).is_some(), a.is_some(), "step {k}");
    if b.is_some() {
        assert!((0..PARTS).all(|index| !region.part(object, index).is_ready()), "parts of two versions, step {k}");
        return;
    }
    if a.is_none() {
        region.sweep_index();
    }
    engine_replaces(node);
    assert_eq!(region.find(9, 4), Some((old, Identity::Placeholder)), "step {k}");
    assert_eq!(region.find(MEMORY_DEV, 504), Some((old, Identity::Memory)), "step {k}");
    assert_eq!((region.find(9, 3), region.find(MEMORY_DEV, 503)), (None, None), "step {k}");
    assert!((0..PARTS).all(|index| !region.part(object, index).is_ready()), "parts of two versions, step {k}");
}

fn engine_fails_the_object(node: &Node) {
    node.object().fail(libc::EIO);
    node.object().set_state(state::LOADING);
}

fn client_reads(node: &Node) {
    let object = node.object();
    for act in 1..=3 {
        node.region.tell(Seen { pid: 4242, slot: 0, act });
    }
    (0..PARTS).for_each(|index| node.region.part(object, index).pin());
    let stop = || Err(Errno(libc::EINTR));
    let _ = wait::range(&node.region, object, 0, object.size(), &stop);
    let _ = object.fills(&node.region, 0, object.size());
    object.sleep(state::LOADING, 1);
    node.region.part(object, 3).sleep(1);
    node.region.part(object, 0).touch(1);
    let _ = node.region.find(9, 1);
}

/// What a new engine does with what it finds. With `disowns` false it forgets what was half-way.
fn succeed(node: &Node, disowns: bool, k: i64) {
    let region = &node.region;
    let object = node.object();
    if disowns {
        (0..PARTS).for_each(|index| {
            region.part(object, index).disown();
        });
    }
    if object.state() == state::FAILED {
        object.set_state(state::LOADING);
    }
    let ready = (0..PARTS).filter(|index| region.part(object, *index).is_ready()).count();
    object.ready_parts.store(ready as u32, SeqCst);
    let mut acts = Vec::new();
    let next = region.take_events(0, |seen| {
        assert!(seen.slot == 0 && [4242, 1].contains(&seen.pid), "a torn event {seen:?}, step {k}");
        acts.push((seen.pid, seen.act));
    });
    region.tell(Seen { pid: 1, slot: 0, act: 1 });
    let mut later = Vec::new();
    region.take_events(next, |seen| later.push(seen.pid));
    assert_eq!(later, [1], "an event after the death is not delayed, step {k}");
    let told = acts.len();
    acts.dedup();
    assert_eq!(acts.len(), told, "an event given twice, step {k}");
    // All parts are wanted, by the two readers and by whoever died.
    region.demand(object, 0, PARTS);
    let mut wanted = 0;
    region.take_demand(|part, _| {
        wanted += 1;
        node.fill(part);
    });
    let missing = (0..PARTS).filter(|index| !region.part(object, *index).is_ready()).count();
    assert!(!disowns || missing == 0, "{missing} parts cannot be filled after step {k}, {wanted} were demanded");
    if missing == 0 {
        object.set_state(state::VERIFIED);
    }
}

fn assert_listed_again(region: &Region, k: i64) {
    let slot = match region.find(9, 2) {
        Some((slot, _)) => slot,
        None => {
            let names = (0..region.objects_len()).filter_map(|slot| region.object(slot)).map(|o| region.name(o));
            assert!(!names.into_iter().any(|name| name == "dir/b"), "a record that cannot be found, step {k}");
            region.append(&large("dir/b", 2)).unwrap()
        }
    };
    let object = region.object(slot).unwrap();
    assert!(region.name(object) == "dir/b" && object.etag() == "\"E\"" && object.ino() == 2, "step {k}");
    assert_eq!((0..PARTS).map(|index| region.part(object, index).state()).max(), Some(part::EMPTY));
    if object.memory_ino.load(SeqCst) != 502 {
        region.set_memory(slot, 502);
    }
    assert_eq!(region.find(MEMORY_DEV, 502), Some((slot, Identity::Memory)), "step {k}");
    assert_eq!(region.find(MEMORY_DEV, 501), Some((0, Identity::Memory)), "step {k}");
}

/// Runs the sequence in a child that ends at step `k`; the steps it took if it came to its end.
fn run_child(node: &Node, sequence: fn(&Node), k: i64, by_exit: bool) -> Option<i64> {
    // SAFETY: the child allocates nothing and takes no lock; it ends by `_exit` or a signal.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    if child == 0 {
        sync::die_at(k, by_exit);
        sequence(node);
        node.memory(PARTS).store(sync::survive() as u64, SeqCst);
        // SAFETY: as above.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: waits for the child above.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 {
        return Some(node.memory(PARTS).load(SeqCst) as i64);
    }
    let as_asked = match by_exit {
        true => libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == sync::DIED,
        false => libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL,
    };
    assert!(as_asked, "the child ended by itself at step {k}: status {status:#x}");
    None
}

/// One death. True if the sequence ended before it; `Err` if a reader was forgotten.
fn die_once(
    sequence: fn(&Node),
    k: i64,
    by_exit: bool,
    disowns: bool,
    patience: Duration,
) -> Result<Option<i64>, String> {
    let node = Node::new();
    let until = Instant::now() + patience;
    let check = move || if Instant::now() < until { Ok(()) } else { Err(Errno(libc::ETIMEDOUT)) };
    std::thread::scope(|scope| {
        let node = &node;
        let part_reader = scope.spawn(move || {
            wait::range(&node.region, node.object(), PART, 2 * PART, &check).map(|()| node.assert_right(1, k))
        });
        let whole_reader = scope.spawn(move || {
            // As a program that maps: what it waits for stays.
            (0..PARTS).for_each(|index| node.region.part(node.object(), index).pin());
            // The sequence with an object that fails gives an errno to whoever looks at that moment.
            loop {
                match wait::whole(&node.region, node.object(), &check) {
                    Err(Errno(libc::EIO)) => std::thread::sleep(Duration::from_millis(1)),
                    other => return other.map(|()| (0..PARTS).for_each(|index| node.assert_right(index, k))),
                }
            }
        });
        let ended = run_child(node, sequence, k, by_exit);
        succeed(node, disowns, k);
        assert_listed_again(&node.region, k);
        let mut results = [part_reader.join().unwrap(), whole_reader.join().unwrap()];
        if results[0] == Err(Errno(libc::EIO)) {
            results[0] = wait::range(&node.region, node.object(), PART, 2 * PART, &check);
        }
        match results {
            [Ok(()), Ok(())] => Ok(ended),
            failed => Err(format!("step {k}: readers got {failed:?}")),
        }
    })
}

/// Every step of a sequence; how many there are.
fn die_at_every_step(name: &str, sequence: fn(&Node)) {
    let begin = Instant::now();
    let mut deaths = 0;
    for k in 0.. {
        // How a sequence goes on depends on the readers, so the two may differ in length.
        let ended = [false, true].map(|by_exit| die_once(sequence, k, by_exit, true, PATIENCE).unwrap());
        deaths += ended.iter().filter(|ended| ended.is_none()).count();
        if let [Some(steps), Some(_)] = ended {
            assert!(steps > 10, "{name} took {steps} steps only");
            println!(
                "death {name}: {k} steps, {deaths} deaths, {} ms, all others went on",
                begin.elapsed().as_millis()
            );
            return;
        }
    }
}

#[test]
fn an_engine_that_fills_dies() {
    die_at_every_step("engine fills", engine_fills);
}

#[test]
fn an_engine_that_gives_parts_up_dies() {
    die_at_every_step("engine gives up", engine_gives_up);
}

#[test]
fn an_engine_that_lists_dies() {
    die_at_every_step("engine lists", engine_lists);
}

#[test]
fn an_engine_that_uses_a_record_again_dies() {
    let (mut deaths, mut steps) = (0, None);
    for k in 0.. {
        let ended = [false, true].map(|by_exit| {
            let node = Node::new();
            with_old_version(&node);
            let before = node.region.object(OLD.load(SeqCst) as u32).and_then(Object::seen).unwrap();
            let ended = run_child(&node, engine_replaces, k, by_exit);
            assert_one_version(&node, before, k);
            ended
        });
        deaths += ended.iter().filter(|ended| ended.is_none()).count();
        steps = ended[0];
        if ended.iter().all(Option::is_some) {
            break;
        }
    }
    assert!(deaths > 100, "{deaths} deaths only");
    println!("death engine uses a record again: {steps:?} steps, {deaths} deaths, never a mix");
}

#[test]
fn an_engine_that_fails_an_object_dies() {
    let died = |k: &i64| {
        let ended =
            [false, true].map(|by_exit| die_once(engine_fails_the_object, *k, by_exit, true, PATIENCE).unwrap());
        ended.iter().any(Option::is_none)
    };
    let steps = (0..20).filter(died).count();
    assert!((3..20).contains(&steps), "{steps} steps");
    println!("death engine fails an object: {steps} steps, {} deaths, all others went on", 2 * steps);
}

#[test]
fn a_client_that_reads_dies() {
    die_at_every_step("client reads", client_reads);
}

/// A successor that leaves what was half-way: some death must leave a reader without its bytes.
#[test]
fn a_successor_that_does_not_disown_is_caught() {
    let forgotten = (0..200).find_map(|k| die_once(engine_fills, k, false, false, Duration::from_millis(300)).err());
    println!("control death, no disowning: found ({})", forgotten.expect("every reader got its bytes"));
}
