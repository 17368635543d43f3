//! Descriptors that come and go: what was remembered of their numbers is forgotten.

use super::{Arguments, renewed, stdin};
use crate::marks;
use crate::numbers;
use crate::real;
use core::ffi::{c_int, c_long, c_uint};
use libc::{c_void, cmsghdr, msghdr, ssize_t};

hooks! {
    fn close(fd: c_int) -> c_int { marks::forget(fd); stdin::closing(fd, || real::close(fd)) }
    fn __close(fd: c_int) -> c_int { marks::forget(fd); stdin::closing(fd, || real::__close(fd)) }
    fn dup(fd: c_int) -> c_int { named(fd, real::dup(fd)) }
    fn dup2(fd: c_int, target: c_int) -> c_int { named(fd, stdin::closing(target, || real::dup2(fd, target))) }
    fn __dup2(fd: c_int, target: c_int) -> c_int { named(fd, stdin::closing(target, || real::__dup2(fd, target))) }
    fn dup3(fd: c_int, target: c_int, flags: c_int) -> c_int { named(fd, stdin::closing(target, || real::dup3(fd, target, flags))) }
    fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int { commanded(fd, real::fcntl(fd, command, argument), command) }
    fn __fcntl(fd: c_int, command: c_int, argument: usize) -> c_int { commanded(fd, real::__fcntl(fd, command, argument), command) }
    fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int { commanded(fd, real::fcntl64(fd, command, argument), command) }
    fn close_range(from: c_uint, to: c_uint, flags: c_int) -> c_int { closed_range(from, to, flags); real::close_range(from, to, flags) }
    fn closefrom(from: c_int) -> () { let_go(from.max(0) as u32, u32::MAX); marks::forget_range(from.max(0) as u32, u32::MAX); real::closefrom(from) }
    fn recvmsg(socket: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
        let got = real::recvmsg(socket, message, flags);
        if got >= 0 {
            forget_received(message);
        }
        got
    }
    fn recvmmsg(socket: c_int, messages: *mut libc::mmsghdr, len: c_uint, flags: c_int, time: *mut libc::timespec) -> c_int {
        let got = real::recvmmsg(socket, messages, len, flags, time);
        for index in 0..got.max(0) as usize {
            forget_received(messages.wrapping_add(index).cast());
        }
        got
    }
}

/// The same by their numbers in `syscall()`.
#[inline]
pub(super) fn by_number(number: c_long, all: Arguments) -> Option<c_long> {
    let [a, b, c, d, e, _] = all;
    let fd = a as c_int;
    Some(match number {
        libc::SYS_close => close(fd).into(),
        libc::SYS_close_range => close_range(a as c_uint, b as c_uint, c as c_int).into(),
        libc::SYS_dup => dup(fd).into(),
        libc::SYS_dup2 => dup2(fd, b as c_int).into(),
        libc::SYS_recvmsg => recvmsg(fd, b as *mut msghdr, c as c_int) as c_long,
        libc::SYS_recvmmsg => {
            recvmmsg(fd, b as *mut libc::mmsghdr, c as c_uint, d as c_int, e as *mut libc::timespec).into()
        }
        libc::SYS_dup3 => dup3(fd, b as c_int, c as c_int).into(),
        // Not the C library's `fcntl`, which answers F_GETOWN in another way.
        libc::SYS_fcntl => {
            let got = real::by_number(number, all);
            commanded(fd, got as c_int, b as c_int);
            got
        }
        _ => return None,
    })
}

/// A range of descriptors is about to be closed, or only marked for the next exec.
pub(super) fn closed_range(from: c_uint, to: c_uint, flags: c_int) {
    if flags & libc::CLOSE_RANGE_CLOEXEC as c_int == 0 {
        let_go(from, to);
        marks::forget_range(from, to);
    }
}

/// Standard input, or what is kept of it, is about to be closed with others.
fn let_go(from: c_uint, to: c_uint) {
    if from == 0 {
        stdin::leave();
    }
    stdin::lost_between(from, to);
}

/// `new` names the open file of `fd` now, and what was given of it.
fn named(fd: c_int, new: c_int) -> c_int {
    if new != fd {
        marks::forget(new);
        numbers::copy_stamp(fd, new);
        renewed::renewed(new);
    }
    new
}

fn commanded(fd: c_int, got: c_int, command: c_int) -> c_int {
    if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) { named(fd, got) } else { got }
}

/// Descriptors that came in a message.
fn forget_received(message: *const msghdr) {
    // SAFETY: the real call has just filled the header and the control bytes it points to.
    let mut at: *const cmsghdr = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !at.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give headers that lie within the control bytes.
        let header = unsafe { &*at };
        if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: the data follow the header.
            let data = unsafe { libc::CMSG_DATA(at) };
            let len = (header.cmsg_len as usize).saturating_sub(data as usize - at as usize);
            for index in 0..len / size_of::<c_int>() {
                // SAFETY: within the data, which need not be aligned.
                marks::forget(unsafe { data.cast::<c_void>().cast::<c_int>().add(index).read_unaligned() });
            }
        }
        // SAFETY: as above.
        at = unsafe { libc::CMSG_NXTHDR(message, at) };
    }
}
