//! The next definition of each function that we define: normally the C library's.
//!
//! Called by the hooks, which pass their caller's own arguments on. Each function starts as a small
//! fall-back, so that calls before the constructor work: the bare system call, or, for functions that
//! live in the C library alone, a look-up at the first call. After the constructor a call is one relaxed
//! load and a jump. The functions are safe to call because they add nothing to what the program asked
//! for: a pointer that is wrong here would be wrong without us, and fails in the same place.

use crate::outcome::set_errno;
use core::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use libc::{
    DIR, FILE, iovec, mode_t, msghdr, off_t, size_t, ssize_t, stat as Stat, statfs as StatFs, statvfs as StatVfs,
    statx as Statx,
};
use ossc_cache::sys::{self, Errno};

/// A callback of the program's, passed on unseen.
pub(crate) type Callback = *const c_void;
/// A null-terminated array of strings, passed on unseen.
pub(crate) type Strings = *const *const c_char;

/// `wordexp` of a C library that has none (wordexp.h).
const WRDE_NOSPACE: c_int = 1;

/// A system call with the program's own arguments; the kernel checks every pointer (EFAULT).
pub(crate) fn kernel(number: c_long, arguments: [usize; 6]) -> sys::Result<usize> {
    // SAFETY: callers pass the program's arguments, or their own live buffers, to the call that expects them.
    let value = unsafe { sys::raw(number, arguments) };
    if (-4095..0).contains(&value) { Err(Errno(-value as i32)) } else { Ok(value as usize) }
}

/// The same with up to six arguments of any integer or pointer type, answered in the C library's way.
macro_rules! kernel {
    ($number:expr $(, $argument:expr)*) => {{
        let given = [$($argument as usize),*];
        let mut all = [0usize; 6];
        all[..given.len()].copy_from_slice(&given);
        in_c(kernel($number, all))
    }};
}

/// What the kernel said, in the C library's way.
pub(crate) fn in_c(result: sys::Result<usize>) -> isize {
    match result {
        Ok(value) => value as isize,
        Err(Errno(number)) => {
            set_errno(number);
            -1
        }
    }
}

