//! What is kept about a file by its name: mode, owner, times, extended attributes. The calls are the real ones; all
//! that is added is that the folder is listed which the name lies in.

use super::Arguments;
use crate::by_name::{self, until_listed};
use crate::real;
use core::ffi::{c_char, c_int, c_long, c_uint, c_void};
use libc::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, mode_t, size_t, ssize_t};

hooks! {
    fn chmod(path: *const c_char, mode: mode_t) -> c_int { changed(AT_FDCWD, path, 0, &|| real::chmod(path, mode)) }
    fn lchmod(path: *const c_char, mode: mode_t) -> c_int { changed(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, &|| real::lchmod(path, mode)) }
    fn fchmodat(dir: c_int, path: *const c_char, mode: mode_t, flags: c_int) -> c_int { changed(dir, path, flags, &|| real::fchmodat(dir, path, mode, flags)) }
    fn chown(path: *const c_char, user: c_uint, group: c_uint) -> c_int { changed(AT_FDCWD, path, 0, &|| real::chown(path, user, group)) }
    fn lchown(path: *const c_char, user: c_uint, group: c_uint) -> c_int { changed(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, &|| real::lchown(path, user, group)) }
    fn fchownat(dir: c_int, path: *const c_char, user: c_uint, group: c_uint, flags: c_int) -> c_int { changed(dir, path, flags, &|| real::fchownat(dir, path, user, group, flags)) }
    fn utime(path: *const c_char, times: *const c_void) -> c_int { changed(AT_FDCWD, path, 0, &|| real::utime(path, times)) }
    fn utimes(path: *const c_char, times: *const c_void) -> c_int { changed(AT_FDCWD, path, 0, &|| real::utimes(path, times)) }
    fn lutimes(path: *const c_char, times: *const c_void) -> c_int { changed(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, &|| real::lutimes(path, times)) }
    fn futimesat(dir: c_int, path: *const c_char, times: *const c_void) -> c_int { changed(dir, path, 0, &|| real::futimesat(dir, path, times)) }
    fn utimensat(dir: c_int, path: *const c_char, times: *const c_void, flags: c_int) -> c_int { changed(dir, path, flags, &|| real::utimensat(dir, path, times, flags)) }
    fn getxattr(path: *const c_char, name: *const c_char, value: *mut c_void, size: size_t) -> ssize_t { until_listed(AT_FDCWD, path, || real::getxattr(path, name, value, size), is_negative) }
    fn lgetxattr(path: *const c_char, name: *const c_char, value: *mut c_void, size: size_t) -> ssize_t { until_listed(AT_FDCWD, path, || real::lgetxattr(path, name, value, size), is_negative) }
    fn setxattr(path: *const c_char, name: *const c_char, value: *const c_void, size: size_t, flags: c_int) -> c_int { changed(AT_FDCWD, path, 0, &|| real::setxattr(path, name, value, size, flags)) }
    fn lsetxattr(path: *const c_char, name: *const c_char, value: *const c_void, size: size_t, flags: c_int) -> c_int { changed(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, &|| real::lsetxattr(path, name, value, size, flags)) }
    fn listxattr(path: *const c_char, list: *mut c_char, size: size_t) -> ssize_t { until_listed(AT_FDCWD, path, || real::listxattr(path, list, size), is_negative) }
    fn llistxattr(path: *const c_char, list: *mut c_char, size: size_t) -> ssize_t { until_listed(AT_FDCWD, path, || real::llistxattr(path, list, size), is_negative) }
    fn removexattr(path: *const c_char, name: *const c_char) -> c_int { changed(AT_FDCWD, path, 0, &|| real::removexattr(path, name)) }
    fn lremovexattr(path: *const c_char, name: *const c_char) -> c_int { changed(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, &|| real::lremovexattr(path, name)) }
}

/// Numbers that this crate's `libc` has no names for.
const FCHMODAT2: c_long = 452;
const SETXATTRAT: c_long = 463;
const GETXATTRAT: c_long = 464;
const LISTXATTRAT: c_long = 465;
const REMOVEXATTRAT: c_long = 466;

/// The same by their numbers in `syscall()`: the kernel is what comes next, since the C library's function of the name
/// may do it in another way.
#[inline]
pub(super) fn by_number(number: c_long, all: Arguments) -> Option<c_long> {
    let [a, b, c, d, e, _] = all;
    let (here, at) = ((AT_FDCWD, a as *const c_char), (a as c_int, b as *const c_char));
    let (path, flags) = match number {
        libc::SYS_getxattr | libc::SYS_lgetxattr | libc::SYS_listxattr | libc::SYS_llistxattr => (here, None),
        GETXATTRAT | LISTXATTRAT => (at, None),
        libc::SYS_chmod | libc::SYS_chown | libc::SYS_utime | libc::SYS_utimes => (here, Some(0)),
        libc::SYS_setxattr | libc::SYS_removexattr => (here, Some(0)),
        libc::SYS_lchown | libc::SYS_lsetxattr | libc::SYS_lremovexattr => (here, Some(AT_SYMLINK_NOFOLLOW)),
        libc::SYS_fchmodat | libc::SYS_futimesat => (at, Some(0)),
        SETXATTRAT | REMOVEXATTRAT => (at, Some(c as c_int)),
        FCHMODAT2 | libc::SYS_utimensat => (at, Some(d as c_int)),
        libc::SYS_fchownat => (at, Some(e as c_int)),
        _ => return None,
    };
    Some(match flags {
        Some(flags) => changed(path.0, path.1, flags, &|| real::by_number(number, all) as c_int).into(),
        None => until_listed(path.0, path.1, || real::by_number(number, all), |got| *got < 0),
    })
}

/// A call that changes what is kept: of the file that stays at the name. `flags` are those of the `*at` calls.
#[inline(never)]
fn changed(dir: c_int, path: *const c_char, flags: c_int, call: &dyn Fn() -> c_int) -> c_int {
    let call = || {
        by_name::settle(dir, path, flags & AT_SYMLINK_NOFOLLOW);
        call()
    };
    until_listed(dir, path, call, failed)
}

fn failed(got: &c_int) -> bool {
    *got < 0
}

fn is_negative(got: &ssize_t) -> bool {
    *got < 0
}
