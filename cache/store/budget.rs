//! How much memory the cache may use: what the machine and its memory cgroups have free, less a reserve. The machine is
//! looked at again while memory is taken, since other programs, engines among them, take of the same.
//!
//! Called by the engine at its start and before it puts memory aside for an object. Pure but for the start: what a look
//! at the machine has found is an argument.

use crate::machine::{self, Now};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Left to the programs: a twentieth of what is available, at least this many bytes, but at most a quarter:
/// a small container would have nothing left for the cache.
const RESERVE_BYTES_MIN: u64 = 256 << 20;
/// What the engine itself takes of a limit: the shared region, stacks, buffers, page tables and the kernel's
/// share of its connections (measured with 256 connections: 30 MiB), at most a quarter.
const OWN_BYTES_MAX: u64 = 64 << 20;

/// The machine is looked at again when this part of what is free was taken.
const LOOK_SHARE: u64 = 16;
/// What was put aside and holds no bytes yet is at most this part of what is free: a look does not see what other
/// engines have put aside.
const UNFILLED_SHARE: u64 = 4;

/// Memory that may be put aside, in bytes.
#[derive(Debug)]
pub struct Budget {
    /// What the limit never exceeds: a limit of the user's, or what the machine could ever have.
    most: u64,
    limit: AtomicU64,
    used: AtomicU64,
    peak: AtomicU64,
    /// Free at the last look, and filled by then; nothing before the first.
    free: AtomicU64,
    filled: AtomicU64,
    /// As much is swapped out without us.
    swapped: AtomicU64,
    pressed: AtomicBool,
}

impl Budget {
    /// A budget of `limit` bytes, which is not looked at again by itself.
    pub fn new(limit: u64) -> Budget {
        Budget {
            most: limit,
            limit: AtomicU64::new(limit),
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            free: AtomicU64::new(u64::MAX),
            filled: AtomicU64::new(0),
            swapped: AtomicU64::new(u64::MAX),
            pressed: AtomicBool::new(false),
        }
    }

    /// What this process may use now: see the module.
    pub fn of_this_process() -> Budget {
        let now = machine::now();
        let limit = less_reserve(now.map_or(0, |now| now.free));
        let most = machine::most().map_or(limit, less_reserve).max(limit);
        let budget = Budget { most, ..Budget::new(limit) };
        now.into_iter().for_each(|now| budget.look(now, 0));
        budget
    }

    /// A limit of the user's for the whole engine, in bytes. More than the machine has or a cgroup allows would end in a
    /// kill: then that counts, and the second value is the warning.
    pub fn of_limit(limit: u64) -> (Budget, Option<String>) {
        let (budget, warning) = within(limit, machine::most());
        // It is the user's until memory is taken.
        if let Some(now) = machine::now() {
            budget.note(now, 0);
        }
        (budget, warning)
    }

    /// A look at the machine while `filled` bytes of memory are ours: from now on the limit is what is ours and what is
    /// free, less the reserve.
    pub fn look(&self, now: Now, filled: u64) {
        let free = self.note(now, filled);
        self.limit.store(less_reserve(free.saturating_add(filled)).min(self.most), Ordering::Release);
    }

    /// Keeps what a look has found. Bytes that are free.
    fn note(&self, now: Now, filled: u64) -> u64 {
        let before = self.swapped.fetch_min(now.swapped, Ordering::AcqRel).min(now.swapped);
        // What has been swapped out since the first look may be ours: it comes back when it is read.
        let free = now.free.saturating_sub((now.swapped - before).min(filled));
        self.free.store(free, Ordering::Release);
        self.filled.store(filled, Ordering::Release);
        self.pressed.store(now.pressed, Ordering::Release);
        free
    }

    /// Whether so much was taken since the last look that the machine is to be looked at again; `filled` as there.
    pub fn is_look_due(&self, filled: u64) -> bool {
        let taken = filled.abs_diff(self.filled.load(Ordering::Acquire));
        taken > self.free.load(Ordering::Acquire) / LOOK_SHARE
    }

