//! Spreads connections over an endpoint's addresses and keeps away from those that just failed, so
//! that a dead one (an IPv6 address without a route, a machine that is gone) costs one connect
//! timeout and not one for each connection. Shared by all vcpus, used only when a connection is
//! opened. Never resolves names and reads no clock (time is an argument).

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The time of avoidance doubles with each failure in a row, at most so often.
const DOUBLINGS_MAX: u32 = 5;

/// See the module.
#[derive(Debug)]
pub(crate) struct Rotation {
    avoid: Duration,
    next: AtomicUsize,
    failed: Mutex<Vec<Failed>>,
    /// The list is not empty: spares the lock while all is well.
    any_failed: AtomicBool,
}

/// An address whose last connection failed before it had brought anything.
#[derive(Debug)]
struct Failed {
    address: SocketAddr,
    in_a_row: u32,
    until: Instant,
    /// It was given to one connection, whose end is not known yet.
    probed: bool,
}

impl Rotation {
    /// Keeps away from an address for `avoid` after it has failed, and longer each time.
    pub fn new(avoid: Duration) -> Rotation {
        Rotation { avoid, next: AtomicUsize::new(0), failed: Mutex::default(), any_failed: AtomicBool::new(false) }
    }

    /// The next address in turn that is not avoided; any if all are. When the time of one is over,
    /// it is given to one connection alone, until that has worked.
    pub fn pick(&self, addresses: &[SocketAddr], now: Instant) -> Option<SocketAddr> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = |i: usize| addresses[start.wrapping_add(i) % addresses.len()];
        if !self.any_failed.load(Ordering::Acquire) {
            return addresses.get(start % addresses.len().max(1)).copied();
        }
        let mut failed = self.list();
        for address in (0..addresses.len()).map(turn) {
            match failed.iter_mut().find(|other| other.address == address) {
                None => return Some(address),
                Some(other) if other.until <= now => {
                    other.until = now + self.pause(other.in_a_row);
                    other.probed = true;
                    return Some(address);
                }
                Some(_) => {}
            }
        }
        addresses.get(start % addresses.len().max(1)).copied()
    }

    /// A connect to it failed, or the first request of a connection, in whatever layer.
    pub fn failed(&self, address: SocketAddr, now: Instant) {
        let mut failed = self.list();
        let in_a_row = match failed.iter().position(|other| other.address == address) {
            // Several connections that were under way at once are one failure.
            Some(at) if !failed[at].probed && failed[at].until > now + self.pause(failed[at].in_a_row) / 2 => return,
            Some(at) => failed.swap_remove(at).in_a_row + 1,
            None => 1,
        };
        failed.push(Failed { address, in_a_row, until: now + self.pause(in_a_row), probed: false });
        self.any_failed.store(true, Ordering::Release);
    }

    /// A connection to it has brought an answer.
    pub fn worked(&self, address: SocketAddr) {
        if self.any_failed.load(Ordering::Acquire) {
            let mut failed = self.list();
            failed.retain(|other| other.address != address);
            self.any_failed.store(!failed.is_empty(), Ordering::Release);
        }
    }

    fn pause(&self, in_a_row: u32) -> Duration {
        self.avoid * 2_u32.pow(in_a_row.saturating_sub(1).min(DOUBLINGS_MAX))
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Failed>> {
        self.failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AVOID: Duration = Duration::from_secs(30);

    fn three() -> (Vec<SocketAddr>, Rotation, Instant) {
        let addresses = (1..=3).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        (addresses, Rotation::new(AVOID), Instant::now())
    }

    #[test]
    fn takes_turns_and_avoids_what_failed() {
        let (addresses, rotation, now) = three();
        let ports = |at| -> Vec<u16> {
            (0..6).filter_map(|_| rotation.pick(&addresses, at)).map(|address| address.port()).collect()
        };
        assert_eq!(ports(now), [1, 2, 3, 1, 2, 3]);
        rotation.failed(addresses[1], now);
        assert!(!ports(now).contains(&2));
        for address in &addresses {
            rotation.failed(*address, now);
        }
        assert_eq!(ports(now).len(), 6);
        assert_eq!(rotation.pick(&[], now), None);
        rotation.worked(addresses[1]);
        assert_eq!(ports(now), [2; 6]);
    }

    #[test]
    fn one_connection_tries_a_failed_address_again_and_each_failure_doubles_the_pause() {
        let (addresses, rotation, now) = three();
        let twos = |at| (0..9).filter_map(|_| rotation.pick(&addresses, at)).filter(|a| a.port() == 2).count();
        rotation.failed(addresses[1], now);
        // The other connections of the first wave fail at the same address a little later.
        rotation.failed(addresses[1], now + Duration::from_millis(10));
        assert_eq!(twos(now + AVOID - Duration::from_secs(1)), 0);
        let again = now + AVOID;
        assert_eq!((twos(again), twos(again)), (1, 0), "one connection probes it");
        // A probe may fail at once or late.
        rotation.failed(addresses[1], again + Duration::from_secs(2));
        assert_eq!(twos(again + Duration::from_secs(2) + AVOID), 0, "the second pause is longer");
        assert_eq!(twos(again + Duration::from_secs(2) + AVOID * 2), 1);
        let again = again + Duration::from_secs(2) + AVOID * 2;
        rotation.failed(addresses[1], again + Duration::from_secs(29));
        assert_eq!(twos(again + Duration::from_secs(29) + AVOID * 2), 0, "the third is longer still");
        rotation.worked(addresses[1]);
        assert_eq!(twos(again), 3, "it is one of three again");
    }
}
