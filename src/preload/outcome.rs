//! What a hook's slow path comes to, and the only place that turns it into a return value and `errno`.
//!
//! Called by every hook. It never lets a panic into the host, and it never changes `errno` on success.

use ossc_cache::sys::{Errno, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What came of a question to the library.
pub(crate) enum Outcome<T> {
    /// Ours, and this is the answer.
    Served(T),
    /// Not ours: what libc says counts.
    Pass,
    /// Ours, and refused or failed.
    Failed(Errno),
}

impl<T> Outcome<T> {
    /// The return value for the host: the answer, `pass()`, or `failed` with `errno` set.
    pub(crate) fn answer(self, failed: T, pass: impl FnOnce() -> T) -> T {
        match self {
            Outcome::Served(value) => value,
            Outcome::Pass => pass(),
            Outcome::Failed(Errno(number)) => {
                set_errno(number);
                failed
            }
        }
    }
}

impl<T> Outcome<T> {
    /// The same where `keep` holds of what is ours, else not ours.
    pub(crate) fn filter(self, keep: impl FnOnce(&T) -> bool) -> Outcome<T> {
        match self {
            Outcome::Served(value) if !keep(&value) => Outcome::Pass,
            other => other,
        }
    }

    /// What comes of the answer.
    pub(crate) fn then<U>(self, act: impl FnOnce(T) -> Outcome<U>) -> Outcome<U> {
        match self {
            Outcome::Served(value) => act(value),
            Outcome::Pass => Outcome::Pass,
            Outcome::Failed(errno) => Outcome::Failed(errno),
        }
    }

    /// The answer, where there is one.
    pub(crate) fn served(self) -> Option<T> {
        match self {
            Outcome::Served(value) => Some(value),
            _ => None,
        }
    }
}

impl<T> From<Result<T>> for Outcome<T> {
    fn from(result: Result<T>) -> Self {
        match result {
            Ok(value) => Outcome::Served(value),
            Err(errno) => Outcome::Failed(errno),
        }
    }
}

/// Runs a slow path: a panic in it is EIO and a log line, and `errno` stays what it was.
pub(crate) fn slow_path<T>(slow: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let before = errno();
    let outcome = catch_unwind(AssertUnwindSafe(slow)).unwrap_or_else(|_| {
        crate::log::named(b"a hook failed inside; its caller gets EIO", b"-");
        Outcome::Failed(Errno(libc::EIO))
    });
    set_errno(before);
    outcome
}

/// The calling thread's `errno`.
pub(crate) fn errno() -> i32 {
    // SAFETY: the C library gives the address of the thread's own errno.
    unsafe { *libc::__errno_location() }
}

/// Sets the calling thread's `errno`.
pub(crate) fn set_errno(number: i32) {
    // SAFETY: as in `errno`.
    unsafe { *libc::__errno_location() = number }
}
