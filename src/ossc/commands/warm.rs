//! `ossc warm [FILES]`: loads a model and holds it in memory, without a program that uses it.
//!
//! Called by `main`. It is a primary like any program: it starts itself again under the library, which starts the engine,
//! and maps each file. The maps keep the bytes in memory; they end with this process. It changes no file.

use crate::commands::mapped::Mapped;
use crate::commands::progress::Progress;
use crate::commands::run;
use crate::commands::signals::{self, Signals};
use crate::commands::view::{Which, human, objects};
use crate::commands::{named, output};
use crate::lock::lock;
use clap::Args;
use ossc_cache::region::{Object, RecordKind};
use serde_json::json;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Says to the library that this is a program to serve, and to this command that it runs under the library.
const SERVED: &str = "OSSC_WARM";
/// Files that are waited for at a time.
const AT_ONCE: usize = 8;
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long one wait for a signal lasts.
const LOOK_AT_MOST: Duration = Duration::from_secs(3600);
/// Something is not there, or cannot be loaded.
const FAILED: u8 = 2;
/// All of it has no room in memory.
const TOO_MUCH: u8 = 3;

/// Options of `ossc warm`.
#[derive(Args)]
#[command(
    after_help = "It takes the variables and the configuration of a program. Exit status: 0 all was loaded, and held until \
    a signal (INT, TERM, HUP) or the end of --for; 1 no engine could be started (the reason is on stderr), or what there is \
    to say could not be printed; 2 a file is not there or could not be loaded; 3 the files are more than memoryLimit or this \
    machine has room for; 128 and the signal's number if one ended it before all was loaded.\n\n\
    Examples:\n  ossc warm                             # all of MODEL_DIR, until Ctrl-C\n  \
    ossc warm --for 600 --progress        # ten minutes, with a bar\n  \
    ossc warm qwen/Qwen3-8B               # one folder of a bucket"
)]
pub struct WarmOptions {
    /// The model folder, as MODEL_DIR.
    #[arg(long, value_name = "FOLDER")]
    model_dir: Option<PathBuf>,
    /// What it mirrors, as OSS_PATH.
    #[arg(long, value_name = "oss://BUCKET/PATH/")]
    oss_path: Option<String>,
    /// Hold it for so long after all is loaded; without it until a signal.
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    hold: Option<Duration>,
    /// A bar on standard error while it loads, if that is a terminal.
    #[arg(long)]
    progress: bool,
    /// One JSON object instead of a line when all is loaded or something has failed.
    #[arg(long)]
    json: bool,
    /// Files and folders below MODEL_DIR; all of it without any.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let secs: f64 = text.parse().map_err(|_| "not a number of seconds".to_string())?;
    Duration::try_from_secs_f64(secs).map_err(|e| e.to_string())
}

/// Runs the command.
pub fn main(options: &WarmOptions) -> ExitCode {
    let is_served = std::env::var_os(SERVED).is_some();
    match (is_served, has_library()) {
        (true, true) => served(options),
        (true, false) => {
            output::tell("ossc warm: the library was not loaded, although LD_PRELOAD names it: see `ossc doctor`");
            ExitCode::FAILURE
        }
        (false, _) => again(options),
    }
}

fn has_library() -> bool {
    let maps = std::fs::read("/proc/self/maps").unwrap_or_default();
    maps.windows(run::LIBRARY.len()).any(|name| name == run::LIBRARY.as_bytes())
}

/// The same command as a program under the library.
fn again(options: &WarmOptions) -> ExitCode {
    let (Some(library), Ok(own)) = (run::library(), std::env::current_exe()) else {
        output::tell(&format!("ossc warm: {} is neither beside ossc nor in ../lib: install it there", run::LIBRARY));
        return ExitCode::FAILURE;
    };
    let words: Vec<OsString> = std::iter::once(own.into_os_string()).chain(std::env::args_os().skip(1)).collect();
    let mut command = run::command(&library, &words);
    command.env(SERVED, "1");
    if let Some(folder) = &options.model_dir {
        command.env("MODEL_DIR", folder);
    }
    if let Some(path) = &options.oss_path {
        command.env("OSS_PATH", path);
    }
    let failed = command.exec();
    output::tell(&format!("ossc warm: {}: {failed}", words[0].to_string_lossy()));
    ExitCode::FAILURE
}

