//! The credentials of an engine: notes those of later programs, and starts the thread `ossc-keys` once there is something that
//! it can renew from.
//!
//! Called by the engine at its start and by the attach server. It asks no service itself.

use crate::credentials::{Keeper, Renewal, signer};
use crate::lock::lock;
use crate::work::Work;
use ossc_sign::Issued;
use std::sync::{Arc, Mutex};

/// See the module.
pub struct Keys {
    work: Arc<Work>,
    keeper: Arc<Keeper>,
    /// What the engine began with, until the thread has it; `None` for anonymous access, which is never refused for its key.
    first: Mutex<Option<Issued>>,
}

impl Keys {
    /// Nothing is renewed yet.
    pub fn new(work: Arc<Work>, keeper: Keeper, first: Option<Issued>) -> Keys {
        Keys { work, keeper: Arc::new(keeper), first: Mutex::new(first) }
    }

    /// Starts the thread, the first time.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn renew(&self) -> Result<(), std::io::Error> {
        let Some(first) = lock(&self.first).take() else { return Ok(()) };
        let renewal = Arc::new(Renewal::default());
        self.work.scheduling.set_renewal(renewal.clone());
        let (work, keeper) = (self.work.clone(), self.keeper.clone());
        let body = move || {
            keeper.keep(&renewal, first, |settings, credentials| {
                work.scheduling.set_signer(signer(settings, credentials))
            });
        };
        std::thread::Builder::new().name("ossc-keys".into()).stack_size(512 << 10).spawn(body).map(drop)
    }

    /// A program that started later has sent where its credentials come from.
    pub fn note(&self, pid: i32, text: &[u8]) {
        if self.keeper.later.note(text) {
            tracing::info!(pid, "credentials of a later program are kept for when OSS refuses those in use");
            if let Err(e) = self.renew() {
                tracing::warn!("they cannot be used: thread ossc-keys: {e}");
            }
        }
    }
}
