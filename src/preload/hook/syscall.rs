//! `syscall()`: programs that make system calls by number (libuv, Go with cgo's libc, older Rust) meet the
//! same hooks. Every other number is forwarded untouched, with six arguments.

use super::{attribute, by_path, copy, dup, fs, link, map, names, open, read, seek, stat, stdin, user, write};
use crate::active;
use crate::by_name;
use crate::past;
use crate::real;
use core::ffi::{c_char, c_int, c_long, c_uint, c_ulong, c_void};
use libc::{AT_FDCWD, iovec, off_t, stat as Stat};

/// The program's `syscall`. Variadic in C: the same registers as seven plain arguments on x86-64.
#[unsafe(no_mangle)]
pub(crate) extern "C-unwind" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    if !active::is_wanted() {
        return real::syscall(number, a, b, c, d, e, f);
    }
    match number {
        libc::SYS_exit_group => stdin::leave(),
        libc::SYS_setuid | libc::SYS_setreuid | libc::SYS_setresuid | libc::SYS_setfsuid | libc::SYS_chroot => {
            user::prepare();
        }
        libc::SYS_io_uring_setup | libc::SYS_io_setup => return made(number, a, b),
        _ => {}
    }
    let all = [a, b, c, d, e, f];
    by_path(number, all)
        .or_else(|| by_name(number, all))
        .or_else(|| by_descriptor(number, all))
        .or_else(|| copying(number, all))
        .unwrap_or_else(|| real::syscall(number, a, b, c, d, e, f))
}

/// A ring or an aio context, through which files may be read.
#[cold]
fn made(number: c_long, entries: usize, out: usize) -> c_long {
    let got = real::syscall(number, entries, out, 0, 0, 0, 0);
    match number {
        _ if got < 0 => {}
        libc::SYS_io_uring_setup => past::made_ring(entries, out),
        _ => past::made_context(),
    }
    got
}

fn by_path(number: c_long, [a, b, c, d, e, _]: [usize; 6]) -> Option<c_long> {
    let (dir, path) = (a as c_int, b as *const c_char);
    let first = a as *const c_char;
    let got = match number {
        libc::SYS_open => open::open(first, b as c_int, c as u32),
        libc::SYS_creat => open::creat(first, b as u32),
        libc::SYS_openat => open::openat(dir, path, c as c_int, d as u32),
        libc::SYS_openat2 => open::openat2(dir, path, c, d),
        libc::SYS_stat => stat::stat(first, b as *mut Stat),
        libc::SYS_lstat => stat::lstat(first, b as *mut Stat),
        libc::SYS_newfstatat => stat::fstatat(dir, path, c as *mut Stat, d as c_int),
        libc::SYS_statx => stat::statx(dir, path, c as c_int, d as c_uint, e as *mut libc::statx),
        libc::SYS_access => stat::access(first, b as c_int),
        libc::SYS_execve => stdin::execve(first, b as real::Strings, c as real::Strings),
        libc::SYS_statfs => fs::statfs(first, b as *mut libc::statfs),
        libc::SYS_truncate => write::truncate(first, b as off_t),
        libc::SYS_readlink => return Some(link::readlink(first, b as *mut c_char, c) as c_long),
        libc::SYS_readlinkat => return Some(link::readlinkat(dir, path, c as *mut c_char, d) as c_long),
        _ => return None,
    };
    Some(got.into())
}

/// Calls by path to which nothing is added but the listing of the folders on their way: the kernel is what comes
/// next, since the C library's function of the name may do it in another way.
fn by_name(number: c_long, all: [usize; 6]) -> Option<c_long> {
    let [a, b, c, d, e, f] = all;
    let call: &dyn Fn() -> c_int = &|| real::syscall(number, a, b, c, d, e, f) as c_int;
    let long = || real::syscall(number, a, b, c, d, e, f);
    let (here, first) = (AT_FDCWD, a as *const c_char);
    let at = (a as c_int, b as *const c_char);
    let (second, at_third) = ((here, b as *const c_char), (c as c_int, d as *const c_char));
    let flags = match number {
        libc::SYS_lchown | libc::SYS_lsetxattr | libc::SYS_lremovexattr => libc::AT_SYMLINK_NOFOLLOW,
        SETXATTRAT | REMOVEXATTRAT => c as c_int,
        FCHMODAT2 | libc::SYS_utimensat => d as c_int,
        libc::SYS_fchownat => e as c_int,
        _ => 0,
    };
    let removes_folder = c & libc::AT_REMOVEDIR as usize != 0;
    Some(match number {
        libc::SYS_mkdir | libc::SYS_mknod => names::made(here, first, call).into(),
        libc::SYS_mkdirat | libc::SYS_mknodat => names::made(at.0, at.1, call).into(),
        libc::SYS_symlink => names::made(here, second.1, call).into(),
        libc::SYS_symlinkat => names::made(b as c_int, c as *const c_char, call).into(),
        libc::SYS_link => names::linked([(here, first), second], 0, call).into(),
        libc::SYS_linkat => names::linked([at, at_third], e as c_int, call).into(),
        libc::SYS_rename => names::moved([(here, first), second], call).into(),
        libc::SYS_renameat | libc::SYS_renameat2 => names::moved([at, at_third], call).into(),
        libc::SYS_unlink => names::removed(here, first, false, call).into(),
        libc::SYS_unlinkat => names::removed(at.0, at.1, removes_folder, call).into(),
        libc::SYS_rmdir => names::removed(here, first, true, call).into(),
        libc::SYS_bind | libc::SYS_connect => by_path::addressed(b as *const c_void, c as u32, call).into(),
        libc::SYS_inotify_add_watch => by_name::until_listed(second.0, second.1, long, is_negative),
        libc::SYS_execveat => stdin::replaced(at.0, at.1, call).into(),
        _ if LOOKS_IN_FOLDER.contains(&number) => by_name::until_listed(at.0, at.1, long, is_negative),
        _ if LOOKS.contains(&number) => by_name::until_listed(here, first, long, is_negative),
        _ if CHANGES_IN_FOLDER.contains(&number) => attribute::changed(at.0, at.1, flags, call).into(),
        _ if CHANGES.contains(&number) => attribute::changed(here, first, flags, call).into(),
        _ => return None,
    })
}

