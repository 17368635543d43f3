//! `syscall()`: programs that make system calls by number (libuv, Go with cgo's libc, older Rust) meet the
//! same hooks. Every other number is forwarded untouched, with six arguments.
//!
//! Each family says which numbers are its own: here the families alone are listed.

use super::{
    Arguments, attribute, by_path, copy, dir, dup, fs, link, map, names, open, read, seek, stat, stdin, user, write,
};
use crate::active;
use crate::past;
use crate::real;
use core::ffi::c_long;

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
    let all = [a, b, c, d, e, f];
    if !active::is_wanted() {
        return real::by_number(number, all);
    }
    by_family(number, all).unwrap_or_else(|| real::by_number(number, all))
}

fn by_family(number: c_long, all: Arguments) -> Option<c_long> {
    read::by_number(number, all)
        .or_else(|| open::by_number(number, all))
        .or_else(|| stat::by_number(number, all))
        .or_else(|| dup::by_number(number, all))
        .or_else(|| seek::by_number(number, all))
        .or_else(|| map::by_number(number, all))
        .or_else(|| write::by_number(number, all))
        .or_else(|| copy::by_number(number, all))
        .or_else(|| link::by_number(number, all))
        .or_else(|| fs::by_number(number, all))
        .or_else(|| names::by_number(number, all))
        .or_else(|| dir::by_number(number, all))
        .or_else(|| by_path::by_number(number, all))
        .or_else(|| attribute::by_number(number, all))
        .or_else(|| stdin::by_number(number, all))
        .or_else(|| user::by_number(number, all))
        .or_else(|| made(number, all))
}

/// A ring or an aio context, through which files may be read.
#[inline]
fn made(number: c_long, all: Arguments) -> Option<c_long> {
    if !matches!(number, libc::SYS_io_uring_setup | libc::SYS_io_setup) {
        return None;
    }
    let got = real::by_number(number, all);
    match number {
        _ if got < 0 => {}
        libc::SYS_io_uring_setup => past::made_ring(all[0], all[1]),
        _ => past::made_context(),
    }
    Some(got)
}
