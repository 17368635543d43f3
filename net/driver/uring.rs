//! The driver on io_uring: one ring per vcpu, one receive per connection straight into its place.
//! Used by the vcpu loop, made on the thread that uses it (SINGLE_ISSUER). The only file that
//! knows the ring. Never trusted before its self-test passed.
#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode, squeue};

use super::{Driver, Event, LAST_BYTES, Op, TURN_BYTES, Tag};
use crate::sink::Span;
use crate::sock::{self, RawAddress, Wakeup};
use crate::splice::Pipe;

/// Smallest useful ring.
const ENTRIES_MIN: u32 = 16;
/// Completion places; several per connection, so that bursts never overflow.
const COMPLETIONS: u32 = 256;
/// Ring memory is given back late by processes that just ended (measured): wait and try again.
const MEMORY_TRIES: u32 = 3;
const MEMORY_WAIT: Duration = Duration::from_millis(20);
/// Marks of entries that belong to no connection.
const WAKEUP: u64 = u64::MAX;
const CANCEL: u64 = u64::MAX - 1;

/// See the module.
pub(crate) struct Uring {
    ring: IoUring,
    wakeup: Arc<Wakeup>,
    /// Where the kernel writes the wakeup's counter. Never freed: a ring is taken down after its
    /// drop returned, and the read of the wakeup is always under way.
    wakeup_count: &'static mut u64,
    /// Addresses of connects under way, by key; boxed for the same reason.
    addresses: Vec<Option<Box<RawAddress>>>,
    pipe: Pipe,
    /// By key.
    splices: Vec<Splice>,
    /// Those that have bytes, which nobody has moved yet, in the order in which they came.
    ready: Vec<Tag>,
    /// Ends that the ring does not tell.
    ended: Vec<Event>,
}

/// A connection whose bytes are spliced. The ring itself would do that with a thread of the kernel's: it only says
/// when bytes are there.
#[derive(Clone, Copy, Default)]
struct Splice {
    fd: RawFd,
    /// What is under way.
    span: Option<Span>,
    /// As in [`Driver::recv`].
    rank: u64,
    /// The socket does not block now. For receives by the ring it has to.
    nonblocking: bool,
}

impl Uring {
    pub fn new(wakeup: Arc<Wakeup>, workers: usize) -> io::Result<Uring> {
        let (ring, _) = build(workers)?;
        let mut driver = Uring {
            ring,
            wakeup,
            wakeup_count: Box::leak(Box::new(0)),
            addresses: Vec::new(),
            pipe: Pipe::new(),
            splices: Vec::new(),
            ready: Vec::with_capacity(workers),
            ended: Vec::new(),
        };
        driver.arm_wakeup();
        Ok(driver)
    }

    fn arm_wakeup(&mut self) {
        let at = &raw mut *self.wakeup_count;
        let entry = opcode::Read::new(Fd(self.wakeup.fd()), at.cast(), 8).build().user_data(WAKEUP);
        self.push(&entry);
    }

