//! Offsets and hints. The offset is the kernel's; only what depends on the size is computed here.

use super::Arguments;
use crate::file;
use crate::outcome::{Outcome, errno, set_errno, slow_path};
use crate::parts;
use crate::real;
use crate::seen::Seen;
use core::ffi::{c_int, c_long};
use libc::{off_t, size_t, ssize_t};
use ossc_cache::sys::{self, Errno, Result};

hooks! {
    fn lseek(fd: c_int, offset: off_t, whence: c_int) -> off_t { sought(fd, offset, whence, || real::lseek(fd, offset, whence)) }
    fn lseek64(fd: c_int, offset: off_t, whence: c_int) -> off_t { sought(fd, offset, whence, || real::lseek64(fd, offset, whence)) }
    fn __lseek(fd: c_int, offset: off_t, whence: c_int) -> off_t { sought(fd, offset, whence, || real::__lseek(fd, offset, whence)) }
    fn posix_fadvise(fd: c_int, at: off_t, len: off_t, advice: c_int) -> c_int { hint(fd, at, len, advice); real::posix_fadvise(fd, at, len, advice) }
    fn posix_fadvise64(fd: c_int, at: off_t, len: off_t, advice: c_int) -> c_int { hint(fd, at, len, advice); real::posix_fadvise64(fd, at, len, advice) }
    fn readahead(fd: c_int, at: off_t, count: size_t) -> ssize_t { hint(fd, at, count as off_t, libc::POSIX_FADV_WILLNEED); real::readahead(fd, at, count) }
}

/// The same by their numbers in `syscall()`.
#[inline]
pub(super) fn by_number(number: c_long, [a, b, c, d, ..]: Arguments) -> Option<c_long> {
    let (fd, at) = (a as c_int, b as off_t);
    Some(match number {
        libc::SYS_lseek => lseek64(fd, at, c as c_int),
        libc::SYS_fadvise64 => match posix_fadvise64(fd, at, c as off_t, d as c_int) {
            0 => 0,
            number => {
                set_errno(number);
                -1
            }
        },
        libc::SYS_readahead => readahead(fd, at, c) as c_long,
        _ => return None,
    })
}

fn sought(fd: c_int, offset: off_t, whence: c_int, call: impl Fn() -> off_t) -> off_t {
    if !matches!(whence, libc::SEEK_END | libc::SEEK_DATA | libc::SEEK_HOLE) {
        return call();
    }
    // An empty file gives the offset itself, EINVAL below 0, or ENXIO for data and holes; a size, an
    // ESPIPE or an EBADF means that there is nothing to add.
    let before = errno();
    let got = call();
    if got < 0 && !matches!(errno(), libc::EINVAL | libc::ENXIO) || got >= 0 && got != offset {
        return got;
    }
    let served = slow_path(|| file::placeholder(fd).then(|seen| seek(fd, &seen, offset, whence).into()));
    if matches!(served, Outcome::Served(_)) {
        set_errno(before);
    }
    served.answer(-1, || got)
}

fn seek(fd: c_int, seen: &Seen, offset: off_t, whence: c_int) -> Result<off_t> {
    let size = seen.facts.size as off_t;
    let target = match whence {
        libc::SEEK_END => size.checked_add(offset).ok_or(Errno(libc::EINVAL))?,
        _ if offset < 0 || offset >= size => return Err(Errno(libc::ENXIO)),
        libc::SEEK_DATA => offset,
        _ => size,
    };
    sys::lseek(fd, target, libc::SEEK_SET)
}

fn hint(fd: c_int, at: off_t, len: off_t, advice: c_int) {
    if advice != libc::POSIX_FADV_WILLNEED || at < 0 {
        return;
    }
    let _ = slow_path(|| {
        if let Outcome::Served(seen) = file::placeholder(fd) {
            let end = if len <= 0 { seen.facts.size } else { (at as u64).saturating_add(len as u64) };
            parts::will_need(&seen.handle, at as u64, end.min(seen.facts.size));
        }
        Outcome::<()>::Pass
    });
}