/// A file to load.
struct Wanted {
    path: PathBuf,
    bytes: u64,
}

fn served(options: &WarmOptions) -> ExitCode {
    let signals = Signals::take_over(&signals::ENDING);
    // The library has refused to start without it.
    let model_dir = std::env::var_os("MODEL_DIR").map(PathBuf::from).unwrap_or_default();
    let which = || Which { model_dir: model_dir.clone() };
    let mut load = Load { json: options.json, begin: Instant::now(), bytes: 0, files: 0, failed: Vec::new() };
    let wanted = wanted(&model_dir, &options.files, &mut load.failed);
    load.files = wanted.len();
    load.bytes = wanted.iter().map(|file| file.bytes).sum();
    if let Some(why) = too_much(&which(), &wanted) {
        output::tell(&format!("ossc warm: {why}"));
        return ExitCode::from(TOO_MUCH);
    }
    let progress = if options.progress { Progress::start(which(), "warm") } else { None };
    let ended = load_all(wanted, (&signals, progress.as_ref()), &mut load.failed);
    progress.into_iter().for_each(Progress::end);
    if let Err(number) = ended {
        output::tell(&format!("ossc warm: ended by signal {number} before all was loaded"));
        return ExitCode::from(128 + number as u8);
    }
    let told = load.tell();
    if told != ExitCode::SUCCESS {
        return told;
    }
    held(&signals, options.hold);
    ExitCode::SUCCESS
}

/// Waits for a signal, or so long. A process that was stopped, and goes on, waits on.
fn held(signals: &Signals, time: Option<Duration>) {
    let begin = Instant::now();
    loop {
        let left = time.map_or(LOOK_AT_MOST, |time| time.saturating_sub(begin.elapsed()));
        if left.is_zero() || signals.next(left.min(LOOK_AT_MOST), None).is_some() {
            return;
        }
    }
}

/// Why the files have no room in memory, if they have none. Small objects take room on the disk alone.
fn too_much(which: &Which, wanted: &[Wanted]) -> Option<String> {
    let (region, report) = (which.region().ok()?, which.report().ok()?);
    let budget = report["memory"]["budget_bytes"].as_u64()?;
    let is_large = |object: &&Object| object.kind() == RecordKind::Large;
    let large: HashSet<String> =
        objects(&region).filter(is_large).map(|object| region.name(object).to_string()).collect();
    let is_served = |file: &&Wanted| {
        let name = file.path.strip_prefix(&which.model_dir).ok().and_then(Path::to_str);
        name.is_some_and(|name| large.contains(name))
    };
    let served = wanted.iter().filter(is_served);
    let (count, bytes) = served.fold((0, 0), |(count, bytes), file| (count + 1, bytes + file.bytes));
    (bytes > budget).then(|| {
        format!(
            "{count} files of {} have no room in the {} that the engine may take: name fewer of them, or raise memoryLimit",
            human(bytes),
            human(budget)
        )
    })
}

/// What has become of it.
struct Load {
    json: bool,
    begin: Instant,
    bytes: u64,
    files: usize,
    failed: Vec<(PathBuf, std::io::Error)>,
}

impl Load {
    /// Says what there is to say.
    fn tell(&self) -> ExitCode {
        let secs = self.begin.elapsed().as_secs_f64();
        for (path, why) in &self.failed {
            output::tell(&format!("ossc warm: {}: {why}", path.display()));
        }
        let failed: Vec<_> = self
            .failed
            .iter()
            .map(|(path, why)| json!({"file": path.display().to_string(), "error": why.to_string(), "errno": why.raw_os_error()}))
            .collect();
        let text = match (self.json, failed.is_empty()) {
            (true, _) => output::document(
                &json!({"loaded": failed.is_empty(), "files": self.files, "bytes": self.bytes, "seconds": secs, "failed": failed}),
            ),
            (false, true) => format!("loaded and held: {} files of {} in {secs:.1} s\n", self.files, human(self.bytes)),
            (false, false) => String::new(),
        };
        match output::print(&text) {
            Err(e) => output::lost("warm", &e),
            Ok(_) if failed.is_empty() => ExitCode::SUCCESS,
            Ok(_) => ExitCode::from(FAILED),
        }
    }
}

