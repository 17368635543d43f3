//! The second try for a piece of a part: its chunks, each asked for into a buffer of its own. A chunk whose answer is
//! slow, too, gets a twin of the same range; who comes first counts.
//!
//! Called by `flight`, under its lock. It holds bytes and counts; it sends nothing and copies nothing.

use ossc_net::{Response, crc};
use std::ops::Range;
use std::time::Instant;

#[derive(Debug)]
enum Chunk {
    Waiting,
    Asked(Instant),
    Here(Vec<u8>, Response),
    /// Its twin came first, or it failed and has one.
    Dropped,
}

/// Bytes and where they belong.
pub(crate) type Body = (Range<u64>, Vec<u8>);

/// See the module.
#[derive(Debug)]
pub(crate) struct Hedge {
    chunks: Vec<(Range<u64>, Chunk)>,
}

impl Hedge {
    /// At most `count` chunks of about the same length, none of them asked for yet.
    pub fn cut(range: Range<u64>, count: u64) -> Hedge {
        let len = (range.end - range.start).div_ceil(count.max(1)).max(1);
        let starts = range.clone().step_by(len as usize);
        Hedge { chunks: starts.map(|start| (start..(start + len).min(range.end), Chunk::Waiting)).collect() }
    }

    /// How many chunks there are.
    pub fn len(&self) -> u32 {
        self.chunks.len() as u32
    }

    /// A chunk is asked for now: its range. `None` if it was before.
    pub fn start_chunk(&mut self, chunk: u32, now: Instant) -> Option<Range<u64>> {
        let (range, state) = self.chunks.get_mut(chunk as usize)?;
        matches!(state, Chunk::Waiting).then(|| {
            *state = Chunk::Asked(now);
            range.clone()
        })
    }

    /// Since when a chunk is under way.
    pub fn asked_since(&self, chunk: u32) -> Option<Instant> {
        match self.chunks.get(chunk as usize)?.1 {
            Chunk::Asked(since) => Some(since),
            _ => None,
        }
    }

    /// A chunk that has no twin gets one: the number of that.
    pub fn double(&mut self, chunk: u32) -> Option<u32> {
        if self.has_twin(chunk) {
            return None;
        }
        let range = self.chunks.get(chunk as usize)?.0.clone();
        self.chunks.push((range, Chunk::Waiting));
        Some(self.len() - 1)
    }

    pub fn has_twin(&self, chunk: u32) -> bool {
        self.twin(chunk).is_some()
    }

    fn twin(&self, chunk: u32) -> Option<u32> {
        let range = &self.chunks.get(chunk as usize)?.0;
        (0..self.len()).find(|other| *other != chunk && self.chunks[*other as usize].0 == *range)
    }

    /// A chunk has arrived. Its twin, if that is under way and not wanted any more.
    pub fn here(&mut self, chunk: u32, body: Vec<u8>, response: Response) -> Option<u32> {
        let twin = self.twin(chunk);
        if let Some((_, state)) = self.chunks.get_mut(chunk as usize) {
            *state = Chunk::Here(body, response);
        }
        let twin = twin?;
        let was = std::mem::replace(&mut self.chunks[twin as usize].1, Chunk::Dropped);
        matches!(was, Chunk::Asked(_)).then_some(twin)
    }

    /// A chunk has failed. True if its twin may still bring what it was for.
    pub fn lose(&mut self, chunk: u32) -> bool {
        let Some((_, state)) = self.twin(chunk).map(|twin| &self.chunks[twin as usize]) else { return false };
        if matches!(state, Chunk::Dropped) {
            return false;
        }
        self.chunks[chunk as usize].1 = Chunk::Dropped;
        true
    }

    /// Whether all chunks have arrived.
    pub fn is_here(&self) -> bool {
        self.chunks.iter().all(|(_, state)| matches!(state, Chunk::Here(..) | Chunk::Dropped))
    }

    /// Bytes of the chunks that have arrived.
    pub fn bytes_here(&self) -> u64 {
        let here = |(_, state): &&(Range<u64>, Chunk)| matches!(state, Chunk::Here(..));
        self.chunks.iter().filter(here).map(|(range, _)| range.end - range.start).sum()
    }

    /// Whether nothing of it waits for a connection.
    pub fn is_sent(&self) -> bool {
        !self.chunks.iter().any(|(_, state)| matches!(state, Chunk::Waiting))
    }

    /// Chunks under way.
    pub fn under_way(&self) -> Vec<u32> {
        (0..self.len()).filter(|chunk| self.asked_since(*chunk).is_some()).collect()
    }

    /// Bodies with their ranges, and what the last answer said, with the bytes and the CRC-64 of all of them.
    pub fn bodies(mut self) -> (Vec<Body>, Response) {
        self.chunks.sort_by_key(|(range, _)| range.start);
        let mut all = Response::default();
        let mut bodies = Vec::with_capacity(self.chunks.len());
        for (range, state) in self.chunks {
            let Chunk::Here(body, response) = state else { continue };
            let len = range.end - range.start;
            let crc64_body = match (all.bytes, all.crc64_body, response.crc64_body) {
                (0, _, first) => first,
                (_, Some(before), Some(this)) => Some(crc::combine(before, this, len)),
                _ => None,
            };
            all = Response { bytes: all.bytes + len, crc64_body, ..response };
            bodies.push((range, body));
        }
        (bodies, all)
    }
}
