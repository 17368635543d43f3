//! How large and how slow something has to be for parts to be cut, for answers to be asked for again and for the
//! number of requests to grow. Simulations have their own, since their objects are a thousand times smaller.
//!
//! Read by `flight` and `request_window`. Plain values.

use std::time::Duration;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Smallest piece in bytes: what a request costs is little beside it.
    pub piece_bytes_min: u64,
    /// Pieces begin at multiples of it in their part, in bytes.
    pub piece_step: u64,
    /// Smallest part of a second request, in bytes: connections share it that have little else to do.
    pub chunk_bytes_min: u64,
    /// Parts that take less than this are not cut: the gain would be less than what the requests cost.
    pub cut_from: Duration,
    /// What is fetched ahead and takes longer is asked for in pieces, if it is every other part: meanwhile its connection
    /// is not there for a reader who waits for something else.
    pub lasts_max: Duration,
    /// What has brought less than this gives way to a reader, in bytes.
    pub young_bytes_max: u64,
    /// An answer tells of its progress when it has brought about so many bytes more.
    pub progress_bytes: u64,
    /// Nothing is asked for twice before so many bytes have come: a small download is over soon.
    pub twice_from_bytes: u64,
    /// How much longer than expected, at least, before a piece is asked for again: at the end, and before it.
    pub slow_at_end: Duration,
    pub slow_before: Duration,
    /// An object that is read from its beginning is fetched whole at once if it has no more bytes.
    pub short_bytes_max: u64,
    /// Requests at first.
    pub requests_first: usize,
    /// Shortest look at a rate, and how long what was found holds.
    pub look_min: Duration,
    pub holds: Duration,
}

impl Scale {
    /// Of the product: parts of 8 MiB, and at first as many requests as a line of 4 GB/s needs at the 60 MB/s that
    /// OSS gives a connection.
    pub const PRODUCT: Scale = Scale {
        piece_bytes_min: 1 << 20,
        piece_step: 4096,
        chunk_bytes_min: 128 << 10,
        cut_from: Duration::from_millis(150),
        lasts_max: Duration::from_millis(400),
        young_bytes_max: 2 << 20,
        progress_bytes: 1 << 20,
        twice_from_bytes: 256 << 20,
        slow_at_end: Duration::from_millis(50),
        slow_before: Duration::from_millis(200),
        short_bytes_max: 64 << 20,
        requests_first: 64,
        look_min: Duration::from_millis(200),
        holds: Duration::from_secs(10),
    };
}
