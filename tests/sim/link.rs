//! One connection between a vcpu and the origin: which of the operations under way ends next, when, and how.
//!
//! Called by the world at the times that it gives back. It moves bytes between the net and the bucket.

use crate::bucket::{self, Pace, Piece, Stream, Thing};
use crate::fault::Fault;
use crate::stage::Stage;
use ossc_net::sim::{Link, Net, Op};

/// How a connect ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Good,
    Refused,
    Never,
}

/// See the module.
pub struct Line {
    /// Its socket.
    pub link: Link,
    fate: Fate,
    request: Vec<u8>,
    stream: Stream,
    answered: u32,
    cancelled: Vec<Op>,
    /// Number of what the vcpu did last on it.
    pub posted: u64,
    /// The next look at it, in microseconds; later ones are void.
    pub due: u64,
}

impl Line {
    /// A connect that was just begun.
    pub fn new(link: Link, stage: &mut Stage) -> Line {
        let fate = match () {
            () if stage.strike(Fault::ConnectRefused) => Fate::Refused,
            () if stage.strike(Fault::ConnectTimeout) => Fate::Never,
            () => Fate::Good,
        };
        Line {
            link,
            fate,
            request: Vec::new(),
            stream: Stream::new(),
            answered: 0,
            cancelled: Vec::new(),
            posted: 0,
            due: u64::MAX,
        }
    }

    /// The operation is to end early.
    pub fn cancel(&mut self, op: Op) {
        self.cancelled.push(op);
    }

    /// Ends one operation if one can end now: when to look again, and whether one did.
    pub fn step(&mut self, net: &mut Net, things: &[Thing], stage: &mut Stage, pace: Pace) -> (Option<u64>, bool) {
        let did = self.end_one(net, things, stage, pace);
        let soon = stage.micros + 1 + stage.jitter(50);
        let again = match () {
            () if !self.cancelled.is_empty() => Some(soon),
            () if net.pends(self.link, Op::Send) => Some(soon),
            () if net.pends(self.link, Op::Recv) => match self.receivable(net, stage.micros) {
                true => Some(soon),
                false => self.stream.iter().map(|(at, _)| *at).find(|at| *at > stage.micros),
            },
            () => None,
        };
        (again, did)
    }

    fn end_one(&mut self, net: &mut Net, things: &[Thing], stage: &mut Stage, pace: Pace) -> bool {
        if let Some(op) = self.cancelled.pop() {
            if op == Op::Recv && self.arrived(stage.micros) > 0 && stage.rng.bool() {
                stage.faults.saw(Fault::CancelLost);
                if net.place(self.link).is_some_and(|at| stage.is_in_place(at)) {
                    stage.faults.saw(Fault::CancelledInPlace);
                }
                self.receive(net, stage);
            } else if net.pends(self.link, op) {
                net.end(self.link, op, -libc::ECANCELED);
            }
            return true;
        }
        if net.pends(self.link, Op::Connect) {
            return self.connect(net);
        }
        if net.pends(self.link, Op::Send) {
            self.send(net, things, stage, pace);
            return true;
        }
        if net.pends(self.link, Op::Recv) && self.receivable(net, stage.micros) {
            self.receive(net, stage);
            return true;
        }
        // Bytes wait for SO_RCVLOWAT, or nothing is there.
        let waits = net.pends(self.link, Op::Recv) && self.arrived(stage.micros) > 0;
        if waits && stage.strike(Fault::ShortReceive) {
            self.receive(net, stage);
        }
        waits && !net.pends(self.link, Op::Recv)
    }

    fn connect(&mut self, net: &mut Net) -> bool {
        match self.fate {
            Fate::Good => net.end(self.link, Op::Connect, 0),
            Fate::Refused => net.end(self.link, Op::Connect, -libc::ECONNREFUSED),
            Fate::Never => return false,
        }
        true
    }

    fn send(&mut self, net: &mut Net, things: &[Thing], stage: &mut Stage, pace: Pace) {
        if stage.strike(Fault::ResetInSend) {
            self.stream.clear();
            self.stream.push_back((0, Piece::Reset));
            return net.end(self.link, Op::Send, -libc::EPIPE);
        }
        let max = if stage.strike(Fault::ShortSend) { stage.rng.usize(1..200) } else { usize::MAX };
        let request = &mut self.request;
        net.sent(self.link, max, |bytes| request.extend_from_slice(bytes));
        if !request.ends_with(b"\r\n\r\n") {
            return;
        }
        let text = String::from_utf8_lossy(request).into_owned();
        request.clear();
        if self.answered > 0 && stage.strike(Fault::StaleKeepAlive) {
            let end = if stage.rng.bool() { Piece::Close } else { Piece::Reset };
            return self.stream.push_back((stage.micros, end));
        }
        self.answered += 1;
        self.stream.append(&mut bucket::answer(things, &text, stage, pace));
    }

    /// Bytes that lie in the socket.
    fn arrived(&self, now: u64) -> usize {
        self.stream.iter().take_while(|(at, _)| *at <= now).map_while(|(_, piece)| piece.len()).sum()
    }

    /// Whether the kernel would end a receive now.
    fn receivable(&self, net: &Net, now: u64) -> bool {
        let ends = self.stream.iter().take_while(|(at, _)| *at <= now).any(|(_, piece)| piece.len().is_none());
        ends || self.arrived(now) >= net.lowat(self.link)
    }

    fn receive(&mut self, net: &mut Net, stage: &mut Stage) {
        let arrived = self.arrived(stage.micros);
        if arrived == 0 {
            let result = match self.stream.front() {
                Some((_, Piece::Reset)) => -libc::ECONNRESET,
                _ => 0,
            };
            return net.end(self.link, Op::Recv, result);
        }
        let room = arrived.min(net.space(self.link));
        let n = if stage.strike(Fault::ShortReceive) { stage.rng.usize(1..=room) } else { room };
        let stream = &mut self.stream;
        net.received(self.link, n, |out| {
            let mut filled = 0;
            while filled < out.len() {
                let Some((_, piece)) = stream.front_mut() else { return };
                let step = piece.len().unwrap_or(0).min(out.len() - filled);
                piece.copy_next(&mut out[filled..filled + step]);
                filled += step;
                if piece.len() == Some(0) {
                    stream.pop_front();
                }
            }
        });
    }
}
