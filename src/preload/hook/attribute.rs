//! What is kept about a file by its name: mode, owner, times, extended attributes. The calls are the real ones; all
//! that is added is that the folder is listed which the name lies in.

use crate::by_name::{self, until_listed};
use crate::real;
use core::ffi::{c_char, c_int, c_uint, c_void};
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

/// A call that changes what is kept: of the file that stays at the name. `flags` are those of the `*at` calls.
#[inline(never)]
pub(super) fn changed(dir: c_int, path: *const c_char, flags: c_int, call: &dyn Fn() -> c_int) -> c_int {
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
