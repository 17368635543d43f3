//! The moves of a part's state word, one thread at a time and with one sleeper.

use ossc_cache::part::{EMPTY, OwnPart, Part};

#[test]
fn only_one_filler() {
    let own = OwnPart::default();
    let part = own.part();
    assert!(part.claim());
    assert!(!part.claim());
    part.give_up();
    assert_eq!(part.state(), EMPTY);
    assert!(part.claim());
    part.publish(7);
    assert!(!part.claim(), "a ready part is never filled again");
    assert_eq!((part.crc64(), part.attempts()), (7, 2));
}

#[test]
fn a_reader_that_meant_to_sleep_does_not_keep_a_part_for_ever() {
    let own = OwnPart::default();
    let part = own.part();
    for leave in [Part::take_back, Part::retract] {
        assert!(part.claim());
        part.publish(0);
        // What a reader does that saw the part missing a moment before it was published.
        part.sleep(1);
        assert!(leave(&part), "a reader must not make a ready part look like another state");
        part.give_up();
    }
}

#[test]
fn a_sleeping_reader_is_woken_by_the_fill() {
    let own = OwnPart::default();
    let part = own.part();
    assert!(part.claim());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !part.is_ready() {
                part.sleep(60_000);
            }
        });
        std::thread::sleep(std::time::Duration::from_millis(30));
        part.publish(0);
        reader.join().unwrap();
    });
}

#[test]
fn a_hold_ends_and_a_pin_stays() {
    let own = OwnPart::default();
    let part = own.part();
    part.pin_for_copy();
    part.pin_for_copy();
    assert!(part.is_pinned() && !part.is_mapped());
    part.pin();
    part.unpin_after_copy();
    part.unpin_after_copy();
    part.unpin_after_copy();
    assert!(part.is_pinned() && part.is_mapped(), "no hold ends a pin");
    part.unpin();
    part.unpin_after_copy();
    assert!(!part.is_pinned());
}
