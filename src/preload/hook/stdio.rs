//! Streams. The C library reads and seeks inside itself, where no hook is, so a FILE gets a descriptor
//! whose bytes the kernel has: the object is waited for as a whole, then its memory file takes the
//! descriptor's number, close-on-exec flag and offset.

use super::filled::{memory_of, put};
use super::{open, stdin};
use crate::by_name;
use crate::outcome::{Outcome, errno, set_errno, slow_path};
use crate::real;
use crate::streams;
use core::ffi::{CStr, c_char, c_int};
use core::ptr::null_mut;
use libc::{AT_FDCWD, FILE};
use ossc_cache::sys::{self, Errno};

hooks! {
    fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE { opened(path, mode, false, &|| real::fopen(path, mode)) }
    fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE { opened(path, mode, false, &|| real::fopen64(path, mode)) }
    fn freopen(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE { reopened(path, mode, stream, &|| real::freopen(path, mode, stream)) }
    fn freopen64(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE { reopened(path, mode, stream, &|| real::freopen64(path, mode, stream)) }
    fn fclose(stream: *mut FILE) -> c_int { closed(stream, || real::fclose(stream)) }
    fn _IO_fopen(path: *const c_char, mode: *const c_char) -> *mut FILE { opened(path, mode, false, &|| real::_IO_fopen(path, mode)) }
    fn _IO_fclose(stream: *mut FILE) -> c_int { closed(stream, || real::_IO_fclose(stream)) }
    fn _IO_fdopen(fd: c_int, mode: *const c_char) -> *mut FILE { taken(fd, mode, || real::_IO_fdopen(fd, mode)) }
    fn fdopen(fd: c_int, mode: *const c_char) -> *mut FILE { taken(fd, mode, || real::fdopen(fd, mode)) }
}

fn closed(stream: *mut FILE, call: impl FnOnce() -> c_int) -> c_int {
    let fd = number_of(stream);
    streams::forget(fd);
    stdin::closing(fd, call)
}

/// A stream that cannot be opened anew is closed: its number is no stream's any more.
fn reopened(path: *const c_char, mode: *const c_char, stream: *mut FILE, call: &dyn Fn() -> *mut FILE) -> *mut FILE {
    let before = number_of(stream);
    let stream = if path.is_null() { call() } else { opened(path, mode, true, call) };
    if stream.is_null() {
        streams::forget(before);
    }
    stream
}

/// A stream of a descriptor that is open already.
fn taken(fd: c_int, mode: *const c_char, call: impl FnOnce() -> *mut FILE) -> *mut FILE {
    let stream = taken_as(fd, mode, call);
    if !stream.is_null() {
        streams::note(fd);
    }
    stream
}

fn taken_as(fd: c_int, mode: *const c_char, call: impl FnOnce() -> *mut FILE) -> *mut FILE {
    match slow_path(|| memory_of(fd, changes(mode))) {
        Outcome::Pass => call(),
        Outcome::Failed(errno) => Outcome::Failed(errno).answer(null_mut(), null_mut),
        Outcome::Served(memory) => {
            let stream = call();
            if stream.is_null() {
                let _ = sys::close(memory);
                return stream;
            }
            put(memory, fd);
            stream
        }
    }
}

/// `reopens`: the call closes by itself what it has opened before.
#[inline(never)]
fn opened(path: *const c_char, mode: *const c_char, reopens: bool, call: &dyn Fn() -> *mut FILE) -> *mut FILE {
    if changes(mode) {
        by_name::list_for_new(AT_FDCWD, path);
    }
    if changes(mode)
        && !is_exclusive(mode)
        && let Outcome::Failed(errno) = slow_path(|| open::may_change(AT_FDCWD, path, 0))
    {
        return Outcome::Failed(errno).answer(null_mut(), null_mut);
    }
    let before = errno();
    let mut repeats = 0;
    loop {
        let stream = by_name::until_listed(AT_FDCWD, path, call, |stream| stream.is_null());
        if stream.is_null() {
            return stream;
        }
        let fd = number_of(stream);
        open::met(fd, path);
        match open::arrived(fd, if only_writes(mode) { libc::O_WRONLY } else { libc::O_RDONLY }, repeats) {
            open::Arrived::AsItIs => {
                streams::note(fd);
                return filled(stream, fd, mode);
            }
            open::Arrived::Again if repeats < open::TRIES_MAX => {}
            open::Arrived::Again => return stream,
            open::Arrived::Failed(errno) => return failed(stream, errno),
        }
        if !reopens {
            close(stream);
        }
        set_errno(before);
        repeats += 1;
    }
}

fn filled(stream: *mut FILE, fd: c_int, mode: *const c_char) -> *mut FILE {
    match slow_path(|| memory_of(fd, changes(mode))) {
        Outcome::Pass => stream,
        Outcome::Failed(errno) => failed(stream, errno),
        Outcome::Served(memory) => {
            put(memory, fd);
            stream
        }
    }
}

fn failed(stream: *mut FILE, errno: Errno) -> *mut FILE {
    close(stream);
    Outcome::Failed(errno).answer(null_mut(), null_mut)
}

fn close(stream: *mut FILE) {
    streams::forget(number_of(stream));
    let _ = real::fclose(stream);
}

fn number_of(stream: *mut FILE) -> c_int {
    let before = errno();
    // SAFETY: an open stream, given by the real call or by the program to `fclose`.
    let fd = unsafe { libc::fileno(stream) };
    // A stream without a descriptor is no failure here.
    set_errno(before);
    fd
}

/// The mode's letters, without `,ccs=`.
fn letters<'a>(mode: *const c_char) -> &'a [u8] {
    // SAFETY: `fopen` reads the same string.
    let mode = unsafe { CStr::from_ptr(mode) }.to_bytes();
    mode.split(|byte| *byte == b',').next().unwrap_or_default()
}

/// True for modes whose file must not exist yet: the kernel's EEXIST is right.
fn is_exclusive(mode: *const c_char) -> bool {
    letters(mode).contains(&b'x')
}

/// True for modes that may write: `w`, `a`, `r+`.
fn changes(mode: *const c_char) -> bool {
    let mode = letters(mode);
    matches!(mode.first(), Some(b'w' | b'a')) || mode.first() == Some(&b'r') && mode.contains(&b'+')
}

/// True for modes that never read: `w`, `a`.
fn only_writes(mode: *const c_char) -> bool {
    changes(mode) && !letters(mode).contains(&b'+')
}
