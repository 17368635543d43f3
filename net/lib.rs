//! The network side of the engine: vcpu threads, connections, HTTP/1.1, listings, errors, retries.
//!
//! The engine gives [`Vcpus`] a [`Source`] of [`Fetch`]es and gets each back as a [`Finished`].
//! Never decides what to fetch, never retries on its own (but for a kept connection that turned
//! out to be closed), keeps no object and reads no configuration.
#![deny(unsafe_code)]

mod answer;
pub mod ask;
mod conn;
pub mod crc;
mod driver;
pub mod error;
mod fetch;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod http1;
mod job;
pub mod kind;
pub mod list;
mod origin;
pub mod resolve;
pub mod retry;
mod rotation;
#[cfg(feature = "sim")]
pub mod sim;
mod sink;
mod sock;
pub mod splice;
pub mod throttle;
pub mod tls;
mod traffic;
mod vcpu;
mod vcpus;
mod xml;

#[cfg(test)]
mod loopback_tests;

pub use conn::Timeouts;
pub use driver::DriverChoice;
pub use error::Error;
pub use fetch::{Fetch, Finished, Pull, Query, Response, Source};
pub use origin::Origin;
pub use sink::{InFile, Pages, Sink};
pub use tls::{Tls, Trust};
pub use vcpus::{Names, VcpuOptions, Vcpus};

/// Fixed limits of what is read from a peer: what, how much, unit.
pub const LIMITS: &[(&str, u64, &str)] = &[
    ("head of an answer", http1::HEAD_BYTES_MAX as u64, "bytes"),
    ("headers of an answer", http1::HEADERS_MAX as u64, ""),
    ("line of a chunked body", http1::CHUNK_LINE_BYTES_MAX as u64, "bytes"),
    ("trailer of a chunked body", http1::TRAILER_BYTES_MAX as u64, "bytes"),
    ("error document", answer::FAULT_BYTES_MAX, "bytes"),
    ("redirects followed", 0, ""),
    ("addresses tried for one request", vcpu::ADDRESSES_TRIED_MAX as u64, ""),
];
