//! A reservation: bytes of the budget that are put aside, as a value. What was taken is given back when the value goes.
//!
//! Taken by the residency wing. Each object has the room of its parts and blocks in one such value, and the second
//! requests of parts share another one.

use ossc_store::budget::Budget;
use std::sync::Arc;

/// See the module.
#[derive(Default)]
pub struct Reservation {
    budget: Option<Arc<Budget>>,
    bytes: u64,
}

impl Reservation {
    /// Puts `bytes` aside; `None` if that would go over the limit.
    pub fn reserve(budget: &Arc<Budget>, bytes: u64) -> Option<Reservation> {
        budget.reserve(bytes).then(|| Reservation { budget: Some(budget.clone()), bytes })
    }

    /// Counts memory that is in use already, also where that is over the limit.
    pub fn reserve_anyway(budget: &Arc<Budget>, bytes: u64) -> Reservation {
        budget.reserve_anyway(bytes);
        Reservation { budget: Some(budget.clone()), bytes }
    }

    /// Adds another one, which is of the same budget.
    pub fn put(&mut self, mut other: Reservation) {
        self.bytes += std::mem::take(&mut other.bytes);
        self.budget = self.budget.take().or_else(|| other.budget.take());
    }

    /// Takes so many bytes of it out.
    #[must_use = "what is not kept is given back"]
    pub fn part(&mut self, bytes: u64) -> Reservation {
        debug_assert!(bytes <= self.bytes, "{bytes} bytes of {}", self.bytes);
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Reservation { budget: self.budget.clone(), bytes }
    }

    /// Gives so many bytes of it back.
    pub fn give(&mut self, bytes: u64) {
        drop(self.part(bytes));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(budget) = self.budget.as_ref().filter(|_| self.bytes > 0) {
            budget.give(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back_once() {
        let budget = Arc::new(Budget::new(10));
        let mut all = Reservation::reserve(&budget, 6).unwrap();
        assert!(Reservation::reserve(&budget, 5).is_none());
        let mut object = Reservation::default();
        object.put(all.part(4));
        assert_eq!(budget.used(), 6);
        drop(all);
        assert_eq!(budget.used(), 4);
        object.give(1);
        assert_eq!(budget.used(), 3);
        object.put(Reservation::reserve_anyway(&budget, 20));
        assert_eq!(budget.used(), 23);
        drop(object);
        assert_eq!(budget.used(), 0);
        drop(Reservation::default());
    }
}
