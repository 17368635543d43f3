//! What may be handed out before the verdict, on the product's own types: one reader after the other. `tests/model.rs`
//! has them side by side.

use ossc_cache::part::OwnPart;
use ossc_cache::verdict::{Handed, Judged, Judgement, Verdict};

fn parts(count: usize) -> Vec<OwnPart> {
    (0..count).map(|_| OwnPart::default()).inspect(|part| part.part().learn(7, 1)).collect()
}

fn none_yet() -> Handed {
    let handed = Handed::default();
    handed.begin(1);
    handed
}

#[test]
fn each_part_counts_once_and_the_last_is_not_handed_out() {
    let (handed, parts) = (none_yet(), parts(3));
    for part in [0, 0, 2, 0, 2] {
        assert!(handed.hand_out(parts[part].part(), 3, 1));
    }
    assert_eq!(handed.count(1), 2);
    assert!(!handed.hand_out(parts[1].part(), 3, 1), "the last part");
    assert!(handed.hand_out(parts[2].part(), 3, 1), "one that was handed out stays so");
    let alone = OwnPart::default();
    alone.part().learn(7, 1);
    assert!(!none_yet().hand_out(alone.part(), 1, 1), "all of an object of one part");
}

#[test]
fn nothing_of_a_round_that_is_over_counts() {
    let (verdict, handed, parts) = (Verdict::default(), none_yet(), parts(2));
    assert!(handed.hand_out(parts[0].part(), 2, 1));
    verdict.set(verdict.get().next(), &handed);
    assert_eq!((handed.count(1), handed.count(2)), (0, 0));
    assert!(!handed.hand_out(parts[1].part(), 2, 1), "a reader that has not seen the new round");
    assert!(!handed.hand_out(parts[1].part(), 2, 2), "old bytes, about to be taken back");
    parts[1].part().learn(8, 2);
    assert!(handed.hand_out(parts[1].part(), 2, 2));
}

#[test]
fn a_judgement_keeps_its_round_and_only_the_first_is_plain() {
    let (verdict, handed) = (Verdict::default(), none_yet());
    assert_eq!((verdict.get(), verdict.is_plain()), (Judged::FIRST, false));
    for judgement in [Judgement::Matched, Judgement::Nothing] {
        verdict.set(Judged::FIRST.with(judgement), &handed);
        assert!(verdict.is_plain() && verdict.get().is_given());
    }
    verdict.set(Judged::FIRST.next().with(Judgement::Matched), &handed);
    assert_eq!(verdict.get(), Judged { judgement: Judgement::Matched, round: 2 });
    assert!(!verdict.is_plain(), "readers of the round before have to be told");
    verdict.set(verdict.get().next().with(Judgement::Wrong), &handed);
    assert_eq!(verdict.get(), Judged { judgement: Judgement::Wrong, round: 3 });
    assert!(!verdict.get().is_given());
}
