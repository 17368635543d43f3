//! The credentials of an engine: notes those of later programs, and starts the thread `ossc-keys` once there is something that
//! it can renew from.
//!
//! Called by the engine at its start and by the attach server. It asks no service itself.

use crate::credentials::{self, Issuer, Renewal, RenewalThread, Variables, signer};
use crate::lock::lock;
use crate::process::connect;
use crate::process::first_word::NotStarted;
use crate::work::Work;
use ossc_conf::{Config, Settings};
use ossc_sign::Issued;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

/// See the module.
pub struct Keys {
    work: Arc<Work>,
    keeper: Arc<RenewalThread>,
    /// What the engine began with, until the thread has it; `None` for anonymous access, which is never refused for its key.
    first: Mutex<Option<Issued>>,
}

impl Keys {
    /// Nothing is renewed yet.
    pub fn new(work: Arc<Work>, keeper: RenewalThread, first: Option<Issued>) -> Keys {
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
            keeper.run(&renewal, first, |settings, credentials| {
                work.scheduling.set_signer(signer(settings, credentials))
            });
        };
        std::thread::Builder::new().name("ossc-keys".into()).stack_size(512 << 10).spawn(body).map(drop)
    }

    /// When the credentials in use end, in seconds since 1970, if that is known.
    pub fn end_secs(&self) -> Option<u64> {
        u64::try_from(self.keeper.end_secs.load(Ordering::Relaxed)).ok().filter(|end| *end > 0)
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

/// What credentials can be had from again, and what it gives now.
type Renewed = (Box<dyn Issuer>, Issued);

/// What the settings name, if it can be renewed from.
///
/// # Errors
/// The REASON, where nothing can be had of it.
pub fn renewed(settings: &Settings, config: &Config) -> Result<Option<Renewed>, NotStarted> {
    let limits = credentials::Limits { connect: config.connect_timeout, response: config.response_timeout };
    let issuer = credentials::issuer(settings, limits, &connect::trust(settings, config));
    let Some(issuer) = issuer.map_err(|why| format!("failed to initialize connector: {why}"))? else { return Ok(None) };
    match credentials::first(issuer.as_ref()) {
        Ok(first) => Ok(Some((issuer, first))),
        Err(why) => Err(NotStarted::Reason(issuer.reason(why))),
    }
}

/// What renews the credentials: the thread is started now where the source can give others.
pub fn of_engine(
    variables: &Variables,
    settings: &Settings,
    config: &Config,
    work: &Arc<Work>,
    renewed: Option<Renewed>,
) -> Result<Keys, NotStarted> {
    let limits = credentials::Limits { connect: config.connect_timeout, response: config.response_timeout };
    let later = credentials::Later::new(variables, limits, connect::trust(settings, config));
    let (issuer, first) = match renewed {
        Some((issuer, first)) => (Some(issuer), Some(first)),
        None => (None, credentials::lasting(settings).map(|credentials| Issued { credentials, ends_secs: None })),
    };
    let ends_unix_secs = first.as_ref().and_then(|first| first.ends_secs);
    let name = issuer.as_ref().map(|issuer| issuer.name());
    let end_secs = AtomicI64::new(ends_unix_secs.unwrap_or(0));
    let keeper = credentials::RenewalThread { issuer, later: Arc::new(later), settings: settings.clone(), end_secs };
    let keys = Keys::new(work.clone(), keeper, first);
    if let Some(source) = name {
        tracing::info!(source, ends_unix_secs, "credentials");
        keys.renew().map_err(|e| format!("failed to initialize connector: thread ossc-keys: {e}"))?;
    }
    Ok(keys)
}
