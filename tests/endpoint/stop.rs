//! The flag that ends an endpoint, and sleeps that end with it. Shared by all threads.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Set once; every sleep of the endpoint goes through it so that stopping takes no longer than
/// a system call.
#[derive(Default)]
pub(crate) struct Stop {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    pub(crate) fn set(&self) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_set(&self) -> bool {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps; returns true if the endpoint stopped meanwhile.
    pub(crate) fn sleep(&self, time: Duration) -> bool {
        let guard = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        if time.is_zero() {
            return *guard;
        }
        let waited = self.changed.wait_timeout_while(guard, time, |set| !*set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
