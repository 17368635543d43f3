//! The driver for every kernel and sandbox: epoll, level triggered, non-blocking sockets.
//! Used by the vcpu loop. Never holds a lock and allocates only for a new connection.
#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::{Driver, Event, LAST_BYTES, Op, TURN_BYTES, Tag};
use crate::sink::Span;
use crate::sock::{self, RawAddress, Wakeup};
use crate::splice::Pipe;

/// Readiness reports taken per turn.
const REPORTS: usize = 64;
/// The wakeup's mark among the reports.
const WAKEUP: u64 = u64::MAX;

/// One connection's operations under way.
#[derive(Clone, Copy)]
struct Entry {
    tag: Tag,
    fd: RawFd,
    connect: bool,
    send: Option<Span>,
    recv: Option<Span>,
    /// As in [`Driver::recv`].
    rank: u64,
    /// What the kernel watches for; `None` if the socket is not in the set.
    interest: Option<u32>,
}

/// See the module.
pub(crate) struct Epoll {
    epoll: OwnedFd,
    wakeup: Arc<Wakeup>,
    entries: Vec<Option<Entry>>,
    ready: Vec<Event>,
    pipe: Pipe,
    reports: Vec<libc::epoll_event>,
    /// Keys from here on wait longest.
    cursor: usize,
}

impl Epoll {
    pub fn new(wakeup: Arc<Wakeup>) -> io::Result<Epoll> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and nobody else knows it.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        let nothing = libc::epoll_event { events: 0, u64: 0 };
        let reports = vec![nothing; REPORTS];
        let driver =
            Epoll { epoll, wakeup, entries: Vec::new(), ready: Vec::new(), pipe: Pipe::new(), reports, cursor: 0 };
        driver.control(libc::EPOLL_CTL_ADD, driver.wakeup.fd(), libc::EPOLLIN as u32, WAKEUP)?;
        Ok(driver)
    }

    fn control(&self, action: libc::c_int, fd: RawFd, events: u32, mark: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: mark };
        // SAFETY: `event` outlives the call; the kernel copies it.
        let rc = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), action, fd, &raw mut event) };
        if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The entry of `tag`, made anew for a new socket.
    fn entry(&mut self, tag: Tag, fd: RawFd) -> &mut Entry {
        let at = tag.key as usize;
        if at >= self.entries.len() {
            self.entries.resize(at + 1, None);
        }
        let fresh = Entry { tag, fd, connect: false, send: None, recv: None, rank: 0, interest: None };
        let entry = self.entries[at].get_or_insert(fresh);
        if entry.tag != tag {
            *entry = fresh;
        }
        entry
    }

    /// Makes the kernel watch for exactly what is under way.
    fn watch(&mut self, tag: Tag) {
        let Some(entry) = self.entries.get(tag.key as usize).copied().flatten() else {
            return;
        };
        let output = if entry.connect || entry.send.is_some() { libc::EPOLLOUT } else { 0 };
        let input = if entry.recv.is_some() { libc::EPOLLIN } else { 0 };
        let wanted = (output | input) as u32;
        if entry.interest == Some(wanted) {
            return;
        }
        let action = if entry.interest.is_some() { libc::EPOLL_CTL_MOD } else { libc::EPOLL_CTL_ADD };
        match self.control(action, entry.fd, wanted, u64::from(tag.key)) {
            Ok(()) => self.entry(tag, entry.fd).interest = Some(wanted),
            Err(os) => self.end_all(tag, -os.raw_os_error().unwrap_or(libc::EIO)),
        }
    }

    /// Ends all operations of a connection with `result`.
    fn end_all(&mut self, tag: Tag, result: i32) {
        for op in [Op::Connect, Op::Send, Op::Recv] {
            self.end(tag, op, result);
        }
    }

    /// Ends one operation, if it is under way, with `result`.
    fn end(&mut self, tag: Tag, op: Op, result: i32) {
        let Some(entry) = self.entries.get_mut(tag.key as usize).and_then(Option::as_mut) else {
            return;
        };
        let was = match op {
            Op::Connect => std::mem::take(&mut entry.connect),
            Op::Send => entry.send.take().is_some(),
            Op::Recv => entry.recv.take().is_some(),
        };
        if was {
            self.ready.push(Event::Done { tag, op, result });
        }
    }

    /// A socket is ready for something. At most `bytes_max` are received; how many were.
    fn turn(&mut self, key: usize, events: u32, bytes_max: usize) -> usize {
        let Some(entry) = self.entries.get(key).copied().flatten() else {
            return 0;
        };
        let failed = events & (libc::EPOLLERR | libc::EPOLLHUP) as u32 != 0;
        if !entry.connect && entry.send.is_none() && entry.recv.is_none() {
            // Nothing is under way: an error would be reported again and again.
            self.unwatch(entry.tag);
            return 0;
        }
        if (failed || events & libc::EPOLLOUT as u32 != 0) && entry.connect {
            self.end(entry.tag, Op::Connect, -connect_error(entry.fd));
            return 0;
        }
        if let Some(span) = entry.send.filter(|_| failed || events & libc::EPOLLOUT as u32 != 0) {
            let result = send_now(entry.fd, span);
            if result != -libc::EAGAIN {
                self.end(entry.tag, Op::Send, result);
                // The socket has room from now on, and would say so again and again until the answer comes.
                self.watch(entry.tag);
            }
        }
        let Some(span) = entry.recv.filter(|_| failed || events & libc::EPOLLIN as u32 != 0) else { return 0 };
        // What is there no more at the end of a turn is reported again.
        if bytes_max == 0 {
            return 0;
        }
        let result = match span.file() {
            Some(file) => self.pipe.pass(entry.fd, file, span.len().min(bytes_max)),
            None => recv_now(entry.fd, span, bytes_max),
        };
        if result != -libc::EAGAIN {
            self.end(entry.tag, Op::Recv, result);
        }
        usize::try_from(result).unwrap_or(0)
    }

    fn receives(&self, key: usize) -> bool {
        self.entries.get(key).and_then(Option::as_ref).is_some_and(|entry| entry.recv.is_some())
    }

    fn unwatch(&mut self, tag: Tag) {
        let Some(Some(entry)) = self.entries.get_mut(tag.key as usize) else {
            return;
        };
        if entry.interest.take().is_some() {
            let fd = entry.fd;
            // Cannot fail for a socket that is in the set; closing it would take it out anyway.
            drop(self.control(libc::EPOLL_CTL_DEL, fd, 0, 0));
        }
    }
}

