//! A load that is tried for a few seconds: how fast bytes come by one connection and by many, whether each object can be
//! had, and whether those that were read as a whole have the CRC-64 that OSS reports.
//!
//! Called by `remote`. The network threads are the engine's; what they bring is counted and dropped.

use crate::lock::lock;
use ossc_net::error::FailureKind;
use ossc_net::list::ObjectEntry;
use ossc_net::{Error, Fetch, Finished, Origin, Pull, Query, Sink, Source, VcpuOptions, Vcpus, crc};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Requests at a time: as many as the engine's prefetch begins with.
const CONNECTIONS_MAX: usize = 64;
const CONNECTIONS_MIN: usize = 4;
/// Length of the first requests; it doubles while answers are quick.
const BYTES_MIN: u64 = 1 << 20;
const QUICK: Duration = Duration::from_millis(400);
/// All buffers together.
const BUFFERS_MAX: u64 = 128 << 20;
/// What is under way when the time is over is waited for so long.
const DRAIN: Duration = Duration::from_secs(5);
const TRIES_MAX: u32 = 3;
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// A mismatch in a longer object is not looked at twice.
const AGAIN_BYTES_MAX: u64 = 1 << 30;

/// What was found of one object.
pub(super) struct Read {
    pub entry: ObjectEntry,
    /// Where its next piece begins.
    next: u64,
    /// Length and CRC-64 of each piece, by where it begins.
    pieces: BTreeMap<u64, (u64, u64)>,
    /// What OSS reports.
    pub reported: Option<u64>,
    tries: u32,
    /// It cannot be had.
    pub failed: Option<Error>,
}

impl Read {
    fn new(entry: ObjectEntry) -> Read {
        Read { entry, next: 0, pieces: BTreeMap::new(), reported: None, tries: 0, failed: None }
    }

    /// Something of it has come.
    pub fn is_begun(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// Its CRC-64, if all of it has come.
    pub fn crc64(&self) -> Option<u64> {
        let (mut at, mut sum) = (0, 0);
        for (begin, (len, crc)) in &self.pieces {
            if *begin != at {
                return None;
            }
            (at, sum) = (at + len, crc::combine(sum, *crc, *len));
        }
        (at == self.entry.size).then_some(sum)
    }

    /// All of it has come, and it is not what OSS reports.
    pub fn is_wrong(&self) -> bool {
        matches!((self.crc64(), self.reported), (Some(sum), Some(reported)) if sum != reported)
    }
}

/// How fast it was.
#[derive(Clone, Copy, Default)]
pub(super) struct Speed {
    pub bytes_per_sec: f64,
    /// Most requests at a time.
    pub connections: usize,
    pub requests: u64,
}

struct Course {
    reads: Vec<Read>,
    /// Objects that nothing was asked of yet, and those with bytes left.
    fresh: VecDeque<usize>,
    begun: VecDeque<usize>,
    again: VecDeque<(usize, Range<u64>)>,
    under_way: HashMap<u64, (usize, Range<u64>)>,
    token: u64,
    limit: usize,
    limit_max: usize,
    len: u64,
    len_max: u64,
    until: Instant,
    last: Instant,
    bytes: u64,
    requests: u64,
}

impl Course {
    /// The next piece; of one connection from the first object on, of many first from all of them.
    fn next(&mut self) -> Option<(usize, Range<u64>)> {
        if let Some(again) = self.again.pop_front() {
            return Some(again);
        }
        let is_fresh = self.limit_max > 1 && !self.fresh.is_empty() || self.begun.is_empty();
        let at = if is_fresh { self.fresh.pop_front()? } else { self.begun.pop_front()? };
        let read = &mut self.reads[at];
        let range = read.next..read.entry.size.min(read.next + self.len);
        read.next = range.end;
        if range.end < read.entry.size {
            if is_fresh { self.begun.push_back(at) } else { self.begun.push_front(at) }
        }
        Some((at, range))
    }

