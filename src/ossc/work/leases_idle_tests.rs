//! When memory is given back: random uses against `expireTimeSec`, on a virtual clock, with the lease thread's own looks.

use super::*;
use crate::work::still::{self, Random};
use ossc_store::plan::Class;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

const SCHEDULES: u64 = 200;
/// Latest release after it is due.
const LATE_MAX: Duration = Duration::from_secs(2);

/// One object under random uses; what is known of it beside the engine.
struct Scene {
    work: Arc<Work>,
    slot: u32,
    users: Arc<AtomicU32>,
    expire: Duration,
    last_use: Instant,
    looked: Instant,
    wait: Duration,
    counts: bool,
}

impl Scene {
    fn new(expire: Duration) -> Scene {
        let work = still::work(1 << 30);
        let (slot, users) = still::object(&work, "w", 1, 4);
        let now = still::now();
        Scene { work, slot, users, expire, last_use: now, looked: now, wait: TICK, counts: true }
    }

    fn object(&self) -> &Object {
        self.work.region().object(self.slot).unwrap()
    }

    fn is_here(&self) -> bool {
        self.object().ready_parts.load(Ordering::Acquire) > 0
    }

    /// Time passes; the lease thread looks when it wakes up. True at each look that gave the object back.
    fn until(&mut self, end: Instant, is_nearby: &dyn Fn() -> bool, mut at_release: impl FnMut(&Scene)) {
        while self.looked + self.wait <= end {
            still::pass((self.looked + self.wait).saturating_duration_since(still::now()));
            let was_here = self.is_here();
            self.wait = look(&self.work, Some(self.expire), is_nearby).map_or(TICK, |soonest| soonest.min(TICK));
            self.looked = still::now();
            if was_here && !self.is_here() {
                at_release(self);
            }
        }
        still::pass(end.saturating_duration_since(still::now()));
    }

    /// As a client does it: `client::tell`.
    fn open(&mut self) {
        self.users.fetch_add(1, Ordering::Relaxed);
        self.work.region().traces(self.object()).uses.fetch_add(u32::from(self.counts), Ordering::Relaxed);
        self.last_use = still::now();
    }

    fn close(&mut self) {
        self.users.fetch_sub(1, Ordering::Relaxed);
        self.last_use = still::now();
    }

    /// A read by a descriptor that no lease tells of.
    fn read(&mut self) {
        let clock = self.work.region().header().clock.load(Ordering::Relaxed);
        self.work.region().part(self.object(), 1).touch(clock);
        self.last_use = still::now();
    }
}

/// `expireTimeSec` counts from the last use, however short: never released before, and at most 2 s later.
/// `counts`: clients count their uses. Gives releases and pauses.
fn use_at_random(counts: bool) -> (u32, u32) {
    let (mut releases, mut uses) = (0, 0);
    for seed in 0..SCHEDULES {
        let mut random = Random(seed);
        let mut scene = Scene::new(Duration::from_millis(500 + random.below(15_000)));
        scene.open();
        scene.close();
        scene.counts = counts;
        let expire = scene.expire;
        let check = |scene: &Scene| {
            assert_eq!(scene.users.load(Ordering::Relaxed), 0, "seed {seed}: released in use");
            let idle = still::now() - scene.last_use;
            assert!(idle >= expire, "seed {seed}: released {idle:?} after its last use, expireTimeSec is {expire:?}");
            assert!(idle <= expire + LATE_MAX, "seed {seed}: released {idle:?} after its last use, {expire:?} are due");
        };
        for _ in 0..40 {
            let pause = Duration::from_millis(random.below(2 * expire.as_millis() as u64));
            scene.until(still::now() + pause, &|| false, |scene| {
                releases += 1;
                check(scene);
            });
            if scene.is_here() {
                let idle = still::now() - scene.last_use;
                assert!(idle <= expire + LATE_MAX, "seed {seed}: kept for {idle:?}, {expire:?} are due");
            }
            uses += 1;
            still::fill(&scene.work, scene.slot);
            match random.below(4) {
                0 => scene.read(),
                1 => {
                    scene.open();
                    let long = Duration::from_millis(random.below(3 * expire.as_millis() as u64));
                    scene.until(still::now() + long, &|| false, |_| panic!("seed {seed}: released in use"));
                    scene.close();
                }
                _ => {
                    scene.open();
                    scene.close();
                }
            }
        }
        assert_eq!(scene.work.gauges().budget_used, if scene.is_here() { 4 * 4096 } else { 0 });
    }
    (releases, uses)
}

