//! A file that is mapped and never read: the library answers such a map when all of the file is here and verified, and
//! its memory stays as long as the map does.
//!
//! Called by `ossc warm`, which runs under the library. The map is made through the C library, where the hooks are.

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd;

/// See the module. It ends with the process.
pub struct Mapped;

impl Mapped {
    /// All of a file of `bytes` bytes, of which there is at least one.
    ///
    /// # Errors
    /// Those of mmap, with the library's: EIO and EACCES for what OSS does not give, ENOMEM where there is no room.
    pub fn whole(file: &File, bytes: u64) -> Result<Mapped> {
        let len = usize::try_from(bytes).map_err(|_| Error::from_raw_os_error(libc::EFBIG))?;
        // SAFETY: a new private map at an address of the kernel's choice, whose bytes are never looked at: a file that is
        // cut does no harm.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(Mapped) }
    }
}
