//! The order of work: what a free connection fetches next. Demand (a reader waits) before urgent work that
//! a start-up waits for, before prefetch; work that failed comes back at its time, in its class.
//!
//! Called by the engine under its lock. Pure: time is an argument, and whether an item is still worth
//! fetching is the caller's to decide when it gets it.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::time::Instant;

/// Why something is fetched; the order is the order of service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// A reader sleeps until it is here.
    Demand,
    /// Listings and small objects: programs look at them first.
    Near,
    /// Ahead of all readers.
    Prefetch,
}

/// What to do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next<T> {
    /// Fetch this.
    Item(T, Class),
    /// Nothing; look again at this time, or when something is added.
    Until(Option<Instant>),
}

/// Work waiting for a connection.
pub struct Plan<T> {
    queues: [VecDeque<T>; 3],
    delayed: BinaryHeap<Reverse<(Instant, Class, T)>>,
    /// What is in the queues: nothing waits twice in one class. Readers repeat their demand as long as they wait,
    /// and while no connection is free nothing would ever be taken out.
    queued: BTreeSet<(Class, T)>,
    /// What is delayed, whatever its class.
    put_off: BTreeSet<T>,
}

impl<T: Copy + Ord> Default for Plan<T> {
    fn default() -> Self {
        Plan {
            queues: Default::default(),
            delayed: BinaryHeap::new(),
            queued: BTreeSet::new(),
            put_off: BTreeSet::new(),
        }
    }
}

impl<T: Copy + Ord> Plan<T> {
    /// Adds at the end of its class, unless it waits there already or was put off: who asks again and again, for
    /// this item or for one before it, does not shorten the pause after a failure.
    pub fn push(&mut self, item: T, class: Class) {
        if !self.put_off.contains(&item) && self.queued.insert((class, item)) {
            self.queues[class as usize].push_back(item);
        }
    }

    /// True if it waits, in whatever class.
    pub fn has(&self, item: T) -> bool {
        let waits = |class| self.queued.contains(&(class, item));
        self.put_off.contains(&item) || [Class::Demand, Class::Near, Class::Prefetch].into_iter().any(waits)
    }

    /// Adds before all others of its class, unless it waits there already or was put off.
    pub fn push_first(&mut self, item: T, class: Class) {
        if !self.put_off.contains(&item) && self.queued.insert((class, item)) {
            self.queues[class as usize].push_front(item);
        }
    }

    /// Adds for a later time, unless it waits for one already. Then it waits behind what waits in its class already: if
    /// what comes back went first, those that come back together could keep another one waiting for ever.
    pub fn push_at(&mut self, item: T, class: Class, at: Instant) {
        if self.put_off.insert(item) {
            self.delayed.push(Reverse((at, class, item)));
        }
    }

    /// What was put off and `is_over` says of is due now.
    pub fn hurry(&mut self, now: Instant, is_over: impl Fn(&T) -> bool) {
        let hurried =
            |Reverse((at, class, item))| Reverse((if is_over(&item) { now.min(at) } else { at }, class, item));
        self.delayed = std::mem::take(&mut self.delayed).into_iter().map(hurried).collect();
    }

    /// Takes the most urgent item that is due and of class `least` or above it.
    pub fn next(&mut self, now: Instant, least: Class) -> Next<T> {
        while let Some(Reverse((at, class, item))) = self.delayed.peek().copied() {
            if at > now {
                break;
            }
            self.delayed.pop();
            self.put_off.remove(&item);
            if self.queued.insert((class, item)) {
                self.queues[class as usize].push_back(item);
            }
        }
        for class in [Class::Demand, Class::Near, Class::Prefetch].into_iter().filter(|class| *class <= least) {
            while let Some(item) = self.queues[class as usize].pop_front() {
                self.queued.remove(&(class, item));
                // It comes at its time.
                if !self.put_off.contains(&item) {
                    return Next::Item(item, class);
                }
            }
        }
        Next::Until(self.delayed.peek().map(|Reverse((at, ..))| *at))
    }

