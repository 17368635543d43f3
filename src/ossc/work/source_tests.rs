//! A vcpu's turn at the plan ends, whatever readers do meanwhile.

use super::*;
use crate::work::leases;
use crate::work::shared::memory::{Guard, Memory};
use crate::work::still;
use ossc_cache::region::NewObject;
use ossc_cache::sys::{self, Errno};
use std::sync::Weak;
use std::sync::atomic::AtomicU32;

/// Memory whose lease takes long to be refused, while the readers of another object ask again.
struct Slow {
    work: Weak<Work>,
    wanted: u32,
    looks: Arc<AtomicU32>,
    bare: still::Empty,
}

impl Memory for Slow {
    fn address(&self, at: u64) -> *mut u8 {
        self.bare.address(at)
    }
    fn file(&self) -> Option<i32> {
        None
    }
    fn populate(&self, _: u64, _: u64) -> sys::Result<()> {
        Ok(())
    }
    fn write_small(&self, _: u64, _: &[u8]) -> sys::Result<()> {
        Ok(())
    }
    fn read(&self, _: u64, _: &mut [u8]) -> sys::Result<()> {
        Ok(())
    }
    fn punch(&self, _: u64, _: u64) {}
    fn unmap_pages(&self, _: u64, _: u64) {}
    fn lease(&self) -> sys::Result<Box<dyn Guard>> {
        assert!(self.looks.fetch_add(1, Ordering::Relaxed) < 100, "the turn does not end");
        still::pass(Duration::from_millis(1));
        let asked = [Item::Part(self.wanted, 0), Item::Part(self.wanted, 1)];
        self.work.upgrade().unwrap().scheduling.push(&asked, Class::Near);
        Err(Errno(libc::EAGAIN))
    }
    fn reopen_read_only(&self) -> sys::Result<i32> {
        Err(Errno(libc::ENOSYS))
    }
}

#[test]
fn a_turn_ends_though_readers_ask_faster_than_room_is_looked_for() {
    let work = still::work(4 * 4096);
    let publish =
        |new: &NewObject<'_>| work.objects.publish(leases::reserve(&work, new).unwrap(), new, 1_000_000 + new.ino);
    let keep = |slot: u32, new: &NewObject<'_>, memory: Box<dyn Memory>| {
        let mut entry =
            RegisterEntry::new(new.name.into(), new.etag.into(), new.size, 1, (String::new(), new.name.into()));
        entry.memory = Some(memory);
        work.add_object(slot, entry);
    };
    let (wanted_new, mapped_new) = (still::new("wanted", 2, 2), still::new("mapped", 1, 4));
    let (wanted, mapped) = (publish(&wanted_new), publish(&mapped_new));
    let looks = Arc::new(AtomicU32::new(0));
    let bare = || still::Empty(Arc::default());
    keep(
        mapped,
        &mapped_new,
        Box::new(Slow { work: Arc::downgrade(&work), wanted, looks: looks.clone(), bare: bare() }),
    );
    keep(wanted, &wanted_new, Box::new(bare()));
    still::fill(&work, mapped);
    // A program has mapped all of it.
    let object = work.region().object(mapped).unwrap();
    (0..4).for_each(|index| work.region().part(object, index).pin());
    work.scheduling.push(&[Item::Part(wanted, 0), Item::Part(wanted, 1)], Class::Near);
    let begin = still::now();
    assert!(matches!(work.pull(begin), Pull::Until(Some(at)) if at <= begin), "the connections have to wait");
    assert!(looks.load(Ordering::Relaxed) > 1, "nothing was looked for: this test shows nothing");
}
