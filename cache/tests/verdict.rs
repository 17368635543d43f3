//! What may be handed out before the verdict, on the product's own types: one reader after the other. `tests/model.rs`
//! has them side by side.

use ossc_cache::part::Part;
use ossc_cache::verdict::{Judged, Judgement, Verdict};

fn parts(count: usize) -> Vec<Part> {
    (0..count).map(|_| Part::default()).inspect(|part| part.learn(7, 1)).collect()
}

#[test]
fn each_part_counts_once_and_the_last_is_not_handed_out() {
    let (verdict, parts) = (Verdict::default(), parts(3));
    for part in [0, 0, 2, 0, 2] {
        assert!(verdict.hand_out(&parts[part], 3, 1));
    }
    assert_eq!(verdict.handed_out(1), 2);
    assert!(!verdict.hand_out(&parts[1], 3, 1), "the last part");
    assert!(verdict.hand_out(&parts[2], 3, 1), "one that was handed out stays so");
    let alone = Part::default();
    alone.learn(7, 1);
    assert!(!Verdict::default().hand_out(&alone, 1, 1), "all of an object of one part");
}

#[test]
fn nothing_of_a_round_that_is_over_counts() {
    let (verdict, parts) = (Verdict::default(), parts(2));
    assert!(verdict.hand_out(&parts[0], 2, 1));
    verdict.set(verdict.get().next());
    assert_eq!((verdict.handed_out(1), verdict.handed_out(2)), (0, 0));
    assert!(!verdict.hand_out(&parts[1], 2, 1), "a reader that has not seen the new round");
    assert!(!verdict.hand_out(&parts[1], 2, 2), "old bytes, about to be taken back");
    parts[1].learn(8, 2);
    assert!(verdict.hand_out(&parts[1], 2, 2));
}

#[test]
fn a_judgement_keeps_its_round_and_only_the_first_is_plain() {
    let verdict = Verdict::default();
    assert_eq!((verdict.get(), verdict.is_plain()), (Judged::FIRST, false));
    for judgement in [Judgement::Matched, Judgement::Nothing] {
        verdict.set(Judged::FIRST.with(judgement));
        assert!(verdict.is_plain() && verdict.get().is_given());
    }
    verdict.set(Judged::FIRST.next().with(Judgement::Matched));
    assert_eq!(verdict.get(), Judged { judgement: Judgement::Matched, round: 2 });
    assert!(!verdict.is_plain(), "readers of the round before have to be told");
    verdict.set(verdict.get().next().with(Judgement::Wrong));
    assert_eq!(verdict.get(), Judged { judgement: Judgement::Wrong, round: 3 });
    assert!(!verdict.get().is_given());
}
