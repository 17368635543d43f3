//! Waiting for bytes: what a hook does between "this range is wanted" and "it is here".
//!
//! Called by the library's hooks and by the engine's own readers. It sleeps on futexes in the region in
//! slices of `SLICE_MS`, and asks its caller after each slice whether somebody is still working on it.
//! It never decides by itself that a wait has lasted too long: the engine fails an object when its time
//! is over, and the caller's check ends a wait when there is no engine.

use crate::region::{Object, Region, state};
use crate::sys::{Errno, Result};
use core::sync::atomic::Ordering;

/// Longest sleep before the engine's life is checked, in milliseconds.
pub const SLICE_MS: u64 = 200;

/// Waits until bytes `start..end` of a large object are ready.
///
/// `check` runs after each slice without success: its error ends the wait. An object that cannot be had
/// gives the errno that the engine has put into its record.
pub fn range(region: &Region, object: &Object, start: u64, end: u64, check: &dyn Fn() -> Result<()>) -> Result<()> {
    let parts = object.parts_of(start, end);
    if parts.clone().all(|index| region.part(object, index).is_ready()) {
        return Ok(());
    }
    region.demand(object, parts.start, parts.end);
    for index in parts.clone() {
        let part = region.part(object, index);
        while !part.is_ready() {
            failed(object)?;
            starved(object)?;
            part.sleep(SLICE_MS);
            if !part.is_ready() {
                check()?;
                // The bits are idempotent, and an engine that took over has not seen ours.
                region.demand(object, index, parts.end);
            }
        }
    }
    Ok(())
}

/// Waits until the whole object is ready and its check has passed.
pub fn whole(region: &Region, object: &Object, check: &dyn Fn() -> Result<()>) -> Result<()> {
    if object.state() == state::VERIFIED {
        return Ok(());
    }
    range(region, object, 0, object.size, check)?;
    leave(object, state::LOADING, check)
}

/// Waits until a small object is a real file (or void: then the caller opens what is there now).
pub fn placed(object: &Object, check: &dyn Fn() -> Result<()>) -> Result<()> {
    leave(object, state::COMING, check)
}

fn leave(object: &Object, seen: u32, check: &dyn Fn() -> Result<()>) -> Result<()> {
    while object.state() == seen {
        object.sleep(seen, SLICE_MS);
        if object.state() == seen {
            check()?;
        }
    }
    failed(object)
}

fn starved(object: &Object) -> Result<()> {
    match object.starved.load(Ordering::Acquire) {
        0 => Ok(()),
        errno => Err(Errno(errno as i32)),
    }
}

fn failed(object: &Object) -> Result<()> {
    match object.state() {
        state::FAILED => Err(Errno(object.errno.load(Ordering::Acquire) as i32)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::{Kind, NewObject};
    use crate::sys;

    fn one(size: u64) -> (Region, u32) {
        let region = Region::create(sys::memfd(c"t").unwrap(), "/m", "/l").unwrap();
        let new = NewObject {
            kind: Kind::Large,
            state: state::LOADING,
            name: "a",
            etag: "",
            size,
            part_bytes: 10,
            mtime_secs: 0,
            dev: 1,
            ino: 2,
        };
        let slot = region.append(&new).unwrap();
        (region, slot)
    }

    #[test]
    fn a_read_needs_its_parts_only_and_a_whole_file_the_verdict() {
        let (region, slot) = one(25);
        let object = region.object(slot).unwrap();
        let never = || -> Result<()> { Err(Errno(libc::EIO)) };
        region.part(object, 1).claim();
        region.part(object, 1).publish(0);
        assert_eq!(range(&region, object, 10, 20, &never), Ok(()));
        assert_eq!(range(&region, object, 9, 20, &never), Err(Errno(libc::EIO)));
        for index in [0, 2] {
            region.part(object, index).claim();
            region.part(object, index).publish(0);
        }
        assert_eq!(range(&region, object, 0, 25, &never), Ok(()));
        assert_eq!(whole(&region, object, &never), Err(Errno(libc::EIO)), "no verdict yet");
        object.set_state(state::VERIFIED);
        assert_eq!(whole(&region, object, &never), Ok(()));
    }

    #[test]
    fn a_failed_object_gives_its_errno_to_a_reader_that_sleeps() {
        let (region, slot) = one(25);
        let object = region.object(slot).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| whole(&region, object, &|| Ok(())));
            std::thread::sleep(std::time::Duration::from_millis(20));
            object.fail(libc::ESTALE);
            assert_eq!(reader.join().unwrap(), Err(Errno(libc::ESTALE)));
        });
    }
}
