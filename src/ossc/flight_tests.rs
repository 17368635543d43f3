//! What is cut, what is asked for twice, and which end counts.

use super::*;
use ossc_net::error::Phase;
use ossc_net::retry::Hint;

const MIB: u64 = 1 << 20;
const PART: u64 = 8 * MIB;
const KEY: Key = (3, 5);

fn done(token: u64, bytes: u64, crc64: u64, ms: u64) -> Finished {
    let response = Response { status: 206, bytes, crc64_body: Some(crc64), ..Response::default() };
    let body = vec![7; bytes as usize];
    Finished { token, result: Ok(response), body, retry_hint: Hint::No, elapsed: Duration::from_millis(ms), worker: 0 }
}

fn failed(kind: Kind) -> Finished {
    Finished { result: Err(Error::new(kind, Phase::Body, "cut")), ..done(0, 0, 0, 0) }
}

/// After so many parts that took one second each.
fn seasoned(percent: u64, now: Instant) -> Flights {
    let flights = Flights::new(Tail { connections: 64, twice_percent_max: percent });
    for index in 0..100 {
        assert_eq!(flights.begin((1, index), 0..PART, Some(1000), now), (0..PART, 0));
        assert!(flights.main_ended((1, index), 0, done(0, PART, 1, 1000)).part.is_some());
    }
    flights
}

fn at(now: Instant, ms: u64) -> Instant {
    now + Duration::from_millis(ms)
}

#[test]
fn parts_are_cut_at_the_end_of_slow_downloads_only() {
    let now = Instant::now();
    let flights = seasoned(2, now);
    assert_eq!(flights.begin((1, 200), 0..PART, Some(1000), now), (0..PART, 0));
    assert_eq!(flights.begin((1, 201), 0..PART, Some(63), now), (0..PART / 2, 1));
    assert_eq!(flights.begin((1, 202), PART..2 * PART, Some(0), now), (PART..PART + MIB, 7));
    // A last part that is no multiple of anything.
    assert_eq!(flights.begin((1, 203), 0..MIB + 5, Some(0), now), (0..MIB + 5, 0));
    let fast = Flights::new(Tail { connections: 64, twice_percent_max: 2 });
    assert_eq!(fast.begin(KEY, 0..PART, Some(0), now), (0..PART, 0));
}

#[test]
fn where_all_answers_vary_none_is_slow() {
    let now = Instant::now();
    let flights = seasoned(2, now);
    for index in 0..32 {
        flights.begin((9, index), 0..PART, None, now);
        flights.main_ended((9, index), 0, done(0, PART, 1, if index % 5 == 0 { 4000 } else { 1000 }));
    }
    flights.begin(KEY, 0..PART, None, now);
    assert_eq!(flights.slow(at(now, 7900), true), Err(Some(at(now, 8000))));
}

#[test]
fn a_part_is_whole_when_its_last_piece_is() {
    let now = Instant::now();
    let flights = seasoned(2, now);
    let bytes: Vec<u8> = (0..PART).map(|at| (at % 251) as u8).collect();
    let crc64 = |range: Range<u64>| crc::of(&bytes[range.start as usize..range.end as usize]);
    let (first, more) = flights.begin(KEY, 0..PART, Some(0), now);
    let rest: Vec<_> = (1..=more).map(|n| flights.ask(KEY, n, now).unwrap()).collect();
    assert_eq!(flights.ask(KEY, 1, now), None, "asked for twice in place");
    for (n, range) in (1..).zip(&rest) {
        let ended = flights.main_ended(KEY, n, done(0, MIB, crc64(range.clone()), 100));
        assert!(ended.part.is_none());
        assert_eq!(ended.brought.unwrap().0, *range);
    }
    let ended = flights.main_ended(KEY, 0, done(0, MIB, crc64(first), 100));
    assert_eq!(ended.part.unwrap().unwrap().1, crc::of(&bytes));
}

#[test]
fn a_failed_piece_ends_its_part_when_nothing_is_under_way_in_it() {
    let now = Instant::now();
    let flights = seasoned(2, now);
    flights.begin(KEY, 0..PART, Some(0), now);
    flights.ask(KEY, 1, now).unwrap();
    assert!(flights.main_ended(KEY, 0, failed(Kind::Network)).part.is_none());
    assert_eq!(flights.ask(KEY, 2, now), None, "nothing is begun in a part that has failed");
    let ended = flights.main_ended(KEY, 1, done(0, MIB, 0, 100));
    assert_eq!(ended.part.unwrap().unwrap_err().kind, Kind::Network);
    assert_eq!(flights.begin(KEY, 0..PART, Some(1000), now), (0..PART, 0));
}

