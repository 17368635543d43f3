//! `cache/sync.rs` for the checker of memory orders. It tries every outcome that the memory model of C++20
//! allows for loads, stores and fences of the orders named in the product's text.
//!
//! The checker knows sequential consistency of fences only. So a store or read-modify-write of that order is
//! an acquire and release one here with a fence after it, which is what x86-64 does; a load is an acquire. One futex is
//! enough for the models: a wake-up that comes first is kept for the waiter, for whom the word has changed.

use loom::sync::atomic as checked;
use loom::sync::{Condvar, Mutex};
use std::cell::{Cell, RefCell};
use std::sync::Arc;

pub use checked::Ordering;

/// Whether somebody has woken, and how.
#[derive(Default)]
struct Futex {
    woken: Mutex<bool>,
    change: Condvar,
}

thread_local! {
    // The checker runs all threads of a model on the one that started it.
    static FENCES: Cell<bool> = const { Cell::new(true) };
    static FUTEX: RefCell<Option<Arc<Futex>>> = const { RefCell::new(None) };
}

/// False: from now on no fence has an effect, on this thread.
pub fn plant_fences(work: bool) {
    FENCES.set(work);
}

/// At the begin of each run of a model.
pub fn reset() {
    FUTEX.set(Some(Default::default()));
}

fn futex() -> Arc<Futex> {
    FUTEX.with_borrow(|futex| futex.clone().expect("a model begins with `reset`"))
}

pub fn fence(order: Ordering) {
    if FENCES.get() {
        checked::fence(order);
    }
}

fn weak(order: Ordering, without: Ordering) -> Ordering {
    if order == Ordering::SeqCst { without } else { order }
}

fn after(order: Ordering) {
    if order == Ordering::SeqCst {
        fence(Ordering::SeqCst);
    }
}

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        #[derive(Default)]
        pub struct $name(checked::$name);

        #[allow(dead_code)]
        impl $name {
            pub fn new(value: $value) -> $name {
                $name(checked::$name::new(value))
            }
            pub fn load(&self, order: Ordering) -> $value {
                self.0.load(weak(order, Ordering::Acquire))
            }
            pub fn store(&self, value: $value, order: Ordering) {
                self.0.store(value, weak(order, Ordering::Release));
                after(order);
            }
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                let before = self.0.swap(value, weak(order, Ordering::AcqRel));
                after(order);
                before
            }
            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                let before = self.0.fetch_add(value, weak(order, Ordering::AcqRel));
                after(order);
                before
            }
            pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                let before = self.0.fetch_sub(value, weak(order, Ordering::AcqRel));
                after(order);
                before
            }
            pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                let before = self.0.fetch_or(value, weak(order, Ordering::AcqRel));
                after(order);
                before
            }
            pub fn compare_exchange(
                &self,
                seen: $value,
                value: $value,
                set: Ordering,
                fail: Ordering,
            ) -> Result<$value, $value> {
                let done =
                    self.0.compare_exchange(seen, value, weak(set, Ordering::AcqRel), weak(fail, Ordering::Acquire));
                after(set);
                done
            }
            pub fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                to: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                let done = self.0.fetch_update(weak(set, Ordering::AcqRel), weak(fetch, Ordering::Acquire), to);
                after(set);
                done
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);

pub fn futex_wait(_word: &AtomicU32, _seen: u32, _ms: u64) -> ossc_cache::sys::Result<()> {
    let futex = futex();
    let mut woken = futex.woken.lock().unwrap();
    while !*woken {
        woken = futex.change.wait(woken).unwrap();
    }
    Ok(())
}

pub fn futex_wake(_word: &AtomicU32) {
    let futex = futex();
    *futex.woken.lock().unwrap() = true;
    futex.change.notify_all();
}
