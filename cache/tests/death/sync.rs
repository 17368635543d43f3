//! `cache/sync.rs` for processes that die: each atomic operation and futex call is a step, and at step k the
//! process ends, by SIGKILL or `_exit`. Counting is off until a child turns it on.

use core::sync::atomic as real;
use core::sync::atomic::Ordering::Relaxed;
use ossc_cache::sys;

pub use real::Ordering;

/// Steps left until this process ends; negative: never.
static LEFT: real::AtomicI64 = real::AtomicI64::new(-1);
static TAKEN: real::AtomicI64 = real::AtomicI64::new(0);
static BY_EXIT: real::AtomicBool = real::AtomicBool::new(false);

/// Status of a child that was ended at its step by `_exit`.
pub const DIED: i32 = 77;

/// In the child: from now on, end at step `k`, counted from 0.
pub fn die_at(k: i64, by_exit: bool) {
    BY_EXIT.store(by_exit, Relaxed);
    TAKEN.store(0, Relaxed);
    LEFT.store(k, Relaxed);
}

/// In the child: no more deaths; how many steps were taken.
pub fn survive() -> i64 {
    LEFT.store(-1, Relaxed);
    TAKEN.load(Relaxed)
}

/// One step that could be the last; also to be called between accesses that are not atomic.
pub fn step() {
    let left = LEFT.load(Relaxed);
    if left < 0 {
        return;
    }
    if left == 0 {
        end();
    }
    TAKEN.fetch_add(1, Relaxed);
    LEFT.store(left - 1, Relaxed);
}

fn end() -> ! {
    if BY_EXIT.load(Relaxed) {
        // SAFETY: ends the process without running anything of it.
        unsafe { libc::_exit(DIED) }
    }
    loop {
        // SAFETY: the process ends itself.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}

pub fn fence(order: Ordering) {
    real::fence(order);
    step();
}

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        #[derive(Default)]
        #[repr(transparent)]
        pub struct $name(real::$name);

        #[allow(dead_code)]
        impl $name {
            pub const fn new(value: $value) -> $name {
                $name(real::$name::new(value))
            }
            pub fn load(&self, order: Ordering) -> $value {
                step();
                self.0.load(order)
            }
            pub fn store(&self, value: $value, order: Ordering) {
                step();
                self.0.store(value, order);
            }
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                step();
                self.0.swap(value, order)
            }
            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                step();
                self.0.fetch_add(value, order)
            }
            pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                step();
                self.0.fetch_or(value, order)
            }
            pub fn compare_exchange(
                &self,
                seen: $value,
                value: $value,
                set: Ordering,
                fail: Ordering,
            ) -> Result<$value, $value> {
                step();
                self.0.compare_exchange(seen, value, set, fail)
            }
            pub fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                to: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                step();
                self.0.fetch_update(set, fetch, to)
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);

pub fn futex_wait(word: &AtomicU32, seen: u32, ms: u64) -> sys::Result<()> {
    step();
    sys::futex_wait(&word.0, seen, ms)
}

pub fn futex_wake(word: &AtomicU32) {
    step();
    sys::futex_wake(&word.0);
}
