//! The thread `ossc-mirror`: decides which folder is listed when, what programs' uses of folders bring about, and who is
//! told what came of it. It never waits for OSS: each listing runs on a thread of its own (`ossc-list`).
//!
//! Started by the engine. Folders that programs wait for are listed side by side and first; what no program has asked
//! for is listed when nothing else is, few at a time and few in all. A folder that hangs, or is being changed, holds up
//! those who want it and nobody else.

mod announce;
mod scan;

use crate::mirror::Mirror;
use crate::mirror::listing::quiet;
use crate::mirror::listings::announce::{Announced, Step};
use crate::mirror::listings::scan::Scans;
use crate::mirror::renew::{Due, Since};
use crate::mirror::usage::choose;
use crate::order::Look;
use crate::order::Order;
use crate::order::failure::Failure;
use ossc_cache::region::RecordKind;
use ossc_cache::wire;
use std::collections::HashSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// How long a listing that a program waits for waits for the small objects of the folder in turn.
pub const SETTLE_WITHIN: Duration = Duration::from_secs(2);
/// Folders that are listed ahead of their use, at most, and again when a program uses a folder.
const AHEAD_AT_START: usize = 32;
const AHEAD_AGAIN: usize = 8;
const IDLE: Duration = Duration::from_secs(3600);
/// How long a thread that could not be started is not tried again.
const NO_THREAD: Duration = Duration::from_millis(100);
const STACK_BYTES: usize = 512 << 10;

/// How many listings run at a time.
#[derive(Clone, Copy)]
pub struct Lanes {
    /// That programs wait for.
    wanted: usize,
    /// Ahead of their use.
    ahead: usize,
}

impl Lanes {
    /// With so many connections: half of them at most, and no connection is taken for what nobody has asked for if there
    /// is only one.
    pub fn of(connections: usize) -> Lanes {
        Lanes {
            wanted: (connections / 2).clamp(1, 16),
            ahead: (connections / 4).clamp(usize::from(connections > 1), 2).min(connections - 1),
        }
    }
}

/// A client that attached while something was missing in folders that are filled again: it gets its descriptors when
/// all of them are, which is when the last of those who hold this lets go.
struct Attaching {
    conn: OwnedFd,
    fds: [i32; wire::FDS_MAX],
    _own: Option<OwnedFd>,
}

impl Drop for Attaching {
    fn drop(&mut self) {
        // A client that no longer waits needs no answer.
        let _ = wire::answer(self.conn.as_raw_fd(), 0, 0, b"", self.fds);
    }
}

/// A folder that somebody wants, and those who wait for it.
struct Waiting {
    path: String,
    since: Since,
    conns: Vec<OwnedFd>,
    /// Those who are about to read the names in it.
    entering: Vec<OwnedFd>,
    attaching: Vec<Arc<Attaching>>,
    /// The folder whose listing it waits for.
    blocked: Option<String>,
    /// When it is looked at again.
    next: Instant,
    /// When it is shown as it is.
    until: Instant,
}

/// See the module.
pub struct Listings {
    mirror: Arc<Mirror>,
    model_dir: PathBuf,
    list_again: Duration,
    patience: Duration,
    lanes: Lanes,
    /// To this thread itself.
    orders: Sender<Order>,
    waiting: Vec<Waiting>,
    /// Folders that are being listed.
    running: HashSet<String>,
    running_ahead: usize,
    /// How many more folders may be listed unasked.
    ahead: usize,
    announced: Announced,
    scans: Scans,
}

impl Listings {
    /// `list_again` is `listAgainSec`.
    pub fn new(
        (mirror, model_dir): (Arc<Mirror>, PathBuf),
        list_again: Duration,
        lanes: Lanes,
        orders: Sender<Order>,
    ) -> Listings {
        Listings {
            mirror,
            model_dir,
            list_again,
            patience: Duration::from_secs(quiet::patience_secs(list_again.as_secs())),
            lanes,
            orders,
            waiting: Vec::new(),
            running: HashSet::new(),
            running_ahead: 0,
            ahead: AHEAD_AT_START,
            announced: Announced::default(),
            scans: Scans::default(),
        }
    }

