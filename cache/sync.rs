//! The atomics and futex calls of everything in the shared region that more than one process changes.
//!
//! Used by `part`, `futex_word`, `doorbell`, `demand`, `event` and `region`, which name no atomic of another origin.
//! Here they are the machine's own. The tests compile the same files against other versions of this one:
//! `tests/model` against a checker that tries schedules, `tests/loom` against one that also reorders memory
//! accesses, `tests/death` against one that ends the process at the k-th operation. So the product pays
//! nothing for being checked, and what is checked is the product's own text.

pub use crate::sys::{futex_wait, futex_wake};
pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
