//! What is remembered of descriptor numbers: whether writes need no check, and what was given before a verdict.
//!
//! Called by `file`, `marks` and `taken`. Both are as good as the program's own bookkeeping: a number that was given to
//! another file past this library still has them. The child of a `vfork`, which shares the tables, changes nothing.

use crate::process;
use core::ffi::c_int;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicUsize, Ordering::Relaxed};

/// So many numbers are remembered; of higher ones nothing is.
pub(crate) const COUNT: usize = 1 << 16;
/// Set when writes need no check.
const NOT_OURS: u8 = 1;
/// What one reuse of a number adds; the rest of the byte counts them, so that a slow check of the file
/// that had the number before cannot mark the one that has it now.
const REUSE: u8 = 2;

static STATES: [AtomicU8; COUNT] = [const { AtomicU8::new(0) }; COUNT];
/// Highest number that may have a state.
static HIGHEST: AtomicUsize = AtomicUsize::new(0);

/// Something is remembered of this number.
pub(crate) fn note(at: usize) {
    HIGHEST.fetch_max(at, Relaxed);
}

/// Of higher numbers nothing is remembered.
pub(crate) fn highest() -> usize {
    HIGHEST.load(Relaxed)
}

/// What is known of writes to a number, and which reuse of it that is about.
#[derive(Clone, Copy)]
pub(crate) struct State(u8);

impl State {
    /// Writes need no check.
    pub fn is_plain(self) -> bool {
        self.0 & NOT_OURS != 0
    }
}

#[inline(always)]
fn state_at(fd: c_int) -> Option<&'static AtomicU8> {
    usize::try_from(fd).ok().and_then(|at| STATES.get(at))
}

/// See `State`.
pub(crate) fn state(fd: c_int) -> State {
    State(state_at(fd).map_or(0, |state| state.load(Relaxed)))
}

/// True if writes to this number are known to need no check.
#[inline(always)]
pub(crate) fn is_plain(fd: c_int) -> bool {
    state_at(fd).is_some_and(|state| state.load(Relaxed) & NOT_OURS != 0)
}

/// The file behind a number is none of ours, if the number is the same reuse still as when it had the state `before`.
pub(crate) fn set_plain(fd: c_int, before: State) {
    if let Some(state) = state_at(fd)
        && process::is_owner()
    {
        note(fd as usize);
        let _ = state.compare_exchange(before.0, before.0 | NOT_OURS, Relaxed, Relaxed);
    }
}

/// A number was closed, or names another file now: its next writes are checked.
pub(crate) fn renew(fd: c_int) {
    if let Some(state) = state_at(fd) {
        let seen = state.load(Relaxed);
        if seen & NOT_OURS != 0 {
            state.store((seen & !NOT_OURS).wrapping_add(REUSE), Relaxed);
        }
    }
}

/// What was given through a number before the verdict on its object: see `taken`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// Nothing that this library knows of, and where it comes from is not known either.
    None,
    /// Nothing: this process has opened it.
    Opened,
    /// Bytes, in this epoch of its object.
    Took(u16),
}

/// 0, `OPENED`, or an epoch.
static STAMPS: [AtomicU16; COUNT] = [const { AtomicU16::new(0) }; COUNT];
const OPENED: u16 = u16::MAX;

/// See `Stamp`.
pub(crate) fn stamp(fd: c_int) -> Stamp {
    match usize::try_from(fd).ok().and_then(|at| STAMPS.get(at)).map_or(0, |stamp| stamp.load(Relaxed)) {
        0 => Stamp::None,
        OPENED => Stamp::Opened,
        epoch => Stamp::Took(epoch),
    }
}

/// See `Stamp`.
pub(crate) fn set_stamp(fd: c_int, stamp: Stamp) {
    let value = match stamp {
        Stamp::None => 0,
        Stamp::Opened => OPENED,
        Stamp::Took(epoch) => epoch,
    };
    let Some((at, place)) = usize::try_from(fd).ok().and_then(|at| Some((at, STAMPS.get(at)?))) else { return };
    if place.load(Relaxed) != value && process::is_owner() {
        note(at);
        place.store(value, Relaxed);
    }
}

/// The number is of another object by now, whatever was given before.
pub(crate) fn clear_stamp(at: usize) {
    STAMPS[at].store(0, Relaxed);
}

/// `new` is a duplicate of `fd`.
pub(crate) fn copy_stamp(fd: c_int, new: c_int) {
    if new >= 0 {
        set_stamp(new, stamp(fd));
    }
}
