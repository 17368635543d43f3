//! `ossc status`: what the engine of a MODEL_DIR has loaded and is loading, read from the shared region.
//!
//! Called by `main`. It attaches like any client and changes nothing.

use clap::Args;
use ossc_cache::region::{Kind, Object, Region, state};
use ossc_cache::rundir::{self, Place};
use ossc_cache::wire::{self, Ask};
use serde_json::json;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long the engine may take to answer, in milliseconds.
const ANSWER_MS: u64 = 5000;

#[derive(Args)]
pub struct Options {
    /// The model folder.
    #[arg(long, env = "MODEL_DIR")]
    model_dir: PathBuf,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Show it again every second until everything is loaded.
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

/// Runs the command.
pub fn main(options: &Options) -> ExitCode {
    let region = match attach(options) {
        Ok(region) => region,
        Err(why) => {
            eprintln!("ossc status: {why}");
            return ExitCode::FAILURE;
        }
    };
    loop {
        let text = if options.json { format!("{}\n", as_json(&region)) } else { as_table(&region) };
        // A reader that has seen enough (`| head`) ends it.
        let shown = std::io::stdout().lock().write_all(text.as_bytes());
        if shown.is_err() || !options.watch || !objects(&region).any(|(_, object)| is_under_way(&region, object)) {
            return ExitCode::SUCCESS;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn attach(options: &Options) -> Result<Region, String> {
    let dir = options.model_dir.display();
    let id = std::fs::metadata(&options.model_dir).map_err(|e| format!("MODEL_DIR {dir}: {e}"))?;
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let (socket, runtime_dir) = (variable("CONNECTOR_UDS_PATH"), variable("XDG_RUNTIME_DIR"));
    let place = Place {
        socket: socket.as_ref().map(|s| s.as_bytes()),
        runtime_dir: runtime_dir.as_ref().map(|s| s.as_bytes()),
    };
    let paths = rundir::paths(&place, id.dev(), id.ino()).ok_or("no run folder can be used")?;
    let none = || format!("no engine runs for {dir}: start a program with LD_PRELOAD and ENABLE_CONNECTOR=1");
    let packet = wire::ask(&paths.socket, Ask::Attach, b"", ANSWER_MS).map_err(|errno| match errno.0 {
        libc::ENOENT | libc::ECONNREFUSED => none(),
        libc::ENOTSUP => "the running engine is of another version".into(),
        code => format!("the engine did not answer: {}", std::io::Error::from_raw_os_error(code)),
    })?;
    Region::map(packet.fds[0])
        .map_err(|e| format!("cannot map the engine's region: {}", std::io::Error::from_raw_os_error(e.0)))
}

fn objects(region: &Region) -> impl Iterator<Item = (u32, &Object)> {
    (0..region.objects_len())
        .filter_map(|slot| Some((slot, region.object(slot)?)))
        .filter(|(_, object)| object.kind() != Kind::Folder)
}

fn ready_bytes(region: &Region, object: &Object) -> u64 {
    match object.kind() {
        Kind::Large => (0..object.parts)
            .filter(|index| region.part(object, *index).is_ready())
            .map(|index| object.part_range(index))
            .map(|r| r.end - r.start)
            .sum(),
        _ if matches!(object.state(), state::PLACED | state::GONE) => object.size,
        _ => 0,
    }
}

/// Some of it is here or on its way, and some is not.
fn is_under_way(region: &Region, object: &Object) -> bool {
    let begun = || (0..object.parts).any(|index| region.part(object, index).state() != ossc_cache::part::EMPTY);
    object.state() == state::COMING || object.state() == state::LOADING && begun()
}

fn word(region: &Region, object: &Object) -> &'static str {
    match object.state() {
        state::COMING => "coming",
        state::LOADING if !is_under_way(region, object) => "idle",
        state::PLACED | state::GONE => "file",
        state::LOADING => "loading",
        state::VERIFIED => "verified",
        state::FAILED => "failed",
        _ => "?",
    }
}

fn as_json(region: &Region) -> serde_json::Value {
    let header = region.header();
    let list: Vec<_> = objects(region)
        .map(|(_, object)| json!({"name": region.name(object), "bytes": object.size, "ready_bytes": ready_bytes(region, object), "state": word(region, object), "etag": object.etag()}))
        .collect();
    json!({
        "engine_pid": header.engine_pid.load(Ordering::Acquire),
        "model_dir": String::from_utf8_lossy(region.model_dir()),
        "started": header.started_secs.load(Ordering::Acquire),
        "origin_bytes": header.origin_bytes.load(Ordering::Relaxed),
        "origin_requests": header.origin_requests.load(Ordering::Relaxed),
        "origin_retries": header.origin_retries.load(Ordering::Relaxed),
        "large_bytes": header.large_bytes.load(Ordering::Relaxed),
        "ready_bytes": header.ready_bytes.load(Ordering::Relaxed),
        "objects": list,
    })
}

fn as_table(region: &Region) -> String {
    let header = region.header();
    let mut text = format!(
        "engine {} for {}\n",
        header.engine_pid.load(Ordering::Acquire),
        String::from_utf8_lossy(region.model_dir())
    );
    let small = objects(region).filter(|(_, object)| object.kind() == Kind::Small);
    let (count, bytes) = small.fold((0, 0), |(count, bytes), (_, object)| (count + 1, bytes + object.size));
    for (_, object) in
        objects(region).filter(|(_, object)| object.kind() == Kind::Large || object.state() == state::FAILED)
    {
        let ready = ready_bytes(region, object);
        let share = if object.size == 0 { 100.0 } else { ready as f64 * 100.0 / object.size as f64 };
        text += &format!(
            "{share:5.1} %  {:>9}  {:<8}  {}\n",
            human(object.size),
            word(region, object),
            region.name(object)
        );
    }
    text + &format!(
        "{count} small objects of {} are files\nfrom the origin: {} in {} requests, {} retries\n",
        human(bytes),
        human(header.origin_bytes.load(Ordering::Relaxed)),
        header.origin_requests.load(Ordering::Relaxed),
        header.origin_retries.load(Ordering::Relaxed)
    )
}

fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4) as usize;
    if power == 0 {
        format!("{bytes} B")
    } else {
        format!("{:.1} {}", bytes as f64 / (1u64 << (10 * power)) as f64, UNITS[power])
    }
}
