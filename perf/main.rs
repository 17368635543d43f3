//! The `ossc-perf` program: what a load costs, what the machine allows at best, and the ratio of the two.
//!
//! Run by people and by the bars. Knows nothing of the connector's hooks: `load` is an ordinary reader that
//! is run with and without LD_PRELOAD. Never needs an account, never leaves loopback on its own.

mod affinity;
mod compare;
mod endpoint;
mod engine;
mod error;
mod figures;
mod floor;
mod floor_tls;
mod http;
mod load;
mod memory;
mod meter;
mod report;
mod space;
mod splice;
mod spread;
mod target;
mod tls;
mod variant;
mod warm;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Measure loading: seconds, GB/s (1 GB is 10^9 bytes), CPU-seconds per GB, memory.
#[derive(Parser)]
#[command(name = "ossc-perf", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Read files the way programs do; run it under LD_PRELOAD or on a plain folder.
    Load(load::Args),
    /// Receive an object with plain blocking sockets: the least this machine can do it for.
    Floor(floor::Args),
    /// Receive an object by https with rustls and little else: the least https can be had for.
    FloorTls(floor_tls::Args),
    /// Receive an object with the engine's network side, by http or https.
    Engine(engine::Args),
    /// Measure floor and engine in turns against an endpoint of its own and print a table.
    Compare(compare::Args),
    /// Make and free memory, so that a run after it finds pages the host has already given.
    #[command(hide = true)]
    Warm(warm::Args),
}

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Load(args) => load::run(&args),
        Command::Floor(args) => floor::run(&args),
        Command::FloorTls(args) => floor_tls::run(&args),
        Command::Engine(args) => engine::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Warm(args) => warm::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ossc-perf: {error}");
            ExitCode::FAILURE
        }
    }
}
