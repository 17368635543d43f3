//! The engines of this node that this user may ask: found by their processes and listening sockets, wherever those lie.
//!
//! Called by `ossc ps`. It reads /proc, asks each engine for its report, and changes nothing.

use crate::commands::view;
use ossc_cache::cpath::CPath;
use serde_json::Value;
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;

/// An engine's process, with its report or why there is none.
pub struct EngineFound {
    /// Process id.
    pub pid: u32,
    /// What it says of itself.
    pub report: Result<Value, String>,
}

/// All of them, by rising process ids.
pub fn all() -> Vec<EngineFound> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut engines: Vec<u32> = pids.filter(|pid| is_engine(*pid)).collect();
    engines.sort_unstable();
    let paths = bound(&std::fs::read_to_string("/proc/net/unix").unwrap_or_default());
    engines.into_iter().map(|pid| EngineFound { pid, report: report(pid, &paths) }).collect()
}

/// Its command line is `ossc engine`.
fn is_engine(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0);
    let (program, command) = (words.next().unwrap_or_default(), words.next());
    program.rsplit(|byte| *byte == b'/').next() == Some(b"ossc") && command == Some(b"engine")
}

fn report(pid: u32, paths: &HashMap<u64, String>) -> Result<Value, String> {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).map_err(|e| match e.raw_os_error() {
        Some(libc::EACCES) => "of another user".to_string(),
        _ => e.to_string(),
    })?;
    let links = fds.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let inode = |link: std::path::PathBuf| {
        let text = link.into_os_string().into_string().ok()?;
        text.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
    };
    let path = links.filter_map(inode).find_map(|inode| paths.get(&inode));
    let path = path.ok_or("starting: it has no socket yet")?;
    view::report_at(&CPath::from(std::ffi::OsStr::new(path).as_bytes()))
}

/// Paths of listening sockets by their inodes, of /proc/net/unix (proc_net(5)): flag 00010000 says that one listens.
fn bound(text: &str) -> HashMap<u64, String> {
    let listening = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (flags, inode) = (fields.nth(3)?, fields.nth(2)?);
        let path = fields.next()?;
        // A name may hold spaces.
        let path = &line[line.find(path)?..];
        (flags == "00010000" && path.starts_with('/')).then_some((inode.parse().ok()?, path.to_string()))
    };
    text.lines().filter_map(listening).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_have_paths() {
        let text = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0005 01 4711 /run/oss-connector/1-2.sock\n\
            0000000000000000: 00000002 00000000 00010000 0005 01 4712 /run/a b.sock\n\
            0000000000000000: 00000003 00000000 00000000 0005 03 4713 /run/oss-connector/1-2.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 4714 @abstract\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 4715\n";
        let found = bound(text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((&*found[&4711], &*found[&4712]), ("/run/oss-connector/1-2.sock", "/run/a b.sock"));
    }
}
