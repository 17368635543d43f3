//! One line of the log, as text or as a JSON object, and the time that stands before it.
//!
//! Called by the journal, for events of `tracing` and for its own lines. Both forms have the same parts: time, level,
//! message, the engine's process id, the MODEL_DIR that it serves (device and inode, as its files in the run folder are
//! named), and fields. A line never has a control character in it but its end.

use ossc_cache::utc;
use ossc_conf::LogFormat;
use serde_json::{Map, Value, json};
use std::fmt::{Debug, Write};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Device and inode of MODEL_DIR, once they are known.
static MODEL_DIR: OnceLock<String> = OnceLock::new();

/// From now on lines name this MODEL_DIR.
pub fn of_model_dir((dev, ino): (u64, u64)) {
    let _ = MODEL_DIR.set(format!("{dev}-{ino}"));
}

/// A moment as lines have it.
pub fn time(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    String::from_utf8_lossy(&utc::text(since.as_secs(), since.subsec_micros())).into_owned()
}

/// The form of lines.
#[derive(Clone, Copy)]
pub struct Form(pub LogFormat);

impl Form {
    /// A line of what an event has come to.
    pub fn line(self, at: SystemTime, body: &[u8]) -> Vec<u8> {
        let time = time(at);
        match self.0 {
            LogFormat::Text => [time.as_bytes(), b" ", body, b"\n"].concat(),
            LogFormat::Json => [b"{\"time\":\"", time.as_bytes(), b"\",", body, b"}\n"].concat(),
        }
    }

    /// What stands behind the time in a line with these words alone.
    pub fn of_words(self, level: Level, words: &str) -> Vec<u8> {
        let mut fields = Fields::new(self.0);
        fields.say(words);
        self.body(level, fields).into_bytes()
    }

    fn body(self, level: Level, fields: Fields) -> String {
        let (engine, dir) = (std::process::id(), MODEL_DIR.get());
        match fields {
            Fields::Text(text) => {
                let dir = dir.map(|dir| format!(" dir={dir}")).unwrap_or_default();
                format!("{level:>5}{} engine={engine}{dir}", one_line(text))
            }
            Fields::Json { message, others } => {
                let (level, message) = (json!(level.as_str()), json!(message));
                let mut text = format!("\"level\":{level},\"message\":{message},\"engine\":{engine}");
                if let Some(dir) = dir {
                    let _ = write!(text, ",\"dir\":{}", json!(dir));
                }
                if !others.is_empty() {
                    let _ = write!(text, ",\"fields\":{}", Value::Object(others));
                }
                without_controls(text)
            }
        }
    }
}

/// JSON in which no control character stands as it is: those from U+007F on may, and terminals obey them.
pub fn without_controls(json: String) -> String {
    if !json.contains(char::is_control) {
        return json;
    }
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c.is_control() {
            true => drop(write!(text, "\\u{:04x}", u32::from(c))),
            false => text.push(c),
        }
    }
    text
}

/// What is in names of objects or in answers of servers may be anything.
fn one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let shown = |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
    text.chars().map(shown).collect()
}

impl<S, N> FormatEvent<S, N> for Form
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> std::fmt::Result {
        let mut fields = Fields::new(self.0);
        event.record(&mut fields);
        to.write_str(&self.body(*event.metadata().level(), fields))
    }
}

/// Message and fields of an event.
enum Fields {
    Text(String),
    Json { message: String, others: Map<String, Value> },
}

impl Fields {
    fn new(format: LogFormat) -> Fields {
        match format {
            LogFormat::Text => Fields::Text(String::with_capacity(256)),
            LogFormat::Json => Fields::Json { message: String::new(), others: Map::new() },
        }
    }

    fn say(&mut self, words: &str) {
        match self {
            Fields::Text(text) => drop(write!(text, " {words}")),
            Fields::Json { message, .. } => message.push_str(words),
        }
    }

    fn add(&mut self, field: &Field, shown: &dyn Debug, value: impl FnOnce() -> Value) {
        match self {
            Fields::Text(text) => drop(write!(text, " {}={shown:?}", field.name())),
            Fields::Json { others, .. } => drop(others.insert(field.name().to_string(), value())),
        }
    }
}

const MESSAGE: &str = "message";

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            MESSAGE => self.say(value),
            _ => self.add(field, &value, || json!(value)),
        }
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, &value, || json!(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, &value, || json!(value));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, &value, || json!(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, &value, || json!(value));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            MESSAGE => self.say(&format!("{value:?}")),
            _ => self.add(field, value, || json!(format!("{value:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_same_without_control_characters() {
        let value = json!({"a\u{7f}": "x\n\u{9b}31m\u{1b}\"\\\u{e9}"});
        let text = without_controls(value.to_string());
        assert!(!text.contains(char::is_control), "{text:?}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        let form = Form(LogFormat::Json);
        let line = form.line(UNIX_EPOCH, &form.of_words(Level::WARN, "\u{85}"));
        assert!(line.strip_suffix(b"\n").is_some_and(|line| !String::from_utf8_lossy(line).contains(char::is_control)));
    }
}
