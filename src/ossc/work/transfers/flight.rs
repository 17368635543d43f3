//! Parts under way: cut into pieces where connections would idle otherwise, and asked for a second time where an
//! answer is much slower than the others.
//!
//! Called by `pieces`. It decides and counts; it does no I/O and touches no memory.
//!
//! A part has one owner, and each of its pieces one request that receives in its place. The second request for a
//! piece (the hedge) never does: its bytes go to a buffer of their own. If the hedge is complete first, the request
//! in place is cancelled, and the buffer is copied when that one's end has been delivered, so that nobody else
//! writes there any more. The part is published when all pieces are there.
//!
//! Where a request in place has failed for a cause that may pass, what it had brought stays, as a piece that is there,
//! and only the rest of its piece is asked for again.

use crate::lock::lock;
use crate::work::shared::scale::Scale;
use crate::work::transfers::hedge::{Body, Hedge};
use ossc_net::error::FailureKind;
use ossc_net::{Error, Finished, Response, crc};
use ossc_store::plan::Class;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Answers whose speed the typical one is taken of.
const SAMPLES: usize = 32;
const SAMPLES_MIN: usize = 8;
/// How much slower than the typical answer before a piece is asked for again: at the end by connections that have
/// nothing else to do, before it instead of the next part.
const SLOW_AT_END_TIMES: f64 = 1.5;
const SLOW_BEFORE_TIMES: f64 = 2.0;
/// An answer is not slow before it takes so many times what the slowest tenth of them takes: where all of them vary
/// (a busy machine, a full line), to ask again would help nobody.
const SLOW_TENTH_TIMES: f64 = 1.5;
/// Second requests under way at once.
const HEDGES_MAX: usize = 32;
/// Most second requests for one piece.
const CHUNKS_AT_END: u64 = 8;
const CHUNKS_BEFORE: u64 = 4;
/// How often it is looked for slow ones while there is other work.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Record and number of a part.
pub type Key = (u32, u32);

#[derive(Debug)]
enum Main {
    /// Not asked for yet.
    Waiting,
    /// Since then, and has brought at least so many bytes.
    Asked(Instant, u64),
    /// Complete, with its CRC-64.
    Ready(u64),
    /// With the error, as long as its hedge may still bring it.
    Failed(Option<Error>),
}

#[derive(Debug)]
struct Piece {
    range: Range<u64>,
    main: Main,
    hedge: Option<Hedge>,
    /// The request in place is cancelled for a reader who waits for something else, and will be asked for once more: so
    /// many bytes were counted as asked for twice.
    gives_way: Option<u64>,
}

/// Where a part waited to be asked for.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// Others that are left, of its class and above.
    pub waiting: usize,
    pub connections: usize,
    /// `Prefetch`: no reader waits for it, it is fetched ahead.
    pub class: Class,
}

/// One part under way.
struct Flight {
    class: Class,
    pieces: Vec<Piece>,
    failed: Option<Error>,
    response: Response,
}

impl Flight {
    /// How many bytes stay of a request in place of piece `n` that ends so: those of one whose cause may pass, if no second
    /// request is about to bring all of them.
    fn keeps(&self, n: u32, done: &Finished) -> u64 {
        let (Some(piece), Err(error), Some(partial)) = (self.pieces.get(n as usize), &done.result, &done.partial)
        else {
            return 0;
        };
        let may = error.retryable() && self.failed.is_none() && piece.hedge.is_none();
        if may && partial.bytes < piece.range.end - piece.range.start { partial.bytes } else { 0 }
    }

    /// The beginning of a piece is there: by itself, or as the end of what is there before it. The numbers of the other
    /// pieces stay.
    fn put(&mut self, (range, crc64): (Range<u64>, u64)) {
        let before = self.pieces.iter_mut().find(|piece| piece.range.end == range.start && !piece.range.is_empty());
        match before {
            Some(Piece { range: had, main: Main::Ready(sum), .. }) => {
                *sum = crc::combine(*sum, crc64, range.end - range.start);
                had.end = range.end;
            }
            _ => self.pieces.push(Piece { range, main: Main::Ready(crc64), hedge: None, gives_way: None }),
        }
    }
}

