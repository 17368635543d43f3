//! What readers of a little ask for, and what the plan has of it.

use super::*;
use crate::work::leases;
use crate::work::shared::item::Item;
use crate::work::still;
use ossc_cache::block;
use ossc_cache::part::EMPTY;
use ossc_cache::region::Region;
use ossc_cache::sys;
use std::sync::atomic::Ordering;
use std::time::Duration;

const PART: u32 = 1;
/// A block that one reader waits for, and so many that another one gets the part.
const FEW: Mask = 1 << 7;

/// Two readers wait for blocks of a part, and one of them for so many that all of the part is fetched. When the part has
/// been given back, the other one's block is asked for like any other.
#[test]
fn a_block_that_its_part_overtook_is_asked_for_again() {
    let files = sys::memfds(c"demand").unwrap();
    let work = still::with(Region::create(files, "/model", "/log").unwrap(), 1 << 20, 1);
    ossc_cache::wire::close_all(&files);
    let (slot, _) = still::object(&work, "w", 1, 4);
    work.entry(slot).unwrap().opened.store(true, Ordering::Release);
    let expire = Some(Duration::from_secs(1));
    let give_back = || {
        for _ in 0..3 {
            still::pass(Duration::from_secs(2));
            leases::look(&work, expire, &|| false);
        }
        let object = work.region().object(slot).unwrap();
        assert_eq!(work.region().part(object, PART).state(), EMPTY, "this test is of a part that was given back");
        work.scheduling.forget(|_| true);
        object.first_part() + PART
    };
    let region_part = give_back();
    wanted(&work, region_part, FEW | block::mask(40, 60));
    assert!(work.scheduling.has(Item::Part(slot, PART)), "many blocks are a part");
    still::fill(&work, slot);
    let region_part = give_back();
    wanted(&work, region_part, FEW);
    assert!(work.scheduling.has(Item::Blocks(slot, PART, 7, 1)), "nothing is fetched for this reader");
}
