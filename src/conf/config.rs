//! The configuration file: JSON text to a typed `Config`, by the key table. Called by the engine
//! and by the commands of `ossc`.
//!
//! `parse` is pure. An unknown key is a warning, so that a file written for another version still
//! works; a value that cannot be meant is an error, so that a typing mistake is never ignored.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::json;
use crate::reason::{BAD_CONFIG, Reason};
use crate::table::{Config, KEYS, Key, Output, ValueKind};

/// Where the product looks for its file.
pub const DEFAULT_PATH: &str = "/etc/oss-connector/config.json";

/// A larger file is not a configuration file: reading stops there instead of filling memory.
const FILE_BYTES_MAX: u64 = 1 << 20;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Something the file says that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Path of the unknown key, a dot standing for nesting.
    pub key: String,
    hint: Option<String>,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown key `{}` in the configuration file has no effect", self.key.escape_debug())?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Why a text is not a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not JSON.
    #[error("line {line}, column {column}: not valid JSON: {what}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1; 0 is the end of the line before.
        column: usize,
        /// The parser's words.
        what: String,
    },
    /// A key stands twice in one object.
    #[error("line {line}: {what}")]
    Twice {
        /// Of the second one, from 1.
        line: usize,
        /// Which key.
        what: String,
    },
    /// The value has another type than the key.
    #[error("key `{key}`: {value} is not {expected}")]
    Type {
        /// Path of the key; `(root)` for the file as a whole.
        key: String,
        /// The value as JSON, shortened.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// The number or path is not allowed.
    #[error("key `{key}`: {value} is out of range; allowed: {allowed}")]
    Range {
        /// Path of the key.
        key: String,
        /// The value as JSON, shortened.
        value: String,
        /// What would be accepted.
        allowed: String,
    },
}

impl Config {
    /// Parses the text of a configuration file; absent keys keep their defaults.
    ///
    /// # Errors
    /// Text that is not JSON, or a value of the wrong type or out of range. The first one found
    /// is reported.
    pub fn parse(text: &str) -> Result<(Self, Vec<Warning>), Error> {
        // Editors of other systems begin a file with it.
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let root = json::parse(text).map_err(|error| syntax_error(&error))?;
        let Value::Object(root) = root else {
            return Err(type_error("(root)", &root, "an object".into()));
        };
        let (mut config, mut warnings) = (Self::default(), Vec::new());
        apply_object(&mut config, "", &root, &mut warnings)?;
        Ok((config, warnings))
    }

    /// Reads and parses the file at `path`. `explicit` says that the user named it (OSSC_CONFIG);
    /// only the default file may be missing, which gives the defaults.
    ///
    /// # Errors
    /// A file that is missing, unreadable, not a regular file, larger than 1 MiB, or that `parse`
    /// refuses: the product's REASON `failed to parse config file`, with path, position and why.
    pub fn load(path: &Path, explicit: bool) -> Result<(Self, Vec<Warning>), Reason> {
        let fail = |why: String| Reason::new(BAD_CONFIG, format!("{}: {why}", path.display()));
        match read(path) {
            Ok(text) => Self::parse(&text).map_err(|error| fail(error.to_string())),
            Err(Unread::Missing) if !explicit => Ok((Self::default(), Vec::new())),
            Err(Unread::Missing) => Err(fail("no such file; create it or unset OSSC_CONFIG".to_owned())),
            Err(Unread::Other(why)) => Err(fail(why)),
        }
    }
}

impl Config {
    /// `logPath` of a file that `load` refuses, if the file says it all the same: the reason is for that log.
    pub fn log_path_of_refused(path: &Path) -> Option<Output> {
        let text = read(path).ok()?;
        let root: Value = serde_json::from_str(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text)).ok()?;
        output(root.get("logPath")?.as_str()?)
    }
}

enum Unread {
    Missing,
    Other(String),
}

