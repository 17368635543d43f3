//! The simulation of engine and cache: the product's own vcpu loop, connections, work, plan, budget and region,
//! on a virtual clock, with a simulated origin, network, memory and readers, all from one seed.
//!
//! Run by `ci/test` for some seeds and by `ci/bar engine 8` for many. Never part of the product.

#![deny(unsafe_code)]

mod bucket;
mod bytes;
mod check;
mod choices;
mod engine;
mod fault;
mod fill;
mod link;
mod memory;
mod reader;
mod stage;
mod supply;
mod watch;
mod world;

use clap::Parser;
use memory::Ground;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;
use world::Outcome;

/// Seeds between two lines of progress.
const PROGRESS_SEEDS: u64 = 50_000;

/// Runs seeds until one finds a violation; ends with 0 when none does and every kind of fault was reached.
#[derive(Parser)]
struct Arguments {
    /// First seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Least events of each seed.
    #[arg(long, default_value_t = 1000)]
    events: u64,
    /// Tell every step of a run.
    #[arg(long)]
    trace: bool,
    /// Reaching every kind of fault is not asked for (few seeds do not).
    #[arg(long)]
    partial: bool,
}

/// Sums over all seeds.
struct Sum {
    seeds: u64,
    events: u64,
    least: u64,
    counts: Vec<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let mut ground = Ground::new().expect("memory for a region");
    let mut sum = Sum { seeds: 0, events: 0, least: u64::MAX, counts: vec![0; fault::ALL.len()] };
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        let outcome = one(&mut ground, seed, &arguments);
        if let Some(violation) = &outcome.violation {
            println!("violation at seed {seed}, after {} events: {violation}", outcome.events);
            println!("to see it: ossc-sim --seed {seed} --events {} --trace", arguments.events);
            return ExitCode::FAILURE;
        }
        sum.add(&outcome);
        if sum.seeds.is_multiple_of(PROGRESS_SEEDS) {
            sum.show(begun);
        }
    }
    sum.show(begun);
    sum.coverage(arguments.partial)
}

/// A panic of the product is a violation, too.
fn one(ground: &mut Ground, seed: u64, arguments: &Arguments) -> Outcome {
    let run = AssertUnwindSafe(|| world::run(ground, seed, arguments.events, arguments.trace));
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string()));
        let violation = Some(format!("panic: {}", text.unwrap_or_default()));
        Outcome { events: 0, counts: vec![0; fault::ALL.len()], violation }
    })
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.least = self.least.min(outcome.events);
        self.counts.iter_mut().zip(&outcome.counts).for_each(|(sum, count)| *sum += count);
    }

    fn show(&self, begun: Instant) {
        let secs = begun.elapsed().as_secs_f64();
        println!(
            "{} seeds, {} events (at least {} each), {:.2} ms per seed, {secs:.0} s: no violation",
            self.seeds,
            self.events,
            self.least,
            secs * 1000.0 / self.seeds as f64,
        );
    }

    /// Every kind of fault, with how often it was reached.
    fn coverage(&self, partial: bool) -> ExitCode {
        for (fault, text) in fault::ALL {
            println!("{:>12}  {text}", self.counts[*fault as usize]);
        }
        let missed = self.counts.iter().filter(|count| **count == 0).count();
        println!("{} of {} kinds of fault reached", self.counts.len() - missed, self.counts.len());
        if missed == 0 || partial { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many seeds as a test run has time for; `ci/bar engine 8` runs many more.
    #[test]
    fn no_seed_finds_a_violation() {
        let arguments = Arguments { seed: 1, seeds: 3000, events: 1000, trace: false, partial: false };
        let mut ground = Ground::new().expect("memory for a region");
        let mut counts = vec![0; fault::ALL.len()];
        for seed in arguments.seed..arguments.seed + arguments.seeds {
            let outcome = one(&mut ground, seed, &arguments);
            assert_eq!(outcome.violation, None, "seed {seed}");
            counts.iter_mut().zip(&outcome.counts).for_each(|(sum, count)| *sum += count);
        }
        let missed: Vec<_> = fault::ALL.iter().filter(|(fault, _)| counts[*fault as usize] == 0).collect();
        assert!(missed.is_empty(), "kinds of fault that were never reached: {missed:?}");
    }

    #[test]
    fn a_seed_is_always_the_same_run() {
        let arguments = Arguments { seed: 1, seeds: 1, events: 1000, trace: false, partial: true };
        let mut ground = Ground::new().expect("memory for a region");
        let alone = one(&mut ground, 77, &arguments);
        for seed in 1..20 {
            one(&mut ground, seed, &arguments);
        }
        let again = one(&mut ground, 77, &arguments);
        assert_eq!((alone.events, alone.counts), (again.events, again.counts));
    }
}
