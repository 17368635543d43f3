//! docs/ERRORS.md: what can go wrong, what programs see of it, and what the user can do. Printed by
//! `ossc errors`; a test keeps the file fresh.
//!
//! It decides nothing: kinds, codes and errnos are the network crate's table, limits its constants. The
//! REASONs of a start and the errnos that the library gives by itself are told here in words.

use ossc_net::kind::{Again, CODES, KINDS, STATUSES, UNLISTED_ERRNO};
use std::fmt::Write as _;

const INTRO: &str = "\
# Errors

<!-- Made from the tables in net/kind.rs and src/ossc/commands/errors.rs. Do not edit: run
`OSSC_BLESS=1 cargo test --locked --profile fast -p ossc`, or `ossc errors` to see it. -->

Each failed request is a line of the log that names what was tried, object, range, phase, HTTP status, OSS code,
request id, EC, and what to do. What can succeed later is tried again, with exponential pauses and full jitter
(`retryBaseMs`, `retryCapMs`), until `outageBudgetSec` has passed without a success for the object; listings and other
questions `listAttempts` times. An answer that may be a stray one is doubted: the request is made once more at once, on
another connection, then behind a new listing of the folder, and only then is the object given up. Then programs get an
errno, always the same for the same kind of failure. An object that was given up is tried again when a listing shows
that version, or a program opens it.
";

/// A REASON of `failed to launch oss connector: REASON` begins with one of these.
const REASONS: &[(&str, &str)] = &[
    ("MODEL_DIR not set", "set MODEL_DIR to the folder that the program loads the model from"),
    ("OSS_PATH not set", "set OSS_PATH, such as `oss://examplebucket/qwen/Qwen3-8B/`"),
    ("OSS_ENDPOINT not set", "set OSS_ENDPOINT, such as `oss-cn-beijing-internal.aliyuncs.com`"),
    ("OSS_AUTHORIZATION_FILE_PATH not accessible", "the credential file is not there, or may not be read"),
    ("OSS_ACCESS_KEY_SECRET not set", "the id is set, the secret is not: set both, or none for anonymous access"),
    ("OSS_ACCESS_KEY_ID not set", "the secret is set, the id is not: set both, or none for anonymous access"),
    (
        "failed to infer region from endpoint",
        "the endpoint names no region (own domain, acceleration, address): set OSS_REGION",
    ),
    ("invalid uri", "OSS_PATH is not `oss://BUCKET/PATH/`"),
    ("invalid endpoint", "OSS_ENDPOINT is not `[http://|https://]HOST[:PORT]`, or begins with the bucket"),
    ("invalid environment variable", "the value that is named cannot be meant"),
    ("failed to parse config file", "file, line and key are named; see CONFIG.md"),
    (
        "failed to initialize log path",
        "kept for compatibility: here a log that cannot be written is a warning, not an error",
    ),
    (
        "failed to list objects",
        "OSS was not reached or refuses: the line ends with its answer and what to do; see the kinds below",
    ),
    (
        "failed to download metadata",
        "MODEL_DIR cannot be written, is a folder of the system, or a file of yours lies at an object's place",
    ),
    (
        "failed to acquire uds lock",
        "no run folder can be used; or another engine serves MODEL_DIR, with its socket elsewhere: give each its own MODEL_DIR, or both one CONNECTOR_UDS_PATH; or the file at CONNECTOR_UDS_PATH (or its `.lock`) is not an engine's, and is left alone: give it another name",
    ),
    (
        "failed to initialize connector",
        "this machine refused a thread, memory, a system call (which is named) or the driver that OSSC_IO asks for; or there is no room for one part: the line names the smallest memoryLimit",
    ),
    ("failed to start the engine", "this machine refused a process or socket"),
    ("the program ossc was found neither", "install `ossc` beside the library or in `../bin`, or set OSSC_BIN"),
    ("the engine ended", "somebody has killed the engine while it started (out-of-memory killer?)"),
    ("the engine said nothing", "the engine hangs: look at its log"),
    (
        "the engine of this MODEL_DIR serves another OSS_PATH",
        "use another MODEL_DIR, or wait until `lingerSec` after its last program",
    ),
    (
        "the engine of this MODEL_DIR serves another OSS_ENDPOINT",
        "use another MODEL_DIR, or wait until `lingerSec` after its last program",
    ),
    (
        "another library hides the hooks",
        "a preloaded library, which is named, goes on to the C library past this one, and its callers would see objects as empty: put `libossc_preload.so` first in LD_PRELOAD",
    ),
    ("ENABLE_CONNECTOR is neither", "set it to 1 (primary) or 2 (secondary), or unset it"),
];

/// What the library answers by itself, whatever OSS says.
const OWN: &[(&str, &str)] = &[
    ("EROFS", "an object would be changed: opened for writing, truncated, written to"),
    ("ENOMEM", "a map or stream of an object that is larger than the memory budget; a map that cannot grow any more"),
    (
        "EIO",
        "no engine runs and none can be started; an engine runs and has not answered for 60 s (stopped or frozen: the line names it); an engine serves another OSS_PATH or OSS_ENDPOINT; a file of an engine that is gone",
    ),
    ("ESTALE", "a file of yours lies in an object's place in a sub-folder: remove it, or choose another MODEL_DIR"),
];

