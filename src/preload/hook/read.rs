//! Reading: the real call first. A placeholder is empty, so whatever is not end-of-file is not ours; at
//! end-of-file the kernel has checked descriptor, vector and offset, and one `fstat` tells whose it is.

use crate::client;
use crate::copy;
use crate::file::{self, Seen};
use crate::outcome::{Outcome, ask};
use crate::real;
use core::ffi::{c_int, c_void};
use libc::{iovec, off_t, size_t, ssize_t};
use ossc_cache::sys::{self, Errno, Result};

hooks! {
    fn read(fd: c_int, buffer: *mut c_void, count: size_t) -> ssize_t { read_on(real::read(fd, buffer, count), fd, buffer, count) }
    fn __read_chk(fd: c_int, buffer: *mut c_void, count: size_t, room: size_t) -> ssize_t { read_on(real::__read_chk(fd, buffer, count, room), fd, buffer, count) }
    fn pread(fd: c_int, buffer: *mut c_void, count: size_t, at: off_t) -> ssize_t { pread_on(real::pread(fd, buffer, count, at), fd, buffer, count, at) }
    fn pread64(fd: c_int, buffer: *mut c_void, count: size_t, at: off_t) -> ssize_t { pread_on(real::pread64(fd, buffer, count, at), fd, buffer, count, at) }
    fn __pread_chk(fd: c_int, buffer: *mut c_void, count: size_t, at: off_t, room: size_t) -> ssize_t { pread_on(real::__pread_chk(fd, buffer, count, at, room), fd, buffer, count, at) }
    fn __pread64_chk(fd: c_int, buffer: *mut c_void, count: size_t, at: off_t, room: size_t) -> ssize_t { pread_on(real::__pread64_chk(fd, buffer, count, at, room), fd, buffer, count, at) }
    fn readv(fd: c_int, iov: *const iovec, len: c_int) -> ssize_t { readv_on(real::readv(fd, iov, len), fd, iov, len, -1) }
    fn preadv(fd: c_int, iov: *const iovec, len: c_int, at: off_t) -> ssize_t { preadv_on(real::preadv(fd, iov, len, at), fd, iov, len, at) }
    fn preadv64(fd: c_int, iov: *const iovec, len: c_int, at: off_t) -> ssize_t { preadv_on(real::preadv64(fd, iov, len, at), fd, iov, len, at) }
    fn preadv2(fd: c_int, iov: *const iovec, len: c_int, at: off_t, flags: c_int) -> ssize_t { readv_on(real::preadv2(fd, iov, len, at, flags), fd, iov, len, at) }
    fn preadv64v2(fd: c_int, iov: *const iovec, len: c_int, at: off_t, flags: c_int) -> ssize_t { readv_on(real::preadv64v2(fd, iov, len, at, flags), fd, iov, len, at) }
}

fn read_on(got: ssize_t, fd: c_int, buffer: *mut c_void, count: size_t) -> ssize_t {
    if got != 0 || count == 0 {
        return got;
    }
    serve(fd, |seen| copy::sequential(fd, seen, |at, most| copy::read_at(seen, at, buffer as usize, count.min(most))))
}

fn pread_on(got: ssize_t, fd: c_int, buffer: *mut c_void, count: size_t, at: off_t) -> ssize_t {
    if got != 0 || count == 0 {
        return got;
    }
    serve(fd, |seen| copy::read_at(seen, at as u64, buffer as usize, count))
}

fn preadv_on(got: ssize_t, fd: c_int, iov: *const iovec, len: c_int, at: off_t) -> ssize_t {
    if got != 0 || len == 0 {
        return got;
    }
    serve(fd, |seen| copy::readv_at(seen, at as u64, iov, len))
}

/// As `preadv_on`; an offset of -1 is the descriptor's own (`readv`, `preadv2`).
fn readv_on(got: ssize_t, fd: c_int, iov: *const iovec, len: c_int, at: off_t) -> ssize_t {
    if got != 0 || len == 0 || at != -1 {
        return preadv_on(got, fd, iov, len, at);
    }
    serve(fd, |seen| copy::sequential(fd, seen, |at, _| copy::readv_at(seen, at, iov, len)))
}

/// Answers for a placeholder; anything else was at its end indeed.
pub(super) fn serve(fd: c_int, read: impl Fn(&Seen) -> Result<usize>) -> ssize_t {
    ask(|| match file::of_descriptor(fd) {
        Some(seen) if seen.is_placeholder() => {
            file::mark(fd, seen.slot);
            read(&seen).map(|n| n as ssize_t).into()
        }
        // The empty stand-in of a small object, reached past our `open`: its bytes are in another file.
        Some(seen) if seen.is_coming() => stale(&seen),
        None if is_lost(fd) => Outcome::Failed(Errno(libc::EIO)),
        _ => Outcome::Pass,
    })
    .answer(-1, || 0)
}

fn is_lost(fd: c_int) -> bool {
    sys::file_id(fd).is_ok_and(|id| client::is_lost(&id, fd))
}

fn stale<T>(seen: &Seen) -> Outcome<T> {
    client::log(b"read of an object that was opened before it was there", seen.slot);
    Outcome::Failed(Errno(libc::ESTALE))
}
