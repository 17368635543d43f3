//! What all vcpus receive of bodies together: how many bytes ever, by how many connections, and when the last of them came. It
//! tells a slow connection from a slow link.
//! Told by each vcpu once a turn, and asked by those that look at a slow connection. Never reads a clock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::conn::Crowd;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    bytes: AtomicU64,
    connections: AtomicUsize,
    first: OnceLock<Instant>,
    /// Milliseconds from the first bytes to the last.
    last_ms: AtomicU64,
}

impl Traffic {
    /// A vcpu has received so many bytes, and has now other connections with a request than at its last word. For how long
    /// nothing had come before them.
    pub fn came(&self, bytes: u64, (before, busy): (usize, usize), now: Instant) -> Duration {
        if before != busy {
            self.connections.fetch_add(busy.wrapping_sub(before), Ordering::Relaxed);
        }
        if bytes == 0 {
            return Duration::ZERO;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let since = now.saturating_duration_since(*self.first.get_or_init(|| now)).as_millis() as u64;
        Duration::from_millis(since.saturating_sub(self.last_ms.fetch_max(since, Ordering::Relaxed)))
    }

    /// What there was until now.
    pub fn all(&self) -> Crowd {
        Crowd {
            bytes: self.bytes.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed) as u64,
        }
    }

    /// How long nothing has come; `None` before the first bytes.
    pub fn quiet(&self, now: Instant) -> Option<Duration> {
        let last = *self.first.get()? + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        Some(now.saturating_duration_since(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_vcpus_tell_adds_up() {
        let (traffic, begin) = (Traffic::default(), Instant::now());
        let at = |ms| begin + Duration::from_millis(ms);
        assert_eq!((traffic.all(), traffic.quiet(begin)), (Crowd::default(), None));
        traffic.came(0, (0, 3), at(0));
        assert_eq!(traffic.came(70, (0, 2), at(500)), Duration::ZERO);
        assert_eq!(traffic.came(30, (3, 1), at(900)), Duration::from_millis(400));
        traffic.came(0, (2, 0), at(1000));
        let all = Crowd { bytes: 100, connections: 1 };
        assert_eq!((traffic.all(), traffic.quiet(at(1400))), (all, Some(Duration::from_millis(500))));
    }
}