impl Driver for Epoll {
    const NONBLOCKING: bool = true;
    type Socket = OwnedFd;

    fn socket(&mut self, address: &SocketAddr, rcvbuf_bytes: Option<usize>) -> io::Result<OwnedFd> {
        sock::tcp(address, Self::NONBLOCKING, rcvbuf_bytes)
    }

    fn connect(&mut self, tag: Tag, socket: &OwnedFd, address: &SocketAddr) {
        let fd = socket.as_raw_fd();
        let (raw, len) = RawAddress::of(address);
        self.entry(tag, fd).connect = true;
        // SAFETY: `raw` outlives the call and `len` is the length of its form.
        let rc = unsafe { libc::connect(fd, (&raw const raw).cast(), len) };
        let errno = if rc == 0 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) };
        match errno {
            libc::EINPROGRESS | libc::EINTR => self.watch(tag),
            _ => self.end(tag, Op::Connect, -errno),
        }
    }

    fn send(&mut self, tag: Tag, socket: &OwnedFd, span: Span) {
        let fd = socket.as_raw_fd();
        self.entry(tag, fd).send = Some(span);
        match send_now(fd, span) {
            result if result == -libc::EAGAIN => self.watch(tag),
            result => self.end(tag, Op::Send, result),
        }
    }

    fn recv(&mut self, tag: Tag, socket: &OwnedFd, span: Span, rank: u64) {
        let entry = self.entry(tag, socket.as_raw_fd());
        (entry.recv, entry.rank) = (Some(span), rank);
        self.watch(tag);
    }

    fn set_lowat(&mut self, socket: &OwnedFd, bytes: usize) -> io::Result<()> {
        sock::set_lowat(socket.as_raw_fd(), bytes)
    }

    fn has_input(&mut self, socket: &OwnedFd) -> bool {
        sock::has_input(socket.as_raw_fd())
    }

    fn cancel(&mut self, tag: Tag, op: Op) {
        self.end(tag, op, -libc::ECANCELED);
    }

    fn close(&mut self, tag: Tag, socket: OwnedFd, farewell: Option<Span>) {
        if let Some(span) = farewell {
            sock::send_if_room(socket.as_raw_fd(), span);
        }
        self.unwatch(tag);
        if let Some(entry) = self.entries.get_mut(tag.key as usize) {
            *entry = None;
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let millis = match timeout {
            _ if !self.ready.is_empty() => 0,
            None => -1,
            // Rounded up: a deadline must have passed when the vcpu wakes for it.
            Some(wait) => libc::c_int::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX),
        };
        // SAFETY: the buffer has REPORTS places and lives as long as the driver.
        let n = unsafe {
            libc::epoll_wait(self.epoll.as_raw_fd(), self.reports.as_mut_ptr(), REPORTS as libc::c_int, millis)
        };
        if n < 0 {
            let os = io::Error::last_os_error();
            if os.kind() != io::ErrorKind::Interrupted {
                return Err(os);
            }
        }
        let reported = usize::try_from(n).unwrap_or(0);
        let entries = &self.entries;
        let rank = |key: u64| entries.get(key as usize).and_then(Option::as_ref).map_or(0, |entry| entry.rank);
        self.reports[..reported].sort_unstable_by_key(|report| rank(report.u64));
        let mut left = TURN_BYTES;
        let mut waits: Option<libc::epoll_event> = None;
        for at in 0..reported {
            let report = self.reports[at];
            if report.u64 == WAKEUP {
                drain(self.wakeup.fd());
                self.ready.push(Event::Wakeup);
            } else {
                let key = report.u64 as usize;
                let bytes_max = if left > 0 { left.max(LAST_BYTES) } else { 0 };
                left -= self.turn(key, report.events, bytes_max).min(left);
                let since = |report: libc::epoll_event| (report.u64 as usize).wrapping_sub(self.cursor);
                if bytes_max == 0 && self.receives(key) && waits.is_none_or(|other| since(report) < since(other)) {
                    waits = Some(report);
                }
            }
        }
        if let Some(report) = waits {
            self.cursor = report.u64 as usize + 1;
            self.turn(report.u64 as usize, report.events, LAST_BYTES);
        }
        events.append(&mut self.ready);
        Ok(())
    }
}