fn is_negative(got: &c_long) -> bool {
    *got < 0
}

/// Numbers that this crate's `libc` has no names for.
const FCHMODAT2: c_long = 452;
const SETXATTRAT: c_long = 463;
const GETXATTRAT: c_long = 464;
const LISTXATTRAT: c_long = 465;
const REMOVEXATTRAT: c_long = 466;

/// Calls with a folder's descriptor and a path, and those with a path as their first argument: that look, and that
/// change what is kept about the file.
const LOOKS_IN_FOLDER: [c_long; 5] =
    [libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_name_to_handle_at, GETXATTRAT, LISTXATTRAT];
const CHANGES_IN_FOLDER: [c_long; 7] = [
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchownat,
    libc::SYS_futimesat,
    libc::SYS_utimensat,
    SETXATTRAT,
    REMOVEXATTRAT,
];
const LOOKS: [c_long; 6] = [
    libc::SYS_chdir,
    libc::SYS_chroot,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
];
const CHANGES: [c_long; 9] = [
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
];

fn by_descriptor(number: c_long, [a, b, c, d, _, f]: [usize; 6]) -> Option<c_long> {
    let (fd, buffer, iov) = (a as c_int, b as *mut c_void, b as *const iovec);
    Some(match number {
        libc::SYS_read => read::read(fd, buffer, c) as c_long,
        libc::SYS_pread64 => read::pread64(fd, buffer, c, d as off_t) as c_long,
        libc::SYS_readv => read::readv(fd, iov, c as c_int) as c_long,
        libc::SYS_preadv => read::preadv64(fd, iov, c as c_int, d as off_t) as c_long,
        libc::SYS_preadv2 => read::preadv64v2(fd, iov, c as c_int, d as off_t, f as c_int) as c_long,
        libc::SYS_lseek => seek::lseek64(fd, b as off_t, c as c_int),
        libc::SYS_fstat => stat::fstat(fd, b as *mut Stat).into(),
        libc::SYS_fstatfs => fs::fstatfs(fd, b as *mut libc::statfs).into(),
        libc::SYS_write => write::write(fd, buffer, c) as c_long,
        libc::SYS_pwrite64 => write::pwrite64(fd, buffer, c, d as off_t) as c_long,
        libc::SYS_writev => write::writev(fd, iov, c as c_int) as c_long,
        libc::SYS_pwritev => write::pwritev64(fd, iov, c as c_int, d as off_t) as c_long,
        libc::SYS_ftruncate => write::ftruncate(fd, b as off_t).into(),
        libc::SYS_close => dup::close(fd).into(),
        libc::SYS_close_range => dup::close_range(a as c_uint, b as c_uint, c as c_int).into(),
        libc::SYS_dup => dup::dup(fd).into(),
        libc::SYS_dup2 => dup::dup2(fd, b as c_int).into(),
        libc::SYS_dup3 => dup::dup3(fd, b as c_int, c as c_int).into(),
        // Not the C library's `fcntl`, which answers F_GETOWN in another way.
        libc::SYS_fcntl => {
            let got = real::syscall(number, a, b, c, 0, 0, 0);
            dup::commanded(fd, got as c_int, b as c_int);
            got
        }
        _ => return None,
    })
}

fn copying(number: c_long, [a, b, c, d, e, f]: [usize; 6]) -> Option<c_long> {
    let (first, second) = (a as c_int, b as *mut off_t);
    Some(match number {
        libc::SYS_mmap | libc::SYS_munmap | libc::SYS_mremap => map::by_number(number, [a, b, c, d, e, f]),
        libc::SYS_sendfile => copy::sendfile64(first, b as c_int, c as *mut off_t, d) as c_long,
        libc::SYS_copy_file_range => {
            copy::copy_file_range(first, second, c as c_int, d as *mut off_t, e, f as c_uint) as c_long
        }
        libc::SYS_splice => copy::splice(first, second, c as c_int, d as *mut off_t, e, f as c_uint) as c_long,
        libc::SYS_ioctl => copy::ioctl(first, b as c_ulong, c).into(),
        libc::SYS_fadvise64 => match seek::posix_fadvise64(first, b as off_t, c as off_t, d as c_int) {
            0 => 0,
            number => {
                crate::outcome::set_errno(number);
                -1
            }
        },
        _ => return None,
    })
}
