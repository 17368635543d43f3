//! Versions that come and go: what is bounded, what is refused, and what a successor makes of them.

use super::*;
use crate::work::still::{self, Random, new};
use crate::work::takeover;
use ossc_cache::region::{Identity, PARTS_MAX, state};
use ossc_store::catalog::REST;

const FOREVER: Option<Duration> = None;

#[test]
fn an_old_version_ends_when_nobody_has_it_open() {
    let work = still::work(1 << 20);
    let region = *work.region();
    let (old, users) = still::object(&work, "w", 1, 4);
    let object = region.object(old).unwrap();
    let before = object.seen().unwrap();
    users.store(1, Ordering::Relaxed);
    let (next, _) = still::object(&work, "w", 2, 4);
    work.objects.supersede(old);
    for _ in 0..5 {
        still::pass(Duration::from_secs(60));
        look(&work, FOREVER, &|| false);
    }
    assert!(object.lasts(before) && object.state() == state::VERIFIED, "a version in use was ended");
    assert_eq!(work.gauges().budget_used, 8 * 4096);
    users.store(0, Ordering::Relaxed);
    look(&work, FOREVER, &|| false);
    assert!(!object.lasts(before) && work.entry(old).is_none());
    assert_eq!((region.find(9, 1), region.find(9, 2)), (None, Some((next, Identity::Placeholder))));
    assert_eq!(work.gauges().budget_used, 4 * 4096);
    assert_eq!(region.header().ready_bytes.load(Ordering::Relaxed), 4 * 4096);
}

/// A request that is being prepared, under way or being finished keeps its record, and what comes late changes nothing
/// of a record that is GONE.
#[test]
fn a_request_keeps_its_record() {
    let work = still::work(1 << 20);
    let region = *work.region();
    let (old, _) = still::object(&work, "w", 1, 4);
    let (object, entry) = (region.object(old).unwrap(), work.entry(old).unwrap());
    entry.begin_request();
    work.objects.supersede(old);
    look(&work, FOREVER, &|| false);
    assert_eq!(object.state(), state::GONE, "nobody begins to read it");
    assert!(work.entry(old).is_some());
    still::pass(2 * REST);
    let (other, _) = still::object(&work, "x", 2, 4);
    assert_ne!(other, old, "a record with a request was used again");
    object.set_state(state::VERIFIED);
    object.fail(libc::EIO);
    assert_eq!(object.state(), state::GONE, "a late end of a request has brought it back");
    entry.end_request();
    look(&work, FOREVER, &|| false);
    assert!(work.entry(old).is_none());
    still::pass(2 * REST);
    assert_eq!(still::object(&work, "y", 3, 4).0, old);
}

#[test]
fn a_full_catalog_takes_what_nobody_uses_and_refuses_only_then() {
    let work = still::work(1 << 40);
    let third = PARTS_MAX / 3;
    let first = [1, 2, 3]
        .map(|ino| work.objects.publish(reserve(&work, &new("w", ino, third)).unwrap(), &new("w", ino, third), 0));
    let users = first.map(|slot| {
        let mut entry = RegisterEntry::new("w".into(), "\"E\"".into(), 1, 1, (String::new(), "w".into()));
        let users = Arc::new(std::sync::atomic::AtomicU32::new(1));
        entry.memory = Some(Box::new(still::opened_by(users.clone())));
        work.add_object(slot, entry);
        work.objects.supersede(slot);
        users
    });
    assert_eq!(reserve(&work, &new("w", 4, third)), Err(Full::Parts), "all are in use");
    users[1].store(0, Ordering::Relaxed);
    let room = reserve(&work, &new("w", 4, third)).expect("room of the version that nobody uses");
    assert_eq!(work.region().object(first[1]).unwrap().state(), state::GONE);
    assert!([first[0], first[2]].iter().all(|slot| work.region().object(*slot).unwrap().state() == state::LOADING));
    work.objects.give_room_back(room, "w");
}

