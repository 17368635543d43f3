//! Waiting for bytes: what a hook does between "this range is wanted" and "it is here".
//!
//! Called by the library's hooks and by the engine's own readers. It sleeps on futexes in the region in
//! slices of `SLICE_MS`, and asks its caller after each slice whether somebody is still working on it.
//! It never decides by itself that a wait has lasted too long: the engine fails an object when its time
//! is over, and the caller's check ends a wait when there is no engine.

use crate::region::{Object, Region, state};
use crate::sync::Ordering;
use crate::sys::{Errno, Result};
use crate::verdict::{Judged, Judgement};

/// Longest sleep before the engine's life is checked, in milliseconds.
pub const SLICE_MS: u64 = 200;

/// Who waits: asked after each slice without success whether the wait goes on.
pub trait Patience {
    /// What is waited for is not there yet: the wait begins, or goes on.
    fn begins(&self) {}

    /// After each slice.
    ///
    /// # Errors
    /// What ends the wait.
    fn check(&self) -> Result<()>;
}

impl<F: Fn() -> Result<()>> Patience for F {
    fn check(&self) -> Result<()> {
        self()
    }
}

/// Waits until bytes `start..end` of a large object are ready.
///
/// `check` runs after each slice without success: its error ends the wait. An object that cannot be had
/// gives the errno that the engine has put into its record.
pub fn range(region: &Region, object: &Object, start: u64, end: u64, check: &dyn Patience) -> Result<()> {
    let parts = object.parts_of(start, end);
    if parts.clone().all(|index| region.part(object, index).is_ready()) {
        return Ok(());
    }
    check.begins();
    region.demand(object, parts.start, parts.end);
    for index in parts.clone() {
        let part = region.part(object, index);
        while !part.is_ready() {
            lost(object)?;
            part.sleep(SLICE_MS);
            if !part.is_ready() {
                // Not before the engine has seen this demand: there may be room again.
                starved(object)?;
                check.check()?;
                // The bits are idempotent, and an engine that took over has not seen ours.
                region.demand(object, index, parts.end);
            }
        }
    }
    Ok(())
}

/// Waits until the whole object is ready and its check has passed. The parts are looked at in any case: the
/// verdict on them may be given at the very moment when one of them is given up.
pub fn whole(region: &Region, object: &Object, check: &dyn Patience) -> Result<()> {
    range(region, object, 0, object.size(), check)?;
    leave(object, state::LOADING, check)?;
    lost(object)
}

/// Waits until another verdict than `seen` is given on a large object, which comes when all its parts have come once:
/// those that have not are asked for, whether there is room for all of them at a time or not. The caller looks at the
/// verdict again.
pub fn verdict(region: &Region, object: &Object, seen: Judged, check: &dyn Patience) -> Result<()> {
    region.demand_unknown(object, seen.round);
    while object.verdict.get() == seen {
        check.begins();
        failed(object)?;
        object.verdict.sleep(seen, SLICE_MS, || object.state() == state::FAILED);
        if object.verdict.get() == seen {
            starved(object)?;
            check.check()?;
            region.demand_unknown(object, seen.round);
        }
    }
    Ok(())
}

/// Waits until bytes `start..end` are ready and the verdict on the whole object is given: EIO if it is that the bytes
/// are wrong.
pub fn judged(region: &Region, object: &Object, start: u64, end: u64, check: &dyn Patience) -> Result<()> {
    loop {
        range(region, object, start, end, check)?;
        let seen = object.verdict.get();
        match seen.judgement {
            Judgement::Matched | Judgement::Nothing => return range(region, object, start, end, check),
            Judgement::Wrong => return failed(object).and(Err(Errno(libc::EIO))),
            Judgement::Open => verdict(region, object, seen, check)?,
        }
    }
}

/// Waits until a small object is a real file (or void: then the caller opens what is there now).
pub fn placed(object: &Object, check: &dyn Patience) -> Result<()> {
    leave(object, state::COMING, check)
}

fn leave(object: &Object, seen: u32, check: &dyn Patience) -> Result<()> {
    while object.state() == seen {
        check.begins();
        object.sleep(seen, SLICE_MS);
        if object.state() == seen {
            check.check()?;
        }
    }
    failed(object)
}

pub(crate) fn starved(object: &Object) -> Result<()> {
    match object.starved.load(Ordering::Acquire) {
        0 => Ok(()),
        errno => Err(Errno(errno as i32)),
    }
}

/// The record of a version that is no more may be another object's soon: nothing comes for this reader.
pub(crate) fn lost(object: &Object) -> Result<()> {
    match object.state() {
        state::GONE => Err(Errno(libc::ESTALE)),
        _ => failed(object),
    }
}

fn failed(object: &Object) -> Result<()> {
    match object.state() {
        state::FAILED => Err(Errno(object.errno.load(Ordering::Acquire) as i32)),
        _ => Ok(()),
    }
}
