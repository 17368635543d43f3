//! The attach server: hands clients the region and the memory, takes their requests to list folders, and
//! ends the engine when nobody has needed it for a while.
//!
//! Called by the engine; it is the main thread's loop. Clients are known by their processes (see `clients`), not by
//! sockets: a program may close any descriptor, but it cannot hide its end from the kernel.

use ossc_cache::wire::{self, Ask, NO_FDS, Streams};
use ossc_store::pages::PageKind;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::mirror::Mirror;
use crate::order::Order;
use crate::process::clients::Clients;
use crate::process::dropping;
use crate::process::keys::Keys;
use crate::process::nearby;
use crate::process::outputs::Outputs;
use crate::process::report::{self, About};
use crate::process::summary::Summary;
use crate::work::Work;

/// Another opening of what a descriptor of this process leads to.
///
/// # Errors
/// The kernel's.
pub fn opened_again(fd: i32, how: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::open(format!("/proc/self/fd/{fd}"), how | OFlags::CLOEXEC, Mode::empty())
}

/// A client that connected and says nothing is let go after this many milliseconds.
const SILENCE_MS: u64 = 1000;
/// How long the engine leaves be what the kernel has refused.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it says so.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// Most of what a program's user is told of a failed request: one line.
const WHY_CHARS_MAX: usize = 600;

/// See the module.
pub struct Server {
    listener: OwnedFd,
    /// Its own end of the door, and the one that clients get: see `wire::ask_at_door`.
    door: (OwnedFd, OwnedFd),
    work: Arc<Work>,
    mirror: Arc<Mirror>,
    keys: Arc<Keys>,
    /// The region's catalog, opened read-only, and its board.
    files: (OwnedFd, i32),
    orders: Sender<Order>,
    linger: Duration,
    clients: Clients,
    about: About,
    outputs: Outputs,
    summary: Arc<Summary>,
    /// When trouble was told last.
    told: Option<Instant>,
}

impl Server {
    /// A server with the engine's starter as its first client.
    pub fn new(
        (listener, door): (OwnedFd, (OwnedFd, OwnedFd)),
        (work, mirror, keys): (Arc<Work>, Arc<Mirror>, Arc<Keys>),
        files: (OwnedFd, i32),
        orders: Sender<Order>,
        linger: Duration,
        (about, outputs, summary): (About, Outputs, Arc<Summary>),
    ) -> Server {
        Server {
            listener,
            door,
            work,
            mirror,
            keys,
            files,
            orders,
            linger,
            clients: Clients::default(),
            about,
            outputs,
            summary,
            told: None,
        }
    }

    /// Ends serving, and gives the socket back.
    pub fn listener(self) -> OwnedFd {
        self.listener
    }

    /// Counts a process as a client until it ends.
    pub fn welcome(&mut self, pid: i32) {
        self.clients.count(pid);
    }

    /// Counts the asker as a client; an opening of the board of its own where it cannot be seen otherwise. Where none can
    /// be had, it is served and not counted.
    fn welcome_asker(&mut self, conn: i32, pid: i32) -> Option<OwnedFd> {
        let board = self.files.1;
        self.clients.count_peer(conn, pid, board).then(|| opened_again(board, OFlags::RDWR).ok())?
    }

    /// Serves until `linger` after the last client's end.
    pub fn run(&mut self) {
        let mut alone_since = Instant::now();
        loop {
            if !self.clients.is_empty() {
                alone_since = Instant::now();
            }
            self.work.residency.programs.tell(self.clients.len(), Instant::now());
            let left = self.clients.is_empty().then(|| self.linger.saturating_sub(alone_since.elapsed()));
            if left == Some(Duration::ZERO) {
                self.welcome_nearby();
                if self.clients.is_empty() {
                    return;
                }
                continue;
            }
            let knocks = self.wait(left);
            if self.clients.remove_ended() {
                // The wait may have lasted for hours: lingering begins with the end of the last one.
                alone_since = Instant::now();
            }
            self.outputs.look();
            if knocks.0 {
                self.accept();
            }
            if knocks.1 {
                self.open_door();
            }
        }
    }

    /// Counts those as clients that will come later: see `nearby`.
    fn welcome_nearby(&mut self) {
        let header = self.work.region().header();
        let folder = (header.model_dev.load(Ordering::Acquire), header.model_ino.load(Ordering::Acquire));
        for pid in nearby::processes(folder) {
            tracing::debug!(pid, "stays for a process that has not attached yet");
            self.welcome(pid);
        }
    }