    /// Takes out whatever `is_void` says of, which is never given out then.
    pub fn forget(&mut self, is_void: impl Fn(&T) -> bool) {
        self.queues.iter_mut().for_each(|queue| queue.retain(|item| !is_void(item)));
        self.delayed.retain(|Reverse((.., item))| !is_void(item));
        self.queued.retain(|(_, item)| !is_void(item));
        self.put_off.retain(|item| !is_void(item));
    }

    /// True if `next` would find an item at this time.
    pub fn is_due(&self, now: Instant, least: Class) -> bool {
        let due = |Reverse((at, class, _)): &Reverse<(Instant, Class, T)>| *at <= now && *class <= least;
        self.delayed.iter().any(due) || self.queues[..=least as usize].iter().any(|queue| !queue.is_empty())
    }

    /// How many items wait, the delayed ones included.
    pub fn len(&self) -> usize {
        self.len_above(Class::Prefetch)
    }

    /// How many items of class `least` or above it wait, the delayed ones included.
    pub fn len_above(&self, least: Class) -> usize {
        let delayed = self.delayed.iter().filter(|Reverse((_, class, _))| *class <= least).count();
        self.queues[..=least as usize].iter().map(VecDeque::len).sum::<usize>() + delayed
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty) && self.delayed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn asking_again_does_not_shorten_a_pause() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut plan = Plan::default();
        plan.push_at(1, Class::Demand, later);
        plan.push(1, Class::Demand);
        assert_eq!((plan.has(1), plan.has(2)), (true, false));
        assert_eq!(plan.next(now, Class::Prefetch), Next::Until(Some(later)));
        assert_eq!(plan.next(later, Class::Prefetch), Next::Item(1, Class::Demand));
        assert!(!plan.has(1));
        plan.push(1, Class::Demand);
        assert!(plan.has(1));
        assert_eq!(plan.next(later, Class::Prefetch), Next::Item(1, Class::Demand));
    }

    #[test]
    fn what_is_forgotten_does_not_come() {
        let now = Instant::now();
        let mut plan = Plan::default();
        (1..=4).for_each(|item| plan.push(item, Class::Prefetch));
        plan.push(2, Class::Demand);
        plan.push_at(6, Class::Near, now);
        plan.push_at(7, Class::Near, now);
        plan.forget(|item| item % 2 == 0);
        let mut came = Vec::new();
        while let Next::Item(item, _) = plan.next(now, Class::Prefetch) {
            came.push(item);
        }
        assert_eq!((came, plan.len()), (vec![7, 1, 3], 0));
        plan.push(6, Class::Near);
        assert_eq!(plan.next(now, Class::Prefetch), Next::Item(6, Class::Near), "it may come again");
    }

    #[test]
    fn a_pause_holds_in_every_class() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut plan = Plan::default();
        plan.push(1, Class::Prefetch);
        plan.push_at(1, Class::Demand, later);
        plan.push(1, Class::Near);
        plan.push(2, Class::Prefetch);
        assert_eq!(plan.next(now, Class::Prefetch), Next::Item(2, Class::Prefetch));
        assert_eq!(plan.next(now, Class::Prefetch), Next::Until(Some(later)));
        assert_eq!(plan.next(later, Class::Prefetch), Next::Item(1, Class::Demand));
        assert!(plan.is_empty());
    }

    #[test]
    fn a_pause_may_end_early() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut plan = Plan::default();
        (1..=3).for_each(|item| plan.push_at(item, Class::Demand, later));
        plan.hurry(now, |item| *item == 2);
        assert_eq!(plan.next(now, Class::Prefetch), Next::Item(2, Class::Demand));
        assert_eq!(plan.next(now, Class::Prefetch), Next::Until(Some(later)));
        plan.push_at(2, Class::Demand, later);
        assert_eq!(plan.len(), 3);
    }

    #[test]
    fn demand_goes_first_and_delayed_work_waits_for_its_time() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut plan = Plan::default();
        plan.push(1, Class::Prefetch);
        plan.push_at(2, Class::Demand, later);
        plan.push(3, Class::Near);
        plan.push(4, Class::Demand);
        assert_eq!(plan.next(now, Class::Prefetch), Next::Item(4, Class::Demand));
        assert_eq!(plan.next(now, Class::Prefetch), Next::Item(3, Class::Near));
        assert_eq!(plan.next(later, Class::Prefetch), Next::Item(2, Class::Demand));
        assert_eq!(plan.next(now, Class::Prefetch), Next::Item(1, Class::Prefetch));
        plan.push_at(5, Class::Near, later);
        assert_eq!(plan.next(now, Class::Prefetch), Next::Until(Some(later)));
        assert_eq!(plan.len(), 1);
        assert_eq!(plan.next(later, Class::Prefetch), Next::Item(5, Class::Near));
        assert_eq!(plan.next(later, Class::Prefetch), Next::Until(None));
        assert!(plan.is_empty());
    }

    #[test]
    fn what_is_asked_for_again_and_again_waits_once() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut plan = Plan::default();
        for _ in 0..1000 {
            (0..10).for_each(|item| plan.push(item, Class::Demand));
            plan.push(3, Class::Near);
            plan.push_at(4, Class::Demand, later);
        }
        assert_eq!(plan.len(), 12);
        // Due while it waits in its queue as well: once is enough.
        for item in 0..10 {
            assert_eq!(plan.next(later, Class::Prefetch), Next::Item(item, Class::Demand));
        }
        // What was taken may be asked for anew.
        plan.push(0, Class::Demand);
        assert_eq!(plan.next(later, Class::Prefetch), Next::Item(0, Class::Demand));
        assert_eq!(plan.next(later, Class::Prefetch), Next::Item(3, Class::Near));
        plan.push_at(4, Class::Demand, later);
        assert_eq!(plan.next(now, Class::Prefetch), Next::Until(Some(later)));
        assert_eq!(plan.next(later, Class::Prefetch), Next::Item(4, Class::Demand));
        assert!(plan.is_empty());
    }

    #[test]
    fn those_that_come_back_together_keep_no_other_waiting() {
        let start = Instant::now();
        let mut plan = Plan::default();
        let mut served = [0; 6];
        (0..6).for_each(|item| plan.push_at(item, Class::Demand, start));
        // At each step one is served, and comes back at the next.
        for step in 0..60 {
            let now = start + Duration::from_millis(step);
            let Next::Item(item, _) = plan.next(now, Class::Prefetch) else { panic!("nothing is due") };
            served[item] += 1;
            plan.push_at(item, Class::Demand, now + Duration::from_millis(1));
        }
        assert_eq!(served, [10; 6]);
    }

    #[test]
    fn what_goes_first_overtakes_its_class_only() {
        let now = Instant::now();
        let mut plan = Plan::default();
        plan.push(1, Class::Prefetch);
        plan.push(2, Class::Demand);
        [4, 3].into_iter().for_each(|item| plan.push_first(item, Class::Prefetch));
        for item in [(2, Class::Demand), (3, Class::Prefetch), (4, Class::Prefetch), (1, Class::Prefetch)] {
            assert_eq!(plan.next(now, Class::Prefetch), Next::Item(item.0, item.1));
        }
        plan.push_at(5, Class::Demand, now + Duration::from_secs(1));
        plan.push_first(5, Class::Demand);
        assert!(matches!(plan.next(now, Class::Prefetch), Next::Until(_)), "a pause holds");
    }

    #[test]
    fn prefetch_waits_where_only_readers_are_served() {
        let now = Instant::now();
        let mut plan = Plan::default();
        plan.push(1, Class::Prefetch);
        plan.push(2, Class::Near);
        plan.push_at(3, Class::Demand, now + Duration::from_secs(1));
        assert_eq!([Class::Demand, Class::Near, Class::Prefetch].map(|class| plan.len_above(class)), [1, 2, 3]);
        assert_eq!(plan.next(now, Class::Near), Next::Item(2, Class::Near));
        assert_eq!(plan.next(now, Class::Near), Next::Until(Some(now + Duration::from_secs(1))));
        assert_eq!(plan.next(now, Class::Prefetch), Next::Item(1, Class::Prefetch));
    }
}
