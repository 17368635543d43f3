//! Records that no rustls server sends, sealed with a server's keys: padding, messages in pieces, and all that must end
//! the session with the right alert. Each before the head of the answer, when records go to the buffer, and inside the
//! body, when they go to the place.

use rustls::{AlertDescription, ContentType};

use super::*;
use crate::tls::records::Half;

const DATA: ContentType = ContentType::ApplicationData;
const HANDSHAKE: ContentType = ContentType::Handshake;
const ALERT: ContentType = ContentType::Alert;
const PADDING: ContentType = ContentType::Unknown(0);
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// What comes, one record each.
type Records<'a> = &'a [(ContentType, &'a [u8])];

/// A session whose server is a pair of keys.
struct ByHand {
    wire: Wire,
    seal: Half,
    open: Half,
}

impl ByHand {
    /// The request is sent; of the answer so much that the rest of its body goes to the place, if `inside`.
    fn new(ca: &Ca, inside: bool) -> ByHand {
        let mut config = ca.server(&["h.test"], 4000, BOTH);
        config.enable_secret_extraction = true;
        let config = Arc::new(config);
        let mut wire = Wire::new(&ca.tls("h.test"), &config, true);
        assert_eq!(wire.pump(), Step::More);
        let nobody = ServerConnection::new(config).expect("server");
        let server = std::mem::replace(&mut wire.server, nobody);
        let secrets = server.dangerous_extract_secrets().expect("keys");
        let (seal, open) = (Half::new(secrets.tx).expect("key"), Half::new(secrets.rx).expect("key"));
        let mut by_hand = ByHand { wire, seal, open };
        if inside {
            assert_eq!(by_hand.say(DATA, &answer().0[..1000]), Step::More);
        }
        by_hand
    }

    fn say(&mut self, kind: ContentType, plain: &[u8]) -> Step {
        let mut sealed = Vec::new();
        self.seal.seal(kind, plain, &mut sealed).expect("sealed");
        self.wire.feed(&sealed)
    }

    /// The rest of the answer; all must be well.
    fn rest(mut self, from: usize) {
        let (bytes, body) = answer();
        assert_eq!(self.say(DATA, &bytes[from..15_000.max(from)]), Step::More);
        let mut step = Step::More;
        for piece in bytes[15_000.max(from)..].chunks(15_000) {
            assert_eq!(step, Step::More);
            step = self.say(DATA, piece);
        }
        assert_eq!(step, Step::Done { reuse: true });
        assert!(self.wire.finish().result.is_ok());
        assert!(self.wire.memory[100..][..BODY] == body, "wrong bytes");
    }

    /// What this side says, opened.
    fn heard(&mut self) -> (ContentType, Vec<u8>) {
        let span = self.wire.conn.farewell().or_else(|| self.wire.conn.outgoing()).expect("a word");
        // SAFETY: the span is the connection's own unsent text.
        let mut sealed = unsafe { std::slice::from_raw_parts(span.at(), span.len()) }.to_vec();
        let all = 0..sealed.len();
        let (n, kind) = self.open.open(&mut sealed, all).expect("a record");
        (kind, sealed[..n].to_vec())
    }
}

/// A message of the handshake layer that holds a session (RFC 8446 section 4.6.1), with a ticket of `len` bytes.
fn ticket(len: u16) -> Vec<u8> {
    let [high, low] = len.to_be_bytes();
    let mut content = [&[0, 0, 14, 16, 1, 2, 3, 4, 2, 7, 7, high, low][..], &vec![9; usize::from(len)]].concat();
    content.extend([0, 0]);
    [&[4, 0][..], &(content.len() as u16).to_be_bytes(), &content].concat()
}

#[test]
fn padding_and_empty_records_are_no_bytes() {
    let ca = Ca::new("padding");
    for inside in [false, true] {
        let from = if inside { 1000 } else { 0 };
        let mut by_hand = ByHand::new(&ca, inside);
        assert_eq!(by_hand.say(DATA, b""), Step::More);
        let padded = [&answer().0[from..from + 300], &[23, 0, 0, 0]].concat();
        assert_eq!(by_hand.say(PADDING, &padded), Step::More);
        assert_eq!(by_hand.say(ALERT, &[1, 90]), Step::More, "user_canceled is a warning");
        by_hand.rest(from + 300);
    }
}

#[test]
fn tickets_come_whole_in_pieces_and_together() {
    let ca = Ca::new("tickets");
    for inside in [false, true] {
        let mut by_hand = ByHand::new(&ca, inside);
        let long = ticket(20_000);
        for piece in [&long[..3], &long[3..4000], &long[4000..20_000], &long[20_000..]] {
            assert_eq!(by_hand.say(HANDSHAKE, piece), Step::More);
        }
        assert_eq!(by_hand.say(HANDSHAKE, &[ticket(5), ticket(700)].concat()), Step::More);
        by_hand.rest(if inside { 1000 } else { 0 });
    }
}

#[test]
fn random_records_in_random_pieces_give_the_same_bytes() {
    let ca = Ca::new("random");
    let mut random = fastrand::Rng::with_seed(7);
    let (bytes, body) = answer();
    for _ in 0..150 {
        let mut by_hand = ByHand::new(&ca, false);
        let (mut at, mut step) = (0, Step::More);
        while at < bytes.len() {
            assert_eq!(step, Step::More);
            by_hand.wire.piece_max = random.usize(1..40_000);
            let longest = (16 << 10).min(bytes.len() - at);
            let n = if random.bool() { longest } else { random.usize(0..=longest) };
            step = match random.u8(0..8) {
                0 => {
                    let ticket = ticket(random.u16(1..3000));
                    let cut = random.usize(1..ticket.len());
                    assert_eq!(by_hand.say(HANDSHAKE, &ticket[..cut]), Step::More);
                    by_hand.say(HANDSHAKE, &ticket[cut..])
                }
                1 => {
                    let n = n.min(16_000);
                    at += n;
                    let padded = [&bytes[at - n..at], &[23][..], &vec![0; random.usize(0..200)]].concat();
                    by_hand.say(PADDING, &padded)
                }
                _ => {
                    at += n;
                    by_hand.say(DATA, &bytes[at - n..at])
                }
            };
        }
        assert_eq!(step, Step::Done { reuse: true });
        assert!(by_hand.wire.finish().result.is_ok());
        assert!(by_hand.wire.memory[100..][..BODY] == body, "wrong bytes");
        assert!(by_hand.wire.memory[100 + BODY..].iter().all(|byte| *byte == 0xA5), "behind the sink");
    }
}

#[test]
fn new_keys_that_nobody_asked_back_for_leave_ours() {
    let ca = Ca::new("half");
    let mut by_hand = ByHand::new(&ca, true);
    assert_eq!(by_hand.say(HANDSHAKE, &KEY_UPDATE), Step::More);
    assert!(by_hand.wire.conn.outgoing().is_none());
    // The old key is none any more.
    let step = by_hand.say(DATA, b"x");
    let error = by_hand.wire.error(step);
    assert!(error.message.contains("altered on the way"), "{error}");
    assert_eq!(by_hand.heard(), (ALERT, vec![2, u8::from(AlertDescription::BadRecordMac)]));
}

#[test]
fn new_keys_that_were_asked_for_are_told_first() {
    let ca = Ca::new("asked");
    let mut by_hand = ByHand::new(&ca, true);
    assert_eq!(by_hand.say(HANDSHAKE, &[24, 0, 0, 1, 1]), Step::More);
    let span = by_hand.wire.conn.outgoing().expect("an answer");
    // SAFETY: the span is the connection's own unsent text.
    let mut sealed = unsafe { std::slice::from_raw_parts(span.at(), span.len()) }.to_vec();
    let all = 0..sealed.len();
    assert_eq!(by_hand.open.open(&mut sealed, all).expect("the old key"), (5, HANDSHAKE));
    assert_eq!(sealed[..5], KEY_UPDATE);
}

#[test]
fn what_may_not_come_ends_the_session_with_the_right_alert() {
    use AlertDescription as Alert;
    let ca = Ca::new("unexpected");
    let overlong = vec![1; (16 << 10) + 1];
    let cases: [(Records<'_>, Option<Alert>); 15] = [
        (&[(ContentType::ChangeCipherSpec, &[1])], Some(Alert::UnexpectedMessage)),
        (&[(ContentType::Heartbeat, &[1, 2, 3])], Some(Alert::UnexpectedMessage)),
        (&[(PADDING, &[0; 40])], Some(Alert::UnexpectedMessage)),
        (&[(DATA, &overlong)], Some(Alert::RecordOverflow)),
        (&[(HANDSHAKE, &[])], Some(Alert::DecodeError)),
        (&[(HANDSHAKE, &[20, 0, 0, 1, 0])], Some(Alert::UnexpectedMessage)),
        (&[(HANDSHAKE, &[4, 1, 0, 1])], Some(Alert::DecodeError)),
        (&[(HANDSHAKE, &[4, 0, 0, 2, 1, 2])], Some(Alert::DecodeError)),
        (&[(HANDSHAKE, &[24, 0, 0, 1, 2])], Some(Alert::IllegalParameter)),
        (&[(HANDSHAKE, &[24, 0, 0, 1, 0, 4])], Some(Alert::UnexpectedMessage)),
        (&[(HANDSHAKE, &[4, 0, 0]), (DATA, b"x")], Some(Alert::UnexpectedMessage)),
        (&[(ALERT, &[2, 0, 0])], Some(Alert::DecodeError)),
        (&[(ALERT, &[2, 80])], None),
        (&[(ALERT, &[1, 100])], None),
        (&[(ALERT, &[1, 90][..]); 5], None),
    ];
    for (records, alert) in cases {
        for inside in [false, true] {
            let mut by_hand = ByHand::new(&ca, inside);
            let mut step = Step::More;
            for (kind, plain) in records {
                assert_eq!(step, Step::More, "{records:?}");
                step = by_hand.say(*kind, plain);
            }
            let error = by_hand.wire.error(step);
            assert_eq!(error.kind, FailureKind::Network, "{error}");
            assert_eq!(error.phase, if inside { Phase::Body } else { Phase::Head }, "{error}");
            match alert {
                Some(alert) => assert_eq!(by_hand.heard(), (ALERT, vec![2, u8::from(alert)]), "{error}"),
                None => assert!(by_hand.wire.conn.farewell().is_none(), "{error}"),
            }
        }
    }
}

#[test]
fn endless_new_keys_are_refused() {
    let ca = Ca::new("endless");
    let mut config = ca.server(&["h.test"], 4000, BOTH);
    config.enable_secret_extraction = true;
    let mut wire = Wire::new(&ca.tls("h.test"), &Arc::new(config), true);
    assert_eq!(wire.pump(), Step::More);
    for _ in 0..32 {
        wire.server.refresh_traffic_keys().expect("TLS 1.3");
        assert_eq!(wire.pump(), Step::More);
    }
    wire.server.refresh_traffic_keys().expect("TLS 1.3");
    let step = wire.pump();
    let error = wire.error(step);
    assert!(error.message.contains("TooManyKeyUpdateRequests"), "{error}");
}
