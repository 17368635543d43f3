//! An open for reading that gives all of a large object: by O_DIRECT, by `openMode: whole`, or in a process that reads
//! past the C library. The memory file takes the number of the placeholder's descriptor, so that the kernel has the
//! bytes, whoever asks it: io_uring, libaio, cuFile, a child without this library.
//!
//! Called by `open` at its end. As behind a FILE, the memory is complete, verified and pinned before it is handed out,
//! and the kernel's leases keep it as long as any process has it open.

use super::{filled, link};
use crate::past::{self, Notice, Why};
use crate::seen::Seen;
use core::ffi::c_int;
use ossc_cache::sys::{self, Errno, Result};

/// What an open gives of a placeholder that this process may have; `flags` are those of the open.
pub(super) fn opened(seen: &Seen, flags: c_int) -> Result<()> {
    let Some(why) = past::why(seen, flags) else { return Ok(()) };
    let text = match why {
        Why::Sign(name) => name,
        Why::Direct => "O_DIRECT",
        Why::Mode => "openMode: whole",
    };
    if flags & libc::O_ACCMODE != libc::O_RDONLY {
        if why != Why::Mode {
            past::tell(seen, Notice::Writable, text);
        }
        return Ok(());
    }
    match given(seen) {
        Ok(()) => past::tell(seen, Notice::Whole, text),
        // Who merely may read it past the C library may as well read it by parts.
        Err(Errno(libc::ENOMEM)) if matches!(why, Why::Sign(_)) => past::tell(seen, Notice::Large, text),
        Err(errno) => {
            if errno == Errno(libc::ENOMEM) {
                past::tell(seen, Notice::Refused, text);
            }
            return Err(errno);
        }
    }
    Ok(())
}

/// Flags that an open file can be given later.
const SETTABLE: usize = (libc::O_APPEND | libc::O_ASYNC | libc::O_DIRECT | libc::O_NOATIME | libc::O_NONBLOCK) as usize;

fn given(seen: &Seen) -> Result<()> {
    link::remember(seen.fd, seen.handle.slot);
    let flags = sys::fcntl(seen.fd, libc::F_GETFL, 0)? & SETTABLE;
    let memory = filled::whole(seen, 0)?;
    // tmpfs takes O_DIRECT since Linux 6.6.
    let _ = sys::fcntl(memory, libc::F_SETFL, flags)
        .or_else(|_| sys::fcntl(memory, libc::F_SETFL, flags & !(libc::O_DIRECT as usize)));
    filled::put(memory, seen.fd);
    Ok(())
}
