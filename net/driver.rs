//! What a vcpu needs from the kernel, in completion style, and the choice between the two ways to
//! get it. Used by the vcpu loop; the choice is made once per process.

use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use crate::error::{Error, FailureKind, Phase};
use crate::sink::Span;

pub(crate) mod epoll;
#[cfg(feature = "sim")]
pub(crate) mod sim;
pub(crate) mod uring;

/// Most bytes moved by the vcpu itself before it looks at events again, so that what is urgent does not wait for long:
/// about 2 ms. 4 MiB took a third less CPU per GB than 1 MiB (0.24 and 0.36 CPU-s/GB, 8 connections, loopback).
pub(crate) const TURN_BYTES: usize = 4 << 20;
/// Most bytes per turn of the connection that waits longest: none stands still for so long that it looks stalled.
pub(crate) const LAST_BYTES: usize = 256 << 10;

/// Which driver to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring if its self-test passes, else epoll.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// epoll.
    Epoll,
}

/// The three operations of a connection; at most one of each is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The TCP connect.
    Connect,
    /// A send.
    Send,
    /// A receive.
    Recv,
}

impl Op {
    /// Bit in a set of operations.
    pub(crate) fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A connection: its place in the vcpu's slab and how often the place was used with a new socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub key: u32,
    pub generation: u16,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// An operation ended: bytes, or a negative errno.
    Done { tag: Tag, op: Op, result: i32 },
    /// Another thread has woken the vcpu.
    Wakeup,
}

/// One thread's door to the kernel: sockets, what is done with them, and the clocks.
///
/// Every operation ends with exactly one [`Event::Done`]; until then its span belongs to the
/// driver and the socket stays open. Results come from `wait` only.
pub(crate) trait Driver {
    /// Whether sockets and wakeup are made non-blocking.
    const NONBLOCKING: bool;
    type Socket;
    /// A TCP socket for `address`, not connected yet.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn socket(&mut self, address: &SocketAddr, rcvbuf_bytes: Option<usize>) -> io::Result<Self::Socket>;
    fn connect(&mut self, tag: Tag, socket: &Self::Socket, address: &SocketAddr);
    fn send(&mut self, tag: Tag, socket: &Self::Socket, span: Span);
    /// Where more bytes have come than can be moved at once, the lowest ranks are served first.
    fn recv(&mut self, tag: Tag, socket: &Self::Socket, span: Span, rank: u64);
    /// SO_RCVLOWAT: a receive waits for `bytes`, or the end of the stream.
    ///
    /// # Errors
    /// The kernel's refusal; what was set before stays.
    fn set_lowat(&mut self, socket: &Self::Socket, bytes: usize) -> io::Result<()>;
    /// Whether bytes, or the end of the stream, lie in the socket.
    fn has_input(&mut self, socket: &Self::Socket) -> bool;
    /// Asks for the early end of an operation under way; its event still comes.
    fn cancel(&mut self, tag: Tag, op: Op);
    /// Closes a socket with nothing under way on it, after a farewell if there is room for one.
    fn close(&mut self, tag: Tag, socket: Self::Socket, farewell: Option<Span>);
    /// Waits for at least one event, at most `timeout` (`None`: for ever), and appends events.
    ///
    /// # Errors
    /// The kernel's refusal to wait; the vcpu cannot go on.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;

    /// The time that deadlines are made of.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// The wall clock: seconds since 1970.
    fn unix_secs(&self) -> i64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }
}

/// The driver in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chosen {
    Uring,
    Epoll,
}

