//! What is cut, what is asked for twice, and which end counts.

use super::*;
use ossc_net::error::Phase;
use ossc_net::retry::Hint;

const MIB: u64 = 1 << 20;
const PART: u64 = 8 * MIB;
const KEY: Key = (3, 5);
/// After which the first MiB is slow at the end of a download.
const OF_ONE_MIB: Duration = Duration::from_micros(1500 * 125 + 50_000);

fn done(token: u64, bytes: u64, crc64: u64, ms: u64) -> Finished {
    let response = Response { status: 206, bytes, crc64_body: Some(crc64), ..Response::default() };
    Finished {
        token,
        range: None,
        result: Ok(response),
        body: Vec::new(),
        partial: None,
        retry_hint: Hint::No,
        elapsed: Duration::from_millis(ms),
        worker: 0,
    }
}

fn failed(kind: FailureKind) -> Finished {
    Finished { result: Err(Error::new(kind, Phase::Body, "cut")), ..done(0, 0, 0, 0) }
}

/// After these bytes.
fn broken_off(kind: FailureKind, bytes: u64, crc64: u64) -> Finished {
    let partial = Some(Response { status: 206, bytes, crc64_body: Some(crc64), ..Response::default() });
    Finished { partial, ..failed(kind) }
}

/// A part that a reader waits for, with so many others behind it.
fn waited_for(waiting: usize) -> Option<Queue> {
    Some(Queue { waiting, connections: 64, class: Class::Demand })
}

