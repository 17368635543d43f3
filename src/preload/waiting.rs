//! Waits of a program's threads for what the engine brings: bytes, whole objects, small objects as files, verdicts.
//!
//! Called by the read path, by maps and streams, and by calls by name that meet a small object on its way. A wait is in
//! the region of now, begins again in the next one when that is replaced, and ends with an error where no engine works on
//! it any more (`attach::alive`). But for `whole` it pins nothing: what is to stay is held or pinned by the caller
//! (`parts`).

use crate::attach::{self, MOVED};
use crate::failed;
use crate::handle::{GONE, Handle};
use crate::log;
use crate::parts::Grain;
use crate::silent::Silence;
use core::cell::Cell;
use core::sync::atomic::Ordering;
use ossc_cache::region::{RecordKind, state};
use ossc_cache::sys::{self, Errno, Result};
use ossc_cache::wait::Patience;
use ossc_cache::{wait, wait_bytes};

/// Slices of a wait (200 ms each) after which a line in the log says that somebody still waits.
const SLICES_TOLD: u32 = 50;

/// Waits until bytes `start..end` are ready.
pub(crate) fn parts(handle: &Handle, start: u64, end: u64) -> Result<()> {
    bytes(handle, start, end, Grain::Parts)
}

/// Waits until bytes `start..end` are there.
pub(crate) fn bytes(handle: &Handle, start: u64, end: u64, grain: Grain) -> Result<()> {
    run(handle, |now, check| match grain {
        Grain::Parts => wait::range(&now.region, now.object, start, end, check),
        Grain::Blocks => wait_bytes::bytes(&now.region, now.object, start, end, check),
    })
}

/// Waits until the whole object is ready and verified, and keeps it whole: for a program that has its memory mapped.
pub(crate) fn whole(handle: &Handle) -> Result<()> {
    run(handle, |now, check| {
        // In each region that is waited in: a map is of the last one.
        (0..now.object.parts()).for_each(|index| now.region.part(now.object, index).pin());
        wait::whole(&now.region, now.object, check)
    })
}

/// How long the open of an object that was given up waits for the engine to try it again, in milliseconds.
const ANOTHER_TRY_MS: u64 = 100;

/// A program opens an object. If that was given up the engine hears of it, and has a moment to try it again: the reads that
/// follow wait then.
pub(crate) fn try_again(handle: &Handle) {
    let Some(now) = handle.now() else { return };
    let is_given_up = || now.object.state() == state::FAILED;
    // What its owner has to make readable first is asked for when a listing shows it.
    let is_denied = || now.object.errno.load(Ordering::Acquire) == libc::EACCES as u32;
    if !is_given_up() || is_denied() || now.object.is_superseded() || now.object.is_in_the_way() {
        return;
    }
    now.region.want(now.slot.number());
    let end_ms = sys::now_ms() + ANOTHER_TRY_MS;
    while is_given_up() {
        let left = end_ms.saturating_sub(sys::now_ms());
        if left == 0 {
            return;
        }
        now.object.sleep(state::FAILED, left);
    }
}

/// Waits until a small object is a real file; the caller then repeats its open or stat.
pub(crate) fn placed(handle: &Handle) -> Result<()> {
    placed_until(handle, u64::MAX)
}

/// ETIMEDOUT behind that moment (`sys::now_ms`).
pub(crate) fn placed_until(handle: &Handle, end_ms: u64) -> Result<()> {
    run(handle, |now, check| {
        let want = || {
            if now.object.state() == state::COMING && now.lasts() {
                now.region.want(now.slot.number());
            }
        };
        want();
        // Again after each slice: an engine that took over has not heard of it.
        wait::placed(
            now.object,
            &Slices(check, || {
                want();
                if sys::now_ms() > end_ms { Err(Errno(libc::ETIMEDOUT)) } else { check.check() }
            }),
        )
    })
}

/// A wait that looks at more after each slice than the one that it is part of.
struct Slices<'a, F>(&'a dyn Patience, F);

impl<F: Fn() -> Result<()>> Patience for Slices<'_, F> {
    fn begins(&self) {
        self.0.begins();
    }
    fn check(&self) -> Result<()> {
        (self.1)()
    }
}

/// When a wait has begun, in microseconds; 0 while it has not: what is there already costs no look at a clock.
struct Timed<F> {
    begun_us: Cell<u64>,
    check: F,
}

impl<F: Fn() -> Result<()>> Patience for Timed<F> {
    fn begins(&self) {
        if self.begun_us.get() == 0 {
            self.begun_us.set(sys::now_us());
        }
    }
    fn check(&self) -> Result<()> {
        (self.check)()
    }
}

/// Runs a wait in the region of now, again in the next one when that is replaced.
pub(crate) fn run(handle: &Handle, wait: impl Fn(&Handle, &dyn Patience) -> Result<()>) -> Result<()> {
    loop {
        match run_here(handle, &wait) {
            // A new engine with a new catalog: the same file under another number.
            Err(MOVED) => continue,
            done => return done,
        }
    }
}

/// The same in the region of now: `MOVED` when that is replaced.
pub(crate) fn run_here(handle: &Handle, wait: &impl Fn(&Handle, &dyn Patience) -> Result<()>) -> Result<()> {
    // Before the region is looked at: a region that is replaced in between must end the wait.
    let generation = attach::generation();
    let now = handle.now().ok_or(GONE)?;
    let is_large = now.object.kind() == RecordKind::Large;
    let (slices, silence) = (Cell::new(1u32), Cell::new(Silence::default()));
    let check = || {
        if slices.replace(slices.get().wrapping_add(1)).is_multiple_of(SLICES_TOLD) {
            log::line(b"a reader has been waiting for 10 s more", handle);
            attach::alive(generation)?;
            silence.set(silence.get().look(&now)?);
        }
        attach::alive(generation)
    };
    let timed = Timed { begun_us: Cell::new(0), check };
    let done = wait(&now, &timed);
    if timed.begun_us.get() != 0 {
        now.region.board().waits.count(sys::now_us().saturating_sub(timed.begun_us.get()));
    }
    match done {
        // What was waited for may have been of another version's record in the end.
        Ok(()) if is_large && !now.lasts() => Err(GONE),
        Err(errno) if errno != MOVED => {
            log::line(b"a reader got an error for this object", handle);
            failed::waited(&now, errno);
            Err(errno)
        }
        done => done,
    }
}
