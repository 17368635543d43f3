//! The engine of OSS Connector and the commands around it, as `main` runs them.
//!
//! It is a library so that the simulation in `tests/sim` runs the engine's own work: what of it is public is public
//! for that.

#![deny(unsafe_code)]
// A macro that prints panics where a stream is full or closed: `commands::output` does not.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

mod commands;
mod credentials;
mod engine;
mod folder_files;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod journal;
pub mod lock;
mod mirror;
pub mod order;
mod process;
#[cfg(test)]
mod rooms_tests;
pub mod work;

use clap::{CommandFactory, Parser, Subcommand};
use commands::{config, doctor, drop, errors, metrics, output, pages, plan, ps, run, status, top, verify, wait, warm};

/// OSS Connector: a model folder on OSS, at line rate, for unmodified programs.
#[derive(Parser)]
#[command(name = "ossc", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The engine process; libossc_preload.so starts it by itself.
    #[command(hide = true)]
    Engine,
    /// Start a program under the library: `ossc run -- python3 serve.py`.
    Run(run::RunOptions),
    /// Load a model and hold it in memory, without a program.
    Warm(warm::WarmOptions),
    /// Try everything that a load needs, and say what is wrong and what to do.
    Doctor(doctor::DoctorOptions),
    /// What an engine would fetch, in which order, and what that takes of memory and time.
    Plan(plan::PlanOptions),
    /// Give the memory back of what is loaded and not in use by a program.
    Drop(drop::DropOptions),
    /// Compare the bytes of a MODEL_DIR with the CRC-64 that OSS has of each object.
    Verify(verify::VerifyOptions),
    /// What the engine of a MODEL_DIR has loaded and is loading.
    Status(status::StatusOptions),
    /// A load as it goes on: bars, speed, time left, who has what mapped.
    Top(top::TopOptions),
    /// The engine's counters as Prometheus text.
    Metrics(metrics::MetricsOptions),
    /// The engines of this node: which folder each serves, what it takes, who uses it.
    Ps(ps::PsOptions),
    /// Wait until an engine serves a MODEL_DIR, or until all that it was to load is there.
    Wait(wait::WaitOptions),
    /// The default configuration file, the table of all settings, what is in force here, or what is wrong with a file.
    Config(config::ConfigOptions),
    /// Print what can go wrong, what programs see of it and what to do, as Markdown.
    Errors,
    /// Write the man pages and the shell completions into a folder; the packages are made with it.
    #[command(hide = true)]
    Pages {
        /// An existing folder.
        folder: std::path::PathBuf,
    },
}

/// Stack that everything here fits on, with room to spare; a smaller one may be what the starter's limit leaves.
const STACK_BYTES: usize = 2 << 20;

/// The command line. Under a limit that leaves the first thread a small stack it is run by a second one.
pub fn main() -> std::process::ExitCode {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Stack).current;
    if limit.is_none_or(|bytes| bytes >= STACK_BYTES as u64) {
        return called();
    }
    let all = std::thread::Builder::new().name("ossc-main".into()).stack_size(STACK_BYTES).spawn(called);
    // Without a thread the small stack may do.
    all.map_or_else(|_| called(), |all| all.join().unwrap_or(std::process::ExitCode::FAILURE))
}

fn called() -> std::process::ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // Help and version are texts like any other.
        Err(text) if !text.use_stderr() => return output::end("--help", text.print()),
        Err(error) => error.exit(),
    };
    match arguments.command {
        Command::Engine => engine::main(),
        Command::Run(options) => run::main(&options),
        Command::Warm(options) => warm::main(&options),
        Command::Doctor(options) => doctor::main(&options),
        Command::Plan(options) => plan::main(&options),
        Command::Drop(options) => drop::main(&options),
        Command::Verify(options) => verify::main(&options),
        Command::Status(options) => status::main(&options),
        Command::Top(options) => top::main(&options),
        Command::Metrics(options) => metrics::main(&options),
        Command::Ps(options) => ps::main(&options),
        Command::Wait(options) => wait::main(&options),
        Command::Config(options) => config::main(&options),
        Command::Errors => output::only("errors", &errors::markdown()),
        Command::Pages { folder } => pages::main(&Arguments::command(), &folder),
    }
}