/// What has to be done after a request ended.
#[derive(Default)]
pub(crate) struct Ended {
    /// Bytes of the budget that second requests and their bodies had.
    pub give: u64,
    /// Nobody wants the request in place of this piece any more.
    pub cancel: bool,
    /// It has given way, and is to be asked for again in this class.
    pub again: Option<Class>,
    /// It has failed, and what of it has not come is to be asked for again.
    pub retry: Option<Error>,
    /// Nor these second requests for it.
    pub cancel_hedge: Vec<u32>,
    /// To be copied to these ranges.
    pub copy: Vec<Body>,
    /// The piece, or the beginning of it, has come.
    pub brought: Option<Range<u64>>,
    /// The whole part has ended, with what its last answer said and its CRC-64.
    pub part: Option<Result<(Response, u64), Error>>,
}

#[derive(Default)]
struct State {
    flights: BTreeMap<Key, Flight>,
    /// Nanoseconds per byte of the last answers, and once they are enough the median and the slowest tenth.
    paces: VecDeque<f64>,
    pace: Option<(f64, f64)>,
    bytes: u64,
    bytes_twice: u64,
    /// Second requests under way: piece, chunk, bytes.
    hedges: Vec<(Key, u32, u32, u64)>,
    /// Chunks that nobody has asked for yet.
    chunks: VecDeque<(Key, u32, u32)>,
    looked: Option<Instant>,
}

/// See the module.
pub(crate) struct Flights {
    state: Mutex<State>,
    /// Most bytes that are asked for twice, in percent of all; 0 asks for nothing twice.
    twice_percent_max: u64,
    scale: Scale,
}

impl Flights {
    pub fn new(twice_percent_max: u64, scale: Scale) -> Flights {
        Flights { state: Mutex::default(), twice_percent_max, scale }
    }

    /// A part was claimed. `queue` is what it came from; `None` if it is not to be cut. The range of its first piece,
    /// which is asked for now, and how many more there are (numbered from 1).
    pub fn begin(&self, key: Key, range: Range<u64>, queue: Option<Queue>, now: Instant) -> (Range<u64>, u32) {
        let mut state = lock(&self.state);
        let count = queue.map_or(1, |queue| self.pieces_of(&state, key.1, range.end - range.start, queue));
        let len = (range.end - range.start).div_ceil(count).next_multiple_of(self.scale.piece_step);
        let starts = (range.start..range.end).step_by(len as usize);
        let piece = |start: u64| Piece {
            range: start..(start + len).min(range.end),
            main: Main::Waiting,
            hedge: None,
            gives_way: None,
        };
        let mut pieces: Vec<Piece> = starts.map(piece).collect();
        pieces[0].main = Main::Asked(now, 0);
        let (first, more) = (pieces[0].range.clone(), pieces.len() as u32 - 1);
        let class = queue.map_or(Class::Demand, |queue| queue.class);
        state.flights.insert(key, Flight { class, pieces, failed: None, response: Response::default() });
        (first, more)
    }

    /// A reader waits for this part, which is under way: its pieces that nobody has asked for yet, the first time that
    /// one does. They are urgent from now on.
    pub fn hurry(&self, key: Key) -> Vec<u32> {
        let mut state = lock(&self.state);
        let Some(flight) = state.flights.get_mut(&key).filter(|flight| flight.class != Class::Demand) else {
            return Vec::new();
        };
        flight.class = Class::Demand;
        let waiting = (0..).zip(&flight.pieces).filter(|(_, piece)| matches!(piece.main, Main::Waiting));
        waiting.map(|(n, _)| n).collect()
    }

    /// Piece `n` is asked for now: its range. `None` if it is not wanted any more.
    pub fn start_piece(&self, key: Key, n: u32, now: Instant) -> Option<Range<u64>> {
        let mut state = lock(&self.state);
        let flight = state.flights.get_mut(&key).filter(|flight| flight.failed.is_none())?;
        let piece = flight.pieces.get_mut(n as usize).filter(|piece| matches!(piece.main, Main::Waiting))?;
        piece.main = Main::Asked(now, 0);
        Some(piece.range.clone())
    }