fn read(path: &Path) -> Result<String, Unread> {
    let unread = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Unread::Missing,
        io::ErrorKind::PermissionDenied => Unread::Other(format!(
            "cannot read it: {error}: let this user read it, or name another file by OSSC_CONFIG"
        )),
        _ => Unread::Other(format!("cannot read it: {error}")),
    };
    // Looked at before it is opened: opening a pipe would wait for a writer for ever.
    let meta = fs::metadata(path).map_err(unread)?;
    if !meta.is_file() {
        return Err(Unread::Other("not a regular file".into()));
    }
    if meta.len() > FILE_BYTES_MAX {
        return Err(Unread::Other(format!(
            "{} bytes are too many for a configuration file (at most {FILE_BYTES_MAX})",
            meta.len()
        )));
    }
    let bytes = fs::read(path).map_err(unread)?;
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Unread::Other("it is UTF-16: save it as UTF-8".into()));
    }
    String::from_utf8(bytes)
        .map_err(|error| Unread::Other(format!("byte {}: not UTF-8", error.utf8_error().valid_up_to())))
}

fn apply_object(
    config: &mut Config,
    prefix: &str,
    object: &Map<String, Value>,
    warnings: &mut Vec<Warning>,
) -> Result<(), Error> {
    for (name, value) in object {
        let path = format!("{prefix}{name}");
        // A dot inside a name is not nesting: `{"prefetch.vcpus": 4}` is an unknown key.
        let key = KEYS.iter().find(|key| key.path == path && !name.contains('.'));
        let group = format!("{path}.");
        if let Some(key) = key {
            apply(config, key, value)?;
        } else if KEYS.iter().any(|key| key.path.starts_with(&group)) {
            let Value::Object(inner) = value else {
                return Err(type_error(&path, value, "an object".into()));
            };
            apply_object(config, &group, inner, warnings)?;
        } else {
            warnings.push(Warning { hint: hint(&path), key: path });
        }
    }
    Ok(())
}

/// What an unknown key was probably meant to be.
fn hint(path: &str) -> Option<String> {
    let key = KEYS.iter().find(|key| key.path.eq_ignore_ascii_case(path))?;
    if key.path == path {
        return Some("write a dot as nesting: { \"a\": { \"b\": … } }".to_owned());
    }
    Some(format!("did you mean `{}`?", key.path))
}

fn apply(config: &mut Config, key: &Key, value: &Value) -> Result<(), Error> {
    match &key.kind {
        ValueKind::Whole { range, set, .. } => {
            let out_of_range = || range_error(key.path, value, range.text());
            let number = match value {
                // Whole numbers above i64 are numbers still, just too large.
                Value::Number(number) if number.is_u64() || number.is_i64() => {
                    number.as_i64().ok_or_else(out_of_range)?
                }
                _ => {
                    let expected = format!("a whole number ({})", range.text());
                    return Err(type_error(key.path, value, expected));
                }
            };
            if !range.holds(number) {
                return Err(out_of_range());
            }
            set(config, number);
        }
        ValueKind::Path { default, set } => {
            let Value::String(path) = value else {
                return Err(type_error(key.path, value, "a text (an absolute path)".into()));
            };
            let unset = path.is_empty() && default.is_empty();
            if !unset && !is_path(path) {
                let allowed = "the absolute path of a file".to_owned();
                return Err(range_error(key.path, value, allowed));
            }
            set(config, PathBuf::from(path));
        }
        ValueKind::Output { set, .. } => {
            let Value::String(text) = value else {
                return Err(type_error(key.path, value, "a text (an absolute path, stdout or stderr)".into()));
            };
            let output = output(text).ok_or_else(|| {
                range_error(key.path, value, "the absolute path of a file, stdout or stderr".to_owned())
            })?;
            set(config, output);
        }
        ValueKind::Listen { set, .. } => {
            let Value::String(text) = value else {
                return Err(type_error(key.path, value, "a text (PORT or ADDRESS:PORT)".into()));
            };
            let address = listen(text).ok_or_else(|| range_error(key.path, value, "PORT or ADDRESS:PORT".into()));
            set(config, if text.is_empty() { None } else { Some(address?) });
        }
        ValueKind::Switch { set, .. } => match value {
            Value::Bool(on) => set(config, *on),
            _ => return Err(type_error(key.path, value, "true or false".into())),
        },
        ValueKind::Word { words, set } => {
            let Value::String(word) = value else {
                return Err(type_error(key.path, value, format!("a text ({})", words.join(", "))));
            };
            let at = words.iter().position(|known| known == word);
            set(config, at.ok_or_else(|| range_error(key.path, value, words.join(", ")))?);
        }
    }
    Ok(())
}

