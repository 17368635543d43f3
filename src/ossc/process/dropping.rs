//! A user's wish for memory: what no program uses is given back, on a thread of its own, since that takes a while.
//!
//! Called by the attach server, which goes on meanwhile. It never disturbs a reader: what a program has open or mapped stays.

use crate::process::report;
use crate::work::Work;
use crate::work::leases::{self, GivenBack};
use ossc_cache::wire::{self, NO_FDS};
use serde_json::{Value, json};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// Gives back what lies at or below a path, or all where that is empty, and answers.
///
/// # Errors
/// The errno of what keeps a thread from being made: the asker is told.
pub fn answer(work: Arc<Work>, path: String, conn: OwnedFd) -> Result<(), i32> {
    let run = move || {
        let given = as_json(&leases::give_back(&work, |name| is_in(name, &path)));
        let sent = match report::file(&given) {
            Ok(file) => wire::answer(conn.as_raw_fd(), 0, 0, b"", [file.as_raw_fd(), -1, -1, -1]),
            Err(errno) => wire::answer(conn.as_raw_fd(), errno, 0, b"", NO_FDS),
        };
        if let Err(errno) = sent {
            tracing::debug!(errno = errno.0, "a wish for memory was not answered");
        }
    };
    let thread = std::thread::Builder::new().name("ossc-drop".into()).stack_size(256 << 10).spawn(run);
    thread.map(drop).map_err(|e| e.raw_os_error().unwrap_or(libc::EAGAIN))
}

fn as_json(given: &GivenBack) -> Value {
    let kept: Vec<Value> = given.kept.iter().map(|(name, bytes)| json!({"name": name, "bytes": bytes})).collect();
    json!({"objects": given.objects, "bytes": given.bytes, "named": given.named, "kept": kept})
}

/// True for a path that is this one, or lies below it.
pub fn is_in(path: &str, above: &str) -> bool {
    above.is_empty() || path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_names_what_lies_below() {
        assert!(is_in("a/b.bin", "") && is_in("a/b.bin", "a") && is_in("a", "a"));
        assert!(!is_in("ab", "a") && !is_in("a", "a/b.bin"));
    }
}
