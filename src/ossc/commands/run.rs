//! `ossc run -- PROGRAM ARGUMENT...`: starts a program under the library, with the variables of the page checked
//! first where that costs nothing.
//!
//! Called by `main`. It becomes the program (exec), so status, signals and terminal are the program's. With `--progress` on
//! a terminal it stays beside the program: then it hands on what signals come, and ends as the program has ended.

use crate::commands::progress::Progress;
use crate::commands::signals::{self, Signals};
use crate::commands::view::Which;
use crate::commands::{executable, output};
use clap::Args;
use std::ffi::{OsStr, OsString};
use std::io::{Error, IsTerminal};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::Duration;

/// The library's name.
pub const LIBRARY: &str = "libossc_preload.so";

/// How often the program is looked at where no signal tells of its end.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

#[derive(Args)]
#[command(
    after_help = "Exit status: the program's; 127 where it is not there, 126 where it cannot be run, 1 where the library is not installed.\n\n\
    Examples:\n  ossc run -- python3 serve.py\n  ossc run --progress --model-dir /models/qwen -- python3 serve.py\n  \
    ossc run --secondary -- ls -l /models/qwen"
)]
pub struct RunOptions {
    /// On a terminal: a bar on standard error while the model loads, and a line with the figures of the load. Elsewhere
    /// it changes nothing.
    #[arg(long)]
    progress: bool,
    /// Starts as secondary (ENABLE_CONNECTOR=2): waits for the engine of another program.
    #[arg(long)]
    secondary: bool,
    /// The model folder, as MODEL_DIR.
    #[arg(long, value_name = "FOLDER")]
    model_dir: Option<PathBuf>,
    /// What it mirrors, as OSS_PATH.
    #[arg(long, value_name = "oss://BUCKET/PATH/")]
    oss_path: Option<String>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// Runs the command; comes back only if it fails.
pub fn main(options: &RunOptions) -> ExitCode {
    let Some(library) = library() else {
        output::tell(&format!("ossc run: {LIBRARY} is neither beside ossc nor in ../lib: install it there"));
        return ExitCode::FAILURE;
    };
    if let Some(why) = executable::unloadable_by_name(&options.program[0]) {
        output::tell(&format!(
            "ossc run: {} {why}; it runs without the library and sees large objects as empty files",
            options.program[0].to_string_lossy()
        ));
    }
    let mut command = command(&library, &options.program);
    if options.secondary {
        command.env("ENABLE_CONNECTOR", "2");
    }
    if let Some(folder) = &options.model_dir {
        command.env("MODEL_DIR", folder);
    }
    if let Some(path) = &options.oss_path {
        command.env("OSS_PATH", path);
    }
    let is_shown = options.progress && std::io::stderr().is_terminal() && !signals::is_ignored(libc::SIGCHLD);
    let model_dir = options.model_dir.clone().or_else(|| std::env::var_os("MODEL_DIR").map(PathBuf::from));
    match model_dir.filter(|_| is_shown) {
        Some(model_dir) => beside(&mut command, Which { model_dir }).unwrap_or_else(|failed| not_run(options, &failed)),
        None => not_run(options, &command.exec()),
    }
}

fn not_run(options: &RunOptions, failed: &Error) -> ExitCode {
    output::tell(&format!("ossc run: {}: {failed}", options.program[0].to_string_lossy()));
    // What shells answer for a program that is not there, and for one that cannot be run.
    ExitCode::from(if failed.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
}

/// Runs the program and shows its load meanwhile; its status.
fn beside(command: &mut Command, which: Which) -> Result<ExitCode, Error> {
    let signals = Signals::take_over(&[&signals::FORWARDED[..], &[libc::SIGCHLD]].concat());
    let mut child = signals.spawn(command)?;
    let progress = Progress::start(which, "run");
    let status = wait((&signals, progress.as_ref()), &mut child)?;
    progress.into_iter().for_each(Progress::end);
    if let Some(number) = status.signal() {
        signals::end_by(number);
    }
    // What shells answer for a program that a signal has killed.
    let killed = || 128 + status.signal().unwrap_or(0) as u8;
    Ok(ExitCode::from(status.code().map_or_else(killed, |code| code as u8)))
}

/// Waits for the program's end, and hands on signals: those of the terminal's keys have come to it already.
fn wait((signals, progress): (&Signals, Option<&Progress>), child: &mut Child) -> Result<ExitStatus, Error> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let caught = signals.next(LOOK_AGAIN, progress.map(Progress::bar));
        let caught = caught.filter(|caught| caught.number != libc::SIGCHLD && !caught.is_of_kernel);
        caught.iter().for_each(|caught| signals::send(child.id(), caught.number));
    }
}

/// A program and its arguments, to be started as a primary under the library.
pub fn command(library: &Path, program: &[OsString]) -> Command {
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]);
    command.env("ENABLE_CONNECTOR", "1");
    command.env("LD_PRELOAD", preload(library, std::env::var_os("LD_PRELOAD").as_deref()));
    command
}

/// Where packages and builds put the library as seen from the command.
pub fn library() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let folder = own.parent()?;
    [folder.join(LIBRARY), folder.join("../lib").join(LIBRARY)].into_iter().find_map(|path| path.canonicalize().ok())
}

/// The library before what is preloaded already, once.
fn preload(library: &Path, before: Option<&OsStr>) -> OsString {
    let mut all = library.as_os_str().to_owned();
    let names_it = |text: &str| text.split([':', ' ']).any(|entry| Path::new(entry).ends_with(LIBRARY));
    match before {
        Some(before) if before.to_str().is_some_and(names_it) => before.to_owned(),
        Some(before) if !before.is_empty() => {
            all.push(":");
            all.push(before);
            all
        }
        _ => all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_stands_first_and_once() {
        let of = |before: Option<&str>| preload(Path::new("/l/libossc_preload.so"), before.map(OsStr::new));
        assert_eq!(of(None), "/l/libossc_preload.so");
        assert_eq!(of(Some("")), "/l/libossc_preload.so");
        assert_eq!(of(Some("/x/libjemalloc.so")), "/l/libossc_preload.so:/x/libjemalloc.so");
        assert_eq!(of(Some("/x/a.so /y/libossc_preload.so")), "/x/a.so /y/libossc_preload.so");
    }
}
