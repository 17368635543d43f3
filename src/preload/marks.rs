//! Through which descriptor numbers objects are read: what this process keeps of an object goes with the last of them.
//!
//! Called by the hooks where an object is read and where a number is closed or given to another file. A mark is as good
//! as the program's own bookkeeping: the file is asked what it is before each use (`file::known`).

use crate::handle::{Handle, Slot};
use crate::memory_cache;
use crate::numbers::{self, COUNT, Stamp};
use crate::process;
use crate::session;
use crate::taken;
use core::ffi::c_int;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What was read through a number: a slot, 0 for none, or `LOST`.
static MARKS: [AtomicU32; COUNT] = [const { AtomicU32::new(0) }; COUNT];

/// What was last read through a number.
pub(crate) enum Mark {
    /// Nothing of ours.
    None,
    /// What stands for an object whose bytes cannot be had.
    Lost,
    /// This object.
    Of(Slot),
}

/// What was last read through a number. As good as the program's own bookkeeping: a number that was given to another file
/// past this library still has it, so the file is asked what it is.
#[inline(always)]
pub(crate) fn of(fd: c_int) -> Mark {
    mark_in(usize::try_from(fd).ok().and_then(|at| MARKS.get(at)).map_or(0, |mark| mark.load(Relaxed)))
}

#[inline(always)]
fn mark_in(word: u32) -> Mark {
    match word {
        0 => Mark::None,
        LOST => Mark::Lost,
        slot => Mark::Of(Slot::from_bits(slot)),
    }
}

/// The object of a mark.
fn handle_in(word: u32) -> Option<Handle> {
    match mark_in(word) {
        Mark::Of(slot) => slot.handle(),
        _ => None,
    }
}

/// False where the mark is none. For two instructions less it is true, too, for numbers beyond the marks that share
/// their low bits with one that has a mark.
#[inline(always)]
pub(crate) fn may_be_marked(fd: c_int) -> bool {
    MARKS[fd as usize % COUNT].load(Relaxed) != 0
}

/// The mark of a number whose object's bytes cannot be had (`identity::lose`). No slot: generations count to 126.
const LOST: u32 = u32::MAX;

/// What is read through this number is an error from now on.
pub(crate) fn mark_lost(fd: c_int) {
    if let Some(mark) = usize::try_from(fd).ok().and_then(|at| MARKS.get(at)) {
        numbers::note(fd as usize);
        mark.store(LOST, Relaxed);
    }
}

/// The object is read through this number: what the client keeps of it stays until the number is gone.
pub(crate) fn mark(fd: c_int, handle: &Handle) {
    let slot = handle.slot.to_bits();
    let Some((at, mark)) = usize::try_from(fd).ok().and_then(|at| Some((at, MARKS.get(at)?))) else { return };
    if mark.load(Relaxed) == slot || !process::is_owner() {
        return;
    }
    numbers::note(at);
    memory_cache::used_by_one_more(handle);
    session::taken(handle);
    taken::met(handle);
    let Some(before) = handle_in(mark.swap(slot, Relaxed)) else { return };
    if !before.is_same(handle) {
        numbers::clear_stamp(at);
    }
    memory_cache::used_by_one_less(&before);
}

fn unmark(at: usize) {
    if MARKS[at].load(Relaxed) == 0 || !process::is_owner() {
        return;
    }
    if let Some(before) = handle_in(MARKS[at].swap(0, Relaxed)) {
        session::let_go(&before);
        memory_cache::used_by_one_less(&before);
    }
}

/// A number was closed, or names another file now.
pub(crate) fn forget(fd: c_int) {
    if let Some(at) = usize::try_from(fd).ok().filter(|at| *at < COUNT) {
        unmark(at);
        numbers::set_stamp(fd, Stamp::None);
    }
    numbers::renew(fd);
}

/// The same for all numbers from `from` to `to`.
pub(crate) fn forget_range(from: u32, to: u32) {
    let end = numbers::highest().min(to as usize);
    for fd in from as usize..=end {
        forget(fd as c_int);
    }
}
