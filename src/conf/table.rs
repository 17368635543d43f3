//! The key table: every key of the configuration file with type, default, unit, range and text.
//! `config` parses by it, `docs` prints it. A new key is one row: its field in [`Config`] and its default follow.
//!
//! Nothing here reads a file or knows JSON's syntax.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Least level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// 0
    Debug,
    /// 1, the default
    Info,
    /// 2
    Warn,
    /// 3
    Error,
}

impl LogLevel {
    /// The table lets only 0 to 3 through.
    fn from_number(number: i64) -> Self {
        match number {
            0 => Self::Debug,
            1 => Self::Info,
            2 => Self::Warn,
            _ => Self::Error,
        }
    }
}

/// The form of the log's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: time, level, message, fields.
    Text,
    /// One JSON object a line.
    Json,
}

const LOG_FORMATS: [LogFormat; 2] = [LogFormat::Text, LogFormat::Json];

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A file.
    File(PathBuf),
    /// Standard output of the program that starts the engine.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// The words for what is no file.
pub(crate) const STDOUT: &str = "stdout";
pub(crate) const STDERR: &str = "stderr";

impl Output {
    /// What a text names; any that is no word is a path. A path of a standard stream would be that of the engine, which has
    /// none.
    pub(crate) fn named(text: &str) -> Output {
        match text {
            STDOUT | "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1" => Output::Stdout,
            STDERR | "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2" => Output::Stderr,
            path => Output::File(PathBuf::from(path)),
        }
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Output::File(path) => path.display().fmt(f),
            Output::Stdout => f.write_str(STDOUT),
            Output::Stderr => f.write_str(STDERR),
        }
    }
}

/// What an open for reading of a large object gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// The default: as `Whole` in programs that are seen to read past the C library, else as `Parts`.
    Auto,
    /// All of the object, in memory and verified.
    Whole,
    /// A descriptor at once.
    Parts,
}

const OPEN_MODES: [OpenMode; 3] = [OpenMode::Auto, OpenMode::Whole, OpenMode::Parts];

/// One key of the configuration file.
pub(crate) struct Key {
    /// Path in the file; a dot stands for nesting.
    pub(crate) path: &'static str,
    pub(crate) kind: ValueKind,
    /// True for the keys of the product's own default file.
    pub(crate) in_default_file: bool,
    /// One or two sentences for the manual.
    pub(crate) text: &'static str,
}

/// Type, default, unit and range of a value, and the field it sets.
pub(crate) enum ValueKind {
    Whole {
        default: i64,
        unit: &'static str,
        range: Range,
        set: fn(&mut Config, i64),
    },
    /// An empty default: unset.
    Path {
        default: &'static str,
        set: fn(&mut Config, PathBuf),
    },
    /// A path, or the word of a standard stream.
    Output {
        default: &'static str,
        set: fn(&mut Config, Output),
    },
    /// An address to listen at; the default is none.
    Listen {
        default: &'static str,
        set: fn(&mut Config, Option<SocketAddr>),
    },
    Switch {
        default: bool,
        set: fn(&mut Config, bool),
    },
    /// One of these words; `set` gets its place among them. The first is the default.
    Word {
        words: &'static [&'static str],
        set: fn(&mut Config, usize),
    },
}

/// Inclusive limits of a whole number.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    pub(crate) min: i64,
    pub(crate) max: i64,
    /// 1 where any whole number will do.
    pub(crate) multiple_of: i64,
}

impl Range {
    pub(crate) fn holds(&self, number: i64) -> bool {
        (self.min..=self.max).contains(&number) && number % self.multiple_of == 0
    }

    /// `1 to 8`, or `4096 to 8388608, a multiple of 4096`.
    pub(crate) fn text(&self) -> String {
        let limits = format!("{} to {}", self.min, self.max);
        match self.multiple_of {
            1 => limits,
            step => format!("{limits}, a multiple of {step}"),
        }
    }
}

const fn within(min: i64, max: i64) -> Range {
    Range { min, max, multiple_of: 1 }
}

const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
const TIB: i64 = 1 << 40;
/// An hour: longer waits than this are what the deadlines exist to prevent.
const HOUR_MS: i64 = 3_600_000;

// Both only see numbers that `Range::holds` let through, and no range below zero but that of
// `expireTimeSec`, which looks at the sign itself.
fn secs(number: i64) -> Duration {
    Duration::from_secs(number.unsigned_abs())
}
fn millis(number: i64) -> Duration {
    Duration::from_millis(number.unsigned_abs())
}

