//! The stage inside a connection, against a rustls server in memory: every split, every refusal.
//! Its certificates are used by the loopback tests too.
#![allow(unsafe_code)]

use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};

use super::*;
use crate::conn::{Conn, Crowd, Step, Timeouts};
use crate::fetch::{Fetch, Finished, Query};
use crate::sink::{Pages, Sink};

mod by_hand;

pub(crate) const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
pub(crate) const ONLY_TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// A CA, with its certificate in a file for as long as the value lives.
pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub file: PathBuf,
}

impl Ca {
    pub fn new(name: &str) -> Ca {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("test CA {name}"));
        let key = KeyPair::generate().expect("key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("CA");
        let file = std::env::temp_dir().join(format!("ossc-net-{}-{name}.pem", std::process::id()));
        std::fs::write(&file, issuer.pem()).expect("write the CA");
        Ca { issuer, file }
    }

    /// A server with a certificate for these names, valid up to the end of `last_year`.
    pub fn server(
        &self,
        names: &[&str],
        last_year: i32,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ServerConfig {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_after = rcgen::date_time_ymd(last_year, 12, 31);
        let key = KeyPair::generate().expect("key");
        let leaf = params.signed_by(&key, &self.issuer).expect("leaf");
        let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(versions).expect("versions").with_no_client_auth();
        builder.with_single_cert(vec![leaf.der().clone()], secret).expect("certificate")
    }

    pub fn trust(&self) -> Trust {
        trust(&self.file)
    }

    pub fn tls(&self, host: &str) -> Tls {
        Tls::new(host, &self.trust()).expect("TLS")
    }
}

impl Drop for Ca {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.file));
    }
}

/// Nobody but the CA of that file.
pub(crate) fn trust(file: &Path) -> Trust {
    Trust { cert_file: Some(file.to_owned()), ..Trust::default() }
}

/// Long enough that most of it is received into the place.
const BODY: usize = 100_000;
const TIMEOUTS: Timeouts = Timeouts { connect_ms: 1000, response_ms: 2000, stall_ms: 400, ..Timeouts::DEFAULT };

fn answer() -> (Vec<u8>, Vec<u8>) {
    let body: Vec<u8> = (0..BODY).map(|at| (at * 7 + at / 251) as u8).collect();
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {BODY}\r\nContent-Range: bytes 0-{}/{BODY}\r\nETag: \"E\"\r\n\r\n",
        BODY - 1
    );
    ([head.as_bytes(), &body].concat(), body)
}

/// Both ends and what is between them.
struct Wire {
    conn: Conn,
    server: ServerConnection,
    memory: Vec<u8>,
    now: Instant,
    /// Sealed bytes from the server so far.
    received: usize,
    /// No receive crosses this offset of the server's stream.
    cut: usize,
    /// Most bytes of a receive.
    piece_max: usize,
    /// This byte of the server's stream, and how it is changed on the way.
    tampered: Option<(usize, u8)>,
}

impl Wire {
    fn new(tls: &Tls, server: &Arc<ServerConfig>, body: bool) -> Wire {
        let now = Instant::now();
        let mut server = ServerConnection::new(server.clone()).expect("server");
        server.set_buffer_limit(None);
        let mut wire = Wire {
            conn: Conn::new(TIMEOUTS, now),
            server,
            memory: vec![0xA5; BODY + 200],
            now,
            received: 0,
            cut: usize::MAX,
            piece_max: usize::MAX,
            tampered: None,
        };
        wire.begin(body);
        wire.conn.connecting(now);
        assert_eq!(wire.conn.connected(Some(tls), now), Step::More);
        wire
    }

    fn begin(&mut self, body: bool) {
        let at = self.memory[100..].as_mut_ptr();
        let (query, sink) = if body {
            let query = Query::Get { key: "k".into(), range: Some(0..BODY as u64), etag: None, size: BODY as u64 };
            (query, Sink::Memory { at, len: BODY, pages: Pages::Made })
        } else {
            let query = Query::List { prefix: String::new(), delimiter: None, continuation: None };
            (query, Sink::Buffer { bytes_max: 1000 })
        };
        let fetch = Fetch { token: 1, query, sink, crc: true, urgent: true };
        let step = self.conn.begin(fetch, self.now, |_, out| {
            out.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
            Ok(())
        });
        assert_eq!(step, Step::More);
    }

