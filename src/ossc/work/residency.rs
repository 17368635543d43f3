//! The residency wing: which bytes are in memory, what they take of the budget, and when they are given back.
//!
//! Called by the work, by the lease thread and by the attach server. It asks OSS for nothing.

pub mod files;
pub mod lazy;
pub mod programs;
pub mod room;
pub mod stand;
