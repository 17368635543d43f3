//! The transfers wing: requests for bytes, and what their ends mean for what they are of.
//!
//! Called by the work. It decides what is asked for, in place, a second time, in blocks or onto the heap.

pub mod blocks;
pub mod flight;
pub mod pieces;
pub mod reach;
pub mod small;
pub mod spare;
