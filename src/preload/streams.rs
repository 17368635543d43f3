//! Which descriptor numbers belong to live streams of the C library, which read inside it, where no hook is: another file
//! that comes to such a number has to have its bytes in the kernel.
//!
//! Called by the hooks of streams (`note`, `forget`) and, once a number names another file, by those of `open` and `dup2`.
//! It knows the streams that were made through the hooks, and standard input. The child of a `vfork`, which shares the
//! table, changes nothing.

use crate::process;
use core::ffi::c_int;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

const COUNT: usize = 1024;
const BITS: usize = u64::BITS as usize;

/// One bit for each number. Standard input is a stream of each process.
static STREAMS: [AtomicU64; COUNT / BITS] = {
    let mut all = [const { AtomicU64::new(0) }; COUNT / BITS];
    all[0] = AtomicU64::new(1);
    all
};

fn of(fd: c_int) -> Option<(&'static AtomicU64, u64)> {
    let at = usize::try_from(fd).ok().filter(|at| *at < COUNT)?;
    Some((STREAMS.get(at / BITS)?, 1 << (at % BITS)))
}

/// A stream was made of this number.
pub(crate) fn note(fd: c_int) {
    if let Some((word, bit)) = of(fd)
        && word.load(Relaxed) & bit == 0
        && process::is_owner()
    {
        word.fetch_or(bit, Relaxed);
    }
}

/// The stream of this number is closed. That of standard input may be made again without a call that is hooked.
pub(crate) fn forget(fd: c_int) {
    if let Some((word, bit)) = of(fd)
        && fd != 0
        && word.load(Relaxed) & bit != 0
        && process::is_owner()
    {
        word.fetch_and(!bit, Relaxed);
    }
}

/// True if a stream reads through this number.
#[inline]
pub(crate) fn has(fd: c_int) -> bool {
    of(fd).is_some_and(|(word, bit)| word.load(Relaxed) & bit != 0)
}
