//! What `ossc doctor` sees of this machine: MODEL_DIR, the run folder, log and audit file, memory and its pages, limits,
//! proxies.
//!
//! Called by `doctor`, before it has a second thread (the memory's helper is a fork).

use super::Report;
use crate::commands::bucket::nearest;
use crate::commands::view;
use crate::folder_files::Root;
use crate::process::first_word::NotStarted;
use crate::process::{assemble, folders, memory, socket};
use ossc_conf::{Config, Output, Settings};
use ossc_store::pages::{PageKind, Store};
use rustix::fs::{Access, access, statfs, statvfs};
use rustix::process::{Resource, getrlimit};
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// statfs(2): file systems that are reached over FUSE, where an OSS mount may lie.
const FUSE_SUPER_MAGIC: u64 = 0x6573_5546;
/// Less is enough for hardly any model.
const BUDGET_BYTES_MIN: u64 = 1 << 30;
/// Connections and the objects of a usual load: half of them are for memory files.
const DESCRIPTORS_MIN: u64 = 1024;

/// Device and inode of MODEL_DIR, if it is there and can be one.
pub(super) fn model_dir(report: &mut Report, model_dir: &Path) -> Option<(u64, u64)> {
    let dir = model_dir.display();
    if let Some(why) = folders::unfit(model_dir) {
        report.bad("MODEL_DIR", why);
        return None;
    }
    let found = match std::fs::metadata(model_dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            match may_be_made(model_dir) {
                Ok(()) => report.note("MODEL_DIR", format!("{dir} is not there yet: the first program makes it")),
                Err(why) => report.bad("MODEL_DIR", format!("{dir} is not there and cannot be made: {why}")),
            }
            return None;
        }
        Ok(found) if !found.is_dir() => Err("it is not a folder: remove it, or choose another one".to_string()),
        Ok(found) => {
            access(model_dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).map(|()| found).map_err(|e| {
                format!(
                    "read and write permission are needed: {e}: let this user write there, or choose another MODEL_DIR"
                )
            })
        }
        Err(e) => Err(e.to_string()),
    };
    let found = report.need("MODEL_DIR", found.map_err(|why| format!("{dir}: {why}")))?;
    let keeps = Root::open(model_dir).map_err(|e| NotStarted::Reason(e.to_string()));
    if let Err(NotStarted::Reason(why)) = keeps.and_then(|root| folders::probed(&root, model_dir)) {
        report.bad("MODEL_DIR", why);
        return None;
    }
    // The magic number's width differs between platforms; 32 bits of it count.
    let kind = statfs(model_dir).map_or(0, |fs| fs.f_type as u64 & 0xffff_ffff);
    if kind == FUSE_SUPER_MAGIC {
        report.note("MODEL_DIR", format!("{dir} is on a FUSE mount: give the model a folder on a local disk"));
    } else {
        report.good("MODEL_DIR", dir.to_string());
    }
    Some((found.dev(), found.ino()))
}

fn may_be_made(path: &Path) -> Result<(), String> {
    let above = nearest(path);
    if !above.is_dir() {
        return Err(format!("{} is not a folder", above.display()));
    }
    access(above, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|e| format!("{}: {e}: let this user write there, or choose another place", above.display()))
}

pub(super) fn run_folder(report: &mut Report, settings: &Settings, id: (u64, u64)) {
    let looked = socket::may_accept().map_err(NotStarted::Reason).and_then(|()| socket::look(settings, id));
    let paths = match looked {
        Ok(paths) => paths,
        Err(NotStarted::Reason(why)) => return report.bad_for_a_start("run folder", why),
        Err(NotStarted::OtherEngine) => return,
    };
    let place = String::from_utf8_lossy(paths.socket.as_bytes()).into_owned();
    let is_last =
        ["/tmp/", "/dev/shm/"].iter().any(|above| place.starts_with(above)) || place.contains("/.oss-connector-");
    if !paths.is_given && is_last {
        return report.note("run folder", format!("{place}, since neither /run/oss-connector nor XDG_RUNTIME_DIR can be used here: programs in other containers find this engine only by a CONNECTOR_UDS_PATH on a volume that they share"));
    }
    report.good("run folder", place);
}

