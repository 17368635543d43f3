//! How much memory the cache may use: the tightest limit on the path of cgroups (v1 and v2) and what the
//! system has available, less a reserve.
//!
//! Called by the engine at its start and before it puts memory aside for an object. The parsers are pure;
//! `Budget` is a counter that never goes over its limit.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

/// Left to the programs: a twentieth of what is available, at least this many bytes, but at most a quarter:
/// a small container would have nothing left for the cache.
const RESERVE_BYTES_MIN: u64 = 256 << 20;
/// What the engine itself takes of a limit: the shared region, stacks, buffers, page tables and the kernel's
/// share of its connections (measured with 256 connections: 30 MiB), at most a quarter.
const OWN_BYTES_MAX: u64 = 64 << 20;

/// Memory that may be put aside, in bytes.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Budget {
        Budget { limit, used: AtomicU64::new(0), peak: AtomicU64::new(0) }
    }

    /// What this process may use now: see the module.
    pub fn of_this_process() -> Budget {
        Budget::new(less_reserve(least(&|path| fs::read_to_string(path).ok()).unwrap_or(0)))
    }

    /// A limit of the user's for the whole engine, in bytes. More than a cgroup allows would end in a kill: then
    /// that counts, and the second value is the warning.
    pub fn of_limit(limit: u64) -> (Budget, Option<String>) {
        within(limit, tightest(&|path| fs::read_to_string(path).ok()))
    }

    /// The budget of an engine that has taken over memory files on a file system of `total` bytes, of which `used`
    /// hold data. `by_system`: the limit is what was free; what was taken over is not, and is ours all the same.
    #[must_use]
    pub fn with_taken_over(self, (total, used): (u64, u64), by_system: bool) -> Budget {
        let own = if by_system { used } else { 0 };
        Budget::new(self.limit.saturating_add(own).min(total))
    }

    /// What the largest part of an object may take, if that is more than the limit: no part of such a size could ever
    /// be read. `part_bytes` is the longest part.
    pub fn lacks(&self, part_bytes: u64) -> Option<u64> {
        Some(part_room(part_bytes)).filter(|room| *room > self.limit)
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes put aside.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Puts `bytes` aside; false if that would go over the limit.
    pub fn reserve(&self, bytes: u64) -> bool {
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= self.limit)
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
                "memoryLimit {limit} is more than the memory cgroup of {tightest} bytes can hold: {less} bytes are used"
            );
            (Budget::new(less), Some(text))
        }
    }
}

/// What is free now, by MemAvailable and every memory cgroup on the path; `None` where nothing says so.
fn least(read: &dyn Fn(&str) -> Option<String>) -> Option<u64> {
    let available = read("/proc/meminfo").and_then(|text| mem_available(&text));
    let own = read("/proc/self/cgroup").unwrap_or_default();
    let folders = cgroup_folders(&own);
    let rooms = folders.iter().filter_map(|folder| cgroup_room(|file| read(&format!("{folder}/{file}"))));
    rooms.chain(available).min()
}

/// The tightest limit of the memory cgroups on the path, used or not.
fn tightest(read: &dyn Fn(&str) -> Option<String>) -> Option<u64> {
    let own = read("/proc/self/cgroup").unwrap_or_default();
    let folders = cgroup_folders(&own);
    folders.iter().filter_map(|folder| cgroup_limit(|file| read(&format!("{folder}/{file}")))).min()
}

/// MemAvailable of /proc/meminfo in bytes.
fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The folders of this process's memory cgroups, from the innermost to the root, for /proc/self/cgroup.
fn cgroup_folders(own: &str) -> Vec<String> {
    let mut folders = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let mount = match controllers {
            "" => "/sys/fs/cgroup",
            list if list.split(',').any(|name| name == "memory") => "/sys/fs/cgroup/memory",
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            folders.push(format!("{mount}{path}"));
            match path.rfind('/') {
                Some(cut) => path = &path[..cut],
                None => break,
            }
        }
    }
    folders
}

fn number(text: Option<String>) -> Option<u64> {
    text.and_then(|text| text.trim().parse::<u64>().ok())
}

/// The limit of one cgroup, v2 names first; `None` without a limit ("max", and v1's largest number).
fn cgroup_limit(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let limit = number(read("memory.max")).or_else(|| number(read("memory.limit_in_bytes")));
    // v1 spells "no limit" as the largest multiple of the page size.
    limit.filter(|limit| *limit < 1 << 60)
}

