//! What the work has to know at its start. Plain values, made by the engine's wiring, or by a simulation.

use crate::work::shared::scale::Scale;
use ossc_net::retry::Backoff;
use ossc_store::machine::Now;
use std::time::{Duration, Instant};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct WorkOptions {
    /// Compare CRC-64.
    pub verify_crc: bool,
    /// Most bytes of one request.
    pub part_bytes_max: u64,
    /// How long the origin may be out before readers see an error.
    pub outage_budget: Duration,
    /// Longest page of the memory files, in bytes: an object's last part takes a whole one.
    pub page_bytes: u64,
    /// Least that is fetched of a part for a reader who wants little of it, in bytes; 0: parts are fetched as a whole.
    pub block_bytes: u64,
    /// Splice plain bodies into the memory files.
    pub splice: bool,
    /// The clock: `Instant::now`, but for simulations.
    pub now: fn() -> Instant,
    /// A look at the memory of this machine: `machine::now`, but for simulations.
    pub memory: fn() -> Option<Now>,
    /// Requests that may be under way when OSS does not throttle.
    pub requests_max: usize,
    /// Most bytes that are asked for twice, in percent of all; 0 asks for nothing twice.
    pub twice_percent_max: u64,
    /// Memory files that may be there at a time: each takes a descriptor.
    pub memory_files_max: usize,
    /// `Scale::PRODUCT`, but for simulations.
    pub scale: Scale,
    /// From a throttled answer to one step of recovery.
    pub throttle_recover: Duration,
    /// Pauses before retries.
    pub backoff: Backoff,
    /// After an object was given up it is tried again, so that a later open may succeed.
    pub revive: Duration,
}
