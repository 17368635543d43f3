//! `ossc run -- PROGRAM ARGUMENT...`: starts a program under the library, with the variables of the page checked
//! first where that costs nothing.
//!
//! Called by `main`. It becomes the program (exec), so status, signals and terminal are the program's.

use clap::Args;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const LIBRARY: &str = "libossc_preload.so";

#[derive(Args)]
pub struct RunOptions {
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
        eprintln!("ossc run: {LIBRARY} is neither beside ossc nor in ../lib: install it there");
        return ExitCode::FAILURE;
    };
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
    let failed = command.exec();
    eprintln!("ossc run: {}: {failed}", options.program[0].to_string_lossy());
    // What shells answer for a program that is not there, and for one that cannot be run.
    ExitCode::from(if failed.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
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