    /// The thread, until the engine ends.
    pub fn run(mut self, orders: &Receiver<Order>) {
        loop {
            match orders.recv_timeout(self.pause()) {
                Ok(order) => self.handle_order(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.go_on();
        }
    }

    fn handle_order(&mut self, order: Order) {
        match order {
            Order::List { path, enters, conn } => match inside(&path, &self.model_dir) {
                Some(inside) => {
                    let inside = inside.to_string();
                    self.announced.listed(&inside, pid_of(&conn));
                    self.ahead = self.ahead.max(AHEAD_AGAIN);
                    let again_ms = u64::try_from(self.list_again.as_millis()).unwrap_or(u64::MAX);
                    // Who enters a folder has had it listed just before.
                    let since = if enters { 0 } else { ossc_cache::sys::now_ms().saturating_sub(again_ms) };
                    let waiting = self.want(inside, Since(since));
                    if enters { waiting.entering.push(conn) } else { waiting.conns.push(conn) }
                }
                None => answer(&conn, libc::ENOENT),
            },
            Order::Refill { paths, conn, fds, own } => {
                tracing::info!(folders = ?paths, "files are missing: they are made again");
                let attaching = Arc::new(Attaching { conn, fds, _own: own });
                let now = ossc_cache::sys::now_ms();
                for path in paths {
                    self.want(path, Since(now)).attaching.push(attaching.clone());
                }
            }
            Order::Refresh { folder, asked_ms } => {
                self.want(folder, Since(asked_ms));
            }
            Order::Used { slot, pid } => self.used(slot, pid),
            Order::Looked { path, is_ahead, done } => self.looked(&path, is_ahead, done),
        }
    }

    /// When something is due that no order tells of. What waits for a listing, or for a lane, is told by its end.
    fn pause(&self) -> Duration {
        let now = Instant::now();
        let has_lane = self.has_lane();
        let free = self.waiting.iter().filter(|waiting| waiting.blocked.is_none() && (has_lane || waiting.next > now));
        let next = free.map(|waiting| waiting.next).chain(self.announced.next(now)).min();
        next.map_or(IDLE, |next| next.saturating_duration_since(now))
    }

    fn has_lane(&self) -> bool {
        self.running.len() - self.running_ahead < self.lanes.wanted
    }

    /// Somebody wants a folder: those who want it alike wait together.
    fn want(&mut self, path: String, since: Since) -> &mut Waiting {
        let known = self.waiting.iter().position(|waiting| waiting.path == path && waiting.since >= since);
        let at = known.unwrap_or_else(|| {
            let now = Instant::now();
            let until = now + self.patience;
            let (conns, entering, attaching) = (Vec::new(), Vec::new(), Vec::new());
            self.waiting.push(Waiting { path, since, conns, entering, attaching, blocked: None, next: now, until });
            self.waiting.len() - 1
        });
        &mut self.waiting[at]
    }

    fn go_on(&mut self) {
        let now = Instant::now();
        let mut at = 0;
        while at < self.waiting.len() {
            let waiting = &self.waiting[at];
            if waiting.blocked.is_some() || waiting.next > now {
                at += 1;
                continue;
            }
            match self.mirror.due(&waiting.path, waiting.since) {
                None => {
                    let waiting = self.waiting.swap_remove(at);
                    self.answer(waiting, Ok(()));
                }
                Some(due) => {
                    self.begin(at, due, now);
                    at += 1;
                }
            }
        }
        self.list_ahead();
        self.announce(now);
    }

    /// Has the listing made that something waits for, if it is not being made and there is a lane.
    fn begin(&mut self, at: usize, due: Due, now: Instant) {
        let path = due.path.clone();
        if !self.running.contains(&path) {
            if !self.has_lane() {
                return;
            }
            let impatient = now >= self.waiting[at].until;
            if !self.spawn(due, impatient) {
                self.waiting[at].next = now + NO_THREAD;
                return;
            }
        }
        self.waiting[at].blocked = Some(path);
    }

    fn spawn(&mut self, due: Due, impatient: bool) -> bool {
        let (mirror, orders) = (self.mirror.clone(), self.orders.clone());
        let (path, is_ahead) = (due.path.clone(), due.is_ahead());
        let list = move || {
            let done = mirror.list_one(&due, impatient);
            // Without the thread that hears of it the engine is ending.
            let _ = orders.send(Order::Looked { path: due.path, is_ahead, done });
        };
        let thread = std::thread::Builder::new().name("ossc-list".into()).stack_size(STACK_BYTES).spawn(list);
        if let Err(e) = &thread {
            tracing::warn!(folder = path, "no thread to list it: {e}; trying again");
            return false;
        }
        self.running.insert(path);
        self.running_ahead += usize::from(is_ahead);
        true
    }

    fn looked(&mut self, path: &str, is_ahead: bool, done: Result<Look, Failure>) {
        self.running.remove(path);
        self.running_ahead -= usize::from(is_ahead);
        let now = Instant::now();
        let mut failed = Vec::new();
        for at in (0..self.waiting.len()).rev() {
            let waiting = &mut self.waiting[at];
            if waiting.blocked.as_deref() != Some(path) {
                continue;
            }
            waiting.blocked = None;
            waiting.next = match &done {
                Ok(Look::Wait(wait)) => (now + *wait).min(waiting.until),
                // What was listed ahead within small bounds is listed for those who want it.
                Err(_) if !is_ahead => {
                    failed.push(self.waiting.swap_remove(at));
                    continue;
                }
                _ => now,
            };
        }
        if let Err(failure) = done {
            match is_ahead {
                true => tracing::warn!(folder = path, "not listed ahead: {failure}"),
                false => tracing::error!(folder = path, "not listed: {failure}"),
            }
        }
        failed.into_iter().for_each(|waiting| self.answer(waiting, Err(ossc_net::kind::UNLISTED_ERRNO)));
    }

    /// Tells those who wait for a folder. A listing by a program that looks at one folder is a use of it: its small
    /// objects come, and the program finds them in place (tar complains of files that change under its hands).
    fn answer(&mut self, waiting: Waiting, done: Result<(), i32>) {
        waiting.conns.iter().for_each(|conn| answer(conn, done.err().unwrap_or(0)));
        let Some(first) = waiting.entering.first().map(pid_of) else { return };
        if let Err(errno) = done {
            return waiting.entering.iter().for_each(|conn| answer(conn, errno));
        }
        let path = waiting.path;
        let state = (self.mirror.uses_of(&path), self.mirror.waits_for_use(&path));
        if self.scans.listed(first, &path, state, |other| self.mirror.uses_of(other)) {
            self.mirror.use_folder(&path);
        }
        let (mirror, entering) = (self.mirror.clone(), waiting.entering);
        let tell = move || entering.iter().for_each(|conn| answer(conn, 0));
        if !self.mirror.is_fetching(&path) {
            self.mirror.end_fetch(&path);
            return tell();
        }
        let settle = move || {
            mirror.wait_for_small(&path, SETTLE_WITHIN);
            mirror.end_fetch(&path);
            tell();
        };
        // Where there is no thread their connections close, and they ask again.
        let _ = std::thread::Builder::new().name("ossc-list".into()).stack_size(STACK_BYTES).spawn(settle);
    }

    /// A folder ahead of its first use, if nobody waits for one.
    fn list_ahead(&mut self) {
        while self.waiting.is_empty() && self.ahead > 0 && self.running_ahead < self.lanes.ahead {
            let Some(due) = self.mirror.due_ahead() else { return };
            if self.running.contains(&due.path) {
                continue;
            }
            self.ahead -= 1;
            if !self.spawn(due, false) {
                return;
            }
        }
    }

    /// A program has opened an object, or waits for it.
    fn used(&mut self, slot: u32, pid: Option<u32>) {
        let region = *self.mirror.region();
        let Some(object) = region.object(slot).filter(|object| object.kind() != RecordKind::Folder) else { return };
        let (kind, path) = (object.kind(), region.name(object).to_string());
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        self.mirror.use_folder(folder);
        if kind == RecordKind::Large {
            self.announced.weight(folder);
            return self.mirror.fetch_weights(folder);
        }
        let step = self.announced.used(folder);
        self.act(step);
        if let Some(pid) = pid.filter(|_| choose::announces(name) && !self.mirror.fetches_weights(folder)) {
            self.announced.sign(folder, pid, Instant::now());
        }
    }

    fn announce(&mut self, now: Instant) {
        let step = self.announced.due(now, |folder| self.mirror.is_fetching(folder), lives);
        self.act(step);
    }

    fn act(&mut self, step: Option<Step>) {
        match step {
            Some(Step::Begin(folder)) => {
                tracing::info!(folder, "a program has read its configuration: its weights are fetched ahead");
                self.mirror.fetch_weights(&folder);
            }
            Some(Step::GiveUp(folder)) => {
                tracing::info!(folder, "its weights are fetched ahead no more: no program has opened one");
                self.mirror.leave_weights(&folder);
            }
            None => {}
        }
    }
}

/// True while a process of this number lives, as far as this one can see.
fn lives(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// The process at the other end; 0 if it is not known.
fn pid_of(conn: &OwnedFd) -> u32 {
    wire::peer(conn.as_raw_fd()).map_or(0, |peer| peer.pid as u32)
}

/// A folder's path relative to MODEL_DIR. Clients name it by its record's name, or as the kernel names it.
fn inside<'a>(path: &'a str, model_dir: &Path) -> Option<&'a str> {
    match path.starts_with('/') {
        true => Path::new(path).strip_prefix(model_dir).ok().and_then(Path::to_str),
        false => Some(path),
    }
}

fn answer(conn: &OwnedFd, errno: i32) {
    // A client that no longer waits needs no answer.
    let _ = wire::answer(conn.as_raw_fd(), errno, 0, b"", wire::NO_FDS);
}
