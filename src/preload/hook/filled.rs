//! A descriptor whose bytes the kernel has: the object is waited for as a whole, then its memory file takes the
//! descriptor's number; or one that can only fail, where they cannot be had. Called by `stdio`, `stdin`, `renewed` and `whole`.

use super::link;
use crate::failed;
use crate::file;
use crate::marks;
use crate::memory;
use crate::outcome::Outcome;
use crate::seen::Seen;
use crate::session;
use crate::uses;
use core::ffi::c_int;
use libc::AT_FDCWD;
use ossc_cache::sys::{self, FileId, Result};

/// The complete object's memory file at the descriptor's offset, if the descriptor is a placeholder's. `changes`:
/// what asks may write.
pub(super) fn memory_of(fd: c_int, changes: bool) -> Outcome<c_int> {
    match file::placeholder(fd) {
        Outcome::Failed(_) if file::is_to_write(fd) => Outcome::Pass,
        found => found.then(|seen| memory_behind(fd, changes, &seen)),
    }
}

fn memory_behind(fd: c_int, changes: bool, seen: &Seen) -> Outcome<c_int> {
    if changes {
        if !file::is_writable(fd) {
            return Outcome::Pass;
        }
        return file::refuse(b"stream for writing refused (the folder is read-only)", &seen.handle);
    }
    let Ok(at) = sys::lseek(fd, 0, libc::SEEK_CUR) else { return Outcome::Pass };
    link::remember(fd, seen.handle.slot);
    whole(seen, at).inspect_err(|errno| failed::kept_from_memory(seen, *errno)).into()
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
    if (1..=2).find(is_written).is_none_or(|own| sys::dup3(own, fd, flags).is_err()) {
        let null = || sys::openat(AT_FDCWD, c"/dev/null", libc::O_WRONLY | flags, 0);
        let opened = null().or_else(|_| sys::close(fd).and_then(|()| null()));
        if let Ok(null) = opened
            && null != fd
        {
            let _ = sys::dup3(null, fd, flags);
            let _ = sys::close(null);
        }
    }
    None
}
