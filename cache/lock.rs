//! The file whose lock an engine holds, and the numbers that it leaves in it for programs that look for it.
//!
//! Called by the engine (`open`, `words`) and by the library (`word`). A file that is not an engine's is neither
//! emptied nor written to, and a link is not followed: CONNECTOR_UDS_PATH may name any place.

use crate::sys::{self, AT_FDCWD, Errno, Result};
use core::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// First word of a lock's file.
pub const MAGIC: u64 = u64::from_le_bytes(*b"osscLOCK");
/// Where in the file the region's `birth` is, in words of 8 bytes.
pub const BIRTH: u64 = 1;
/// Where the `place_key` of OSS_PATH is.
pub const PATH_KEY: u64 = 2;
/// Where that of the endpoint is.
pub const ENDPOINT_KEY: u64 = 3;
/// Where it says which standard streams of programs the engine writes to: bits of `wire::outputs`.
pub const OUTPUTS: u64 = 4;

/// Opens the lock's file, which is made if it is missing. `is_given`: by CONNECTOR_UDS_PATH, so that what lies there
/// must be empty or begin with the magic number; in a run folder every regular file of that name is an engine's.
///
/// Errors: EEXIST for what is not an engine's, ELOOP for a link, else what the kernel says.
pub fn open(path: &CStr, is_given: bool) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let fd = sys::openat(AT_FDCWD, path, flags, 0o600)?;
    // SAFETY: opened above, and owned by nobody else.
    checked(unsafe { OwnedFd::from_raw_fd(fd) }, is_given)
}

/// What `open` would say of the file, without making it: nothing is wrong with one that is not there.
///
/// Errors: as of `open`.
pub fn look(path: &CStr, is_given: bool) -> Result<()> {
    let flags = libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    match sys::openat(AT_FDCWD, path, flags, 0) {
        // SAFETY: opened here, and known to nothing else.
        Ok(fd) => checked(unsafe { OwnedFd::from_raw_fd(fd) }, is_given).map(drop),
        Err(Errno(libc::ENOENT)) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn checked(file: OwnedFd, is_given: bool) -> Result<OwnedFd> {
    let id = sys::file_id(file.as_raw_fd())?;
    let is_ours = id.is_file() && (!is_given || id.size == 0 || number_at(file.as_raw_fd(), 0) == Some(MAGIC));
    if is_ours { Ok(file) } else { Err(Errno(libc::EEXIST)) }
}

/// What the holder writes to the file's beginning: `birth`, the keys of OSS_PATH and endpoint, and `OUTPUTS`.
pub fn encode([birth, path_key, endpoint_key, outputs]: [u64; 4]) -> [u8; 40] {
    let mut bytes = [0; 40];
    for (to, word) in bytes.chunks_exact_mut(8).zip([MAGIC, birth, path_key, endpoint_key, outputs]) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Number `index` of those that the holder has left in the file; `None` when there is none.
pub fn read_number(path: &CStr, index: u64) -> Option<u64> {
    let fd = sys::openat(AT_FDCWD, path, libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW, 0).ok()?;
    let found = (number_at(fd, 0) == Some(MAGIC)).then(|| number_at(fd, index)).flatten();
    let _ = sys::close(fd);
    found
}

/// False for a file that can be read and does not name the region of this `birth`: its holder is another engine, or is
/// starting and has left nothing yet.
pub fn may_name(path: &CStr, birth: u64) -> bool {
    let Ok(fd) = sys::openat(AT_FDCWD, path, libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW, 0) else {
        return true;
    };
    let names = number_at(fd, 0) == Some(MAGIC) && number_at(fd, BIRTH) == Some(birth);
    let _ = sys::close(fd);
    names
}

fn number_at(fd: i32, index: u64) -> Option<u64> {
    let mut bytes = [0u8; 8];
    let got = sys::pread(fd, bytes.as_mut_ptr(), bytes.len(), index * 8);
    (got == Ok(bytes.len())).then(|| u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpath::CPath;

    #[test]
    fn what_is_not_an_engines_is_left_alone() {
        let folder = std::env::temp_dir().join(format!("ossc-lock-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let at = |name: &str| CPath::from(folder.join(name).as_os_str().as_encoded_bytes());
        let (new, own, theirs) = (at("new"), at("own"), at("theirs"));
        assert!(may_name(new.as_cstr().unwrap(), 7), "a file that cannot be read says nothing");
        assert!(look(new.as_cstr().unwrap(), true).is_ok() && !folder.join("new").exists(), "a look makes nothing");
        assert!(open(new.as_cstr().unwrap(), true).is_ok());
        assert!(!may_name(new.as_cstr().unwrap(), 7), "its engine has just taken the lock");
        std::fs::write(folder.join("own"), encode([7, 8, 9, 3])).unwrap();
        assert!(open(own.as_cstr().unwrap(), true).is_ok());
        assert_eq!(
            [BIRTH, PATH_KEY, ENDPOINT_KEY, OUTPUTS].map(|at| read_number(own.as_cstr().unwrap(), at)),
            [7, 8, 9, 3].map(Some)
        );
        assert!(may_name(own.as_cstr().unwrap(), 7) && !may_name(own.as_cstr().unwrap(), 8));
        std::fs::write(folder.join("theirs"), [7u8; 24]).unwrap();
        assert_eq!(open(theirs.as_cstr().unwrap(), true).err(), Some(Errno(libc::EEXIST)));
        assert_eq!(look(theirs.as_cstr().unwrap(), true), Err(Errno(libc::EEXIST)));
        assert_eq!(read_number(theirs.as_cstr().unwrap(), BIRTH), None);
        assert!(open(theirs.as_cstr().unwrap(), false).is_ok(), "an engine's of before, in a folder of ours");
        std::os::unix::fs::symlink("own", folder.join("link")).unwrap();
        assert_eq!(open(at("link").as_cstr().unwrap(), true).err(), Some(Errno(libc::ELOOP)));
        std::fs::create_dir(folder.join("folder")).unwrap();
        assert_eq!(open(at("folder").as_cstr().unwrap(), false).err(), Some(Errno(libc::EISDIR)));
        assert_eq!(std::fs::read(folder.join("theirs")).unwrap(), [7u8; 24]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
