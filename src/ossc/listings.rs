//! The thread `ossc-mirror`: lists what programs touch, and in between the folders that no program has touched yet.
//!
//! Started by the engine. A folder that is being changed is waited for here without holding up any other.

use crate::item::Order;
use crate::mirror::Mirror;
use crate::quiet;
use crate::renew::{Look, Wanted};
use ossc_cache::wire;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long a listing that a program waits for waits for the small objects of the folder in turn.
pub const SETTLE_WITHIN: Duration = Duration::from_secs(2);
/// Folders that are listed in the background although no program touched them.
const BACKGROUND_FOLDERS_MAX: usize = 2000;
const IDLE: Duration = Duration::from_secs(3600);

/// A folder that is being changed on OSS, and the programs that wait for it.
struct Waiting {
    path: String,
    wanted: Wanted,
    conns: Vec<OwnedFd>,
    /// When it is looked at again.
    next: Instant,
    /// When it is shown as it is.
    until: Instant,
}

/// See the module.
pub struct Listings {
    mirror: Arc<Mirror>,
    model_dir: PathBuf,
    patience: Duration,
    waiting: Vec<Waiting>,
    /// How many folders were listed unasked.
    ahead: usize,
}

impl Listings {
    /// `list_again` is `listAgainSec`.
    pub fn new(mirror: Arc<Mirror>, model_dir: PathBuf, list_again: Duration) -> Listings {
        let patience = Duration::from_secs(quiet::patience_secs(list_again.as_secs()));
        Listings { mirror, model_dir, patience, waiting: Vec::new(), ahead: 0 }
    }

    /// The thread, until the engine ends.
    pub fn keep(mut self, orders: &Receiver<Order>) {
        loop {
            match orders.recv_timeout(self.pause()) {
                Ok(Order::List { path, conn }) => match inside(&path, &self.model_dir) {
                    Some(inside) => self.look(inside.to_string(), Wanted::Fresh, Some(conn)),
                    None => answer(&conn, libc::ENOENT),
                },
                Ok(Order::Refill { paths, conn, fds }) => {
                    tracing::info!(folders = ?paths, "files are missing: they are made again");
                    let now = ossc_cache::sys::now_ms();
                    paths.into_iter().for_each(|path| self.look(path, Wanted::Since(now), None));
                    // A client that no longer waits needs no answer.
                    let _ = wire::answer(conn.as_raw_fd(), 0, 0, b"", fds);
                }
                Ok(Order::Refresh { folder, asked_ms }) => self.look(folder, Wanted::Since(asked_ms), None),
                Err(RecvTimeoutError::Timeout) => self.look_again(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn pause(&self) -> Duration {
        let next = self.waiting.iter().map(|waiting| waiting.next.saturating_duration_since(Instant::now())).min();
        if self.ahead < BACKGROUND_FOLDERS_MAX { Duration::ZERO } else { next.unwrap_or(IDLE) }
    }

    fn look(&mut self, path: String, wanted: Wanted, conn: Option<OwnedFd>) {
        self.ahead = 0;
        let now = Instant::now();
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.path == path) {
            waiting.conns.extend(conn);
            return;
        }
        let conns = conn.into_iter().collect();
        self.try_one(Waiting { path, wanted, conns, next: now, until: now + self.patience });
    }

    fn try_one(&mut self, mut waiting: Waiting) {
        let now = Instant::now();
        match self.mirror.look(&waiting.path, waiting.wanted, now >= waiting.until) {
            Ok(Look::Wait(wait)) => {
                waiting.next = (now + wait).min(waiting.until);
                self.waiting.push(waiting);
            }
            done => self.answer(&waiting, done.map(drop)),
        }
    }

    fn answer(&self, waiting: &Waiting, done: Result<(), crate::failure::Failure>) {
        let errno = match done {
            Ok(()) => {
                if !waiting.conns.is_empty() {
                    self.mirror.wait_for_small(&waiting.path, SETTLE_WITHIN);
                }
                0
            }
            Err(failure) => {
                tracing::error!(folder = waiting.path, "not listed: {failure}");
                ossc_net::kind::UNLISTED_ERRNO
            }
        };
        waiting.conns.iter().for_each(|conn| answer(conn, errno));
    }

    /// What is due, else a folder ahead of its first use.
    fn look_again(&mut self) {
        let now = Instant::now();
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.next <= now) {
            let waiting = self.waiting.swap_remove(at);
            return self.try_one(waiting);
        }
        if self.ahead < BACKGROUND_FOLDERS_MAX {
            let more = self.mirror.list_ahead().unwrap_or_else(|failure| {
                tracing::warn!("a folder was not listed ahead: {failure}");
                false
            });
            self.ahead = if more { self.ahead + 1 } else { BACKGROUND_FOLDERS_MAX };
        }
    }
}

/// A folder's path relative to MODEL_DIR. Clients name it by its record's name, or as the kernel names it.
fn inside<'a>(path: &'a str, model_dir: &Path) -> Option<&'a str> {
    match path.starts_with('/') {
        true => Path::new(path).strip_prefix(model_dir).ok().and_then(Path::to_str),
        false => Some(path),
    }
}

fn answer(conn: &OwnedFd, errno: i32) {
    // A client that no longer waits needs no answer.
    let _ = wire::answer(conn.as_raw_fd(), errno, 0, b"", wire::NO_FDS);
}
