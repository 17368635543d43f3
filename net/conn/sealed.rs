//! The connection with TLS below it: what the stage opens goes where plain bytes would have been
//! received. Part of the connection; does no I/O either.

use std::time::Instant;

use super::{Body, Conn, HEAD_STEP_BYTES, State, Step};
use crate::error::{FailureKind, Phase};

impl Conn {
    /// Sealed bytes are there, or the handshake begins: opens what is whole and takes it.
    pub(super) fn opened(&mut self, now: Instant) -> Step {
        let Some(mut stage) = self.stage.take() else {
            return Step::More;
        };
        if let State::Body(_) = self.state {
            self.body_byte(now);
        }
        let mut step = Step::More;
        let outcome = match (&self.state, &mut self.place) {
            (State::Body(Body::Placed), Some(place)) if stage.in_place() => match stage.turn_in(place) {
                Ok(0) => Ok(()),
                Ok(n) => {
                    step = self.placed(n, now);
                    Ok(())
                }
                Err(cause) => Err(cause),
            },
            _ => stage.turn(|plain| self.absorb(plain, &mut step, now)),
        };
        let (ready, closed) = (stage.ready(), stage.closed());
        self.stage = Some(stage);
        match (&mut step, outcome) {
            // The answer is whole, but nothing more can be asked here.
            (Step::Done { reuse }, outcome) => *reuse &= outcome.is_ok() && !closed,
            (Step::More, Err(cause)) => return self.unsealed(&cause),
            (Step::More, Ok(())) if closed => return self.closed(true),
            (Step::More, Ok(())) if ready && matches!(self.state, State::Handshake) => {
                return self.send_from_start(now);
            }
            _ => {}
        }
        step
    }

    /// Copies plain bytes to where they belong; what follows the end of an answer is nobody's.
    fn absorb(&mut self, mut plain: &[u8], step: &mut Step, now: Instant) {
        while !plain.is_empty() && *step == Step::More {
            let n = match &self.state {
                State::Body(Body::Placed) => {
                    let Some(place) = &mut self.place else { return };
                    let n = plain.len().min(place.missing());
                    place.copy_in(&plain[..n]);
                    *step = self.placed(n, now);
                    n
                }
                State::Connecting | State::Handshake | State::Ended => return,
                state => {
                    let (start, room) = match state {
                        State::Body(_) => (0, self.scratch.len()),
                        _ => (self.filled, (self.scratch.len() - self.filled).min(HEAD_STEP_BYTES)),
                    };
                    let n = plain.len().min(room);
                    self.scratch[start..start + n].copy_from_slice(&plain[..n]);
                    *step = self.arrived(n, now);
                    n
                }
            };
            plain = &plain[n..];
        }
        if let (Step::Done { reuse }, false) = (step, plain.is_empty()) {
            *reuse = false;
        }
    }

    /// TLS cannot go on.
    pub(super) fn unsealed(&mut self, cause: &rustls::Error) -> Step {
        let phase = match &self.state {
            State::Idle => return Step::Close,
            State::Ended => return Step::More,
            State::Body(Body::Text { fault: true, .. }) => return self.refuse(false),
            State::Connecting | State::Handshake => Phase::Tls,
            State::Send => Phase::Send,
            State::Head => Phase::Head,
            State::Body(_) => Phase::Body,
        };
        let Some(error) = self.stage.as_ref().map(|stage| stage.fault(phase, cause)) else {
            return Step::Close;
        };
        if self.stale() && error.kind == FailureKind::Network {
            return Step::Stale;
        }
        self.end(Err(error), false)
    }
}
