//! What the engine knows of an object beside its public record: key, memory, check value, troubles.
//!
//! Called by `work` on vcpu threads and by the mirror. Plain state; it starts nothing.

use crate::folder_files::{Pinned, Root};
use crate::lock::lock;
use crate::work::shared::check::Check;
use crate::work::shared::memory::Memory;
use crate::work::shared::reservation::Reservation;
use crate::work::shared::wrong::AfterMismatch;
use ossc_net::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Before an object is revived that was given up for the second time, and the longest such pause.
const REVIVE_PAUSE: Duration = Duration::from_secs(5);
const REVIVE_PAUSE_MAX: Duration = Duration::from_secs(600);

/// A request: the part, or piece of a small object, that it is for, and its token.
pub type Asked = (Option<u32>, u64);

/// Answers in a row to one kind of request that may be stray ones: see `Error::is_doubtful`.
#[derive(Clone, Copy, Default)]
pub struct Doubt {
    /// How many.
    pub answers: u32,
    /// How many of them refuse who asks.
    pub refusals: u32,
    /// When the folder was to be listed again, in milliseconds of the monotonic clock.
    pub asked_ms: u64,
}

/// What the engine knows of one record.
pub struct RegisterEntry {
    /// Whole key.
    pub key: String,
    /// As listed, with quotes.
    pub etag: String,
    /// Bytes.
    pub size: u64,
    /// Last-Modified, seconds since 1970.
    pub mtime_secs: i64,
    /// Relative path of its folder in MODEL_DIR.
    pub folder: String,
    /// Name in that folder.
    pub name: String,
    /// MODEL_DIR, where there is one.
    pub root: Option<Arc<Root>>,
    /// `Object::uses` when the kernel said last that no program has the placeholder open.
    pub closed_at: AtomicU32,
    /// A descriptor of the placeholder: see `stand`.
    pub pinned: Mutex<Option<Pinned>>,
    /// Where the bytes of a large object go.
    pub memory: Option<Box<dyn Memory>>,
    /// x-oss-hash-crc64ecma of the whole object, once an answer carried it.
    pub crc64: Mutex<Option<u64>>,
    /// Failed requests for a small object.
    pub attempts: AtomicU32,
    /// Its bytes count among the small objects under way.
    pub under_way: AtomicBool,
    /// The same for single pieces of one that is written to disk piece by piece.
    pub pieces_under_way: Mutex<BTreeSet<u32>>,
    /// Pieces of a small object that have arrived, with their CRC-64; without their bytes when these are on disk.
    pub pieces: Mutex<BTreeMap<u32, (Vec<u8>, u64)>>,
    /// The beginnings of others, whose requests have failed behind them, with their CRC-64.
    pub begun_pieces: Mutex<BTreeMap<u32, (Vec<u8>, u64)>>,
    /// A small object is being fetched, or was.
    pub begun: AtomicBool,
    /// Its pieces that are under way or here.
    pub asked: Mutex<BTreeSet<u32>>,
    /// All its parts were put into the plan.
    pub planned: AtomicBool,
    /// It was said that its memory file could not be made.
    pub told_no_file: AtomicBool,
    /// Connections were freed for its readers.
    pub made_way: AtomicBool,
    /// A program opened it.
    pub opened: AtomicBool,
    /// `Object::uses` at the last look of the lease thread.
    pub uses_seen: AtomicU32,
    requests: AtomicU32,
    /// When the first request for it was prepared.
    asked_at: OnceLock<Instant>,
    /// Failed requests in a row for each part of a large object.
    failures: Mutex<BTreeMap<u32, u32>>,
    /// Doubtful answers in a row.
    doubts: Mutex<BTreeMap<Asked, Doubt>>,
    /// How often the object was given up, and when it was last.
    given_up: Mutex<(u32, Option<Instant>)>,
    failure: Mutex<Option<String>>,
    /// Since when no program has it open or mapped, as far as it was looked at.
    pub idle_since: Mutex<Option<Instant>>,
    /// Readers were told that there is no room: when the lease thread saw that first.
    pub starved_since: Mutex<Option<Instant>>,
    /// What its parts and blocks take of the budget, those on their way included.
    pub room: Mutex<Reservation>,
    /// Empty parts whose memory and room stay, since programs have pinned them.
    pub kept_parts: Mutex<BTreeSet<u32>>,
    /// How far the check of a large object is.
    pub check: Mutex<Check>,
    /// Bytes of blocks that are in memory, which is counted under `check`.
    pub block_bytes: AtomicU64,
    /// Processes that were given bytes before the verdict, with their names.
    pub given: Mutex<BTreeMap<u32, String>>,
    /// Mismatches in a row of the whole.
    mismatches: Mutex<u32>,
    trouble: Mutex<Option<Trouble>>,
}

/// Requests for an object fail, and none has succeeded since.
struct Trouble {
    since: Instant,
    last: Error,
}

