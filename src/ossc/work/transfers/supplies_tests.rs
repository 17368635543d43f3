//! A part that another place than OSS brings, or fails to: what the work makes of it.

use super::*;
use crate::work::Work;
use crate::work::shared::memory::{Guard, Memory};
use crate::work::still;
use ossc_cache::region::state;
use ossc_cache::sys::{self, Errno};
use ossc_net::{Finished, Pull, Query, Response, Source};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const PART: usize = 4096;

/// Takes every part on, and hands it to the test.
struct Shelf(Sender<WantedPart>);

impl Supply for Shelf {
    fn name(&self) -> &'static str {
        "shelf"
    }

    fn take_on(&self, wanted: WantedPart) -> Result<(), WantedPart> {
        self.0.send(wanted).map_err(|error| error.0)
    }
}

/// Has nothing.
struct Nothing;

impl Supply for Nothing {
    fn name(&self) -> &'static str {
        "nothing"
    }

    fn take_on(&self, wanted: WantedPart) -> Result<(), WantedPart> {
        Err(wanted)
    }
}

/// Memory with bytes.
struct Bytes(usize);

impl Memory for Bytes {
    fn address(&self, offset: u64) -> *mut u8 {
        (self.0 + offset as usize) as *mut u8
    }
    fn file(&self) -> Option<i32> {
        None
    }
    fn populate(&self, _: u64, _: u64) -> sys::Result<()> {
        Ok(())
    }
    fn write_small(&self, _: u64, _: &[u8]) -> sys::Result<()> {
        Err(Errno(libc::ENOSYS))
    }
    fn read(&self, _: u64, _: &mut [u8]) -> sys::Result<()> {
        Err(Errno(libc::ENOSYS))
    }
    fn punch(&self, _: u64, _: u64) {}
    fn unmap_pages(&self, _: u64, _: u64) {}
    fn lease(&self) -> sys::Result<Box<dyn Guard>> {
        Err(Errno(libc::EAGAIN))
    }
    fn reopen_read_only(&self) -> sys::Result<i32> {
        Err(Errno(libc::ENOSYS))
    }
}

/// An engine with two supplies, of which the second takes everything on, and an object of two parts.
fn engine() -> (Arc<Work>, Receiver<WantedPart>, u32, &'static [u8]) {
    let (sender, taken) = channel();
    let work = still::supplied(1 << 20, vec![Box::new(Nothing), Box::new(Shelf(sender))]);
    let memory: &'static mut [u8] = Box::leak(vec![0; 2 * PART].into_boxed_slice());
    let at = memory.as_mut_ptr() as usize;
    let slot = still::add(&work, &still::new("w", 1, 2), Bytes(at));
    (work, taken, slot, memory)
}

fn bytes(index: u64) -> Vec<u8> {
    (0..PART as u64).map(|at| (at * 7 + index) as u8).collect()
}

fn whole() -> u64 {
    crc::of(&[bytes(0), bytes(1)].concat())
}

/// The next request for OSS, with its item; `None` if there is none.
fn pulled(work: &Work) -> Option<(Item, Query)> {
    match work.pull(still::now()) {
        Pull::Fetch(fetch) => Some((Item::from_token(fetch.token), fetch.query)),
        Pull::Until(_) => None,
    }
}

fn answered(work: &Work, item: Item, response: Response) {
    let result = Ok(response);
    let elapsed = Duration::from_millis(1);
    let hint = ossc_net::retry::Hint::No;
    work.finished(Finished {
        token: item.token(),
        range: None,
        result,
        body: Vec::new(),
        partial: None,
        retry_hint: hint,
        elapsed,
        worker: 0,
    });
}

#[test]
fn a_part_that_another_place_brings_is_published_and_oss_gives_the_verdict() {
    let (work, taken, slot, memory) = engine();
    let object = work.region().object(slot).unwrap();
    work.prefetch(&[slot]);
    assert!(pulled(&work).is_none(), "OSS is asked for what another place brings");
    for index in 0..2 {
        let heard = work.region().doorbell().heard();
        let mut wanted = taken.try_recv().unwrap();
        assert_eq!((wanted.key(), wanted.etag(), wanted.size()), ("w", "\"E\"", 2 * PART as u64));
        assert_eq!(wanted.range(), index * PART as u64..(index + 1) * PART as u64);
        let body = bytes(index);
        body.chunks(1000).for_each(|bytes| wanted.put(bytes).unwrap());
        assert!(work.entry(slot).unwrap().has_requests());
        drop(wanted);
        assert_ne!(work.region().doorbell().heard(), heard, "the demand thread is not woken");
        work.supplied();
    }
    assert_eq!(memory, [bytes(0), bytes(1)].concat());
    assert_eq!(object.ready_parts.load(std::sync::atomic::Ordering::Acquire), 2);
    assert_eq!(object.state(), state::LOADING, "it was judged by nothing that OSS said");
    let (item, query) = pulled(&work).expect("OSS is asked for the check value");
    assert!(matches!(query, Query::Head { ref key } if key == "w"));
    answered(&work, item, Response { crc64_object: Some(whole()), ..Response::default() });
    assert_eq!((object.state(), object.verified()), (state::VERIFIED, Some(true)));
    assert!(!work.entry(slot).unwrap().has_requests());
}

#[test]
fn what_another_place_fails_to_bring_is_asked_of_oss() {
    let (work, taken, slot, _) = engine();
    work.prefetch(&[slot]);
    assert!(pulled(&work).is_none());
    let mut wanted = taken.try_recv().unwrap();
    wanted.put(&bytes(0)[..PART / 2]).unwrap();
    drop(wanted);
    let other = taken.try_recv().unwrap();
    work.supplied();
    let (item, query) = pulled(&work).expect("OSS is not asked");
    assert_eq!(item, Item::Part(slot, 0));
    assert!(matches!(query, Query::Get { range: Some(ref range), .. } if *range == (0..PART as u64)), "{query:?}");
    assert!(taken.try_recv().is_err(), "it was asked for the same part again");
    drop(other);
}

#[test]
fn wrong_bytes_of_another_place_are_fetched_again_from_oss() {
    let (work, taken, slot, _) = engine();
    work.prefetch(&[slot]);
    assert!(pulled(&work).is_none());
    for index in [1, 0] {
        let mut wanted = taken.try_recv().unwrap();
        // In the other order.
        wanted.put(&bytes(index)).unwrap();
        drop(wanted);
        work.supplied();
    }
    let (item, _) = pulled(&work).expect("OSS is asked for the check value");
    answered(&work, item, Response { crc64_object: Some(whole()), ..Response::default() });
    let object = work.region().object(slot).unwrap();
    assert_eq!(object.ready_parts.load(std::sync::atomic::Ordering::Acquire), 0, "wrong bytes are still there");
    let items: Vec<Item> = std::iter::from_fn(|| pulled(&work)).map(|(item, _)| item).collect();
    assert_eq!(items, [Item::Part(slot, 0), Item::Part(slot, 1)]);
    assert!(taken.try_recv().is_err(), "it was asked again");
}

#[test]
#[should_panic(expected = "more bytes than were wanted")]
fn no_byte_goes_beyond_a_part() {
    let (work, taken, slot, _) = engine();
    work.prefetch(&[slot]);
    assert!(pulled(&work).is_none());
    let mut wanted = taken.try_recv().unwrap();
    let _ = wanted.put(&[0; PART + 1]);
}
