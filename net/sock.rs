//! Socket and thread system calls that the standard library has no name for: sockets that are not
//! connected yet, SO_RCVLOWAT, eventfd, the signal mask. Used by vcpus and drivers.
//! Never blocks.
#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::sink::Span;

/// A TCP socket for `address`, close-on-exec, without Nagle's delay.
pub(crate) fn tcp(address: &SocketAddr, nonblocking: bool, rcvbuf_bytes: Option<usize>) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mode = if nonblocking { libc::SOCK_NONBLOCK } else { 0 };
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | mode, 0) };
    let fd = owned(fd)?;
    set_option(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    if let Some(bytes) = rcvbuf_bytes {
        set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)?;
    }
    Ok(fd)
}

/// SO_RCVLOWAT: a receive waits for `bytes`, or the end of the stream.
pub(crate) fn set_lowat(fd: RawFd, bytes: usize) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, bytes)
}

/// Whether its calls wait.
pub(crate) fn set_nonblocking(fd: RawFd, nonblocking: bool) {
    let flags = if nonblocking { libc::O_RDWR | libc::O_NONBLOCK } else { libc::O_RDWR };
    // SAFETY: no pointers. Of a socket's status flags we set no others; this one can always be set.
    unsafe { libc::fcntl(fd, libc::F_SETFL, flags) };
}

/// Sends what fits without waiting; the socket is closed next, so nobody asks how it went.
pub(crate) fn send_if_room(fd: RawFd, span: Span) {
    // SAFETY: the caller owns the bytes of the span and does not move them during the call.
    unsafe { libc::send(fd, span.at().cast(), span.len(), libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
}

/// Whether bytes, or the end of the stream, lie in a socket.
pub(crate) fn has_input(fd: RawFd) -> bool {
    let mut byte = 0_u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: one byte is written to `byte`, which outlives the call.
    let n = unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, flags) };
    n >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock
}

fn set_option(fd: RawFd, level: libc::c_int, name: libc::c_int, value: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(value).unwrap_or(libc::c_int::MAX);
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` outlives the call and `len` is its size.
    let rc = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call before just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An address in the kernel's form.
#[derive(Clone, Copy)]
pub(crate) union RawAddress {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl RawAddress {
    /// The form and its length in bytes.
    pub fn of(address: &SocketAddr) -> (RawAddress, libc::socklen_t) {
        match address {
            SocketAddr::V4(a) => {
                let raw = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: a.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(a.ip().octets()) },
                    sin_zero: [0; 8],
                };
                (RawAddress { v4: raw }, size_of::<libc::sockaddr_in>() as libc::socklen_t)
            }
            SocketAddr::V6(a) => {
                let raw = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: a.port().to_be(),
                    sin6_flowinfo: a.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: a.ip().octets() },
                    sin6_scope_id: a.scope_id(),
                };
                (RawAddress { v6: raw }, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
            }
        }
    }
}

/// An eventfd that wakes one vcpu.
#[derive(Debug)]
pub(crate) struct Wakeup(OwnedFd);

impl Wakeup {
    /// io_uring wants it blocking (a non-blocking one is never polled), epoll the other way.
    pub fn new(nonblocking: bool) -> io::Result<Wakeup> {
        let mode = if nonblocking { libc::EFD_NONBLOCK } else { 0 };
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | mode) };
        owned(fd).map(Wakeup)
    }

    /// Wakes the vcpu. Cannot block: the counter is read by every wake and never gets full.
    pub fn wake(&self) {
        let one = 1_u64;
        // SAFETY: eight bytes are read from `one`, which outlives the call.
        let rc = unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
        debug_assert!(rc == 8 || io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock);
    }

    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Runs `body` with all signals blocked, so that threads it starts never run a signal handler.
pub(crate) fn with_signals_blocked<T>(body: impl FnOnce() -> T) -> T {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initializes the set it is given.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: `all` is initialized and `before` is written by the call.
    let rc = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    let result = body();
    if rc == 0 {
        // SAFETY: the call above succeeded, so `before` is initialized.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    }
    result
}
