//! What has come of a part, whatever place brought it.
//!
//! Made by the transfers wing, and taken by the objects wing, which decides what it means. Plain values.

/// See the module.
#[derive(Debug)]
pub struct Brought {
    /// CRC-64/XZ of the part's bytes.
    pub crc64: u64,
    /// The check value of the whole object, as far as this told it.
    pub whole: Whole,
}

/// What one arrival says of the CRC-64 of the whole object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whole {
    /// OSS has answered: `x-oss-hash-crc64ecma`, or that it keeps none.
    Said(Option<u64>),
    /// OSS was not asked.
    Unasked,
}
