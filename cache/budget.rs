//! How much memory the cache may use: the tightest limit on the path of cgroups (v1 and v2) and what the
//! system has available, less a reserve.
//!
//! Called by the engine at its start and before it puts memory aside for an object. The parsers are pure;
//! `Budget` is a counter that never goes over its limit.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

/// Left to the programs: a twentieth of what is available, at least this many bytes.
const RESERVE_BYTES_MIN: u64 = 256 << 20;

/// Memory that may be put aside, in bytes.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Budget {
        Budget { limit, used: AtomicU64::new(0) }
    }

    /// What this process may use now: see the module.
    pub fn of_this_process() -> Budget {
        let available = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_available(&text));
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let room = cgroup_folders(&own)
            .iter()
            .filter_map(|folder| cgroup_room(|file| fs::read_to_string(format!("{folder}/{file}")).ok()))
            .min();
        let least = [available, room].into_iter().flatten().min().unwrap_or(0);
        Budget::new(least.saturating_sub((least / 20).max(RESERVE_BYTES_MIN)))
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
    pub fn take(&self, bytes: u64) -> bool {
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= self.limit)
        });
        taken.is_ok()
    }

    /// Counts memory that is in use already, also where that is over the limit.
    pub fn take_anyway(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Gives `bytes` back.
    pub fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }
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

/// Limit minus use of one cgroup, v2 names first; `None` without a limit. Page cache counts as room, since
/// the kernel drops it first; our own memory is shared memory and does not.
fn cgroup_room(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let number = |file: &str| read(file).and_then(|text| text.trim().parse::<u64>().ok());
    let (limit, used) = match number("memory.max") {
        Some(limit) => (limit, number("memory.current")?),
        None => (number("memory.limit_in_bytes")?, number("memory.usage_in_bytes")?),
    };
    let stat = read("memory.stat").unwrap_or_default();
    let row = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    let cached = row("inactive_file ").or_else(|| row("total_inactive_file ")).unwrap_or(0);
    // v1 spells "no limit" as the largest multiple of the page size.
    (limit < 1 << 60).then(|| limit.saturating_sub(used.saturating_sub(cached)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_over() {
        let budget = Budget::new(100);
        assert!(budget.take(60) && !budget.take(41) && budget.take(40));
        budget.give(60);
        assert_eq!((budget.used(), budget.limit()), (40, 100));
        assert!(!budget.take(u64::MAX));
    }

    #[test]
    fn what_was_taken_over_counts_also_beyond_the_limit() {
        let budget = Budget::new(100);
        budget.take_anyway(150);
        assert!(!budget.take(1));
        budget.give(60);
        assert!(budget.take(10) && !budget.take(1));
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
}
