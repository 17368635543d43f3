//! Floor against engine in one command: makes an object, serves it on one core, receives it on another with each
//! variant in turn, and reports medians and ratios. Run by people; needs no account and leaves loopback never.
//!
//! Every run is a process of its own (this program again), so that its CPU time, faults and peak memory are its
//! own. At any time at most one of them holds memory, beside the object in the page cache.

use crate::affinity;
use crate::endpoint::{self, Bucket, Endpoint};
use crate::engine::{self, Driver};
use crate::error::{Error, Result, Tried};
use crate::figures::Figures;
use crate::memory::MemoryKind;
use crate::report::{self, Line, Lines, Row};
use crate::variant::Variant;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Largest object: it lies in the page cache and once more in the client, twice while the memory of the run before
/// is being freed, which stays below 6 GiB.
const SIZE_MAX: u64 = 3 << 29;

/// Arguments of `compare`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Size of the object in bytes (at most 1.5 GiB: memory in use stays below 6 GiB).
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30, value_parser = clap::value_parser!(u64).range(1..=SIZE_MAX))]
    size: u64,
    /// Runs of each variant.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Connections at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Append one JSON line per run and per summary to this file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Endpoint program [default: oss-endpoint beside this program].
    #[arg(long, value_name = "FILE")]
    endpoint: Option<PathBuf>,
    /// Folder for the object, best on a local disk [default: the system's folder for temporary files].
    #[arg(long, value_name = "DIR")]
    temp: Option<PathBuf>,
}

/// Measures and prints the table.
pub fn run(args: &Args) -> Result<()> {
    let mut lines = Lines::open(args.out.as_deref())?;
    let program = args.endpoint.clone().map_or_else(endpoint::program, Ok)?;
    let (server, client) = cores()?;
    let variants = variants()?;
    let bucket = Bucket::make(&args.temp.clone().unwrap_or_else(std::env::temp_dir), args.size)?;
    affinity::pin(server)?;
    let endpoint = Endpoint::start(&program, &bucket)?;
    // From here on: children inherit it.
    affinity::pin(client)?;
    let mut rows: Vec<Row> = variants.into_iter().map(|variant| Row { variant, runs: Vec::new() }).collect();
    for round in 0..args.rounds {
        // Each round begins with another variant, so that none always follows the same one.
        let count = rows.len();
        for step in 0..count {
            let row = &mut rows[(step + round as usize) % count];
            let figures = measure(args, &endpoint.object(), row.variant, round == 0)?;
            eprintln!("round {}/{}: {}", round + 1, args.rounds, figures.line());
            lines.push(&Line::Run { round, connections: args.connections, figures: &figures })?;
            row.runs.push(figures);
        }
    }
    let summaries = report::summaries(&rows)?;
    for summary in &summaries {
        lines.push(&Line::Summary { rounds: args.rounds, connections: args.connections, summary })?;
    }
    println!(
        "{} bytes, {} connections, {} rounds, server on core {server}, client on core {client}; median (min-max), 1 GB = 10^9 bytes\n",
        args.size, args.connections, args.rounds
    );
    print!("{}", report::table(&summaries));
    Ok(())
}

/// For the server and for the client.
fn cores() -> Result<(usize, usize)> {
    match affinity::allowed()?[..] {
        [] => Err(Error::Wrong("this process may run on no core".into())),
        [only] => {
            eprintln!("ossc-perf: one core only: server and client share it, compare CPU and not GB/s");
            Ok((only, only))
        }
        [server, client, ..] => Ok((server, client)),
    }
}

/// What can be had here; says what cannot and why.
fn variants() -> Result<Vec<Variant>> {
    let mut memories = vec![MemoryKind::Scratch];
    for memory in [MemoryKind::TmpfsHuge, MemoryKind::Memfd] {
        match warm(memory, 1) {
            Ok(()) => memories.push(memory),
            Err(why) => eprintln!("ossc-perf: left out {}: {why}", memory.name()),
        }
    }
    let mut drivers = Vec::new();
    for driver in [Driver::Uring, Driver::Epoll] {
        match engine::probe(driver) {
            Ok(()) => drivers.push(driver),
            Err(why) => eprintln!("ossc-perf: left out {}: {why}", driver.name()),
        }
    }
    Ok(Variant::all(&memories, &drivers))
}

/// Runs one variant, on pages that the host has given before.
fn measure(args: &Args, url: &str, variant: Variant, verify: bool) -> Result<Figures> {
    warm(variant.memory, args.size)?;
    let mut arguments: Vec<String> = variant.arguments(verify).into_iter().map(Into::into).collect();
    arguments.extend(["--url".into(), url.into()]);
    arguments.extend(["--size".into(), args.size.to_string()]);
    arguments.extend(["--connections".into(), args.connections.to_string()]);
    let output = child(&arguments)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Figures = serde_json::from_str(text.trim())
        .map_err(|e| Error::Wrong(format!("{}: its output is no figures: {e}: {text:?}", variant.name())))?;
    if figures.name != variant.name() || figures.bytes != args.size {
        return Err(Error::Wrong(format!("{}: measured something else: {}", variant.name(), figures.line())));
    }
    Ok(figures)
}

fn warm(memory: MemoryKind, size: u64) -> Result<()> {
    child(&["warm".into(), "--memory".into(), memory.name().into(), "--size".into(), size.to_string()]).map(drop)
}

/// This program again, to its end.
fn child(arguments: &[String]) -> Result<Output> {
    let own = std::env::current_exe().tried(|| "find this program".into())?;
    let what = arguments.join(" ");
    let output = Command::new(own).args(arguments).stdin(Stdio::null()).output().tried(|| format!("run {what}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Wrong(format!("{what}: {}: {}", output.status, said.trim())))
}
