//! The standard streams that log and audit lines go to, and the program whose they are.
//!
//! Called by the engine at its start, and by the attach server, which hears of programs' ends. A stream is held no longer
//! than its program lives, so that what reads it sees its end: `program | cat` ends with the program, although the engine
//! lingers. Lines that come later go to a file beside the engine's lock, or to the streams of the next program with
//! ENABLE_CONNECTOR=1.

use crate::journal::{Half, Journal};
use crate::process::clients::Clients;
use ossc_cache::wire::{Streams, outputs};
use ossc_conf::{Config, Output};
use std::path::PathBuf;

/// See the module.
pub struct Outputs {
    journal: Journal,
    /// Halves that go to a stream.
    halves: Vec<(Half, Output)>,
    /// The program whose streams are held; empty while none are.
    holder: Clients,
    is_held: bool,
    lock: PathBuf,
}

impl Outputs {
    /// What the configuration names, held by the program `pid` that has started the engine. `lock` is the engine's file.
    pub fn new(journal: Journal, config: &Config, pid: i32, lock: PathBuf) -> Outputs {
        let halves = [(Half::Log, &config.log_path), (Half::Audit, &config.audit_path)];
        let is_stream = |(_, output): &(Half, &Output)| !matches!(output, Output::File(_));
        let halves: Vec<_> =
            halves.into_iter().filter(is_stream).map(|(half, output)| (half, output.clone())).collect();
        let mut holder = Clients::default();
        if !halves.is_empty() {
            holder.count(pid);
        }
        Outputs { journal, is_held: !halves.is_empty(), halves, holder, lock }
    }

    /// Bits of `wire::outputs` for those that programs are to offer.
    pub fn wanted(&self) -> u32 {
        let bit = |output: &Output| match output {
            Output::Stdout => outputs::STDOUT,
            Output::Stderr => outputs::STDERR,
            Output::File(_) => 0,
        };
        self.halves.iter().fold(0, |bits, (_, output)| bits | bit(output))
    }

    /// The program whose streams are held, to be waited for.
    pub fn holder(&self) -> &Clients {
        &self.holder
    }

    /// Gives the streams up if their program has ended.
    pub fn look(&mut self) {
        self.holder.remove_ended();
        if self.is_held && self.holder.is_empty() {
            self.is_held = false;
            self.halves.iter().for_each(|(half, _)| self.journal.leave_stream(*half, &self.lock));
        }
    }

    /// A program has offered its streams: they are taken where none are held.
    pub fn offered(&mut self, pid: i32, streams: &Streams) {
        self.look();
        if self.is_held {
            return;
        }
        self.holder.count(pid);
        if self.holder.is_empty() {
            return;
        }
        let taken =
            self.halves.iter().filter(|(half, output)| self.journal.take_stream(*half, output, streams)).count();
        self.is_held = taken > 0;
        if !self.is_held {
            self.holder = Clients::default();
        }
    }
}