    /// Queues an entry; a full queue is submitted first.
    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: whatever the entry points to stays in place until its completion: spans by
            // the contract of Driver, the wakeup's counter because it is never freed,
            // addresses because they are boxed and dropped only after their connect has ended.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            // EBUSY and EAGAIN pass when completions are taken or memory is there; entries are
            // consumed in the end, since the completion queue does not drop (NODROP).
            if self.ring.submit().is_err() {
                std::thread::yield_now();
            }
        }
    }

    fn collect(&mut self, events: &mut Vec<Event>) {
        let mut woken = false;
        for completion in self.ring.completion() {
            match completion.user_data() {
                WAKEUP => woken = true,
                CANCEL => {}
                data => {
                    let Some((tag, op)) = unmark(data) else { continue };
                    let result = completion.result();
                    let splice = self.splices.get_mut(tag.key as usize).filter(|_| op == Op::Recv);
                    match splice.map(|splice| &mut splice.span) {
                        Some(Some(_)) if result >= 0 => self.ready.push(tag),
                        span => {
                            span.and_then(Option::take);
                            events.push(Event::Done { tag, op, result });
                        }
                    }
                }
            }
        }
        self.serve(events);
        events.append(&mut self.ended);
        if woken {
            events.push(Event::Wakeup);
            self.arm_wakeup();
        }
    }

    /// Moves bytes of those that have some: of the lowest ranks, and a few of the one that waits longest.
    fn serve(&mut self, events: &mut Vec<Event>) {
        let mut left = TURN_BYTES;
        while left > 0
            && let Some(at) = (0..self.ready.len()).min_by_key(|at| self.splices[self.ready[*at].key as usize].rank)
        {
            left -= self.splice_some(at, left.max(LAST_BYTES), events).min(left);
        }
        if !self.ready.is_empty() {
            self.splice_some(0, LAST_BYTES, events);
        }
    }

    /// Moves at most so many bytes of a ready one, which is none any more; how many. If there were none in spite of the
    /// poll it is polled again.
    fn splice_some(&mut self, at: usize, bytes_max: usize, events: &mut Vec<Event>) -> usize {
        let tag = self.ready.remove(at);
        let splice = &mut self.splices[tag.key as usize];
        let Some((span, file)) = splice.span.take().and_then(|span| Some((span, span.file()?))) else { return 0 };
        let result = self.pipe.pass(splice.fd, file, span.len().min(bytes_max));
        if result == -libc::EAGAIN {
            splice.span = Some(span);
            let fd = splice.fd;
            self.push_poll(tag, fd);
            return 0;
        }
        events.push(Event::Done { tag, op: Op::Recv, result });
        usize::try_from(result).unwrap_or(0)
    }

    fn push_poll(&mut self, tag: Tag, fd: RawFd) {
        let entry = opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).build().user_data(mark(tag, Op::Recv));
        self.push(&entry);
    }

    fn splice(&mut self, tag: Tag) -> &mut Splice {
        let at = tag.key as usize;
        if at >= self.splices.len() {
            self.splices.resize(at + 1, Splice::default());
        }
        &mut self.splices[at]
    }

    /// Sets whether the socket blocks.
    fn set_nonblocking(&mut self, tag: Tag, fd: RawFd, nonblocking: bool) {
        let splice = self.splice(tag);
        if splice.nonblocking != nonblocking {
            splice.nonblocking = nonblocking;
            sock::set_nonblocking(fd, nonblocking);
        }
    }
}

impl Driver for Uring {
    const NONBLOCKING: bool = false;
    type Socket = OwnedFd;

    fn socket(&mut self, address: &SocketAddr, rcvbuf_bytes: Option<usize>) -> io::Result<OwnedFd> {
        sock::tcp(address, Self::NONBLOCKING, rcvbuf_bytes)
    }

    fn connect(&mut self, tag: Tag, socket: &OwnedFd, address: &SocketAddr) {
        let (raw, len) = RawAddress::of(address);
        let at = tag.key as usize;
        if at >= self.addresses.len() {
            self.addresses.resize_with(at + 1, || None);
        }
        let place: *const RawAddress = &**self.addresses[at].insert(Box::new(raw));
        let entry =
            opcode::Connect::new(Fd(socket.as_raw_fd()), place.cast(), len).build().user_data(mark(tag, Op::Connect));
        self.push(&entry);
    }

