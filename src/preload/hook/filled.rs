//! A descriptor whose bytes the kernel has: the object is waited for as a whole, then its memory file takes the
//! descriptor's number. Called by `stdio`, `stdin`, `renewed` and `whole`.

use super::link;
use crate::file;
use crate::marks;
use crate::memory;
use crate::outcome::Outcome;
use crate::seen::Seen;
use crate::session;
use crate::uses;
use core::ffi::c_int;
use ossc_cache::sys::{self, Result};

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
