//! How long readers have waited, as a histogram on the board.
//!
//! Counted by the library at the end of a wait, never by a read that finds its bytes; read by the engine's metrics. Programs
//! write here: what they write costs these numbers alone.

use crate::sync::{AtomicU64, Ordering};

/// Upper limits of the classes in microseconds; longer waits are in one class more. Four times as much each, from a
/// part that was nearly there to an outage.
pub const LIMITS_US: [u64; 10] =
    [1_000, 4_000, 16_000, 64_000, 250_000, 1_000_000, 4_000_000, 16_000_000, 60_000_000, 300_000_000];
/// Number of classes.
pub const CLASSES: usize = LIMITS_US.len() + 1;

/// See the module.
#[repr(C)]
pub struct Waits {
    classes: [AtomicU64; CLASSES],
    sum_us: AtomicU64,
}

impl Waits {
    /// A reader has waited so long.
    pub fn count(&self, us: u64) {
        let class = LIMITS_US.iter().position(|limit| us <= *limit).unwrap_or(LIMITS_US.len());
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// A new engine counts anew.
    pub fn forget(&self) {
        self.classes.iter().chain([&self.sum_us]).for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Waits of each class, and the sum of all in microseconds.
    pub fn read(&self) -> ([u64; CLASSES], u64) {
        (core::array::from_fn(|class| self.classes[class].load(Ordering::Relaxed)), self.sum_us.load(Ordering::Relaxed))
    }
}
