//! What the requests of an engine came to since its start, for reports of it and for the line that ends a load.
//!
//! Counted by the wings and by the work on vcpu threads; read by the report and by the summary. It decides nothing.

use crate::lock::lock;
use crate::work::shared::item::Item;
use ossc_net::error::FailureKind;
use ossc_net::{Error, Finished};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// See the module.
#[derive(Default)]
pub struct Counters {
    /// Requests for a piece that was slow, the second time.
    pub hedges: AtomicU64,
    /// Bytes that they asked for.
    pub hedged_bytes: AtomicU64,
    /// Rounds of an object, and parts that came again, whose bytes did not match.
    pub mismatches: AtomicU64,
    /// Bytes that had come before, and were fetched again after a mismatch or a release.
    pub refetched_bytes: AtomicU64,
    /// First opens of large objects by processes, the sizes of those, and what of that was in memory.
    pub opens: AtomicU64,
    /// See `opens`.
    pub opened_bytes: AtomicU64,
    /// See `opens`.
    pub hit_bytes: AtomicU64,
    /// Folders that could not be listed when that was tried last.
    pub folders_not_listed: AtomicU64,
    /// Failed requests by kind.
    failures: Mutex<BTreeMap<&'static str, u64>>,
    /// Since the last `take_span`.
    span: Mutex<Option<Span>>,
}

/// What requests have come to that follow each other.
#[derive(Clone, Debug)]
pub struct Span {
    /// Begin of the first one.
    pub begin: Instant,
    /// End of the last one.
    pub end: Instant,
    /// Records whose bytes they brought.
    pub records: BTreeSet<u32>,
}

impl Span {
    /// With what came later.
    pub fn and(mut self, mut later: Span) -> Span {
        self.records.append(&mut later.records);
        Span { begin: self.begin.min(later.begin), end: later.end, records: self.records }
    }
}

impl Counters {
    /// A request has ended at `now`.
    pub fn ended(&self, done: &Finished, now: Instant) {
        if let Err(error) = &done.result {
            *lock(&self.failures).entry(kind(error)).or_default() += 1;
        }
        let begin = now.checked_sub(done.elapsed).unwrap_or(now);
        let mut span = lock(&self.span);
        let span = span.get_or_insert_with(|| Span { begin, end: now, records: BTreeSet::new() });
        (span.begin, span.end) = (span.begin.min(begin), now);
        let item = Item::from_token(done.token);
        if done.result.is_ok() && item.is_of_bytes() {
            span.records.insert(item.record());
        }
    }

    /// A slow piece is asked for a second time.
    pub fn hedged(&self, bytes: u64) {
        self.hedges.fetch_add(1, Ordering::Relaxed);
        self.hedged_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A process has opened a large object of `size` bytes, of which so many were in memory.
    pub fn opened(&self, size: u64, ready: u64) {
        self.opens.fetch_add(1, Ordering::Relaxed);
        self.opened_bytes.fetch_add(size, Ordering::Relaxed);
        self.hit_bytes.fetch_add(ready.min(size), Ordering::Relaxed);
    }

    /// Failed requests by kind, the kinds in alphabetical order.
    pub fn failures(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.failures).clone()
    }

    /// What the requests since this was called last have come to.
    pub fn take_span(&self) -> Option<Span> {
        lock(&self.span).take()
    }
}

/// The kind of a failure, as reports and metrics name it.
fn kind(error: &Error) -> &'static str {
    match error.kind {
        FailureKind::Local => "local",
        FailureKind::Shortage => "shortage",
        FailureKind::Memory => "memory",
        FailureKind::Config => "config",
        FailureKind::Resolve => "resolve",
        FailureKind::Network => "network",
        FailureKind::Tls => "tls",
        FailureKind::Timeout => "timeout",
        FailureKind::Protocol => "protocol",
        FailureKind::Auth => "auth",
        FailureKind::Permission => "permission",
        FailureKind::Clock => "clock",
        FailureKind::Throttled => "throttled",
        FailureKind::NotFound => "not_found",
        FailureKind::Changed => "changed",
        FailureKind::Range => "range",
        FailureKind::Archived => "archived",
        FailureKind::Corrupt => "corrupt",
        FailureKind::Server => "server",
        FailureKind::Rejected => "rejected",
        FailureKind::Cancelled => "cancelled",
    }
}
