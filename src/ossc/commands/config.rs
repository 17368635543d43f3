//! `ossc config`: the default file, the table of all settings, what is in force here and where each value comes from, and
//! whether a file can be used.
//!
//! Called by `main`. It changes nothing, and prints no secret.

use crate::commands::output;
use clap::Args;
use ossc_conf::{Config, DEFAULT_PATH};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `ossc config`.
#[derive(Args)]
#[command(after_help = "Exit status: 0; 1 if the file cannot be used, with the place and the reason on stderr.\n\n\
    Examples:\n  ossc config > config.json\n  ossc config --effective\n  ossc config --check config.json")]
pub struct ConfigOptions {
    /// The table of all keys and variables, as Markdown.
    #[arg(long, conflicts_with_all = ["effective", "check"])]
    markdown: bool,
    /// What an engine started here would use: each key and variable with its value and where that comes from.
    #[arg(long, conflicts_with = "check")]
    effective: bool,
    /// Read this file as an engine would, and say what it would refuse or ignore.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// JSON instead of text, of `--effective`.
    #[arg(long, requires = "effective")]
    json: bool,
}

/// Runs the command.
pub fn main(options: &ConfigOptions) -> ExitCode {
    if let Some(file) = &options.check {
        return check(file);
    }
    if options.effective {
        return effective(options.json);
    }
    let text = if options.markdown { ossc_conf::markdown() } else { ossc_conf::default_file() };
    output::only("config", &text)
}

fn check(file: &std::path::Path) -> ExitCode {
    match Config::load(file, true) {
        Ok((_, warnings)) => {
            warnings.iter().for_each(|warning| output::tell(&format!("ossc config: {}: {warning}", file.display())));
            output::only("config", &format!("{}: can be used\n", file.display()))
        }
        Err(reason) => {
            output::tell(&format!("ossc config: {reason}"));
            ExitCode::FAILURE
        }
    }
}

fn effective(as_json: bool) -> ExitCode {
    let own = std::env::var_os("OSSC_CONFIG").filter(|path| !path.is_empty());
    let file = own.as_ref().map_or_else(|| PathBuf::from(DEFAULT_PATH), PathBuf::from);
    let keys = match ossc_conf::effective(&file, own.is_some()) {
        Ok(keys) => keys,
        Err(reason) => {
            output::tell(&format!("ossc config: {reason}"));
            return ExitCode::FAILURE;
        }
    };
    let variables = ossc_conf::variables(|name| std::env::var(name).ok());
    if as_json {
        let keys: serde_json::Map<String, Value> =
            keys.iter().map(|key| (key.path.to_string(), json!({"value": key.value, "source": key.source}))).collect();
        let variables: serde_json::Map<String, Value> =
            variables.iter().map(|(name, value)| (name.to_string(), json!(value))).collect();
        let found = json!({"file": file.display().to_string(), "keys": keys, "variables": variables});
        return output::only("config", &output::document(&found));
    }
    let mut text = String::new();
    for key in &keys {
        text += &format!("{:<28} {:<44} {}\n", key.path, key.value.to_string(), key.source);
    }
    for (name, value) in variables {
        text += &format!("{name:<28} {:<44} environment\n", value.as_deref().unwrap_or("not set"));
    }
    output::only("config", &text)
}
