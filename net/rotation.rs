//! Spreads connections over an endpoint's addresses and keeps away from those that just failed.
//! Shared by all vcpus, used only when a connection is opened. Never resolves names.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long an address that failed is avoided while others work.
const AVOID: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Rotation {
    next: AtomicUsize,
    failed: Mutex<Vec<(SocketAddr, Instant)>>,
}

impl Rotation {
    /// The next address in turn that did not fail lately; any if all did.
    pub fn pick(&self, addresses: &[SocketAddr], now: Instant) -> Option<SocketAddr> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let mut failed = self.failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        failed.retain(|(_, at)| now.saturating_duration_since(*at) < AVOID);
        let turn = |i: usize| addresses[start.wrapping_add(i) % addresses.len()];
        (0..addresses.len())
            .map(turn)
            .find(|address| failed.iter().all(|(other, _)| other != address))
            .or_else(|| addresses.get(start % addresses.len().max(1)).copied())
    }

    /// A connect to it failed.
    pub fn failed(&self, address: SocketAddr, now: Instant) {
        let mut failed = self.failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        failed.retain(|(other, _)| *other != address);
        failed.push((address, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_turns_and_avoids_what_failed() {
        let addresses: Vec<SocketAddr> = (1..=3).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let (rotation, now) = (Rotation::default(), Instant::now());
        let ports = |at| -> Vec<u16> {
            (0..6).filter_map(|_| rotation.pick(&addresses, at)).map(|address| address.port()).collect()
        };
        assert_eq!(ports(now), [1, 2, 3, 1, 2, 3]);
        rotation.failed(addresses[1], now);
        assert!(!ports(now).contains(&2));
        assert!(ports(now + AVOID).contains(&2));
        for address in &addresses {
            rotation.failed(*address, now);
        }
        assert_eq!(ports(now).len(), 6);
        assert_eq!(rotation.pick(&[], now), None);
    }
}