/// Whether log and audit file can be written: else they go to the run folder.
pub(super) fn files(report: &mut Report, config: &Config) {
    for (what, key, output) in [("log", "logPath", &config.log_path), ("audit", "auditPath", &config.audit_path)] {
        let Output::File(path) = output else {
            report.good(what, format!("{output} of the program that starts the engine"));
            continue;
        };
        match may_be_written(path) {
            Ok(()) if is_full(path) => report.note(
                what,
                format!("{}: its disk is full, so lines are lost: make room there, or set {key} to a file on another one", path.display()),
            ),
            Ok(()) => report.good(what, path.display().to_string()),
            Err(why) => report.note(
                what,
                format!("{} cannot be written: {why}; it goes beside the engine's lock in the run folder: set {key} to a file that this user may write", path.display()),
            ),
        }
    }
}

/// Whether the address of `metricsListen` is free. One that is not keeps no program from starting.
pub(super) fn metrics(report: &mut Report, config: &Config) {
    let Some(address) = config.metrics_listen else { return };
    match TcpListener::bind(address) {
        Ok(_) => report.good("metrics", format!("{address} is free")),
        Err(e) => report.note(
            "metrics",
            format!("metricsListen {address}: {e}: unless it is this MODEL_DIR's engine that has it, set another port"),
        ),
    }
}

fn may_be_written(path: &Path) -> Result<(), String> {
    if !path.exists() {
        return may_be_made(path);
    }
    // As the journal opens it: a FIFO without a reader is an error.
    let opened = OpenOptions::new().append(true).custom_flags(libc::O_NONBLOCK).open(path);
    opened.map(drop).map_err(|e| e.to_string())
}

/// Whether the disk of a log has no room, so that lines are lost.
fn is_full(path: &Path) -> bool {
    statvfs(nearest(path)).is_ok_and(|fs| fs.f_blocks > 0 && fs.f_bavail == 0)
}

/// Variables of proxies, which other programs obey.
pub(super) fn proxies(report: &mut Report) {
    let names = ["http_proxy", "https_proxy", "all_proxy"].map(|name| [name.to_string(), name.to_ascii_uppercase()]);
    let set: Vec<String> = names
        .concat()
        .into_iter()
        .filter(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
        .collect();
    if !set.is_empty() {
        let (names, verb) = (set.join(", "), if set.len() == 1 { "is" } else { "are" });
        report.note(
            "proxy",
            format!("{names} {verb} set and ignored: the engine connects to OSS by itself, and needs a route to it"),
        );
    }
}

/// The budget of an engine that would start now; `None` where it would not.
pub(super) fn memory(report: &mut Report, config: &Config, settings: Option<&Settings>) -> Option<u64> {
    let (budget, warning) = assemble::budget(config);
    let is_cut = warning.is_some();
    if let Some(warning) = warning {
        report.note("memory", warning);
    }
    if let Some(why) = memory::too_small(config, &budget, is_cut) {
        report.bad_for_a_start("memory", why);
        return None;
    }
    let limit = format!("{} for cached objects", view::human(budget.limit()));
    if budget.limit() < BUDGET_BYTES_MIN {
        report
            .note("memory", format!("{limit}: larger models can be read but not mapped (memoryLimit, cgroup limits)"));
    } else {
        report.good("memory", limit);
    }
    let kind = settings.and_then(|settings| settings.pages).map(|pages| match pages {
        ossc_conf::PageKind::Tmpfs => PageKind::HugeTmpfs,
        ossc_conf::PageKind::Memfd => PageKind::Memfd,
    });
    let store = Store::create(kind, budget.limit());
    match store.kind() {
        PageKind::HugeTmpfs => report.good("pages", format!("2 MiB: {}", store.why())),
        PageKind::Memfd => report.note(
            "pages",
            format!(
                "4 KiB ({}): a load costs about twice the CPU; run the engine as root, or allow user namespaces, or write `advise` to /sys/kernel/mm/transparent_hugepage/shmem_enabled",
                store.why()
            ),
        ),
    }
    Some(budget.limit())
}

pub(super) fn limits(report: &mut Report) {
    let hard = |resource| getrlimit(resource).maximum;
    let (files, locked) = (hard(Resource::Nofile), hard(Resource::Memlock));
    let word = |limit: Option<u64>| limit.map_or("unlimited".to_string(), |limit| limit.to_string());
    let text = format!("{} descriptors, {} bytes of locked memory (rings)", word(files), word(locked));
    if files.is_some_and(|files| files < DESCRIPTORS_MIN) {
        report.note("limits", format!("{text}: raise RLIMIT_NOFILE to {DESCRIPTORS_MIN} or more"));
    } else {
        report.good("limits", text);
    }
}