/// The definition after this library's, if there is one.
pub(crate) fn look_up(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: dlsym with a C string; it finds the definition after this library's.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

const fn c_name(with_nul: &str) -> &CStr {
    match CStr::from_bytes_with_nul(with_nul.as_bytes()) {
        Ok(name) => name,
        Err(_) => c"",
    }
}

/// Declares for each function: its slot, its fall-back (the block), and the call through the slot. The library exports a
/// hook for each of them but those that are only `called`: `ci/exports` holds it against these rows.
macro_rules! next {
    ($($(called)? fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $fallback:block)*) => {
        #[allow(non_snake_case)]
        mod first {
            use super::*;
            $(pub(super) extern "C-unwind" fn $name($($arg: $ty),*) -> $ret $fallback)*
        }
        #[allow(non_upper_case_globals)]
        mod slot {
            use super::*;
            $(pub(super) static $name: AtomicPtr<c_void> = AtomicPtr::new(first::$name as *mut c_void);)*
        }
        $(
            // Some are only called through `next`.
            #[allow(non_snake_case, dead_code)]
            #[inline(always)]
            pub(crate) fn $name($($arg: $ty),*) -> $ret {
                next::$name()($($arg),*)
            }
        )*
        /// The functions themselves, for hooks that choose between two before they call.
        #[allow(non_snake_case, dead_code)]
        pub(crate) mod next {
            use super::*;
            $(
                #[inline(always)]
                pub(crate) fn $name() -> extern "C-unwind" fn($($ty),*) -> $ret {
                    // SAFETY: the slot holds the fall-back or libc's function, both of this type.
                    unsafe {
                        transmute::<*mut c_void, extern "C-unwind" fn($($ty),*) -> $ret>(slot::$name.load(Relaxed))
                    }
                }
            )*
        }
        /// Looks all of them up. What this C library does not have keeps its fall-back.
        pub(crate) fn resolve() {
            $(if let Some(found) = look_up(c_name(concat!(stringify!($name), "\0"))) {
                slot::$name.store(found, Relaxed);
            })*
        }
    };
}

/// The fall-back of a function that only the C library has.
macro_rules! late {
    ($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty, $missing:expr) => {
        match look_up(c_name(concat!(stringify!($name), "\0"))) {
            Some(found) => {
                slot::$name.store(found, Relaxed);
                // SAFETY: libc's function of this name has this type.
                let next = unsafe { transmute::<*mut c_void, extern "C-unwind" fn($($ty),*) -> $ret>(found) };
                next($($arg),*)
            }
            None => {
                set_errno(libc::ENOSYS);
                $missing
            }
        }
    };
}

next! {
    // A cancelled thread ends here, as it would in the call that is left out.
    called fn pthread_testcancel() -> () {}
    // Opening. The variadic ones take their third argument as a plain one: the same registers on x86-64.
    fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { kernel!(libc::SYS_open, path, flags, mode) as c_int }
    fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { kernel!(libc::SYS_open, path, flags, mode) as c_int }
    fn openat(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int { kernel!(libc::SYS_openat, dir, path, flags, mode) as c_int }
    fn openat64(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int { kernel!(libc::SYS_openat, dir, path, flags, mode) as c_int }
    fn __open_2(path: *const c_char, flags: c_int) -> c_int { kernel!(libc::SYS_open, path, flags, 0) as c_int }
    fn __open64_2(path: *const c_char, flags: c_int) -> c_int { kernel!(libc::SYS_open, path, flags, 0) as c_int }
    fn __openat_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int { kernel!(libc::SYS_openat, dir, path, flags, 0) as c_int }
    fn __openat64_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int { kernel!(libc::SYS_openat, dir, path, flags, 0) as c_int }
    fn creat(path: *const c_char, mode: mode_t) -> c_int { kernel!(libc::SYS_creat, path, mode) as c_int }
    fn creat64(path: *const c_char, mode: mode_t) -> c_int { kernel!(libc::SYS_creat, path, mode) as c_int }
    fn __open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { kernel!(libc::SYS_open, path, flags, mode) as c_int }
    fn __open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { kernel!(libc::SYS_open, path, flags, mode) as c_int }

    // Since glibc 2.43.
    fn openat2(dir: c_int, path: *const c_char, how: *const c_void, size: size_t) -> c_int { kernel!(libc::SYS_openat2, dir, path, how, size) as c_int }

    // Reading.
    fn read(fd: c_int, buffer: *mut c_void, count: size_t) -> ssize_t { kernel!(libc::SYS_read, fd, buffer, count) }
    fn pread(fd: c_int, buffer: *mut c_void, count: size_t, at: off_t) -> ssize_t { kernel!(libc::SYS_pread64, fd, buffer, count, at) }
    fn pread64(fd: c_int, buffer: *mut c_void, count: size_t, at: off_t) -> ssize_t { kernel!(libc::SYS_pread64, fd, buffer, count, at) }
    fn __read(fd: c_int, buffer: *mut c_void, count: size_t) -> ssize_t { kernel!(libc::SYS_read, fd, buffer, count) }
    fn __pread64(fd: c_int, buffer: *mut c_void, count: size_t, at: off_t) -> ssize_t { kernel!(libc::SYS_pread64, fd, buffer, count, at) }
    fn readv(fd: c_int, iov: *const iovec, len: c_int) -> ssize_t { kernel!(libc::SYS_readv, fd, iov, len) }
    fn preadv(fd: c_int, iov: *const iovec, len: c_int, at: off_t) -> ssize_t { kernel!(libc::SYS_preadv, fd, iov, len, at, 0) }
    fn preadv64(fd: c_int, iov: *const iovec, len: c_int, at: off_t) -> ssize_t { kernel!(libc::SYS_preadv, fd, iov, len, at, 0) }
    fn preadv2(fd: c_int, iov: *const iovec, len: c_int, at: off_t, flags: c_int) -> ssize_t { kernel!(libc::SYS_preadv2, fd, iov, len, at, 0, flags) }
    fn preadv64v2(fd: c_int, iov: *const iovec, len: c_int, at: off_t, flags: c_int) -> ssize_t { kernel!(libc::SYS_preadv2, fd, iov, len, at, 0, flags) }
    fn __read_chk(fd: c_int, buffer: *mut c_void, count: size_t, room: size_t) -> ssize_t { kernel!(libc::SYS_read, fd, buffer, count.min(room)) }
    fn __pread_chk(fd: c_int, buffer: *mut c_void, count: size_t, at: off_t, room: size_t) -> ssize_t { kernel!(libc::SYS_pread64, fd, buffer, count.min(room), at) }
    fn __pread64_chk(fd: c_int, buffer: *mut c_void, count: size_t, at: off_t, room: size_t) -> ssize_t { kernel!(libc::SYS_pread64, fd, buffer, count.min(room), at) }
    fn aio_read(block: *mut libc::aiocb) -> c_int { late!(aio_read(block: *mut libc::aiocb) -> c_int, -1) }
    fn aio_read64(block: *mut libc::aiocb) -> c_int { late!(aio_read64(block: *mut libc::aiocb) -> c_int, -1) }
    fn aio_write(block: *mut libc::aiocb) -> c_int { late!(aio_write(block: *mut libc::aiocb) -> c_int, -1) }
    fn aio_write64(block: *mut libc::aiocb) -> c_int { late!(aio_write64(block: *mut libc::aiocb) -> c_int, -1) }
    fn lio_listio(mode: c_int, list: *const *mut libc::aiocb, len: c_int, event: *mut c_void) -> c_int { late!(lio_listio(mode: c_int, list: *const *mut libc::aiocb, len: c_int, event: *mut c_void) -> c_int, -1) }
    fn lio_listio64(mode: c_int, list: *const *mut libc::aiocb, len: c_int, event: *mut c_void) -> c_int { late!(lio_listio64(mode: c_int, list: *const *mut libc::aiocb, len: c_int, event: *mut c_void) -> c_int, -1) }

    // Offsets and hints.
    fn lseek(fd: c_int, offset: off_t, whence: c_int) -> off_t { kernel!(libc::SYS_lseek, fd, offset, whence) as off_t }
    fn lseek64(fd: c_int, offset: off_t, whence: c_int) -> off_t { kernel!(libc::SYS_lseek, fd, offset, whence) as off_t }
    fn __lseek(fd: c_int, offset: off_t, whence: c_int) -> off_t { kernel!(libc::SYS_lseek, fd, offset, whence) as off_t }
    fn posix_fadvise(fd: c_int, at: off_t, len: off_t, advice: c_int) -> c_int { kernel(libc::SYS_fadvise64, [fd as usize, at as usize, len as usize, advice as usize, 0, 0]).map_or_else(|e| e.0, |_| 0) }
    fn posix_fadvise64(fd: c_int, at: off_t, len: off_t, advice: c_int) -> c_int { kernel(libc::SYS_fadvise64, [fd as usize, at as usize, len as usize, advice as usize, 0, 0]).map_or_else(|e| e.0, |_| 0) }
    fn readahead(fd: c_int, at: off_t, count: size_t) -> ssize_t { kernel!(libc::SYS_readahead, fd, at, count) }

    // Status: the names of today and those of before glibc 2.33.
    fn stat(path: *const c_char, out: *mut Stat) -> c_int { kernel!(libc::SYS_stat, path, out) as c_int }
    fn stat64(path: *const c_char, out: *mut Stat) -> c_int { kernel!(libc::SYS_stat, path, out) as c_int }
    fn lstat(path: *const c_char, out: *mut Stat) -> c_int { kernel!(libc::SYS_lstat, path, out) as c_int }
    fn lstat64(path: *const c_char, out: *mut Stat) -> c_int { kernel!(libc::SYS_lstat, path, out) as c_int }
    fn fstat(fd: c_int, out: *mut Stat) -> c_int { kernel!(libc::SYS_fstat, fd, out) as c_int }
    fn fstat64(fd: c_int, out: *mut Stat) -> c_int { kernel!(libc::SYS_fstat, fd, out) as c_int }
    fn fstatat(dir: c_int, path: *const c_char, out: *mut Stat, flags: c_int) -> c_int { kernel!(libc::SYS_newfstatat, dir, path, out, flags) as c_int }
    fn fstatat64(dir: c_int, path: *const c_char, out: *mut Stat, flags: c_int) -> c_int { kernel!(libc::SYS_newfstatat, dir, path, out, flags) as c_int }
    fn __xstat(_version: c_int, path: *const c_char, out: *mut Stat) -> c_int { kernel!(libc::SYS_stat, path, out) as c_int }
    fn __xstat64(_version: c_int, path: *const c_char, out: *mut Stat) -> c_int { kernel!(libc::SYS_stat, path, out) as c_int }
    fn __lxstat(_version: c_int, path: *const c_char, out: *mut Stat) -> c_int { kernel!(libc::SYS_lstat, path, out) as c_int }
    fn __lxstat64(_version: c_int, path: *const c_char, out: *mut Stat) -> c_int { kernel!(libc::SYS_lstat, path, out) as c_int }
    fn __fxstat(_version: c_int, fd: c_int, out: *mut Stat) -> c_int { kernel!(libc::SYS_fstat, fd, out) as c_int }
    fn __fxstat64(_version: c_int, fd: c_int, out: *mut Stat) -> c_int { kernel!(libc::SYS_fstat, fd, out) as c_int }
    fn __fxstatat(_version: c_int, dir: c_int, path: *const c_char, out: *mut Stat, flags: c_int) -> c_int { kernel!(libc::SYS_newfstatat, dir, path, out, flags) as c_int }
    fn __fxstatat64(_version: c_int, dir: c_int, path: *const c_char, out: *mut Stat, flags: c_int) -> c_int { kernel!(libc::SYS_newfstatat, dir, path, out, flags) as c_int }
    fn statx(dir: c_int, path: *const c_char, flags: c_int, mask: c_uint, out: *mut Statx) -> c_int { kernel!(libc::SYS_statx, dir, path, flags, mask, out) as c_int }
    fn access(path: *const c_char, mode: c_int) -> c_int { kernel!(libc::SYS_access, path, mode) as c_int }
    fn faccessat(dir: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int { late!(faccessat(dir: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int, -1) }
    fn euidaccess(path: *const c_char, mode: c_int) -> c_int { late!(euidaccess(path: *const c_char, mode: c_int) -> c_int, -1) }
    fn eaccess(path: *const c_char, mode: c_int) -> c_int { late!(eaccess(path: *const c_char, mode: c_int) -> c_int, -1) }

    // Maps.
    fn mmap(at: *mut c_void, len: size_t, prot: c_int, flags: c_int, fd: c_int, offset: off_t) -> *mut c_void { kernel!(libc::SYS_mmap, at, len, prot, flags, fd, offset) as *mut c_void }
    fn mmap64(at: *mut c_void, len: size_t, prot: c_int, flags: c_int, fd: c_int, offset: off_t) -> *mut c_void { kernel!(libc::SYS_mmap, at, len, prot, flags, fd, offset) as *mut c_void }
    fn munmap(at: *mut c_void, len: size_t) -> c_int { kernel!(libc::SYS_munmap, at, len) as c_int }
    fn mremap(at: *mut c_void, old: size_t, new: size_t, flags: c_int, target: *mut c_void) -> *mut c_void { kernel!(libc::SYS_mremap, at, old, new, flags, target) as *mut c_void }

    // Descriptors.
    fn close(fd: c_int) -> c_int { kernel!(libc::SYS_close, fd) as c_int }
    fn __close(fd: c_int) -> c_int { kernel!(libc::SYS_close, fd) as c_int }
    fn dup(fd: c_int) -> c_int { kernel!(libc::SYS_dup, fd) as c_int }
    fn dup2(fd: c_int, target: c_int) -> c_int { kernel!(libc::SYS_dup2, fd, target) as c_int }
    fn __dup2(fd: c_int, target: c_int) -> c_int { kernel!(libc::SYS_dup2, fd, target) as c_int }
    fn dup3(fd: c_int, target: c_int, flags: c_int) -> c_int { kernel!(libc::SYS_dup3, fd, target, flags) as c_int }
    fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int { kernel!(libc::SYS_fcntl, fd, command, argument) as c_int }
    fn __fcntl(fd: c_int, command: c_int, argument: usize) -> c_int { kernel!(libc::SYS_fcntl, fd, command, argument) as c_int }
    fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int { kernel!(libc::SYS_fcntl, fd, command, argument) as c_int }
    fn close_range(from: c_uint, to: c_uint, flags: c_int) -> c_int { kernel!(libc::SYS_close_range, from, to, flags) as c_int }
    fn closefrom(from: c_int) -> () { let _ = kernel!(libc::SYS_close_range, from.max(0), c_uint::MAX, 0); }
    fn recvmsg(socket: c_int, message: *mut msghdr, flags: c_int) -> ssize_t { kernel!(libc::SYS_recvmsg, socket, message, flags) }
    fn recvmmsg(socket: c_int, messages: *mut libc::mmsghdr, len: c_uint, flags: c_int, time: *mut libc::timespec) -> c_int { kernel!(libc::SYS_recvmmsg, socket, messages, len, flags, time) as c_int }

    // Streams.
    fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE { late!(fopen(path: *const c_char, mode: *const c_char) -> *mut FILE, null_mut()) }
    fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE { late!(fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE, null_mut()) }
    fn _IO_fopen(path: *const c_char, mode: *const c_char) -> *mut FILE { late!(_IO_fopen(path: *const c_char, mode: *const c_char) -> *mut FILE, null_mut()) }
    fn _IO_fdopen(fd: c_int, mode: *const c_char) -> *mut FILE { late!(_IO_fdopen(fd: c_int, mode: *const c_char) -> *mut FILE, null_mut()) }
    fn _IO_fclose(stream: *mut FILE) -> c_int { late!(_IO_fclose(stream: *mut FILE) -> c_int, libc::EOF) }
    fn freopen(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE { late!(freopen(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE, null_mut()) }
    fn freopen64(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE { late!(freopen64(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE, null_mut()) }
    fn fdopen(fd: c_int, mode: *const c_char) -> *mut FILE { late!(fdopen(fd: c_int, mode: *const c_char) -> *mut FILE, null_mut()) }
    fn fclose(stream: *mut FILE) -> c_int { late!(fclose(stream: *mut FILE) -> c_int, libc::EOF) }

    // Programs that take the place of this one.
    fn execve(path: *const c_char, arguments: Strings, environment: Strings) -> c_int { kernel!(libc::SYS_execve, path, arguments, environment) as c_int }
    fn execv(path: *const c_char, arguments: Strings) -> c_int { late!(execv(path: *const c_char, arguments: Strings) -> c_int, -1) }
    fn execvp(name: *const c_char, arguments: Strings) -> c_int { late!(execvp(name: *const c_char, arguments: Strings) -> c_int, -1) }
    fn execvpe(name: *const c_char, arguments: Strings, environment: Strings) -> c_int { late!(execvpe(name: *const c_char, arguments: Strings, environment: Strings) -> c_int, -1) }
    fn _exit(status: c_int) -> () { let _ = kernel!(libc::SYS_exit_group, status); }
    fn _Exit(status: c_int) -> () { let _ = kernel!(libc::SYS_exit_group, status); }
    fn fexecve(fd: c_int, arguments: Strings, environment: Strings) -> c_int { late!(fexecve(fd: c_int, arguments: Strings, environment: Strings) -> c_int, -1) }

    // Copies between descriptors.
    fn sendfile(out: c_int, from: c_int, at: *mut off_t, count: size_t) -> ssize_t { kernel!(libc::SYS_sendfile, out, from, at, count) }
    fn sendfile64(out: c_int, from: c_int, at: *mut off_t, count: size_t) -> ssize_t { kernel!(libc::SYS_sendfile, out, from, at, count) }
    fn copy_file_range(from: c_int, at: *mut off_t, out: c_int, out_at: *mut off_t, count: size_t, flags: c_uint) -> ssize_t { kernel!(libc::SYS_copy_file_range, from, at, out, out_at, count, flags) }
    fn splice(from: c_int, at: *mut off_t, out: c_int, out_at: *mut off_t, count: size_t, flags: c_uint) -> ssize_t { kernel!(libc::SYS_splice, from, at, out, out_at, count, flags) }
    fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int { kernel!(libc::SYS_ioctl, fd, request, argument) as c_int }

    // Writing.
    fn write(fd: c_int, buffer: *const c_void, count: size_t) -> ssize_t { kernel!(libc::SYS_write, fd, buffer, count) }
    fn __write(fd: c_int, buffer: *const c_void, count: size_t) -> ssize_t { kernel!(libc::SYS_write, fd, buffer, count) }
    fn __pwrite64(fd: c_int, buffer: *const c_void, count: size_t, at: off_t) -> ssize_t { kernel!(libc::SYS_pwrite64, fd, buffer, count, at) }
    fn pwrite(fd: c_int, buffer: *const c_void, count: size_t, at: off_t) -> ssize_t { kernel!(libc::SYS_pwrite64, fd, buffer, count, at) }
    fn pwrite64(fd: c_int, buffer: *const c_void, count: size_t, at: off_t) -> ssize_t { kernel!(libc::SYS_pwrite64, fd, buffer, count, at) }
    fn writev(fd: c_int, iov: *const iovec, len: c_int) -> ssize_t { kernel!(libc::SYS_writev, fd, iov, len) }
    fn pwritev(fd: c_int, iov: *const iovec, len: c_int, at: off_t) -> ssize_t { kernel!(libc::SYS_pwritev, fd, iov, len, at, 0) }
    fn pwritev64(fd: c_int, iov: *const iovec, len: c_int, at: off_t) -> ssize_t { kernel!(libc::SYS_pwritev, fd, iov, len, at, 0) }
    fn pwritev2(fd: c_int, iov: *const iovec, len: c_int, at: off_t, flags: c_int) -> ssize_t { kernel!(libc::SYS_pwritev2, fd, iov, len, at, 0, flags) }
    fn pwritev64v2(fd: c_int, iov: *const iovec, len: c_int, at: off_t, flags: c_int) -> ssize_t { kernel!(libc::SYS_pwritev2, fd, iov, len, at, 0, flags) }
    fn truncate(path: *const c_char, len: off_t) -> c_int { kernel!(libc::SYS_truncate, path, len) as c_int }
    fn truncate64(path: *const c_char, len: off_t) -> c_int { kernel!(libc::SYS_truncate, path, len) as c_int }
    fn ftruncate(fd: c_int, len: off_t) -> c_int { kernel!(libc::SYS_ftruncate, fd, len) as c_int }
    fn ftruncate64(fd: c_int, len: off_t) -> c_int { kernel!(libc::SYS_ftruncate, fd, len) as c_int }
    fn fallocate(fd: c_int, mode: c_int, at: off_t, len: off_t) -> c_int { kernel!(libc::SYS_fallocate, fd, mode, at, len) as c_int }
    fn fallocate64(fd: c_int, mode: c_int, at: off_t, len: off_t) -> c_int { kernel!(libc::SYS_fallocate, fd, mode, at, len) as c_int }
    fn posix_fallocate(fd: c_int, at: off_t, len: off_t) -> c_int { late!(posix_fallocate(fd: c_int, at: off_t, len: off_t) -> c_int, libc::ENOSYS) }
    fn posix_fallocate64(fd: c_int, at: off_t, len: off_t) -> c_int { late!(posix_fallocate64(fd: c_int, at: off_t, len: off_t) -> c_int, libc::ENOSYS) }

    // Folders and names.
    fn opendir(path: *const c_char) -> *mut DIR { late!(opendir(path: *const c_char) -> *mut DIR, null_mut()) }
    fn fdopendir(fd: c_int) -> *mut DIR { late!(fdopendir(fd: c_int) -> *mut DIR, null_mut()) }
    fn getdents64(fd: c_int, out: *mut c_void, room: size_t) -> ssize_t { kernel!(libc::SYS_getdents64, fd, out, room) }
    fn scandir(path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int { late!(scandir(path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int, -1) }
    fn scandir64(path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int { late!(scandir64(path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int, -1) }
    fn scandirat(dir: c_int, path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int { late!(scandirat(dir: c_int, path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int, -1) }
    fn scandirat64(dir: c_int, path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int { late!(scandirat64(dir: c_int, path: *const c_char, list: *mut c_void, filter: Callback, order: Callback) -> c_int, -1) }
    fn glob(pattern: *const c_char, flags: c_int, failed: Callback, out: *mut c_void) -> c_int { late!(glob(pattern: *const c_char, flags: c_int, failed: Callback, out: *mut c_void) -> c_int, libc::GLOB_ABORTED) }
    fn glob64(pattern: *const c_char, flags: c_int, failed: Callback, out: *mut c_void) -> c_int { late!(glob64(pattern: *const c_char, flags: c_int, failed: Callback, out: *mut c_void) -> c_int, libc::GLOB_ABORTED) }
    fn wordexp(words: *const c_char, out: *mut c_void, flags: c_int) -> c_int { late!(wordexp(words: *const c_char, out: *mut c_void, flags: c_int) -> c_int, WRDE_NOSPACE) }
    fn fts_open(paths: *const *const c_char, options: c_int, order: Callback) -> *mut c_void { late!(fts_open(paths: *const *const c_char, options: c_int, order: Callback) -> *mut c_void, null_mut()) }
    fn fts64_open(paths: *const *const c_char, options: c_int, order: Callback) -> *mut c_void { late!(fts64_open(paths: *const *const c_char, options: c_int, order: Callback) -> *mut c_void, null_mut()) }
    fn fts_read(walk: *mut c_void) -> *mut c_void { late!(fts_read(walk: *mut c_void) -> *mut c_void, null_mut()) }
    fn fts64_read(walk: *mut c_void) -> *mut c_void { late!(fts64_read(walk: *mut c_void) -> *mut c_void, null_mut()) }
    fn fts_children(walk: *mut c_void, options: c_int) -> *mut c_void { late!(fts_children(walk: *mut c_void, options: c_int) -> *mut c_void, null_mut()) }
    fn fts64_children(walk: *mut c_void, options: c_int) -> *mut c_void { late!(fts64_children(walk: *mut c_void, options: c_int) -> *mut c_void, null_mut()) }
    fn ftw(path: *const c_char, each: Callback, open: c_int) -> c_int { late!(ftw(path: *const c_char, each: Callback, open: c_int) -> c_int, -1) }
    fn ftw64(path: *const c_char, each: Callback, open: c_int) -> c_int { late!(ftw64(path: *const c_char, each: Callback, open: c_int) -> c_int, -1) }
    fn nftw(path: *const c_char, each: Callback, open: c_int, flags: c_int) -> c_int { late!(nftw(path: *const c_char, each: Callback, open: c_int, flags: c_int) -> c_int, -1) }
    fn nftw64(path: *const c_char, each: Callback, open: c_int, flags: c_int) -> c_int { late!(nftw64(path: *const c_char, each: Callback, open: c_int, flags: c_int) -> c_int, -1) }
    fn realpath(path: *const c_char, out: *mut c_char) -> *mut c_char { late!(realpath(path: *const c_char, out: *mut c_char) -> *mut c_char, null_mut()) }
    fn __realpath_chk(path: *const c_char, out: *mut c_char, room: size_t) -> *mut c_char { late!(__realpath_chk(path: *const c_char, out: *mut c_char, room: size_t) -> *mut c_char, null_mut()) }
    fn canonicalize_file_name(path: *const c_char) -> *mut c_char { late!(canonicalize_file_name(path: *const c_char) -> *mut c_char, null_mut()) }
    fn readlink(path: *const c_char, out: *mut c_char, room: size_t) -> ssize_t { kernel!(libc::SYS_readlink, path, out, room) }
    fn readlinkat(dir: c_int, path: *const c_char, out: *mut c_char, room: size_t) -> ssize_t { kernel!(libc::SYS_readlinkat, dir, path, out, room) }
    fn __readlink_chk(path: *const c_char, out: *mut c_char, count: size_t, room: size_t) -> ssize_t { kernel!(libc::SYS_readlink, path, out, count.min(room)) }
    fn __readlinkat_chk(dir: c_int, path: *const c_char, out: *mut c_char, count: size_t, room: size_t) -> ssize_t { kernel!(libc::SYS_readlinkat, dir, path, out, count.min(room)) }

    // Names that are made, changed and removed.
    fn mkdir(path: *const c_char, mode: mode_t) -> c_int { kernel!(libc::SYS_mkdir, path, mode) as c_int }
    fn mkdirat(dir: c_int, path: *const c_char, mode: mode_t) -> c_int { kernel!(libc::SYS_mkdirat, dir, path, mode) as c_int }
    fn mknod(path: *const c_char, mode: mode_t, device: libc::dev_t) -> c_int { kernel!(libc::SYS_mknod, path, mode, device) as c_int }
    fn mknodat(dir: c_int, path: *const c_char, mode: mode_t, device: libc::dev_t) -> c_int { kernel!(libc::SYS_mknodat, dir, path, mode, device) as c_int }
    fn __xmknod(version: c_int, path: *const c_char, mode: mode_t, device: *mut libc::dev_t) -> c_int { late!(__xmknod(version: c_int, path: *const c_char, mode: mode_t, device: *mut libc::dev_t) -> c_int, -1) }
    fn __xmknodat(version: c_int, dir: c_int, path: *const c_char, mode: mode_t, device: *mut libc::dev_t) -> c_int { late!(__xmknodat(version: c_int, dir: c_int, path: *const c_char, mode: mode_t, device: *mut libc::dev_t) -> c_int, -1) }
    fn mkfifo(path: *const c_char, mode: mode_t) -> c_int { kernel!(libc::SYS_mknod, path, mode | libc::S_IFIFO, 0) as c_int }
    fn mkfifoat(dir: c_int, path: *const c_char, mode: mode_t) -> c_int { kernel!(libc::SYS_mknodat, dir, path, mode | libc::S_IFIFO, 0) as c_int }
    fn symlink(target: *const c_char, path: *const c_char) -> c_int { kernel!(libc::SYS_symlink, target, path) as c_int }
    fn symlinkat(target: *const c_char, dir: c_int, path: *const c_char) -> c_int { kernel!(libc::SYS_symlinkat, target, dir, path) as c_int }
    fn link(old: *const c_char, new: *const c_char) -> c_int { kernel!(libc::SYS_link, old, new) as c_int }
    fn linkat(old_dir: c_int, old: *const c_char, new_dir: c_int, new: *const c_char, flags: c_int) -> c_int { kernel!(libc::SYS_linkat, old_dir, old, new_dir, new, flags) as c_int }
    fn rename(old: *const c_char, new: *const c_char) -> c_int { kernel!(libc::SYS_rename, old, new) as c_int }
    fn renameat(old_dir: c_int, old: *const c_char, new_dir: c_int, new: *const c_char) -> c_int { kernel!(libc::SYS_renameat, old_dir, old, new_dir, new) as c_int }
    fn renameat2(old_dir: c_int, old: *const c_char, new_dir: c_int, new: *const c_char, flags: c_uint) -> c_int { kernel!(libc::SYS_renameat2, old_dir, old, new_dir, new, flags) as c_int }
    fn unlink(path: *const c_char) -> c_int { kernel!(libc::SYS_unlink, path) as c_int }
    fn unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int { kernel!(libc::SYS_unlinkat, dir, path, flags) as c_int }
    fn rmdir(path: *const c_char) -> c_int { kernel!(libc::SYS_rmdir, path) as c_int }
    fn remove(path: *const c_char) -> c_int { late!(remove(path: *const c_char) -> c_int, -1) }
    fn mkstemp(name: *mut c_char) -> c_int { late!(mkstemp(name: *mut c_char) -> c_int, -1) }
    fn mkstemp64(name: *mut c_char) -> c_int { late!(mkstemp64(name: *mut c_char) -> c_int, -1) }
    fn mkostemp(name: *mut c_char, flags: c_int) -> c_int { late!(mkostemp(name: *mut c_char, flags: c_int) -> c_int, -1) }
    fn mkostemp64(name: *mut c_char, flags: c_int) -> c_int { late!(mkostemp64(name: *mut c_char, flags: c_int) -> c_int, -1) }
    fn mkstemps(name: *mut c_char, tail: c_int) -> c_int { late!(mkstemps(name: *mut c_char, tail: c_int) -> c_int, -1) }
    fn mkstemps64(name: *mut c_char, tail: c_int) -> c_int { late!(mkstemps64(name: *mut c_char, tail: c_int) -> c_int, -1) }
    fn mkostemps(name: *mut c_char, tail: c_int, flags: c_int) -> c_int { late!(mkostemps(name: *mut c_char, tail: c_int, flags: c_int) -> c_int, -1) }
    fn mkostemps64(name: *mut c_char, tail: c_int, flags: c_int) -> c_int { late!(mkostemps64(name: *mut c_char, tail: c_int, flags: c_int) -> c_int, -1) }
    fn mkdtemp(name: *mut c_char) -> *mut c_char { late!(mkdtemp(name: *mut c_char) -> *mut c_char, null_mut()) }

    // What is kept about a file by its name.
    fn chmod(path: *const c_char, mode: mode_t) -> c_int { kernel!(libc::SYS_chmod, path, mode) as c_int }
    fn lchmod(path: *const c_char, mode: mode_t) -> c_int { late!(lchmod(path: *const c_char, mode: mode_t) -> c_int, -1) }
    fn fchmodat(dir: c_int, path: *const c_char, mode: mode_t, flags: c_int) -> c_int { late!(fchmodat(dir: c_int, path: *const c_char, mode: mode_t, flags: c_int) -> c_int, -1) }
    fn chown(path: *const c_char, user: c_uint, group: c_uint) -> c_int { kernel!(libc::SYS_chown, path, user, group) as c_int }
    fn lchown(path: *const c_char, user: c_uint, group: c_uint) -> c_int { kernel!(libc::SYS_lchown, path, user, group) as c_int }
    fn fchownat(dir: c_int, path: *const c_char, user: c_uint, group: c_uint, flags: c_int) -> c_int { kernel!(libc::SYS_fchownat, dir, path, user, group, flags) as c_int }
    fn utime(path: *const c_char, times: *const c_void) -> c_int { kernel!(libc::SYS_utime, path, times) as c_int }
    fn utimes(path: *const c_char, times: *const c_void) -> c_int { kernel!(libc::SYS_utimes, path, times) as c_int }
    fn lutimes(path: *const c_char, times: *const c_void) -> c_int { late!(lutimes(path: *const c_char, times: *const c_void) -> c_int, -1) }
    fn futimesat(dir: c_int, path: *const c_char, times: *const c_void) -> c_int { kernel!(libc::SYS_futimesat, dir, path, times) as c_int }
    fn utimensat(dir: c_int, path: *const c_char, times: *const c_void, flags: c_int) -> c_int { kernel!(libc::SYS_utimensat, dir, path, times, flags) as c_int }
    fn getxattr(path: *const c_char, name: *const c_char, value: *mut c_void, size: size_t) -> ssize_t { kernel!(libc::SYS_getxattr, path, name, value, size) }
    fn lgetxattr(path: *const c_char, name: *const c_char, value: *mut c_void, size: size_t) -> ssize_t { kernel!(libc::SYS_lgetxattr, path, name, value, size) }
    fn setxattr(path: *const c_char, name: *const c_char, value: *const c_void, size: size_t, flags: c_int) -> c_int { kernel!(libc::SYS_setxattr, path, name, value, size, flags) as c_int }
    fn lsetxattr(path: *const c_char, name: *const c_char, value: *const c_void, size: size_t, flags: c_int) -> c_int { kernel!(libc::SYS_lsetxattr, path, name, value, size, flags) as c_int }
    fn listxattr(path: *const c_char, list: *mut c_char, size: size_t) -> ssize_t { kernel!(libc::SYS_listxattr, path, list, size) }
    fn llistxattr(path: *const c_char, list: *mut c_char, size: size_t) -> ssize_t { kernel!(libc::SYS_llistxattr, path, list, size) }
    fn removexattr(path: *const c_char, name: *const c_char) -> c_int { kernel!(libc::SYS_removexattr, path, name) as c_int }
    fn lremovexattr(path: *const c_char, name: *const c_char) -> c_int { kernel!(libc::SYS_lremovexattr, path, name) as c_int }

    // Places that a name leads to.
    fn chdir(path: *const c_char) -> c_int { kernel!(libc::SYS_chdir, path) as c_int }
    fn chroot(path: *const c_char) -> c_int { kernel!(libc::SYS_chroot, path) as c_int }
    fn statfs(path: *const c_char, out: *mut StatFs) -> c_int { kernel!(libc::SYS_statfs, path, out) as c_int }
    fn statfs64(path: *const c_char, out: *mut StatFs) -> c_int { kernel!(libc::SYS_statfs, path, out) as c_int }
    fn __statfs(path: *const c_char, out: *mut StatFs) -> c_int { kernel!(libc::SYS_statfs, path, out) as c_int }
    fn statvfs(path: *const c_char, out: *mut StatVfs) -> c_int { late!(statvfs(path: *const c_char, out: *mut StatVfs) -> c_int, -1) }
    fn statvfs64(path: *const c_char, out: *mut StatVfs) -> c_int { late!(statvfs64(path: *const c_char, out: *mut StatVfs) -> c_int, -1) }
    fn fstatfs(fd: c_int, out: *mut StatFs) -> c_int { kernel!(libc::SYS_fstatfs, fd, out) as c_int }
    fn fstatfs64(fd: c_int, out: *mut StatFs) -> c_int { kernel!(libc::SYS_fstatfs, fd, out) as c_int }
    fn fstatvfs(fd: c_int, out: *mut StatVfs) -> c_int { late!(fstatvfs(fd: c_int, out: *mut StatVfs) -> c_int, -1) }
    fn fstatvfs64(fd: c_int, out: *mut StatVfs) -> c_int { late!(fstatvfs64(fd: c_int, out: *mut StatVfs) -> c_int, -1) }
    fn pathconf(path: *const c_char, name: c_int) -> c_long { late!(pathconf(path: *const c_char, name: c_int) -> c_long, -1) }
    fn inotify_add_watch(fd: c_int, path: *const c_char, mask: c_uint) -> c_int { kernel!(libc::SYS_inotify_add_watch, fd, path, mask) as c_int }
    fn name_to_handle_at(dir: c_int, path: *const c_char, handle: *mut c_void, mount: *mut c_int, flags: c_int) -> c_int { kernel!(libc::SYS_name_to_handle_at, dir, path, handle, mount, flags) as c_int }
    fn ftok(path: *const c_char, project: c_int) -> c_int { late!(ftok(path: *const c_char, project: c_int) -> c_int, -1) }
    fn bind(socket: c_int, address: *const c_void, len: libc::socklen_t) -> c_int { kernel!(libc::SYS_bind, socket, address, len) as c_int }
    fn connect(socket: c_int, address: *const c_void, len: libc::socklen_t) -> c_int { kernel!(libc::SYS_connect, socket, address, len) as c_int }
    fn __connect(socket: c_int, address: *const c_void, len: libc::socklen_t) -> c_int { kernel!(libc::SYS_connect, socket, address, len) as c_int }

    // The user. The C library changes that of all threads.
    fn setuid(user: c_uint) -> c_int { late!(setuid(user: c_uint) -> c_int, -1) }
    fn seteuid(user: c_uint) -> c_int { late!(seteuid(user: c_uint) -> c_int, -1) }
    fn setreuid(user: c_uint, effective: c_uint) -> c_int { late!(setreuid(user: c_uint, effective: c_uint) -> c_int, -1) }
    fn setresuid(user: c_uint, effective: c_uint, saved: c_uint) -> c_int { late!(setresuid(user: c_uint, effective: c_uint, saved: c_uint) -> c_int, -1) }
    fn setfsuid(user: c_uint) -> c_int { kernel!(libc::SYS_setfsuid, user) as c_int }

    // Programs and libraries that are started by their names.
    fn posix_spawn(pid: *mut c_int, path: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: Strings, environment: Strings) -> c_int { late!(posix_spawn(pid: *mut c_int, path: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: Strings, environment: Strings) -> c_int, libc::ENOSYS) }
    fn posix_spawnp(pid: *mut c_int, name: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: Strings, environment: Strings) -> c_int { late!(posix_spawnp(pid: *mut c_int, name: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: Strings, environment: Strings) -> c_int, libc::ENOSYS) }
    fn posix_spawn_file_actions_addopen(actions: *mut c_void, fd: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int { late!(posix_spawn_file_actions_addopen(actions: *mut c_void, fd: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int, libc::ENOSYS) }
    fn posix_spawn_file_actions_addchdir_np(actions: *mut c_void, path: *const c_char) -> c_int { late!(posix_spawn_file_actions_addchdir_np(actions: *mut c_void, path: *const c_char) -> c_int, libc::ENOSYS) }
    // Since glibc 2.43; the name before it does the same.
    fn posix_spawn_file_actions_addchdir(actions: *mut c_void, path: *const c_char) -> c_int { posix_spawn_file_actions_addchdir_np(actions, path) }
    // Since glibc 2.39.
    fn pidfd_spawn(pidfd: *mut c_int, path: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: Strings, environment: Strings) -> c_int { late!(pidfd_spawn(pidfd: *mut c_int, path: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: Strings, environment: Strings) -> c_int, libc::ENOSYS) }
    fn pidfd_spawnp(pidfd: *mut c_int, name: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: Strings, environment: Strings) -> c_int { late!(pidfd_spawnp(pidfd: *mut c_int, name: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: Strings, environment: Strings) -> c_int, libc::ENOSYS) }
    fn execveat(dir: c_int, path: *const c_char, arguments: Strings, environment: Strings, flags: c_int) -> c_int { kernel!(libc::SYS_execveat, dir, path, arguments, environment, flags) as c_int }

    fn syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long { in_c(kernel(number, [a, b, c, d, e, f])) as c_long }
}

/// `syscall` with its arguments as one value.
#[inline(always)]
pub(crate) fn by_number(number: c_long, [a, b, c, d, e, f]: [usize; 6]) -> c_long {
    syscall(number, a, b, c, d, e, f)
}

/// `struct stat` of a path given by address.
pub(crate) fn stat_at(dir: c_int, path: *const c_char, flags: c_int) -> sys::Result<libc::stat> {
    let mut out = core::mem::MaybeUninit::<libc::stat>::zeroed();
    let arguments = [dir as usize, path as usize, out.as_mut_ptr() as usize, flags as usize, 0, 0];
    kernel(libc::SYS_newfstatat, arguments)?;
    // SAFETY: zeroed is a valid `stat`, and the kernel has filled it.
    Ok(unsafe { out.assume_init() })
}

/// `getdents64` into a buffer; how many bytes were filled.
pub(crate) fn entries(fd: c_int, buffer: &mut [u8]) -> sys::Result<usize> {
    let arguments = [fd as usize, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0];
    kernel(libc::SYS_getdents64, arguments)
}

/// The 8 bytes at an address that may be bad (EFAULT), without a fault. The kernel reads a signal mask there, and refuses the
/// way to change it: no profile of a container forbids that, as some do `process_vm_readv`.
pub(crate) fn peek(from: usize) -> sys::Result<[u8; 8]> {
    const NO_WAY: usize = usize::MAX;
    match kernel(libc::SYS_rt_sigprocmask, [NO_WAY, from, 0, 8, 0, 0]) {
        Err(Errno(libc::EINVAL)) => {}
        _ => return Err(Errno(libc::EFAULT)),
    }
    // SAFETY: the kernel has just read these bytes, which the program gives to the call that it is in.
    Ok(unsafe { (from as *const [u8; 8]).read_unaligned() })
}

/// Registers a function to run in the child of every `fork` (not of `vfork` or `posix_spawn`).
pub(crate) fn at_fork_in_child(run: extern "C" fn()) {
    type Register = extern "C" fn(*const c_void, *const c_void, extern "C" fn(), *const c_void) -> c_int;
    if let Some(found) = look_up(c"__register_atfork") {
        // SAFETY: glibc has exported this function with this type since 2.3.2.
        let register = unsafe { transmute::<*mut c_void, Register>(found) };
        register(core::ptr::null(), core::ptr::null(), run, core::ptr::null());
    }
}
