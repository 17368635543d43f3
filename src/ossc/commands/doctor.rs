//! `ossc doctor`: everything that a program under these variables needs to start and load, tried once, in the order in which
//! it needs it: role and library, settings, folders, an engine that runs, memory, the bucket, a load of a few seconds.
//!
//! With a program behind `--` it runs that instead, and says how it reads past the C library.
//!
//! Called by `main`. It changes nothing that stays, starts no engine and shows no secret. What a failed step makes
//! pointless is not tried. Its status is 0 exactly when the program would start and load. What fails is said at once and
//! stands first, so that the reason is on the first screen; notes follow, then what works.

mod engine;
mod local;
mod program;
mod reading;
mod remote;
mod role;

use crate::commands::output;
use clap::Args;
use engine::{Here, Running};
use ossc_conf::{Config, DEFAULT_PATH, Settings};
use ossc_net::error::shown;
use role::Role;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

#[derive(Args)]
#[command(after_help = "\
Set the variables of your program first, or put them before the command. The status is 0 if the program would start and
load, 1 if not, or if what was found could not be printed. Each line is FAIL with what to do, note (it works), or ok.
Where something fails, one line names what works; --json has all of it, in the order in which it was tried.

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

/// Warnings of one step that are told.
const WARNINGS_MAX: usize = 3;

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

/// What has been found so far. What fails is printed at once, the rest at the end; for JSON all of it.
#[derive(Default)]
struct Report {
    /// What has failed.
    bad: Vec<String>,
    /// Lines that are printed at the end: notes, and what works with its name.
    notes: Vec<String>,
    good: Vec<(String, String)>,
    /// For JSON.
    checks: Option<Vec<Value>>,
    measured: Value,
    ignored: Vec<String>,
    /// An engine serves the program already: what a start would need decides nothing.
    is_served: bool,
    /// A program was run.
    is_of_program: bool,
    warnings: Warnings,
    /// Why lines could not be printed, if so.
    unprinted: Option<std::io::Error>,
}

impl Report {
    fn say(&mut self, mark: Mark, what: &str, found: &str) {
        let is_eased = mark == Mark::Bad && self.ignored.iter().any(|name| name == what);
        let mark = if is_eased { Mark::Note } else { mark };
        if mark == Mark::Bad && !self.bad.iter().any(|before| before == what) {
            self.bad.push(what.to_string());
        }
        if let Some(checks) = &mut self.checks {
            checks.push(json!({"mark": mark.word(), "check": what, "found": found}));
            return;
        }
        let line = format!("{:<5} {what:<12} {}\n", mark.word(), shown(found));
        match mark {
            Mark::Bad => self.print(&line),
            Mark::Note => self.notes.push(line),
            Mark::Good => self.good.push((what.to_string(), line)),
        }
        so_far(what);
    }

    fn print(&mut self, line: &str) {
        so_far("");
        if let Err(e) = output::print(line) {
            self.unprinted = Some(e);
        }
    }

    /// What was kept back, the last line, and the status of the command: 1 where what was found could not be said.
    fn end(mut self, status: u8) -> ExitCode {
        let text = match self.checks.take() {
            Some(checks) => {
                let works = self.bad.is_empty();
                output::document(
                    &json!({"works": works, "failed": self.bad, "checks": checks, "measured": self.measured}),
                )
            }
            None => self.rest(),
        };
        self.print(&text);
        match self.unprinted {
            Some(e) => output::lost("doctor", &e),
            None => ExitCode::from(status),
        }
    }

    /// All that stands behind the failures: with one, what works by its names alone, so that one screen holds it all.
    fn rest(&self) -> String {
        let mut text = self.notes.concat();
        if self.bad.is_empty() {
            self.good.iter().for_each(|(_, line)| text.push_str(line));
            let notes = match self.notes.len() {
                0 => String::new(),
                1 => "; 1 note".into(),
                more => format!("; {more} notes"),
            };
            return if self.is_of_program {
                format!("{text}nothing was found that keeps it from the model{notes}\n")
            } else {
                format!(
                    "{text}everything that was tried works{notes}; if a program sees no model: ossc doctor -- PROGRAM\n"
                )
            };
        }
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in &self.good {
            if !self.bad.contains(name) && !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        if !names.is_empty() {
            text.push_str(&format!("{:<5} {:<12} {}\n", Mark::Good.word(), "the rest", names.join(", ")));
        }
        format!("{text}{} failed: {}\n", self.bad.len(), self.bad.join(", "))
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

    /// Something that only a start needs has failed.
    fn bad_for_a_start(&mut self, what: &str, found: impl AsRef<str>) {
        self.say(if self.is_served { Mark::Note } else { Mark::Bad }, what, found.as_ref());
    }

    /// Says why a step of a start failed; `None` ends what depends on it.
    fn need<T>(&mut self, what: &str, found: Result<T, impl ToString>) -> Option<T> {
        found.map_err(|why| self.bad_for_a_start(what, why.to_string())).ok()
    }

    /// Tells what the engine's own code has warned of since the last time.
    fn warned(&mut self) {
        let text = self.warnings.drain();
        let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.dedup();
        let more = lines.len().saturating_sub(WARNINGS_MAX);
        lines.truncate(WARNINGS_MAX);
        lines.into_iter().for_each(|line| self.note("warning", line));
        if more > 0 {
            self.note("warning", format!("and {more} more"));
        }
    }
}

/// On a terminal: the name of what was looked at last, until a line is printed; a step may take a minute.
fn so_far(what: &str) {
    let mut stderr = std::io::stderr();
    let moves = std::env::var_os("TERM").is_some_and(|name| !name.is_empty() && name != "dumb");
    // What is piped is read by a pager, mostly, which has the terminal.
    if moves && stderr.is_terminal() && std::io::stdout().is_terminal() {
        let text = if what.is_empty() { String::new() } else { format!("looked at: {what}") };
        // Nothing depends on it.
        let _ = write!(stderr, "\r\x1b[K{text}");
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
        report.is_of_program = true;
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
    let is_fit = !matches!(running, Running::Unfit);
    if let (Some(settings), Some(id)) = (&settings, id) {
        local::run_folder(report, settings, id);
    }
    let budget = config.as_ref().and_then(|config| {
        local::files(report, config);
        local::metrics(report, config);
        local::memory(report, config, settings.as_ref())
    });
    let (budget, here) = match running {
        Running::Serves(engine) => (Some(engine.budget), engine.here),
        _ => (budget, Here::default()),
    };
    local::limits(report);
    local::proxies(report);
    if let (Some(config), Some(settings), true) = (&config, &settings, is_fit && !offline) {
        remote::bucket(report, &remote::Local { settings, config, id, budget, here });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_not_among_what_works_and_no_line_is_obeyed_by_a_terminal() {
        let mut report = Report::default();
        report.note("clock", "a\u{9b}31m\nb");
        for what in ["library", "DNS", "library", "DNS"] {
            report.good(what, "c");
        }
        report.bad("library", "d\u{1b}[31m");
        let text = report.rest();
        assert!(text.starts_with("note  clock        a\\u{9b}31m\\nb\n"), "{text:?}");
        assert!(text.ends_with("\nok    the rest     DNS\n1 failed: library\n"), "{text:?}");
    }
}