    fn is_over(&self, now: Instant) -> bool {
        let nothing_left = self.fresh.is_empty() && self.begun.is_empty() && self.again.is_empty();
        self.under_way.is_empty() && (nothing_left || now >= self.until) || now >= self.until + DRAIN
    }

    fn came(&mut self, at: usize, range: Range<u64>, done: Finished) {
        let read = &mut self.reads[at];
        match done.result {
            Ok(response) => {
                self.bytes += response.bytes;
                read.reported = read.reported.or(response.crc64_object);
                read.pieces.insert(range.start, (range.end - range.start, response.crc64_body.unwrap_or(0)));
                self.limit = self.limit_max.min(self.limit + 1);
                if done.elapsed < QUICK {
                    self.len = self.len_max.min(self.len * 2);
                }
            }
            Err(error) if error.kind == FailureKind::Cancelled => self.again.push_back((at, range)),
            Err(error) => {
                read.tries += 1;
                let may_pass = error.retryable() || error.is_doubtful() || error.wants_other_credentials();
                if read.tries <= TRIES_MAX && may_pass {
                    self.again.push_back((at, range));
                } else {
                    read.failed.get_or_insert(error);
                    self.begun.retain(|other| *other != at);
                    self.again.retain(|(other, _)| *other != at);
                }
            }
        }
    }
}

/// See the module.
pub(super) struct Reading {
    state: Mutex<Course>,
    part_bytes: u64,
}

impl Source for Reading {
    fn pull(&self, now: Instant) -> Pull {
        let mut state = lock(&self.state);
        if now >= state.until || state.under_way.len() >= state.limit {
            return Pull::Until(Some(now + LOOK_AGAIN));
        }
        let Some((at, range)) = state.next() else { return Pull::Until(Some(now + LOOK_AGAIN)) };
        state.token += 1;
        state.requests += 1;
        let token = state.token;
        state.under_way.insert(token, (at, range.clone()));
        let entry = &state.reads[at].entry;
        let bytes_max = (range.end - range.start) as usize;
        let query =
            Query::Get { key: entry.key.clone(), range: Some(range), etag: Some(entry.etag.clone()), size: entry.size };
        Pull::Fetch(Fetch { token, query, sink: Sink::Buffer { bytes_max }, crc: true, urgent: false })
    }

    fn finished(&self, done: Finished) {
        let mut state = lock(&self.state);
        if let Some((at, range)) = state.under_way.remove(&done.token) {
            state.last = Instant::now();
            state.came(at, range, done);
        }
    }
}

impl Reading {
    /// Of these objects, in this order.
    pub fn new(entries: Vec<ObjectEntry>, part_bytes: u64) -> Arc<Reading> {
        let now = Instant::now();
        let state = Course {
            fresh: (0..entries.len()).collect(),
            begun: VecDeque::new(),
            again: VecDeque::new(),
            reads: entries.into_iter().map(Read::new).collect(),
            under_way: HashMap::new(),
            token: 0,
            limit: 0,
            limit_max: 0,
            len: 0,
            len_max: 0,
            until: now,
            last: now,
            bytes: 0,
            requests: 0,
        };
        Arc::new(Reading { state: Mutex::new(state), part_bytes })
    }