    fn send(&mut self, tag: Tag, socket: &OwnedFd, span: Span) {
        let len = u32::try_from(span.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(Fd(socket.as_raw_fd()), span.at().cast_const(), len)
            .flags(libc::MSG_NOSIGNAL)
            .build()
            .user_data(mark(tag, Op::Send));
        self.push(&entry);
    }

    fn recv(&mut self, tag: Tag, socket: &OwnedFd, span: Span, rank: u64) {
        let fd = socket.as_raw_fd();
        self.set_nonblocking(tag, fd, span.file().is_some());
        if span.file().is_some() {
            let splice = self.splice(tag);
            (splice.fd, splice.span, splice.rank) = (fd, Some(span), rank);
            return self.push_poll(tag, fd);
        }
        let len = u32::try_from(span.len()).unwrap_or(u32::MAX);
        // No MSG_WAITALL: with SO_RCVLOWAT it hangs (engine.md section 2).
        let entry = opcode::Recv::new(Fd(fd), span.at(), len).build().user_data(mark(tag, Op::Recv));
        self.push(&entry);
    }

    fn set_lowat(&mut self, socket: &OwnedFd, bytes: usize) -> io::Result<()> {
        sock::set_lowat(socket.as_raw_fd(), bytes)
    }

    fn has_input(&mut self, socket: &OwnedFd) -> bool {
        sock::has_input(socket.as_raw_fd())
    }

    fn cancel(&mut self, tag: Tag, op: Op) {
        if let (Op::Recv, Some(splice)) = (op, self.splices.get_mut(tag.key as usize)) {
            // A poll that has just ended is not followed by another, which nobody would cancel.
            splice.span = None;
            if let Some(at) = self.ready.iter().position(|ready| *ready == tag) {
                self.ready.remove(at);
                return self.ended.push(Event::Done { tag, op, result: -libc::ECANCELED });
            }
        }
        let entry = opcode::AsyncCancel::new(mark(tag, op)).build().user_data(CANCEL);
        self.push(&entry);
    }

    fn close(&mut self, tag: Tag, socket: OwnedFd, farewell: Option<Span>) {
        if let Some(span) = farewell {
            sock::send_if_room(socket.as_raw_fd(), span);
        }
        if let Some(address) = self.addresses.get_mut(tag.key as usize) {
            *address = None;
        }
        if let Some(splice) = self.splices.get_mut(tag.key as usize) {
            *splice = Splice::default();
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        // With something left to do, only what is there already is taken.
        let busy = !self.ready.is_empty() || !self.ended.is_empty();
        let outcome = match if busy { Some(Duration::ZERO) } else { timeout } {
            None => self.ring.submit_and_wait(1),
            Some(timeout) => {
                let time = Timespec::from(timeout);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
        };
        match outcome.map_err(|os| (os.raw_os_error(), os)) {
            Ok(_) | Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => {}
            Err((_, os)) => return Err(os),
        }
        self.collect(events);
        Ok(())
    }
}

fn mark(tag: Tag, op: Op) -> u64 {
    u64::from(tag.key) << 32 | u64::from(tag.generation) << 8 | op as u64
}

fn unmark(data: u64) -> Option<(Tag, Op)> {
    let op = match data & 0xff {
        0 => Op::Connect,
        1 => Op::Send,
        2 => Op::Recv,
        _ => return None,
    };
    Some((Tag { key: (data >> 32) as u32, generation: (data >> 8) as u16 }, op))
}

/// A ring of the best kind the kernel takes, and its description.
fn build(workers: usize) -> io::Result<(IoUring, String)> {
    // Receive, send and cancel may all be queued at once for each connection.
    let wanted = u32::try_from(workers * 2 + 2).unwrap_or(u32::MAX).next_power_of_two().clamp(64, 1024);
    let mut entries = wanted;
    let mut tries = 0;
    loop {
        match build_flags(entries) {
            Ok(found) => return Ok(found),
            Err(os) if os.raw_os_error() == Some(libc::ENOMEM) && tries < MEMORY_TRIES => {
                tries += 1;
                std::thread::sleep(MEMORY_WAIT);
            }
            Err(os) if os.raw_os_error() == Some(libc::ENOMEM) && entries > ENTRIES_MIN => entries /= 2,
            Err(os) => return Err(os),
        }
    }
}

/// Tries the flags from the newest kernels to none; only EINVAL goes on to older ones.
fn build_flags(entries: u32) -> io::Result<(IoUring, String)> {
    let mut refused = io::Error::from_raw_os_error(libc::EINVAL);
    for flags in ["SINGLE_ISSUER|DEFER_TASKRUN|SUBMIT_ALL", "COOP_TASKRUN", "no flags"] {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_cqsize(COMPLETIONS.max(entries * 4));
        match flags {
            "COOP_TASKRUN" => builder.setup_coop_taskrun(),
            "no flags" => &mut builder,
            _ => builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all(),
        };
        match builder.build(entries) {
            Ok(ring) => return Ok((ring, format!("{flags}, {entries} entries"))),
            Err(os) if os.raw_os_error() == Some(libc::EINVAL) => refused = os,
            Err(os) => return Err(os),
        }
    }
    Err(refused)
}

/// Whether io_uring can be used here, and what it is like; else why not.
pub(crate) fn probe(workers: usize) -> Result<String, String> {
    let (mut ring, kind) = build(workers).map_err(|os| match os.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            format!("it is blocked here by seccomp or kernel.io_uring_disabled ({os})")
        }
        Some(libc::ENOSYS) => format!("the kernel has none ({os})"),
        Some(libc::ENOMEM) => format!("RLIMIT_MEMLOCK is too small for a ring ({os})"),
        _ => format!("a ring cannot be made ({os})"),
    })?;
    let params = ring.params();
    for (there, name) in [
        (params.is_feature_fast_poll(), "FAST_POLL"),
        (params.is_feature_nodrop(), "NODROP"),
        (params.is_feature_ext_arg(), "EXT_ARG"),
    ] {
        if !there {
            return Err(format!("the kernel's io_uring lacks {name}"));
        }
    }
    let mut supported = Probe::new();
    ring.submitter()
        .register_probe(&mut supported)
        .map_err(|os| format!("its operations cannot be asked for ({os})"))?;
    let needed = [
        opcode::Connect::CODE,
        opcode::Send::CODE,
        opcode::Recv::CODE,
        opcode::Read::CODE,
        opcode::PollAdd::CODE,
        opcode::AsyncCancel::CODE,
    ];
    if let Some(code) = needed.into_iter().find(|code| !supported.is_supported(*code)) {
        return Err(format!("the kernel's io_uring lacks operation {code}"));
    }
    self_test(&mut ring).map_err(|os| format!("its self-test failed ({os})"))?;
    Ok(format!("self-test passed: {kind}"))
}

/// A receive that has to wait for its bytes, as in real use: a sandbox may accept the setup and
/// fail later.
fn self_test(ring: &mut IoUring) -> io::Result<()> {
    use std::io::Write as _;
    let (mut near, far) = std::os::unix::net::UnixStream::pair()?;
    let mut bytes = Box::new([0_u8; 4]);
    let entry = opcode::Recv::new(Fd(far.as_raw_fd()), bytes.as_mut_ptr(), 4).build().user_data(7);
    // SAFETY: `bytes` lives until the completion: every way out below waits for it or, if that
    // fails, leaks the buffer.
    if unsafe { ring.submission().push(&entry) }.is_err() {
        return Err(io::Error::other("the queue is full"));
    }
    let outcome = ring.submit().and_then(|_| near.write_all(b"ring")).and_then(|()| {
        let time = Timespec::from(Duration::from_secs(1));
        ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time))
    });
    let completion = ring.completion().next();
    let Some(completion) = completion else {
        Box::leak(bytes);
        return Err(outcome.err().unwrap_or_else(|| io::Error::other("no completion")));
    };
    match (completion.user_data(), completion.result()) {
        (7, 4) if *bytes == *b"ring" => Ok(()),
        (_, result) if result < 0 => Err(io::Error::from_raw_os_error(-result)),
        (_, result) => Err(io::Error::other(format!("{result} bytes instead of 4, or wrong ones"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{Destination, InFile, Pages};
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_cancelled_splice_ends_although_its_poll_had_ended_before() {
        let Ok(mut driver) = Uring::new(Arc::new(Wakeup::new(false).unwrap()), 1) else { return };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let mut thief = far.try_clone().unwrap();
        let socket = OwnedFd::from(far);
        let (file, mut memory) = (crate::splice::memory_file(), [0_u8; 8]);
        let pages = Pages::File(InFile { fd: file.as_raw_fd(), offset: 0 });
        let tag = Tag { key: 0, generation: 1 };
        driver.recv(tag, &socket, Destination::new(memory.as_mut_ptr(), 8, pages).rest(8), 0);
        near.write_all(b"8 bytes.").unwrap();
        driver.ring.submit_and_wait(1).unwrap();
        // Readable it was, and is no more.
        thief.read_exact(&mut [0; 8]).unwrap();
        driver.cancel(tag, Op::Recv);
        let mut events = Vec::new();
        for _ in 0..3 {
            driver.wait(Some(Duration::from_millis(100)), &mut events).unwrap();
        }
        assert!(matches!(events[..], [Event::Done { op: Op::Recv, .. }]), "{events:?}");
    }

    #[test]
    fn marks_come_back() {
        for op in [Op::Connect, Op::Send, Op::Recv] {
            for (key, generation) in [(0, 0), (7, u16::MAX), (u32::MAX >> 1, 1)] {
                let tag = Tag { key, generation };
                assert_eq!(unmark(mark(tag, op)), Some((tag, op)));
            }
        }
    }
}