/// The engine leaves the folder it was started in, so a relative path has no meaning.
fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.ends_with('/') && !text.contains('\0')
}

fn output(text: &str) -> Option<Output> {
    let output = Output::named(text);
    (!matches!(output, Output::File(_)) || is_path(text)).then_some(output)
}

/// A port is one of loopback.
fn listen(text: &str) -> Option<SocketAddr> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some((Ipv4Addr::LOCALHOST, port.parse().ok()?).into());
    }
    text.parse().ok()
}

fn syntax_error(error: &serde_json::Error) -> Error {
    let (line, column) = (error.line(), error.column());
    let words = error.to_string();
    // The parser repeats the position at the end of its words.
    let what = words.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&words).to_owned();
    if error.is_data() { Error::Twice { line, what } } else { Error::Syntax { line, column, what } }
}

fn type_error(key: &str, value: &Value, expected: String) -> Error {
    Error::Type { key: key.to_owned(), value: shown(value), expected }
}

fn range_error(key: &str, value: &Value, allowed: String) -> Error {
    Error::Range { key: key.to_owned(), value: shown(value), allowed }
}

fn shown(value: &Value) -> String {
    const CHARS_MAX: usize = 60;
    // JSON leaves some control characters as they are.
    let text = value.to_string().replace(char::is_control, "\u{fffd}");
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{LogLevel, OpenMode};
    use std::time::Duration;

    fn parse(text: &str) -> (Config, Vec<Warning>) {
        Config::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn refuse(text: &str) -> Error {
        Config::parse(text).expect_err(text)
    }

    /// A file with this key alone.
    fn only(key: &Key, value: &str) -> String {
        match key.path.split_once('.') {
            Some((group, name)) => format!(r#"{{"{group}": {{"{name}": {value}}}}}"#),
            None => format!(r#"{{"{}": {value}}}"#, key.path),
        }
    }

    /// What a field shows that holds this number: of a duration with its unit.
    fn shown_number(number: i64, unit: &str) -> String {
        format!("{number}{}", if matches!(unit, "s" | "ms") { unit } else { "" })
    }

    /// Values that are not the default, as the file has them, and what the field shows then; `None` for a name.
    fn others(key: &Key) -> Vec<(String, Option<String>)> {
        match &key.kind {
            ValueKind::Whole { default, unit, range, .. } => {
                let candidates = [3, range.min + range.multiple_of, range.max];
                let other = candidates.into_iter().find(|other| range.holds(*other) && other != default);
                let other = other.expect("a range has more numbers than its default");
                vec![(other.to_string(), Some(shown_number(other, unit)))]
            }
            ValueKind::Path { .. } => vec![(r#""/other""#.into(), Some(r#""/other""#.into()))],
            ValueKind::Output { .. } => vec![
                (r#""/other""#.into(), Some(r#"File("/other""#.into())),
                (r#""stdout""#.into(), Some("Stdout".into())),
                (r#""stderr""#.into(), Some("Stderr".into())),
            ],
            ValueKind::Listen { .. } => [("9464", "127.0.0.1:9464"), (":9", "127.0.0.1:9"), ("[::]:7", "[::]:7")]
                .map(|(text, shown)| (format!("{text:?}"), Some(shown.into())))
                .to_vec(),
            ValueKind::Switch { default, .. } => vec![((!default).to_string(), Some((!default).to_string()))],
            ValueKind::Word { words, .. } => words[1..].iter().map(|word| (format!(r#""{word}""#), None)).collect(),
        }
    }

    #[test]
    fn a_key_that_is_absent_has_its_default() {
        assert_eq!(parse("{}"), (Config::default(), vec![]));
        for key in KEYS {
            let text = only(key, &crate::docs::default_json(key));
            assert_eq!(parse(&text), (Config::default(), vec![]), "{text}");
        }
    }

    #[test]
    fn every_key_sets_its_own_field() {
        let before = Config::default().shown();
        for (index, key) in KEYS.iter().enumerate() {
            let mut seen = vec![before[index].clone()];
            for (value, expected) in others(key) {
                let text = only(key, &value);
                let (config, warnings) = parse(&text);
                assert_eq!(warnings, [], "{text}");
                let after = config.shown();
                let changed: Vec<usize> = (0..after.len()).filter(|at| after[*at] != before[*at]).collect();
                assert_eq!(changed, [index], "{text}");
                let shown = after[index].trim_start_matches("Some(").trim_end_matches(')');
                // A field may show a name for a number, as the log level does: see `edges_of_ranges`.
                if let Some(expected) = expected.filter(|_| !shown.bytes().all(|byte| byte.is_ascii_alphabetic())) {
                    assert_eq!(shown, expected, "{text}");
                }
                assert!(!seen.contains(&after[index]), "{text}: two values mean the same");
                seen.push(after[index].clone());
            }
        }
    }

    #[test]
    fn edges_of_ranges() {
        assert_eq!(parse(r#"{"expireTimeSec": -1}"#).0.expire, None);
        assert_eq!(parse(r#"{"expireTimeSec": 0}"#).0.expire, Some(Duration::ZERO));
        let levels = [LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error];
        for (number, level) in levels.into_iter().enumerate() {
            assert_eq!(parse(&format!(r#"{{"logLevel": {number}}}"#)).0.log_level, level);
        }
        assert_eq!(parse(r#"{"partBytes": 8388608}"#).0.part_bytes, 8 << 20);
        assert_eq!(parse(r#"{"tls": {"caFile": ""}}"#).0.tls_ca_file, None);
        assert_eq!(parse(r#"{"memoryLimit": 0}"#).0.memory_limit, None);
        for (word, mode) in [("auto", OpenMode::Auto), ("whole", OpenMode::Whole), ("parts", OpenMode::Parts)] {
            assert_eq!(parse(&format!(r#"{{"openMode": "{word}"}}"#)).0.open_mode, mode);
        }
        for (word, waits) in [("part", false), ("verdict", true)] {
            assert_eq!(parse(&format!(r#"{{"readsWait": "{word}"}}"#)).0.reads_wait_for_verdict, waits);
        }
    }

    #[test]
    fn values_out_of_range_name_key_value_and_range() {
        for (text, key, value, allowed) in [
            (r#"{"logLevel": 4}"#, "logLevel", "4", "0 to 3"),
            (r#"{"logLevel": -1}"#, "logLevel", "-1", "0 to 3"),
            (r#"{"expireTimeSec": -2}"#, "expireTimeSec", "-2", "-1 to 2147483647"),
            (r#"{"prefetch": {"vcpus": 0}}"#, "prefetch.vcpus", "0", "1 to 1024"),
            (r#"{"prefetch": {"workers": 1025}}"#, "prefetch.workers", "1025", "1 to 1024"),
            (r#"{"partBytes": 4097}"#, "partBytes", "4097", "4096 to 8388608, a multiple of 4096"),
            (r#"{"partBytes": 8392704}"#, "partBytes", "8392704", "4096 to 8388608, a multiple of 4096"),
            (r#"{"lingerSec": 18446744073709551615}"#, "lingerSec", "18446744073709551615", "1 to 86400"),
            (r#"{"logPath": "log"}"#, "logPath", r#""log""#, "the absolute path of a file, stdout or stderr"),
            (r#"{"logPath": ""}"#, "logPath", r#""""#, "the absolute path of a file, stdout or stderr"),
            (r#"{"auditPath": "/x/"}"#, "auditPath", r#""/x/""#, "the absolute path of a file, stdout or stderr"),
            (r#"{"tls": {"caFile": "x"}}"#, "tls.caFile", r#""x""#, "the absolute path of a file"),
            (r#"{"metricsListen": "99999"}"#, "metricsListen", r#""99999""#, "PORT or ADDRESS:PORT"),
            (r#"{"metricsListen": "host:1"}"#, "metricsListen", r#""host:1""#, "PORT or ADDRESS:PORT"),
            (r#"{"openMode": "never"}"#, "openMode", r#""never""#, "auto, whole, parts"),
            (r#"{"readsWait": "whole"}"#, "readsWait", r#""whole""#, "part, verdict"),
        ] {
            let error = refuse(text);
            let (key, value, allowed) = (key.into(), value.into(), allowed.into());
            assert_eq!(error, Error::Range { key, value, allowed }, "{text}");
        }
        assert_eq!(
            refuse(r#"{"prefetch": {"vcpus": 0}}"#).to_string(),
            "key `prefetch.vcpus`: 0 is out of range; allowed: 1 to 1024"
        );
    }

    #[test]
    fn values_of_another_type_are_refused() {
        for (text, message) in [
            (r#"{"logLevel": "1"}"#, "key `logLevel`: \"1\" is not a whole number (0 to 3)"),
            (r#"{"logLevel": 1.0}"#, "key `logLevel`: 1.0 is not a whole number (0 to 3)"),
            (r#"{"logLevel": null}"#, "key `logLevel`: null is not a whole number (0 to 3)"),
            (r#"{"lingerSec": 1e400}"#, "line 1, column 19: not valid JSON: number out of range"),
            (r#"{"logPath": 1}"#, "key `logPath`: 1 is not a text (an absolute path, stdout or stderr)"),
            (r#"{"verifyCrc": 1}"#, "key `verifyCrc`: 1 is not true or false"),
            (r#"{"prefetch": 16}"#, "key `prefetch`: 16 is not an object"),
            (r#"{"prefetch": {"vcpus": []}}"#, "key `prefetch.vcpus`: [] is not a whole number (1 to 1024)"),
            ("[1]", "key `(root)`: [1] is not an object"),
        ] {
            assert_eq!(refuse(text).to_string(), message, "{text}");
        }
        let long = format!(r#"{{"verifyCrc": "{}"}}"#, "é".repeat(5_000));
        assert!(refuse(&long).to_string().len() < 300);
    }

    #[test]
    fn syntax_errors_have_line_and_column() {
        for (text, line, column) in
            [("", 1, 0), ("{", 1, 1), ("{\n  \"a\": 1,\n}", 3, 1), ("{\"a\" 1}", 1, 6), ("{} x", 1, 4)]
        {
            match refuse(text) {
                Error::Syntax { line: l, column: c, what } => {
                    assert_eq!((l, c), (line, column), "{text}: {what}");
                    assert!(!what.contains(" at line "), "{what}");
                }
                other => panic!("{text}: {other}"),
            }
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(refuse(&deep), Error::Syntax { .. }), "deep nesting is no stack overflow");
    }

    #[test]
    fn a_key_that_stands_twice_is_named_with_its_line() {
        for (text, message) in [
            (
                "{\"lingerSec\": 1,\n \"logLevel\": 0,\n \"lingerSec\": 2}",
                "line 3: key `lingerSec` stands here a second time: remove one of them",
            ),
            (
                r#"{"prefetch": {"vcpus": 1, "vcpus": 1}}"#,
                "line 1: key `vcpus` stands here a second time: remove one of them",
            ),
            (r#"{"no": [{"x": 1, "x": 2}]}"#, "line 1: key `x` stands here a second time: remove one of them"),
        ] {
            assert_eq!(refuse(text).to_string(), message, "{text}");
        }
        assert_eq!(parse(r#"{"lingerSec": 3, "prefetch": {"vcpus": 1}, "tls": {"vcpus": 1}}"#).0.linger.as_secs(), 3);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        assert_eq!(parse("\u{feff}{\"lingerSec\": 3}").0.linger.as_secs(), 3);
        assert!(matches!(refuse("{\u{feff}}"), Error::Syntax { line: 1, .. }), "only at the beginning");
    }

    #[test]
    fn unknown_keys_warn_and_the_rest_counts() {
        let (config, warnings) = parse(
            r#"{"loglevel": 0, "fastList": {"vcpus": 1}, "prefetch": {"vcpus": 4, "x": 1},
                "prefetch.vcpus": 5, "lingerSec": 9}"#,
        );
        assert_eq!((config.prefetch_vcpus, config.linger.as_secs()), (4, 9));
        assert_eq!(config.log_level, LogLevel::Info);
        let mut keys: Vec<&str> = warnings.iter().map(|warning| warning.key.as_str()).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["fastList", "loglevel", "prefetch.vcpus", "prefetch.x"]);
        let words: String = warnings.iter().map(|w| format!("{w}\n")).collect();
        assert!(words.contains("`loglevel`") && words.contains("did you mean `logLevel`?"), "{words}");
        assert!(words.contains("write a dot as nesting"), "{words}");
        let (_, warnings) = parse("{\"line\\nbreak\u{7f}\": 1}");
        assert!(!warnings[0].to_string().chars().any(char::is_control), "{}", warnings[0]);
        let error = refuse("{\"lingerSec\": \"\u{7f}\u{9b}\"}").to_string();
        assert!(!error.chars().any(char::is_control), "{error:?}");
    }

    /// A folder of its own for one test, removed at the end.
    struct Folder(PathBuf);
    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ossc-conf-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).expect("a temporary folder");
            Self(path)
        }
        fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, bytes).expect("a temporary file");
            path
        }
    }
    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn load_reads_a_file_and_forgives_only_the_missing_default() {
        let folder = Folder::new("load");
        let good = folder.file("good.json", br#"{"lingerSec": 33, "no": 1}"#);
        for explicit in [false, true] {
            let (config, warnings) = Config::load(&good, explicit).expect("a good file");
            assert_eq!((config.linger.as_secs(), warnings.len()), (33, 1));
        }
        for missing in [folder.0.join("none.json"), good.join("below-a-file")] {
            let default = Config::load(&missing, false).expect("the defaults");
            assert_eq!(default, (Config::default(), vec![]));
            let reason = Config::load(&missing, true).expect_err("missing").to_string();
            let start = format!("failed to parse config file: {}: no such file", missing.display());
            assert!(reason.starts_with(&start), "{reason}");
        }
    }

    #[test]
    fn a_refused_file_may_still_say_where_its_reason_belongs() {
        let folder = Folder::new("log");
        for (text, log) in [
            (r#"{"logPath": "/l", "lingerSec": 0}"#, Some("/l")),
            ("\u{feff}{\"logPath\": \"/l\", \"lingerSec\": \"x\"}", Some("/l")),
            (r#"{"logPath": "/a", "logPath": "/l"}"#, Some("/l")),
            (r#"{"logPath": "stderr", "lingerSec": 0}"#, Some("stderr")),
            (r#"{"logPath": "relative", "lingerSec": 0}"#, None),
            (r#"{"lingerSec": 0}"#, None),
            (r#"{"logPath": "/l","#, None),
        ] {
            let file = folder.file("c.json", text.as_bytes());
            assert!(Config::load(&file, true).is_err(), "{text}");
            assert_eq!(Config::log_path_of_refused(&file), log.map(Output::named), "{text}");
        }
        assert_eq!(Config::log_path_of_refused(&folder.0.join("absent")), None);
    }

    #[test]
    fn load_refuses_what_it_cannot_read_or_parse() {
        let folder = Folder::new("refuse");
        let large = folder.file("large.json", &vec![b' '; 1 + FILE_BYTES_MAX as usize]);
        for (path, why) in [
            (folder.file("syntax.json", b"{\n \"lingerSec\": }"), "line 2, column 15: not valid JSON"),
            (folder.file("range.json", br#"{"lingerSec": 0}"#), "key `lingerSec`: 0 is out of range"),
            (folder.file("latin.json", b"{\"\xe9\": 1}"), "byte 2: not UTF-8"),
            (folder.file("wide.json", b"\xff\xfe{\0}\0"), "it is UTF-16: save it as UTF-8"),
            (folder.0.clone(), "not a regular file"),
            (PathBuf::from("/dev/zero"), "not a regular file"),
            (large, "1048577 bytes are too many"),
        ] {
            for explicit in [false, true] {
                let reason = Config::load(&path, explicit).expect_err(why);
                assert_eq!(reason.kind(), "failed to parse config file");
                let start = format!("failed to parse config file: {}: {why}", path.display());
                assert!(reason.to_string().starts_with(&start), "{reason}");
            }
        }
    }
}
