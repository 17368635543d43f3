//! `open` and its kin: the real call first, then what it gave.
//!
//! A small object that is still coming is waited for and opened again; a call that would change a large
//! one is refused before the real call could do it.

use super::{Arguments, renewed, whole};
use crate::attach;
use crate::by_name;
use crate::failed;
use crate::file;
use crate::folder;
use crate::handle::{GONE, Handle};
use crate::identity::{self, Real};
use crate::join;
use crate::log;
use crate::marks;
use crate::outcome::{Outcome, errno, set_errno, slow_path};
use crate::real;
use crate::seen::Seen;
use crate::session::{self, Turn};
use crate::taken;
use crate::theirs;
use crate::uses;
use crate::version;
use crate::waiting;
use core::ffi::{c_char, c_int, c_long, c_void};
use core::sync::atomic::Ordering;
use libc::{AT_FDCWD, mode_t, size_t};
use ossc_cache::region::{Identity, state};
use ossc_cache::sys::{self, Errno, FileId};

hooks! {
    fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { opened(AT_FDCWD, path, flags, &|| real::open(path, flags, mode)) }
    fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { opened(AT_FDCWD, path, flags, &|| real::open64(path, flags, mode)) }
    fn openat(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int { opened(dir, path, flags, &|| real::openat(dir, path, flags, mode)) }
    fn openat64(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int { opened(dir, path, flags, &|| real::openat64(dir, path, flags, mode)) }
    fn __open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { opened(AT_FDCWD, path, flags, &|| real::__open(path, flags, mode)) }
    fn __open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { opened(AT_FDCWD, path, flags, &|| real::__open64(path, flags, mode)) }
    fn __open_2(path: *const c_char, flags: c_int) -> c_int { opened(AT_FDCWD, path, flags, &|| real::__open_2(path, flags)) }
    fn __open64_2(path: *const c_char, flags: c_int) -> c_int { opened(AT_FDCWD, path, flags, &|| real::__open64_2(path, flags)) }
    fn __openat_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int { opened(dir, path, flags, &|| real::__openat_2(dir, path, flags)) }
    fn __openat64_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int { opened(dir, path, flags, &|| real::__openat64_2(dir, path, flags)) }
    fn creat(path: *const c_char, mode: mode_t) -> c_int { opened(AT_FDCWD, path, CREATES, &|| real::creat(path, mode)) }
    fn creat64(path: *const c_char, mode: mode_t) -> c_int { opened(AT_FDCWD, path, CREATES, &|| real::creat64(path, mode)) }
    fn openat2(dir: c_int, path: *const c_char, how: *const c_void, size: size_t) -> c_int { opened_so(dir, path, how, &|| real::openat2(dir, path, how, size)) }
}

/// The same by their numbers in `syscall()`.
#[inline]
pub(super) fn by_number(number: c_long, [a, b, c, d, ..]: Arguments) -> Option<c_long> {
    let (dir, path, first) = (a as c_int, b as *const c_char, a as *const c_char);
    let got = match number {
        libc::SYS_open => open(first, b as c_int, c as mode_t),
        libc::SYS_creat => creat(first, b as mode_t),
        libc::SYS_openat => openat(dir, path, c as c_int, d as mode_t),
        libc::SYS_openat2 => openat2(dir, path, c as *const c_void, d),
        _ => return None,
    };
    Some(got.into())
}

/// `how` begins with the flags.
fn opened_so(dir: c_int, path: *const c_char, how: *const c_void, call: &dyn Fn() -> c_int) -> c_int {
    match real::peek(how as usize) {
        Ok(flags) => opened(dir, path, u64::from_ne_bytes(flags) as c_int, call),
        Err(_) => call(),
    }
}

const CREATES: c_int = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
const EXCLUSIVE: c_int = libc::O_CREAT | libc::O_EXCL;

#[inline(never)]
fn opened(dir: c_int, path: *const c_char, flags: c_int, call: &dyn Fn() -> c_int) -> c_int {
    let changes = flags & libc::O_ACCMODE == libc::O_WRONLY || flags & libc::O_TRUNC != 0;
    if changes || flags & libc::O_CREAT != 0 {
        by_name::list_for_new(dir, path);
    }
    // What must not exist yet changes nothing that does: the kernel's EEXIST is right.
    let is_new = flags & EXCLUSIVE == EXCLUSIVE;
    if changes && !is_new && flags & libc::O_PATH == 0 {
        let nofollow = if flags & libc::O_NOFOLLOW != 0 { libc::AT_SYMLINK_NOFOLLOW } else { 0 };
        if let Outcome::Failed(Errno(number)) = slow_path(|| may_change(dir, path, nofollow)) {
            set_errno(number);
            return -1;
        }
    }
    let before = errno();
    for tries in 1.. {
        let mut fd = by_name::until_listed(dir, path, call, |fd| *fd < 0);
        if fd < 0 && flags & libc::O_NONBLOCK != 0 && errno() == libc::EAGAIN {
            fd = again(dir, path, flags, before, call);
        }
        met(fd, path);
        match arrived(fd, flags, tries - 1) {
            Arrived::AsItIs => {
                renewed::renewed(fd);
                return fd;
            }
            Arrived::Again if tries < TRIES_MAX => {}
            Arrived::Again => return fd,
            Arrived::Failed(Errno(number)) => {
                let _ = sys::close(fd);
                set_errno(number);
                return -1;
            }
        }
        let _ = sys::close(fd);
        set_errno(before);
    }
    -1
}

/// How often a name is opened again that leads to another file meanwhile.
pub(super) const TRIES_MAX: u32 = 8;
/// How long an open that does not wait is made again where it meets a lease of the engine's, in milliseconds. A lease is
/// held for microseconds.
const LEASED_MS: u64 = 1_000;

/// An open with O_NONBLOCK has met a lease: if that is on a file of ours, no file system of a program's would refuse.
fn again(dir: c_int, path: *const c_char, flags: c_int, before: c_int, call: impl Fn() -> c_int) -> c_int {
    let nofollow = if flags & libc::O_NOFOLLOW != 0 { libc::AT_SYMLINK_NOFOLLOW } else { 0 };
    let is_ours =
        slow_path(|| Outcome::Served(file::of_path(dir, path, nofollow).served().is_some())).answer(false, || false);
    let until = sys::now_ms() + LEASED_MS;
    while is_ours && sys::now_ms() < until {
        sys::sleep_ms(1);
        set_errno(before);
        let fd = call();
        if fd >= 0 || errno() != libc::EAGAIN {
            return fd;
        }
    }
    set_errno(libc::EAGAIN);
    -1
}

/// What to do with a descriptor that the real call gave.
pub(super) enum Arrived {
    /// Hand it out.
    AsItIs,
    /// Close it, and open again what is there now.
    Again,
    /// Close it.
    Failed(Errno),
}

/// A name below /proc was opened: see `join::meet`.
pub(super) fn met(fd: c_int, path: *const c_char) {
    if fd >= 0 && !attach::is_attached() {
        let _ = slow_path(|| {
            join::meet(fd, path);
            Outcome::<()>::Pass
        });
    }
}

/// Looks at what was opened: lists a folder, waits for a small object, and for a listing that is new enough.
/// `repeats`: how often the name was opened before.
pub(super) fn arrived(fd: c_int, flags: c_int, repeats: u32) -> Arrived {
    match look(fd, flags, repeats) {
        // The name may have been given to another file by the listing that this look has caused.
        Arrived::Failed(GONE) if repeats == 0 => Arrived::Again,
        arrived => arrived,
    }
}

fn look(fd: c_int, flags: c_int, repeats: u32) -> Arrived {
    if fd < 0 {
        return Arrived::AsItIs;
    }
    marks::forget(fd);
    let Ok(id) = sys::file_id(fd) else { return Arrived::AsItIs };
    if id.is_folder() {
        return match slow_path(|| Outcome::Served(folder::opened(&id, fd))) {
            Outcome::Served(false) => Arrived::Failed(Errno(libc::EIO)),
            _ => Arrived::AsItIs,
        };
    }
    if !id.is_file() || flags & libc::O_PATH != 0 {
        return Arrived::AsItIs;
    }
    if !identity::could_be_ours(&id) {
        if version::is_of_an_engine_before(&id) {
            return Arrived::Failed(GONE);
        }
        // Who writes to a real file makes it a file of the program's own.
        if flags & libc::O_ACCMODE != libc::O_RDONLY {
            return Arrived::AsItIs;
        }
        let real = || match file::real(&id, fd) {
            Real::Of(handle) if theirs::is(&handle) => Outcome::Served(users(&handle, &id, fd, repeats)),
            Real::Of(handle) => Outcome::Served(in_session(&handle, repeats)),
            Real::Again => Outcome::Served(Arrived::Again),
            Real::Unknown => Outcome::Served(Arrived::Failed(Errno(libc::EIO))),
            Real::Theirs => Outcome::Pass,
        };
        return slow_path(real).answer(Arrived::AsItIs, || Arrived::AsItIs);
    }
    slow_path(|| match file::of_opened(&id, fd, repeats) {
        Outcome::Served(seen) => Outcome::Served(judge(&seen, flags, repeats)),
        Outcome::Pass => Outcome::Pass,
        // A file of the program's own making is its own, also while no engine can be asked; so is one without a mark
        // that it opens to write alone.
        Outcome::Failed(_) if makes(flags) || only_writes(flags) && file::is_to_write(fd) => Outcome::Pass,
        Outcome::Failed(errno) => Outcome::Served(Arrived::Failed(errno)),
    })
    .answer(Arrived::Failed(Errno(libc::EIO)), || Arrived::AsItIs)
}

/// True for what can only give a new file.
fn makes(flags: c_int) -> bool {
    flags & EXCLUSIVE == EXCLUSIVE
}

fn only_writes(flags: c_int) -> bool {
    flags & libc::O_ACCMODE == libc::O_WRONLY
}

/// Whether this process may have the version that was opened.
fn in_session(handle: &Handle, repeats: u32) -> Arrived {
    match session::opened(handle, repeats) {
        Turn::Go => Arrived::AsItIs,
        Turn::Again => Arrived::Again,
        Turn::Stale => Arrived::Failed(GONE),
    }
}

/// A user's file lies at an object's place; the listing that says so is to be new enough.
fn users(handle: &Handle, id: &FileId, fd: c_int, repeats: u32) -> Arrived {
    match session::looked(handle, repeats) {
        Turn::Again if repeats == 0 => Arrived::Again,
        _ => theirs::opened(handle, id, fd).map_or_else(Arrived::Failed, |()| Arrived::AsItIs),
    }
}

fn judge(seen: &Seen, flags: c_int, repeats: u32) -> Arrived {
    waiting::try_again(&seen.handle);
    if seen.is_coming() {
        return match waiting::placed(&seen.handle) {
            Ok(()) => Arrived::Again,
            Err(errno) => Arrived::Failed(errno),
        };
    }
    // Reached through /proc/self/fd or map_files: the memory file itself must never be open for writing, and its
    // reader, whom no hook sees, must find all of it there.
    if seen.identity == Identity::Memory {
        if flags & libc::O_ACCMODE != libc::O_RDONLY {
            log::line(b"open for writing refused (the folder is read-only)", &seen.handle);
            return Arrived::Failed(Errno(libc::EROFS));
        }
        if let Err(errno) = waiting::whole(&seen.handle) {
            return Arrived::Failed(errno);
        }
    }
    match in_session(&seen.handle, repeats) {
        Arrived::AsItIs => {}
        other => return other,
    }
    uses::tell(&seen.handle, 1);
    if seen.is_placeholder() {
        taken::opened(seen);
    }
    match denied(&seen.handle) {
        Some(errno) => Arrived::Failed(errno),
        None if seen.is_placeholder() => whole::opened(seen, flags).map_or_else(Arrived::Failed, |()| Arrived::AsItIs),
        None => Arrived::AsItIs,
    }
}

/// EACCES for an object that cannot be read until its owner acts (restores it, grants it); the log says so.
fn denied(handle: &Handle) -> Option<Errno> {
    let now = handle.now()?;
    let errno = now.object.errno.load(Ordering::Acquire) as i32;
    (now.object.state() == state::FAILED && errno == libc::EACCES).then(|| {
        log::line(b"open refused: the object is archived or may not be read", handle);
        failed::waited(&now, Errno(errno));
        Errno(errno)
    })
}

/// Failed if the path names an object; a small one that is still coming is waited for, and then is the
/// program's to change. `flags` are those of `fstatat`.
pub(super) fn may_change(dir: c_int, path: *const c_char, flags: c_int) -> Outcome<()> {
    file::changed(dir, path, flags).then(|seen| match seen.is_coming() {
        true => waiting::placed(&seen.handle).into(),
        false => file::refuse(b"change refused (the folder is read-only)", &seen.handle),
    })
}
