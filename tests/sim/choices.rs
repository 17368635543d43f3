//! What a seed chooses before its run begins: sizes, rates, distances and patience.
//!
//! Called by the world. Each choice comes from the numbers that it is given.

use crate::bucket::Pace;
use crate::bytes::OBJECT_BYTES_MAX;
use crate::engine::{PAGE_BYTES, clock};
use crate::stage::Stage;
use crate::world::PART_BYTES_MAX;
use ossc_engine::work::WorkOptions;
use ossc_engine::work::shared::scale::Scale;
use ossc_net::retry::Backoff;
use ossc_net::{DriverChoice, Timeouts, VcpuOptions};
use std::time::Duration;

/// Vcpus, connections, patience.
pub fn net(rng: &mut fastrand::Rng) -> VcpuOptions {
    let timeouts = timeouts(rng);
    VcpuOptions {
        vcpus: rng.usize(1..=2),
        workers: rng.usize(1..=4),
        driver: DriverChoice::Auto,
        timeouts,
        rcvbuf_bytes: None,
    }
}

/// Some more patient than others.
fn timeouts(rng: &mut fastrand::Rng) -> Timeouts {
    let mut timeouts = Timeouts::DEFAULT;
    (timeouts.connect_ms, timeouts.response_ms, timeouts.stall_ms) = (200, 400, 200);
    timeouts.idle_ms = rng.choice([20, 1000, 50_000]).unwrap_or(1000);
    timeouts.least_bytes_per_sec = rng.choice([0, 100, 1000]).unwrap_or(0);
    timeouts.avoid_ms = 1000;
    timeouts
}

/// How far away the origin is, and how patient the engine. One run in eight is on a thin link.
pub fn pace(rng: &mut fastrand::Rng, timeouts: Timeouts) -> Pace {
    let is_thin = rng.u32(0..8) == 0;
    let turn_bytes = rng.choice([128, 512, 2048]).unwrap_or(512);
    Pace {
        latency: rng.choice([50, 500, 3000]).unwrap_or(500),
        response: timeouts.response_ms * 1000,
        stall: timeouts.stall_ms * 1000,
        least: timeouts.least_bytes_per_sec,
        turn_bytes: if is_thin { turn_bytes } else { 0 },
        // With all connections there are, each has a turn long before its body stands still, and twice the least rate,
        // however unevenly the turns fall.
        turn: rng.choice([200, 2000, 10_000]).unwrap_or(2000).min(40 * turn_bytes as u64),
    }
}

/// As a configuration says, for parts of at most `largest` bytes.
pub fn work(rng: &mut fastrand::Rng, net: &VcpuOptions, largest: u64) -> WorkOptions {
    WorkOptions {
        verify_crc: true,
        part_bytes_max: 4096,
        outage_budget: Duration::from_millis(rng.choice([300, 3000, 30_000]).unwrap_or(3000)),
        page_bytes: PAGE_BYTES,
        block_bytes: rng.choice([0, 64, 64, 256, 1024]).unwrap_or(64),
        splice: false,
        now: clock(),
        memory: || None,
        requests_max: net.vcpus * net.workers,
        memory_files_max: usize::MAX,
        twice_percent_max: rng.choice([0, 0, 2, 10, 100, 1000, 1000]).unwrap_or(0),
        scale: scale(rng, largest),
        throttle_recover: Duration::from_millis(rng.choice([10, 1000]).unwrap_or(1000)),
        backoff: Backoff::default(),
        revive: Duration::from_millis(rng.choice([50, 30_000]).unwrap_or(30_000)),
    }
}

/// The product's sizes and times, as many times smaller as the largest part and the latencies are.
fn scale(rng: &mut fastrand::Rng, largest: u64) -> Scale {
    let micros = |choice: Option<u64>| Duration::from_micros(choice.unwrap_or(0));
    Scale {
        piece_bytes_min: largest >> rng.u32(1..=4),
        piece_step: rng.choice([32, 256]).unwrap_or(32),
        chunk_bytes_min: rng.choice([16, 128, 1024]).unwrap_or(128),
        cut_from: micros(rng.choice([0, 500, 5000])),
        lasts_max: micros(rng.choice([2000, 100_000])),
        young_bytes_max: rng.choice([2 * largest, largest >> 1, largest >> 3]).unwrap_or(largest),
        progress_bytes: largest >> rng.u32(0..=3),
        twice_from_bytes: rng.choice([0, 16 << 10]).unwrap_or(0),
        slow_at_end: micros(rng.choice([100, 2000, 20_000])),
        slow_before: micros(rng.choice([300, 6000, 60_000])),
        short_bytes_max: rng.choice([0, 0, 2 * largest]).unwrap_or(0),
        requests_first: rng.usize(2..=8),
        look_min: micros(rng.choice([1000, 10_000])),
        holds: micros(rng.choice([20_000, 1_000_000])),
    }
}

/// Of a rush: a prefetch that keeps all connections busy, and may give way to readers at any time.
pub fn rush(net: &mut VcpuOptions, work: &mut WorkOptions) {
    (net.vcpus, net.workers) = (2, 4);
    work.requests_max = net.vcpus * net.workers;
    work.twice_percent_max = 1000;
    let scale = &mut work.scale;
    scale.requests_first = work.requests_max;
    (scale.cut_from, scale.twice_from_bytes) = (Duration::ZERO, 0);
    (scale.piece_bytes_min, scale.young_bytes_max) = (256, 2 * PART_BYTES_MAX);
}

/// Bytes that a large object takes of the budget.
pub fn room(size: u64) -> u64 {
    size.next_multiple_of(PAGE_BYTES)
}

/// Bytes of a large object of so many parts, or as many as one may have.
pub fn most_bytes(part_bytes: u64, parts: u64) -> u64 {
    (part_bytes * parts).min(OBJECT_BYTES_MAX as u64)
}

/// A size for a new version: one to twenty parts, or for small objects up to three pieces.
pub fn new_size(stage: &mut Stage, part_bytes: u64) -> u64 {
    let most = if part_bytes == 0 { 3 * 4096 } else { most_bytes(part_bytes, stage.rng.u64(1..=20)) };
    match stage.rng.u32(0..4) {
        0 if part_bytes > 0 => most,
        _ => stage.rng.u64(1..=most),
    }
}