    /// Piece `n` has brought so many bytes. Where it begins, while its part is under way.
    pub fn progress(&self, key: Key, n: u32, bytes: u64) -> Option<u64> {
        let mut state = lock(&self.state);
        let piece = piece_mut(&mut state, key, n)?;
        if let Main::Asked(_, got) = &mut piece.main {
            *got = bytes;
        }
        Some(piece.range.start)
    }

    /// What should be asked for a second time now (piece, chunk, range of the chunk); else when to look again.
    pub fn slow(&self, now: Instant, at_end: bool) -> Result<(Key, u32, u32, Range<u64>), Option<Instant>> {
        let mut state = lock(&self.state);
        if self.twice_percent_max == 0
            || state.bytes < self.scale.twice_from_bytes
            || state.hedges.len() >= HEDGES_MAX
            || state.pace.is_none()
        {
            return Err(None);
        }
        if let Some(chunk) = next_chunk(&mut state, now) {
            return Ok(chunk);
        }
        if !at_end && state.looked.is_some_and(|at| now < at + LOOK_EVERY) {
            return Err(None);
        }
        state.looked = Some(now);
        let slow = match at_end {
            true => (SLOW_AT_END_TIMES, self.scale.slow_at_end),
            false => (SLOW_BEFORE_TIMES, self.scale.slow_before),
        };
        let left = self.left(&state);
        let pieces = state
            .flights
            .iter()
            .flat_map(|(key, flight)| (0..).zip(&flight.pieces).map(move |(n, piece)| (*key, n, piece)));
        let due = pieces.filter_map(|(key, n, piece)| match (&piece.main, &piece.hedge) {
            // Not while chunks of one before are under way: their ends would be taken for this one's.
            (Main::Asked(since, got), None)
                if piece.gives_way.is_none() && !state.hedges.iter().any(|hedge| (hedge.0, hedge.1) == (key, n)) =>
            {
                let bytes = piece.range.end - piece.range.start;
                let at = *since + slow_after(&state, bytes.min(got + self.scale.progress_bytes), slow)?;
                (bytes <= left).then_some((at, key, n, None))
            }
            _ => None,
        });
        // What is asked for twice may be slow again.
        let due_again = state.hedges.iter().filter_map(|(key, n, chunk, bytes)| {
            let hedge = state.flights.get(key)?.pieces.get(*n as usize)?.hedge.as_ref()?;
            let at = hedge.asked_since(*chunk)? + slow_after(&state, *bytes, slow)?;
            (*bytes <= left && !hedge.has_twin(*chunk)).then_some((at, *key, *n, Some(*chunk)))
        });
        match due.chain(due_again).min_by_key(|(at, ..)| *at) {
            Some((at, key, n, chunk)) if at <= now => {
                match chunk {
                    Some(chunk) => double_chunk(&mut state, key, n, chunk),
                    // The connections that are free next share it.
                    None => self.cut_hedge(&mut state, key, n, if at_end { CHUNKS_AT_END } else { CHUNKS_BEFORE }),
                }
                next_chunk(&mut state, now).ok_or(None)
            }
            next => Err(next.map(|(at, ..)| at)),
        }
    }

