//! The key table: every key of the configuration file with type, default, unit, range and text.
//! `config` parses by it, `docs` prints it. A new key is one entry here and one field in `Config`.
//!
//! Nothing here reads a file or knows JSON's syntax.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Config, LogLevel, OpenMode};

/// One key of the configuration file.
pub(crate) struct Key {
    /// Path in the file; a dot stands for nesting.
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    /// True for the keys of the product's own default file.
    pub(crate) in_default_file: bool,
    /// One or two sentences for the manual.
    pub(crate) text: &'static str,
}

/// Type, default, unit and range of a value, and the field it sets.
pub(crate) enum Kind {
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

/// All keys, in the order of the manual.
pub(crate) const KEYS: &[Key] = &[
    Key {
        path: "logLevel",
        kind: Kind::Whole {
            default: 1,
            unit: "",
            range: within(0, 3),
            set: |config, number| config.log_level = LogLevel::from_number(number),
        },
        in_default_file: true,
        text: "Least level that is logged: 0 DEBUG, 1 INFO, 2 WARN, 3 ERROR.",
    },
    Key {
        path: "logPath",
        kind: Kind::Path {
            default: "/var/log/oss-connector/connector.log",
            set: |config, path| config.log_path = path,
        },
        in_default_file: true,
        text: "Log file of the engine. If it cannot be written, the engine warns once and goes on \
               without it.",
    },
    Key {
        path: "auditPath",
        kind: Kind::Path { default: "/var/log/oss-connector/audit.log", set: |config, path| config.audit_path = path },
        in_default_file: true,
        text: "Audit file: one JSON line per access. If it cannot be written, the engine warns \
               once and goes on without it.",
    },
    Key {
        path: "expireTimeSec",
        kind: Kind::Whole {
            default: 120,
            unit: "s",
            // Up to the largest 32-bit number, which people write for `never`.
            range: within(-1, i32::MAX as i64),
            set: |config, number| config.expire = (number >= 0).then(|| secs(number)),
        },
        in_default_file: true,
        text: "How long an object stays in memory after its last use, however short that was (an open, \
               a map, a read); -1 keeps it until the engine ends. What was fetched ahead and not opened \
               yet stays while a program of this MODEL_DIR lives and memoryLimit has room, and so long \
               after the last one.",
    },
    Key {
        path: "prefetch.vcpus",
        kind: Kind::Whole {
            default: 16,
            unit: "",
            range: within(1, 1024),
            set: |config, number| config.prefetch_vcpus = number as usize,
        },
        in_default_file: true,
        text: "Threads that fetch, each with an I/O ring of its own. The engine starts no more of \
               them than it may use CPUs, and keeps vcpus × workers connections.",
    },
    Key {
        path: "prefetch.workers",
        kind: Kind::Whole {
            default: 16,
            unit: "",
            range: within(1, 1024),
            set: |config, number| config.prefetch_workers = number as usize,
        },
        in_default_file: true,
        text: "Requests in flight per vcpu.",
    },
    Key {
        path: "materializeBytes",
        kind: Kind::Whole {
            default: 16 * MIB,
            unit: "bytes",
            range: within(0, TIB),
            set: |config, number| config.materialize_bytes_max = number.unsigned_abs(),
        },
        in_default_file: false,
        text: "Objects up to this size become real files in MODEL_DIR; larger ones are served \
               from memory.",
    },
    Key {
        path: "materializeTotal",
        kind: Kind::Whole {
            default: GIB,
            unit: "bytes",
            range: within(0, TIB),
            set: |config, number| config.materialize_total_bytes_max = number.unsigned_abs(),
        },
        in_default_file: false,
        text: "Sum of the sizes of real files in one MODEL_DIR; beyond it small objects are served \
               from memory too.",
    },
    Key {
        path: "memoryLimit",
        kind: Kind::Whole {
            default: 0,
            unit: "bytes",
            range: within(0, 1024 * TIB),
            set: |config, number| config.memory_limit = (number > 0).then_some(number as u64),
        },
        in_default_file: false,
        text: "Most memory that the engine may take: cached objects, and 64 MiB of it (a quarter, if that is \
               less) for itself. Less than one part needs (partBytes; 11184810 bytes by default) is refused at the \
               start. More than the tightest memory cgroup can hold is cut to that, with a warning. \
               0 takes what cgroups and the system have free at the start, less a reserve of a twentieth, at \
               least 256 MiB or a quarter.",
    },
    Key {
        path: "lingerSec",
        kind: Kind::Whole {
            default: 10,
            unit: "s",
            range: within(1, 86_400),
            set: |config, number| config.linger = secs(number),
        },
        in_default_file: false,
        text: "How long the engine stays after its last client is gone. A program restarted \
               meanwhile finds its model in memory.",
    },
    Key {
        path: "outageBudgetSec",
        kind: Kind::Whole {
            default: 300,
            unit: "s",
            range: within(1, 86_400),
            set: |config, number| config.outage_budget = secs(number),
        },
        in_default_file: false,
        text: "How long the engine retries against an origin that fails before readers get EIO.",
    },
    Key {
        path: "twicePercent",
        kind: Kind::Whole {
            default: 2,
            unit: "percent",
            range: within(0, 10),
            set: |config, number| config.twice_percent_max = number.unsigned_abs(),
        },
        in_default_file: false,
        text: "Most bytes that are asked for a second time because an answer is much slower than the others, of all \
               bytes that have come. 0 asks for nothing twice.",
    },
    Key {
        path: "leastBytesPerSec",
        kind: Kind::Whole {
            default: 512,
            unit: "bytes/s",
            range: within(0, 1 << 30),
            set: |config, number| config.least_bytes_per_sec = number.unsigned_abs(),
        },
        in_default_file: false,
        text: "A body that brings less than this for stallTimeoutMs, or less than a 64th of what the other connections \
               bring, is cut and asked for on another connection. 0 waits for as long as a byte comes now and then.",
    },
    Key {
        path: "connectTimeoutMs",
        kind: Kind::Whole {
            default: 5_000,
            unit: "ms",
            range: within(1, HOUR_MS),
            set: |config, number| config.connect_timeout = millis(number),
        },
        in_default_file: false,
        text: "Limit of one attempt to connect, with https including the TLS handshake.",
    },
    Key {
        path: "responseTimeoutMs",
        kind: Kind::Whole {
            default: 10_000,
            unit: "ms",
            range: within(1, HOUR_MS),
            set: |config, number| config.response_timeout = millis(number),
        },
        in_default_file: false,
        text: "Limit from a request's last byte sent to the first byte of the answer's head.",
    },
    Key {
        path: "stallTimeoutMs",
        kind: Kind::Whole {
            default: 10_000,
            unit: "ms",
            range: within(1, HOUR_MS),
            set: |config, number| config.stall_timeout = millis(number),
        },
        in_default_file: false,
        text: "How long a body may bring no byte before the connection is given up.",
    },
    Key {
        path: "resolveTimeoutMs",
        kind: Kind::Whole {
            default: 5_000,
            unit: "ms",
            range: within(1, HOUR_MS),
            set: |config, number| config.resolve_timeout = millis(number),
        },
        in_default_file: false,
        text: "Limit of one look-up of the endpoint's name. It is looked up at the start, and again when no known address can be connected to.",
    },
    Key {
        path: "idleConnectionSec",
        kind: Kind::Whole {
            default: 50,
            unit: "s",
            range: within(1, 3_600),
            set: |config, number| config.idle_connection = secs(number),
        },
        in_default_file: false,
        text: "How long a connection without a request is kept. OSS closes it after 60 s.",
    },
    Key {
        path: "avoidAddressSec",
        kind: Kind::Whole {
            default: 30,
            unit: "s",
            range: within(1, 3_600),
            set: |config, number| config.avoid_address = secs(number),
        },
        in_default_file: false,
        text: "How long an address of the endpoint that could not be connected to is kept away from while others work; the time doubles with each failure in a row, up to 32 times.",
    },
    Key {
        path: "retryBaseMs",
        kind: Kind::Whole {
            default: 200,
            unit: "ms",
            range: within(1, HOUR_MS),
            set: |config, number| config.retry_base = millis(number),
        },
        in_default_file: false,
        text: "Longest pause before the first retry of a request; it doubles with each further one. The pause itself is drawn evenly from 0 to that (full jitter).",
    },
    Key {
        path: "retryCapMs",
        kind: Kind::Whole {
            default: 20_000,
            unit: "ms",
            range: within(1, HOUR_MS),
            set: |config, number| config.retry_cap = millis(number),
        },
        in_default_file: false,
        text: "Longest pause before any retry.",
    },
    Key {
        path: "startAttempts",
        kind: Kind::Whole {
            default: 5,
            unit: "",
            range: within(1, 1_000),
            set: |config, number| config.start_attempts = number as u32,
        },
        in_default_file: false,
        text: "Requests for one page of the root folder at the start, where nothing takes connections; an origin that is away otherwise (no answer, 5xx) is asked until startTimeoutSec is over.",
    },
    Key {
        path: "listAttempts",
        kind: Kind::Whole {
            default: 8,
            unit: "",
            range: within(1, 1_000),
            set: |config, number| config.list_attempts = number as u32,
        },
        in_default_file: false,
        text: "Requests for one page of a folder, or for the facts of one object, before they are given up.",
    },
    Key {
        path: "listAgainSec",
        kind: Kind::Whole {
            default: 5,
            unit: "s",
            range: within(1, 86_400),
            set: |config, number| config.list_again = secs(number),
        },
        in_default_file: false,
        text: "How old the listing of a folder may be when a program uses something of it; an older one is renewed first, and the program waits for that. A folder whose objects have changed is shown when it has been quiet for as long, by the server's clock.",
    },
    Key {
        path: "reviveSec",
        kind: Kind::Whole {
            default: 30,
            unit: "s",
            range: within(1, 86_400),
            set: |config, number| config.revive = secs(number),
        },
        in_default_file: false,
        text: "After an object has been given up and its cause may pass, how long until it is tried again.",
    },
    Key {
        path: "throttleRecoverMs",
        kind: Kind::Whole {
            default: 1_000,
            unit: "ms",
            range: within(1, HOUR_MS),
            set: |config, number| config.throttle_recover = millis(number),
        },
        in_default_file: false,
        text: "When OSS throttles (429 or 503), the engine halves the number of requests it has under way. For each such time without another throttled answer it raises the number again by a sixteenth of vcpus × workers.",
    },
    Key {
        path: "startTimeoutSec",
        kind: Kind::Whole {
            default: 60,
            unit: "s",
            range: within(1, 3_600),
            set: |config, number| config.start_timeout = secs(number),
        },
        in_default_file: false,
        text: "Limit of the engine's whole start, until the root folder of OSS_PATH is mirrored \
               to MODEL_DIR.",
    },
    Key {
        path: "partBytes",
        kind: Kind::Whole {
            default: 8 * MIB,
            unit: "bytes",
            // Parts start at page boundaries, and a part is what one failed request loses.
            range: Range { min: 4_096, max: 8 * MIB, multiple_of: 4_096 },
            set: |config, number| config.part_bytes = number.unsigned_abs(),
        },
        in_default_file: false,
        text: "Size of one ranged request. Small parts mean many more requests, which OSS counts and limits; they are for tests.",
    },
    Key {
        path: "tls.caFile",
        kind: Kind::Path {
            default: "",
            set: |config, path| config.tls_ca_file = Some(path).filter(|path| !path.as_os_str().is_empty()),
        },
        in_default_file: false,
        text: "PEM file with certificates of a CA of your own, trusted by https besides the system's roots or those \
               of SSL_CERT_FILE. Empty: none.",
    },
    Key {
        path: "verifyCrc",
        kind: Kind::Switch { default: true, set: |config, on| config.verify_crc = on },
        in_default_file: false,
        text: "Compare the CRC-64 of each whole object with the one OSS reports.",
    },
    Key {
        path: "readsWait",
        kind: Kind::Word { words: &["part", "verdict"], set: |config, at| config.reads_wait_for_verdict = at == 1 },
        in_default_file: false,
        text: "What a read of a large object waits for. `part`: its own parts, and only the last part that no reader \
               was given yet for the CRC-64 of the whole object. `verdict`: every read waits until the CRC-64 of the \
               whole object matched; an object that is larger than the memory budget is fetched twice then. Maps and \
               streams wait for it in any case.",
    },
    Key {
        path: "openMode",
        kind: Kind::Word { words: &["auto", "whole", "parts"], set: |config, at| config.open_mode = OPEN_MODES[at] },
        in_default_file: false,
        text: "What an open for reading of a large object gives. `parts`: a descriptor at once, whose bytes come as \
               they are read through the C library. `whole`: the open waits until all of the object is in memory and \
               verified, and the kernel has its bytes, so that programs may read them past the C library (io_uring, \
               libaio, system calls of their own); an object that is larger than the memory budget is ENOMEM. `auto`: \
               `whole` in programs that are seen to read so, else `parts`. An open with O_DIRECT is whole in any case.",
    },
];

const OPEN_MODES: [OpenMode; 3] = [OpenMode::Auto, OpenMode::Whole, OpenMode::Parts];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_in_range_and_every_path_is_listed_once() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..index].iter().all(|other| other.path != key.path), "{}", key.path);
            assert!(!key.text.is_empty() && key.text.ends_with('.'), "{}", key.path);
            match &key.kind {
                Kind::Whole { default, range, .. } => {
                    assert!(range.holds(*default), "{}", key.path)
                }
                Kind::Path { default, .. } => assert!(default.is_empty() || default.starts_with('/'), "{}", key.path),
                Kind::Switch { .. } => {}
                Kind::Word { words, .. } => assert!(words.len() > 1, "{}", key.path),
            }
        }
    }

    #[test]
    fn only_the_expire_time_may_be_negative() {
        for key in KEYS {
            if let Kind::Whole { range, .. } = &key.kind {
                assert_eq!(range.min < 0, key.path == "expireTimeSec", "{}", key.path);
            }
        }
    }
}