    /// Reads on by one connection, or by many, for so long.
    ///
    /// # Errors
    /// `FailureKind::Local` if threads or the driver cannot be had.
    pub fn run(
        self: &Arc<Reading>,
        origin: &Arc<Origin>,
        options: VcpuOptions,
        one: bool,
        within: Duration,
    ) -> Result<Speed, Error> {
        let most = (options.vcpus * options.workers).min(CONNECTIONS_MAX);
        let options = if one { VcpuOptions { vcpus: 1, workers: 1, ..options } } else { options };
        let begin = Instant::now();
        let (bytes, requests) = {
            let mut state = lock(&self.state);
            state.limit_max = if one { 1 } else { most };
            state.limit = state.limit_max.min(CONNECTIONS_MIN);
            state.len_max = (BUFFERS_MAX / state.limit_max as u64).clamp(1, self.part_bytes);
            state.len = BYTES_MIN.min(state.len_max);
            (state.until, state.last) = (begin + within, begin);
            (state.bytes, state.requests)
        };
        let vcpus = Vcpus::start(origin.clone(), self.clone(), options)?;
        while !lock(&self.state).is_over(Instant::now()) {
            std::thread::sleep(LOOK_AGAIN);
        }
        // What is still under way ends, and is delivered as cancelled.
        drop(vcpus);
        let state = lock(&self.state);
        let secs = state.last.saturating_duration_since(begin).as_secs_f64().max(1e-6);
        Ok(Speed {
            bytes_per_sec: (state.bytes - bytes) as f64 / secs,
            connections: state.limit,
            requests: state.requests - requests,
        })
    }

    /// Has objects read once more whose bytes are wrong: one flipped bit on the way is no fault of theirs. True if there
    /// are any.
    pub fn doubt(&self) -> bool {
        let mut state = lock(&self.state);
        let mut doubted = Vec::new();
        for (at, read) in state.reads.iter_mut().enumerate() {
            if read.is_wrong() && read.entry.size <= AGAIN_BYTES_MAX {
                *read = Read::new(read.entry.clone());
                doubted.push(at);
            }
        }
        state.fresh = doubted.into();
        state.begun.clear();
        state.again.clear();
        !state.fresh.is_empty()
    }

    /// What was found.
    pub fn end<T>(&self, look: impl FnOnce(&[Read]) -> T) -> T {
        look(&lock(&self.state).reads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(size: u64, pieces: &[(u64, &[u8])]) -> Read {
        let pieces = pieces.iter().map(|(at, bytes)| (*at, (bytes.len() as u64, crc::of(bytes)))).collect();
        Read { pieces, ..Read::new(ObjectEntry { size, ..ObjectEntry::default() }) }
    }

    #[test]
    fn only_a_whole_object_is_judged() {
        let whole = read(7, &[(0, b"abc"), (3, b"de"), (5, b"fg")]);
        assert_eq!(whole.crc64(), Some(crc::of(b"abcdefg")));
        assert!(!whole.is_wrong(), "OSS has reported nothing");
        assert!(!Read { reported: Some(crc::of(b"abcdefg")), ..whole }.is_wrong());
        let flipped = read(7, &[(0, b"abc"), (3, b"dX"), (5, b"fg")]);
        assert!(Read { reported: Some(crc::of(b"abcdefg")), ..flipped }.is_wrong());
        for (size, pieces) in [(7, &[(0, &b"abc"[..]), (5, b"fg")][..]), (8, &[(0, b"abcdefg")]), (1, &[])] {
            let part = Read { reported: Some(1), ..read(size, pieces) };
            assert_eq!((part.crc64(), part.is_wrong()), (None, false));
        }
    }

    #[test]
    fn one_connection_reads_on_and_many_begin_everywhere() {
        let sizes = [3 * BYTES_MIN, BYTES_MIN, 5];
        let entries = || sizes.iter().map(|size| ObjectEntry { size: *size, ..ObjectEntry::default() }).collect();
        let order = |limit_max: usize| {
            let reading = Reading::new(entries(), 8 << 20);
            let mut state = lock(&reading.state);
            (state.limit_max, state.len) = (limit_max, BYTES_MIN);
            std::iter::from_fn(|| state.next().map(|(at, range)| (at, range.start / BYTES_MIN))).collect::<Vec<_>>()
        };
        assert_eq!(order(1), [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0)]);
        assert_eq!(order(8), [(0, 0), (1, 0), (2, 0), (0, 1), (0, 2)]);
    }
}