    /// Moves bytes both ways until nothing is left or the connection wants something.
    fn pump(&mut self) -> Step {
        loop {
            let sent = self.send_all();
            let mut sealed = Vec::new();
            while self.server.wants_write() {
                self.server.write_tls(&mut sealed).expect("seal");
            }
            if !sent && sealed.is_empty() {
                return Step::More;
            }
            match self.feed(&sealed) {
                Step::More => {}
                step => return step,
            }
        }
    }

    fn send_all(&mut self) -> bool {
        let mut any = false;
        while let Some(span) = self.conn.outgoing() {
            // Odd pieces, as a full socket buffer would take them.
            let n = span.len().min(700);
            // SAFETY: the span is the connection's own unsent text, at least `n` long.
            let bytes = unsafe { std::slice::from_raw_parts(span.at(), n) }.to_vec();
            let mut bytes = Cursor::new(bytes);
            while (bytes.position() as usize) < n {
                self.server.read_tls(&mut bytes).expect("read");
                if self.server.process_new_packets().is_err() {
                    break;
                }
            }
            assert_eq!(self.conn.sent(n, self.now), Step::More);
            any = true;
        }
        any
    }

    fn feed(&mut self, mut bytes: &[u8]) -> Step {
        while !bytes.is_empty() {
            let span = self.conn.space().expect("a place for bytes");
            let mut n = span.len().min(bytes.len()).min(self.piece_max);
            if self.received < self.cut {
                n = n.min(self.cut - self.received);
            }
            assert!(n > 0, "no room");
            // SAFETY: the span is the connection's own next place, at least `n` long.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), span.at(), n) };
            if let Some((at, bits)) = self.tampered
                && (self.received..self.received + n).contains(&at)
            {
                // SAFETY: inside the `n` bytes just written.
                unsafe { *span.at().add(at - self.received) ^= bits };
            }
            self.received += n;
            bytes = &bytes[n..];
            match self.conn.received(n, self.now) {
                Step::More => {}
                step if bytes.is_empty() => return step,
                // The rest of a flight, such as tickets, comes when the answer is whole already.
                step => {
                    assert!(matches!(step, Step::Done { .. }), "{step:?}");
                    return step;
                }
            }
        }
        Step::More
    }

    /// The server reads the request and answers with `bytes`.
    fn answer(&mut self, bytes: &[u8]) {
        let mut request = [0; 64];
        let n = self.server.reader().read(&mut request).expect("the request");
        assert_eq!(&request[..n], b"GET / HTTP/1.1\r\n\r\n");
        self.server.writer().write_all(bytes).expect("answer");
    }

    fn finish(&mut self) -> Finished {
        self.conn.finish(self.now, 0).expect("an end")
    }

    fn error(&mut self, step: Step) -> Error {
        assert_eq!(step, Step::Done { reuse: false });
        self.finish().result.expect_err("an error")
    }
}

/// One exchange; how many sealed bytes came.
fn exchange(tls: &Tls, server: &Arc<ServerConfig>, cut: usize, piece_max: usize) -> usize {
    let (bytes, body) = answer();
    let mut wire = Wire::new(tls, server, true);
    (wire.cut, wire.piece_max) = (cut, piece_max);
    assert_eq!(wire.pump(), Step::More, "cut at {cut}");
    wire.answer(&bytes);
    assert_eq!(wire.pump(), Step::Done { reuse: true }, "cut at {cut}");
    let response = wire.finish().result.expect("response");
    assert!(wire.memory[100..][..BODY] == body, "wrong bytes, cut at {cut}");
    assert!(wire.memory[..100].iter().chain(&wire.memory[100 + BODY..]).all(|byte| *byte == 0xA5), "beside the sink");
    assert_eq!((response.bytes, response.crc64_body), (BODY as u64, Some(crate::crc::of(&body))));
    wire.received
}

#[test]
fn every_split_of_the_stream_gives_the_same_bytes() {
    let ca = Ca::new("split");
    for versions in [&[&rustls::version::TLS13][..], ONLY_TLS12] {
        let server = Arc::new(ca.server(&["h.test"], 4000, versions));
        let tls = ca.tls("h.test");
        let total = exchange(&tls, &server, usize::MAX, usize::MAX);
        assert!(total > BODY + 500, "{total}");
        // The handshake and the borders of the first records byte by byte, the long middle in steps.
        for cut in (1..1300).chain((1300..total).step_by(999)).chain(total - 40..total + 1) {
            exchange(&tls, &server, cut, usize::MAX);
        }
        for piece_max in [1, 2, 5, 1000, 16_384, 16_406, 17_000] {
            exchange(&tls, &server, usize::MAX, piece_max);
        }
        assert!(tls.handshakes().resumed > 500, "{:?}", tls.handshakes());
    }
}

