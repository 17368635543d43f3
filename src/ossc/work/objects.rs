//! The objects wing: the life of records, the verdict on what has come, and failures.
//!
//! Called by the work and by the mirror. It asks OSS for nothing itself.

pub mod adopt;
pub mod denied;
pub mod records;
pub mod verdict;
