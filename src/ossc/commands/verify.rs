//! `ossc verify [FILES]`: the bytes of a folder, and those that an engine has in memory for it, against the CRC-64 that OSS
//! has of each object.
//!
//! Called by `main`. It lists the bucket and asks for each object's facts, reads files and memory, and changes nothing. It is
//! no client of the engine; what it reads of the memory stays meanwhile. It asks OSS for no object's bytes.

use crate::commands::bar::Bar;
use crate::commands::bucket::Bucket;
use crate::commands::pace::Pace;
use crate::commands::signals::{self, Signals};
use crate::commands::view::{Which, human};
use crate::commands::{named, output};
use crate::lock::lock;
use crate::mirror::{below, made};
use crate::process::dropping::is_in;
use clap::Args;
use ossc_cache::region::{RecordKind, Region, state};
use ossc_cache::sys;
use ossc_conf::Settings;
use ossc_net::crc;
use ossc_net::error::shown;
use ossc_net::list::ObjectEntry;
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Objects that are compared at a time.
const AT_ONCE: usize = 8;
/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;
const PAUSE: Duration = Duration::from_millis(250);
/// An object's bytes are not those of the bucket.
const DIFFERS: u8 = 2;
/// An object could not be compared.
const UNKNOWN: u8 = 3;

/// Options of `ossc verify`.
#[derive(Args)]
#[command(
    after_help = "Any folder can be compared, also one that another tool has filled. Exit status: 0 all objects are here and \
    agree; 1 the bucket cannot be asked, the answer not be printed, a FILE does not lie in MODEL_DIR, or the \
    engine there serves another OSS_PATH; 2 an object differs; 3 none differs, but some could \
    not be compared: not loaded, not readable, or OSS has no CRC-64 of them.\n\n\
    Examples:\n  ossc verify\n  ossc verify --model-dir /models/qwen model-00001-of-00005.safetensors\n  \
    ossc verify --json | jq '.objects[] | select(.result != \"ok\")'"
)]
pub struct VerifyOptions {
    /// The folder, as MODEL_DIR.
    #[arg(long, env = "MODEL_DIR", value_name = "FOLDER")]
    model_dir: PathBuf,
    /// What it mirrors, as OSS_PATH.
    #[arg(long, value_name = "oss://BUCKET/PATH/")]
    oss_path: Option<String>,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
    /// Files and folders below MODEL_DIR; all that the bucket has without any.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What was found of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Agreement {
    Ok,
    Differs(String),
    /// OSS reports none.
    NoCrc,
    NotLoaded,
    /// OSS or the file cannot be read.
    Unreadable(String),
}

impl Agreement {
    fn word(&self) -> &'static str {
        match self {
            Agreement::Ok => "ok",
            Agreement::Differs(_) => "differs",
            Agreement::NoCrc => "no CRC",
            Agreement::NotLoaded => "not loaded",
            Agreement::Unreadable(_) => "unreadable",
        }
    }

    fn why(&self) -> &str {
        match self {
            Agreement::Differs(why) | Agreement::Unreadable(why) => why,
            _ => "",
        }
    }
}