/// Settles `choice` and says why. io_uring is probed once per process.
pub(crate) fn choose(choice: DriverChoice, workers: usize) -> Result<(Chosen, String), Error> {
    static PROBE: OnceLock<Result<String, String>> = OnceLock::new();
    if choice == DriverChoice::Epoll {
        return Ok((Chosen::Epoll, "asked for".into()));
    }
    match (PROBE.get_or_init(|| uring::probe(workers)), choice) {
        (Ok(why), _) => Ok((Chosen::Uring, why.clone())),
        (Err(why), DriverChoice::Uring) => Err(Error::new(
            FailureKind::Local,
            Phase::Start,
            format!("OSSC_IO asks for io_uring, but {why}: set it to epoll, or unset it"),
        )),
        (Err(why), _) => Ok((Chosen::Epoll, format!("no io_uring: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{Destination, InFile, Pages};
    use crate::sock::Wakeup;
    use crate::splice::memory_file;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::sync::Arc;

    const BYTES: usize = 8 << 20;
    /// Bytes that have come before anything is moved: all sockets are ready then.
    const THERE: usize = 32 << 10;

    /// Three connections that bring more than can be moved in a turn, begun in another order than their ranks': keys in
    /// the order of the first turn, with bytes.
    fn first_turn<D: Driver<Socket = OwnedFd>>(mut driver: D) -> Vec<(u32, usize)> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (file, mut memory) = (memory_file(), vec![0_u8; BYTES]);
        let at = memory.as_mut_ptr();
        let lines: Vec<(TcpStream, TcpStream)> = (0..3)
            .map(|_| {
                let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (far, _) = listener.accept().unwrap();
                far.set_nonblocking(true).unwrap();
                (near, far)
            })
            .collect();
        for (near, far) in &lines {
            let (mut near, body) = (near.try_clone().unwrap(), vec![7; BYTES]);
            // Ends when the other side is closed.
            std::thread::spawn(move || near.write_all(&body));
            let mut seen = vec![0; THERE];
            while far.peek(&mut seen).map_or(true, |bytes| bytes < THERE) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let tag = |key| Tag { key, generation: 1 };
        let sockets: Vec<OwnedFd> = lines.into_iter().map(|(_, far)| far.into()).collect();
        for (key, far) in (0..).zip(&sockets) {
            let place = InFile { fd: file.as_raw_fd(), offset: u64::from(key) * BYTES as u64 };
            let span = Destination::new(at, BYTES, Pages::File(place)).rest(BYTES);
            driver.recv(tag(key), far, span, [9, 5, 2][key as usize]);
        }
        let (mut events, mut turns) = (Vec::new(), 0);
        while events.is_empty() && turns < 100 {
            driver.wait(Some(Duration::from_millis(100)), &mut events).unwrap();
            turns += 1;
        }
        let moved = |event: Event| match event {
            Event::Done { tag, op: Op::Recv, result } => Some((tag.key, usize::try_from(result).unwrap())),
            _ => None,
        };
        events.into_iter().filter_map(moved).collect()
    }

    /// The lowest rank first, then a little of the one that waits longest, as long as the first fills the turn.
    fn judge(turn: &[(u32, usize)]) {
        let order: Vec<u32> = turn.iter().map(|(key, _)| *key).collect();
        assert!(matches!(order[..], [2, 0] | [2, 1, 0]), "{turn:?}");
        let before: usize = turn[..turn.len() - 1].iter().map(|(_, bytes)| bytes).sum();
        assert!(before < TURN_BYTES || turn[turn.len() - 1].1 <= LAST_BYTES, "{turn:?}");
    }

    #[test]
    fn where_more_has_come_than_a_turn_moves_the_lowest_rank_is_first() {
        judge(&first_turn(epoll::Epoll::new(Arc::new(Wakeup::new(true).unwrap())).unwrap()));
        let Ok(uring) = uring::Uring::new(Arc::new(Wakeup::new(false).unwrap()), 3) else { return };
        judge(&first_turn(uring));
    }

    /// A connection whose answer is awaited while a send waits for room: when all is sent and no answer comes, the driver
    /// sleeps.
    fn sleeps_behind_a_send<D: Driver<Socket = OwnedFd>>(mut driver: D) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        // No room is left in the socket.
        let block = vec![7; 1 << 16];
        while (&near).write(&block).is_ok() {}
        near.set_nonblocking(D::NONBLOCKING).unwrap();
        let near = OwnedFd::from(near);
        let (mut answer, request) = (vec![0_u8; 16], vec![1_u8; 16]);
        let tag = Tag { key: 0, generation: 1 };
        driver.recv(tag, &near, Span::to_fill(&mut answer), 1);
        driver.send(tag, &near, Span::to_send(&request));
        let mut events = Vec::new();
        far.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut sink = vec![0; 1 << 16];
        for _ in 0..10_000 {
            while far.read(&mut sink).is_ok_and(|n| n > 0) {}
            driver.wait(Some(Duration::from_millis(10)), &mut events).unwrap();
            if events.iter().any(|event| matches!(event, Event::Done { op: Op::Send, result: 16, .. })) {
                break;
            }
        }
        assert_eq!(events.len(), 1, "{events:?}");
        while far.read(&mut sink).is_ok_and(|n| n > 0) {}
        events.clear();
        let begun = Instant::now();
        driver.wait(Some(Duration::from_millis(300)), &mut events).unwrap();
        assert!(events.is_empty() && begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());
        driver.cancel(tag, Op::Recv);
        while events.is_empty() {
            driver.wait(Some(Duration::from_millis(100)), &mut events).unwrap();
        }
        driver.close(tag, near, None);
    }

    #[test]
    fn a_send_that_had_to_wait_leaves_nothing_to_spin_on() {
        sleeps_behind_a_send(epoll::Epoll::new(Arc::new(Wakeup::new(true).unwrap())).unwrap());
        let Ok(uring) = uring::Uring::new(Arc::new(Wakeup::new(false).unwrap()), 3) else { return };
        sleeps_behind_a_send(uring);
    }
}