impl RegisterEntry {
    /// A new object; see the fields.
    pub fn new(key: String, etag: String, size: u64, mtime_secs: i64, place: (String, String)) -> RegisterEntry {
        RegisterEntry {
            key,
            etag,
            size,
            mtime_secs,
            folder: place.0,
            name: place.1,
            root: None,
            closed_at: AtomicU32::new(0),
            pinned: Mutex::new(None),
            memory: None,
            crc64: Mutex::new(None),
            attempts: AtomicU32::new(0),
            under_way: AtomicBool::new(false),
            pieces_under_way: Mutex::default(),
            pieces: Mutex::default(),
            begun_pieces: Mutex::default(),
            begun: AtomicBool::new(false),
            asked: Mutex::default(),
            planned: AtomicBool::new(false),
            told_no_file: AtomicBool::new(false),
            made_way: AtomicBool::new(false),
            opened: AtomicBool::new(false),
            uses_seen: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            asked_at: OnceLock::new(),
            failures: Mutex::default(),
            doubts: Mutex::default(),
            given_up: Mutex::default(),
            failure: Mutex::default(),
            idle_since: Mutex::new(None),
            starved_since: Mutex::new(None),
            room: Mutex::default(),
            kept_parts: Mutex::default(),
            check: Mutex::default(),
            block_bytes: AtomicU64::new(0),
            given: Mutex::default(),
            mismatches: Mutex::default(),
            trouble: Mutex::new(None),
        }
    }

    /// A request failed: for how long nothing has succeeded.
    pub fn in_trouble(&self, now: Instant, error: &Error) -> Duration {
        let mut trouble = lock(&self.trouble);
        let since = trouble.as_ref().map_or(now, |trouble| trouble.since);
        *trouble = Some(Trouble { since, last: error.clone() });
        now.saturating_duration_since(since)
    }

    /// What has failed last, where nothing has succeeded since.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).as_ref().map(|trouble| trouble.last.to_string())
    }

    /// A request is being prepared: until `end_request` the record stays what it is, if it was not GONE after this.
    pub fn begin_request(&self) {
        self.requests.fetch_add(1, Ordering::SeqCst);
    }

    /// The same, of the first one at that time: seconds of the object count from it.
    pub fn begin_request_at(&self, now: Instant) {
        self.asked_at.get_or_init(|| now);
        self.begin_request();
    }

    /// Seconds since the first request for it.
    pub fn seconds(&self, now: Instant) -> f64 {
        self.asked_at.get().map_or(0.0, |at| now.saturating_duration_since(*at).as_secs_f64())
    }

    /// It is finished, or was not made after all.
    pub fn end_request(&self) {
        self.requests.fetch_sub(1, Ordering::SeqCst);
    }

    /// True while a request is being prepared, under way, or being finished.
    pub fn has_requests(&self) -> bool {
        self.requests.load(Ordering::SeqCst) != 0
    }

    /// A request for part `index` failed: how many have so in a row.
    pub fn failed_again(&self, index: u32) -> u32 {
        let mut failures = lock(&self.failures);
        let count = failures.entry(index).or_insert(0);
        *count += 1;
        *count
    }

    /// Part `index`, or that piece of a small object, is here.
    pub fn failed_no_more(&self, index: u32) {
        lock(&self.failures).remove(&index);
        lock(&self.doubts).retain(|asked, _| asked.0 != Some(index));
    }

    /// Bytes of part `index` have come: what failed before is over.
    pub fn progressed(&self, index: u32) {
        self.out_of_trouble();
        lock(&self.failures).remove(&index);
    }

    /// Another doubtful answer for this request: `change` counts it, and says what follows.
    pub fn doubt<T>(&self, asked: Asked, change: impl FnOnce(&mut Doubt) -> T) -> T {
        change(lock(&self.doubts).entry(asked).or_default())
    }

    /// A good answer for it came, or the object was given up.
    pub fn doubt_no_more(&self, asked: Asked) {
        lock(&self.doubts).remove(&asked);
    }

    /// The object begins anew.
    pub fn forget_doubts(&self) {
        lock(&self.doubts).clear();
    }

    /// The object was given up, for this reason.
    pub fn give_up(&self, now: Instant, reason: &Error) {
        let mut given_up = lock(&self.given_up);
        *given_up = (given_up.0.saturating_add(1), Some(now));
        *lock(&self.failure) = Some(reason.to_string());
    }

    /// Why it was given up last.
    pub fn failure(&self) -> Option<String> {
        lock(&self.failure).clone()
    }

    /// Its bytes do not match its CRC-64: what follows.
    pub(crate) fn mismatched(&self) -> AfterMismatch {
        AfterMismatch::count(&mut lock(&self.mismatches))
    }

    /// They do; how many mismatches in a row there were before.
    pub fn matched(&self) -> u32 {
        std::mem::take(&mut *lock(&self.mismatches))
    }

    /// They did not, when all of them had come last.
    pub fn is_mismatched(&self) -> bool {
        *lock(&self.mismatches) > 0
    }

    /// Whether it may be revived: the first time at once, then after pauses that double.
    pub fn may_revive(&self, now: Instant) -> bool {
        let (times, last) = *lock(&self.given_up);
        let pause = match times {
            0 | 1 => Duration::ZERO,
            times => (REVIVE_PAUSE * (1 << (times - 2).min(16))).min(REVIVE_PAUSE_MAX),
        };
        last.is_none_or(|last| now >= last + pause)
    }

    /// A request succeeded.
    pub fn out_of_trouble(&self) {
        *lock(&self.trouble) = None;
    }
}