    /// Programs of this machine wait for memory.
    pub fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Acquire)
    }

    /// Whether memory for `bytes` that are fetched before a reader asks for them may be put aside: nothing is, under
    /// pressure. `filled` as in [`Budget::look`].
    pub fn may_go_ahead(&self, bytes: u64, filled: u64) -> bool {
        let unfilled = self.used().saturating_sub(filled).saturating_add(bytes);
        !self.is_pressed() && unfilled <= (self.free.load(Ordering::Acquire) / UNFILLED_SHARE).max(bytes)
    }

    /// The budget of an engine that has taken over memory files on a file system of `total` bytes, of which `used`
    /// hold data. `by_system`: the limit is what was free; what was taken over is not, and is ours all the same.
    #[must_use]
    pub fn with_taken_over(self, (total, used): (u64, u64), by_system: bool) -> Budget {
        let own = if by_system { used } else { 0 };
        let limit = self.limit().saturating_add(own).min(total);
        Budget { most: self.most.max(limit).min(total), limit: AtomicU64::new(limit), ..self }
    }

    /// What the largest part of an object may take, if that is more than the limit: no part of such a size could ever
    /// be read. `part_bytes` is the longest part.
    pub fn lacks(&self, part_bytes: u64) -> Option<u64> {
        Some(part_room(part_bytes)).filter(|room| *room > self.limit())
    }

    /// The limit in bytes, as of the last look.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Acquire)
    }

    /// The largest that the limit may ever become, in bytes.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// Bytes put aside.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Puts `bytes` aside; false if that would go over the limit.
    pub fn reserve(&self, bytes: u64) -> bool {
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= self.limit())
        });
        self.peak.fetch_max(self.used(), Ordering::Relaxed);
        taken.is_ok()
    }

    /// Most bytes that were put aside at a time.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Counts memory that is in use already, also where that is over the limit.
    pub fn reserve_anyway(&self, bytes: u64) {
        let before = self.used.fetch_add(bytes, Ordering::AcqRel);
        self.peak.fetch_max(before.saturating_add(bytes), Ordering::Relaxed);
    }

    /// Gives `bytes` back.
    pub fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// The last part of an object takes whole huge pages.
fn part_room(part_bytes: u64) -> u64 {
    let page = crate::pages::HUGE_BYTES as u64;
    // Parts that do not begin with a page end one page later at most.
    if part_bytes.is_multiple_of(page) { part_bytes } else { part_bytes + page }
}

/// The smallest limit of a user's (`Budget::of_limit`) that has room for the largest part.
pub fn limit_min(part_bytes: u64) -> u64 {
    let room = part_room(part_bytes);
    // The engine's own share is at most a quarter, and at most `OWN_BYTES_MAX`.
    (room + OWN_BYTES_MAX).min((room - 1) * 4 / 3 + 1)
}

fn less_reserve(bytes: u64) -> u64 {
    bytes - (bytes / 20).max(RESERVE_BYTES_MIN.min(bytes / 4))
}