#[test]
fn the_spare_counts_only_when_the_request_in_place_has_ended() {
    let now = Instant::now();
    let flights = seasoned(2, now);
    flights.begin(KEY, 0..PART, Some(1000), now);
    assert_eq!(flights.slow(at(now, 2900), true), Err(Some(at(now, 3000))));
    assert_eq!(flights.slow(at(now, 3000), true), Ok((KEY, 0, 0..PART)));
    assert_eq!(flights.slow(at(now, 9000), true), Err(None), "it has its spare");
    let ended = flights.spare_ended(KEY, 0, done(0, PART, 9, 1000));
    assert!(ended.cancel && ended.copy.is_none() && ended.part.is_none());
    assert_eq!(ended.give, PART);
    let ended = flights.main_ended(KEY, 0, failed(Kind::Cancelled));
    assert_eq!(ended.copy.map(|(range, body)| (range, body.len())), Some((0..PART, PART as usize)));
    assert_eq!(ended.part.unwrap().unwrap().1, crc::combine(0, 9, PART));
}

#[test]
fn the_request_in_place_may_win() {
    let now = Instant::now();
    let flights = seasoned(2, now);
    flights.begin(KEY, 0..PART, Some(1000), now);
    flights.slow(at(now, 3000), true).unwrap();
    let ended = flights.main_ended(KEY, 0, done(0, PART, 9, 3100));
    assert!(ended.cancel_spare && ended.copy.is_none() && ended.part.unwrap().is_ok());
    // Its end comes when the part may be under way again.
    flights.begin(KEY, 0..PART, Some(1000), now);
    let ended = flights.spare_ended(KEY, 0, failed(Kind::Cancelled));
    assert!(ended.give == PART && ended.part.is_none() && !ended.cancel);
    assert!(flights.main_ended(KEY, 0, done(0, PART, 9, 1000)).part.unwrap().is_ok());
}

#[test]
fn a_spare_saves_a_part_whose_request_in_place_fails() {
    let now = Instant::now();
    let flights = seasoned(2, now);
    flights.begin(KEY, 0..PART, Some(1000), now);
    flights.slow(at(now, 3000), true).unwrap();
    assert!(flights.main_ended(KEY, 0, failed(Kind::Network)).part.is_none());
    let ended = flights.spare_ended(KEY, 0, done(0, PART, 9, 1000));
    assert!(ended.copy.is_some() && !ended.cancel && ended.part.unwrap().is_ok());
    // And if both fail, the part has.
    flights.begin(KEY, 0..PART, Some(1000), now);
    flights.slow(at(now, 3000), true).unwrap();
    assert!(flights.main_ended(KEY, 0, failed(Kind::Network)).part.is_none());
    assert!(flights.spare_ended(KEY, 0, failed(Kind::Timeout)).part.unwrap().is_err());
}

#[test]
fn no_more_is_asked_for_twice_than_allowed() {
    let now = Instant::now();
    let none = seasoned(0, now);
    none.begin(KEY, 0..PART, Some(1000), now);
    assert_eq!(none.slow(at(now, 60_000), true), Err(None));
    // Two percent of 100 parts are two parts.
    let flights = seasoned(2, now);
    for index in 0..5 {
        flights.begin((2, index), 0..PART, Some(1000), now);
    }
    let late = at(now, 60_000);
    assert!(flights.slow(late, true).is_ok() && flights.slow(late, true).is_ok());
    assert_eq!(flights.slow(late, true), Err(None));
    // One that was not sent gives its share back.
    flights.no_spare((2, 0), 0);
    assert!(flights.slow(late, true).is_ok());
    assert_eq!(flights.slow(late, true), Err(None));
}

#[test]
fn with_other_work_only_the_very_slow_are_asked_for_again() {
    let now = Instant::now();
    let flights = seasoned(2, now);
    flights.begin(KEY, 0..MIB, Some(1000), now);
    assert_eq!(flights.slow(at(now, 500), false), Err(Some(at(now, 2000))));
    assert!(flights.slow(at(now, 500), true).is_ok());
}
