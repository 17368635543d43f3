//! The engine of a MODEL_DIR as an outsider sees it: its shared region, and what it says of itself.
//!
//! Called by the commands that show something (`status`, `top`, `metrics`). It changes nothing, never starts an
//! engine, and keeps none alive: who looks is not a client.

pub use crate::process::records::{is_under_way, objects, ready_bytes, state_label};
use clap::Args;
use ossc_cache::cpath::CPath;
use ossc_cache::region::Region;
use ossc_cache::rundir::{self, Paths, RunDirSettings};
use ossc_cache::sys;
use ossc_cache::wire::{self, Ask, Packet};
use ossc_net::error::shown;
use serde_json::Value;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// How long the engine may take to answer, in milliseconds.
const ANSWER_MS: u64 = 5000;

/// To give back all that an engine has takes up to some seconds a terabyte.
const GIVEN_BACK_MS: u64 = 60_000;

/// Which engine.
#[derive(Args)]
pub struct Which {
    /// The model folder.
    #[arg(long, env = "MODEL_DIR")]
    pub model_dir: PathBuf,
}

impl Which {
    /// The region of the engine that serves this folder, or why there is none.
    pub fn region(&self) -> Result<Region, String> {
        let mapped = asked(&self.paths()?.socket, Ask::Look).and_then(|packet| {
            let mapped = Region::map([packet.fds[0], packet.fds[1]]);
            packet.close_fds();
            mapped.map_err(|e| format!("cannot map the engine's region: {}", std::io::Error::from_raw_os_error(e.0)))
        });
        mapped.map_err(|why| format!("MODEL_DIR {}: {why}", self.model_dir.display()))
    }

    /// What the engine that serves this folder says of itself, or why there is none.
    pub fn report(&self) -> Result<Value, String> {
        report_at(&self.paths()?.socket).map_err(|why| format!("MODEL_DIR {}: {why}", self.model_dir.display()))
    }

    /// Has the engine give back what no program uses at or below a path of MODEL_DIR, or of all where that is empty: what it
    /// answers.
    pub fn give_back(&self, path: &str) -> Result<Value, String> {
        let answer = document(&self.paths()?.socket, Ask::Drop, path.as_bytes(), GIVEN_BACK_MS);
        answer.map_err(|why| format!("MODEL_DIR {}: {why}", self.model_dir.display()))
    }

    /// The memory of an object, by its record, for reading; the caller is no client.
    pub fn memory(&self, slot: u32) -> Result<File, String> {
        let packet = asked(&self.paths()?.socket, Ask::Memory(slot))?;
        // The descriptor is this process's own: it is opened anew before it is closed.
        let opened = File::open(format!("/proc/self/fd/{}", packet.fds[0]));
        packet.close_fds();
        opened.map_err(|e| format!("cannot open the engine's memory: {e}"))
    }

    /// True while an engine serves this folder.
    pub fn is_served(&self) -> bool {
        self.paths().is_ok_and(|paths| paths.lock.as_cstr().is_some_and(sys::is_locked))
    }

    /// Where its lock and socket are.
    pub fn paths(&self) -> Result<Paths, String> {
        let dir = self.model_dir.display();
        let id = std::fs::metadata(&self.model_dir).map_err(|e| format!("MODEL_DIR {dir}: {e}"))?;
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let (socket, runtime_dir) = (variable("CONNECTOR_UDS_PATH"), variable("XDG_RUNTIME_DIR"));
        let place = RunDirSettings {
            socket: socket.as_ref().map(|s| s.as_bytes()),
            runtime_dir: runtime_dir.as_ref().map(|s| s.as_bytes()),
            model_dir: self.model_dir.as_os_str().as_bytes(),
        };
        rundir::paths(&place, id.dev(), id.ino()).ok_or_else(|| "no run folder can be used".to_string())
    }
}

/// What the engine that listens at a socket says of itself, or why it does not.
pub fn report_at(socket: &CPath) -> Result<Value, String> {
    document(socket, Ask::Report, b"", ANSWER_MS)
}

/// An answer that is a file of JSON.
fn document(socket: &CPath, ask: Ask, text: &[u8], within_ms: u64) -> Result<Value, String> {
    let packet = answered(socket, ask, text, within_ms)?;
    let read = std::fs::read(format!("/proc/self/fd/{}", packet.fds[0]));
    packet.close_fds();
    let text = read.map_err(|e| format!("cannot read the engine's report: {e}"))?;
    serde_json::from_slice(&text).map_err(|e| format!("cannot read the engine's report: {e}"))
}

fn asked(socket: &CPath, ask: Ask) -> Result<Packet, String> {
    answered(socket, ask, b"", ANSWER_MS)
}

fn answered(socket: &CPath, ask: Ask, text: &[u8], within_ms: u64) -> Result<Packet, String> {
    wire::ask_at_socket(socket, ask, text, within_ms).map_err(|errno| match errno.0 {
        libc::ENOENT | libc::ECONNREFUSED => {
            "no engine runs for this folder: start a program with LD_PRELOAD and ENABLE_CONNECTOR=1".into()
        }
        libc::ENOTSUP => "the running engine is of another version".into(),
        libc::EACCES => "the engine is another user's".into(),
        code => format!("the engine did not answer: {}", std::io::Error::from_raw_os_error(code)),
    })
}

/// What programs get an error for, a line each: objects that have failed, and folders that were never listed.
pub fn failures(report: &Value) -> Vec<String> {
    let line = |one: &Value| format!("failed: {}", with_reason(one, "name", ""));
    let failed = list(report, "failed").iter().map(line);
    failed.chain(not_listed(report, false)).collect()
}

/// Folders that could not be listed again, a line each: programs see them as they were.
pub fn not_renewed(report: &Value) -> Vec<String> {
    not_listed(report, true)
}

fn not_listed(report: &Value, shows_older: bool) -> Vec<String> {
    let which = list(report, "not_listed").iter().filter(|one| one["shows_older"] == Value::Bool(shows_older));
    which
        .map(|one| {
            format!("not listed{}: {}", if shows_older { " again" } else { "" }, with_reason(one, "folder", "/"))
        })
        .collect()
}

fn list<'a>(report: &'a Value, name: &str) -> &'a [Value] {
    report[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn with_reason(one: &Value, name: &str, behind: &str) -> String {
    let reason = one["reason"].as_str().unwrap_or("see the log");
    format!("{}{behind}: {}", shown(one[name].as_str().unwrap_or_default()), shown(reason))
}

/// `1.5 GiB`.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4) as usize;
    if power == 0 {
        format!("{bytes} B")
    } else {
        format!("{:.1} {}", bytes as f64 / (1u64 << (10 * power)) as f64, UNITS[power])
    }
}
