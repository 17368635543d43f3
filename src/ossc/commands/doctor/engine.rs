//! What `ossc doctor` sees of an engine that runs for this MODEL_DIR: whether a program would be served by it.
//!
//! Called by `doctor`. It asks as `ossc status` does, and is no client.

use super::Report;
use super::role::Role;
use crate::commands::view::{self, Which, human, objects, ready_bytes};
use crate::folder_files::Root;
use crate::process::alone;
use ossc_cache::region::{Object, Region, endpoint_key, place_key, state};
use ossc_cache::wire;
use serde_json::Value;
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long an engine may take that is just starting or ending, and how often it is asked.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Most failures that are named.
const NAMED_MAX: usize = 5;

/// What there is.
pub(super) enum Running {
    /// None.
    None,
    /// One that serves what this program names.
    Serves(Engine),
    /// One that this program cannot use: said.
    Unfit,
}

/// What an engine can give a program.
pub(super) struct Engine {
    /// Bytes of objects that it may have in memory.
    pub budget: u64,
    pub here: Here,
}

/// ETags of the objects whose bytes are all here, by their names below OSS_PATH: OSS is not asked for them.
#[derive(Default)]
pub(super) struct Here(HashMap<String, String>);

impl Here {
    /// Programs have an object in this version without OSS.
    pub fn has(&self, name: &str, etag: &str) -> bool {
        self.0.get(name).is_some_and(|own| own == etag)
    }
}

/// `is_alone`: the program may not start one itself.
pub(super) fn look(report: &mut Report, model_dir: &Path, (role, is_alone): (Role, bool)) -> Running {
    let which = Which { model_dir: model_dir.to_path_buf() };
    if !which.is_served() {
        if role == Role::Secondary && is_alone {
            report.bad("engine", "none runs for this MODEL_DIR, and ENABLE_CONNECTOR=2 waits for one: start a program with ENABLE_CONNECTOR=1");
        }
        return unseen(report, model_dir);
    }
    let until = Instant::now() + ENDS_WITHIN;
    loop {
        match which.region() {
            Ok(region) => return judged(report, &region, &which),
            // Its socket goes a moment before its lock.
            Err(_) if !which.is_served() => return Running::None,
            Err(why) if Instant::now() > until => {
                report.bad("engine", stopped(&which).unwrap_or(why));
                return Running::Unfit;
            }
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

/// There is none whose socket this program knows: it starts one, unless another serves the folder.
fn unseen(report: &mut Report, model_dir: &Path) -> Running {
    // What is wrong with the folder is said where that is looked at.
    let Ok(root) = Root::open(model_dir) else { return Running::None };
    let until = Instant::now() + ENDS_WITHIN;
    while alone::is_taken(&root) {
        if Instant::now() > until {
            report.bad("engine", alone::another(model_dir));
            return Running::Unfit;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Running::None
}

fn judged(report: &mut Report, region: &Region, which: &Which) -> Running {
    let header = region.header();
    let own = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let differs = |name: &str, key: fn(&[u8]) -> u64, its: u64| {
        own(name).is_some_and(|value| its != 0 && key(value.as_bytes().trim_ascii()) != its)
    };
    let paths = [
        ("OSS_PATH", place_key as fn(&[u8]) -> u64, &header.oss_path_key),
        ("OSS_ENDPOINT", endpoint_key, &header.endpoint_key),
    ];
    for (name, key, its) in paths {
        if differs(name, key, its.load(Ordering::Acquire)) {
            report.bad(
                "engine",
                format!("the engine of this MODEL_DIR serves another {name}: use another MODEL_DIR, or wait until lingerSec after its last program{}", served(which)),
            );
            return Running::Unfit;
        }
    }
    let (large, ready) = (header.large_bytes.load(Ordering::Relaxed), header.ready_bytes.load(Ordering::Relaxed));
    let pid = header.engine_pid.load(Ordering::Acquire);
    let is_here = |object: &&Object| object.state() != state::FAILED && ready_bytes(region, object) == object.size();
    let named = |object: &Object| (region.name(object).to_string(), object.etag().to_string());
    let is_newest = |object: &&Object| !object.is_superseded();
    let here = Here(objects(region).filter(is_here).filter(is_newest).map(named).collect());
    report.good(
        "engine",
        format!(
            "{pid} serves it: {} of {} are in memory; what only a start needs is a note, and for the next one",
            human(ready),
            human(large)
        ),
    );
    remembered(report, &which.report().unwrap_or_default());
    Running::Serves(Engine { budget: header.budget_bytes.load(Ordering::Acquire), here })
}

/// What programs got errors for. It is not what the next one gets: an open has it tried again, and this command reads only
/// some of it.
fn remembered(report: &mut Report, said: &Value) {
    let lines: Vec<String> = view::failures(said).into_iter().chain(view::not_renewed(said)).collect();
    for line in lines.iter().take(NAMED_MAX) {
        report.note("engine", format!("{line}; its next use has it tried again"));
    }
    if lines.len() > NAMED_MAX {
        report.note("engine", format!("and {} more: `ossc status` names them", lines.len() - NAMED_MAX));
    }
}

/// What a running engine serves, and whom, for a message.
fn served(which: &Which) -> String {
    let Ok(report) = which.report() else { return String::new() };
    let programs: Vec<String> = report["clients"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|client| format!("{} ({})", client["pid"], client["command"].as_str().unwrap_or_default()))
        .collect();
    let of = if programs.is_empty() { "no program".into() } else { programs.join(", ") };
    format!("; it serves {} to {of}", report["oss_path"].as_str().unwrap_or_default())
}

/// What is the matter with an engine that a signal or a debugger has stopped.
fn stopped(which: &Which) -> Option<String> {
    let pid = wire::listener(&which.paths().ok()?.socket).filter(|pid| *pid > 0)?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The field behind the name, which may hold any byte.
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    matches!(state, 'T' | 't')
        .then(|| format!("the engine (pid {pid}) is stopped and does not answer: kill -CONT {pid} lets it go on"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_version_is_not_what_a_program_gets() {
        let here = Here(HashMap::from([("a".to_string(), "1".to_string())]));
        assert!(here.has("a", "1"));
        assert!(!here.has("a", "2") && !here.has("b", "1"));
    }
}