#[test]
fn a_kept_connection_is_used_again_without_a_handshake() {
    let ca = Ca::new("kept");
    let server = Arc::new(ca.server(&["h.test"], 4000, BOTH));
    let tls = ca.tls("h.test");
    let mut wire = Wire::new(&tls, &server, true);
    // With more requests than one key seals (in tests).
    for _ in 0..10 {
        assert_eq!(wire.pump(), Step::More);
        wire.answer(&answer().0);
        assert_eq!(wire.pump(), Step::Done { reuse: true });
        assert!(wire.finish().result.is_ok());
        wire.conn.rest(wire.now);
        wire.begin(true);
    }
    assert_eq!(tls.handshakes(), Handshakes { full: 1, resumed: 0 });
}

#[test]
fn new_keys_in_the_middle_of_a_body_change_nothing() {
    let ca = Ca::new("rekey");
    let server = Arc::new(ca.server(&["h.test"], 4000, BOTH));
    let (bytes, body) = answer();
    let mut wire = Wire::new(&ca.tls("h.test"), &server, true);
    assert_eq!(wire.pump(), Step::More);
    wire.answer(&bytes[..10_000]);
    for piece in bytes[10_000..].chunks(7000) {
        wire.server.refresh_traffic_keys().expect("TLS 1.3");
        wire.server.writer().write_all(piece).expect("more");
        if wire.pump() != Step::More {
            break;
        }
    }
    assert!(wire.finish().result.is_ok());
    assert!(wire.memory[100..][..BODY] == body);
    // The server asked for new keys of this side, too.
    wire.conn.rest(wire.now);
    wire.begin(true);
    assert_eq!(wire.pump(), Step::More);
    wire.answer(&bytes);
    assert_eq!(wire.pump(), Step::Done { reuse: true });
}

#[test]
fn a_farewell_is_close_notify() {
    let ca = Ca::new("farewell");
    let server = Arc::new(ca.server(&["h.test"], 4000, BOTH));
    let mut wire = Wire::new(&ca.tls("h.test"), &server, true);
    assert_eq!(wire.pump(), Step::More);
    wire.answer(&answer().0);
    assert_eq!(wire.pump(), Step::Done { reuse: true });
    let span = wire.conn.farewell().expect("a word");
    // SAFETY: the span is the connection's own text.
    let mut bytes = unsafe { std::slice::from_raw_parts(span.at(), span.len()) };
    wire.server.read_tls(&mut bytes).expect("read");
    assert!(wire.server.process_new_packets().expect("no alert").peer_has_closed());
}

#[test]
fn close_notify_ends_a_body_of_unknown_length_and_nothing_else_does() {
    let ca = Ca::new("close");
    let server = Arc::new(ca.server(&["h.test"], 4000, BOTH));
    let text = b"HTTP/1.1 200 OK\r\n\r\n<ListBucketResult/>";
    for clean in [true, false] {
        let mut wire = Wire::new(&ca.tls("h.test"), &server, false);
        assert_eq!(wire.pump(), Step::More);
        wire.answer(text);
        assert_eq!(wire.pump(), Step::More);
        if clean {
            wire.server.send_close_notify();
            assert_eq!(wire.pump(), Step::Done { reuse: false });
            let done = wire.finish();
            assert!(done.result.is_ok());
            assert_eq!(done.body, b"<ListBucketResult/>");
        } else {
            let step = wire.conn.received(0, wire.now);
            let error = wire.error(step);
            assert_eq!((error.kind, error.phase), (FailureKind::Network, Phase::Body));
            assert!(error.message.contains("without close_notify after 19 bytes"), "{error}");
        }
    }
}

