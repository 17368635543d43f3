//! A driver without a kernel: what a vcpu posts stays here for a simulation to look at, and ends as and when
//! that says. Used by [`crate::sim`] alone; the product is built without it. It decides nothing itself.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Driver, Event, Op, Tag};
use crate::sink::Span;

/// Number of a socket, never used again in the same simulation.
pub type Link = u32;

/// Wall clock at the time 0 of every simulation: seconds since 1970.
const EPOCH_SECS: i64 = 1_700_000_000;

thread_local! {
    static ORIGIN: Instant = Instant::now();
    static ELAPSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// This thread's simulated time.
pub fn now() -> Instant {
    ORIGIN.with(|origin| *origin) + ELAPSED.get()
}

/// The simulated wall clock.
fn unix_secs() -> i64 {
    EPOCH_SECS + ELAPSED.get().as_secs() as i64
}

/// Sets this thread's simulated time.
pub fn set_now(elapsed: Duration) {
    ELAPSED.set(elapsed);
}

/// What a vcpu did on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// A connect is under way.
    Connect(Link, SocketAddr),
    /// A send is under way.
    Send(Link),
    /// A receive is under way.
    Recv(Link),
    /// SO_RCVLOWAT has changed.
    Lowat(Link),
    /// The operation is to end early.
    Cancel(Link, Op),
    /// The socket is closed.
    Close(Link),
}

/// One socket and what is under way on it.
struct Line {
    link: Link,
    tag: Option<Tag>,
    connect: bool,
    send: Option<Span>,
    recv: Option<Span>,
    rank: u64,
    lowat: usize,
}

/// See the module.
pub(crate) struct Sim {
    lines: Vec<Line>,
    next: Link,
    ready: Vec<Event>,
    posted: Vec<Posted>,
    /// Sockets that are refused from now on (EMFILE).
    refusals: u32,
}

impl Sim {
    /// Its sockets are numbered from `first` on.
    pub fn new(first: Link) -> Sim {
        Sim { lines: Vec::new(), next: first, ready: Vec::new(), posted: Vec::new(), refusals: 0 }
    }

    pub fn refuse(&mut self, sockets: u32) {
        self.refusals = sockets;
    }

    /// What the vcpu has done since the last call.
    pub fn take_posted(&mut self) -> Vec<Posted> {
        std::mem::take(&mut self.posted)
    }

    pub fn take_ready(&mut self, events: &mut Vec<Event>) {
        events.append(&mut self.ready);
    }

    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub fn sockets(&self) -> usize {
        self.lines.len()
    }

    /// Whether an operation is under way.
    pub fn pends(&self, link: Link, op: Op) -> bool {
        self.line(link).is_some_and(|line| match op {
            Op::Connect => line.connect,
            Op::Send => line.send.is_some(),
            Op::Recv => line.recv.is_some(),
        })
    }

    /// SO_RCVLOWAT of a socket, in bytes.
    pub fn lowat(&self, link: Link) -> usize {
        self.line(link).map_or(1, |line| line.lowat)
    }

    /// Room of the receive under way, in bytes.
    pub fn space(&self, link: Link) -> usize {
        self.line(link).and_then(|line| line.recv).map_or(0, |span| span.len())
    }

    /// The rank of the receive under way.
    pub fn rank(&self, link: Link) -> Option<u64> {
        self.line(link).filter(|line| line.recv.is_some()).map(|line| line.rank)
    }

    /// The tag of what was done last on a socket.
    pub fn tag(&self, link: Link) -> Option<Tag> {
        self.line(link).and_then(|line| line.tag)
    }

    /// Where the receive under way goes to.
    pub fn place(&self, link: Link) -> Option<usize> {
        self.line(link).and_then(|line| line.recv).map(|span| span.at() as usize)
    }

    /// Ends an operation with `result`: bytes, or a negative errno.
    pub fn end(&mut self, link: Link, op: Op, result: i32) {
        let Some(line) = self.lines.iter_mut().find(|line| line.link == link) else { return };
        let was = match op {
            Op::Connect => std::mem::take(&mut line.connect),
            Op::Send => line.send.take().is_some(),
            Op::Recv => line.recv.take().is_some(),
        };
        if let (true, Some(tag)) = (was, line.tag) {
            self.ready.push(Event::Done { tag, op, result });
        }
    }

