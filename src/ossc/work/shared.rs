//! What the four wings of the work share: what is known of each object, and the values that they hand each other.
//!
//! Imported by every wing. It imports none.

pub mod action;
pub mod brought;
pub mod check;
pub mod counters;
pub mod entry;
pub mod fill;
pub mod item;
pub mod memory;
pub mod options;
pub mod register;
pub mod reservation;
pub mod scale;
pub mod sparing;
pub mod wrong;