/// Bytes sent, or a negative errno.
fn send_now(fd: RawFd, span: Span) -> i32 {
    // SAFETY: the span stays readable until the operation's event (contract of Driver).
    let n = unsafe { libc::send(fd, span.at().cast(), span.len(), libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
    outcome(n)
}

/// Bytes received, or a negative errno.
fn recv_now(fd: RawFd, span: Span, bytes_max: usize) -> i32 {
    let len = span.len().min(bytes_max);
    // SAFETY: the span stays writable and ours until the operation's event (contract of Driver).
    let n = unsafe { libc::recv(fd, span.at().cast(), len, libc::MSG_DONTWAIT) };
    outcome(n)
}

fn outcome(n: libc::ssize_t) -> i32 {
    match i32::try_from(n) {
        Ok(n) if n >= 0 => n,
        _ => match io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) {
            // Try again when the socket is ready again.
            libc::EINTR => -libc::EAGAIN,
            errno => -errno,
        },
    }
}

/// SO_ERROR: how a connect ended.
fn connect_error(fd: RawFd) -> i32 {
    let mut errno: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both outlive the call and `len` is the size of `errno`.
    let rc = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut errno).cast(), &raw mut len) };
    if rc == 0 { errno } else { io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) }
}

/// Sets the wakeup's counter back to zero.
fn drain(fd: RawFd) {
    let mut count = 0_u64;
    // SAFETY: eight bytes are written to `count`, which outlives the call. An empty counter is
    // EAGAIN, which is as good.
    unsafe { libc::read(fd, (&raw mut count).cast(), 8) };
}
