//! Calls that go to the place which a name leads to: working folder, limits, watches, local sockets.
//! The calls are the real ones; all that is added is that the folder is listed which the name lies in.

use super::{Arguments, user};
use crate::by_name::until_listed;
use crate::outcome::{errno, set_errno};
use crate::real;
use core::ffi::{c_char, c_int, c_long, c_uint, c_void};
use libc::{AT_FDCWD, sockaddr_un, socklen_t};

hooks! {
    fn chdir(path: *const c_char) -> c_int { until_listed(AT_FDCWD, path, || real::chdir(path), failed) }
    fn chroot(path: *const c_char) -> c_int { user::prepare(); until_listed(AT_FDCWD, path, || real::chroot(path), failed) }
    fn pathconf(path: *const c_char, name: c_int) -> c_long { until_listed(AT_FDCWD, path, || real::pathconf(path, name), |got| *got < 0) }
    fn inotify_add_watch(fd: c_int, path: *const c_char, mask: c_uint) -> c_int { until_listed(AT_FDCWD, path, || real::inotify_add_watch(fd, path, mask), failed) }
    fn name_to_handle_at(dir: c_int, path: *const c_char, handle: *mut c_void, mount: *mut c_int, flags: c_int) -> c_int { until_listed(dir, path, || real::name_to_handle_at(dir, path, handle, mount, flags), failed) }
    fn ftok(path: *const c_char, project: c_int) -> c_int { until_listed(AT_FDCWD, path, || real::ftok(path, project), failed) }
    fn bind(socket: c_int, address: *const c_void, len: socklen_t) -> c_int { addressed(address, len, &|| real::bind(socket, address, len)) }
    fn connect(socket: c_int, address: *const c_void, len: socklen_t) -> c_int { addressed(address, len, &|| real::connect(socket, address, len)) }
    fn __connect(socket: c_int, address: *const c_void, len: socklen_t) -> c_int { addressed(address, len, &|| real::__connect(socket, address, len)) }
}

/// The same by their numbers in `syscall()`: the kernel is what comes next, since the C library's function of the name
/// may do it in another way.
#[inline]
pub(super) fn by_number(number: c_long, all: Arguments) -> Option<c_long> {
    let [a, b, c, ..] = all;
    let (dir, path) = match number {
        libc::SYS_bind | libc::SYS_connect => {
            let call = || real::by_number(number, all) as c_int;
            return Some(addressed(b as *const c_void, c as socklen_t, &call).into());
        }
        libc::SYS_chdir => (AT_FDCWD, a),
        libc::SYS_chroot => {
            user::prepare();
            (AT_FDCWD, a)
        }
        libc::SYS_inotify_add_watch => (AT_FDCWD, b),
        libc::SYS_name_to_handle_at => (a as c_int, b),
        _ => return None,
    };
    Some(until_listed(dir, path as *const c_char, || real::by_number(number, all), |got| *got < 0))
}

fn failed(got: &c_int) -> bool {
    *got < 0
}

const FAMILY_BYTES: usize = size_of::<libc::sa_family_t>();

/// A call with a socket's address: only a local one that is a path can end in ENOENT.
#[inline(never)]
fn addressed(address: *const c_void, len: socklen_t, call: &dyn Fn() -> c_int) -> c_int {
    let before = errno();
    let got = call();
    if got == 0 || errno() != libc::ENOENT {
        return got;
    }
    // One byte more than an address, for the NUL that a path in it may lack.
    let mut copy = [0u8; size_of::<sockaddr_un>() + 1];
    let len = (len as usize).min(size_of::<sockaddr_un>());
    // SAFETY: the kernel has just read an address of this length here, and found no file by it.
    unsafe { copy.as_mut_ptr().copy_from(address.cast(), len) };
    if len <= FAMILY_BYTES || u16::from_ne_bytes([copy[0], copy[1]]) != libc::AF_UNIX as u16 {
        return got;
    }
    set_errno(before);
    until_listed(AT_FDCWD, copy[FAMILY_BYTES..].as_ptr().cast(), call, failed)
}
