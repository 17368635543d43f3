//! `ossc doctor`: everything that a load needs, tried once, in the order in which a load would need it: settings, folders,
//! memory, name, connection, keys, listing, a ranged read, clock. Each line says what was found and what to do.
//!
//! With a program behind `--` it runs that instead, and says how it reads past the C library.
//!
//! Called by `main`. It changes nothing, starts no engine and shows no secret. What a failed step makes pointless is
//! not tried.

mod local;
mod program;
mod remote;

use crate::commands::output;
use clap::Args;
use ossc_conf::{Config, DEFAULT_PATH, Settings};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub struct DoctorOptions {
    /// Ask nobody: look at this machine and the settings only.
    #[arg(long)]
    offline: bool,
    /// Run this program under the library instead, and tell how it reads files past the C library, and what to set.
    #[arg(last = true, value_name = "PROGRAM", conflicts_with = "offline")]
    program: Vec<OsString>,
}

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Good,
    /// It works; somebody may want to know.
    Note,
    Bad,
}

/// What has been found so far; each line is printed at once.
#[derive(Default)]
struct Report {
    bad: u32,
    notes: u32,
    /// Why lines could not be printed, if so.
    unprinted: Option<std::io::Error>,
}

impl Report {
    fn say(&mut self, mark: Mark, what: &str, found: &str) {
        let word = match mark {
            Mark::Good => "ok",
            Mark::Note => "note",
            Mark::Bad => "FAIL",
        };
        self.bad += u32::from(mark == Mark::Bad);
        self.notes += u32::from(mark == Mark::Note);
        self.print(&format!("{word:<5} {what:<12} {found}\n"));
    }

    fn print(&mut self, line: &str) {
        if let Err(e) = output::print(line) {
            self.unprinted = Some(e);
        }
    }

    /// The status of the command: 1 where what was found could not be said.
    fn end(self, status: u8) -> ExitCode {
        match self.unprinted {
            Some(e) => output::lost("doctor", &e),
            None => ExitCode::from(status),
        }
    }

    fn good(&mut self, what: &str, found: impl AsRef<str>) {
        self.say(Mark::Good, what, found.as_ref());
    }

    fn note(&mut self, what: &str, found: impl AsRef<str>) {
        self.say(Mark::Note, what, found.as_ref());
    }

    fn bad(&mut self, what: &str, found: impl AsRef<str>) {
        self.say(Mark::Bad, what, found.as_ref());
    }

    /// Says why a step failed; `None` ends what depends on it.
    fn need<T>(&mut self, what: &str, found: Result<T, impl ToString>) -> Option<T> {
        found.map_err(|why| self.say(Mark::Bad, what, &why.to_string())).ok()
    }
}

/// Runs the command: status 1 if a load cannot work, else that of the program, where there is one.
pub fn main(options: &DoctorOptions) -> ExitCode {
    let mut report = Report::default();
    if !options.program.is_empty() {
        let status = program::run(&mut report, &options.program).and_then(|status| status.code()).unwrap_or(1);
        let status = if report.bad > 0 { 1 } else { status as u8 };
        return report.end(status);
    }
    let config = config(&mut report);
    let settings = settings(&mut report);
    local::library(&mut report);
    if let Some(settings) = &settings {
        local::model_dir(&mut report, settings);
    }
    if let Some(config) = &config {
        local::memory(&mut report, config, settings.as_ref());
    }
    local::limits(&mut report);
    if let (Some(config), Some(settings), false) = (&config, &settings, options.offline) {
        remote::bucket(&mut report, settings, config);
    }
    let sum = match (report.bad, report.notes) {
        (0, 0) => "everything that was tried works\n".to_string(),
        (0, notes) => format!("everything that was tried works; {notes} notes\n"),
        (bad, _) => format!("{bad} failed\n"),
    };
    report.print(&sum);
    let status = u8::from(report.bad > 0);
    report.end(status)
}

fn config(report: &mut Report) -> Option<Config> {
    let own = std::env::var_os("OSSC_CONFIG").filter(|path| !path.is_empty());
    let path = own.as_ref().map_or_else(|| PathBuf::from(DEFAULT_PATH), PathBuf::from);
    let (config, warnings) = report.need("config", Config::load(&path, own.is_some()))?;
    for warning in warnings {
        report.note("config", format!("{}: {warning}", path.display()));
    }
    let is_there = path.exists();
    report.good("config", if is_there { path.display().to_string() } else { "no file: defaults".into() });
    Some(config)
}

fn settings(report: &mut Report) -> Option<Settings> {
    let settings = report.need("environment", Settings::from_lookup(|name| std::env::var(name).ok()))?;
    let Settings { location, endpoint, region, model_dir, .. } = &settings;
    let region = region.as_deref().unwrap_or("none (anonymous)");
    report.good("environment", format!("{location} at {endpoint}, region {region}, as {}", model_dir.display()));
    Some(settings)
}
