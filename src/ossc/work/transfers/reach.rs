//! How much is fetched for a reader who waits for a little: the blocks around it, the part, or all of the object.
//! Pure.
//!
//! Called by `blocks`. A reader that jumps gets what it asked for and no more; each demand that lies behind what is
//! there already gets twice as much as the one before, so that whoever reads on has whole parts soon.

use std::ops::Range;

/// Of the blocks of a part: from so many on the part is fetched as a whole.
const PART_FROM: u32 = 8;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    /// These blocks.
    Blocks(Range<u32>),
    /// The part; and the `next` one, since this is where programs begin to read.
    Part {
        /// See above.
        next: bool,
    },
    /// The part, and then the object: what is read on is mostly read whole.
    Object,
}

/// Where a reader waits.
#[derive(Clone, Copy, Default)]
pub(crate) struct At {
    /// In the first part of its object.
    pub head: bool,
    /// In the last one.
    pub tail: bool,
    /// The object is so short that whoever begins to read it may as well have all of it, and its verdict.
    pub short: bool,
    /// So many blocks are there right before.
    pub run: u32,
    /// All of the part before is there, and a reader was there.
    pub follows: bool,
}

/// A reader waits for the blocks `span` of a part of `blocks`, which are fetched `unit` at a time at least.
pub(crate) fn reach(span: Range<u32>, (blocks, unit): (u32, u32), at: At) -> Reach {
    let At { head, tail, short, run, follows } = at;
    let most = blocks / PART_FROM;
    let is_first = span.start == 0;
    if is_first && (follows || head && (short || span.end > unit)) {
        return Reach::Object;
    }
    // Headers: what a program does next is not known yet.
    if is_first && head {
        return Reach::Part { next: true };
    }
    let wanted = if run == 0 { span.end } else { span.end.max(span.start + run + unit) };
    let mut start = span.start / unit * unit;
    if tail && span.end == blocks {
        // Footers: what is before them is asked for next.
        start = start.min(blocks.saturating_sub(most) / unit * unit);
    }
    let end = wanted.next_multiple_of(unit).min(blocks);
    if span.end - span.start >= most.max(1) || run >= most || end - start > most.max(1) {
        return Reach::Part { next: false };
    }
    Reach::Blocks(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: (u32, u32) = (128, 1);
    const MIDDLE: At = At { head: false, tail: false, short: false, run: 0, follows: false };
    const HEAD: At = At { head: true, ..MIDDLE };
    const TAIL: At = At { tail: true, ..MIDDLE };

    #[test]
    fn who_jumps_gets_a_block() {
        assert_eq!(reach(7..8, PART, MIDDLE), Reach::Blocks(7..8));
        assert_eq!(reach(127..128, PART, MIDDLE), Reach::Blocks(127..128));
        assert_eq!(reach(0..1, PART, MIDDLE), Reach::Blocks(0..1));
        assert_eq!(reach(5..6, (128, 4), MIDDLE), Reach::Blocks(4..8), "at least a unit");
        assert_eq!(reach(3..15, PART, MIDDLE), Reach::Blocks(3..15), "a read of several blocks");
    }

    #[test]
    fn who_reads_on_gets_twice_as_much_each_time_and_then_the_part() {
        let (mut have, mut asked) = (0, Vec::new());
        let last = loop {
            match reach(40 + have..41 + have, PART, At { run: have, ..MIDDLE }) {
                Reach::Blocks(range) => {
                    assert_eq!(range.start, 40 + have);
                    asked.push(range.end - range.start);
                    have += range.end - range.start;
                }
                other => break other,
            }
        };
        assert_eq!((asked, last), (vec![1, 2, 4, 8, 16], Reach::Part { next: false }));
        assert_eq!(reach(0..1, PART, At { follows: true, ..MIDDLE }), Reach::Object, "from one part into the next");
    }

    #[test]
    fn heads_and_tails() {
        assert_eq!(reach(0..1, PART, HEAD), Reach::Part { next: true });
        assert_eq!(reach(0..2, PART, HEAD), Reach::Object, "as cat and cp begin");
        assert_eq!(reach(0..1, PART, At { short: true, ..HEAD }), Reach::Object);
        assert_eq!(reach(7..8, PART, At { short: true, ..HEAD }), Reach::Blocks(7..8));
        assert_eq!(reach(127..128, PART, TAIL), Reach::Blocks(112..128));
        assert_eq!(reach(99..100, (100, 1), TAIL), Reach::Blocks(88..100), "of a short part");
        assert_eq!(reach(2..3, (3, 1), TAIL), Reach::Part { next: false }, "a very short one");
        assert_eq!(reach(60..61, PART, TAIL), Reach::Blocks(60..61));
    }

    #[test]
    fn whatever_is_asked_for_is_fetched_and_a_request_is_small_or_the_part() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..100_000 {
            let (blocks, unit) = (rng.u32(1..=128), 1 << rng.u32(0..8));
            let start = rng.u32(0..blocks);
            let span = start..rng.u32(start + 1..=blocks);
            let run = rng.u32(0..=256);
            let [head, tail, short, follows] = [(); 4].map(|()| rng.bool());
            let found = reach(span.clone(), (blocks, unit), At { head, tail, short, run, follows });
            if let Reach::Blocks(range) = found {
                assert!(range.start <= span.start && span.end <= range.end && range.end <= blocks);
                assert!(range.end - range.start <= 16 && range.end - range.start <= (blocks / PART_FROM).max(1));
            }
        }
    }
}
