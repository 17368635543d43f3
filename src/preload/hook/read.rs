//! Reading: the real call first. A placeholder is empty, so whatever is not end-of-file is not ours; at
//! end-of-file the kernel has checked descriptor, vector and offset, and one `fstat` tells whose it is.
//! Through a number that an object was read through before, the `fstat` alone: the kernel has checked that
//! descriptor when it was met, and a 4 KiB read would pay a fifth for asking again.

use super::Arguments;
use crate::active;
use crate::copy;
use crate::file;
use crate::marks::{self, Mark};
use crate::outcome::{Outcome, slow_path};
use crate::real;
use crate::seen::Seen;
use core::ffi::{c_int, c_long, c_void};
use libc::{iovec, off_t, size_t, ssize_t};
use ossc_cache::sys::Result;

/// A hook of the calls that programs make most, for the fewest instructions around a file that is none of ours:
/// one look at the number's mark (there is none while the library is inert), and one at what the call gave. To
/// select the function that is called, and not to branch, leaves the arguments in their registers.
macro_rules! reads {
    ($(fn $name:ident($fd:ident: c_int $(, $arg:ident: $ty:ty)*) known $known:ident, at_end $at_end:ident;)*) => {$(
        #[unsafe(no_mangle)]
        pub(crate) extern "C-unwind" fn $name($fd: c_int $(, $arg: $ty)*) -> ssize_t {
            let call = core::hint::select_unpredictable(marks::may_be_marked($fd), $known as extern "C-unwind" fn(c_int $(, $ty)*) -> ssize_t, real::next::$name());
            let got = call($fd $(, $arg)*);
            if got != 0 { got } else { $at_end($fd $(, $arg)*) }
        }
    )*};
}

reads! {
    fn read(fd: c_int, buffer: *mut c_void, count: size_t) known read_known, at_end read_at_end;
    fn __read(fd: c_int, buffer: *mut c_void, count: size_t) known read_known, at_end read_at_end;
    fn __pread64(fd: c_int, buffer: *mut c_void, count: size_t, at: off_t) known pread_known, at_end pread_at_end;
    fn pread(fd: c_int, buffer: *mut c_void, count: size_t, at: off_t) known pread_known, at_end pread_at_end;
    fn pread64(fd: c_int, buffer: *mut c_void, count: size_t, at: off_t) known pread_known, at_end pread_at_end;
}

hooks! {
    fn __read_chk(fd: c_int, buffer: *mut c_void, count: size_t, room: size_t) -> ssize_t { read_on(real::__read_chk(fd, buffer, count, room), fd, buffer, count) }
    fn __pread_chk(fd: c_int, buffer: *mut c_void, count: size_t, at: off_t, room: size_t) -> ssize_t { pread_on(real::__pread_chk(fd, buffer, count, at, room), fd, buffer, count, at) }
    fn __pread64_chk(fd: c_int, buffer: *mut c_void, count: size_t, at: off_t, room: size_t) -> ssize_t { pread_on(real::__pread64_chk(fd, buffer, count, at, room), fd, buffer, count, at) }
    fn readv(fd: c_int, iov: *const iovec, len: c_int) -> ssize_t { readv_on(real::readv(fd, iov, len), fd, iov, len, -1) }
    fn preadv(fd: c_int, iov: *const iovec, len: c_int, at: off_t) -> ssize_t { preadv_on(real::preadv(fd, iov, len, at), fd, iov, len, at) }
    fn preadv64(fd: c_int, iov: *const iovec, len: c_int, at: off_t) -> ssize_t { preadv_on(real::preadv64(fd, iov, len, at), fd, iov, len, at) }
    fn preadv2(fd: c_int, iov: *const iovec, len: c_int, at: off_t, flags: c_int) -> ssize_t { readv_on(real::preadv2(fd, iov, len, at, flags), fd, iov, len, at) }
    fn preadv64v2(fd: c_int, iov: *const iovec, len: c_int, at: off_t, flags: c_int) -> ssize_t { readv_on(real::preadv64v2(fd, iov, len, at, flags), fd, iov, len, at) }
}