    /// Ends the send under way with at most `max` of its bytes, which `take` gets.
    pub fn sent(&mut self, link: Link, max: usize, take: impl FnOnce(&[u8])) {
        let Some(span) = self.line(link).and_then(|line| line.send) else { return };
        let n = span.len().min(max);
        // SAFETY: the vcpu keeps the span readable until the operation's event (contract of Driver).
        take(unsafe { std::slice::from_raw_parts(span.at(), n) });
        self.end(link, Op::Send, n as i32);
    }

    /// Ends the receive under way with at most `max` bytes, which `fill` writes.
    pub fn received(&mut self, link: Link, max: usize, fill: impl FnOnce(&mut [u8])) {
        let Some(span) = self.line(link).and_then(|line| line.recv) else { return };
        let n = span.len().min(max);
        // SAFETY: the span is writable and the driver's own until the operation's event (contract of Driver).
        fill(unsafe { std::slice::from_raw_parts_mut(span.at(), n) });
        self.end(link, Op::Recv, n as i32);
    }

    fn line(&self, link: Link) -> Option<&Line> {
        self.lines.iter().find(|line| line.link == link)
    }

    fn line_mut(&mut self, link: Link, tag: Tag) -> &mut Line {
        let line = self.lines.iter_mut().find(|line| line.link == link).expect("an operation on a closed socket");
        line.tag = Some(tag);
        line
    }
}

impl Driver for Sim {
    const NONBLOCKING: bool = false;
    type Socket = Link;

    fn socket(&mut self, _address: &SocketAddr, _rcvbuf_bytes: Option<usize>) -> io::Result<Link> {
        if self.refusals > 0 {
            self.refusals -= 1;
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let link = self.next;
        self.next += 1;
        self.lines.push(Line { link, tag: None, connect: false, send: None, recv: None, rank: 0, lowat: 1 });
        Ok(link)
    }

    fn connect(&mut self, tag: Tag, link: &Link, address: &SocketAddr) {
        let line = self.line_mut(*link, tag);
        assert!(!line.connect, "two connects on one socket");
        line.connect = true;
        self.posted.push(Posted::Connect(*link, *address));
    }

    fn send(&mut self, tag: Tag, link: &Link, span: Span) {
        let before = self.line_mut(*link, tag).send.replace(span);
        assert!(before.is_none(), "two sends at once on one socket");
        self.posted.push(Posted::Send(*link));
    }

    fn recv(&mut self, tag: Tag, link: &Link, span: Span, rank: u64) {
        assert!(span.len() > 0, "a receive into nothing");
        let line = self.line_mut(*link, tag);
        line.rank = rank;
        let before = line.recv.replace(span);
        assert!(before.is_none(), "two receives at once on one socket");
        self.posted.push(Posted::Recv(*link));
    }

    fn set_lowat(&mut self, link: &Link, bytes: usize) -> io::Result<()> {
        if let Some(line) = self.lines.iter_mut().find(|line| line.link == *link) {
            line.lowat = bytes;
            self.posted.push(Posted::Lowat(*link));
        }
        Ok(())
    }

    fn has_input(&mut self, _socket: &Link) -> bool {
        // What lies there is the simulation's: the connection finds it.
        false
    }

    fn cancel(&mut self, tag: Tag, op: Op) {
        let found = self.lines.iter().find(|line| line.tag == Some(tag)).map(|line| line.link);
        self.posted.extend(found.map(|link| Posted::Cancel(link, op)));
    }

    fn close(&mut self, _tag: Tag, link: Link, _farewell: Option<Span>) {
        let line = self.line(link).expect("a socket is closed twice");
        let busy = line.connect || line.send.is_some() || line.recv.is_some();
        assert!(!busy, "a socket is closed with an operation under way");
        self.lines.retain(|line| line.link != link);
        self.posted.push(Posted::Close(link));
    }

    /// Never waits: the simulation decides when the vcpu goes on.
    fn wait(&mut self, _timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.take_ready(events);
        Ok(())
    }

    fn now(&self) -> Instant {
        now()
    }

    fn unix_secs(&self) -> i64 {
        unix_secs()
    }
}
