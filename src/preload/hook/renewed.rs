//! A number that is a stream's and leads to another file now. Called by `open` and `dup` with what they give.

use super::filled::{make_unreadable, memory_of, put};
use super::stdin;
use crate::marks;
use crate::outcome::{Outcome, errno, set_errno, slow_path};
use crate::process;
use crate::say::say;
use crate::streams;
use core::ffi::c_int;
use ossc_cache::sys::Errno;

/// A stream's number may lead to another file now, a placeholder perhaps, which it would find empty: the number gets the
/// object's bytes, as standard input does at the start.
#[inline]
pub(super) fn renewed(fd: c_int) {
    if streams::has(fd) {
        renew(fd);
    }
}

#[cold]
#[inline(never)]
fn renew(fd: c_int) {
    let before = errno();
    if process::is_owner() {
        if fd == 0 {
            stdin::redirect_stdin();
        } else {
            match slow_path(|| memory_of(fd, false)) {
                Outcome::Served(memory) => put(memory, fd),
                // What the memory budget can never hold a program may still read through the hooks.
                Outcome::Failed(Errno(libc::ENOMEM)) | Outcome::Pass => {}
                Outcome::Failed(_) => lose(fd),
            }
        }
    }
    set_errno(before);
}

/// The object's bytes cannot be had: reads of the stream are EBADF, not the end of an empty file.
fn lose(fd: c_int) {
    let _ = make_unreadable(fd, libc::O_CLOEXEC);
    marks::forget(fd);
    say(&[
        b"oss connector: a stream's descriptor leads to an object whose bytes cannot be had: reads of it fail; the log says why\n",
    ]);
}
