//! `ossc doctor`: everything that a program under these variables needs to start and load, tried once, in the order in which
//! it needs it: role and library, settings, folders, an engine that runs, memory, the bucket, a load of a few seconds.
//!
//! With a program behind `--` it runs that instead, and says how it reads past the C library.
//!
//! Called by `main`. It changes nothing that stays, starts no engine and shows no secret. What a failed step makes
//! pointless is not tried. Its status is 0 exactly when the program would start and load.

mod engine;
mod local;
mod program;
mod reading;
mod remote;
mod role;

use crate::commands::output;
use clap::Args;
use engine::Running;
use ossc_conf::{Config, DEFAULT_PATH, Settings};
use role::Role;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

#[derive(Args)]
#[command(after_help = "\
Set the variables of your program first, or put them before the command. The status is 0 if the program would start and
load, 1 if not, or if what was found could not be printed. Each line is ok, note (it works) or FAIL, with what to do.

  MODEL_DIR=/models OSS_PATH=oss://examplebucket/qwen/Qwen3-8B/ OSS_ENDPOINT=oss-cn-beijing-internal.aliyuncs.com ossc doctor
  ossc doctor --json | jq '.checks[] | select(.mark == \"FAIL\")'
  ossc doctor -- python3 serve.py")]
pub struct DoctorOptions {
    /// Ask nobody: look at this machine and the settings only.
    #[arg(long)]
    offline: bool,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
    /// Let failures of this check (the second word of its line) not decide the status; may be given again.
    #[arg(long, value_name = "CHECK")]
    ignore: Vec<String>,
    /// Run this program under the library instead, and tell how it reads files past the C library, and what to set.
    #[arg(last = true, value_name = "PROGRAM", conflicts_with = "offline")]
    program: Vec<OsString>,
}

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Good,
    /// It works; its user may want to know.
    Note,
    Bad,
}

impl Mark {
    fn word(self) -> &'static str {
        match self {
            Mark::Good => "ok",
            Mark::Note => "note",
            Mark::Bad => "FAIL",
        }
    }
}

/// What has been found so far; each line is printed at once, but for JSON.
#[derive(Default)]
struct Report {
    /// What has failed, and how often there is a note.
    bad: Vec<String>,
    notes: u32,
    /// For JSON.
    checks: Option<Vec<Value>>,
    measured: Value,
    ignored: Vec<String>,
    /// An engine serves the program already: what a start would need decides nothing.
    is_served: bool,
    warnings: Warnings,
    /// Why lines could not be printed, if so.
    unprinted: Option<std::io::Error>,
}

impl Report {
    fn say(&mut self, mark: Mark, what: &str, found: &str) {
        let is_eased = mark == Mark::Bad && (self.is_served || self.ignored.iter().any(|name| name == what));
        let mark = if is_eased { Mark::Note } else { mark };
        if mark == Mark::Bad && !self.bad.iter().any(|before| before == what) {
            self.bad.push(what.to_string());
        }
        self.notes += u32::from(mark == Mark::Note);
        match &mut self.checks {
            Some(checks) => checks.push(json!({"mark": mark.word(), "check": what, "found": found})),
            None => self.print(&format!("{:<5} {what:<12} {found}\n", mark.word())),
        }
    }

    fn print(&mut self, line: &str) {
        if let Err(e) = output::print(line) {
            self.unprinted = Some(e);
        }
    }

    /// The last line, and the status of the command: 1 where what was found could not be said.
    fn end(mut self, status: u8) -> ExitCode {
        let sum = match (self.bad.is_empty(), self.notes) {
            (true, 0) => "everything that was tried works\n".to_string(),
            (true, 1) => "everything that was tried works; 1 note\n".to_string(),
            (true, notes) => format!("everything that was tried works; {notes} notes\n"),
            (false, _) => format!("{} failed: {}\n", self.bad.len(), self.bad.join(", ")),
        };
        let whole = self.checks.take().map(|checks| json!({"works": self.bad.is_empty(), "failed": self.bad, "checks": checks, "measured": self.measured}));
        self.print(&whole.map_or(sum, |whole| format!("{whole}\n")));
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

    /// Tells what the engine's own code has warned of since the last time.
    fn warned(&mut self) {
        let text = self.warnings.drain();
        let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.dedup();
        lines.into_iter().for_each(|line| self.note("warning", line));
    }
}

/// What the engine would write to its log as a warning or worse.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<u8>>>);

impl Warnings {
    fn drain(&self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut *crate::lock::lock(&self.0))).into_owned()
    }

    /// From now on they come here.
    fn collect(&self) {
        let here = self.clone();
        let log = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_ansi(false)
            .with_level(false)
            .with_target(false)
            .without_time()
            .with_writer(move || here.clone());
        // Only tests have two in one process.
        let _ = tracing::subscriber::set_global_default(log.finish());
    }
}