/// Limit minus use of one cgroup; `None` without a limit. Page cache counts as room, since the kernel drops it
/// first; our own memory is shared memory and does not.
fn cgroup_room(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let limit = cgroup_limit(&read)?;
    let used = number(read("memory.current")).or_else(|| number(read("memory.usage_in_bytes")))?;
    let stat = read("memory.stat").unwrap_or_default();
    let row = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    // In v1 the plain rows leave out the cgroups below, while the use counts them.
    let cached = row("total_inactive_file ").or_else(|| row("inactive_file ")).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cached)))
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

    #[test]
    fn meminfo_and_cgroups() {
        assert_eq!(mem_available("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(mem_available("MemTotal: 9 kB\n"), None);
        assert_eq!(cgroup_folders("0::/a/b\n"), ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]);
        assert_eq!(
            cgroup_folders("4:memory:/x\n3:cpu,cpuacct:/y\n"),
            ["/sys/fs/cgroup/memory/x", "/sys/fs/cgroup/memory"]
        );
    }

    #[test]
    fn the_room_of_a_cgroup() {
        let v2 = |limit: &'static str| {
            move |file: &str| match file {
                "memory.max" => Some(limit.to_string()),
                "memory.current" => Some("700\n".to_string()),
                "memory.stat" => Some("anon 5\ninactive_file 200\n".to_string()),
                _ => None,
            }
        };
        assert_eq!(cgroup_room(v2("1000\n")), Some(500));
        assert_eq!(cgroup_room(v2("max\n")), None);
        let v1 = |file: &str| match file {
            "memory.limit_in_bytes" => Some("1000".to_string()),
            "memory.usage_in_bytes" => Some("400".to_string()),
            _ => None,
        };
        assert_eq!(cgroup_room(v1), Some(600));
        assert_eq!(cgroup_room(|file| (file != "memory.max").then(|| "9223372036854771712".to_string())), None);
    }

    /// A machine of these files.
    fn machine<'a>(files: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |path| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_string())
    }

    #[test]
    fn the_tightest_of_nested_cgroups_counts() {
        // v2: the own cgroup has no limit, the middle one the tightest, the root's has no files of this kind.
        let v2 = [
            ("/proc/meminfo", "MemAvailable: 8192 kB\n"),
            ("/proc/self/cgroup", "0::/pod/app\n"),
            ("/sys/fs/cgroup/pod/app/memory.max", "max\n"),
            ("/sys/fs/cgroup/pod/app/memory.current", "1000\n"),
            ("/sys/fs/cgroup/pod/memory.max", "4000000\n"),
            ("/sys/fs/cgroup/pod/memory.current", "1500000\n"),
            ("/sys/fs/cgroup/pod/memory.stat", "anon 1\nfile 900000\ninactive_file 500000\nactive_file 400000\n"),
        ];
        assert_eq!((least(&machine(&v2)), tightest(&machine(&v2))), (Some(3_000_000), Some(4_000_000)));
        // The same pod with more memory than the machine has left.
        let mut rich = v2;
        rich[4].1 = "400000000\n";
        assert_eq!(least(&machine(&rich)), Some(8 << 20));
        // v1, inside a container: the path is the host's, the mount shows the container's own cgroup as its root.
        let v1 = [
            ("/proc/meminfo", "MemAvailable: 8192 kB\n"),
            ("/proc/self/cgroup", "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n0::/\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "3000000\n"),
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "2500000\n"),
            (
                "/sys/fs/cgroup/memory/memory.stat",
                "inactive_file 7\nhierarchical_memory_limit 3000000\ntotal_inactive_file 1500000\n",
            ),
        ];
        assert_eq!((least(&machine(&v1)), tightest(&machine(&v1))), (Some(2_000_000), Some(3_000_000)));
    }

    #[test]
    fn without_limits_the_machine_counts() {
        let max = [
            ("/proc/meminfo", "MemAvailable: 2048 kB\n"),
            ("/proc/self/cgroup", "4:memory:/\n0::/\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "5\n"),
            ("/sys/fs/cgroup/memory.max", "max\n"),
        ];
        assert_eq!((least(&machine(&max)), tightest(&machine(&max))), (Some(2 << 20), None));
        assert_eq!((least(&machine(&[])), tightest(&machine(&[]))), (None, None));
        // A limit whose use cannot be read says nothing about room, but stays a limit.
        let blind = [("/proc/self/cgroup", "0::/\n"), ("/sys/fs/cgroup/memory.max", "1000\n")];
        assert_eq!((least(&machine(&blind)), tightest(&machine(&blind))), (None, Some(1000)));
        // More in use than the limit allows (it was lowered): no room, not a huge one.
        let over = [
            ("/proc/self/cgroup", "0::/\n"),
            ("/sys/fs/cgroup/memory.max", "1000\n"),
            ("/sys/fs/cgroup/memory.current", "5000\n"),
        ];
        assert_eq!(least(&machine(&over)), Some(0));
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
