//! What memory this machine has for one more program: what it calls available, what every memory cgroup on the path of
//! this process leaves (v1 and v2), what was swapped out, and whether programs wait for memory already.
//!
//! Called by the budget at the start, and again while it is used. It only reads files, and decides nothing.

use std::fs;

/// Share of the time in which some program waited for memory, in hundredths of a percent over ten seconds, from which on
/// there is pressure. The kernel reclaims in earnest by then, and readers wait for pages.
const PRESSURE_MIN: u64 = 1000;

/// A look at the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Bytes that may still be taken before the kernel has to swap, to slow down or to kill.
    pub free: u64,
    /// Bytes of the machine that are swapped out.
    pub swapped: u64,
    /// Programs wait for memory.
    pub pressed: bool,
}

/// Looks now. `None` where nothing says how much is free.
pub fn now() -> Option<Now> {
    seen(&|path| fs::read_to_string(path).ok())
}

/// Bytes that could ever be there: of the machine, and of the tightest cgroup.
pub(crate) fn most() -> Option<u64> {
    all(&|path| fs::read_to_string(path).ok())
}

fn seen(read: &dyn Fn(&str) -> Option<String>) -> Option<Now> {
    let meminfo = read("/proc/meminfo").unwrap_or_default();
    let swap = |name| meminfo_row(&meminfo, name).unwrap_or(0);
    let swapped = swap("SwapTotal:").saturating_sub(swap("SwapFree:"));
    Some(Now { free: least(read)?, swapped, pressed: is_pressed(read) })
}

fn all(read: &dyn Fn(&str) -> Option<String>) -> Option<u64> {
    let total = read("/proc/meminfo").and_then(|text| meminfo_row(&text, "MemTotal:"));
    total.into_iter().chain(tightest(read)).min()
}

/// What is free now, by MemAvailable and every memory cgroup on the path; `None` where nothing says so.
fn least(read: &dyn Fn(&str) -> Option<String>) -> Option<u64> {
    let available = read("/proc/meminfo").and_then(|text| meminfo_row(&text, "MemAvailable:"));
    let own = read("/proc/self/cgroup").unwrap_or_default();
    let folders = cgroup_folders(&own);
    let rooms = folders.iter().filter_map(|folder| cgroup_room(|file| read(&format!("{folder}/{file}"))));
    rooms.chain(available).min()
}

/// The tightest limit of the memory cgroups on the path, used or not.
fn tightest(read: &dyn Fn(&str) -> Option<String>) -> Option<u64> {
    let own = read("/proc/self/cgroup").unwrap_or_default();
    let folders = cgroup_folders(&own);
    folders.iter().filter_map(|folder| limit_of(|file| read(&format!("{folder}/{file}")))).min()
}

