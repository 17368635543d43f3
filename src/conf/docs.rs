//! docs/CONFIG.md and dist/config.json, made from the key table, the list of variables below and the sources of credentials.
//! Called by `ossc config` and by the tests that keep both files fresh. It writes no file itself.

use std::fmt::Write as _;

use crate::config::DEFAULT_PATH;
use crate::credentials::{ANONYMOUS, SOURCES};
use crate::table::{KEYS, Key, ValueKind};

/// One environment variable of the manual.
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    /// Whether it must be set.
    pub(crate) need: &'static str,
    /// What it means.
    pub(crate) text: &'static str,
}

/// The product's own.
const FIRST: &[Variable] = &[
    Variable {
        name: "LD_PRELOAD",
        need: "yes",
        text: "`/usr/local/lib/libossc_preload.so`. Set it for the command, not for the whole \
               session.",
    },
    Variable {
        name: "ENABLE_CONNECTOR",
        need: "yes",
        text: "`1`: primary, starts the engine if none runs for MODEL_DIR yet. `2`: secondary, \
               uses the engine of a primary. Unset: the library does nothing.",
    },
    Variable {
        name: "MODEL_DIR",
        need: "yes",
        text: "Folder the program loads from; it mirrors OSS_PATH. Read and write permission, an \
               empty folder of its own, not on an OSS mount.",
    },
    Variable {
        name: "OSS_PATH",
        need: "primary",
        text: "`oss://BUCKET/PATH/`, for example `oss://examplebucket/qwen/Qwen3-8B/`. A missing \
               final slash is added.",
    },
    Variable {
        name: "OSS_ENDPOINT",
        need: "primary",
        text: "`[http://\\|https://]HOST[:PORT]` without the bucket; https if no scheme is named. \
               An IP address or `localhost` is addressed as `/BUCKET/KEY`.",
    },
    Variable {
        name: "OSS_REGION",
        need: "see text",
        text: "For example `cn-beijing`; a leading `oss-` is dropped. Needed if the endpoint does \
               not name the region (acceleration, own domain, IP address) and access is not \
               anonymous.",
    },
];

/// The others: these stand behind those of the sources of credentials.
const FURTHER: &[Variable] = &[
    Variable {
        name: "OSSC_CREDENTIALS",
        need: "no",
        text: "The only source to use, by its word in the list below. `ecs` needs no role name. Default: the first that \
               is set up.",
    },
    Variable {
        name: "OSSC_SIGNATURE",
        need: "no",
        text: "`v4` or `v1`. Default: `v4`. `v1` needs no region; OSS refuses it for new accounts and buckets.",
    },
    Variable {
        name: "CONNECTOR_UDS_PATH",
        need: "no",
        text: "Socket of the engine, absolute, at most 107 bytes; for containers that share a \
               volume. Default: in a run folder made from MODEL_DIR.",
    },
    Variable {
        name: "OSSC_CONFIG",
        need: "no",
        text: "Another configuration file. Unlike the default one it must exist.",
    },
    Variable {
        name: "OSSC_BIN",
        need: "no",
        text: "Path of the `ossc` command, if it is neither beside the library nor in `../bin`.",
    },
    Variable {
        name: "OSSC_IO",
        need: "no",
        text: "`uring` or `epoll`: forces the driver of the connections. Default: probed.",
    },
    Variable {
        name: "OSSC_PAGES",
        need: "no",
        text: "`tmpfs` or `memfd`: forces the kind of cache memory, for tests. Default: probed.",
    },
    Variable {
        name: "OSSC_PAST_REPORT",
        need: "no",
        text: "An existing file to which programs add how they read past the C library; set by `ossc doctor -- PROGRAM`.",
    },
    Variable {
        name: "OSSC_WARM",
        need: "no",
        text: "`1` has the library serve the command `ossc`, as it serves programs; set by `ossc warm` for itself.",
    },
    Variable {
        name: "SSL_CERT_FILE",
        need: "no",
        text: "PEM file with the root certificates that https trusts, in place of the system's. Absolute.",
    },
    Variable {
        name: "SSL_CERT_DIR",
        need: "no",
        text: "Folders of such files, `:` between them; together with SSL_CERT_FILE or alone.",
    },
    Variable {
        name: "XDG_RUNTIME_DIR",
        need: "no",
        text: "Parent of the run folder where /run/oss-connector cannot be used.",
    },
];