    /// A reader waits for other parts, and all connections are busy: pieces (part, number) that are fetched ahead and
    /// have just begun, those that have brought least first, and at most `most` together with those that give way
    /// already. Their requests are to be cancelled; what they have brought comes twice. `may` says which parts may.
    pub fn give_way(&self, most: usize, now: Instant, may: impl Fn(Key) -> bool) -> Vec<(Key, u32)> {
        let mut state = lock(&self.state);
        let Some((median, _)) = state.pace else { return Vec::new() };
        let ahead = state
            .flights
            .iter()
            .filter(|(key, flight)| flight.class == Class::Prefetch && flight.failed.is_none() && may(**key));
        let pieces = ahead.flat_map(|(key, flight)| (0..).zip(&flight.pieces).map(move |(n, piece)| (*key, n, piece)));
        let young = pieces.filter_map(|(key, n, piece)| match (&piece.main, &piece.hedge) {
            (Main::Asked(since, got), None) if piece.gives_way.is_none() => {
                let bytes = piece.range.end - piece.range.start;
                let age = now.saturating_duration_since(*since);
                let came = ((age.as_nanos() as f64 / median) as u64).max(*got).min(bytes);
                let lasts = expected(&state, bytes - came)?;
                (came < self.scale.young_bytes_max && lasts >= self.scale.cut_from).then_some((came, key, n))
            }
            _ => None,
        });
        let mut young: Vec<(u64, Key, u32)> = young.collect();
        young.sort_unstable();
        let all = state.flights.values().flat_map(|flight| &flight.pieces);
        young.truncate(most.saturating_sub(all.filter(|piece| piece.gives_way.is_some()).count()));
        // The rest is for answers that are slow: to keep half of it would make a demand beside a prefetch take 1.4 instead
        // of 1.1 times as long as alone (bar engine 5).
        let mut left = self.left(&state) / 4 * 3;
        young.retain(|(came, ..)| left.checked_sub(*came).map(|rest| left = rest).is_some());
        for (came, key, n) in &young {
            state.bytes_twice += came;
            if let Some(piece) = piece_mut(&mut state, *key, *n) {
                piece.gives_way = Some(*came);
            }
        }
        young.into_iter().map(|(_, key, n)| (key, n)).collect()
    }

    /// Bytes that may be asked for twice.
    fn left(&self, state: &State) -> u64 {
        (state.bytes * self.twice_percent_max / 100).saturating_sub(state.bytes_twice)
    }

    /// Parts under way, second requests under way, and the bytes of those and of the bodies that they have brought.
    pub fn under_way(&self) -> (usize, usize, u64) {
        let state = lock(&self.state);
        let pieces = state.flights.values().flat_map(|flight| &flight.pieces);
        let bodies: u64 = pieces.filter_map(|piece| Some(piece.hedge.as_ref()?.bytes_here())).sum();
        let asked: u64 = state.hedges.iter().map(|hedge| hedge.3).sum();
        (state.flights.len(), state.hedges.len(), asked + bodies)
    }

    /// Of parts under way: bytes of pieces that are here, and bytes that requests under way have brought, at least (known in
    /// steps of `progress_bytes`) and at most.
    pub fn arrived_bytes(&self) -> (u64, Range<u64>) {
        let state = lock(&self.state);
        let (mut here, mut coming) = (0, 0..0);
        for piece in state.flights.values().flat_map(|flight| &flight.pieces) {
            let whole = piece.range.end - piece.range.start;
            match piece.main {
                Main::Ready(_) => here += whole,
                Main::Asked(_, got) => coming = coming.start + got.min(whole)..coming.end + whole,
                _ => {}
            }
        }
        (here, coming)
    }

    /// Whether the request in place of a piece is under way although its second request is complete: it was cancelled.
    pub fn is_unwanted(&self, key: Key, n: u32) -> bool {
        let mut state = lock(&self.state);
        let unwanted = |piece: &mut Piece| {
            matches!(piece.main, Main::Asked(..)) && piece.hedge.as_ref().is_some_and(Hedge::is_here)
        };
        piece_mut(&mut state, key, n).is_some_and(unwanted)
    }

    /// Whether the request in place of a piece was cancelled for a reader, and has not ended yet.
    pub fn gives_way(&self, key: Key, n: u32) -> bool {
        let mut state = lock(&self.state);
        piece_mut(&mut state, key, n).is_some_and(|piece| piece.gives_way.is_some())
    }

    /// How many bytes stay of a request in place of a piece that ends so.
    pub fn keeps(&self, key: Key, n: u32, done: &Finished) -> u64 {
        lock(&self.state).flights.get(&key).map_or(0, |flight| flight.keeps(n, done))
    }

    /// Whether other connections may ask for chunks, too.
    pub fn has_chunks(&self) -> bool {
        !lock(&self.state).chunks.is_empty()
    }

