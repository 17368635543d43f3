//! The processes that use the engine: who they are, and which of them have ended.
//!
//! Called by the attach server. A pidfd tells of a process's end. Where the kernel gives none (Linux before 5.3, or a
//! seccomp profile that does not know the call) the process is looked at once a second, by its number and the time it
//! was started at. A process of another container has no number here: its socket gives the pidfd (Linux 6.5). On older
//! kernels such ones live while the board is mapped by an opening that none but they have. Nothing here talks to a
//! process.

use ossc_cache::wire;
use ossc_store::pages;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open, test_kill_process};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How often a process without a pidfd is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What tells of a process's end.
enum End {
    /// Readable from then on.
    Fd(OwnedFd),
    /// When the process was started, as /proc has it; `None` where /proc does not show it.
    Look(Option<u64>),
}

/// See the module.
#[derive(Default)]
pub struct Clients {
    by_pid: HashMap<i32, End>,
    /// Of other pid namespaces, one for each time that a process has attached.
    elsewhere: Vec<OwnedFd>,
    /// The board's first descriptor, while there may be such of which no pidfd can be had.
    unseen: Option<i32>,
}

impl Clients {
    /// Counts a process until it ends.
    pub fn count(&mut self, pid: i32) {
        if self.by_pid.contains_key(&pid) {
            return;
        }
        match Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
            Some(Ok(fd)) => drop(self.by_pid.insert(pid, End::Fd(fd))),
            Some(Err(e)) if e != Errno::SRCH && is_alive(pid) => {
                tracing::debug!(pid, "looked at once a second: pidfd_open: {e}");
                self.by_pid.insert(pid, End::Look(started_at(pid)));
            }
            // It ended before we looked, or lives in another pid namespace.
            Some(Err(e)) => tracing::debug!(pid, "not counted as a client: {e}"),
            None => tracing::debug!(pid, "not counted as a client: of another pid namespace"),
        }
    }

    /// Process ids of those of this pid namespace, in rising order.
    pub fn pids(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self.by_pid.keys().copied().collect();
        pids.sort_unstable();
        pids
    }

    /// Counts the process at the other end of a connection until it ends. True if it can be counted only by an opening of
    /// its own of the board, which it has to get; `board` is the board's first descriptor.
    pub fn count_peer(&mut self, conn: i32, pid: i32, board: i32) -> bool {
        match (pid, wire::peer_process(conn)) {
            (0, Ok(end)) => self.elsewhere.push(end),
            (0, Err(_)) => self.unseen = Some(board),
            _ => self.count(pid),
        }
        self.unseen.is_some() && pid == 0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_pid.len() + self.elsewhere.len() + usize::from(self.unseen.is_some())
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Descriptors that become readable when a process ends.
    pub fn ends(&self) -> impl Iterator<Item = &OwnedFd> {
        let known = self.by_pid.values().filter_map(|end| if let End::Fd(fd) = end { Some(fd) } else { None });
        known.chain(&self.elsewhere)
    }

    /// When `remove_ended` is to be called although no descriptor of `ends` became readable.
    pub fn look_again(&self) -> Option<Duration> {
        let is_looked_at = |end: &End| matches!(end, End::Look(_));
        (self.unseen.is_some() || self.by_pid.values().any(is_looked_at)).then_some(LOOK_AGAIN)
    }

    /// Forgets those that have ended; true if there were any.
    pub fn remove_ended(&mut self) -> bool {
        let before = self.len();
        self.by_pid.retain(|pid, end| match end {
            End::Fd(fd) => !is_readable(fd),
            End::Look(started) => is_alive(*pid) && started_at(*pid) == *started,
        });
        self.elsewhere.retain(|fd| !is_readable(fd));
        self.unseen = self.unseen.filter(|board| pages::is_open_elsewhere(*board));
        self.len() < before
    }
}

fn is_readable(fd: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// True for a process that exists, also for another user's. A zombie counts as ended where /proc shows it.
fn is_alive(pid: i32) -> bool {
    let exists = Pid::from_raw(pid).is_some_and(|pid| !matches!(test_kill_process(pid), Err(Errno::SRCH)));
    exists && state(pid).is_none_or(|(state, _)| !matches!(state, b'Z' | b'X'))
}

fn started_at(pid: i32) -> Option<u64> {
    state(pid).map(|(_, started)| started)
}

/// State and start time in clock ticks, fields 3 and 22 of /proc/PID/stat (proc_pid_stat(5)).
fn state(pid: i32) -> Option<(u8, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // A program's name may hold any byte but its own last parenthesis.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let state = *fields.next()?.as_bytes().first()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_without_a_pidfd_counts_until_it_ends() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id() as i32;
        let mut clients = Clients::default();
        clients.by_pid.insert(pid, End::Look(started_at(pid)));
        assert_eq!(clients.look_again(), Some(LOOK_AGAIN));
        assert!(!clients.remove_ended());
        // A zombie is nobody's reader any more.
        child.kill().unwrap();
        while is_alive(pid) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(clients.remove_ended() && clients.is_empty());
        child.wait().unwrap();
        assert_eq!(clients.look_again(), None);
    }

    #[test]
    fn another_process_of_the_same_number_is_not_it() {
        let own = std::process::id() as i32;
        let started = started_at(own).unwrap();
        let mut clients = Clients::default();
        clients.by_pid.insert(own, End::Look(Some(started + 1)));
        assert!(clients.remove_ended());
        clients.count(own);
        assert_eq!((clients.len(), clients.ends().count()), (1, 1));
    }

    #[test]
    fn a_process_that_is_no_more_is_not_counted() {
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id() as i32;
        child.wait().unwrap();
        let mut clients = Clients::default();
        clients.count(pid);
        assert!(clients.is_empty());
    }

    #[test]
    fn processes_without_a_number_or_a_pidfd_count_while_the_region_is_open() {
        let region = pages::counted(ossc_cache::sys::memfd(c"test").unwrap()).unwrap();
        let mut clients = Clients::default();
        // Of what is no socket there is no pidfd.
        assert!(clients.count_peer(region, 0, region));
        let own = pages::reopen(region, libc::O_RDWR).unwrap();
        assert_eq!((clients.remove_ended(), clients.len(), clients.look_again()), (false, 1, Some(LOOK_AGAIN)));
        let other = pages::reopen(region, libc::O_RDWR).unwrap();
        ossc_cache::sys::close(own).unwrap();
        assert_eq!((clients.remove_ended(), clients.len()), (false, 1), "one of two has ended");
        ossc_cache::sys::close(other).unwrap();
        assert!(clients.remove_ended() && clients.is_empty());
        ossc_cache::sys::close(region).unwrap();
    }
}
