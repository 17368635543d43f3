//! Whether programs of this MODEL_DIR live: what was fetched ahead for them and not opened yet stays as long.
//!
//! Told by the attach server, which counts clients, and asked by the lease thread. It watches nothing itself.

use crate::lock::lock;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// See the module. As long as nothing was told, the program that started the engine lives.
#[derive(Default)]
pub struct Programs {
    /// `Some`: no client. Since when no program was seen, once that was looked for.
    alone: Mutex<Option<Option<Instant>>>,
    /// How many clients were told last.
    count: AtomicUsize,
}

impl Programs {
    /// There are so many clients now.
    pub fn tell(&self, clients: usize, now: Instant) {
        self.count.store(clients, Ordering::Relaxed);
        let mut alone = lock(&self.alone);
        match clients {
            0 if alone.is_none() => *alone = Some(Some(now)),
            0 => {}
            _ => *alone = None,
        }
    }

    /// How many clients there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Since when no program lives; `None` if one does. `is_nearby` looks for programs that run for this MODEL_DIR and
    /// are no clients (yet); it is asked only when there is no client.
    pub fn alone_since(&self, now: Instant, is_nearby: impl FnOnce() -> bool) -> Option<Instant> {
        (*lock(&self.alone))?;
        let is_nearby = is_nearby();
        // There may be a client by now.
        let mut alone = lock(&self.alone);
        let since = alone.as_mut()?;
        *since = if is_nearby { None } else { Some(since.unwrap_or(now)) };
        *since
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_counts_from_the_end_of_the_last_one() {
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let programs = Programs::default();
        let asked = || -> bool { panic!("processes are looked for although there is a client") };
        assert_eq!(programs.alone_since(begin, asked), None);
        programs.tell(2, begin);
        assert_eq!(programs.alone_since(begin, asked), None);
        programs.tell(0, begin + second);
        programs.tell(0, begin + 2 * second);
        assert_eq!(programs.alone_since(begin + 3 * second, || false), Some(begin + second));
        assert_eq!(programs.alone_since(begin + 4 * second, || true), None);
        assert_eq!(programs.alone_since(begin + 5 * second, || false), Some(begin + 5 * second));
        assert_eq!(programs.alone_since(begin + 6 * second, || false), Some(begin + 5 * second));
        programs.tell(1, begin + 7 * second);
        assert_eq!(programs.alone_since(begin + 8 * second, asked), None);
    }
}
