//! One engine for a MODEL_DIR wherever run folders lie: two containers, or two values of CONNECTOR_UDS_PATH, may name the
//! same folder and meet in no run folder. Two engines would take each other's files for leftovers.
//!
//! Called by the engine at its start, behind the lock of its run folder, and by `ossc doctor`, which only looks. It takes a
//! read lock on one byte of the folder itself, and asks whether another one has such a lock. That is in no program's way:
//! `flock` of a folder is another kind of lock, and no program may lock a folder to write. Where the file system has no such
//! locks there is no look.

use crate::folder_files::Root;
use ossc_cache::sys;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Which byte: far from those that programs lock.
const BYTE: i64 = 0x4f53_5343_4f4e_4e31;
/// The engine before may hold its lock for as long after that of its run folder: both go with its descriptors. One that
/// starts at the same moment has let go by then, or goes on.
const DYING: Duration = Duration::from_secs(2);
/// Two that start at the same moment look again after different times, in milliseconds.
const LOOK_AGAIN_MS: std::ops::Range<u64> = 5..100;

/// The lock on a folder, as long as it lives.
pub struct Alone {
    _folder: OwnedFd,
}

/// Takes the lock; `None` where there is no such lock.
///
/// # Errors
/// A text for the REASON: another engine serves the folder.
pub fn alone(root: &Root, model_dir: &Path) -> Result<Option<Alone>, String> {
    let taken =
        root.opened().map_err(|e| e.raw_os_error()).and_then(|folder| taken_alone(folder, DYING).map_err(|e| e.0));
    match taken {
        Ok(Some(folder)) => Ok(Some(Alone { _folder: folder })),
        Ok(None) => Err(format!("failed to acquire uds lock: {}", another(model_dir))),
        Err(errno) => {
            let why = std::io::Error::from_raw_os_error(errno);
            tracing::debug!("MODEL_DIR cannot be locked, so other engines of it are not noticed: {why}");
            Ok(None)
        }
    }
}

/// Whether an engine has the lock now. It takes none.
pub fn is_taken(root: &Root) -> bool {
    root.opened().is_ok_and(|folder| sys::has_byte_another(folder.as_raw_fd(), BYTE).unwrap_or(false))
}

/// That another engine serves the folder, and what to do.
pub fn another(model_dir: &Path) -> String {
    format!(
        "another engine serves MODEL_DIR {}, and its socket lies elsewhere (it belongs to another container or user, or \
         has another CONNECTOR_UDS_PATH or XDG_RUNTIME_DIR): give this program a MODEL_DIR of its own, or both the same \
         CONNECTOR_UDS_PATH, or wait until lingerSec after the other's last program",
        model_dir.display()
    )
}

/// The folder with the lock; `None` if another opening has one for as long as that.
fn taken_alone(folder: OwnedFd, patience: Duration) -> sys::Result<Option<OwnedFd>> {
    let fd = folder.as_raw_fd();
    let until = Instant::now() + patience;
    loop {
        sys::share_byte(fd, BYTE)?;
        if !sys::has_byte_another(fd, BYTE)? {
            return Ok(Some(folder));
        }
        // An engine that sees no other goes on: of two that see each other one has to let go.
        sys::leave_byte(fd, BYTE)?;
        if Instant::now() >= until {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(fastrand::u64(LOOK_AGAIN_MS)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Scratch(std::path::PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("ossc-alone-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Scratch(path)
        }

        fn opened(&self) -> OwnedFd {
            Root::open(&self.0).unwrap().opened().unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir(&self.0);
        }
    }

    #[test]
    fn a_second_one_is_noticed_until_the_first_is_gone() {
        let folder = Scratch::new("second");
        let first = taken_alone(folder.opened(), Duration::ZERO).unwrap();
        assert!(first.is_some());
        assert!(taken_alone(folder.opened(), Duration::ZERO).unwrap().is_none());
        // What `flock` does is another matter, whoever does it.
        rustix::fs::flock(folder.opened(), rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| taken_alone(folder.opened(), Duration::from_secs(60)));
            std::thread::sleep(Duration::from_millis(20));
            drop(first);
            assert!(second.join().unwrap().unwrap().is_some());
        });
    }

    #[test]
    fn of_many_that_start_together_one_goes_on() {
        let folder = Scratch::new("together");
        let (held, left) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let got = taken_alone(folder.opened(), Duration::from_secs(1)).unwrap();
                    held.fetch_add(usize::from(got.is_some()), Ordering::SeqCst);
                    left.fetch_add(1, Ordering::SeqCst);
                    while left.load(Ordering::SeqCst) < 8 {
                        std::thread::yield_now();
                    }
                });
            }
        });
        assert_eq!(held.into_inner(), 1);
    }
}
