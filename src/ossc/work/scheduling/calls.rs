//! Questions that threads of the engine ask OSS and wait for: pages of listings, facts of objects.
//!
//! Called by the mirror's threads, which wait here, and by the work when an answer has come. It opens no connection:
//! a question is an item of the plan like any other.

use crate::lock::lock;
use crate::work::scheduling::Scheduling;
use crate::work::shared::item::{DOCUMENT_BYTES_MAX, Item};
use crate::work::shared::sparing::Sparing;
use ossc_net::error::{FailureKind, Phase};
use ossc_net::{Error, Fetch, Finished, Query, Sink};
use ossc_store::plan::Class;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// A question that a thread waits for.
struct Call {
    query: Query,
    answer: SyncSender<Finished>,
}

/// The questions that are not answered yet.
#[derive(Default)]
pub(super) struct Calls {
    open: Mutex<HashMap<u32, Call>>,
    sparing: Sparing,
    next: AtomicU32,
}

/// How often a question is asked that fails for a cause which may pass, and until when its answer is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Times that it is asked at most.
    pub attempts: u32,
    /// No longer than until then, if there is such a time.
    pub until: Option<Instant>,
    /// An origin that is away is asked until then, however often: only where nothing takes connections the attempts
    /// count, since that is mostly a wrong address.
    pub outlasts: bool,
}

/// Longest pause of one that outlasts an outage.
const OUTLAST_PAUSE_MAX: Duration = Duration::from_secs(1);

impl Calls {
    fn open(&self, query: &Query) -> (u32, Receiver<Finished>) {
        let (answer, wait) = sync_channel(1);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.open).insert(id, Call { query: query.clone(), answer });
        (id, wait)
    }
}

impl Scheduling {
    /// Asks one question and waits for its answer; retries what may succeed later, as long as `patience` says.
    ///
    /// # Errors
    /// What ended the last try.
    pub fn call(&self, query: &Query, patience: Patience) -> Result<Finished, Error> {
        self.answer_of(query, self.queue_call(query), patience)
    }

    /// Asks all of them at once; the answers come in their order.
    pub fn call_all(&self, queries: &[Query], patience: Patience) -> Vec<Result<Finished, Error>> {
        let asked: Vec<_> = queries.iter().map(|query| self.queue_call(query)).collect();
        asked.into_iter().zip(queries).map(|(wait, query)| self.answer_of(query, wait, patience)).collect()
    }

    /// The request for a question that is not answered yet.
    pub fn question(&self, id: u32) -> Option<Fetch> {
        let query = lock(&self.calls.open).get(&id)?.query.clone();
        let sink = Sink::Buffer { bytes_max: DOCUMENT_BYTES_MAX };
        Some(Fetch { token: Item::Call(id).token(), query, sink, crc: false, urgent: true })
    }

    /// The request for a question has ended.
    pub fn answered(&self, id: u32, done: Finished) {
        if let Some(call) = lock(&self.calls.open).remove(&id) {
            // The thread that asked may have stopped waiting.
            let _ = call.answer.send(done);
        }
    }

    fn queue_call(&self, query: &Query) -> Receiver<Finished> {
        let (id, wait) = self.calls.open(query);
        // Before small objects: a folder that is listed ahead may be one that a program comes to wait for.
        self.push(&[Item::Call(id)], Class::Demand);
        wait
    }

    fn answer_of(&self, query: &Query, mut wait: Receiver<Finished>, patience: Patience) -> Result<Finished, Error> {
        let Patience { attempts, until, outlasts } = patience;
        let (mut tried, mut refused, mut is_doubted) = (0, 0, false);
        let gone = || Error::new(FailureKind::Cancelled, Phase::Start, "the engine stops");
        let late = || Error::new(FailureKind::Timeout, Phase::Head, "no answer in the time that there was");
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        loop {
            let mut done = match until.filter(|_| !outlasts) {
                None => wait.recv().map_err(|_| gone())?,
                // An answer that comes later is dropped.
                Some(until) => wait.recv_timeout(left(until)).map_err(|why| match why {
                    RecvTimeoutError::Timeout => late(),
                    RecvTimeoutError::Disconnected => gone(),
                })?,
            };
            let error = match std::mem::replace(&mut done.result, Err(gone())) {
                Ok(response) => {
                    done.result = Ok(response);
                    return Ok(done);
                }
                Err(error) => error,
            };
            // One answer may be a stray one.
            if error.is_doubtful() && !std::mem::replace(&mut is_doubted, true) {
                tracing::warn!("asked once more on another connection, since one answer may be a stray one: {error}");
                wait = self.queue_call(query);
                continue;
            }
            tried += 1;
            let is_refused =
                error.phase == Phase::Connect && matches!(error.kind, FailureKind::Network | FailureKind::Shortage);
            refused = if is_refused { refused + 1 } else { 0 };
            // One that outlasts an outage counts what nothing takes in a row, which is mostly a wrong address. A clock
            // that cannot be corrected stays wrong.
            let is_outage = error.retryable() && error.kind != FailureKind::Clock;
            let spent = if outlasts && is_outage { refused } else { tried };
            if spent >= attempts || !(error.retryable() || self.renews(&error).is_some()) {
                return Err(error);
            }
            let pause = self.options.backoff.wait(tried - 1);
            let pause = if outlasts { pause.min(OUTLAST_PAUSE_MAX) } else { pause };
            if until.is_some_and(|until| left(until) <= pause) {
                return Err(error);
            }
            if let Some(more) = self.calls.sparing.line(error.kind, (self.options.now)()) {
                tracing::warn!("{error}; trying again ({tried} of {attempts}){more}");
            }
            self.waits_for(&format!("OSS, since {error}"));
            self.recovery.pause(pause);
            wait = self.queue_call(query);
        }
    }
}
