//! Waiting for some bytes: what a read does that wants a little of a part. As `wait::range`, but block by block where
//! a part is not wanted as a whole.
//!
//! Called by the library's read path. What is to be fetched for it the engine decides.

use crate::region::{Object, Region};
use crate::sys::Result;
use crate::wait::{self, Patience, SLICE_MS};

/// Waits until bytes `start..end` of a large object are there, in parts that are ready or in blocks.
pub fn bytes(region: &Region, object: &Object, start: u64, end: u64, check: &dyn Patience) -> Result<()> {
    let is_there = |index: u32| region.fill_of(object, index, start, end).is_some();
    let mut missing = object.parts_of(start, end).filter(|index| !is_there(*index)).peekable();
    if missing.peek().is_none() {
        return Ok(());
    }
    check.begins();
    region.demand_bytes(object, start, end);
    for index in missing {
        while !is_there(index) {
            wait::lost(object)?;
            region.part(object, index).sleep_unless(SLICE_MS, || is_there(index));
            if !is_there(index) {
                wait::starved(object)?;
                check.check()?;
                region.demand_bytes(object, start, end);
            }
        }
    }
    Ok(())
}