const INTRO: &str = "\
# Configuration

<!-- Made from the key table in src/conf. Do not edit: run `OSSC_BLESS=1 cargo test --locked --profile fast -p ossc-conf`. -->

A primary that finds a mistake here ends the program at once, before `main`, with
`failed to launch oss connector: REASON` on stderr; REASON names the key or variable and what is
allowed.
";

const FILE_RULES: &str = "\
- Every key is optional, and so is the default file as a whole.
- A file named by OSSC_CONFIG must exist. A file that cannot be read or is not valid is a mistake.
- An unknown key is a warning in the log and has no effect.
- A value of the wrong type or out of range is a mistake.
- The engine reads the file once, when it starts.
";

const CREDENTIALS: &str = "
## Credentials

The first source that is set up is used, or the first of those whose word OSSC_CREDENTIALS names:

";

const RENEWAL: &str = "
Keys that stand in the environment stay as they are until the engine ends. The others are fetched again when two
thirds of their life are over, at most 15 minutes before its end, and at once when OSS refuses them as ended or
unknown. A request that was refused so is sent again with what was fetched; if that goes on for 30 s its readers
get EACCES, and the log says what the source answered. The engine's log names the source, never the key's secret.

Requests are signed with this machine's clock. Where OSS says that it is more than 15 minutes off, the engine signs
with the time of OSS and warns; where it is more than a day off, it does not, and the clock must be set.
";

/// All of them, in the order of the manual.
pub(crate) fn variables() -> impl Iterator<Item = &'static Variable> {
    let of_credentials = SOURCES.into_iter().flat_map(|source| source.variables);
    FIRST.iter().chain(of_credentials).chain(FURTHER)
}

/// The text of docs/CONFIG.md.
pub fn markdown() -> String {
    let mut page = String::from(INTRO);
    let _ = write!(page, "\n## Configuration file\n\n`{DEFAULT_PATH}`, or the one OSSC_CONFIG names.\n\n");
    page.push_str(FILE_RULES);
    let _ = write!(page, "\nThe default file:\n\n```json\n{}```\n\n", default_file());
    page.push_str("| Key | Type | Default | Allowed | Meaning |\n| --- | --- | --- | --- | --- |\n");
    for key in KEYS {
        page.push_str(&key_row(key));
    }
    page.push_str("\n## Environment\n\nAn empty value counts as unset.\n\n");
    page.push_str("| Variable | Needed | Meaning |\n| --- | --- | --- |\n");
    for Variable { name, need, text } in variables() {
        let _ = writeln!(page, "| `{name}` | {need} | {text} |");
    }
    page.push_str(CREDENTIALS);
    let sources = SOURCES.into_iter().map(|source| (source.word, source.line));
    for (at, (word, line)) in sources.chain([(ANONYMOUS, "no source: requests go out unsigned")]).enumerate() {
        let _ = writeln!(page, "{}. `{word}`: {line}", at + 1);
    }
    page.push_str(RENEWAL);
    page
}

fn key_row(key: &Key) -> String {
    let (kind, default, allowed) = match &key.kind {
        ValueKind::Whole { default, unit, range, .. } => {
            let kind = if unit.is_empty() { "number".to_owned() } else { format!("number, {unit}") };
            (kind, with_size(*default, unit), range.text())
        }
        ValueKind::Path { default: "", .. } => {
            ("path".to_owned(), "none".to_owned(), "absolute path of a file".to_owned())
        }
        ValueKind::Path { default, .. } => {
            ("path".to_owned(), format!("`{default}`"), "absolute path of a file".to_owned())
        }
        ValueKind::Output { default, .. } => (
            "path or word".to_owned(),
            format!("`{default}`"),
            "absolute path of a file, `stdout`, `stderr`".to_owned(),
        ),
        ValueKind::Listen { .. } => ("address".to_owned(), "none".to_owned(), "`PORT`, `ADDRESS:PORT`".to_owned()),
        ValueKind::Switch { default, .. } => ("switch".to_owned(), default.to_string(), "true, false".to_owned()),
        ValueKind::Word { words, .. } => ("word".to_owned(), format!("`{}`", words[0]), words.join(", ")),
    };
    format!("| `{}` | {kind} | {default} | {allowed} | {} |\n", key.path, key.text)
}

