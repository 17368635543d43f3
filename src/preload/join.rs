//! When a process becomes a client before it has met an object of ours: to be able to tell, to keep what it may lose,
//! or so that what it is about to do is not undone.
//!
//! Called by the hooks of families for which this matters. Nothing here waits for an engine that does not run, but
//! `meet`, which has to know.

use crate::attach::{self, attach, is_attached};
use crate::descriptors;
use crate::environ;
use crate::model_dir;
use crate::process;
use crate::real;
use core::ffi::{CStr, c_char};
use ossc_cache::sys;

/// A descriptor that was opened by a name below /proc may be of a memory file, of this process or of another one:
/// what it is can be told by a client only.
pub(crate) fn meet(fd: i32, path: *const c_char) {
    if is_attached() || path.is_null() {
        return;
    }
    // SAFETY: the kernel has just opened a file by this name, so it is a string.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    if (path.starts_with(b"/proc/") || path.starts_with(b"/dev/fd/")) && sys::is_on_tmpfs(fd) {
        let _ = attach();
    }
}

/// Makes this process a client, unless that would have to wait for an engine. Not in a `vfork` child, whose state is
/// its parent's.
pub(crate) fn join_one_that_runs() {
    if !is_attached() && process::is_owner() && attach::engine_runs() {
        let _ = attach();
    }
}

/// A name is about to be removed or moved: below MODEL_DIR this process becomes a client before that, since what is
/// missing when a client comes is made again.
pub(crate) fn before_removal(dir: i32, path: *const c_char) {
    const FLAGS: i32 = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    if is_attached()
        || !real::stat_at(dir, path, libc::AT_SYMLINK_NOFOLLOW).is_ok_and(|st| st.st_dev == model_dir::dev())
    {
        return;
    }
    // SAFETY: the kernel has just read this path and found a file by it, so it is a string.
    let path = unsafe { CStr::from_ptr(path) };
    let name = descriptors::with(dir, path, FLAGS, environ::descriptor_path).flatten();
    if name.is_some_and(|name| model_dir::is_inside(name.as_bytes())) {
        join_one_that_runs();
    }
}
