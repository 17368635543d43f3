//! Streams. The C library reads and seeks inside itself, where no hook is, so a FILE gets a descriptor
//! whose bytes the kernel has: the object is waited for as a whole, then its memory file takes the
//! descriptor's number, close-on-exec flag and offset.

use super::{link, open, stdin};
use crate::by_name;
use crate::file;
use crate::marks;
use crate::memory;
use crate::outcome::{Outcome, ask, errno, set_errno};
use crate::process;
use crate::real;
use crate::say::say;
use crate::seen::Seen;
use crate::session;
use crate::streams;
use crate::uses;
use core::ffi::{CStr, c_char, c_int};
use core::ptr::null_mut;
use libc::{AT_FDCWD, FILE};
use ossc_cache::sys::{self, Errno, FileId, Result};

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
            stdin::take();
        } else {
            match ask(|| memory_of(fd, c"r".as_ptr())) {
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

/// Puts at the number `fd` what the C library can only fail to read: the writing end of a pipe, whose identity it
/// returns. A process that has no descriptor left for a pipe gets its own standard output or error once more if these
/// are only written, else /dev/null for writing at the number that is then closed.
pub(super) fn make_unreadable(fd: c_int, flags: c_int) -> Option<FileId> {
    if let Ok(end) = sys::write_end() {
        let id = sys::file_id(end).ok();
        let _ = sys::dup3(end, fd, flags);
        let _ = sys::close(end);
        return id;
    }
    let is_written = |own: &c_int| {
        let flags = sys::fcntl(*own, libc::F_GETFL, 0);
        *own != fd && flags.is_ok_and(|flags| flags as c_int & libc::O_ACCMODE == libc::O_WRONLY)
    };
    if !(1..=2).find(is_written).is_some_and(|own| sys::dup3(own, fd, flags).is_ok()) {
        let _ = sys::close(fd);
        let _ = sys::openat(AT_FDCWD, c"/dev/null", libc::O_WRONLY | flags, 0);
    }
    None
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
    match ask(|| memory_of(fd, mode)) {
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
        && let Outcome::Failed(errno) = ask(|| open::may_change(AT_FDCWD, path, 0))
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
    match ask(|| memory_of(fd, mode)) {
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

/// The complete object's memory file at the descriptor's offset, if the descriptor is a placeholder's.
pub(super) fn memory_of(fd: c_int, mode: *const c_char) -> Outcome<c_int> {
    match file::placeholder(fd) {
        Outcome::Failed(_) if file::is_to_write(fd) => Outcome::Pass,
        found => found.then(|seen| memory_behind(fd, mode, &seen)),
    }
}

fn memory_behind(fd: c_int, mode: *const c_char, seen: &Seen) -> Outcome<c_int> {
    if changes(mode) {
        if !file::is_writable(fd) {
            return Outcome::Pass;
        }
        return file::refuse(b"stream for writing refused (the folder is read-only)", &seen.handle);
    }
    let Ok(at) = sys::lseek(fd, 0, libc::SEEK_CUR) else { return Outcome::Pass };
    link::remember(fd, seen.handle.slot);
    whole(seen, at).into()
}

/// The complete object's memory file, at an offset. The caller owns it.
pub(super) fn whole(seen: &Seen, at: i64) -> Result<c_int> {
    session::taken(&seen.handle);
    let memory = memory::of_whole(seen)?;
    sys::lseek(memory, at, libc::SEEK_SET).inspect_err(|_| {
        let _ = sys::close(memory);
    })?;
    uses::tell(&seen.handle, 3);
    Ok(memory)
}

/// Puts the memory file at the number `fd`, with the flags that the number had.
pub(super) fn put(memory: c_int, fd: c_int) {
    let is_cloexec = sys::fcntl(fd, libc::F_GETFD, 0).is_ok_and(|flags| flags & libc::FD_CLOEXEC as usize != 0);
    let _ = sys::dup3(memory, fd, if is_cloexec { libc::O_CLOEXEC } else { 0 });
    let _ = sys::close(memory);
    marks::forget(fd);
}
