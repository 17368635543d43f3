//! A program or library that is about to be started by its name, and what the kernel and the loader open beside it: the
//! interpreter that a script names, and the libraries in the folder of an object.
//!
//! Called by the hooks of `exec`, `posix_spawn` and `dlopen`. It reads the first line of a script, as the kernel does, and
//! nothing else of a file. It allocates nothing, and leaves errno as it was.

use crate::by_name;
use crate::missing;
use crate::outcome::{Outcome, errno, set_errno, slow_path};
use crate::real;
use core::ffi::{c_char, c_int};
use libc::AT_FDCWD;
use ossc_cache::cpath::CPath;
use ossc_cache::sys;

/// Bytes of a program that the kernel looks at (BINPRM_BUF_SIZE).
const HEAD_BYTES: usize = 256;
/// Scripts behind one another that the kernel follows.
const SCRIPTS_MAX: usize = 5;
const READ: c_int = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;

/// A program: as `by_name::reach`, and its interpreters.
pub(crate) fn program(dir: c_int, path: *const c_char) {
    library(dir, path);
    let before = errno();
    let mut script = interpreter(dir, path);
    for _ in 0..SCRIPTS_MAX {
        let Some(path) = script.as_ref().and_then(CPath::as_cstr) else { break };
        library(AT_FDCWD, path.as_ptr());
        script = interpreter(AT_FDCWD, path.as_ptr());
    }
    set_errno(before);
}

/// A library, or a program without its interpreter: as `by_name::reach`, and where it is an object's file, the small objects
/// of its folder are there, too.
pub(crate) fn library(dir: c_int, path: *const c_char) {
    let Some(handle) = by_name::reach(dir, path) else { return };
    let before = errno();
    let _ = slow_path(|| {
        let path = handle.path();
        if let Some(cut) = path.as_bytes().iter().rposition(|byte| *byte == b'/') {
            missing::enter_folder(&path.as_bytes()[..cut]);
        }
        Outcome::<()>::Pass
    });
    set_errno(before);
}

/// What the first line of a script names.
#[inline(never)]
fn interpreter(dir: c_int, path: *const c_char) -> Option<CPath> {
    let fd = real::kernel(libc::SYS_openat, [dir as usize, path as usize, READ as usize, 0, 0, 0]).ok()? as c_int;
    let mut head = [0u8; HEAD_BYTES];
    let filled = sys::pread(fd, head.as_mut_ptr(), head.len(), 0).unwrap_or(0);
    let _ = sys::close(fd);
    let line = head.get(..filled)?.strip_prefix(b"#!")?.split(|byte| matches!(byte, b'\n' | 0)).next()?;
    let name = line.split(|byte| matches!(byte, b' ' | b'\t')).find(|word| !word.is_empty())?;
    Some(CPath::from(name))
}
