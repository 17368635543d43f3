//! A vcpu's turn at the plan ends, whatever readers do meanwhile.

use super::*;
use crate::work::still;
use ossc_cache::sys::Errno;
use std::sync::atomic::AtomicU32;

#[test]
fn a_turn_ends_though_readers_ask_faster_than_room_is_looked_for() {
    let work = still::work(4 * 4096);
    let wanted = still::add(&work, &still::new("wanted", 2, 2), still::opened_by(Arc::default()));
    let asked = [Item::Part(wanted, 0), Item::Part(wanted, 1)];
    let looks = Arc::new(AtomicU32::new(0));
    let (looked, readers) = (looks.clone(), Arc::downgrade(&work));
    // It takes long to be refused a lease, and meanwhile the readers of the other object ask again.
    let refused = move || {
        assert!(looked.fetch_add(1, Ordering::Relaxed) < 100, "the turn does not end");
        still::pass(Duration::from_millis(1));
        readers.upgrade().unwrap().scheduling.push(&asked, Class::Near);
        Err(Errno(libc::EAGAIN))
    };
    let mapped = still::add(&work, &still::new("mapped", 1, 4), still::Empty(refused));
    still::fill(&work, mapped);
    // A program has mapped all of it.
    let object = work.region().object(mapped).unwrap();
    (0..4).for_each(|index| work.region().part(object, index).pin());
    work.scheduling.push(&asked, Class::Near);
    let begin = still::now();
    assert!(matches!(work.pull(begin), Pull::Until(Some(at)) if at <= begin), "the connections have to wait");
    assert!(looks.load(Ordering::Relaxed) > 1, "nothing was looked for: this test shows nothing");
}
