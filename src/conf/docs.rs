//! docs/CONFIG.md and dist/config.json, made from the key table and the list of variables below.
//! Called by `ossc config` and by the tests that keep both files fresh. It writes no file itself.

use std::fmt::Write as _;

use crate::config::DEFAULT_PATH;
use crate::table::{KEYS, Key, ValueKind};

/// One environment variable of the manual.
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    need: &'static str,
    text: &'static str,
}

/// In the order of the manual: the product's own first.
pub(crate) const VARIABLES: &[Variable] = &[
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
    Variable {
        name: "OSS_ACCESS_KEY_ID",
        need: "see text",
        text: "Access key with `oss:ListObjects` and `oss:GetObject`. Unset or empty, together \
               with the secret: another source of the list below, else anonymous access.",
    },
    Variable { name: "OSS_ACCESS_KEY_SECRET", need: "see text", text: "Its secret." },
    Variable {
        name: "OSS_SESSION_TOKEN",
        need: "no",
        text: "Token of temporary (STS) credentials. Unset or empty with a permanent key.",
    },
    Variable {
        name: "OSS_AUTHORIZATION_FILE_PATH",
        need: "no",
        text: "JSON file with `AccessKeyId`, `AccessKeySecret` and, if they are temporary, `SecurityToken` and \
               `Expiration` (`2024-08-02T15:04:05Z`). Absolute. Read again before `Expiration`, each minute without \
               one, and when OSS refuses the key; replace it by rename.",
    },
    Variable {
        name: "ALIBABA_CLOUD_ACCESS_KEY_ID",
        need: "no",
        text: "With ALIBABA_CLOUD_ACCESS_KEY_SECRET and, for temporary ones, ALIBABA_CLOUD_SECURITY_TOKEN: taken \
               where neither OSS_ACCESS_KEY_ID nor OSS_AUTHORIZATION_FILE_PATH is set.",
    },
    Variable { name: "ALIBABA_CLOUD_ACCESS_KEY_SECRET", need: "no", text: "Its secret." },
    Variable { name: "ALIBABA_CLOUD_SECURITY_TOKEN", need: "no", text: "Its token." },
    Variable {
        name: "ALIBABA_CLOUD_ROLE_ARN",
        need: "no",
        text: "RRSA: the role that a pod of ACK assumes. In use if this, ALIBABA_CLOUD_OIDC_PROVIDER_ARN and \
               ALIBABA_CLOUD_OIDC_TOKEN_FILE are set.",
    },
    Variable { name: "ALIBABA_CLOUD_OIDC_PROVIDER_ARN", need: "no", text: "RRSA: who vouches for the pod's token." },
    Variable {
        name: "ALIBABA_CLOUD_OIDC_TOKEN_FILE",
        need: "no",
        text: "RRSA: file of the pod's token, absolute; read anew for each exchange.",
    },
    Variable {
        name: "ALIBABA_CLOUD_ROLE_SESSION_NAME",
        need: "no",
        text: "RRSA: name of the session in the logs of the account. Default: `oss-connector`.",
    },
    Variable {
        name: "ALIBABA_CLOUD_STS_REGION",
        need: "no",
        text: "RRSA: `R` makes the token service sts.R.aliyuncs.com. Default: sts.aliyuncs.com.",
    },
    Variable {
        name: "ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED",
        need: "no",
        text: "RRSA: `true` makes it sts-vpc.R.aliyuncs.com.",
    },
    Variable {
        name: "ALIBABA_CLOUD_ECS_METADATA",
        need: "no",
        text: "Name of the RAM role of this ECS instance; setting it is what makes the engine ask for its credentials.",
    },
    Variable {
        name: "ALIBABA_CLOUD_ECS_METADATA_DISABLED",
        need: "no",
        text: "`true`: the metadata service is never asked.",
    },
    Variable {
        name: "ALIBABA_CLOUD_IMDSV1_DISABLED",
        need: "no",
        text: "`true`: the metadata service is asked with a token of its version 2 only. Else version 1 is tried where \
               none can be had.",
    },
    Variable {
        name: "OSSC_CREDENTIALS",
        need: "no",
        text: "`env`, `file`, `oidc`, `ecs` or `anonymous`: the only source to use. `ecs` needs no role name. Default: \
               the first that is set up.",
    },
    Variable {
        name: "OSSC_SIGNATURE",
        need: "no",
        text: "`v4` or `v1`. Default: `v4`. `v1` needs no region; OSS refuses it for new accounts and buckets.",
    },
    Variable {
        name: "OSSC_METADATA_URL",
        need: "no",
        text: "Another metadata service, for tests. Default: `http://100.100.100.200`.",
    },
    Variable {
        name: "OSSC_STS_URL",
        need: "no",
        text: "Another token service, for tests; https only, with the roots that the endpoint is trusted by.",
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

The first source that is set up is used, or the one that OSSC_CREDENTIALS names:

1. `OSS_ACCESS_KEY_ID`, `OSS_ACCESS_KEY_SECRET`, `OSS_SESSION_TOKEN`
2. the file of `OSS_AUTHORIZATION_FILE_PATH`
3. `ALIBABA_CLOUD_ACCESS_KEY_ID`, `ALIBABA_CLOUD_ACCESS_KEY_SECRET`, `ALIBABA_CLOUD_SECURITY_TOKEN`
4. the role of the pod (RRSA): the three variables that ACK sets
5. the RAM role of the ECS instance: `ALIBABA_CLOUD_ECS_METADATA`, or `OSSC_CREDENTIALS=ecs`
6. none: anonymous access

Keys from the environment (1 and 3) stay as they are until the engine ends. The others are fetched again when two
thirds of their life are over, at most 15 minutes before its end, and at once when OSS refuses them as ended or
unknown. A request that was refused so is sent again with what was fetched; if that goes on for 30 s its readers
get EACCES, and the log says what the source answered. The engine's log names the source, never the key's secret.

Requests are signed with this machine's clock. Where OSS says that it is more than 15 minutes off, the engine signs
with the time of OSS and warns; where it is more than a day off, it does not, and the clock must be set.
";

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
    for Variable { name, need, text } in VARIABLES {
        let _ = writeln!(page, "| `{name}` | {need} | {text} |");
    }
    page.push_str(CREDENTIALS);
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
        ValueKind::Path { default, .. } => format!("\"{default}\""),
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
        for Variable { name, .. } in VARIABLES {
            assert_eq!(page.matches(&format!("\n| `{name}` | ")).count(), 1, "{name}");
        }
        let cells = |row: &str| row.replace("\\|", "").matches('|').count();
        for row in page.lines().filter(|line| line.starts_with("| `")) {
            assert!([4, 6].contains(&cells(row)), "{row}");
        }
        assert!(page.contains("| 8388608 (8 MiB) | 4096 to 8388608, a multiple of 4096 |"), "{page}");
    }
}