    /// A chunk that was promised by `slow` was not sent. If it is no twin, its hedge is given up, and the piece is
    /// judged anew from now on: who finds no room would ask again at once for what is cancelled here.
    pub fn no_hedge(&self, key: Key, n: u32, chunk: u32, now: Instant) -> Ended {
        let mut state = lock(&self.state);
        state.bytes_twice -= take_hedge(&mut state, key, n, chunk);
        let mut ended = Ended::default();
        let Some(flight) = state.flights.get_mut(&key) else { return ended };
        let Some(piece) = flight.pieces.get_mut(n as usize) else { return ended };
        let Some(hedge) = piece.hedge.as_mut().filter(|hedge| hedge.asked_since(chunk).is_some()) else { return ended };
        if hedge.lose(chunk) {
            return ended;
        }
        if let Main::Asked(since, _) = &mut piece.main {
            *since = now;
        }
        give_up_hedge(piece, &mut flight.failed, chunk, None, &mut ended);
        self.land(&mut state, key, ended)
    }

    /// The request in place of piece `n` ended: nothing writes there any more.
    pub fn main_ended(&self, key: Key, n: u32, done: Finished) -> Ended {
        let mut state = lock(&self.state);
        if let Ok(response) = &done.result {
            self.learn(&mut state, response.bytes, done.elapsed);
        }
        let Some(flight) = state.flights.get_mut(&key) else { return Ended::default() };
        let (is_alone, kept) = (flight.pieces.len() == 1, flight.keeps(n, &done));
        let Some(piece) = flight.pieces.get_mut(n as usize) else { return Ended::default() };
        let (mut ended, mut came) = (Ended::default(), None);
        let gave_way = piece.gives_way.take();
        let partial = done.partial.filter(|_| kept > 0);
        match (done.result, piece.hedge.take()) {
            (Err(error), None) if gave_way.is_some() && flight.failed.is_none() && is_cancelled(&error) => {
                piece.main = Main::Waiting;
                ended.again = Some(flight.class);
            }
            (Ok(response), hedge) => {
                drop_hedge(hedge, &mut ended);
                bring(piece, &mut flight.response, response, &mut ended);
            }
            (Err(_), Some(hedge)) if hedge.is_here() => bring_hedge(piece, &mut flight.response, hedge, &mut ended),
            // The hedge may still bring it.
            (Err(error), Some(hedge)) if (error.retryable() || error.is_doubtful()) && hedge.is_sent() => {
                piece.main = Main::Failed(Some(error));
                piece.hedge = Some(hedge);
            }
            // Where nothing is here its memory is given back meanwhile.
            (Err(error), None) if error.retryable() && flight.failed.is_none() && !(is_alone && partial.is_none()) => {
                piece.main = Main::Waiting;
                ended.retry = Some(error);
                came = partial.map(|partial| cut_off(piece, &partial, &mut ended));
            }
            (Err(error), hedge) => {
                drop_hedge(hedge, &mut ended);
                piece.main = Main::Failed(None);
                flight.failed.get_or_insert(error);
            }
        }
        if let Some(came) = came {
            flight.put(came);
        }
        if ended.again.is_none() {
            state.bytes_twice -= gave_way.unwrap_or(0);
        }
        self.land(&mut state, key, ended)
    }

    /// The second request for a chunk of piece `n` ended.
    pub fn hedge_ended(&self, key: Key, n: u32, chunk: u32, done: Finished) -> Ended {
        let mut state = lock(&self.state);
        let mut ended = Ended { give: take_hedge(&mut state, key, n, chunk), ..Ended::default() };
        let Some(flight) = state.flights.get_mut(&key) else { return ended };
        let Some(piece) = flight.pieces.get_mut(n as usize) else { return ended };
        let Some(hedge) = piece.hedge.as_mut().filter(|hedge| hedge.asked_since(chunk).is_some()) else { return ended };
        match done.result {
            Ok(response) => {
                // The body stays, and what it takes of the budget.
                ended.give = 0;
                ended.cancel_hedge.extend(hedge.here(chunk, done.body, response));
                if !hedge.is_here() {
                    return ended;
                }
                if matches!(piece.main, Main::Asked(..)) {
                    ended.cancel = true;
                    return ended;
                }
            }
            Err(_) if hedge.lose(chunk) => return ended,
            Err(error) => give_up_hedge(piece, &mut flight.failed, chunk, Some(error), &mut ended),
        }
        if let Some(hedge) = piece.hedge.take() {
            bring_hedge(piece, &mut flight.response, hedge, &mut ended);
        }
        self.land(&mut state, key, ended)
    }

