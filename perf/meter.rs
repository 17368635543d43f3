//! Wall clock and the kernel's account of this process. Used around the measured part of each command.
//! Never measures children.

use crate::error::{Result, Tried};
use std::io;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

/// A running measurement.
pub struct Meter {
    begun: Instant,
    usage: Usage,
}

/// What was used between [`Meter::start`] and [`Meter::stop`].
#[derive(Clone, Copy, Debug)]
pub struct Used {
    pub wall: Duration,
    pub user: Duration,
    pub sys: Duration,
    /// Page faults, minor and major.
    pub faults: u64,
    /// Times a thread went to sleep: wake-ups, on an idle machine.
    pub switches: u64,
    /// Largest resident set of the process so far, in bytes; shared pages count too.
    pub rss_bytes_max: u64,
}

#[derive(Clone, Copy)]
struct Usage {
    user: Duration,
    sys: Duration,
    faults: u64,
    switches: u64,
    rss_bytes_max: u64,
}

impl Meter {
    /// Begins now.
    pub fn start() -> Result<Meter> {
        Ok(Meter { usage: usage()?, begun: Instant::now() })
    }

    /// What was used since the start, by all threads.
    pub fn stop(&self) -> Result<Used> {
        let wall = self.begun.elapsed();
        let now = usage()?;
        Ok(Used {
            wall,
            user: now.user.saturating_sub(self.usage.user),
            sys: now.sys.saturating_sub(self.usage.sys),
            faults: now.faults - self.usage.faults,
            switches: now.switches - self.usage.switches,
            rss_bytes_max: now.rss_bytes_max,
        })
    }
}

fn usage() -> Result<Usage> {
    let mut raw = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the kernel writes one rusage into the place it is given.
    let rc = unsafe { libc::getrusage(libc::RUSAGE_SELF, raw.as_mut_ptr()) };
    if rc != 0 {
        return Err(io::Error::last_os_error()).tried(|| "getrusage".into());
    }
    // SAFETY: the call succeeded, so the value is written.
    let raw = unsafe { raw.assume_init() };
    let time = |t: libc::timeval| Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64);
    Ok(Usage {
        user: time(raw.ru_utime),
        sys: time(raw.ru_stime),
        faults: (raw.ru_minflt + raw.ru_majflt) as u64,
        switches: raw.ru_nvcsw as u64,
        // Linux counts it in KiB (getrusage(2)).
        rss_bytes_max: raw.ru_maxrss as u64 * 1024,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_sleep_are_seen() {
        let meter = Meter::start().unwrap();
        let pages = vec![1u8; 32 << 20];
        std::thread::sleep(Duration::from_millis(20));
        let used = meter.stop().unwrap();
        assert!(used.wall >= Duration::from_millis(20), "{used:?}");
        assert!(used.user + used.sys > Duration::ZERO, "{used:?}");
        assert!(used.switches >= 1 && used.faults >= 16, "{used:?}");
        assert!(used.rss_bytes_max >= pages.len() as u64, "{used:?}");
    }
}
