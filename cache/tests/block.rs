//! Blocks on the product's own types: what is there of a part, and what may be handed out of it before the verdict.

use ossc_cache::block::{BLOCKS_MAX, WHOLE, block_bytes, mask, numbers};
use ossc_cache::region::{NewObject, Object, RecordKind, Region, state};
use ossc_cache::verdict::{Handed, Verdict};
use ossc_cache::{sys, wait_bytes, wire};

const PART: u32 = 8 << 20;
const BLOCK: u64 = 64 << 10;

fn region() -> Region {
    let files = sys::memfds(c"block").unwrap();
    let region = Region::create(files, "/model", "/log").unwrap();
    wire::close_all(&files);
    region
}

fn object(region: &Region, size: u64, part_bytes: u32) -> &Object {
    let new = NewObject {
        kind: RecordKind::Large,
        state: state::LOADING,
        name: "a",
        etag: "\"E\"",
        size,
        part_bytes,
        mtime_secs: 1,
        dev: 9,
        ino: u64::from(region.objects_len()) + 1,
        folder: 0,
    };
    region.object(region.append(&new).unwrap()).unwrap()
}

/// Gives a part set `number`.
fn give(region: &Region, object: &Object, index: u32, number: u32) {
    let at = object.first_part() + index;
    region.set_at(number).give((at, region.part_at(at)), number);
}

#[test]
fn masks_and_ranges_fit_together() {
    assert_eq!((block_bytes(PART), block_bytes(5 << 20), block_bytes(4096), block_bytes(100)), (65_536, 65_536, 32, 1));
    assert_eq!((mask(0, 128), mask(3, 5), mask(127, 128), mask(4, 4)), (WHOLE, 0b11000, 1 << 127, 0));
    let region = region();
    let object = object(&region, u64::from(PART) * 2 + 70_000, PART);
    assert_eq!((object.blocks_len(0), object.blocks_len(2)), (BLOCKS_MAX, 2));
    assert_eq!(object.block_range(2, 0, 2), u64::from(PART) * 2..object.size());
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..10_000 {
        let start = rng.u64(0..object.size());
        let end = rng.u64(start..=object.size());
        for index in object.parts_of(start, end) {
            let blocks = object.blocks_of(index, start, end);
            for n in 0..object.blocks_len(index) {
                let range = object.block_range(index, n, n + 1);
                assert_eq!(blocks >> n & 1 != 0, range.start < end && start < range.end, "{start}..{end} {index} {n}");
            }
        }
    }
}

#[test]
fn bytes_are_there_in_blocks_or_in_the_part_and_the_number_tells_them_apart() {
    let region = region();
    let object = object(&region, u64::from(PART) * 2, PART);
    let (part, at) = (region.part(object, 1), u64::from(PART) + 3 * BLOCK + 10);
    let there = || object.fills_with_blocks(&region, at, at + BLOCK);
    assert_eq!(there(), None);
    give(&region, object, 1, 7);
    let blocks = region.blocks(object, 1).unwrap();
    blocks.publish(1 << 3);
    assert_eq!(there(), None, "it reaches into the next block");
    blocks.publish(1 << 4);
    let first = there().unwrap();
    assert_eq!(object.fills(&region, at, at + 1), None, "nobody has the part");
    assert_eq!(
        wait_bytes::bytes(&region, object, at, at + BLOCK, &|| -> sys::Result<()> { panic!("it waits") }),
        Ok(())
    );
    assert_eq!(blocks.take_back(), 0b11000);
    part.lose_blocks();
    assert_eq!(there(), None);
    blocks.publish(0b11000);
    let second = there().unwrap();
    assert_ne!(first, second, "other blocks");
    assert!(part.claim());
    blocks.take_back();
    part.lose_blocks();
    part.publish(1);
    assert_ne!(there().unwrap(), second, "the part");
}

#[test]
fn a_set_belongs_to_the_part_that_it_was_given_to_last() {
    let region = region();
    let object = object(&region, u64::from(PART) * 3, PART);
    give(&region, object, 0, 5);
    region.blocks(object, 0).unwrap().learn(1, 77, 1);
    region.blocks(object, 0).unwrap().publish(2);
    give(&region, object, 2, 5);
    assert!(region.blocks(object, 0).is_none());
    let blocks = region.blocks(object, 2).unwrap();
    assert_eq!((blocks.ready(), blocks.block(1).is_known(1)), (0, false));
    assert_eq!(region.part(object, 1).set(), None);
}