/// After so many parts that took one second each.
fn seasoned(percent: u64, now: Instant) -> Flights {
    let flights = Flights::new(percent, Scale::PRODUCT);
    for index in 0..100 {
        assert_eq!(flights.begin((1, index), 0..PART, None, now), (0..PART, 0));
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
    assert_eq!(flights.begin((1, 200), 0..PART, waited_for(1000), now), (0..PART, 0));
    assert_eq!(flights.begin((1, 201), 0..PART, waited_for(63), now), (0..PART / 2, 1));
    assert_eq!(flights.begin((1, 202), PART..2 * PART, waited_for(0), now), (PART..PART + MIB, 7));
    // A last part that is no multiple of anything.
    assert_eq!(flights.begin((1, 203), 0..MIB + 5, waited_for(0), now), (0..MIB + 5, 0));
    let fast = Flights::new(2, Scale::PRODUCT);
    assert_eq!(fast.begin(KEY, 0..PART, waited_for(0), now), (0..PART, 0));
}

#[test]
fn no_answer_to_what_is_fetched_ahead_keeps_its_connection_for_long() {
    let now = Instant::now();
    let flights = seasoned(0, now);
    let ahead = Some(Queue { class: Class::Prefetch, ..waited_for(1000).unwrap() });
    let third = (PART / 3).next_multiple_of(4096);
    assert_eq!(flights.begin((1, 201), 0..PART, ahead, now), (0..third, 2));
    assert_eq!(flights.begin((1, 202), 0..PART, ahead, now), (0..PART, 0), "every other part");
    assert_eq!(flights.begin((1, 205), 0..third, ahead, now), (0..third, 0));
    assert_eq!(flights.begin((1, 207), 0..PART, waited_for(1000), now), (0..PART, 0));
    // Where memory is short a part comes in one answer.
    assert_eq!(flights.begin((1, 203), 0..PART, None, now), (0..PART, 0));
}

#[test]
fn where_all_answers_vary_none_is_slow() {
    let now = Instant::now();
    let flights = seasoned(2, now);
    for index in 0..32 {
        flights.begin((9, index), 0..PART, None, now);
        flights.main_ended((9, index), 0, done(0, PART, 1, if index % 5 == 0 { 4000 } else { 1000 }));
    }
    for index in 32..64 {
        flights.begin((9, index), 0..100, None, now);
        flights.main_ended((9, index), 0, done(0, 100, 1, 20));
    }
    flights.begin(KEY, 0..PART, None, now);
    flights.progress(KEY, 0, PART - MIB);
    assert_eq!(flights.slow(at(now, 6000), true), Err(Some(at(now, 6050))));
}

#[test]
fn a_part_is_whole_when_its_last_piece_is() {
    let now = Instant::now();
    let flights = seasoned(2, now);
    let bytes: Vec<u8> = (0..PART).map(|at| (at % 251) as u8).collect();
    let crc64 = |range: Range<u64>| crc::of(&bytes[range.start as usize..range.end as usize]);
    let (first, more) = flights.begin(KEY, 0..PART, waited_for(0), now);
    let rest: Vec<_> = (1..=more).map(|n| flights.start_piece(KEY, n, now).unwrap()).collect();
    assert_eq!(flights.start_piece(KEY, 1, now), None, "asked for twice in place");
    for (n, range) in (1..).zip(&rest) {
        let ended = flights.main_ended(KEY, n, done(0, MIB, crc64(range.clone()), 100));
        assert!(ended.part.is_none());
        assert_eq!(ended.brought.unwrap(), *range);
    }
    let ended = flights.main_ended(KEY, 0, done(0, MIB, crc64(first), 100));
    assert_eq!(ended.part.unwrap().unwrap().1, crc::of(&bytes));
}

#[test]
fn a_failed_piece_ends_its_part_when_nothing_is_under_way_in_it() {
    let now = Instant::now();
    let flights = seasoned(2, now);
    flights.begin(KEY, 0..PART, waited_for(0), now);
    flights.start_piece(KEY, 1, now).unwrap();
    let ended = flights.main_ended(KEY, 0, failed(FailureKind::Network));
    assert!(ended.part.is_none() && ended.retry.is_some(), "its cause may pass, and others bring their pieces");
    flights.start_piece(KEY, 0, now).unwrap();
    assert!(flights.main_ended(KEY, 0, failed(FailureKind::NotFound)).part.is_none());
    assert_eq!(flights.start_piece(KEY, 2, now), None, "nothing is begun in a part that has failed");
    let ended = flights.main_ended(KEY, 1, done(0, MIB, 0, 100));
    assert_eq!(ended.part.unwrap().unwrap_err().kind, FailureKind::NotFound);
    assert_eq!(flights.begin(KEY, 0..PART, waited_for(1000), now), (0..PART, 0));
}

/// All chunks of the slowest piece.
fn hedges(flights: &Flights, now: Instant, at_end: bool) -> Vec<(Key, u32, u32, Range<u64>)> {
    std::iter::from_fn(|| flights.slow(now, at_end).ok()).collect()
}

#[test]
fn at_the_end_the_free_connections_share_the_slowest_piece() {
    let now = Instant::now();
    let flights = seasoned(9, now);
    flights.begin(KEY, 0..PART, waited_for(1000), now);
    // 1.5 times the eighth of a second in which others bring 1 MiB, and 50 ms.
    assert_eq!(flights.slow(at(now, 200), true), Err(Some(now + OF_ONE_MIB)));
    // It has brought something meanwhile: more time for more bytes.
    assert_eq!(flights.progress(KEY, 0, MIB), Some(0));
    assert_eq!(flights.slow(at(now, 300), true), Err(Some(at(now, 425))));
    let asked = hedges(&flights, at(now, 425), true);
    assert_eq!(asked, (0..8).map(|n| (KEY, 0, n as u32, n * MIB..(n + 1) * MIB)).collect::<Vec<_>>());
}

#[test]
fn a_second_request_that_is_slow_too_gets_a_twin() {
    let now = Instant::now();
    let flights = seasoned(9, now);
    let bytes: Vec<u8> = (0..PART).map(|at| (at % 251) as u8).collect();
    let sum = |range: &Range<u64>| crc::of(&bytes[range.start as usize..range.end as usize]);
    flights.begin(KEY, 0..PART, waited_for(1000), now);
    let asked = hedges(&flights, at(now, 3000), true);
    for (_, n, chunk, range) in asked.iter().filter(|asked| asked.2 > 1) {
        flights.hedge_ended(KEY, *n, *chunk, done(0, MIB, sum(range), 150));
    }
    // 1.5 times an eighth of a second, and 50 ms.
    assert_eq!(flights.slow(at(now, 3200), true), Err(Some(at(now, 3000) + Duration::from_micros(237_500))));
    let twins = hedges(&flights, at(now, 3300), true);
    assert_eq!(twins, [(KEY, 0, 8, 0..MIB), (KEY, 0, 9, MIB..2 * MIB)]);
    assert_eq!(flights.slow(at(now, 9000), true), Err(None), "twice is enough");
    // The twin of the first is faster, and that of the second fails.
    let ended = flights.hedge_ended(KEY, 0, 8, done(0, MIB, sum(&(0..MIB)), 150));
    assert_eq!((ended.cancel_hedge, ended.cancel), (vec![0], false));
    let ended = flights.hedge_ended(KEY, 0, 9, failed(FailureKind::Network));
    assert!((ended.cancel_hedge.is_empty(), ended.cancel) == (true, false), "the other may still come");
    assert_eq!(flights.hedge_ended(KEY, 0, 0, failed(FailureKind::Cancelled)).give, MIB);
    assert!(flights.hedge_ended(KEY, 0, 1, done(0, MIB, sum(&(MIB..2 * MIB)), 1300)).cancel);
    let ended = flights.main_ended(KEY, 0, failed(FailureKind::Cancelled));
    assert_eq!(ended.copy.iter().map(|(range, _)| range.end - range.start).sum::<u64>(), PART);
    assert_eq!(ended.part.unwrap().unwrap().1, crc::of(&bytes));
}

#[test]
fn a_twin_without_room_takes_nothing_with_it_and_the_last_hope_of_a_part_ends_it() {
    let now = Instant::now();
    let flights = seasoned(9, now);
    flights.begin(KEY, 0..PART, waited_for(1000), now);
    assert_eq!(hedges(&flights, at(now, 3000), false).len(), 4);
    assert!(flights.main_ended(KEY, 0, failed(FailureKind::Network)).part.is_none());
    for chunk in 1..4 {
        assert!(flights.hedge_ended(KEY, 0, chunk, done(0, 2 * MIB, 9, 150)).part.is_none());
    }
    let twin = flights.slow(at(now, 4000), true).unwrap();
    assert_eq!((twin.2, twin.3), (4, 0..2 * MIB));
    let ended = flights.no_hedge(KEY, 0, 4, at(now, 8000));
    assert!(ended.cancel_hedge.is_empty() && ended.part.is_none(), "the first may still come");
    assert!(flights.hedge_ended(KEY, 0, 0, done(0, 2 * MIB, 9, 2000)).part.unwrap().is_ok());
    // The same with the first gone: nothing is left that could bring the part.
    flights.begin(KEY, 0..PART, waited_for(1000), at(now, 4000));
    assert_eq!(hedges(&flights, at(now, 7000), false).len(), 4);
    assert!(flights.main_ended(KEY, 0, failed(FailureKind::Network)).part.is_none());
    assert_eq!(flights.slow(at(now, 8000), true).unwrap().2, 4);
    assert!(flights.hedge_ended(KEY, 0, 0, failed(FailureKind::Network)).part.is_none(), "its twin may still come");
    let ended = flights.no_hedge(KEY, 0, 4, at(now, 8000));
    assert_eq!(ended.cancel_hedge, [1, 2, 3]);
    assert_eq!(ended.part.unwrap().unwrap_err().kind, FailureKind::Network, "as the request in place said");
}

#[test]
fn the_hedge_counts_only_when_the_request_in_place_has_ended() {
    let now = Instant::now();
    let flights = seasoned(9, now);
    let bytes: Vec<u8> = (0..PART).map(|at| (at % 251) as u8).collect();
    flights.begin(KEY, 0..PART, waited_for(1000), now);
    let asked = hedges(&flights, at(now, 3000), true);
    let last = asked.len() - 1;
    for (index, (_, n, chunk, range)) in asked.into_iter().enumerate().rev() {
        let crc64 = crc::of(&bytes[range.start as usize..range.end as usize]);
        let ended = flights.hedge_ended(KEY, n, chunk, done(0, MIB, crc64, 1000));
        assert_eq!((ended.give, ended.cancel), (0, index == 0), "{index} of {last}: its body is kept");
        assert!(ended.copy.is_empty() && ended.part.is_none());
    }
    let ended = flights.main_ended(KEY, 0, failed(FailureKind::Cancelled));
    assert_eq!((ended.copy.iter().map(|(range, _)| range.end - range.start).sum::<u64>(), ended.give), (PART, PART));
    assert_eq!(ended.brought, Some(0..PART));
    assert_eq!(ended.part.unwrap().unwrap().1, crc::of(&bytes));
}

#[test]
fn the_request_in_place_may_win() {
    let now = Instant::now();
    let flights = seasoned(9, now);
    flights.begin(KEY, 0..PART, waited_for(1000), now);
    let asked = hedges(&flights, at(now, 3000), true);
    flights.hedge_ended(KEY, 0, 3, done(0, MIB, 9, 1000));
    let ended = flights.main_ended(KEY, 0, done(0, PART, 9, 3100));
    assert_eq!((ended.cancel_hedge, ended.give), (vec![0, 1, 2, 4, 5, 6, 7], MIB));
    assert!(ended.copy.is_empty() && ended.part.unwrap().is_ok());
    // Their ends come when the part may be under way again.
    flights.begin(KEY, 0..PART, waited_for(1000), now);
    for (_, n, chunk, _) in asked.into_iter().filter(|asked| asked.2 != 3) {
        let ended = flights.hedge_ended(KEY, n, chunk, failed(FailureKind::Cancelled));
        assert!(ended.give == MIB && ended.part.is_none() && !ended.cancel);
    }
    assert!(flights.main_ended(KEY, 0, done(0, PART, 9, 1000)).part.unwrap().is_ok());
}

#[test]
fn a_hedge_saves_a_part_whose_request_in_place_fails() {
    let now = Instant::now();
    let flights = seasoned(9, now);
    flights.begin(KEY, 0..PART, waited_for(1000), now);
    hedges(&flights, at(now, 3000), false);
    assert!(flights.main_ended(KEY, 0, failed(FailureKind::Network)).part.is_none());
    for chunk in 0..3 {
        assert!(flights.hedge_ended(KEY, 0, chunk, done(0, 2 * MIB, 9, 1000)).part.is_none());
    }
    let ended = flights.hedge_ended(KEY, 0, 3, done(0, 2 * MIB, 9, 1000));
    assert!(ended.copy.len() == 4 && !ended.cancel && ended.part.unwrap().is_ok());
    // And if both fail, the part has.
    flights.begin(KEY, 0..PART, waited_for(1000), now);
    hedges(&flights, at(now, 3000), true);
    assert!(flights.main_ended(KEY, 0, failed(FailureKind::Network)).part.is_none());
    let ended = flights.hedge_ended(KEY, 0, 2, failed(FailureKind::Timeout));
    assert_eq!(ended.cancel_hedge, [0, 1, 3, 4, 5, 6, 7]);
    assert!(ended.part.unwrap().is_err());
    for chunk in ended.cancel_hedge {
        flights.hedge_ended(KEY, 0, chunk, failed(FailureKind::Cancelled));
    }
    // One that is not all asked for cannot: nobody may ever be free for the rest.
    flights.begin(KEY, 0..PART, waited_for(1000), now);
    flights.slow(at(now, 3000), true).unwrap();
    let ended = flights.main_ended(KEY, 0, failed(FailureKind::Network));
    assert_eq!((ended.part.unwrap().is_err(), ended.cancel_hedge), (true, vec![0]));
    assert_eq!(flights.slow(at(now, 3000), true), Err(None), "what is left of it is not asked for");
}

#[test]
fn a_twin_without_room_leaves_the_first_try_which_may_be_all_there_is() {
    let now = Instant::now();
    let flights = seasoned(9, now);
    flights.begin(KEY, 0..MIB, None, now);
    let asked = hedges(&flights, at(now, 3000), true);
    assert!(flights.main_ended(KEY, 0, failed(FailureKind::Network)).part.is_none(), "the hedge may still bring it");
    for (_, n, chunk, range) in &asked[1..] {
        flights.hedge_ended(KEY, *n, *chunk, done(0, range.end - range.start, 1, 10));
    }
    let (_, n, twin, _) = flights.slow(at(now, 6000), true).unwrap();
    let ended = flights.no_hedge(KEY, n, twin, at(now, 6000));
    assert!(ended.cancel_hedge.is_empty() && ended.part.is_none());
    assert_eq!(flights.slow(at(now, 9000), true), Err(None));
    let ended = flights.hedge_ended(KEY, 0, 0, done(0, MIB / 8, 1, 10));
    assert!(ended.copy.len() == 8 && ended.part.unwrap().is_ok());
}

#[test]
fn a_part_whose_second_try_is_given_up_after_the_first_has_failed_fails() {
    let now = Instant::now();
    let flights = seasoned(9, now);
    flights.begin(KEY, 0..2 * MIB, None, now);
    let asked = hedges(&flights, at(now, 3000), true);
    assert!(flights.main_ended(KEY, 0, failed(FailureKind::Network)).part.is_none());
    // The last chunk was promised before that, and there is no room for it.
    let ended = flights.no_hedge(KEY, 0, asked.last().unwrap().2, at(now, 3000));
    assert_eq!(ended.cancel_hedge, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(ended.part.unwrap().unwrap_err().kind, FailureKind::Network);
}

#[test]
fn a_piece_that_found_no_room_for_a_second_try_waits_before_the_next() {
    let now = Instant::now();
    let flights = seasoned(9, now);
    flights.begin(KEY, 0..PART, waited_for(1000), now);
    let late = at(now, 3000);
    let (_, n, first, _) = flights.slow(late, true).unwrap();
    let (_, _, second, _) = flights.slow(late, true).unwrap();
    assert_eq!(flights.no_hedge(KEY, n, second, late).cancel_hedge, [first]);
    flights.hedge_ended(KEY, n, first, failed(FailureKind::Cancelled));
    assert_eq!(flights.slow(late, true), Err(Some(late + OF_ONE_MIB)), "as long as a new request");
}

#[test]
fn a_hedge_that_fails_may_be_tried_again() {
    let now = Instant::now();
    let flights = seasoned(9, now);
    flights.begin(KEY, 0..PART, waited_for(1000), now);
    assert_eq!(hedges(&flights, at(now, 3000), false).len(), 4);
    let ended = flights.hedge_ended(KEY, 0, 0, failed(FailureKind::Network));
    assert_eq!((ended.part.is_none(), ended.cancel_hedge), (true, vec![1, 2, 3]));
    assert_eq!(flights.slow(at(now, 3100), false), Err(None), "those before are still under way");
    for chunk in 1..4 {
        flights.hedge_ended(KEY, 0, chunk, failed(FailureKind::Cancelled));
    }
    assert!(flights.slow(at(now, 3200), false).is_ok());
}

#[test]
fn no_more_is_asked_for_twice_than_allowed() {
    let now = Instant::now();
    let none = seasoned(0, now);
    none.begin(KEY, 0..PART, waited_for(1000), now);
    assert_eq!(none.slow(at(now, 60_000), true), Err(None));
    // Two percent of 100 parts are two parts.
    let flights = seasoned(2, now);
    for index in 0..5 {
        flights.begin((2, index), 0..PART, waited_for(1000), now);
    }
    let late = at(now, 60_000);
    assert_eq!(hedges(&flights, late, true).len(), 16);
    // One that was not sent gives its share back, and those with it are not wanted any more.
    assert_eq!(flights.no_hedge((2, 0), 0, 5, late).cancel_hedge, [0, 1, 2, 3, 4, 6, 7]);
    assert!(flights.slow(late, true).is_err(), "the others may have cost something");
    for chunk in [0, 1, 2, 3, 4, 6, 7] {
        assert_eq!(flights.hedge_ended((2, 0), 0, chunk, failed(FailureKind::Cancelled)).give, MIB);
    }
}

#[test]
fn with_other_work_only_the_very_slow_are_asked_for_again_and_by_fewer_connections() {
    let now = Instant::now();
    let flights = seasoned(2, now);
    flights.begin(KEY, 0..PART, waited_for(1000), now);
    // The first MiB took 125 ms in those before: twice that, and 200 ms.
    assert_eq!(flights.slow(at(now, 400), false), Err(Some(at(now, 450))));
    assert_eq!(hedges(&flights, at(now, 450), false).len(), 4);
}

#[test]
fn what_has_just_begun_gives_way_to_a_reader_and_is_asked_for_again() {
    let now = Instant::now();
    let flights = seasoned(2, now);
    let ahead = Some(Queue { class: Class::Prefetch, ..waited_for(1000).unwrap() });
    flights.begin((4, 0), 0..PART, ahead, now);
    flights.begin((4, 2), 0..PART, ahead, at(now, 900));
    flights.begin((4, 4), 0..PART, waited_for(1000), at(now, 900));
    // The first has brought too much, and a reader waits for the last.
    assert_eq!(flights.give_way(8, at(now, 1000), |_| true), [((4, 2), 0)]);
    assert!(flights.gives_way((4, 2), 0) && !flights.gives_way((4, 0), 0));
    assert_eq!(flights.give_way(8, at(now, 1000), |_| true), []);
    let ended = flights.main_ended((4, 2), 0, failed(FailureKind::Cancelled));
    assert!(ended.again == Some(Class::Prefetch) && ended.part.is_none() && !flights.gives_way((4, 2), 0));
    assert_eq!(flights.start_piece((4, 2), 0, at(now, 1100)), Some(0..PART));
    // Cancelled for any other reason its part ends.
    let ended = flights.main_ended((4, 2), 0, failed(FailureKind::Cancelled));
    assert!(ended.again.is_none() && ended.part.unwrap().is_err());
    // What was complete before it could be cancelled counts.
    flights.begin((4, 6), 0..PART, ahead, at(now, 1100));
    assert_eq!(flights.give_way(8, at(now, 1150), |_| true), [((4, 6), 0)]);
    let ended = flights.main_ended((4, 6), 0, done(0, PART, 7, 1000));
    assert!(ended.again.is_none() && ended.part.unwrap().is_ok());
}

#[test]
fn no_more_gives_way_than_is_asked_for_and_may_come_twice() {
    let now = Instant::now();
    let ahead = Some(Queue { class: Class::Prefetch, ..waited_for(1000).unwrap() });
    for (percent, most, giving) in [(2, 100, 15), (2, 8, 8), (0, 100, 0)] {
        let flights = seasoned(percent, now);
        for index in 0..64 {
            flights.begin((5, 2 * index), 0..PART, ahead, now);
        }
        // Each has brought 0.8 MiB, and 16 MiB may come twice, of which a quarter is for slow answers.
        assert_eq!(flights.give_way(most, at(now, 100), |_| true).len(), giving);
        // Those that give way already count.
        assert!(flights.give_way(most.min(giving), at(now, 100), |_| true).is_empty());
    }
    assert_eq!(Flights::new(2, Scale::PRODUCT).give_way(8, now, |_| true), [], "nobody knows the pace");
}

#[test]
fn what_comes_although_it_gave_way_does_not_come_twice() {
    let now = Instant::now();
    let ahead = Some(Queue { class: Class::Prefetch, ..waited_for(1000).unwrap() });
    let flights = seasoned(2, now);
    for round in 0..100 {
        flights.begin((5, 2 * round), 0..PART, ahead, now);
        assert_eq!(flights.give_way(8, at(now, 200), |_| true).len(), 1, "in round {round}");
        assert!(flights.main_ended((5, 2 * round), 0, done(0, PART, 7, 1000)).part.unwrap().is_ok());
    }
}

#[test]
fn a_part_that_a_reader_waits_for_does_not_give_way_and_its_pieces_are_urgent() {
    let now = Instant::now();
    let ahead = Some(Queue { class: Class::Prefetch, ..waited_for(1000).unwrap() });
    let flights = seasoned(2, now);
    assert_eq!(flights.begin((6, 1), 0..PART, ahead, now).1, 2);
    assert_eq!(flights.give_way(8, now, |_| false), []);
    assert_eq!(flights.give_way(8, now, |_| true), [((6, 1), 0)]);
    assert!(flights.start_piece((6, 1), 1, now).is_some());
    assert_eq!(flights.hurry((6, 1)), [2]);
    assert!(flights.hurry((6, 1)).is_empty(), "they wait in the plan already");
    assert_eq!(flights.give_way(8, now, |_| true), []);
    // What gave way before somebody waited for it is urgent, too.
    assert_eq!(flights.main_ended((6, 1), 0, failed(FailureKind::Cancelled)).again, Some(Class::Demand));
    assert!(flights.hurry((6, 2)).is_empty(), "not under way");
}

#[test]
fn what_has_come_of_a_part_stays_and_only_the_rest_is_asked_for_again() {
    let now = Instant::now();
    let flights = Flights::new(0, Scale::PRODUCT);
    assert_eq!(flights.begin(KEY, MIB..9 * MIB, None, now), (MIB..9 * MIB, 0));
    let bytes: Vec<u8> = (0..8 * MIB).map(|at| (at * 31 % 251) as u8).collect();
    let sum = |range: Range<u64>| crc::of(&bytes[range.start as usize..range.end as usize]);
    let steps = [0, 3 * MIB, 3 * MIB, 3 * MIB + 77, 5 * MIB];
    for step in steps.windows(2) {
        let came = step[1] - step[0];
        let end = match came {
            0 => failed(FailureKind::Network),
            _ => broken_off(FailureKind::Timeout, came, sum(step[0]..step[1])),
        };
        assert_eq!(flights.keeps(KEY, 0, &end), came);
        let ended = flights.main_ended(KEY, 0, end);
        assert!(ended.part.is_none() && ended.retry.is_some());
        assert_eq!(ended.brought, (came > 0).then_some(MIB + step[0]..MIB + step[1]));
        assert_eq!(flights.start_piece(KEY, 0, now), Some(MIB + step[1]..9 * MIB));
        assert_eq!(flights.progress(KEY, 0, 0), Some(MIB + step[1]));
    }
    let rest = 5 * MIB..8 * MIB;
    let ended = flights.main_ended(KEY, 0, done(0, 3 * MIB, sum(rest), 100));
    assert_eq!(ended.part.unwrap().unwrap().1, crc::of(&bytes));
}

#[test]
fn a_part_is_given_up_where_nothing_has_come_or_its_object_has_failed() {
    let now = Instant::now();
    let flights = Flights::new(0, Scale::PRODUCT);
    flights.begin(KEY, 0..PART, None, now);
    assert!(flights.main_ended(KEY, 0, failed(FailureKind::Network)).part.unwrap().is_err());
    flights.begin(KEY, 0..PART, None, now);
    let refused = broken_off(FailureKind::NotFound, MIB, 1);
    assert!(flights.main_ended(KEY, 0, refused).part.unwrap().is_err(), "it will not be another time");
    flights.begin(KEY, 0..PART, None, now);
    assert!(flights.main_ended(KEY, 0, broken_off(FailureKind::Network, MIB, 1)).part.is_none());
    let why = || Error::new(FailureKind::Cancelled, Phase::Start, "given up");
    assert!(flights.abandon(KEY, why()).part.unwrap().is_err());
    assert!(flights.start_piece(KEY, 0, now).is_none() && flights.abandon(KEY, why()).part.is_none());
}

/// Whatever ends in whatever order: every part ends once, nothing is copied while something is received in its
/// place, and all second requests are counted back.
/// A good answer, a failed one, or one that is cut.
fn some_end(rng: &mut fastrand::Rng) -> Finished {
    let kinds = [FailureKind::Network, FailureKind::Cancelled, FailureKind::NotFound];
    match rng.u8(0..4) {
        0 | 1 => done(0, MIB, 1, 100),
        2 => failed(kinds[rng.usize(..3)]),
        _ => broken_off(kinds[rng.usize(..3)], rng.u64(1..MIB / 8), 1),
    }
}

#[test]
fn in_any_order_each_part_ends_once() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let now = Instant::now();
        let flights = seasoned(10, now);
        let (mut under_way, mut hedges, mut given, mut ended) = (Vec::new(), Vec::new(), 0i64, 0);
        let mut pieces = Vec::new();
        for index in 0..3 {
            let (_, more) = flights.begin((4, index), 0..PART, waited_for(rng.usize(0..200)), now);
            under_way.push(((4, index), 0u32));
            pieces.extend((1..=more).map(|n| ((4, index), n)));
        }
        for turn in 0..400 {
            let later = at(now, 100 * turn);
            match rng.u8(0..6) {
                0 if !pieces.is_empty() => {
                    let (key, n) = pieces.swap_remove(rng.usize(..pieces.len()));
                    if flights.start_piece(key, n, later).is_some() {
                        under_way.push((key, n));
                    }
                }
                1 => {
                    if let Ok((key, n, chunk, range)) = flights.slow(later, rng.bool()) {
                        given -= (range.end - range.start) as i64;
                        if rng.u8(0..8) == 0 {
                            let landed = flights.no_hedge(key, n, chunk, later);
                            given += landed.give as i64;
                            ended += usize::from(landed.part.is_some());
                            given += (range.end - range.start) as i64;
                        } else {
                            hedges.push((key, n, chunk, range));
                        }
                    }
                }
                2 | 3 if !hedges.is_empty() => {
                    let (key, n, chunk, range) = hedges.swap_remove(rng.usize(..hedges.len()));
                    let answer = if rng.u8(0..5) == 0 {
                        failed(FailureKind::Network)
                    } else {
                        done(0, range.end - range.start, 1, 100)
                    };
                    let landed = flights.hedge_ended(key, n, chunk, answer);
                    given += landed.give as i64;
                    assert!(
                        landed.copy.is_empty() || !under_way.contains(&(key, n)),
                        "seed {seed}: copied under a receive"
                    );
                    ended += usize::from(landed.part.is_some());
                }
                4 if !under_way.is_empty() => {
                    let (key, n) = under_way.swap_remove(rng.usize(..under_way.len()));
                    let landed = flights.main_ended(key, n, some_end(&mut rng));
                    given += landed.give as i64;
                    ended += usize::from(landed.part.is_some());
                    pieces.extend(landed.retry.map(|_| (key, n)));
                }
                _ => {}
            }
        }
        let ask = |under_way: &mut Vec<(Key, u32)>| {
            under_way.extend(pieces.iter().copied().filter(|(key, n)| flights.start_piece(*key, *n, now).is_some()));
        };
        ask(&mut under_way);
        while let Some((key, n)) = under_way.pop() {
            let landed = flights.main_ended(key, n, done(0, MIB, 1, 100));
            given += landed.give as i64;
            ended += usize::from(landed.part.is_some());
            ask(&mut under_way);
        }
        while let Some((key, n, chunk, _)) = hedges.pop() {
            let landed = flights.hedge_ended(key, n, chunk, done(0, MIB, 1, 100));
            given += landed.give as i64;
            ended += usize::from(landed.part.is_some());
        }
        assert_eq!((ended, given), (3, 0), "seed {seed}");
    }
}
