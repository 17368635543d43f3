//! The second try for a piece of a part: its chunks, each asked for into a buffer of its own.
//!
//! Called by `flight`, under its lock. It holds bytes and counts; it sends nothing and copies nothing.

use ossc_net::{Response, crc};
use std::ops::Range;

#[derive(Debug)]
enum Chunk {
    Waiting,
    Asked,
    Here(Vec<u8>, Response),
}

/// Bytes and where they belong.
pub(crate) type Body = (Range<u64>, Vec<u8>);

/// See the module.
#[derive(Debug)]
pub(crate) struct Spare {
    chunks: Vec<(Range<u64>, Chunk)>,
}

impl Spare {
    /// At most `count` chunks of about the same length, none of them asked for yet.
    pub fn cut(range: Range<u64>, count: u64) -> Spare {
        let len = (range.end - range.start).div_ceil(count.max(1)).max(1);
        let starts = range.clone().step_by(len as usize);
        Spare { chunks: starts.map(|start| (start..(start + len).min(range.end), Chunk::Waiting)).collect() }
    }

    /// How many chunks there are.
    pub fn len(&self) -> u32 {
        self.chunks.len() as u32
    }

    /// A chunk is asked for now: its range. `None` if it was before.
    pub fn ask(&mut self, chunk: u32) -> Option<Range<u64>> {
        let (range, state) = self.chunks.get_mut(chunk as usize)?;
        matches!(state, Chunk::Waiting).then(|| {
            *state = Chunk::Asked;
            range.clone()
        })
    }

    /// Whether a chunk is under way.
    pub fn is_asked(&self, chunk: u32) -> bool {
        self.chunks.get(chunk as usize).is_some_and(|(_, state)| matches!(state, Chunk::Asked))
    }

    /// A chunk has arrived.
    pub fn here(&mut self, chunk: u32, body: Vec<u8>, response: Response) {
        if let Some((_, state)) = self.chunks.get_mut(chunk as usize) {
            *state = Chunk::Here(body, response);
        }
    }

    /// Whether all chunks have arrived.
    pub fn is_here(&self) -> bool {
        self.chunks.iter().all(|(_, state)| matches!(state, Chunk::Here(..)))
    }

    /// Whether nothing of it waits for a connection.
    pub fn is_sent(&self) -> bool {
        !self.chunks.iter().any(|(_, state)| matches!(state, Chunk::Waiting))
    }

    /// Chunks under way.
    pub fn under_way(&self) -> Vec<u32> {
        (0..self.len()).filter(|chunk| self.is_asked(*chunk)).collect()
    }

    /// The same without one that has just ended.
    pub fn under_way_but(&self, chunk: u32) -> Vec<u32> {
        self.under_way().into_iter().filter(|other| *other != chunk).collect()
    }

    /// Bodies with their ranges, and what the last answer said, with the bytes and the CRC-64 of all of them.
    pub fn bodies(self) -> (Vec<Body>, Response) {
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
