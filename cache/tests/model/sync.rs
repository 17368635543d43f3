//! `cache/sync.rs` for the schedule checker: each atomic operation is a point where another thread may go
//! on, and a futex wait never times out, so a lost wake-up is a deadlock that the checker sees.
//!
//! It can be told to be broken in one way (`plant`), to show that the checks notice.

use shuttle::sync::atomic as checked;
use shuttle::sync::mpsc;
use std::cell::{Cell, RefCell};

pub use checked::{Ordering, fence};

/// One thing that is wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// A wake-up call wakes nobody.
    LostWake,
    /// A wake-up call wakes one sleeper only.
    WakesOne,
    /// A sleeper does not compare the word before it sleeps.
    NoCompare,
    /// Read-modify-write operations are a read and a write.
    TornUpdate,
}

struct Sleeper {
    word: usize,
    waker: mpsc::Sender<()>,
}

thread_local! {
    // The checker runs all threads of a model on the one that started it.
    static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
    static SLEEPERS: RefCell<Vec<Sleeper>> = const { RefCell::new(Vec::new()) };
}

/// From now on, on this thread.
pub fn plant(bug: Option<Bug>) {
    BUG.set(bug);
}

/// At the begin of each run of a model: nobody sleeps.
pub fn reset() {
    // Those of a run that ended in a deadlock belong to a checker that is gone.
    SLEEPERS.with_borrow_mut(|all| all.drain(..).for_each(std::mem::forget));
}

fn has(bug: Bug) -> bool {
    BUG.get() == Some(bug)
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
                self.0.load(order)
            }
            pub fn store(&self, value: $value, order: Ordering) {
                self.0.store(value, order);
            }
            pub fn swap(&self, value: $value, _: Ordering) -> $value {
                self.update(|_| Some(value)).unwrap_or_default()
            }
            pub fn fetch_add(&self, value: $value, _: Ordering) -> $value {
                self.update(|now| Some(now.wrapping_add(value))).unwrap_or_default()
            }
            pub fn fetch_sub(&self, value: $value, _: Ordering) -> $value {
                self.update(|now| Some(now.wrapping_sub(value))).unwrap_or_default()
            }
            pub fn fetch_or(&self, value: $value, _: Ordering) -> $value {
                self.update(|now| Some(now | value)).unwrap_or_default()
            }
            pub fn compare_exchange(
                &self,
                seen: $value,
                value: $value,
                _: Ordering,
                _: Ordering,
            ) -> Result<$value, $value> {
                self.update(|now| (now == seen).then_some(value))
            }
            pub fn fetch_update(
                &self,
                _: Ordering,
                _: Ordering,
                to: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                self.update(to)
            }
            fn update(&self, mut to: impl FnMut($value) -> Option<$value>) -> Result<$value, $value> {
                if !has(Bug::TornUpdate) {
                    return self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, to);
                }
                let now = self.0.load(Ordering::SeqCst);
                self.0.store(to(now).ok_or(now)?, Ordering::SeqCst);
                Ok(now)
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);

/// Compares and queues in one step, as the kernel does; sleeps until somebody wakes.
pub fn futex_wait(word: &AtomicU32, seen: u32, _ms: u64) -> ossc_cache::sys::Result<()> {
    if word.load(Ordering::SeqCst) != seen && !has(Bug::NoCompare) {
        return Err(ossc_cache::sys::Errno(libc::EAGAIN));
    }
    // A channel, since it is what the checker has without spurious wake-ups: those would hide lost ones.
    let (waker, woken) = mpsc::channel();
    SLEEPERS.with_borrow_mut(|all| all.push(Sleeper { word: &raw const *word as usize, waker }));
    let _ = woken.recv();
    Ok(())
}

/// Wakes all who sleep on the word.
pub fn futex_wake(word: &AtomicU32) {
    // Between the change of the word and the call others may run.
    word.load(Ordering::SeqCst);
    let count = match BUG.get() {
        Some(Bug::LostWake) => 0,
        Some(Bug::WakesOne) => 1,
        _ => usize::MAX,
    };
    let at = &raw const *word as usize;
    let woken: Vec<Sleeper> =
        SLEEPERS.with_borrow_mut(|all| all.extract_if(.., |sleeper| sleeper.word == at).collect());
    let (now, later): (Vec<_>, Vec<_>) = woken.into_iter().enumerate().partition(|(index, _)| *index < count);
    SLEEPERS.with_borrow_mut(|all| all.extend(later.into_iter().map(|(_, sleeper)| sleeper)));
    for (_, sleeper) in now {
        let _ = sleeper.waker.send(());
    }
}
