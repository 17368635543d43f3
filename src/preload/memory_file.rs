//! The memory file of an object: opening it, and telling whether a descriptor is it.
//!
//! Called by `memory_cache` and `memory`. The file is opened in the store's folder where this process has that, else the engine
//! hands it out. Nothing is waited for: what is read through it counts only if the fills are the same before and after.

use crate::attach::{self, ASK_MS, MOVED};
use crate::failed;
use crate::handle::{GONE, Handle};
use crate::log;
use core::sync::atomic::Ordering;
use ossc_cache::pages;
use ossc_cache::sys::{self, Errno, Result};
use ossc_cache::wire::Ask;

/// How long an engine that runs may take until it hands an object's memory out, in milliseconds.
const OPEN_MS: u64 = 8_000;

/// A fresh read-only, close-on-exec descriptor of the object's memory file; the caller owns it. Never 0-2. Nothing was
/// waited for: what is read through it counts only if the fills are the same before and after.
pub(crate) fn open_unready(handle: &Handle) -> Result<i32> {
    let until = sys::now_ms() + OPEN_MS;
    loop {
        let generation = attach::generation();
        let errno = match open_once(handle) {
            Ok(fd) => return Ok(fd),
            Err(errno) => errno,
        };
        match (attach::alive(generation), errno.0) {
            // Memory that died with its engine is had again from the next one.
            (Err(MOVED), _) => {}
            (_, libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ESTALE) => return Err(errno),
            // An engine that is just starting does not answer yet.
            (Ok(()), _) if sys::now_ms() < until => sys::sleep_ms(20),
            _ => {
                let why = b"the memory of this object cannot be opened: its reader gets EIO";
                log::line(why, handle);
                failed::tell(handle, Errno(libc::EIO), why);
                return Err(Errno(libc::EIO));
            }
        }
    }
}

fn open_once(handle: &Handle) -> Result<i32> {
    let now = handle.now().ok_or(GONE)?;
    let number = now.slot.number();
    let checked = |opened: i32| {
        let fd = if opened > 2 { opened } else { raise(opened, 3)? };
        let is_right = is_memory(fd, &now);
        // While it is open the engine is granted no lease on it, and so the record is not used again: what lasts now
        // lasts as long as the descriptor and its maps.
        if is_right && now.lasts() {
            return Ok(fd);
        }
        let _ = sys::close(fd);
        Err(if now.lasts() { Errno(libc::EIO) } else { GONE })
    };
    open_in_store(number).and_then(checked).or_else(|_| ask_for_memory(number).and_then(checked))
}

fn open_in_store(number: u32) -> Result<i32> {
    let store = attach::store_folder().ok_or(Errno(libc::EBADF))?;
    let name = pages::file_name(number);
    sys::openat(store, name.as_cstr().ok_or(Errno(libc::EIO))?, libc::O_RDONLY | libc::O_CLOEXEC, 0)
}

fn ask_for_memory(number: u32) -> Result<i32> {
    let packet = attach::ask_engine(Ask::Memory(number), b"", ASK_MS)?;
    match packet.fds {
        [fd, -1, -1, -1] if fd >= 0 => Ok(fd),
        _ => {
            packet.close_fds();
            Err(Errno(libc::EPROTO))
        }
    }
}

fn raise(fd: i32, at_least: i32) -> Result<i32> {
    let raised = sys::dup_from(fd, at_least);
    let _ = sys::close(fd);
    raised
}

/// True if the descriptor is the object's memory file.
pub(crate) fn is_memory(fd: i32, of: &Handle) -> bool {
    let dev = of.region.header().memory_dev.load(Ordering::Acquire);
    let ino = of.object.memory_ino.load(Ordering::Acquire);
    sys::file_id(fd).is_ok_and(|id| id.ino == ino && id.dev == dev)
}