/// What one row of the table is made into: a field of [`Config`], its default, and an entry of [`KEYS`].
///
/// `FIELD: TYPE, "KEY" [in_default_file], KIND { ... } |value| VALUE OF THE FIELD, "TEXT OF THE MANUAL";`
macro_rules! keys {
    ($($field:ident: $type:ty, $path:literal $($in_default_file:ident)?, $kind:ident { $($part:tt)* } |$value:ident| $set:expr, $text:literal;)*) => {
        /// Everything the configuration file sets. Defaults and ranges are in docs/CONFIG.md.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $(#[doc = concat!("`", $path, "`: ", $text)] pub $field: $type,)*
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($field: { let $value = default_of!($kind { $($part)* }); $set },)* }
            }
        }

        #[cfg(test)]
        impl Config {
            /// What each row has set, in the order of the table.
            pub(crate) fn shown(&self) -> Vec<String> {
                vec![$(format!("{:?}", self.$field)),*]
            }
        }

        /// All keys, in the order of the manual.
        pub(crate) const KEYS: &[Key] = &[$(Key {
            path: $path,
            kind: ValueKind::$kind { $($part)*, set: |config, $value| config.$field = $set },
            in_default_file: !stringify!($($in_default_file)?).is_empty(),
            text: $text,
        },)*];
    };
}

/// The value that a key has where the file does not name it.
macro_rules! default_of {
    (Whole { default: $default:expr, $($part:tt)* }) => {
        std::convert::identity::<i64>($default)
    };
    (Path { default: $default:expr }) => {
        PathBuf::from($default)
    };
    (Output { default: $default:expr }) => {
        Output::named($default)
    };
    (Listen { default: $default:expr }) => {
        None
    };
    (Switch { default: $default:expr }) => {
        $default
    };
    (Word { words: $words:expr }) => {
        0
    };
}