/// Random versions, users and successors: what is counted as used is what living versions have, and each descriptor
/// finds its own version or nothing.
#[test]
fn what_is_counted_is_what_lives() {
    let mut random = Random(11);
    let mut work = still::work(1 << 30);
    let region = *work.region();
    let mut living: Vec<(u32, u64, u32, Arc<std::sync::atomic::AtomicU32>)> = Vec::new();
    let mut newest: std::collections::BTreeMap<u64, u32> = Default::default();
    for ino in 1..3000u64 {
        still::pass(Duration::from_millis(random.below(4000)));
        let (path, parts) = (random.below(5), 1 + random.below(20) as u32);
        let (slot, users) = still::object(&work, &format!("w{path}"), ino, parts);
        users.store(random.below(2) as u32, Ordering::Relaxed);
        newest.insert(path, slot).into_iter().for_each(|old| work.objects.supersede(old));
        living.push((slot, ino, parts, users));
        if random.below(10) == 0 {
            living.iter().for_each(|(.., users)| users.store(random.below(2) as u32, Ordering::Relaxed));
        }
        if random.below(100) == 0 {
            work = succeed(&region, &newest, &living);
        }
        look(&work, FOREVER, &|| false);
        living.retain(|(slot, ..)| work.entry(*slot).is_some());
        let parts: u64 = living.iter().map(|(_, _, parts, _)| u64::from(*parts)).sum();
        assert_eq!(work.gauges().budget_used, parts * 4096, "version {ino}");
        assert_eq!(region.header().ready_bytes.load(Ordering::Relaxed), parts * 4096, "version {ino}");
        for (slot, ino, ..) in &living {
            let found = region.find(9, *ino);
            assert!(found.is_none() || found == Some((*slot, Identity::Placeholder)), "{found:?} for {ino}");
        }
    }
    assert!(region.objects_len() < 1100, "{} records", region.objects_len());
}

/// As the mirror takes over: what lies at its place no more is old.
fn succeed(
    region: &ossc_cache::region::Region,
    newest: &std::collections::BTreeMap<u64, u32>,
    living: &[(u32, u64, u32, Arc<std::sync::atomic::AtomicU32>)],
) -> Arc<Work> {
    let work = still::on(*region, 1 << 30);
    work.objects.adopt_catalog();
    for (slot, _, _, users) in living {
        let object = region.object(*slot).unwrap();
        let mut entry = RegisterEntry::new("w".into(), "\"E\"".into(), object.size(), 1, (String::new(), "w".into()));
        entry.memory = Some(Box::new(still::opened_by(users.clone())));
        if newest.values().any(|newest| newest == slot) {
            takeover::adopt(&work, *slot, object, entry);
        } else {
            takeover::adopt_old(&work, *slot, object, entry);
            assert!(object.seen().is_none());
        }
    }
    work
}

/// The lease thread has found an old version unused, and the mirror keeps it on: the version stays.
#[test]
fn a_version_that_is_kept_on_does_not_end() {
    let work = still::work(1 << 20);
    let (slot, _) = still::object(&work, "w", 1, 4);
    let (object, entry) = (work.region().object(slot).unwrap(), work.entry(slot).unwrap());
    let before = object.seen().unwrap();
    work.objects.supersede(slot);
    let unused = Unused::prove(object, &entry, work.region().traces(object)).unwrap();
    assert!(!work.objects.keep_on(slot, before + 1), "that use of the record is another version's");
    assert!(object.is_superseded());
    assert!(work.objects.keep_on(slot, before));
    end_version(&work, (slot, object, &entry), unused);
    look(&work, FOREVER, &|| false);
    assert!(object.lasts(before) && !object.is_superseded() && work.entry(slot).is_some());
    work.objects.supersede(slot);
    look(&work, FOREVER, &|| false);
    assert!(!object.lasts(before) && !work.objects.keep_on(slot, before));
}