    /// The object of a part has failed: what of it waits is not asked for any more.
    pub fn abandon(&self, key: Key, why: Error) -> Ended {
        let mut state = lock(&self.state);
        if let Some(flight) = state.flights.get_mut(&key) {
            flight.failed.get_or_insert(why);
        }
        self.land(&mut state, key, Ended::default())
    }

    /// Ends the part if all of its pieces have, or if it failed and nothing is under way in its place.
    fn land(&self, state: &mut State, key: Key, mut ended: Ended) -> Ended {
        let Some(flight) = state.flights.get(&key) else { return ended };
        let over = match &flight.failed {
            Some(_) => !flight.pieces.iter().any(|piece| matches!(piece.main, Main::Asked(..))),
            None => flight.pieces.iter().all(|piece| matches!(piece.main, Main::Ready(_))),
        };
        if over && let Some(mut flight) = state.flights.remove(&key) {
            flight.pieces.sort_by_key(|piece| piece.range.start);
            let fold = flight.pieces.iter().fold(0, |sum, piece| match piece.main {
                Main::Ready(crc64) => crc::combine(sum, crc64, piece.range.end - piece.range.start),
                _ => sum,
            });
            ended.give +=
                flight.pieces.iter().filter_map(|piece| Some(piece.hedge.as_ref()?.bytes_here())).sum::<u64>();
            ended.part = Some(flight.failed.map_or(Ok((flight.response, fold)), Err));
        }
        ended
    }

    /// One and a half rounds of work for every connection keep all of them busy to the end. More pieces cost more
    /// first bytes than that saves: 0.930 of what 64 connections of 8 MB/s carry, with two rounds 0.912, with one
    /// 0.917 (bar engine 5).
    fn pieces_of(&self, state: &State, index: u32, bytes: u64, queue: Queue) -> u64 {
        let Some(time) = expected(state, bytes).filter(|time| *time >= self.scale.cut_from) else { return 1 };
        let at_end = (3 * queue.connections / 2).div_ceil(queue.waiting + 1) as u64;
        // Of every other part: connections that are free soon take several pieces of what a reader waits for. A demand
        // beside a full prefetch takes 1.8 times as long as alone, 3.8 times with none of them cut; of all of them it
        // would cost 3 % more of the rate.
        let for_others = time.as_nanos().div_ceil(self.scale.lasts_max.as_nanos().max(1)) as u64;
        at_end
            .max(if queue.class == Class::Prefetch && index % 2 == 1 { for_others } else { 1 })
            .clamp(1, (bytes / self.scale.piece_bytes_min).max(1))
    }

    /// Cuts the second try for a piece into chunks.
    fn cut_hedge(&self, state: &mut State, key: Key, n: u32, chunks_max: u64) {
        let Some(piece) = piece_mut(state, key, n) else { return };
        let count = ((piece.range.end - piece.range.start) / self.scale.chunk_bytes_min).clamp(1, chunks_max);
        let chunks = piece.hedge.insert(Hedge::cut(piece.range.clone(), count)).len();
        state.chunks.extend((0..chunks).map(|chunk| (key, n, chunk)));
    }

    fn learn(&self, state: &mut State, bytes: u64, elapsed: Duration) {
        state.bytes += bytes;
        // The last bytes of a file take as long as their first byte: that says nothing of a pace.
        if bytes < self.scale.piece_bytes_min {
            return;
        }
        if state.paces.len() == SAMPLES {
            state.paces.pop_front();
        }
        state.paces.push_back(elapsed.as_nanos() as f64 / bytes.max(1) as f64);
        if state.paces.len() >= SAMPLES_MIN {
            let mut sorted: Vec<f64> = state.paces.iter().copied().collect();
            sorted.sort_by(f64::total_cmp);
            state.pace = Some((sorted[sorted.len() / 2], sorted[sorted.len() * 9 / 10]));
        }
    }
}