/// The text of docs/ERRORS.md.
pub fn markdown() -> String {
    let mut page = String::from(INTRO);
    page.push_str("\n## A start that fails\n\n");
    page.push_str(
        "A primary prints `failed to launch oss connector: REASON` to stderr and ends with status 1 before `main`. The log\n\
         has the same REASON behind `not started: `, written before the program ends. What the library finds before there\n\
         is an engine (MODEL_DIR, the role, another library) is on stderr alone. So is a configuration that is no JSON and\n\
         that OSSC_CONFIG names, since it names no log.\n\n",
    );
    page.push_str("| REASON begins with | What to do |\n| --- | --- |\n");
    for (reason, text) in REASONS {
        let _ = writeln!(page, "| `{reason}` | {} |", text.replace('|', "\\|"));
    }
    page.push_str("\n## Kinds of failures\n\n");
    page.push_str("| Kind | What has happened | Programs get | Tried again | Who acts | What to do |\n");
    page.push_str("| --- | --- | --- | --- | --- | --- |\n");
    for row in KINDS {
        let again = match row.again {
            Again::Yes => "yes",
            Again::Doubted => "if OSS answered so: once at once, then behind a listing",
            Again::Once => "if OSS answered so: once at once",
            Again::No => "no",
        };
        let (name, means, errno) = (row.name, row.means, errno_name(row.errno));
        let _ = writeln!(page, "| {name} | {means} | {errno} | {again} | {} | {} |", row.blame.name(), row.advice);
    }
    let _ = writeln!(
        page,
        "\nA folder that cannot be listed cannot be opened: {}, whatever the kind.",
        errno_name(UNLISTED_ERRNO)
    );
    page.push_str("\n## OSS codes\n\nThe code decides, whatever the status.\n\n");
    page.push_str("| Code | Kind | What to do |\n| --- | --- | --- |\n");
    for row in CODES {
        let kind = row.kind.row();
        let advice = if row.advice.is_empty() { kind.advice } else { row.advice };
        let _ = writeln!(page, "| `{}` | {} | {advice} |", row.code, kind.name);
    }
    page.push_str(
        "\nAn answer with another code, or none, goes by its status; the first row that holds it counts.\n\n",
    );
    page.push_str("| Status | Kind |\n| --- | --- |\n");
    for row in STATUSES {
        let status =
            if row.first == row.last { row.first.to_string() } else { format!("{} to {}", row.first, row.last) };
        let _ = writeln!(page, "| {status} | {} |", row.kind.row().name);
    }
    page.push_str("\n## What the library answers by itself\n\n| Programs get | When |\n| --- | --- |\n");
    for (errno, when) in OWN {
        let _ = writeln!(page, "| {errno} | {when} |");
    }
    page.push_str("\n## Fixed limits\n\nAn answer that is longer is refused; these have no key.\n\n");
    page.push_str("| Limit | Value |\n| --- | --- |\n");
    for (what, value, unit) in ossc_net::LIMITS.iter().chain(OWN_LIMITS) {
        let _ = writeln!(page, "| {what} | {value} {unit} |");
    }
    page
}

/// Limits of the engine beside those of the network crate.
const OWN_LIMITS: &[(&str, u64, &str)] = &[
    ("page of a listing", crate::work::shared::item::DOCUMENT_BYTES_MAX as u64, "bytes"),
    ("name of a file or folder", crate::mirror::listing::tree::NAME_BYTES_MAX as u64, "bytes"),
    ("objects and folders of one MODEL_DIR", ossc_cache::region::OBJECTS_MAX as u64, ""),
    ("parts of one MODEL_DIR", ossc_cache::region::PARTS_MAX as u64, ""),
];

fn errno_name(errno: i32) -> &'static str {
    match errno {
        libc::EIO => "EIO",
        libc::EACCES => "EACCES",
        libc::ENOENT => "ENOENT",
        libc::ENOMEM => "ENOMEM",
        libc::ESTALE => "ESTALE",
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_manual_is_fresh() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ERRORS.md");
        if std::env::var("OSSC_BLESS").is_ok_and(|value| value == "1") {
            std::fs::write(&file, markdown()).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap();
        assert!(
            found == markdown(),
            "docs/ERRORS.md is stale: run `OSSC_BLESS=1 cargo test --locked --profile fast -p ossc`"
        );
    }

    #[test]
    fn every_errno_has_a_name_and_every_row_is_full() {
        assert!(KINDS.iter().all(|row| errno_name(row.errno) != "?"));
        for row in markdown().lines().filter(|line| line.starts_with('|')) {
            let cells = row.replace("\\|", "").matches('|').count();
            assert!([3, 4, 7].contains(&cells) && !row.contains("|  |"), "{row}");
        }
    }

    /// Every REASON that stands in the code begins with one of the list.
    #[test]
    fn every_reason_is_listed() {
        let sources = [
            include_str!("../engine.rs"),
            include_str!("../process/assemble.rs"),
            include_str!("../process/folders.rs"),
            include_str!("../process/keys.rs"),
            include_str!("../process/memory.rs"),
            include_str!("../process/socket.rs"),
            include_str!("../order/failure.rs"),
            include_str!("../../conf/reason.rs"),
            include_str!("../../preload/attach.rs"),
            include_str!("../../preload/init.rs"),
            include_str!("../../preload/start.rs"),
        ];
        let mut found = 0;
        for line in sources.iter().flat_map(|text| text.lines()).filter(|line| !line.trim_start().starts_with("//")) {
            let reasons = line.split('"').skip(1).step_by(2).filter(|text| {
                let begins = |word: &str| text.starts_with(word);
                ["failed to ", "invalid ", "the engine ", "the program "].into_iter().any(begins)
                    || text.ends_with(" not set")
            });
            for reason in reasons.filter(|text| !text.starts_with("failed to launch oss connector: ")) {
                found += 1;
                assert!(REASONS.iter().any(|(known, _)| reason.starts_with(known)), "not listed: {reason}");
            }
        }
        assert!(found > 20, "only {found} found: is the code written in another manner now?");
    }
}
