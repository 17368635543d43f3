//! The lease thread: looks again and again at what no program uses, and ends versions that no listing names.
//!
//! Run by the engine; versions also end when the mirror has no room for new records. A version ends when the kernel says
//! (write leases on memory file and placeholder) that no program has it open or mapped: then its parts, memory,
//! descriptors and names are given back.

use crate::lock::lock;
use crate::work::Work;
use crate::work::residency::lease::Found;
use crate::work::residency::unused::Unused;
use crate::work::shared::entry::RegisterEntry;
use ossc_cache::part::FILLING;
use ossc_cache::region::{Full, NewObject, Object, RecordKind, RecordSpace};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often leases are looked at: an idle engine wakes up less than once a second.
const TICK: Duration = Duration::from_millis(1300);

/// The thread, for ever. `is_nearby` looks for programs that run for this MODEL_DIR and are no clients yet; `after` is
/// called after each look.
pub fn run(work: &Work, expire: Option<Duration>, is_nearby: &dyn Fn() -> bool, after: &mut dyn FnMut()) {
    let mut wait = TICK;
    loop {
        std::thread::sleep(wait);
        wait = look(work, expire, is_nearby).map_or(TICK, |soonest| soonest.min(TICK));
        after();
    }
}

/// Looks at the machine's memory, and at every large object once: what is unused for `expire` is given back, at once
/// where programs wait for memory, and old versions that no program uses end. The time until the first of those that
/// are unused now has been so long enough, if there is one.
pub fn look(work: &Work, expire: Option<Duration>, is_nearby: &dyn Fn() -> bool) -> Option<Duration> {
    let _alone = lock(&work.looking);
    end_unused_versions(work);
    work.objects.end_rest();
    // Before the kernel takes the pages of programs.
    let expire = if work.residency.look_at_memory() { Some(Duration::ZERO) } else { expire };
    let look = work.residency.begin_look(expire, is_nearby);
    let large = work.residency.to_look_at();
    let look_at = |(slot, entry): (u32, Arc<RegisterEntry>)| {
        let object = work.region().object(slot)?;
        match work.residency.look_at(&look, (slot, object, &entry)) {
            Found::Wait(wait) => wait,
            Found::Old(unused) => {
                end_version(work, (slot, object, &entry), unused);
                None
            }
        }
    };
    large.into_iter().filter_map(look_at).min()
}

/// What a user's wish for memory has come to.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct GivenBack {
    /// Objects of which something was given back, and their bytes.
    pub objects: u64,
    pub bytes: u64,
    /// Those that stay, with the bytes that are here: a program uses them, or they are being fetched.
    pub kept: Vec<(String, u64)>,
    /// Large objects that the wish was for, also those that are not here.
    pub named: u64,
}

/// Gives back what no program uses of the objects whose paths `is_named` says of, as if it had been unused for long.
pub fn give_back(work: &Work, is_named: impl Fn(&str) -> bool) -> GivenBack {
    let _alone = lock(&work.looking);
    let mut given = GivenBack::default();
    for (slot, entry) in work.register.large_if(|_, _| true) {
        let Some(object) = work.region().object(slot) else { continue };
        let name = work.region().name(object).to_string();
        if !is_named(&name) {
            continue;
        }
        given.named += 1;
        let (had, gone) = work.residency.drop_object((slot, object, &entry));
        given.bytes += gone;
        given.objects += u64::from(gone > 0);
        if gone > 0 {
            tracing::info!(object = entry.key, bytes = gone, "given back: `ossc drop` asks for it");
        }
        if gone < had {
            given.kept.push((name, had - gone));
        }
    }
    given
}

/// Room for a record. Where there is none, versions that no program uses are ended first.
///
/// # Errors
/// Which array of the region is full of what is in use.
pub fn reserve(work: &Work, new: &NewObject<'_>) -> Result<RecordSpace, Full> {
    let first = work.objects.reserve(new);
    if first.is_ok() || first == Err(Full::Etag) {
        return first;
    }
    let alone = lock(&work.looking);
    end_unused_versions(work);
    drop(alone);
    work.objects.reserve_of_all(new)
}

/// Ends all superseded versions that no program uses. The caller holds `looking`.
fn end_unused_versions(work: &Work) {
    for slot in work.objects.superseded() {
        let Some(object) = work.region().object(slot) else { continue };
        let Some(entry) = work.entry(slot) else {
            work.objects.end_unregistered(slot, object);
            continue;
        };
        match object.kind() {
            RecordKind::Large => {
                let busy = (0..object.parts()).any(|index| work.region().part(object, index).state() == FILLING);
                let unused = if busy {
                    None
                } else {
                    Unused::prove(object, &entry, work.region().traces(object)).filter(Unused::is_closed)
                };
                if let Some(unused) = unused {
                    end_version(work, (slot, object, &entry), unused);
                }
            }
            _ if work.objects.ends_small(slot, object, &entry) => {
                forget(work, slot, object);
                work.objects.rest(slot);
            }
            _ => {}
        }
    }
}

/// Ends a large version that no program uses. What is under way keeps it for another look.
pub(crate) fn end_version(work: &Work, (slot, object, entry): (u32, &Object, &RegisterEntry), unused: Unused) {
    let void = || work.objects.void_superseded(slot, object);
    if !work.residency.empty_version((slot, object, entry), unused, void) {
        return;
    }
    entry.memory.iter().for_each(|memory| memory.unlink());
    work.region().header().large_bytes.fetch_sub(object.size(), Ordering::Relaxed);
    forget(work, slot, object);
    tracing::info!(
        object = entry.key,
        etag = entry.etag,
        bytes = entry.size,
        "dropped: an old version that nobody uses"
    );
    work.objects.rest(slot);
}

/// Nothing of the engine's names the record any more.
fn forget(work: &Work, slot: u32, object: &Object) {
    if let Some(entry) = work.objects.forget(slot, object) {
        work.residency.forget(slot, &entry);
    }
    work.scheduling.forget(|item| item.is_of(slot));
}

#[cfg(test)]
#[path = "leases_idle_tests.rs"]
mod idle_tests;
#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