/// A chunk is asked for once more.
fn double_chunk(state: &mut State, key: Key, n: u32, chunk: u32) {
    let twin = piece_mut(state, key, n).and_then(|piece| piece.hedge.as_mut()?.double(chunk));
    state.chunks.extend(twin.map(|twin| (key, n, twin)));
}

/// The next chunk that is still wanted; from now on it is under way.
fn next_chunk(state: &mut State, now: Instant) -> Option<(Key, u32, u32, Range<u64>)> {
    while let Some((key, n, chunk)) = state.chunks.pop_front() {
        if let Some(range) = piece_mut(state, key, n).and_then(|piece| piece.hedge.as_mut()?.start_chunk(chunk, now)) {
            state.hedges.push((key, n, chunk, range.end - range.start));
            state.bytes_twice += range.end - range.start;
            return Some((key, n, chunk, range));
        }
    }
    None
}

/// A second request is not under way any more: its bytes.
fn take_hedge(state: &mut State, key: Key, n: u32, chunk: u32) -> u64 {
    let found = state.hedges.iter().position(|hedge| (hedge.0, hedge.1, hedge.2) == (key, n, chunk));
    found.map_or(0, |at| state.hedges.swap_remove(at).3)
}

/// Nobody wants it any more.
fn drop_hedge(hedge: Option<Hedge>, ended: &mut Ended) {
    if let Some(hedge) = hedge {
        ended.give += hedge.bytes_here();
        ended.cancel_hedge = hedge.under_way();
    }
}

/// The hedge is given up since there will be no `chunk`. Those of its chunks that are under way are not wanted any more;
/// and nobody is left to bring a piece whose request in place has failed.
fn give_up_hedge(piece: &mut Piece, failed: &mut Option<Error>, chunk: u32, error: Option<Error>, ended: &mut Ended) {
    drop_hedge(piece.hedge.take(), ended);
    ended.cancel_hedge.retain(|other| *other != chunk);
    if let Main::Failed(before) = &mut piece.main
        && let Some(error) = error.or(before.take())
    {
        failed.get_or_insert(error);
    }
}

fn piece_mut(state: &mut State, key: Key, n: u32) -> Option<&mut Piece> {
    state.flights.get_mut(&key)?.pieces.get_mut(n as usize)
}

/// The piece is there. The last answer stands for all of its part (`answer`): they are of one version.
fn bring(piece: &mut Piece, answer: &mut Response, response: Response, ended: &mut Ended) {
    piece.main = Main::Ready(response.crc64_body.unwrap_or(0));
    ended.brought = Some(piece.range.clone());
    *answer = response;
}

/// The request for a piece has failed behind these bytes, which stay: the piece is what follows them.
fn cut_off(piece: &mut Piece, partial: &Response, ended: &mut Ended) -> (Range<u64>, u64) {
    let came = piece.range.start..piece.range.start + partial.bytes;
    let crc64 = partial.crc64_body.unwrap_or(0);
    piece.range.start = came.end;
    ended.brought = Some(came.clone());
    (came, crc64)
}

/// The same by its hedge, which is to be copied.
fn bring_hedge(piece: &mut Piece, answer: &mut Response, hedge: Hedge, ended: &mut Ended) {
    ended.give += hedge.bytes_here();
    let (bodies, response) = hedge.bodies();
    ended.copy = bodies;
    bring(piece, answer, response, ended);
}

/// How long so many bytes take typically; `None` before enough answers came.
fn expected(state: &State, bytes: u64) -> Option<Duration> {
    state.pace.map(|(median, _)| Duration::from_nanos((median * bytes as f64) as u64))
}

/// How long so many bytes take before their answer is slow.
fn slow_after(state: &State, bytes: u64, (times, more): (f64, Duration)) -> Option<Duration> {
    let (median, tenth) = state.pace?;
    let pace = (median * times).max(tenth * SLOW_TENTH_TIMES);
    Some(Duration::from_nanos((pace * bytes as f64) as u64) + more)
}

/// An answer that was cut short because another was faster, or because the engine ends.
pub(crate) fn is_cancelled(error: &Error) -> bool {
    error.kind == FailureKind::Cancelled
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