    /// Sleeps until a connection, a knock at the door, the end of a client, or the time-out.
    fn wait(&mut self, left: Option<Duration>) -> (bool, bool) {
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN), PollFd::new(&self.door.0, PollFlags::IN)];
        let ends = self.clients.ends().chain(self.outputs.holder().ends());
        fds.extend(ends.map(|fd| PollFd::new(fd, PollFlags::IN)));
        let left = [left, self.clients.look_again(), self.outputs.holder().look_again()].into_iter().flatten().min();
        let timeout =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return (false, false),
            Err(e) => {
                drop(fds);
                self.trouble("poll", e);
                // What has come is found without it, a little later.
                return (true, false);
            }
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        (ready(&fds[0]), ready(&fds[1]))
    }

    fn accept(&mut self) {
        loop {
            match rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) {
                Ok(conn) => {
                    if let Err(errno) = self.admit(conn) {
                        tracing::debug!(errno, "a client's question was not answered");
                    }
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => return,
                Err(e) => return self.trouble("accept4", e),
            }
        }
    }

    /// The kernel refuses what serving needs: said now and then, and not asked for again at once.
    fn trouble(&mut self, call: &str, e: Errno) {
        if self.told.is_none_or(|told| told.elapsed() > TOLD_AGAIN) {
            self.told = Some(Instant::now());
            tracing::error!("programs that attach are not answered: {call}: {e}");
        }
        std::thread::sleep(PAUSE);
    }

    /// A connection that came through the door. Only clients and their children hold its other end (a socket cannot
    /// be opened again by its name below /proc): a process that has changed its user since, whom the run folder and
    /// the check of the user keep out, keeps what it could read.
    fn open_door(&mut self) {
        let knock = wire::receive_one(&self.door.0);
        if let Err(errno) = knock.map_err(|e| e.0).and_then(|conn| self.answer(conn)) {
            tracing::debug!(errno, "a question at the door was not answered");
        }
    }

    fn admit(&mut self, conn: OwnedFd) -> Result<(), i32> {
        let fd = conn.as_raw_fd();
        let peer = wire::peer(fd).map_err(|e| e.0)?;
        if peer.uid != ossc_cache::sys::geteuid() {
            tracing::warn!(pid = peer.pid, uid = peer.uid, "a process of another user asked to attach: refused");
            return wire::answer(fd, libc::EACCES, 0, b"", NO_FDS).map_err(|e| e.0);
        }
        self.answer(conn)
    }

    fn answer(&mut self, conn: OwnedFd) -> Result<(), i32> {
        let fd = conn.as_raw_fd();
        let peer = wire::peer(fd).map_err(|e| e.0)?;
        if !ossc_cache::sys::wait_readable(fd, SILENCE_MS) {
            return Err(libc::ETIMEDOUT);
        }
        let mut packet = wire::receive(fd).map_err(|e| e.0)?;
        let streams = match packet.decode_ask() {
            Ok(Ask::Outputs(_)) => packet.streams(),
            _ => Streams::default(),
        };
        packet.close_fds();
        if !packet.same_version() {
            tracing::warn!(pid = peer.pid, "a process with another version of the library asked to attach: refused");
            return wire::answer(fd, libc::ENOTSUP, 0, b"", NO_FDS).map_err(|e| e.0);
        }
        match packet.decode_ask().map_err(|e| e.0)? {
            Ask::Attach => {
                let own = self.welcome_asker(fd, peer.pid);
                tracing::debug!(pid = peer.pid, "client attached");
                let store = self.mirror.store();
                let folder = if store.kind() == PageKind::HugeTmpfs { store.folder() } else { -1 };
                let board = own.as_ref().map_or(self.files.1, AsRawFd::as_raw_fd);
                let fds = [self.files.0.as_raw_fd(), board, self.door.1.as_raw_fd(), folder];
                match self.mirror.emptied() {
                    none if none.is_empty() => wire::answer(fd, 0, 0, b"", fds).map_err(|e| e.0),
                    paths => self.orders.send(Order::Refill { paths, conn, fds, own }).map_err(|_| libc::EPIPE),
                }
            }
            Ask::Look => wire::answer(fd, 0, 0, b"", [self.files.0.as_raw_fd(), self.files.1, -1, -1]).map_err(|e| e.0),
            Ask::Why(slot) => wire::answer(fd, 0, 0, self.why(slot).as_bytes(), NO_FDS).map_err(|e| e.0),
            Ask::Report => self.hand_report(fd),
            Ask::Drop => {
                let path = String::from_utf8_lossy(packet.text()).into_owned();
                dropping::answer(self.work.clone(), path, conn)
            }
            Ask::Credentials => {
                // Who has told it does not wait for an answer.
                self.keys.note(peer.pid, packet.text());
                packet.wipe();
                Ok(())
            }
            Ask::Outputs(_) => {
                self.outputs.offered(peer.pid, &streams);
                Ok(())
            }
            Ask::Memory(slot) => self.hand_memory(fd, slot),
            ask @ (Ask::List | Ask::Enter) => {
                let path = String::from_utf8_lossy(packet.text()).into_owned();
                self.orders.send(Order::List { path, enters: ask == Ask::Enter, conn }).map_err(|_| libc::EPIPE)
            }
        }
    }

    fn why(&self, slot: u32) -> String {
        let text = self.work.entry(slot).and_then(|entry| entry.trouble()).unwrap_or_default();
        text.chars().take(WHY_CHARS_MAX).collect()
    }

    fn hand_report(&self, fd: i32) -> Result<(), i32> {
        self.work.residency.programs.tell(self.clients.len(), Instant::now());
        let (clients, unlisted) = (self.clients.pids(), self.mirror.unlisted());
        let mut report = report::of(&self.work, &self.about, self.keys.end_secs(), &clients, &unlisted);
        report["load"] = self.summary.report(&self.work);
        match report::file(&report) {
            Ok(file) => wire::answer(fd, 0, 0, b"", [file.as_raw_fd(), -1, -1, -1]).map_err(|e| e.0),
            Err(errno) => wire::answer(fd, errno, 0, b"", NO_FDS).map_err(|e| e.0),
        }
    }

    fn hand_memory(&self, fd: i32, slot: u32) -> Result<(), i32> {
        match self.work.residency.hand_memory(slot) {
            Some(Ok(memory)) => {
                let sent = wire::answer(fd, 0, 0, b"", [memory, -1, -1, -1]);
                let _ = ossc_cache::sys::close(memory);
                sent.map_err(|e| e.0)
            }
            Some(Err(errno)) => wire::answer(fd, errno.0, 0, b"", NO_FDS).map_err(|e| e.0),
            None => wire::answer(fd, libc::ENOENT, 0, b"", NO_FDS).map_err(|e| e.0),
        }
    }
}