/// A reader is slow between its looks at whose the set is and what is in it: meanwhile it is another part's. What it
/// copies then is not taken for blocks that its part gets later.
#[test]
fn who_found_the_blocks_of_another_part_copies_again() {
    let region = region();
    let object = object(&region, u64::from(PART) * 3, PART);
    let part = region.part(object, 0);
    give(&region, object, 0, 5);
    let found = part.fill_if(|| {
        let blocks = region.blocks(object, 0).unwrap();
        give(&region, object, 2, 5);
        region.blocks(object, 2).unwrap().publish(1);
        blocks.ready() & 1 != 0
    });
    assert!(found.is_some(), "the blocks of the other part");
    give(&region, object, 0, 6);
    region.blocks(object, 0).unwrap().publish(1);
    assert_ne!(region.fill_of(object, 0, 0, 10), found);
}

#[test]
fn demand_says_which_blocks() {
    let region = region();
    let object = object(&region, u64::from(PART) * 3, PART);
    let part = u64::from(PART);
    region.demand_bytes(object, part - 10, 2 * part + 10);
    let mut got = Vec::new();
    region.take_demand(|at, mask| got.push((at, mask)));
    assert_eq!(got, [(0, 1 << 127), (1, WHOLE), (2, 1)]);
    region.demand_bytes(object, 0, 1);
    region.demand(object, 0, 1);
    got.clear();
    region.take_demand(|at, mask| got.push((at, mask)));
    assert_eq!(got, [(0, WHOLE)]);
    region.take_demand(|_, _| panic!("taken twice"));
}

/// Whoever reads whatever, in blocks and in parts: without a verdict nobody has everything.
#[test]
fn nobody_is_given_all_before_the_verdict() {
    let region = region();
    let mut rng = fastrand::Rng::with_seed(9);
    for run in 0..200 {
        let part_bytes = 1024;
        let object = object(&region, u64::from(part_bytes) * rng.u64(1..=4) - rng.u64(0..700), part_bytes);
        let (parts, round) = (object.parts(), 1);
        let handed = Handed::default();
        handed.begin(1);
        for index in 0..parts {
            give(&region, object, index, index);
            let blocks = region.blocks(object, index).unwrap();
            (0..object.blocks_len(index)).for_each(|n| blocks.learn(n, 1, round));
        }
        let mut had = vec![0u128; parts as usize];
        for _ in 0..6000 {
            let index = rng.u32(0..parts);
            let (part, blocks) = (region.part(object, index), region.blocks(object, index).unwrap());
            let len = object.blocks_len(index);
            if rng.u32(0..2000) == 0 {
                part.learn(3, round);
                if handed.hand_out(part, parts, round) {
                    had[index as usize] = mask(0, len);
                }
            } else {
                let n = rng.u32(0..len);
                if blocks.hand_out(n, &handed, part, (len, parts), round) {
                    had[index as usize] |= 1 << n;
                }
            }
        }
        let all = (0..parts).all(|index| had[index as usize] == mask(0, object.blocks_len(index)));
        assert!(!all, "run {run}");
        let missing: usize =
            (0..parts).map(|index| numbers(mask(0, object.blocks_len(index)) & !had[index as usize]).count()).sum();
        let last_part = (0..parts).any(|index| !region.part(object, index).is_handed_out(round));
        assert!(last_part && missing >= 1, "run {run}: {missing} blocks are missing");
    }
}

#[test]
fn what_is_of_a_round_that_is_over_is_not_handed_out() {
    let region = region();
    let object = object(&region, u64::from(PART) * 2, PART);
    let (verdict, handed, part) = (Verdict::default(), Handed::default(), region.part(object, 0));
    handed.begin(1);
    give(&region, object, 0, 1);
    let blocks = region.blocks(object, 0).unwrap();
    blocks.learn(4, 11, 1);
    assert!(blocks.hand_out(4, &handed, part, (128, 2), 1) && blocks.is_handed_out(1));
    verdict.set(verdict.get().next(), &handed);
    assert!(!blocks.hand_out(4, &handed, part, (128, 2), 2), "known in the round before");
    blocks.learn(4, 12, 2);
    assert!(!blocks.is_handed_out(2));
    assert!(!blocks.hand_out(4, &handed, part, (128, 2), 1), "a reader that has not seen the new round");
    assert!(blocks.hand_out(4, &handed, part, (128, 2), 2) && blocks.is_handed_out(2));
}