#[test]
fn every_early_end_is_an_error_never_a_short_body() {
    let ca = Ca::new("early");
    let server = Arc::new(ca.server(&["h.test"], 4000, BOTH));
    let (bytes, _) = answer();
    for keep in [0, 1, 50, 200, 20_000, bytes.len() - 1] {
        for end in ["eof", "close_notify", "alert"] {
            let mut wire = Wire::new(&ca.tls("h.test"), &server, true);
            assert_eq!(wire.pump(), Step::More);
            wire.answer(&bytes[..keep]);
            assert_eq!(wire.pump(), Step::More, "{keep} {end}");
            let step = match end {
                "eof" => wire.conn.received(0, wire.now),
                "close_notify" => {
                    wire.server.send_close_notify();
                    wire.pump()
                }
                _ => {
                    // A record that is no TLS record of this session breaks it as an alert would.
                    wire.feed(&[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20])
                }
            };
            let error = wire.error(step);
            assert_eq!(error.kind, FailureKind::Network, "{keep} {end}: {error}");
            assert!(error.retryable(), "{error}");
        }
    }
}

#[test]
fn a_kept_connection_that_was_closed_is_stale() {
    let ca = Ca::new("stale");
    let server = Arc::new(ca.server(&["h.test"], 4000, BOTH));
    let mut wire = Wire::new(&ca.tls("h.test"), &server, true);
    assert_eq!(wire.pump(), Step::More);
    wire.answer(&answer().0);
    assert_eq!(wire.pump(), Step::Done { reuse: true });
    assert!(wire.finish().result.is_ok());
    wire.conn.rest(wire.now);
    wire.begin(true);
    wire.server.send_close_notify();
    assert_eq!(wire.pump(), Step::Stale);
}

#[test]
fn bytes_after_an_answer_and_close_notify_end_the_connection() {
    let ca = Ca::new("after");
    let server = Arc::new(ca.server(&["h.test"], 4000, BOTH));
    for extra in [true, false] {
        let mut wire = Wire::new(&ca.tls("h.test"), &server, true);
        assert_eq!(wire.pump(), Step::More);
        let mut bytes = answer().0;
        bytes.extend(extra.then_some(b'x'));
        wire.answer(&bytes);
        if !extra {
            wire.server.send_close_notify();
        }
        assert_eq!(wire.pump(), Step::Done { reuse: false });
        assert!(wire.finish().result.is_ok());
    }
}

#[test]
fn a_changed_byte_anywhere_never_becomes_a_wrong_one_and_never_a_panic() {
    let ca = Ca::new("tampered");
    let (bytes, body) = answer();
    let mut refused = 0;
    for versions in [BOTH, ONLY_TLS12] {
        let server = Arc::new(ca.server(&["h.test"], 4000, versions));
        let total = exchange(&ca.tls("h.test"), &server, usize::MAX, usize::MAX);
        // One in two is a full handshake, the other resumes.
        let kept = ca.tls("h.test");
        for at in (0..1200).chain((1200..total).step_by(797)) {
            let fresh = ca.tls("h.test");
            let mut wire = Wire::new(if at % 2 == 0 { &fresh } else { &kept }, &server, true);
            wire.tampered = Some((at, 1 << (at % 8)));
            let mut step = wire.pump();
            if step == Step::More && !wire.conn.is_connecting() {
                wire.answer(&bytes);
                step = wire.pump();
            }
            match step {
                // It waits for more: a length has grown. The deadlines end that.
                Step::More => refused += 1,
                Step::Done { .. } => match wire.finish().result {
                    Ok(_) => assert!(wire.memory[100..][..BODY] == body, "wrong bytes, changed at {at}"),
                    Err(error) => {
                        assert!(matches!(error.kind, FailureKind::Tls | FailureKind::Network), "{at}: {error}");
                        refused += 1;
                    }
                },
                step => panic!("{step:?} after a change at {at}"),
            }
        }
    }
    assert!(refused > 2000, "{refused}");
}

/// How a handshake with `host` ends.
fn refused(tls: &Tls, server: ServerConfig) -> Error {
    let mut wire = Wire::new(tls, &Arc::new(server), true);
    let step = wire.pump();
    let error = wire.error(step);
    assert_eq!(error.phase, Phase::Tls, "{error}");
    assert!(error.message.contains("h.test") && !error.retryable(), "{error}");
    assert!(wire.conn.farewell().is_some(), "the peer is not told why");
    error
}

#[test]
fn refusals_name_host_reason_and_remedy() {
    let (ca, other) = (Ca::new("mine"), Ca::new("other"));
    let tls = ca.tls("h.test");
    let unknown = refused(&tls, other.server(&["h.test"], 4000, BOTH));
    assert!(unknown.message.contains("unknown issuer") && unknown.message.contains("tls.caFile"), "{unknown}");
    let expired = refused(&tls, ca.server(&["h.test"], 2020, BOTH));
    assert!(expired.message.contains("expired on Thu, 31 Dec 2020"), "{expired}");
    let renamed = refused(&tls, ca.server(&["other.test", "third.test"], 4000, ONLY_TLS12));
    assert!(renamed.message.contains("another name") && renamed.message.contains("other.test"), "{renamed}");
    for error in [unknown, expired, renamed] {
        assert_eq!((error.kind, error.blame()), (FailureKind::Tls, crate::error::Blame::Config));
    }
}

