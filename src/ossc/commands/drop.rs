//! `ossc drop [FILES]`: gives the memory back of what is loaded and not in use by a program, as if it had expired.
//!
//! Called by `main`. The engine does it, and looks at each object as for expireTimeSec; who reads is not disturbed. What is
//! given back is fetched again when a program wants it.

use crate::commands::view::{Which, human};
use crate::commands::{named, output};
use clap::Args;
use ossc_net::error::shown;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// The model has no such file that is served from memory.
const UNKNOWN: u8 = 2;

/// Options of `ossc drop`.
#[derive(Args)]
#[command(
    after_help = "What a program has open or mapped stays, and what is being fetched. Small objects are files and take no \
    memory of the engine. Exit status: 0, also where nothing was to be given back; 1 no engine answers, or the answer cannot \
    be printed; 2 a FILE is no object that is served from memory, nor a folder with one.\n\n\
    Examples:\n  ossc drop\n  ossc drop --model-dir /models qwen/Qwen3-8B\n  ossc drop --json | jq .bytes"
)]
pub struct DropOptions {
    #[command(flatten)]
    which: Which,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
    /// Files and folders below MODEL_DIR; all of it without any.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Runs the command.
pub fn main(options: &DropOptions) -> ExitCode {
    let paths = match named::all_below(&options.which.model_dir, &options.files) {
        Ok(paths) => paths,
        Err(why) => {
            output::tell(&format!("ossc drop: {why}"));
            return ExitCode::from(UNKNOWN);
        }
    };
    let mut given = Given::default();
    for path in &paths {
        match options.which.give_back(path) {
            Ok(answer) => given.add(path, &answer),
            Err(why) => {
                output::tell(&format!("ossc drop: {why}"));
                return ExitCode::FAILURE;
            }
        }
    }
    let printed =
        output::only("drop", &if options.json { output::document(&given.as_json()) } else { given.as_text() });
    for path in &given.unknown {
        output::tell(&format!("ossc drop: {path}: no object that is served from memory, nor a folder with one"));
    }
    if printed == ExitCode::SUCCESS && !given.unknown.is_empty() { ExitCode::from(UNKNOWN) } else { printed }
}

/// The answers together.
#[derive(Default)]
struct Given {
    objects: u64,
    bytes: u64,
    kept: Vec<Value>,
    unknown: Vec<String>,
}

impl Given {
    fn add(&mut self, path: &str, answer: &Value) {
        let number = |name: &str| answer[name].as_u64().unwrap_or(0);
        self.objects += number("objects");
        self.bytes += number("bytes");
        self.kept.extend(answer["kept"].as_array().into_iter().flatten().cloned());
        if number("named") == 0 && !path.is_empty() {
            self.unknown.push(path.to_string());
        }
    }

    fn as_json(&self) -> Value {
        json!({"objects": self.objects, "bytes": self.bytes, "kept": self.kept, "unknown": self.unknown})
    }

    fn as_text(&self) -> String {
        let line = |one: &Value| {
            let (name, bytes) = (one["name"].as_str().unwrap_or_default(), one["bytes"].as_u64().unwrap_or(0));
            format!("kept, in use or being fetched: {:>9}  {}\n", human(bytes), shown(name))
        };
        let kept: String = self.kept.iter().map(line).collect();
        format!("{kept}given back: {} of {} objects\n", human(self.bytes), self.objects)
    }
}