/// `8388608 (8 MiB)` for bytes, the bare number otherwise.
fn with_size(number: i64, unit: &str) -> String {
    for (name, shift) in [("GiB", 30), ("MiB", 20)] {
        if unit == "bytes" && number >= 1 << shift && number % (1 << shift) == 0 {
            return format!("{number} ({} {name})", number >> shift);
        }
    }
    number.to_string()
}

/// The text of dist/config.json: the product's own default file, key for key.
pub fn default_file() -> String {
    // Keys of one group stand together in the table.
    let mut entries: Vec<(&str, Vec<String>)> = Vec::new();
    for key in KEYS.iter().filter(|key| key.in_default_file) {
        let (group, name) = key.path.split_once('.').unwrap_or(("", key.path));
        let member = format!("\"{name}\": {}", default_json(key));
        match entries.last_mut() {
            Some((last, members)) if !group.is_empty() && *last == group => members.push(member),
            _ => entries.push((group, vec![member])),
        }
    }
    let entries: Vec<String> = entries.into_iter().map(entry_text).collect();
    format!("{{\n{}\n}}\n", entries.join(",\n"))
}

fn entry_text((group, members): (&str, Vec<String>)) -> String {
    match group {
        "" => format!("    {}", members.concat()),
        group => format!("    \"{group}\": {{\n        {}\n    }}", members.join(",\n        ")),
    }
}

/// The default as a configuration file has it.
pub(crate) fn default_json(key: &Key) -> String {
    match &key.kind {
        ValueKind::Whole { default, .. } => default.to_string(),
        ValueKind::Path { default, .. } | ValueKind::Output { default, .. } | ValueKind::Listen { default, .. } => {
            format!("\"{default}\"")
        }
        ValueKind::Switch { default, .. } => default.to_string(),
        ValueKind::Word { words, .. } => format!("\"{}\"", words[0]),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::Config;

    /// The default file of the product's page, character for character.
    const PAGE: &str = r#"{
    "logLevel": 1,
    "logPath": "/var/log/oss-connector/connector.log",
    "auditPath": "/var/log/oss-connector/audit.log",
    "expireTimeSec": 120,
    "prefetch": {
        "vcpus": 16,
        "workers": 16
    }
}
"#;

    fn in_repository(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
    }

    /// Compares a generated file with the table, or rewrites it if OSSC_BLESS=1.
    fn assert_fresh(path: &str, expected: &str) {
        let file = in_repository(path);
        if std::env::var("OSSC_BLESS").is_ok_and(|value| value == "1") {
            std::fs::write(&file, expected).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        let found = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
        let advice = "run `OSSC_BLESS=1 cargo test --locked --profile fast -p ossc-conf` and commit the result";
        assert!(found == expected, "{path} is stale: {advice}");
    }

    #[test]
    fn manual_is_fresh() {
        assert_fresh("docs/CONFIG.md", &markdown());
    }

    #[test]
    fn default_file_is_the_pages_and_means_the_defaults() {
        assert_eq!(default_file(), PAGE);
        assert_fresh("dist/config.json", &default_file());
        let (config, warnings) = Config::load(&in_repository("dist/config.json"), true).expect("it parses");
        assert_eq!((config, warnings), (Config::default(), vec![]));
    }

    #[test]
    fn manual_lists_every_key_and_variable_once_in_full_rows() {
        let page = markdown();
        for key in KEYS {
            assert_eq!(page.matches(&format!("\n| `{}` | ", key.path)).count(), 1, "{}", key.path);
        }
        for Variable { name, .. } in variables() {
            assert_eq!(page.matches(&format!("\n| `{name}` | ")).count(), 1, "{name}");
        }
        let cells = |row: &str| row.replace("\\|", "").matches('|').count();
        for row in page.lines().filter(|line| line.starts_with("| `")) {
            assert!([4, 6].contains(&cells(row)), "{row}");
        }
        assert!(page.contains("| 8388608 (8 MiB) | 4096 to 8388608, a multiple of 4096 |"), "{page}");
    }
}
