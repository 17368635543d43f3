//! The line that ends a load: what came, how fast, and at what price.
//!
//! Called by the lease thread after each of its looks. It changes nothing.

use crate::work::Work;
use ossc_cache::region::{RecordKind, state};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What had come when the last line was written.
#[derive(Default)]
pub struct Summary {
    told: Numbers,
    /// Begin of the first request and end of the last one since then.
    span: Option<(Instant, Instant)>,
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
}

impl Summary {
    /// Writes the line if bytes of large objects have come since the last one and nothing more is on its way.
    pub fn look(&mut self, work: &Work) {
        if let Some((first, last)) = work.register.counters.take_span() {
            self.span = Some(self.span.map_or((first, last), |(begun, _)| (begun, last)));
        }
        let Some((first, last)) = self.span else { return };
        let gauges = work.gauges();
        if gauges.planned + gauges.flights + gauges.hedges > 0 || gauges.small_bytes > 0 {
            return;
        }
        self.span = None;
        let (now, before) = (Numbers::of(work), self.told);
        self.told = now;
        let (objects, verified, large) = whole(work);
        // A listing that is renewed, or a check value that is asked for, is no load.
        if large == 0 || now.bytes - before.bytes < work.register.options.part_bytes_max {
            return;
        }
        let (bytes, secs) = (now.bytes - before.bytes, last.saturating_duration_since(first).as_secs_f64());
        tracing::info!(
            objects,
            bytes,
            seconds = format!("{secs:.3}"),
            gb_per_s = format!("{:.3}", bytes as f64 / 1e9 / secs.max(1e-9)),
            requests = now.requests - before.requests,
            retries = now.retries - before.retries,
            throttled = now.throttled - before.throttled,
            hedges = now.hedges - before.hedges,
            hedged_bytes = now.hedged_bytes - before.hedged_bytes,
            refetched_bytes = now.refetched_bytes - before.refetched_bytes,
            mismatches = now.mismatches - before.mismatches,
            verified = format!("{verified} of {large}"),
            peak_memory = work.residency.budget_peak(),
            "load finished"
        );
    }
}

/// Objects that are here as a whole, those of them that are large and verified, and all large ones that were asked for.
fn whole(work: &Work) -> (u64, u64, u64) {
    let region = work.region();
    let (mut objects, mut verified, mut large) = (0, 0, 0);
    for object in (0..region.objects_len()).filter_map(|slot| region.object(slot)) {
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
