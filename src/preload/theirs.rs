//! Users' files at the places of objects: what a program that opens one for reading gets.
//!
//! Called by the open hooks when the engine's catalog has named the file so. The file is never changed; it is told of on
//! stderr once in a process, since it is no part of the model.

use crate::environ;
use crate::file;
use crate::handle::Handle;
use crate::log;
use crate::say::{self, say};
use core::sync::atomic::Ordering;
use ossc_cache::cpath::CPath;
use ossc_cache::sys::{Errno, FileId, Result};

/// True if this is the record of such a file.
pub(crate) fn is(handle: &Handle) -> bool {
    handle.object.is_in_the_way() && handle.lasts()
}

/// A program has opened such a file.
///
/// # Errors
/// ESTALE for one that lay there before the engine listed the folder, unless it was opened to be written to.
#[cold]
#[inline(never)]
pub(crate) fn opened(handle: &Handle, id: &FileId, fd: i32) -> Result<()> {
    if file::is_writable(fd) {
        return Ok(());
    }
    let errno = handle.object.errno.load(Ordering::Acquire) as i32;
    if !say::is_told(id) {
        let name =
            environ::descriptor_path(fd).unwrap_or_else(|| CPath::from(handle.region.name(handle.object).as_bytes()));
        let why: &[u8] = if errno == 0 {
            b"a program has put this file in an object's place, and reads get its bytes, not the object's: remove it to have the object"
        } else {
            b"this file of yours lies in an object's place, so reading it is an error (ESTALE): remove it, or give the model another MODEL_DIR"
        };
        say(&[b"oss connector: ", name.as_bytes(), b": ", why, b"\n"]);
        log::named(why, name.as_bytes());
    }
    if errno == 0 { Ok(()) } else { Err(Errno(errno)) }
}