/// A row of /proc/meminfo in bytes.
fn meminfo_row(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Whether programs of this machine, or of a cgroup on the path, wait for memory (PSI, Linux 4.20 and later).
fn is_pressed(read: &dyn Fn(&str) -> Option<String>) -> bool {
    let own = read("/proc/self/cgroup").unwrap_or_default();
    let cgroups = cgroup_folders(&own).into_iter().map(|folder| format!("{folder}/memory.pressure"));
    let files = std::iter::once("/proc/pressure/memory".to_string()).chain(cgroups);
    files.filter_map(|file| waited(&read(&file)?)).any(|share| share >= PRESSURE_MIN)
}

/// The share of the last ten seconds in which some program waited, in hundredths of a percent.
fn waited(pressure: &str) -> Option<u64> {
    let some = pressure.lines().find_map(|line| line.strip_prefix("some "))?;
    let (whole, hundredths) = some.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.split_once('.')?;
    Some(whole.parse::<u64>().ok()? * 100 + hundredths.parse::<u64>().ok()?)
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

/// The limit of one cgroup, v2 names first; `None` without a limit ("max", and v1's largest number). Above memory.high the
/// kernel makes programs wait, so that counts, too.
fn limit_of(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let limits = ["memory.max", "memory.high", "memory.limit_in_bytes"].map(|name| number(read(name)));
    // v1 spells "no limit" as the largest multiple of the page size.
    limits.into_iter().flatten().filter(|limit| *limit < 1 << 60).min()
}

/// Limit minus use of one cgroup; `None` without a limit. Page cache counts as room, since the kernel drops it
/// first; our own memory is shared memory and does not. What was swapped out is in use: it comes back.
fn cgroup_room(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let limit = limit_of(&read)?;
    let used = number(read("memory.current")).or_else(|| number(read("memory.usage_in_bytes")))?;
    let with_swap = number(read("memory.memsw.usage_in_bytes")).map(|both| both.saturating_sub(used));
    let swapped = number(read("memory.swap.current")).or(with_swap).unwrap_or(0);
    let stat = read("memory.stat").unwrap_or_default();
    let row = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    // In v1 the plain rows leave out the cgroups below, while the use counts them.
    let cached = row("total_inactive_file ").or_else(|| row("inactive_file ")).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cached).saturating_add(swapped)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_and_cgroups() {
        assert_eq!(meminfo_row("MemTotal: 9 kB\nMemAvailable:    2048 kB\n", "MemAvailable:"), Some(2 << 20));
        assert_eq!(meminfo_row("MemTotal: 9 kB\n", "MemAvailable:"), None);
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
    fn memory_high_counts_at_every_level() {
        let v2 = [
            ("/proc/meminfo", "MemTotal: 8192 kB\nMemAvailable: 8192 kB\n"),
            ("/proc/self/cgroup", "0::/pod/app\n"),
            ("/sys/fs/cgroup/pod/app/memory.max", "5000000\n"),
            ("/sys/fs/cgroup/pod/app/memory.high", "4000000\n"),
            ("/sys/fs/cgroup/pod/app/memory.current", "1000\n"),
            ("/sys/fs/cgroup/pod/memory.max", "max\n"),
            ("/sys/fs/cgroup/pod/memory.high", "3000000\n"),
            ("/sys/fs/cgroup/pod/memory.current", "500000\n"),
        ];
        assert_eq!((least(&machine(&v2)), tightest(&machine(&v2))), (Some(2_500_000), Some(3_000_000)));
        assert_eq!(all(&machine(&v2)), Some(3_000_000));
        let mut high = v2;
        (high[3].1, high[6].1) = ("max\n", "max\n");
        assert_eq!((least(&machine(&high)), tightest(&machine(&high))), (Some(4_999_000), Some(5_000_000)));
    }

    #[test]
    fn what_was_swapped_out_is_in_use() {
        let v2 = |swapped: &'static str| {
            move |file: &str| match file {
                "memory.max" => Some("1000".to_string()),
                "memory.current" => Some("400".to_string()),
                "memory.swap.current" => Some(swapped.to_string()),
                _ => None,
            }
        };
        assert_eq!(
            (cgroup_room(v2("0\n")), cgroup_room(v2("250\n")), cgroup_room(v2("900\n"))),
            (Some(600), Some(350), Some(0))
        );
        let v1 = |file: &str| match file {
            "memory.limit_in_bytes" => Some("1000".to_string()),
            "memory.usage_in_bytes" => Some("400".to_string()),
            "memory.memsw.usage_in_bytes" => Some("500".to_string()),
            _ => None,
        };
        assert_eq!(cgroup_room(v1), Some(500));
        let meminfo = [("/proc/meminfo", "MemAvailable: 100 kB\nSwapTotal: 50 kB\nSwapFree: 20 kB\n")];
        assert_eq!(seen(&machine(&meminfo)), Some(Now { free: 100 << 10, swapped: 30 << 10, pressed: false }));
        assert_eq!(seen(&machine(&[])), None);
    }

    #[test]
    fn pressure_of_the_machine_or_of_a_cgroup_is_seen() {
        let calm =
            "some avg10=9.99 avg60=80.00 avg300=80.00 total=1\nfull avg10=90.00 avg60=0.00 avg300=0.00 total=0\n";
        let pressed =
            "some avg10=10.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!((waited(calm), waited(pressed), waited("")), (Some(999), Some(1000), None));
        let of = |whole: &'static str, own: &'static str, parent: &'static str| {
            let files = [
                ("/proc/self/cgroup", "0::/pod/app\n"),
                ("/proc/pressure/memory", whole),
                ("/sys/fs/cgroup/pod/app/memory.pressure", own),
                ("/sys/fs/cgroup/pod/memory.pressure", parent),
            ];
            is_pressed(&machine(&files))
        };
        assert!(!of(calm, calm, calm));
        assert!(of(pressed, calm, calm) && of(calm, pressed, calm) && of(calm, calm, pressed));
        assert!(!is_pressed(&machine(&[])), "a kernel without PSI");
    }
}
