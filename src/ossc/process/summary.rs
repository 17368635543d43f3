//! A load in figures: what came, how fast, and at what price. They are a line of the log when the load ends, and part of
//! what the engine says of itself.
//!
//! Called by the lease thread after each of its looks, and by the attach server for a report. It changes nothing.

use crate::lock::lock;
use crate::work::Work;
use crate::work::shared::counters::Span;
use ossc_cache::region::{RecordKind, state};
use ossc_cache::sys;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A load has ended when nothing was asked for so long: between two files a program may want nothing for a moment.
const QUIET: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub struct Summary(Mutex<Loads>);

/// What had come when the last line was written.
#[derive(Default)]
struct Loads {
    told: Numbers,
    /// The requests since then.
    span: Option<Span>,
    /// The load that ended last, and how many have.
    last: Option<Figures>,
    count: u64,
}

#[derive(Clone, Copy, Default)]
struct Numbers {
    bytes: u64,
    requests: u64,
    retries: u64,
    throttled: u64,
    hedges: u64,
    hedged_bytes: u64,
    refetched_bytes: u64,
    mismatches: u64,
}

impl Numbers {
    fn of(work: &Work) -> Numbers {
        let (header, counters) = (work.region().header(), &work.register.counters);
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        Numbers {
            bytes: load(&header.origin_bytes),
            requests: load(&header.origin_requests),
            retries: load(&header.origin_retries),
            throttled: counters.failures().get("throttled").copied().unwrap_or(0),
            hedges: load(&counters.hedges),
            hedged_bytes: load(&counters.hedged_bytes),
            refetched_bytes: load(&counters.refetched_bytes),
            mismatches: load(&counters.mismatches),
        }
    }

    fn since(self, before: Numbers) -> Numbers {
        Numbers {
            bytes: self.bytes - before.bytes,
            requests: self.requests - before.requests,
            retries: self.retries - before.retries,
            throttled: self.throttled - before.throttled,
            hedges: self.hedges - before.hedges,
            hedged_bytes: self.hedged_bytes - before.hedged_bytes,
            refetched_bytes: self.refetched_bytes - before.refetched_bytes,
            mismatches: self.mismatches - before.mismatches,
        }
    }
}

/// One load, whole or until now.
#[derive(Clone, Copy)]
struct Figures {
    came: Numbers,
    secs: f64,
    objects: u64,
    verified: u64,
    large: u64,
    peak_memory: u64,
    folders_not_listed: u64,
}

impl Figures {
    fn gb_per_s(&self) -> f64 {
        self.came.bytes as f64 / 1e9 / self.secs.max(1e-9)
    }

    fn tell(&self) {
        let Figures { came, secs, objects, verified, large, peak_memory, folders_not_listed } = *self;
        tracing::info!(
            objects,
            bytes = came.bytes,
            seconds = format!("{secs:.3}"),
            gb_per_s = format!("{:.3}", self.gb_per_s()),
            requests = came.requests,
            retries = came.retries,
            throttled = came.throttled,
            hedges = came.hedges,
            hedged_bytes = came.hedged_bytes,
            refetched_bytes = came.refetched_bytes,
            mismatches = came.mismatches,
            verified = format!("{verified} of {large}"),
            peak_memory,
            folders_not_listed,
            "load finished"
        );
    }

    fn as_json(&self) -> Value {
        let Figures { came, secs, objects, verified, large, peak_memory, folders_not_listed } = *self;
        json!({
            "objects": objects,
            "bytes": came.bytes,
            "seconds": secs,
            "gb_per_s": self.gb_per_s(),
            "requests": came.requests,
            "retries": came.retries,
            "throttled": came.throttled,
            "hedges": came.hedges,
            "hedged_bytes": came.hedged_bytes,
            "refetched_bytes": came.refetched_bytes,
            "mismatches": came.mismatches,
            "verified": verified,
            "large": large,
            "peak_memory_bytes": peak_memory,
            "folders_not_listed": folders_not_listed,
        })
    }
}

impl Summary {
    /// Writes the line if bytes of large objects have come since the last one and nothing more is on its way.
    pub fn look(&self, work: &Work) {
        lock(&self.0).look(work);
    }

    /// For the report: how much of what was asked for is here, the load that goes on, and the one that ended last.
    pub fn report(&self, work: &Work) -> Value {
        lock(&self.0).report(work)
    }
}

impl Loads {
    fn look(&mut self, work: &Work) {
        let Some(figures) = self.so_far(work) else { return };
        let is_quiet = |span: &Span| work.register.now().saturating_duration_since(span.end) >= QUIET;
        if !self.span.as_ref().is_some_and(is_quiet) || !work.gauges().is_at_rest() {
            return;
        }
        self.span = None;
        self.told = Numbers::of(work);
        // A listing that is renewed, or a check value that is asked for, is no load.
        if figures.large > 0 && figures.came.bytes >= work.register.options.part_bytes_max {
            figures.tell();
            self.count += 1;
            self.last = Some(figures);
        }
    }

    fn report(&mut self, work: &Work) -> Value {
        let (wanted, so_far) = (work.wanted(), self.so_far(work));
        json!({
            "objects": wanted.objects,
            "bytes": wanted.bytes,
            "here_bytes": wanted.here_bytes,
            "received_bytes": work.scheduling.received_bytes(),
            // Of the engine's clock: the report may come late.
            "received_at_us": sys::now_us(),
            "so_far": so_far.map(|figures| figures.as_json()),
            "finished": self.count,
            "last": self.last.map(|figures| figures.as_json()),
        })
    }

    /// What has come since the last line, if anything has.
    fn so_far(&mut self, work: &Work) -> Option<Figures> {
        if let Some(later) = work.register.counters.take_span() {
            self.span = Some(match self.span.take() {
                Some(span) => span.and(later),
                None => later,
            });
        }
        let span = self.span.as_ref()?;
        let (objects, verified, large) = whole(work, &span.records);
        Some(Figures {
            came: Numbers::of(work).since(self.told),
            secs: span.end.saturating_duration_since(span.begin).as_secs_f64(),
            objects,
            verified,
            large,
            peak_memory: work.residency.budget_peak(),
            folders_not_listed: work.register.counters.folders_not_listed.load(Ordering::Relaxed),
        })
    }
}

/// Of the objects whose bytes have come: how many are here as a whole, how many of them are large and verified, and how many
/// are large.
fn whole(work: &Work, records: &BTreeSet<u32>) -> (u64, u64, u64) {
    let region = work.region();
    let (mut objects, mut verified, mut large) = (0, 0, 0);
    for object in records.iter().filter_map(|slot| region.object(*slot)) {
        match (object.kind(), object.state()) {
            (RecordKind::Large, state::VERIFIED) => {
                objects += 1;
                large += 1;
                verified += u64::from(object.verified() == Some(true));
            }
            (RecordKind::Large, state::FAILED) => large += 1,
            (RecordKind::Large, state::LOADING) => large += u64::from(object.ready_parts.load(Ordering::Relaxed) > 0),
            (RecordKind::Small, state::PLACED) if !object.is_superseded() => objects += 1,
            _ => {}
        }
    }
    (objects, verified, large)
}
