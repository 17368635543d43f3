//! Writing: an object cannot be changed through its folder. EROFS, with a line in the log.

use super::{Arguments, open};
use crate::by_name;
use crate::file;
use crate::numbers;
use crate::outcome::{Outcome, slow_path};
use crate::real;
use core::ffi::{c_char, c_int, c_long, c_void};
use libc::{AT_FDCWD, iovec, off_t, size_t, ssize_t};

hooks! {
    fn write(fd: c_int, buffer: *const c_void, count: size_t) -> ssize_t { refused(fd).answer(-1, || real::write(fd, buffer, count)) }
    fn __write(fd: c_int, buffer: *const c_void, count: size_t) -> ssize_t { refused(fd).answer(-1, || real::__write(fd, buffer, count)) }
    fn __pwrite64(fd: c_int, buffer: *const c_void, count: size_t, at: off_t) -> ssize_t { refused(fd).answer(-1, || real::__pwrite64(fd, buffer, count, at)) }
    fn pwrite(fd: c_int, buffer: *const c_void, count: size_t, at: off_t) -> ssize_t { refused(fd).answer(-1, || real::pwrite(fd, buffer, count, at)) }
    fn pwrite64(fd: c_int, buffer: *const c_void, count: size_t, at: off_t) -> ssize_t { refused(fd).answer(-1, || real::pwrite64(fd, buffer, count, at)) }
    fn writev(fd: c_int, iov: *const iovec, len: c_int) -> ssize_t { refused(fd).answer(-1, || real::writev(fd, iov, len)) }
    fn pwritev(fd: c_int, iov: *const iovec, len: c_int, at: off_t) -> ssize_t { refused(fd).answer(-1, || real::pwritev(fd, iov, len, at)) }
    fn pwritev64(fd: c_int, iov: *const iovec, len: c_int, at: off_t) -> ssize_t { refused(fd).answer(-1, || real::pwritev64(fd, iov, len, at)) }
    fn pwritev2(fd: c_int, iov: *const iovec, len: c_int, at: off_t, flags: c_int) -> ssize_t { refused(fd).answer(-1, || real::pwritev2(fd, iov, len, at, flags)) }
    fn pwritev64v2(fd: c_int, iov: *const iovec, len: c_int, at: off_t, flags: c_int) -> ssize_t { refused(fd).answer(-1, || real::pwritev64v2(fd, iov, len, at, flags)) }
    fn ftruncate(fd: c_int, len: off_t) -> c_int { refused(fd).answer(-1, || real::ftruncate(fd, len)) }
    fn ftruncate64(fd: c_int, len: off_t) -> c_int { refused(fd).answer(-1, || real::ftruncate64(fd, len)) }
    fn fallocate(fd: c_int, mode: c_int, at: off_t, len: off_t) -> c_int { refused(fd).answer(-1, || real::fallocate(fd, mode, at, len)) }
    fn fallocate64(fd: c_int, mode: c_int, at: off_t, len: off_t) -> c_int { refused(fd).answer(-1, || real::fallocate64(fd, mode, at, len)) }
    fn posix_fallocate(fd: c_int, at: off_t, len: off_t) -> c_int { if is_refused(fd) { libc::EROFS } else { real::posix_fallocate(fd, at, len) } }
    fn posix_fallocate64(fd: c_int, at: off_t, len: off_t) -> c_int { if is_refused(fd) { libc::EROFS } else { real::posix_fallocate64(fd, at, len) } }
    fn truncate(path: *const c_char, len: off_t) -> c_int { truncated(path, || real::truncate(path, len)) }
    fn truncate64(path: *const c_char, len: off_t) -> c_int { truncated(path, || real::truncate64(path, len)) }
}

/// The same by their numbers in `syscall()`.
#[inline]
pub(super) fn by_number(number: c_long, [a, b, c, d, _, f]: Arguments) -> Option<c_long> {
    let (fd, buffer, iov) = (a as c_int, b as *const c_void, b as *const iovec);
    Some(match number {
        libc::SYS_write => write(fd, buffer, c) as c_long,
        libc::SYS_pwrite64 => pwrite64(fd, buffer, c, d as off_t) as c_long,
        libc::SYS_writev => writev(fd, iov, c as c_int) as c_long,
        libc::SYS_pwritev => pwritev64(fd, iov, c as c_int, d as off_t) as c_long,
        libc::SYS_pwritev2 => pwritev64v2(fd, iov, c as c_int, d as off_t, f as c_int) as c_long,
        libc::SYS_fallocate => fallocate64(fd, b as c_int, c as off_t, d as off_t).into(),
        libc::SYS_truncate => truncate(a as *const c_char, b as off_t).into(),
        libc::SYS_ftruncate => ftruncate(fd, b as off_t).into(),
        _ => return None,
    })
}

/// Failed for a placeholder that is open for writing; without that the kernel's own EBADF is right.
pub(super) fn refused<T>(fd: c_int) -> Outcome<T> {
    if numbers::is_plain(fd) {
        return Outcome::Pass;
    }
    slow_path(|| match file::written(fd) {
        Outcome::Served(seen) if file::is_writable(fd) => {
            file::refuse(b"write refused (the folder is read-only)", &seen.handle)
        }
        Outcome::Failed(errno) if file::is_writable(fd) => Outcome::Failed(errno),
        _ => Outcome::Pass,
    })
}

fn is_refused(fd: c_int) -> bool {
    matches!(refused::<()>(fd), Outcome::Failed(_))
}

fn truncated(path: *const c_char, call: impl Fn() -> c_int) -> c_int {
    let allowed = || match slow_path(|| open::may_change(AT_FDCWD, path, 0)) {
        Outcome::Failed(errno) => Outcome::Failed(errno).answer(-1, || -1),
        _ => call(),
    };
    by_name::until_listed(AT_FDCWD, path, allowed, |got| *got < 0)
}
