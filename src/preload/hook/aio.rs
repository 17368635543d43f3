//! POSIX AIO works inside the C library, where no hook is: a request on a placeholder waits here for its
//! bytes and is then pointed at the memory file. The program's control block keeps that descriptor.

use super::write;
use crate::copy::{end_of, source};
use crate::file;
use crate::memory_cache;
use crate::outcome::{Outcome, slow_path};
use crate::parts;
use crate::real;
use crate::seen::Seen;
use crate::waiting;
use core::ffi::{c_int, c_void};
use libc::aiocb;
use ossc_cache::region::Identity;

hooks! {
    fn aio_read(block: *mut aiocb) -> c_int { pointed(&raw const block, 1, Some(libc::LIO_READ)).answer(-1, || real::aio_read(block)) }
    fn aio_read64(block: *mut aiocb) -> c_int { pointed(&raw const block, 1, Some(libc::LIO_READ)).answer(-1, || real::aio_read64(block)) }
    fn aio_write(block: *mut aiocb) -> c_int { pointed(&raw const block, 1, Some(libc::LIO_WRITE)).answer(-1, || real::aio_write(block)) }
    fn aio_write64(block: *mut aiocb) -> c_int { pointed(&raw const block, 1, Some(libc::LIO_WRITE)).answer(-1, || real::aio_write64(block)) }
    fn lio_listio(mode: c_int, list: *const *mut aiocb, len: c_int, event: *mut c_void) -> c_int {
        pointed(list, len, None).answer(-1, || real::lio_listio(mode, list, len, event))
    }
    fn lio_listio64(mode: c_int, list: *const *mut aiocb, len: c_int, event: *mut c_void) -> c_int {
        pointed(list, len, None).answer(-1, || real::lio_listio64(mode, list, len, event))
    }
}

/// Prepares each request; `operation` is what all of them do, or None when the blocks say it.
fn pointed(list: *const *mut aiocb, len: c_int, operation: Option<c_int>) -> Outcome<c_int> {
    for index in 0..len.max(0) as usize {
        // SAFETY: the program gave `len` entries; glibc reads them the same way.
        let block = unsafe { *list.add(index) };
        if block.is_null() {
            continue;
        }
        // SAFETY: a block of the program's, which is not queued yet; glibc reads the same fields.
        let block = unsafe { &mut *block };
        let outcome = match operation.unwrap_or(block.aio_lio_opcode) {
            libc::LIO_READ => slow_path(|| point(block)),
            libc::LIO_WRITE => write::refused(block.aio_fildes),
            _ => Outcome::Pass,
        };
        if let Outcome::Failed(errno) = outcome {
            return Outcome::Failed(errno);
        }
    }
    Outcome::Pass
}

/// A block that was used before may still have the memory file of its last request: that is waited for as the
/// placeholder is.
fn point(block: &mut aiocb) -> Outcome<()> {
    file::of_descriptor(block.aio_fildes).then(|seen| match seen.identity {
        _ if seen.is_coming() => file::stale(&seen),
        Identity::Placeholder | Identity::Memory => point_at(block, &seen),
    })
}

fn point_at(block: &mut aiocb, seen: &Seen) -> Outcome<()> {
    // The C library finds EBADF by itself.
    if file::is_name_only(block.aio_fildes) {
        return Outcome::Pass;
    }
    let at = block.aio_offset.max(0) as u64;
    let end = end_of(seen, at, block.aio_nbytes as u64);
    // The kernel or a thread of libc's reads later: neither the parts nor the descriptor may go.
    parts::pin(&seen.handle, at, end);
    memory_cache::used_by_one_more(&seen.handle);
    let waited = waiting::parts(&seen.handle, at, end);
    let memory = |guard| {
        source(seen, at, end, || {
            memory_cache::cached_memory(&seen.handle, &guard).inspect(|_| parts::pin(&seen.handle, at, end))
        })
    };
    match waited.and_then(|()| memory_cache::guard_copy(&seen.handle)).and_then(memory) {
        Ok(source) => {
            block.aio_fildes = source.from;
            Outcome::Pass
        }
        Err(errno) => Outcome::Failed(errno),
    }
}
