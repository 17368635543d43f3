//! Which processes have which memory files mapped, from what /proc shows of this user's processes.
//!
//! Called by `ossc top`. It changes nothing. A program that reads with `read` has no map and is not seen here.

use std::collections::HashMap;

/// Processes, `PID NAME`, by the inode of the memory file that they have mapped.
pub fn by_inode(memory_dev: u64, engine: u32) -> HashMap<u64, Vec<String>> {
    let mut found: HashMap<u64, Vec<String>> = HashMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else { return found };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids.filter(|pid| *pid != engine) {
        let Ok(maps) = std::fs::read_to_string(format!("/proc/{pid}/maps")) else { continue };
        let mut inodes: Vec<u64> = maps.lines().filter_map(|line| mapped(line, memory_dev)).collect();
        inodes.sort_unstable();
        inodes.dedup();
        if inodes.is_empty() {
            continue;
        }
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        for inode in inodes {
            found.entry(inode).or_default().push(format!("{pid} {}", name.trim_end()));
        }
    }
    found
}

/// The inode of a line of /proc/PID/maps (proc_pid_maps(5)) that maps a file on `dev`.
fn mapped(line: &str, dev: u64) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace().skip(3);
    let (major, minor) = fields.next()?.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    let inode = fields.next()?.parse().ok()?;
    (libc::makedev(number(major)?, number(minor)?) == dev).then_some(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_device_give_their_inode() {
        let line = "7f10c0000000-7f10c0600000 r--p 00000000 00:2a 1027                       /memory/3 (deleted)";
        assert_eq!(mapped(line, libc::makedev(0, 0x2a)), Some(1027));
        assert_eq!(mapped(line, libc::makedev(0, 0x2b)), None);
        assert_eq!(mapped("7ffd1-7ffd2 rw-p 00000000 00:00 0 [stack]", libc::makedev(0, 0x2a)), None);
        assert_eq!(mapped("nonsense", 0), None);
    }
}
