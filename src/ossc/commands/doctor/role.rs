//! What `ossc doctor` sees of how programs get the library: the role, LD_PRELOAD, the library and the engine's program, and
//! whether the hooks are in force where they are loaded.
//!
//! Called by `doctor`. The last is found out by a shell under the same variables as a secondary, which starts no engine
//! and reads no file of MODEL_DIR.

use super::Report;
use crate::commands::run;
use rustix::fs::{Access, access};
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const LIBRARY: &str = "libossc_preload.so";
const REFUSED: &str = "failed to launch oss connector: ";

/// ENABLE_CONNECTOR, as the program has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Primary,
    Secondary,
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The role, and what is wrong with it.
pub(super) fn role(report: &mut Report) -> Role {
    let value = variable("ENABLE_CONNECTOR").unwrap_or_default();
    let is_nothing = "so the library does nothing, and the program sees what lies in MODEL_DIR by itself: set it to 1; where \
        the program's command sets it (a pod), ask as that does: env ENABLE_CONNECTOR=1 ossc doctor";
    match value.as_bytes() {
        b"1" => report.good("role", "primary: starts the engine if none runs"),
        b"2" => report.good("role", "secondary: waits for the engine of a primary"),
        b"" if variable("LD_PRELOAD").is_none() => report.note(
            "role",
            "ENABLE_CONNECTOR and LD_PRELOAD are not set here: looked at as `ossc run` starts programs, which sets both; `ossc doctor -- PROGRAM` looks at a program itself",
        ),
        b"" => report.bad("role", format!("ENABLE_CONNECTOR is not set, {is_nothing}")),
        b"0" => report.bad("role", format!("ENABLE_CONNECTOR is 0, {is_nothing}")),
        _ => report.bad(
            "role",
            format!("ENABLE_CONNECTOR is `{}`: set it to 1 (primary) or 2 (secondary)", value.to_string_lossy()),
        ),
    }
    if value == "2" { Role::Secondary } else { Role::Primary }
}

/// The library, where programs load it from, and the engine that it would start.
pub(super) fn library(report: &mut Report, model_dir: Option<&Path>) {
    let own = run::library();
    let preload = variable("LD_PRELOAD");
    let library = match &preload {
        None => report.need("library", own.ok_or("it is neither beside ossc nor in ../lib: install it there")),
        Some(text) => named(report, text, own.as_deref()),
    };
    let Some(library) = library else { return };
    let shown = library.display();
    let found = format!("{shown}, ossc is version {}", env!("CARGO_PKG_VERSION"));
    report.good("library", found);
    if preload.is_none() && variable("ENABLE_CONNECTOR").is_some() {
        report.bad("LD_PRELOAD", format!("not set, and a program without it is not served: put LD_PRELOAD={shown} before the program's command and before this one, or start the program by `ossc run --`, which needs no ENABLE_CONNECTOR"));
    }
    engine_program(report, &library);
    hooks(report, &preload.unwrap_or_else(|| library.into_os_string()), model_dir);
}

/// The library that LD_PRELOAD names.
fn named(report: &mut Report, text: &OsStr, own: Option<&Path>) -> Option<PathBuf> {
    let entries =
        text.as_bytes().split(|byte| matches!(byte, b':' | b' ')).map(|entry| Path::new(OsStr::from_bytes(entry)));
    let place = own.map_or_else(|| LIBRARY.into(), |own| own.display().to_string());
    let Some(entry) = entries.into_iter().find(|entry| entry.ends_with(LIBRARY)) else {
        report.bad(
            "LD_PRELOAD",
            format!("it does not name {LIBRARY}, so the program is not served: put {place} first in it"),
        );
        return None;
    };
    // Without a slash the dynamic linker looks for it itself.
    if entry.as_os_str().as_bytes().contains(&b'/') && !entry.exists() {
        let entry = entry.display();
        report.bad("LD_PRELOAD", format!("{entry} is not there, and programs start without it: set it to {place}"));
        return None;
    }
    Some(entry.to_path_buf())
}

/// `ossc` as the library finds it.
fn engine_program(report: &mut Report, library: &Path) {
    let may_run = |path: &Path| access(path, Access::EXEC_OK).is_ok() && path.is_file();
    if let Some(own) = variable("OSSC_BIN").map(PathBuf::from) {
        if !may_run(&own) {
            report.bad(
                "OSSC_BIN",
                format!("{} is no program that can be started: unset OSSC_BIN, or set it to ossc", own.display()),
            );
        }
        return;
    }
    let folder = library.parent().unwrap_or(Path::new(""));
    if !library.as_os_str().as_bytes().contains(&b'/')
        || may_run(&folder.join("ossc"))
        || may_run(&folder.join("../bin/ossc"))
    {
        return;
    }
    report
        .bad("library", "the program ossc was found neither beside it nor in ../bin: install it there or set OSSC_BIN");
}

/// Whether a program that loads the library is served by it.
fn hooks(report: &mut Report, preload: &OsStr, model_dir: Option<&Path>) {
    let Some(folder) = model_dir.filter(|folder| folder.is_dir()) else { return };
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "echo; read answer"])
        .env("LD_PRELOAD", preload)
        .env("ENABLE_CONNECTOR", "2")
        .env("MODEL_DIR", folder);
    let started = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(e) => return report.note("hooks", format!("not looked at, since there is no `sh` to try them with: {e}")),
    };
    let mut line = String::new();
    let ran = child.stdout.take().is_some_and(|out| BufReader::new(out).read_line(&mut line).is_ok_and(|len| len > 0));
    let is_loaded = std::fs::read(format!("/proc/{}/maps", child.id()))
        .is_ok_and(|maps| maps.windows(LIBRARY.len()).any(|part| part == LIBRARY.as_bytes()));
    drop(child.stdin.take());
    let mut said = String::new();
    if let Some(mut err) = child.stderr.take() {
        // What cannot be read is shown as far as it can.
        let mut bytes = Vec::new();
        let _ = err.read_to_end(&mut bytes);
        said = String::from_utf8_lossy(&bytes).trim().replace('\n', "; ");
    }
    let _ = child.wait();
    match (ran, is_loaded) {
        (true, true) if said.is_empty() => report.good("hooks", "in force in a program under these variables"),
        (true, true) => report.note("hooks", said),
        (true, false) => {
            report.bad("hooks", format!("a program does not load the library: {said}: is it there, and may this user read it? `LD_DEBUG=libs` says more"))
        }
        (false, _) => report.bad("hooks", said.replace(REFUSED, "")),
    }
}