/// Runs the command.
pub fn main(options: &VerifyOptions) -> ExitCode {
    match verified(options) {
        Ok(found) => told(options.json, &found),
        Err(why) => {
            output::tell(&format!("ossc verify: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn told(as_json: bool, found: &[(String, u64, Agreement)]) -> ExitCode {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    found.iter().for_each(|(.., found)| *counts.entry(found.word()).or_default() += 1);
    let text = if as_json {
        let one = |(name, bytes, found): &(String, u64, Agreement)| json!({"name": name, "bytes": bytes, "result": found.word(), "reason": (!found.why().is_empty()).then(|| found.why())});
        let objects: Vec<Value> = found.iter().map(one).collect();
        output::document(
            &json!({"agrees": found.iter().all(|(.., found)| *found == Agreement::Ok), "counts": counts, "objects": objects}),
        )
    } else {
        let line = |(name, bytes, found): &(String, u64, Agreement)| {
            let why = if found.why().is_empty() { String::new() } else { format!(": {}", found.why()) };
            format!("{:<10}  {:>9}  {}{why}\n", found.word(), human(*bytes), shown(name))
        };
        let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
        format!("{}{} objects: {}\n", found.iter().map(line).collect::<String>(), found.len(), counts.join(", "))
    };
    let printed = output::only("verify", &text);
    let is = |word: &str| counts.contains_key(word);
    if printed != ExitCode::SUCCESS {
        printed
    } else if is("differs") {
        ExitCode::from(DIFFERS)
    } else if counts.keys().any(|word| *word != "ok") {
        ExitCode::from(UNKNOWN)
    } else {
        printed
    }
}

fn verified(options: &VerifyOptions) -> Result<Vec<(String, u64, Agreement)>, String> {
    let bucket = Bucket::of_environment(Some(&options.model_dir), options.oss_path.as_deref())?;
    let named = named::all_below(&options.model_dir, &options.files)?;
    let memory = LoadedObjects::of(&options.model_dir, &bucket.settings)?;
    let objects = listed(&bucket, &named)?;
    let total: u64 = objects.iter().map(|(_, object)| object.size).sum();
    let compare = Compare { bucket: &bucket, model_dir: &options.model_dir, memory, bytes: AtomicU64::new(0) };
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    // Before the threads, which take none of them.
    let bar = Bar::on_stderr("verifying");
    let signals = bar.is_some().then(|| Signals::take_over(&signals::ENDING));
    std::thread::scope(|scope| {
        let work = || {
            while let Some((path, object)) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
                let one = compare.object(path, object);
                lock(&found).insert(path.clone(), (object.size, one));
            }
        };
        let threads: Vec<_> = (0..AT_ONCE.min(objects.len())).map(|_| scope.spawn(work)).collect();
        let (mut pace, is_over) = (Pace::default(), || threads.iter().all(|thread| thread.is_finished()));
        while let (Some(bar), Some(signals), false) = (&bar, &signals, is_over()) {
            let now = compare.bytes.load(Ordering::Relaxed);
            let rate = pace.rate(sys::now_us(), now);
            bar.draw(now, total, format!("{} of {}  {:.3} GB/s", human(now), human(total), rate / 1e9));
            if let Some(caught) = signals.next(PAUSE, Some(bar)) {
                bar.close();
                signals::end_by(caught.number);
            }
        }
    });
    bar.iter().for_each(Bar::close);
    let mut found = std::mem::take(&mut *lock(&found));
    let is_there = |name: &String| name.is_empty() || objects.iter().any(|(path, _)| is_in(path, name));
    for name in named.into_iter().filter(|name| !is_there(name)) {
        found.insert(name, (0, Agreement::Differs("OSS has no such object".into())));
    }
    Ok(found.into_iter().map(|(path, (bytes, found))| (path, bytes, found)).collect())
}

/// What the bucket has of these files and folders.
fn listed(bucket: &Bucket, named: &[String]) -> Result<Vec<(String, ObjectEntry)>, String> {
    let is_named = |path: &str| named.iter().any(|name| is_in(path, name));
    let leads_there = |path: &str| is_named(path) || named.iter().any(|name| is_in(name, path));
    let root = bucket.mirror.rehearse_listing().map_err(|failure| failure.to_string())?;
    let (mut objects, mut queue) = (Vec::new(), VecDeque::from([(String::new(), root)]));
    while let Some((folder, level)) = queue.pop_front() {
        let paths = level.objects.into_iter().map(|(name, object)| (below(&folder, &name), object));
        objects.extend(paths.filter(|(path, _)| is_named(path)));
        for path in level.folders.iter().map(|name| below(&folder, name)).filter(|path| leads_there(path)) {
            let inside = bucket.mirror.rehearse_folder(&path).map_err(|failure| failure.to_string())?;
            queue.extend(inside.map(|level| (path, level)));
        }
    }
    Ok(objects)
}

struct Compare<'a> {
    bucket: &'a Bucket,
    model_dir: &'a Path,
    memory: Option<LoadedObjects>,
    /// Bytes of objects that are done with, or read of them.
    bytes: AtomicU64,
}

impl Compare<'_> {
    fn object(&self, path: &str, object: &ObjectEntry) -> Agreement {
        let read = Cell::new(0);
        let found = self.looked_at((path, object), &read).unwrap_or_else(Agreement::Unreadable);
        // What was not read counts as done.
        self.bytes.fetch_add(object.size.saturating_sub(read.get()), Ordering::Relaxed);
        found
    }

    /// `read` counts the bytes that are read of it.
    fn looked_at(&self, (path, object): (&str, &ObjectEntry), read: &Cell<u64>) -> Result<Agreement, String> {
        let own = match self.own_crc((path, object), read)? {
            Ok(own) => own,
            Err(found) => return Ok(found),
        };
        let (etag, reported) = self.bucket.mirror.rehearse_facts(&object.key).map_err(|e| e.to_string())?;
        Ok(match reported {
            _ if etag.is_some_and(|etag| etag != object.etag) => {
                Agreement::Unreadable("OSS has another version by now: verify once more".into())
            }
            None => Agreement::NoCrc,
            Some(reported) if reported == own => Agreement::Ok,
            Some(reported) => {
                Agreement::Differs(format!("the bytes here have CRC-64 {own}, and OSS reports {reported}"))
            }
        })
    }

    /// The CRC-64 of the bytes that are here, or why there is none.
    fn own_crc(
        &self,
        (path, object): (&str, &ObjectEntry),
        read: &Cell<u64>,
    ) -> Result<Result<u64, Agreement>, String> {
        let place = self.model_dir.join(path);
        let lies = match std::fs::metadata(&place) {
            Ok(lies) if lies.is_file() => lies,
            Ok(_) => return Ok(Err(Agreement::Differs("what lies at its place is no file".into()))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Err(Agreement::NotLoaded)),
            Err(e) => return Err(e.to_string()),
        };
        if lies.len() == 0 && object.size > 0 && (made::is_stand_in(&place) || self.has_record(path, &lies)) {
            return Ok(self.crc_of_memory((path, object), read)?.ok_or(Agreement::NotLoaded));
        }
        if lies.len() != object.size {
            let (own, theirs) = (lies.len(), object.size);
            return Ok(Err(Agreement::Differs(format!("the file has {own} bytes, and the object {theirs}"))));
        }
        let file = File::open(&place).map_err(|e| e.to_string())?;
        self.crc_of(&file, object.size, read).map(Ok)
    }

    /// The engine of this folder has made a file, also where the file system keeps no mark.
    fn has_record(&self, path: &str, lies: &std::fs::Metadata) -> bool {
        let object = self.memory.as_ref().and_then(|memory| memory.region.object(*memory.slots.get(path)?));
        object.is_some_and(|object| (object.dev(), object.ino()) == (lies.dev(), lies.ino()))
    }

    /// Of what the engine has in memory; `None` where that is not all of it.
    fn crc_of_memory(&self, (path, object): (&str, &ObjectEntry), read: &Cell<u64>) -> Result<Option<u64>, String> {
        let Some(memory) = &self.memory else { return Ok(None) };
        let Some((file, seen)) = memory.open(path, object)? else { return Ok(None) };
        let sum = self.crc_of(&file, object.size, read)?;
        // Nothing of it is given back while it is open; what was given back before is not all there.
        Ok(memory.is_whole(seen).then_some(sum))
    }

    fn crc_of(&self, file: &File, size: u64, read: &Cell<u64>) -> Result<u64, String> {
        let (mut sum, mut bytes, mut at) = (crc::Crc::new(), vec![0; CHUNK], 0);
        while at < size {
            let len = CHUNK.min((size - at) as usize);
            file.read_exact_at(&mut bytes[..len], at).map_err(|e| e.to_string())?;
            sum.update(&bytes[..len]);
            at += len as u64;
            read.set(at);
            self.bytes.fetch_add(len as u64, Ordering::Relaxed);
        }
        Ok(sum.value())
    }
}

/// What the engine of this folder has in memory.
struct LoadedObjects {
    which: Which,
    region: Region,
    /// Records of large objects by their paths.
    slots: HashMap<String, u32>,
}

/// A use of a record.
#[derive(Clone, Copy)]
struct SeenObject {
    slot: u32,
    incarnation: u32,
}

impl LoadedObjects {
    /// `None` where no engine runs.
    ///
    /// # Errors
    /// It serves other objects than those that are asked for: then what lies in the folder is not theirs.
    fn of(model_dir: &Path, settings: &Settings) -> Result<Option<LoadedObjects>, String> {
        let which = Which { model_dir: model_dir.to_path_buf() };
        let Ok((region, report)) = which.region().and_then(|region| Ok((region, which.report()?))) else {
            return Ok(None);
        };
        let [ours, theirs] = [
            [settings.location.to_string(), settings.endpoint.to_string()],
            ["oss_path", "endpoint"].map(|name| report[name].as_str().unwrap_or_default().to_string()),
        ];
        if ours != theirs {
            let dir = model_dir.display();
            let [path, endpoint] = theirs;
            return Err(format!(
                "MODEL_DIR {dir} is that of a running engine which serves {path} of {endpoint}, and not {} of {}: name what it serves, or another folder",
                ours[0], ours[1]
            ));
        }
        let large = |slot: &u32| {
            region.object(*slot).is_some_and(|object| {
                object.kind() == RecordKind::Large && object.state() != state::GONE && !object.is_superseded()
            })
        };
        let name = |slot: u32| Some((region.object(slot).map(|object| region.name(object))?.to_string(), slot));
        let slots = (0..region.objects_len()).filter(large).filter_map(name).collect();
        Ok(Some(LoadedObjects { which, region, slots }))
    }

    /// The memory of an object that is here as a whole.
    fn open(&self, path: &str, entry: &ObjectEntry) -> Result<Option<(File, SeenObject)>, String> {
        let Some(slot) = self.slots.get(path) else { return Ok(None) };
        let Some(object) = self.region.object(*slot) else { return Ok(None) };
        let seen = SeenObject { slot: *slot, incarnation: object.incarnation() };
        if *object.etag() != *entry.etag {
            return Err("the engine has another version than OSS: verify again when a program has used it".into());
        }
        if !self.is_whole(seen) {
            return Ok(None);
        }
        let file = self.which.memory(*slot)?;
        Ok(self.is_whole(seen).then_some((file, seen)))
    }

    fn is_whole(&self, seen: SeenObject) -> bool {
        self.region.object(seen.slot).is_some_and(|object| {
            object.lasts(seen.incarnation)
                && (0..object.parts()).all(|index| self.region.part(object, index).is_ready())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_files_or_in_folders() {
        assert!(is_in("a/b", "a") && is_in("a/b", "a/b") && is_in("a", ""));
        assert!(!is_in("ab", "a") && !is_in("a", "a/b"));
    }
}