impl Write for Warnings {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        crate::lock::lock(&self.0).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs the command: status 1 if a program cannot load, else that of the program, where there is one.
pub fn main(options: &DoctorOptions) -> ExitCode {
    let checks = options.json.then(Vec::new);
    let mut report = Report { checks, ignored: options.ignore.clone(), ..Report::default() };
    if !options.program.is_empty() {
        let status = program::run(&mut report, &options.program).and_then(|status| status.code()).unwrap_or(1);
        let status = if report.bad.is_empty() { status as u8 } else { 1 };
        return report.end(status);
    }
    report.warnings.collect();
    look(&mut report, options.offline);
    let status = u8::from(!report.bad.is_empty());
    report.end(status)
}

fn look(report: &mut Report, offline: bool) {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let role = role::role(report);
    // A secondary with all of a primary's variables starts an engine, too, where none runs.
    let starts = role == Role::Primary || set("OSS_PATH").is_some() && set("OSS_ENDPOINT").is_some();
    let config = config(report);
    let settings = if starts { settings(report) } else { None };
    let model_dir = set("MODEL_DIR").map(PathBuf::from);
    if model_dir.is_none() && !starts {
        report
            .bad("MODEL_DIR", "not set, so the library does nothing: set it to the folder that the program loads from");
    }
    role::library(report, model_dir.as_deref());
    let id = model_dir.as_deref().and_then(|dir| local::model_dir(report, dir));
    let is_there = model_dir.as_deref().filter(|dir| dir.is_dir());
    let running = is_there.map_or(Running::None, |dir: &Path| engine::look(report, dir, (role, !starts)));
    if !starts && is_there.is_none() && model_dir.is_some() {
        report.bad("engine", "none can run for this MODEL_DIR, and ENABLE_CONNECTOR=2 waits for one: start a program with ENABLE_CONNECTOR=1");
    }
    report.is_served = matches!(running, Running::Serves(_));
    if let (Some(settings), Some(id)) = (&settings, id) {
        local::run_folder(report, settings, id);
    }
    let budget = config.as_ref().and_then(|config| {
        local::files(report, config);
        local::metrics(report, config);
        local::memory(report, config, settings.as_ref())
    });
    let budget = if let Running::Serves(budget) = running { Some(budget) } else { budget };
    local::limits(report);
    local::proxies(report);
    if let (Some(config), Some(settings), false) = (&config, &settings, offline || matches!(running, Running::Unfit)) {
        remote::bucket(report, &remote::Local { settings, config, id, budget });
    }
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
    let found = Settings::from_lookup(|name| std::env::var(name).ok()).map_err(|reason| {
        // All at once, since each try takes a while.
        let is_unset = |name: &&str| std::env::var_os(name).is_none_or(|value| value.is_empty());
        let named = |name: &&str| reason.kind() != format!("{name} not set");
        let more: Vec<_> =
            ["MODEL_DIR", "OSS_PATH", "OSS_ENDPOINT"].into_iter().filter(is_unset).filter(named).collect();
        if more.is_empty() { reason.to_string() } else { format!("{reason}; not set either: {}", more.join(", ")) }
    });
    let settings = report.need("environment", found)?;
    let Settings { location, endpoint, region, model_dir, .. } = &settings;
    let region = region.as_deref().unwrap_or("none (anonymous)");
    report.good("environment", format!("{location} at {endpoint}, region {region}, as {}", model_dir.display()));
    Some(settings)
}
