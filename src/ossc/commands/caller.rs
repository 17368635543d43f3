//! Single questions to OSS outside an engine: one thread of the engine's own network code, one answer after the other.
//!
//! Called by the commands that look at a bucket (`doctor`, `plan`, `verify`). It keeps nothing and tries nothing twice.

use crate::lock::lock;
use ossc_net::error::{FailureKind, Phase};
use ossc_net::{Error, Fetch, Finished, Origin, Pull, Query, Response, Sink, Source, VcpuOptions, Vcpus};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// See the module.
pub struct Caller {
    desk: Arc<Desk>,
    vcpus: Vcpus,
}

#[derive(Default)]
struct Desk {
    question: Mutex<Option<Fetch>>,
    answer: Mutex<Option<SyncSender<Finished>>>,
}

impl Source for Desk {
    fn pull(&self, _: Instant) -> Pull {
        lock(&self.question).take().map_or(Pull::Until(None), Pull::Fetch)
    }

    fn finished(&self, done: Finished) {
        if let Some(answer) = lock(&self.answer).take() {
            // Who asked waits for exactly this.
            let _ = answer.send(done);
        }
    }
}

impl Caller {
    /// Starts the network thread.
    ///
    /// # Errors
    /// `FailureKind::Local` if it or the asked-for driver cannot be had.
    pub fn start(origin: Origin, options: VcpuOptions) -> Result<Caller, Error> {
        let desk = Arc::new(Desk::default());
        let options = VcpuOptions { vcpus: 1, workers: 1, ..options };
        Ok(Caller { vcpus: Vcpus::start(Arc::new(origin), desk.clone(), options)?, desk })
    }

    /// Asks once; the body comes back if it is at most `bytes_max` bytes long.
    ///
    /// # Errors
    /// Whatever ended the request.
    pub fn call(&mut self, query: Query, bytes_max: usize) -> Result<(Response, Vec<u8>), Error> {
        let (answer, answered) = sync_channel(1);
        *lock(&self.desk.answer) = Some(answer);
        *lock(&self.desk.question) =
            Some(Fetch { token: 0, query, sink: Sink::Buffer { bytes_max }, crc: true, urgent: true });
        self.vcpus.wake();
        let done = answered
            .recv()
            .map_err(|_| Error::new(FailureKind::Local, Phase::Start, "the network thread has ended"))?;
        done.result.map(|response| (response, done.body))
    }

    /// `io_uring` or `epoll`, and why.
    pub fn driver(&self) -> (&'static str, String) {
        self.vcpus.driver()
    }
}
