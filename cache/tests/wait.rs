//! What ends a wait: bytes, the verdict, an error of the object.

use ossc_cache::region::{NewObject, RecordKind, Region, state};
use ossc_cache::sys::{self, Errno, Result};
use ossc_cache::wait::{range, whole};

fn one(size: u64) -> (Region, u32) {
    let region = Region::create(sys::memfds(c"t").unwrap(), "/m", "/l").unwrap();
    let new = NewObject {
        kind: RecordKind::Large,
        state: state::LOADING,
        name: "a",
        etag: "",
        size,
        part_bytes: 10,
        mtime_secs: 0,
        dev: 1,
        ino: 2,
        folder: 0,
    };
    let slot = region.append(&new).unwrap();
    (region, slot)
}

#[test]
fn a_read_needs_its_parts_only_and_a_whole_file_the_verdict() {
    let (region, slot) = one(25);
    let object = region.object(slot).unwrap();
    let never = || -> Result<()> { Err(Errno(libc::EIO)) };
    region.part(object, 1).claim();
    region.part(object, 1).publish(0);
    assert_eq!(range(&region, object, 10, 20, &never), Ok(()));
    assert_eq!(range(&region, object, 9, 20, &never), Err(Errno(libc::EIO)));
    for index in [0, 2] {
        region.part(object, index).claim();
        region.part(object, index).publish(0);
    }
    assert_eq!(range(&region, object, 0, 25, &never), Ok(()));
    assert_eq!(whole(&region, object, &never), Err(Errno(libc::EIO)), "no verdict yet");
    object.set_state(state::VERIFIED);
    assert_eq!(whole(&region, object, &never), Ok(()));
}

#[test]
fn a_failed_object_gives_its_errno_to_a_reader_that_sleeps() {
    let (region, slot) = one(25);
    let object = region.object(slot).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| whole(&region, object, &|| Ok(())));
        std::thread::sleep(std::time::Duration::from_millis(20));
        object.fail(libc::ESTALE);
        assert_eq!(reader.join().unwrap(), Err(Errno(libc::ESTALE)));
    });
}