keys! {
    log_level: LogLevel, "logLevel" in_default_file,
        Whole { default: 1, unit: "", range: within(0, 3) } |number| LogLevel::from_number(number),
        "Least level that is logged: 0 DEBUG, 1 INFO, 2 WARN, 3 ERROR.";

    log_path: Output, "logPath" in_default_file,
        Output { default: "/var/log/oss-connector/connector.log" } |output| output,
        "Log of the engine: a file, or `stdout` or `stderr` of the program that starts the engine (`/dev/stdout`, too). \
         If it cannot be written, the engine warns once and writes to a file in its run folder, \
         which the warning names.";

    log_format: LogFormat, "logFormat",
        Word { words: &["text", "json"] } |at| LOG_FORMATS[at],
        "Form of the log's lines: `text`, or `json` for one JSON object a line.";

    audit_path: Output, "auditPath" in_default_file,
        Output { default: "/var/log/oss-connector/audit.log" } |output| output,
        "Audit lines: one JSON line per access, to a file, `stdout` or `stderr` as those of the log. \
         If it cannot be written, the engine warns once and writes to a file in its run folder, \
         which the warning names.";

    metrics_listen: Option<SocketAddr>, "metricsListen",
        Listen { default: "" } |address| address,
        "Where the engine answers GET /metrics over HTTP: a port of 127.0.0.1, or ADDRESS:PORT, which every client that reaches it \
         may read. Two engines cannot have the same one: the second one warns and tries it again every 30 s. Empty: \
         nowhere.";

    // Up to the largest 32-bit number, which people write for `never`.
    expire: Option<Duration>, "expireTimeSec" in_default_file,
        Whole { default: 120, unit: "s", range: within(-1, i32::MAX as i64) } |number| (number >= 0).then(|| secs(number)),
        "How long an object stays in memory after its last use, however short that was (an open, \
         a map, a read); -1 keeps it until the engine ends. What was fetched ahead and not opened \
         yet stays while a program of this MODEL_DIR lives and memoryLimit has room, and so long \
         after the last one.";

    prefetch_vcpus: usize, "prefetch.vcpus" in_default_file,
        Whole { default: 16, unit: "", range: within(1, 1024) } |number| number as usize,
        "Threads that fetch, each with an I/O ring of its own. The engine starts no more of \
         them than it may use CPUs, and keeps vcpus × workers connections.";

    prefetch_workers: usize, "prefetch.workers" in_default_file,
        Whole { default: 16, unit: "", range: within(1, 1024) } |number| number as usize,
        "Requests in flight per vcpu.";

    materialize_bytes_max: u64, "materializeBytes",
        Whole { default: 16 * MIB, unit: "bytes", range: within(0, TIB) } |number| number.unsigned_abs(),
        "Objects up to this size become real files in MODEL_DIR; larger ones are served \
         from memory.";

    materialize_total_bytes_max: u64, "materializeTotal",
        Whole { default: GIB, unit: "bytes", range: within(0, TIB) } |number| number.unsigned_abs(),
        "Sum of the sizes of real files in one MODEL_DIR; beyond it small objects are served \
         from memory too.";

    memory_limit: Option<u64>, "memoryLimit",
        Whole { default: 0, unit: "bytes", range: within(0, 1024 * TIB) } |number| (number > 0).then_some(number as u64),
        "Most memory that the engine may take: cached objects, and 64 MiB of it (a quarter, if that is \
         less) for itself. Less than one part needs (partBytes; 11184810 bytes by default) is refused at the \
         start. More than this machine or the tightest memory cgroup can hold is cut to that, with a warning. \
         0 takes what cgroups (memory.max and memory.high of every level) and the system have free, less a \
         reserve of a twentieth, at least 256 MiB or a quarter. Either is looked at again while memory is \
         taken: what other programs take, engines among them, is not there. Where programs wait for memory, \
         nothing is fetched ahead, and what no program uses is given back at once.";

    linger: Duration, "lingerSec",
        Whole { default: 10, unit: "s", range: within(1, 86_400) } |number| secs(number),
        "How long the engine stays after its last client is gone. A program restarted \
         meanwhile finds its model in memory.";

    outage_budget: Duration, "outageBudgetSec",
        Whole { default: 300, unit: "s", range: within(1, 86_400) } |number| secs(number),
        "How long the engine retries against an origin that fails before readers get EIO.";

    twice_percent_max: u64, "twicePercent",
        Whole { default: 2, unit: "percent", range: within(0, 10) } |number| number.unsigned_abs(),
        "Most bytes that are asked for a second time because an answer is much slower than the others, of all \
         bytes that have come. 0 asks for nothing twice.";

    least_bytes_per_sec: u64, "leastBytesPerSec",
        Whole { default: 512, unit: "bytes/s", range: within(0, 1 << 30) } |number| number.unsigned_abs(),
        "A body that brings less than this for stallTimeoutMs, or less than a 64th of what the other connections \
         bring, is cut and asked for on another connection. 0 waits for as long as a byte comes now and then.";

    connect_timeout: Duration, "connectTimeoutMs",
        Whole { default: 5_000, unit: "ms", range: within(1, HOUR_MS) } |number| millis(number),
        "Limit of one attempt to connect, with https including the TLS handshake.";

    response_timeout: Duration, "responseTimeoutMs",
        Whole { default: 10_000, unit: "ms", range: within(1, HOUR_MS) } |number| millis(number),
        "Limit from a request's last byte sent to the first byte of the answer's head.";

    stall_timeout: Duration, "stallTimeoutMs",
        Whole { default: 10_000, unit: "ms", range: within(1, HOUR_MS) } |number| millis(number),
        "How long a body may bring no byte before the connection is given up.";

    resolve_timeout: Duration, "resolveTimeoutMs",
        Whole { default: 5_000, unit: "ms", range: within(1, HOUR_MS) } |number| millis(number),
        "Limit of one look-up of the endpoint's name. It is looked up at the start, and again when no known address can be connected to.";

    idle_connection: Duration, "idleConnectionSec",
        Whole { default: 50, unit: "s", range: within(1, 3_600) } |number| secs(number),
        "How long a connection without a request is kept. OSS closes it after 60 s.";

    avoid_address: Duration, "avoidAddressSec",
        Whole { default: 30, unit: "s", range: within(1, 3_600) } |number| secs(number),
        "How long an address of the endpoint that could not be connected to is kept away from while others work; the time doubles with each failure in a row, up to 32 times.";

    retry_base: Duration, "retryBaseMs",
        Whole { default: 200, unit: "ms", range: within(1, HOUR_MS) } |number| millis(number),
        "Longest pause before the first retry of a request; it doubles with each further one. The pause itself is drawn evenly from 0 to that (full jitter).";

    retry_cap: Duration, "retryCapMs",
        Whole { default: 20_000, unit: "ms", range: within(1, HOUR_MS) } |number| millis(number),
        "Longest pause before any retry.";

    start_attempts: u32, "startAttempts",
        Whole { default: 5, unit: "", range: within(1, 1_000) } |number| number as u32,
        "Requests for one page of the root folder at the start, where nothing takes connections; an origin that is away \
         otherwise (no answer, 5xx) is asked until startTimeoutSec is over.";

    list_attempts: u32, "listAttempts",
        Whole { default: 8, unit: "", range: within(1, 1_000) } |number| number as u32,
        "Requests for one page of a folder, or for the facts of one object, before they are given up.";

    list_again: Duration, "listAgainSec",
        Whole { default: 5, unit: "s", range: within(1, 86_400) } |number| secs(number),
        "How old the listing of a folder may be when a program uses something of it; an older one is renewed first, and the program waits for that. A folder whose objects have changed is shown when it has been quiet for as long, by the server's clock.";

    revive: Duration, "reviveSec",
        Whole { default: 30, unit: "s", range: within(1, 86_400) } |number| secs(number),
        "After an object has been given up and its cause may pass, how long until it is tried again.";

    throttle_recover: Duration, "throttleRecoverMs",
        Whole { default: 1_000, unit: "ms", range: within(1, HOUR_MS) } |number| millis(number),
        "When OSS throttles (429 or 503), the engine halves the number of requests it has under way. For each such time without another throttled answer it raises the number again by a sixteenth of vcpus × workers. Where a fourth of the requests are not served in time although bytes come (a thin link), it halves them too, and raises the number by a fourth for each 30 such times.";

    start_timeout: Duration, "startTimeoutSec",
        Whole { default: 60, unit: "s", range: within(1, 3_600) } |number| secs(number),
        "Limit of the engine's whole start, until the root folder of OSS_PATH is mirrored \
         to MODEL_DIR.";

    // Parts start at page boundaries, and a part is what one failed request loses.
    part_bytes: u64, "partBytes",
        Whole { default: 8 * MIB, unit: "bytes", range: Range { min: 4_096, max: 8 * MIB, multiple_of: 4_096 } } |number| number.unsigned_abs(),
        "Size of one ranged request. Small parts mean many more requests, which OSS counts and limits; they are for tests.";

    tls_ca_file: Option<PathBuf>, "tls.caFile",
        Path { default: "" } |path| Some(path).filter(|path| !path.as_os_str().is_empty()),
        "PEM file with certificates of a CA of your own, trusted by https besides the system's roots or those \
         of SSL_CERT_FILE. Empty: none.";

    verify_crc: bool, "verifyCrc",
        Switch { default: true } |on| on,
        "Compare the CRC-64 of each whole object with the one OSS reports.";

    reads_wait_for_verdict: bool, "readsWait",
        Word { words: &["part", "verdict"] } |at| at == 1,
        "What a read of a large object waits for. `part`: its own parts, and only the last part that no reader \
         was given yet for the CRC-64 of the whole object. `verdict`: every read waits until the CRC-64 of the \
         whole object matched; an object that is larger than the memory budget is fetched twice then. Maps and \
         streams wait for it in any case.";

    open_mode: OpenMode, "openMode",
        Word { words: &["auto", "whole", "parts"] } |at| OPEN_MODES[at],
        "What an open for reading of a large object gives. `parts`: a descriptor at once, whose bytes come as \
         they are read through the C library. `whole`: the open waits until all of the object is in memory and \
         verified, and the kernel has its bytes, so that programs may read them past the C library (io_uring, \
         libaio, system calls of their own); an object that is larger than the memory budget is ENOMEM. `auto`: \
         `whole` in programs that are seen to read so, else `parts`. An open with O_DIRECT is whole in any case.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_in_range_and_every_path_is_listed_once() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..index].iter().all(|other| other.path != key.path), "{}", key.path);
            assert!(!key.text.is_empty() && key.text.ends_with('.'), "{}", key.path);
            match &key.kind {
                ValueKind::Whole { default, range, .. } => {
                    assert!(range.holds(*default), "{}", key.path)
                }
                ValueKind::Path { default, .. } | ValueKind::Output { default, .. } => {
                    assert!(default.is_empty() || default.starts_with('/'), "{}", key.path)
                }
                ValueKind::Listen { default, .. } => assert!(default.is_empty(), "{}", key.path),
                ValueKind::Switch { .. } => {}
                ValueKind::Word { words, .. } => assert!(words.len() > 1, "{}", key.path),
            }
        }
    }

    #[test]
    fn paths_of_standard_streams_are_those_of_the_program() {
        for path in ["stdout", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
            assert_eq!(Output::named(path), Output::Stdout, "{path}");
        }
        for path in ["stderr", "/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"] {
            assert_eq!(Output::named(path), Output::Stderr, "{path}");
        }
        assert_eq!(Output::named("/dev/null"), Output::File("/dev/null".into()));
    }

    #[test]
    fn only_the_expire_time_may_be_negative() {
        for key in KEYS {
            if let ValueKind::Whole { range, .. } = &key.kind {
                assert_eq!(range.min < 0, key.path == "expireTimeSec", "{}", key.path);
            }
        }
    }
}
