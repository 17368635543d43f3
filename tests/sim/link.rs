//! One connection between a vcpu and the origin: which of the operations under way ends next, when, and how.
//!
//! Called by the world at the times that it gives back. It moves bytes between the net and the bucket.

use crate::bucket::{self, Pace, Piece, Stream, Thing};
use crate::fault::Fault;
use crate::stage::Stage;
use ossc_net::sim::{Link, Net, Op};

/// A body may drip for so many times the stall timeout.
const DRIP_STALLS_MAX: u64 = 8;

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
    /// What the origin has sent and a thin link has not brought yet.
    behind: Stream,
    /// When it brought the last turn.
    turn_at: u64,
    /// When a body began to drip.
    drips: Option<u64>,
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
            behind: Stream::new(),
            turn_at: 0,
            drips: None,
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
                // A thin link says itself when it brings more.
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
                self.receive(net, stage, pace);
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
            self.receive(net, stage, pace);
            return true;
        }
        // Bytes wait for SO_RCVLOWAT, or nothing is there.
        let waits = net.pends(self.link, Op::Recv) && self.arrived(stage.micros) > 0;
        if waits && stage.strike(Fault::ShortReceive) {
            self.receive(net, stage, pace);
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
            self.behind.clear();
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
        let mut answer = bucket::answer(things, &text, stage, pace);
        self.drips = stage.dripped.take();
        if pace.turn_bytes > 0 { &mut self.behind } else { &mut self.stream }.append(&mut answer);
    }

    /// When the origin has something for the thin link to bring.
    pub fn waits_for_link(&self) -> Option<u64> {
        self.behind.front().map(|(at, _)| *at)
    }

    /// Since when it waits for its turn.
    pub fn waits_since(&self) -> Option<u64> {
        self.waits_for_link().map(|at| at.max(self.turn_at))
    }

    /// The thin link brings the next bytes: so many, in whatever pieces the origin has sent them, up to an end.
    pub fn bring(&mut self, now: u64, mut bytes: usize) {
        self.turn_at = now;
        while bytes > 0 {
            let Some((at, piece)) = self.behind.front_mut().filter(|(at, _)| *at <= now) else { return };
            let brought = piece.cut_off(bytes);
            let is_over = piece.len().is_none_or(|left| left == 0);
            bytes -= brought.len().unwrap_or(bytes);
            self.stream.push_back((now.max(*at), brought));
            if is_over {
                self.behind.pop_front();
            }
        }
    }

    /// Whether the engine waits for bytes that are here.
    pub fn has_bytes(&self, net: &Net, now: u64) -> bool {
        net.pends(self.link, Op::Recv) && self.receivable(net, now)
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

    fn receive(&mut self, net: &mut Net, stage: &mut Stage, pace: Pace) {
        let arrived = self.arrived(stage.micros);
        // Behind a pause the engine has not looked for as long.
        let drips = self.drips.filter(|since| *since > stage.stood_until && pace.least > 0 && arrived > 0);
        if drips.is_some_and(|since| stage.micros > since + DRIP_STALLS_MAX * pace.stall) {
            stage.violated(format!("a body drips on connection {}, and is not cut", self.link));
        }
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