#[test]
fn what_is_used_stays_for_expire_after_each_use() {
    let (releases, uses) = use_at_random(true);
    println!("{SCHEDULES} schedules of uses: {releases} releases in {uses} pauses");
    assert!(releases > uses / 10 && releases < uses, "{releases} releases in {uses} pauses");
}

/// The way before: a use between two looks was not seen.
#[test]
fn uses_that_nobody_counts_are_noticed() {
    let found = std::panic::catch_unwind(|| use_at_random(false)).expect_err("200 schedules do not show it");
    let text = found.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(text.contains("released") && text.contains("after its last use"), "{text}");
}

/// What was fetched ahead and not opened stays while a program lives, a nearby one counts, and goes when the last one
/// has been gone for `expireTimeSec`.
#[test]
fn what_was_fetched_ahead_stays_while_a_program_lives() {
    let mut releases = 0;
    for seed in 0..SCHEDULES {
        let mut random = Random(seed);
        let mut scene = Scene::new(Duration::from_millis(500 + random.below(15_000)));
        let expire = scene.expire;
        // The program that started the engine lives: nothing was told yet.
        scene.until(still::now() + 3 * expire, &|| false, |_| panic!("seed {seed}: released under its program"));
        for _ in 0..10 {
            let (clients, nearby) = (random.below(3) as usize / 2 * 2, random.below(3) == 0);
            scene.work.residency.programs.tell(clients, still::now());
            let alone_since = still::now();
            let long = Duration::from_millis(random.below(3 * expire.as_millis() as u64));
            scene.until(alone_since + long, &|| nearby, |_| {
                releases += 1;
                assert!(clients == 0 && !nearby, "seed {seed}: released under a program");
                let alone = still::now() - alone_since;
                assert!(alone >= expire, "seed {seed}: released {alone:?} after the last program, {expire:?} are due");
                assert!(
                    alone <= expire + LATE_MAX,
                    "seed {seed}: {alone:?} after the last program, {expire:?} are due"
                );
            });
            let is_due = clients == 0 && !nearby && long > expire + LATE_MAX;
            assert!(!is_due || !scene.is_here(), "seed {seed}: kept without a program");
            still::fill(&scene.work, scene.slot);
            scene.work.residency.programs.tell(1, still::now());
            // The time without a program begins anew.
            scene.until(still::now() + LATE_MAX, &|| false, |_| panic!("seed {seed}: released under a program"));
        }
    }
    assert!(releases > SCHEDULES as usize, "{releases} releases");
}

/// Without room somebody's unopened object goes all the same.
#[test]
fn what_was_fetched_ahead_goes_where_a_reader_needs_the_room() {
    let work = still::work(6 * 4096);
    let (first, _) = still::object(&work, "ahead", 1, 4);
    look(&work, Some(Duration::from_secs(100)), &|| false);
    assert!(
        work.residency.make_room(4 * 4096, (first, 0), Class::Prefetch).is_none(),
        "prefetch takes no room from anything"
    );
    assert!(work.residency.make_room(4 * 4096, (u32::MAX, 0), Class::Demand).is_some());
    assert_eq!(work.region().object(first).unwrap().ready_parts.load(Ordering::Acquire), 0);
}

/// Before the kernel takes the pages of programs, the engine gives back what none of them uses.
#[test]
fn under_pressure_what_no_program_uses_goes_at_once() {
    let mut scene = Scene::new(Duration::from_secs(100));
    scene.open();
    still::set_memory(1 << 30, true);
    look(&scene.work, Some(scene.expire), &|| false);
    assert!(scene.is_here(), "a program has it open");
    scene.close();
    still::set_memory(1 << 30, false);
    look(&scene.work, Some(scene.expire), &|| false);
    assert!(scene.is_here());
    still::set_memory(1 << 30, true);
    look(&scene.work, Some(scene.expire), &|| false);
    assert!(!scene.is_here());
}

/// What other programs take is not there any more, and comes back when they give it back.
#[test]
fn the_limit_follows_the_memory_of_the_machine() {
    let work = still::work(1 << 20);
    still::object(&work, "w", 1, 4);
    still::set_memory(48 << 10, false);
    look(&work, None, &|| false);
    // 16 KiB are ours, 48 are free, a quarter stays free: 48 in all.
    assert!(work.residency.reserve(40 << 10).is_none() && work.residency.reserve(30 << 10).is_some());
    still::set_memory(2 << 30, false);
    look(&work, None, &|| false);
    assert!(work.residency.reserve(1 << 20).is_none(), "not more than there may ever be");
    assert!(work.residency.reserve(500 << 10).is_some());
}
