//! The descriptors that this process has open, as /proc lists them.
//!
//! Called by the session and by `past`, rarely. It allocates nothing.

use core::ffi::CStr;
use ossc_cache::cpath::CPath;
use ossc_cache::sys;

const BYTES: usize = 4096;
const FOLDER: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;

/// Runs `act` on each; false where /proc cannot be read.
pub(crate) fn each(mut act: impl FnMut(i32)) -> bool {
    let Ok(folder) = sys::openat(sys::AT_FDCWD, c"/proc/self/fd", FOLDER, 0) else { return false };
    let mut buffer = [0u8; BYTES];
    let whole = loop {
        match crate::real::entries(folder, &mut buffer) {
            Ok(0) => break true,
            Ok(len) => names(&buffer[..len]).filter_map(number).filter(|fd| *fd != folder).for_each(&mut act),
            Err(_) => break false,
        }
    };
    let _ = sys::close(folder);
    whole
}

/// Runs `act` on a descriptor of the path, if it can be opened with these flags.
pub(crate) fn with<T>(dir: i32, path: &CStr, flags: i32, act: impl FnOnce(i32) -> T) -> Option<T> {
    let fd = sys::openat(dir, path, flags, 0).ok()?;
    let value = act(fd);
    let _ = sys::close(fd);
    Some(value)
}

/// True if this process can open nothing more.
pub(crate) fn are_used_up() -> bool {
    let opened = sys::openat(sys::AT_FDCWD, c"/", FOLDER | libc::O_PATH, 0);
    opened.map(sys::close).is_err_and(|errno| matches!(errno.0, libc::EMFILE | libc::ENFILE))
}

/// True for an open folder in which there is nothing.
pub(crate) fn is_empty(folder: i32) -> bool {
    let mut buffer = [0u8; 256];
    let len = crate::real::entries(folder, &mut buffer).unwrap_or(buffer.len());
    names(&buffer[..len]).all(|name| matches!(name, b"." | b".."))
}

/// True if the link below /proc of a descriptor says so.
pub(crate) fn is_named(fd: i32, name: &[u8]) -> bool {
    let link = CPath::from(b"/proc/self/fd/").with_number(fd as u64);
    let mut target = [0u8; 32];
    let len = link.as_cstr().map_or(Ok(0), |link| sys::readlink(sys::AT_FDCWD, link, &mut target));
    len.is_ok_and(|len| &target[..len] == name)
}

fn number(name: &[u8]) -> Option<i32> {
    core::str::from_utf8(name).ok()?.parse().ok()
}

/// The names in the bytes that `getdents64` gave.
fn names(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    const LEN_AT: usize = 16;
    const NAME_AT: usize = 19;
    core::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes([*bytes.get(LEN_AT)?, *bytes.get(LEN_AT + 1)?]));
        let name = CStr::from_bytes_until_nul(bytes.get(NAME_AT..len)?).ok()?;
        bytes = bytes.get(len..)?;
        Some(name.to_bytes())
    })
}