/// The same by their numbers in `syscall()`.
#[inline]
pub(super) fn by_number(number: c_long, [a, b, c, d, _, f]: Arguments) -> Option<c_long> {
    let (fd, buffer, iov) = (a as c_int, b as *mut c_void, b as *const iovec);
    let got = match number {
        libc::SYS_read => read(fd, buffer, c),
        libc::SYS_pread64 => pread64(fd, buffer, c, d as off_t),
        libc::SYS_readv => readv(fd, iov, c as c_int),
        libc::SYS_preadv => preadv64(fd, iov, c as c_int, d as off_t),
        libc::SYS_preadv2 => preadv64v2(fd, iov, c as c_int, d as off_t, f as c_int),
        _ => return None,
    };
    Some(got as c_long)
}

#[cold]
#[inline(never)]
extern "C-unwind" fn read_known(fd: c_int, buffer: *mut c_void, count: size_t) -> ssize_t {
    real::pthread_testcancel();
    let read =
        |seen: &Seen| copy::sequential(fd, seen, |at, most| copy::read_at(seen, at, buffer as usize, count.min(most)));
    let known = if may_skip(buffer, count) { serve_known(fd, read) } else { None };
    known.unwrap_or_else(|| read_on(real::read(fd, buffer, count), fd, buffer, count))
}

#[cold]
#[inline(never)]
extern "C-unwind" fn pread_known(fd: c_int, buffer: *mut c_void, count: size_t, at: off_t) -> ssize_t {
    real::pthread_testcancel();
    if let Mark::Of(slot) = marks::of(fd) {
        copy::prefetch(slot, at as u64, 0);
    }
    let read = |seen: &Seen| copy::read_at(seen, at as u64, buffer as usize, count);
    let known = if at >= 0 && may_skip(buffer, count) { serve_known(fd, read) } else { None };
    known.unwrap_or_else(|| pread_on(real::pread64(fd, buffer, count, at), fd, buffer, count, at))
}

/// Last address of a program with four levels of page tables, and one more.
const PROGRAM_END: usize = (1 << 47) - 4096;

/// True if the kernel, too, would look at the bytes before it refused the call: a range that ends beyond the
/// program's addresses is refused at once, also where the object ends before.
fn may_skip(buffer: *mut c_void, count: size_t) -> bool {
    count > 0 && (buffer as usize).checked_add(count).is_some_and(|end| end <= PROGRAM_END)
}

/// Answers if the number still is of the placeholder that was read through it before.
fn serve_known(fd: c_int, read: impl Fn(&Seen) -> Result<usize>) -> Option<ssize_t> {
    let answer = slow_path(|| match file::known(fd) {
        Outcome::Served(seen) => match read(&seen) {
            // At its end the kernel still looks at the buffer.
            Ok(0) => Outcome::Pass,
            got => got.map(|n| Some(n as ssize_t)).into(),
        },
        Outcome::Pass => Outcome::Pass,
        Outcome::Failed(errno) => Outcome::Failed(errno),
    });
    answer.answer(Some(-1), || None)
}

fn read_on(got: ssize_t, fd: c_int, buffer: *mut c_void, count: size_t) -> ssize_t {
    if got != 0 { got } else { read_at_end(fd, buffer, count) }
}

#[cold]
#[inline(never)]
fn read_at_end(fd: c_int, buffer: *mut c_void, count: size_t) -> ssize_t {
    if !active::is_wanted() || count == 0 {
        return 0;
    }
    serve(fd, |seen| copy::sequential(fd, seen, |at, most| copy::read_at(seen, at, buffer as usize, count.min(most))))
}

fn pread_on(got: ssize_t, fd: c_int, buffer: *mut c_void, count: size_t, at: off_t) -> ssize_t {
    if got != 0 { got } else { pread_at_end(fd, buffer, count, at) }
}

#[cold]
#[inline(never)]
fn pread_at_end(fd: c_int, buffer: *mut c_void, count: size_t, at: off_t) -> ssize_t {
    if !active::is_wanted() || count == 0 {
        return 0;
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
    let served = |seen: Seen| {
        marks::mark(fd, &seen.handle);
        read(&seen).map(|n| n as ssize_t).into()
    };
    slow_path(|| file::placeholder(fd).then(served)).answer(-1, || 0)
}
