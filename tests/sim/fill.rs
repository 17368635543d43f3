//! What is true of one fill of a part: which of its bytes were asked for in place, which of those a second time, and
//! how that ended.
//!
//! Kept by the stage. It says what is wrong; who asks reports it.

use std::ops::Range;

/// How a request in place stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    UnderWay,
    There,
    Failed,
}

/// A request that receives in place.
#[derive(Clone, Debug)]
struct InPlace {
    /// Number of the piece.
    n: u32,
    range: Range<u64>,
    state: State,
    /// Bytes that were asked for a second time.
    twice: u64,
    /// Second requests for them that brought nothing.
    lost: u64,
    /// It was cancelled for a reader, and has not ended yet.
    gives_way: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Fill {
    /// No other fill of the run has it.
    pub number: u64,
    requests: Vec<InPlace>,
}

impl Fill {
    /// One that nothing was asked for yet.
    pub fn new(number: u64) -> Fill {
        Fill { number, requests: Vec::new() }
    }

    /// Piece `n` is asked for in place; what is wrong with that.
    pub fn request_in_place(&mut self, n: u32, range: Range<u64>) -> Option<&'static str> {
        let overlaps = |other: &InPlace| other.range.start < range.end && range.start < other.range.end;
        // What has failed is asked for again, from where it ended.
        self.requests.retain(|other| other.state != State::Failed || other.range != range);
        let other = self.requests.iter().find(|other| overlaps(other)).map(|other| other.state);
        self.requests.push(InPlace { n, range, state: State::UnderWay, twice: 0, lost: 0, gives_way: false });
        match other? {
            State::UnderWay => Some("has two requests that receive into the same bytes"),
            State::There | State::Failed => Some("is asked for in place twice in one fill"),
        }
    }

    /// Bytes are asked for a second time, each of them once and the slow ones once more, and all that again when a
    /// try has failed.
    pub fn ask_again(&mut self, range: &Range<u64>) -> Option<&'static str> {
        let around = |one: &&mut InPlace| one.range.start <= range.start && range.end <= one.range.end;
        let Some(one) = self.requests.iter_mut().find(around) else {
            return Some("is asked for a second time, and was not a first");
        };
        one.twice += range.end - range.start;
        match () {
            () if one.state == State::There => Some("is asked for a second time although it is there"),
            () if one.twice > 2 * (one.range.end - one.range.start) * (1 + one.lost) => {
                Some("is asked for again and again")
            }
            () => None,
        }
    }

    /// A second request for these bytes brought nothing.
    pub fn lost(&mut self, range: &Range<u64>) {
        let around = |one: &&mut InPlace| one.range.start <= range.start && range.end <= one.range.end;
        self.requests.iter_mut().filter(around).for_each(|one| one.lost += 1);
    }

    /// The request in place of piece `n` has ended, and has brought so many bytes: those, if it was under way.
    pub fn ended(&mut self, n: u32, good: bool, brought: u64) -> Option<Range<u64>> {
        let one = self.requests.iter_mut().find(|one| one.n == n && one.state == State::UnderWay)?;
        let came = one.range.start..one.range.start + brought;
        if good {
            one.state = State::There;
            return Some(one.range.clone());
        }
        one.state = State::Failed;
        if brought > 0 {
            let rest = came.end..one.range.end;
            *one = InPlace { range: rest, ..one.clone() };
            let there = InPlace { n, range: came.clone(), state: State::There, twice: 0, lost: 0, gives_way: false };
            self.requests.push(there);
        }
        Some(came)
    }

    /// Piece 0 was said to have come, and has not.
    pub fn was_missed(&mut self) {
        self.requests.iter_mut().filter(|one| one.n == 0).for_each(|one| one.state = State::Failed);
    }

    /// Marks those that give way to a reader since the last look; how many these are, and how many gave way before.
    pub fn mark(&mut self, gives_way: impl Fn(u32) -> bool) -> (usize, usize) {
        let (mut fresh, mut before) = (0, 0);
        for one in self.requests.iter_mut().filter(|one| one.state == State::UnderWay) {
            before += usize::from(one.gives_way);
            fresh += usize::from(!one.gives_way && gives_way(one.n));
            one.gives_way = gives_way(one.n);
        }
        (fresh, before)
    }

    /// The same for one that gave way to a reader: its bytes may be asked for in place once more.
    pub fn gave_way(&mut self, n: u32) -> Option<Range<u64>> {
        let at = self.requests.iter().position(|one| one.n == n && one.state == State::UnderWay)?;
        Some(self.requests.remove(at).range)
    }

    /// Whether anything is received in place.
    pub fn is_under_way(&self) -> bool {
        self.requests.iter().any(|one| one.state == State::UnderWay)
    }

    /// Whether something is received at this byte.
    pub fn receives_at(&self, offset: u64) -> bool {
        self.requests.iter().any(|one| one.state == State::UnderWay && one.range.contains(&offset))
    }

    /// Whether a request in place has failed.
    pub fn has_failed(&self) -> bool {
        self.requests.iter().any(|one| one.state == State::Failed)
    }

    /// Bytes that were asked for in place.
    pub fn asked(&self) -> u64 {
        self.requests.iter().map(|one| one.range.end - one.range.start).sum()
    }
}
