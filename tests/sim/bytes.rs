//! The bytes of every version of every object: a window of one table of random bytes, so that they need no storage,
//! are copied and compared at the speed of memory, and differ at every offset.

use std::ops::Range;
use std::sync::LazyLock;

/// Longest object.
pub const OBJECT_BYTES_MAX: usize = 128 << 10;
/// Versions begin at different places below this.
pub const SALTS: usize = 1 << 20;

static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rng = fastrand::Rng::with_seed(7);
    let words = (SALTS + OBJECT_BYTES_MAX) / 8;
    (0..words).flat_map(|_| rng.u64(..).to_le_bytes()).collect()
});

/// Bytes `range` of the version with this salt.
pub fn of(salt: usize, range: Range<u64>) -> &'static [u8] {
    &TABLE[salt + range.start as usize..salt + range.end as usize]
}
