//! The demand thread: turns the demand bits and events of clients into work, and sleeps on the doorbell.
//!
//! Started by the engine. What a client asks for is found in the region, so nothing is received here.

use crate::work::Work;

/// Nothing rings without a change of the word, so this only bounds what a client left that died before it rang.
const BELL_MS: u64 = 60_000;

/// How far the region was looked at.
#[derive(Default)]
pub struct Looked {
    /// Number of the next event: from the first place on, since what a predecessor has left is still there, and
    /// what it took is marked.
    events: u64,
}

impl Looked {
    /// Takes what clients have left; gives what to tell the bell that was heard before.
    pub fn again(&mut self, work: &Work) -> u32 {
        let region = work.region();
        let heard = region.header().bell.heard();
        region.take_demand(|part, mask| work.wanted(part, mask));
        region.take_wanted(|slot| work.wanted_small(slot));
        self.events = region.take_events(self.events, |seen| work.seen(seen));
        work.tell_misreads();
        heard
    }
}

/// The thread, for ever.
pub fn keep(work: &Work) {
    let mut looked = Looked::default();
    loop {
        let heard = looked.again(work);
        work.region().header().bell.sleep(heard, BELL_MS);
    }
}