fn within(limit: u64, tightest: Option<u64>) -> (Budget, Option<String>) {
    let own = |bytes: u64| bytes - OWN_BYTES_MAX.min(bytes / 4);
    match tightest.filter(|tightest| less_reserve(*tightest) < own(limit)) {
        None => (Budget::new(own(limit)), None),
        Some(tightest) => {
            let less = less_reserve(tightest);
            let text = format!(
                "memoryLimit {limit} is more than this machine or its memory cgroup, of {tightest} bytes, can hold: {less} bytes are used"
            );
            (Budget::new(less), Some(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_over() {
        let budget = Budget::new(100);
        assert!(budget.reserve(60) && !budget.reserve(41) && budget.reserve(40));
        budget.give(60);
        assert_eq!((budget.used(), budget.limit()), (40, 100));
        assert!(!budget.reserve(u64::MAX));
    }

    #[test]
    fn what_was_taken_over_counts_also_beyond_the_limit() {
        let budget = Budget::new(100);
        budget.reserve_anyway(150);
        assert!(!budget.reserve(1));
        budget.give(60);
        assert!(budget.reserve(10) && !budget.reserve(1));
    }

    #[test]
    fn what_was_taken_over_is_not_counted_twice() {
        // 100 were free; the engine before has put 60 of them into its files, so that 40 are left.
        let budget = Budget::new(40).with_taken_over((100, 60), true);
        budget.reserve_anyway(60);
        assert!(budget.reserve(40) && !budget.reserve(1));
        // A limit of the user's stands; and no more fits than the file system holds.
        assert_eq!(Budget::new(80).with_taken_over((100, 60), false).limit(), 80);
        assert_eq!(Budget::new(90).with_taken_over((100, 60), true).limit(), 100);
        assert_eq!(Budget::new(120).with_taken_over((100, 60), false).limit(), 100);
    }

    fn now(free: u64) -> Now {
        Now { free, swapped: 0, pressed: false }
    }

    #[test]
    fn two_engines_that_look_again_share_one_memory() {
        const MIB: u64 = 1 << 20;
        let (all, part) = (400 * MIB, 8 * MIB);
        let engines = [Budget::new(less_reserve(all)), Budget::new(less_reserve(all))];
        engines.iter().for_each(|engine| engine.look(now(all), 0));
        let mut filled = [0, 0];
        for turn in 0..200 {
            let which = turn % 2;
            let free = all - filled[0] - filled[1];
            if engines[which].is_look_due(filled[which]) {
                engines[which].look(now(free), filled[which]);
            }
            // What the other has put aside, and not filled, is not seen.
            while engines[which].may_go_ahead(part, filled[which]) && engines[which].reserve(part) {}
            filled[which] = (filled[which] + part).min(engines[which].used());
            assert!(engines[0].used() + engines[1].used() <= all, "turn {turn}: {engines:?}");
        }
        assert!(filled[0] + filled[1] >= all / 2, "{filled:?}");
    }

    #[test]
    fn a_look_lowers_the_limit_and_raises_it_again() {
        let budget = Budget { most: 900, ..Budget::new(900) };
        assert!(budget.reserve(600) && !budget.is_look_due(600), "nothing to look at");
        budget.look(now(200), 600);
        assert_eq!(budget.limit(), 600, "800 less a quarter");
        assert!(!budget.reserve(1));
        assert!(!budget.is_look_due(605) && budget.is_look_due(620) && budget.is_look_due(500));
        budget.look(now(4000), 600);
        assert_eq!(budget.limit(), 900, "not more than there may ever be");
        assert!(budget.reserve(300) && !budget.reserve(1));
    }

    #[test]
    fn what_was_swapped_out_meanwhile_is_not_free() {
        let budget = Budget::new(1000);
        budget.look(Now { swapped: 500, ..now(200) }, 600);
        assert_eq!(budget.limit(), 600, "swapped out before the first look");
        budget.look(Now { swapped: 600, ..now(300) }, 600);
        assert_eq!(budget.limit(), 600, "100 of them are swapped, not free");
        budget.look(Now { swapped: 400, ..now(200) }, 600);
        budget.look(Now { swapped: 450, ..now(250) }, 600);
        assert_eq!(budget.limit(), 600);
    }

    #[test]
    fn under_pressure_nothing_is_fetched_ahead() {
        let budget = Budget::new(1000);
        assert!(budget.may_go_ahead(1000, 0), "before the first look");
        budget.look(now(400), 100);
        budget.reserve_anyway(150);
        assert!(
            budget.may_go_ahead(50, 100) && !budget.may_go_ahead(51, 100),
            "a quarter of what is free is not filled"
        );
        assert!(budget.may_go_ahead(300, 150), "but one request may");
        budget.look(Now { pressed: true, ..now(400) }, 100);
        assert!(!budget.may_go_ahead(1, 150) && budget.reserve(1), "a reader has its room");
        budget.look(now(400), 100);
        assert!(budget.may_go_ahead(1, 150));
    }

    #[test]
    fn the_smallest_limit_has_room_for_one_part() {
        const PAGE: u64 = 2 << 20;
        for part_bytes in [4096, 12288, 1 << 20, PAGE, 3 << 20, 8 << 20, (8 << 20) - 4096, 256 << 20, 1 << 30] {
            let least = limit_min(part_bytes);
            assert_eq!(within(least, None).0.lacks(part_bytes), None, "{part_bytes}");
            assert!(within(least - 1, None).0.lacks(part_bytes).is_some(), "{part_bytes}");
            // As the engine counts it: from a part's begin to its end, that of the last one rounded up.
            for (first, len) in (0..2000).flat_map(|index| [1, part_bytes / 2, part_bytes].map(|len| (index, len))) {
                let start = first * part_bytes;
                let room = (start + len).next_multiple_of(PAGE) - start;
                assert!(len.max(room) <= part_room(part_bytes), "{part_bytes}: {start} {len}");
            }
        }
        assert_eq!(limit_min(8 << 20), 11_184_810);
    }

    #[test]
    fn what_is_left_of_a_limit() {
        assert_eq!(less_reserve(1 << 30), (1 << 30) - (256 << 20));
        assert_eq!(less_reserve(100 << 30), 95 << 30);
        assert_eq!(less_reserve(256 << 20), 192 << 20, "a small container has room, too");
        let (budget, warning) = within(1 << 30, None);
        assert_eq!((budget.limit(), warning), ((1 << 30) - (64 << 20), None));
        assert_eq!(within(64 << 20, Some(1 << 30)).0.limit(), 48 << 20);
        let (budget, warning) = within(4 << 30, Some(1 << 30));
        assert_eq!(budget.limit(), 768 << 20);
        assert!(warning.unwrap().contains("memoryLimit 4294967296 is more than"));
    }
}
