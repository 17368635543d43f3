//! What the log says of bytes that do not match. Said by the objects wing, and by the transfers wing of small objects.

/// The first time.
pub(crate) const WRONG_ONCE: &str = "its bytes do not match its CRC-64: fetching it again";
/// The second time.
pub(crate) const WRONG_TWICE: &str =
    "its bytes do not match its CRC-64, twice: readers get EIO; check the object in the bucket";
