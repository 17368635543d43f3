//! The folders above a folder, as the file system links them: what the name does not tell of one that was met behind a
//! bind mount.
//!
//! Called by `folder` for what the kernel names outside of MODEL_DIR. It decides nothing about a folder, and allocates
//! nothing.

use ossc_cache::sys::{self, FileId};

const UP: i32 = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
/// Most folders above one that are looked at.
const DEPTH_MAX: usize = 64;

/// What `of` says of the nearest folder above this one of which it says something. It is told each one's identity, with a
/// descriptor of it.
pub(crate) fn nearest<T>(folder: i32, of: impl Fn(&FileId, i32) -> Option<T>) -> Option<T> {
    let (mut at, mut before, mut found) = (folder, None, None);
    for _ in 0..DEPTH_MAX {
        let Ok(up) = sys::openat(at, c"..", UP, 0) else { break };
        leave(at, folder);
        at = up;
        let Ok(id) = sys::file_id(at) else { break };
        let number = Some((id.dev, id.ino));
        // The folder above the root is the root.
        if number == before {
            break;
        }
        before = number;
        found = of(&id, at);
        if found.is_some() {
            break;
        }
    }
    leave(at, folder);
    found
}

fn leave(at: i32, folder: i32) {
    if at != folder {
        let _ = sys::close(at);
    }
}
