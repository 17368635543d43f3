//! The request under way on a connection: what was asked, what is known of the answer, and how it
//! became a [`Finished`]. Used by the connection. Never does I/O.

use std::time::Instant;

use crate::crc::Crc;
use crate::error::{Error, FailureKind, Fault, Phase};
use crate::fetch::{Finished, Query, Response};
use crate::http1::Head;
use crate::retry;
use crate::sink::Sink;

/// See the module.
#[derive(Debug)]
pub(crate) struct Job {
    token: u64,
    pub query: Query,
    begun: Instant,
    pub crc: Option<Crc>,
    pub response: Response,
    /// An error answer whose document is being read.
    pub refused: Option<Head>,
    result: Option<Result<(), Error>>,
}

impl Job {
    pub fn new(token: u64, query: Query, crc: bool, now: Instant) -> Job {
        Job {
            token,
            query,
            begun: now,
            crc: crc.then(Crc::new),
            response: Response::default(),
            refused: None,
            result: None,
        }
    }

    /// The source's number for it.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// The request has ended; errors learn what the head said.
    pub fn end(&mut self, result: Result<(), Error>) {
        let Response { status, request_id, .. } = &self.response;
        self.result = Some(result.map_err(|mut error| {
            if error.request_id.is_none() && !request_id.is_empty() {
                error.request_id = Some(request_id.as_str().into());
            }
            error.status = error.status.or((*status != 0).then_some(*status));
            error
        }));
    }

    /// The kind of failure it ended with.
    pub fn kind(&self) -> Option<FailureKind> {
        self.result.as_ref()?.as_ref().err().map(|error| error.kind)
    }

    /// The error that the refused head and its document stand for.
    pub fn refusal(&mut self, document: &[u8]) -> Option<Error> {
        let head = self.refused.take()?;
        let mut fault = match (&head.oss_err, document.is_empty()) {
            (Some(coded), true) => Fault::from_header(coded),
            _ => Fault::from_xml(document),
        };
        fault.request_id = head.request_id.map(Into::into).or(fault.request_id);
        fault.ec = fault.ec.or(head.ec.map(Into::into));
        let mut error = Error::from_status(head.status, fault);
        if let (412, Query::Get { etag: Some(asked), .. }) = (head.status, &self.query) {
            let current = head.etag.as_deref().unwrap_or("not named");
            let text = format!("version {asked} is not the current one (current: {current}): {}", error.message);
            error.message = crate::error::printable(&text).into();
        }
        Some(error)
    }

    /// What the source gets: `text` is the body of a buffer, `bytes` how many came, there or in memory.
    pub fn finished(self, text: Vec<u8>, bytes: u64, now: Instant, worker: u32) -> Finished {
        // Nothing is taken for a body before the head was judged, and a document that is cut is none.
        let is_body = matches!(self.query, Query::Get { .. }) && self.refused.is_none();
        let never = || Err(Error::new(FailureKind::Cancelled, Phase::Start, "never sent"));
        let response = Response { bytes, crc64_body: self.crc.map(|crc| crc.value()), ..self.response };
        let partial = (is_body && bytes > 0).then(|| response.clone());
        let result = match self.result.unwrap_or_else(never) {
            Ok(()) => Ok(response),
            Err(error) => Err(error.on(&self.query.object(), self.query.range())),
        };
        let partial = partial.filter(|_| result.is_err());
        Finished {
            token: self.token,
            range: self.query.range(),
            retry_hint: retry::hint(result.as_ref().err()),
            body: if result.is_ok() || partial.is_some() { text } else { Vec::new() },
            partial,
            result,
            elapsed: now.saturating_duration_since(self.begun),
            worker,
        }
    }
}

/// The sink must take exactly the asked bytes.
pub(crate) fn check_sink(query: &Query, sink: &Sink) -> Result<(), Error> {
    let expected = match query {
        Query::Get { range: Some(range), .. } => range.end.saturating_sub(range.start),
        Query::Get { size, .. } => *size,
        Query::List { .. } | Query::Head { .. } => 0,
    };
    match (query, sink) {
        (Query::Get { .. }, Sink::Memory { len, .. }) if *len as u64 == expected => Ok(()),
        (Query::List { .. } | Query::Head { .. }, Sink::Buffer { .. }) => Ok(()),
        (Query::Get { .. }, Sink::Buffer { bytes_max }) if expected <= *bytes_max as u64 => Ok(()),
        _ => Err(Error::new(
            FailureKind::Local,
            Phase::Start,
            format!("the sink does not fit the {expected} bytes of the answer"),
        )),
    }
}