/// All files of these paths, folders with what is below them: each once, however often it is named.
fn wanted(model_dir: &Path, files: &[PathBuf], failed: &mut Vec<(PathBuf, std::io::Error)>) -> Vec<Wanted> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    let mut queue: Vec<PathBuf> = Vec::new();
    for file in files.iter().rev() {
        match named::below(model_dir, file) {
            Ok(name) => queue.push(model_dir.join(name)),
            Err(why) => failed.push((file.clone(), std::io::Error::other(why))),
        }
    }
    if files.is_empty() {
        queue.push(model_dir.to_path_buf());
    }
    while let Some(path) = queue.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        match look(&path) {
            Ok(Lies::File(bytes)) => found.push(Wanted { path, bytes }),
            Ok(Lies::Folder(mut inside)) => {
                // The last one is next.
                inside.sort_by(|a, b| b.cmp(a));
                queue.append(&mut inside);
            }
            Err(why) => failed.push((path, why)),
        }
    }
    found
}

enum Lies {
    File(u64),
    Folder(Vec<PathBuf>),
}

fn look(path: &Path) -> std::io::Result<Lies> {
    let found = std::fs::metadata(path)?;
    if !found.is_dir() {
        return Ok(Lies::File(found.len()));
    }
    let inside = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
    inside.collect::<std::io::Result<_>>().map(Lies::Folder)
}

/// Maps all of them. `Err` is the number of the signal that came first.
fn load_all(
    wanted: Vec<Wanted>,
    (signals, progress): (&Signals, Option<&Progress>),
    failed: &mut Vec<(PathBuf, std::io::Error)>,
) -> Result<(), i32> {
    let work = Arc::new((wanted, AtomicUsize::new(0), Mutex::new(Vec::new())));
    let thread = |_| {
        let work = work.clone();
        let run = move || {
            let (wanted, next, failed) = &*work;
            while let Some(file) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(why) = load(file) {
                    lock(failed).push((file.path.clone(), why));
                }
            }
        };
        std::thread::Builder::new().name("ossc-warm".into()).spawn(run).ok()
    };
    let threads: Vec<_> = (0..AT_ONCE.min(work.0.len())).filter_map(thread).collect();
    if threads.is_empty() && !work.0.is_empty() {
        failed.push((PathBuf::new(), std::io::Error::other("no thread can be had")));
    }
    while threads.iter().any(|thread| !thread.is_finished()) {
        if let Some(caught) = signals.next(LOOK_AGAIN, progress.map(Progress::bar)) {
            return Err(caught.number);
        }
    }
    failed.append(&mut lock(&work.2));
    Ok(())
}

fn load(file: &Wanted) -> std::io::Result<()> {
    let opened = File::open(&file.path)?;
    if file.bytes > 0 {
        Mapped::whole(&opened, file.bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_wanted_once_however_often_it_is_named() {
        let folder = std::env::temp_dir().join(format!("ossc-warm-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("n")).unwrap();
        std::fs::write(folder.join("a"), "12").unwrap();
        std::fs::write(folder.join("n/b"), "345").unwrap();
        let (files, mut failed) = (["n/b", "a", "./n", ".", "../c", "a"].map(PathBuf::from), Vec::new());
        let found = wanted(&folder, &files, &mut failed);
        let found: Vec<(&Path, u64)> = found.iter().map(|file| (file.path.as_path(), file.bytes)).collect();
        assert_eq!(found, [(folder.join("n/b").as_path(), 3), (folder.join("a").as_path(), 2)]);
        let failed: Vec<(&Path, String)> = failed.iter().map(|(path, why)| (path.as_path(), why.to_string())).collect();
        assert_eq!(failed, [(Path::new("../c"), format!("it does not lie in MODEL_DIR {}", folder.display()))]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
