//! Whether this process still has an old version of an object open or mapped, as the kernel sees it.
//!
//! Called by the session, only when a program opens again what has changed under it. Where /proc cannot be read, it
//! counts as having one.

use crate::descriptors;
use crate::version;
use core::ffi::CStr;
use ossc_cache::sys;

const BYTES: usize = 4096;

/// True if it has one, or cannot tell.
pub(super) fn any_old() -> bool {
    !matches!((in_maps(), in_descriptors()), (Some(false), Some(false)))
}

/// Reads a file of /proc in lines; `None` if it cannot be read, else whether `is` was true of one.
fn any_line(path: &CStr, is: impl Fn(&[u8]) -> bool) -> Option<bool> {
    let fd = sys::openat(sys::AT_FDCWD, path, libc::O_RDONLY | libc::O_CLOEXEC, 0).ok()?;
    let mut buffer = [0u8; BYTES];
    let (mut len, mut found) = (0, false);
    let whole = loop {
        let got = match sys::read(fd, buffer.get_mut(len..).unwrap_or_default()) {
            Ok(got) => got,
            Err(errno) if errno.is_interrupt() => continue,
            Err(_) => break false,
        };
        len += got;
        let end = buffer[..len].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        found |= buffer[..end].split(|byte| *byte == b'\n').any(&is);
        if got == 0 {
            break true;
        }
        // What fills the buffer without an end of a line is the tail of a long path.
        let end = if end == 0 && len == BYTES { len } else { end };
        buffer.copy_within(end..len, 0);
        len -= end;
    };
    let _ = sys::close(fd);
    whole.then_some(found)
}

fn in_maps() -> Option<bool> {
    any_line(c"/proc/self/maps", |line| mapped(line).is_some_and(|(dev, ino)| version::is_old_file(dev, ino)))
}

/// Device and inode of a line of `maps`: `START-END PERMS OFFSET MAJOR:MINOR INODE PATH`.
fn mapped(line: &[u8]) -> Option<(u64, u64)> {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let device = words.nth(3)?;
    let cut = device.iter().position(|byte| *byte == b':')?;
    let (major, minor) = (number(&device[..cut], 16)?, number(&device[cut + 1..], 16)?);
    let ino = number(words.next()?, 10)?;
    (ino != 0).then(|| (libc::makedev(major as u32, minor as u32), ino))
}

fn number(text: &[u8], base: u64) -> Option<u64> {
    let digit = |byte: &u8| (*byte as char).to_digit(base as u32).map(u64::from);
    text.iter().try_fold(0u64, |sum, byte| sum.checked_mul(base)?.checked_add(digit(byte)?))
}

fn in_descriptors() -> Option<bool> {
    let mut found = false;
    descriptors::each(|fd| found |= is_old(fd)).then_some(found)
}

fn is_old(fd: i32) -> bool {
    sys::file_id(fd).is_ok_and(|id| version::is_old_file(id.dev, id.ino))
}