#[test]
fn alerts_and_strangers_in_the_handshake_are_named() {
    let ca = Ca::new("alert");
    let server = Arc::new(ca.server(&["h.test"], 4000, BOTH));
    for (bytes, expected) in [
        (&[21, 3, 3, 0, 2, 2, 40][..], "alert HandshakeFailure"),
        (&[21, 3, 3, 0, 2, 2, 112], "alert UnrecognisedName"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak TLS at this port"),
    ] {
        let mut wire = Wire::new(&ca.tls("h.test"), &server, true);
        let step = wire.feed(bytes);
        let error = wire.error(step);
        assert_eq!((error.kind, error.phase), (FailureKind::Tls, Phase::Tls), "{error}");
        assert!(error.message.contains(expected) && error.message.contains("h.test"), "{error}");
    }
}

#[test]
fn the_handshake_has_the_deadline_of_the_connect() {
    let ca = Ca::new("deadline");
    let server = Arc::new(ca.server(&["h.test"], 4000, BOTH));
    let mut wire = Wire::new(&ca.tls("h.test"), &server, true);
    assert!(wire.conn.is_connecting());
    assert_eq!(wire.conn.deadline(), Some(wire.now + Duration::from_millis(TIMEOUTS.connect_ms)));
    let step = wire.conn.tick(wire.now + Duration::from_millis(TIMEOUTS.connect_ms), Crowd::default());
    let error = wire.error(step);
    assert_eq!((error.kind, error.phase), (FailureKind::Timeout, Phase::Tls));
    assert!(error.message.contains("h.test did not end the TLS handshake within 1000 ms"), "{error}");
}

#[test]
fn the_cheapest_suite_comes_first() {
    let names = |aes| -> Vec<String> {
        provider(aes).cipher_suites.iter().map(|suite| suite.suite().as_str().unwrap_or_default().to_owned()).collect()
    };
    let with = names(true);
    assert!(with[0].contains("AES_128_GCM") && with.iter().all(|name| !name.contains("CHACHA20")), "{with:?}");
    assert!(with.iter().any(|name| name.starts_with("TLS13_AES_256")), "{with:?}");
    let without = names(false);
    assert!(without[0].contains("CHACHA20") && without.len() == with.len() + 3, "{without:?}");
}

#[test]
fn files_of_certificates_are_checked() {
    let ca = Ca::new("files");
    let text = |trust: Trust| Tls::new("h.test", &trust).expect_err("refused").to_string();
    let missing = text(trust(Path::new("/nonexistent/ca.pem")));
    assert!(missing.contains("SSL_CERT_FILE /nonexistent/ca.pem"), "{missing}");
    let empty = text(Trust { ca_file: Some("/dev/null".into()), ..ca.trust() });
    assert!(empty.contains("tls.caFile /dev/null: no certificate in it"), "{empty}");
    let relative = text(trust(Path::new("ca.pem")));
    assert!(relative.contains("SSL_CERT_FILE ca.pem: not an absolute path"), "{relative}");
    // One of the two variables is enough.
    let half = Trust { cert_dir: Some("/nonexistent".into()), ..ca.trust() };
    Tls::new("h.test", &half).expect("the file counts");
    let name = Tls::new("no host", &ca.trust()).expect_err("refused");
    assert_eq!((name.kind, name.phase), (FailureKind::Config, Phase::Tls));
    for host in ["127.0.0.1", "::1", "b.oss-cn-beijing.aliyuncs.com"] {
        Tls::new(host, &ca.trust()).expect(host);
    }
}

#[test]
fn a_ca_file_adds_to_the_roots() {
    let (first, second) = (Ca::new("first"), Ca::new("second"));
    let both = Trust { ca_file: Some(second.file.clone()), ..first.trust() };
    let tls = Tls::new("h.test", &both).expect("TLS");
    for ca in [&first, &second] {
        exchange(&tls, &Arc::new(ca.server(&["h.test"], 4000, BOTH)), usize::MAX, usize::MAX);
    }
}
