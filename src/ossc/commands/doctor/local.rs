//! What `ossc doctor` sees of this machine: the library, MODEL_DIR, the run folder, memory and its pages, limits.
//!
//! Called by `doctor`, before it has a second thread (the memory's helper is a fork).

use super::Report;
use crate::commands::run;
use crate::commands::view;
use crate::process::{folders, memory};
use ossc_cache::rundir::{self, RunDirSettings};
use ossc_conf::{Config, Settings};
use ossc_store::budget::Budget;
use ossc_store::pages::{PageKind, Store};
use rustix::fs::{Access, access, statfs};
use rustix::process::{Resource, getrlimit};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

/// statfs(2): file systems that are reached over FUSE, where an OSS mount may lie.
const FUSE_SUPER_MAGIC: u64 = 0x6573_5546;
/// Less is enough for hardly any model.
const BUDGET_BYTES_MIN: u64 = 1 << 30;
/// Connections and the objects of a usual load: half of them are for memory files.
const DESCRIPTORS_MIN: u64 = 1024;

pub(super) fn library(report: &mut Report) {
    let missing = "libossc_preload.so is neither beside ossc nor in ../lib: install it there";
    if let Some(path) = report.need("library", run::library().ok_or(missing)) {
        report.good("library", format!("{}, version {}", path.display(), env!("CARGO_PKG_VERSION")));
    }
}

pub(super) fn model_dir(report: &mut Report, settings: &Settings) {
    if let Some(why) = folders::unfit(&settings.model_dir) {
        return report.bad("MODEL_DIR", why);
    }
    let dir = settings.model_dir.display();
    let found = match std::fs::metadata(&settings.model_dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return report.note("MODEL_DIR", format!("{dir} is not there yet: the first program makes it"));
        }
        Ok(found) if !found.is_dir() => Err("it is not a folder".to_string()),
        Ok(found) => access(&settings.model_dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
            .map(|()| found)
            .map_err(|e| format!("read and write permission are needed: {e}")),
        Err(e) => Err(e.to_string()),
    };
    let Some(found) = report.need("MODEL_DIR", found.map_err(|why| format!("{dir}: {why}"))) else { return };
    // The magic number's width differs between platforms; 32 bits of it count.
    let kind = statfs(&settings.model_dir).map_or(0, |fs| fs.f_type as u64 & 0xffff_ffff);
    if kind == FUSE_SUPER_MAGIC {
        report.note("MODEL_DIR", format!("{dir} is on a FUSE mount: give the model a folder on a local disk"));
    } else {
        report.good("MODEL_DIR", dir.to_string());
    }
    run_folder(report, settings, (found.dev(), found.ino()));
}

fn run_folder(report: &mut Report, settings: &Settings, (dev, ino): (u64, u64)) {
    let place = RunDirSettings {
        socket: settings.uds_path.as_ref().map(|path| path.as_os_str().as_bytes()),
        runtime_dir: settings.runtime_dir.as_ref().map(|path| path.as_os_str().as_bytes()),
        model_dir: settings.model_dir.as_os_str().as_bytes(),
    };
    let Some(paths) = report.need("run folder", rundir::paths(&place, dev, ino).ok_or(rundir::NO_FOLDER)) else {
        return;
    };
    let socket = String::from_utf8_lossy(paths.socket.as_bytes()).into_owned();
    let runs = paths.lock.as_cstr().is_some_and(ossc_cache::sys::is_locked);
    report.good("run folder", format!("{socket}{}", if runs { ", an engine runs" } else { "" }));
}

pub(super) fn memory(report: &mut Report, config: &Config, settings: Option<&Settings>) {
    let (budget, warning) = config.memory_limit.map_or_else(|| (Budget::of_this_process(), None), Budget::of_limit);
    let is_cut = warning.is_some();
    if let Some(warning) = warning {
        report.note("memory", warning);
    }
    if let Some(why) = memory::too_small(config, &budget, is_cut) {
        return report.bad("memory", why);
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
                "4 KiB ({}): a load costs about twice the CPU; run the engine as root, or allow user namespaces",
                store.why()
            ),
        ),
    }
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
