//! https over loopback sockets, each test on both drivers: sizes, resumption, refusals, and streams
//! that are cut.

use std::io::ErrorKind;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::tls::Handshakes;
use crate::tls::tests::{BOTH, Ca, ONLY_TLS12};

type Secure = StreamOwned<ServerConnection, TcpStream>;

/// Like `serve`, through TLS; `at` is an address with port 0.
pub(super) fn serve_tls(
    at: &str,
    config: ServerConfig,
    answer: impl Fn(&Seen, &mut Secure) -> bool + Send + Sync + 'static,
) -> Server {
    let listener = TcpListener::bind(at).expect("listen");
    let address = listener.local_addr().expect("address");
    let connections = Arc::new(AtomicUsize::new(0));
    let (count, answer, config) = (Arc::clone(&connections), Arc::new(answer), Arc::new(config));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = count.fetch_add(1, Ordering::SeqCst);
            let (answer, config) = (Arc::clone(&answer), Arc::clone(&config));
            std::thread::spawn(move || {
                let tls = ServerConnection::new(config).expect("server");
                converse(&mut StreamOwned::new(tls, stream), connection, &*answer);
            });
        }
    });
    Server { address, connections }
}

fn secure(tls: &Tls, addresses: Vec<SocketAddr>) -> Origin {
    Origin { tls: Some(tls.clone()), ..origin(addresses) }
}

pub(super) fn rig(driver: DriverChoice, tls: &Tls, server: &Server, workers: usize) -> Rig {
    Rig::of(driver, secure(tls, vec![server.address]), (workers, 1), PATIENT)
}

#[test]
fn parts_of_8_mib_over_kept_connections() {
    on_both(|driver| {
        for versions in [BOTH, ONLY_TLS12] {
            let ca = Ca::new("parts");
            let server = serve_tls("127.0.0.1:0", ca.server(&["127.0.0.1"], 4000, versions), good);
            let tls = ca.tls("127.0.0.1");
            let rig = rig(driver, &tls, &server, 1);
            for part in 0..3 {
                let range = part * (8 << 20) + 17..(part + 1) * (8 << 20) + 17;
                let (done, bytes) = rig.range(range.clone());
                let response = done.result.expect("response");
                assert!(bytes == content(range), "wrong bytes");
                assert_eq!((response.bytes, response.crc64_body), (8 << 20, Some(crc::of(&bytes))));
            }
            assert_eq!(server.connections.load(Ordering::SeqCst), 1, "the connection is kept");
            assert_eq!(tls.handshakes(), Handshakes { full: 1, resumed: 0 });
        }
    });
}

#[test]
fn later_connections_resume_the_session_of_the_first() {
    on_both(|driver| {
        for versions in [BOTH, ONLY_TLS12] {
            let ca = Ca::new("resume");
            // Each connection serves one request, so each request needs a handshake.
            let server = serve_tls("127.0.0.1:0", ca.server(&["127.0.0.1"], 4000, versions), |seen, stream| {
                good(seen, stream);
                stream.conn.send_close_notify();
                drop(stream.flush());
                false
            });
            let tls = ca.tls("127.0.0.1");
            let rig = rig(driver, &tls, &server, 1);
            for part in 0..6_u64 {
                assert!(rig.range(part * 1000..part * 1000 + 900).1 == content(part * 1000..part * 1000 + 900));
            }
            let Handshakes { full, resumed } = tls.handshakes();
            assert_eq!(full, 1, "{resumed} resumed");
            assert!(resumed >= 5, "{resumed} resumed");
        }
    });
}

#[test]
fn many_ranges_at_once_are_all_right() {
    on_both(|driver| {
        let ca = Ca::new("many");
        let server = serve_tls("127.0.0.1:0", ca.server(&["127.0.0.1"], 4000, BOTH), good);
        let tls = ca.tls("127.0.0.1");
        let rig = rig(driver, &tls, &server, 8);
        let ranges: Vec<Range<u64>> = (0..60).map(|i| i * 70_001..i * 70_001 + 1 + (i * 79_193) % 900_000).collect();
        let mut memory: Vec<Guarded> = ranges.iter().map(|r| Guarded::new((r.end - r.start) as usize)).collect();
        for (token, (range, memory)) in ranges.iter().zip(&mut memory).enumerate() {
            rig.push(get(token as u64, range.clone(), memory));
        }
        for _ in &ranges {
            assert!(rig.next().result.is_ok());
        }
        for (range, memory) in ranges.iter().zip(memory) {
            assert!(memory.into_bytes() == content(range.clone()), "{range:?}");
        }
        assert!(server.connections.load(Ordering::SeqCst) <= 8);
    });
}

#[test]
fn an_ipv6_literal_is_connected_to_and_verified() {
    if TcpListener::bind("[::1]:0").is_err_and(|os| os.kind() == ErrorKind::AddrNotAvailable) {
        eprintln!("not run: this machine has no ::1");
        return;
    }
    on_both(|driver| {
        let ca = Ca::new("v6");
        let server = serve_tls("[::1]:0", ca.server(&["::1"], 4000, BOTH), |seen, stream| {
            assert!(seen.header("host").is_some_and(|host| host.starts_with("[::1]:")), "{}", seen.head);
            good(seen, stream)
        });
        let mut origin = secure(&ca.tls("::1"), vec![server.address]);
        origin.host_header = format!("[::1]:{}", server.address.port());
        let rig = Rig::of(driver, origin, (1, 1), PATIENT);
        assert!(rig.range(5..70_000).1 == content(5..70_000));
    });
}

#[test]
fn certificates_that_do_not_fit_are_refused_at_once() {
    on_both(|driver| {
        let (ca, other) = (Ca::new("fits"), Ca::new("foreign"));
        for (config, words) in [
            (other.server(&["127.0.0.1"], 4000, BOTH), "unknown issuer"),
            (ca.server(&["other.test"], 4000, BOTH), "another name (DnsName(\"other.test\"))"),
            (ca.server(&["127.0.0.1"], 2020, BOTH), "expired on Thu, 31 Dec 2020"),
        ] {
            let server = serve_tls("127.0.0.1:0", config, good);
            let rig = rig(driver, &ca.tls("127.0.0.1"), &server, 1);
            let (done, bytes) = rig.range(0..4096);
            let error = done.result.expect_err("refused");
            assert_eq!((error.kind, error.phase, done.retry_hint), (FailureKind::Tls, Phase::Tls, Hint::No), "{error}");
            assert!(error.message.contains(words) && error.message.contains("127.0.0.1"), "{error}");
            assert!(bytes.iter().all(|byte| *byte == 0xA5), "bytes before the certificate was checked");
        }
    });
}

#[test]
fn plain_http_behind_an_https_endpoint_is_named() {
    on_both(|driver| {
        let ca = Ca::new("plain");
        // It answers whatever comes, as a web server on the wrong port does.
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("address");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
                drop(stream.read(&mut [0; 4096]));
            }
        });
        let rig = Rig::of(driver, secure(&ca.tls("127.0.0.1"), vec![address]), (1, 1), PATIENT);
        let error = rig.range(0..10).0.result.expect_err("no TLS");
        assert_eq!((error.kind, error.phase), (FailureKind::Tls, Phase::Tls), "{error}");
        assert!(error.message.contains("does not speak TLS at this port"), "{error}");
    });
}

#[test]
fn tls_behind_an_http_endpoint_is_named() {
    on_both(|driver| {
        // What a TLS server says to a request in plain text: a fatal alert, here a record of the wrong version.
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("address");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                drop(stream.read(&mut [0; 4096]));
                drop(stream.write_all(&[21, 3, 3, 0, 2, 2, 70]));
            }
        });
        let rig = Rig::of(driver, origin(vec![address]), (1, 1), PATIENT);
        let error = rig.range(0..10).0.result.expect_err("no HTTP");
        assert_eq!((error.kind, error.phase), (FailureKind::Tls, Phase::Head), "{error}");
        assert!(error.message.contains("write https:// in OSS_ENDPOINT"), "{error}");
    });
}

/// How a server ends a connection in the middle of an answer.
#[derive(Clone, Copy, Debug)]
enum End {
    Cut,
    CloseNotify,
    Alert,
}

#[test]
fn a_stream_that_ends_early_is_an_error_that_may_be_retried() {
    on_both(|driver| {
        for end in [End::Cut, End::CloseNotify, End::Alert] {
            let ca = Ca::new("early-end");
            let server = serve_tls("127.0.0.1:0", ca.server(&["127.0.0.1"], 4000, BOTH), move |seen, stream| {
                let range = seen.range().expect("range");
                write_part(stream, range.clone(), range.start..range.start + 100_000);
                match end {
                    End::Cut => {}
                    End::CloseNotify => stream.conn.send_close_notify(),
                    // A record that this session did not seal: the peer is not who it was.
                    End::Alert => drop(stream.sock.write_all(&[21, 3, 3, 0, 2, 2, 80])),
                }
                drop(stream.flush());
                false
            });
            let rig = rig(driver, &ca.tls("127.0.0.1"), &server, 1);
            let (done, _) = rig.range(0..1 << 20);
            let error = done.result.expect_err("short");
            assert_eq!((error.kind, error.phase), (FailureKind::Network, Phase::Body), "{end:?}: {error}");
            assert_eq!(done.retry_hint, Hint::Backoff, "{end:?}");
            match end {
                End::Cut => assert!(error.message.contains("without close_notify after 100000"), "{error}"),
                End::CloseNotify => assert!(error.message.contains("closed after 100000"), "{error}"),
                End::Alert => assert!(error.message.contains("127.0.0.1"), "{error}"),
            }
        }
    });
}

/// Takes connections and does `what` with each.
fn listen(what: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || listener.incoming().flatten().for_each(what));
    address
}

#[test]
fn a_silent_handshake_ends_with_the_deadline_and_another_address_is_tried() {
    on_both(|driver| {
        let ca = Ca::new("silent");
        let tls = ca.tls("127.0.0.1");
        let held = Mutex::new(Vec::new());
        let silent = listen(move |stream| held.lock().expect("streams").push(stream));
        let timeouts = Timeouts { connect_ms: 600, ..PATIENT };
        let alone = Rig::of(driver, secure(&tls, vec![silent]), (1, 1), timeouts);
        let begun = Instant::now();
        let error = alone.range(0..10).0.result.expect_err("silence");
        assert_eq!((error.kind, error.phase), (FailureKind::Timeout, Phase::Tls), "{error}");
        assert!(begun.elapsed() >= Duration::from_millis(600) && begun.elapsed() < Duration::from_secs(5));
        let server = serve_tls("127.0.0.1:0", ca.server(&["127.0.0.1"], 4000, BOTH), good);
        let both = Rig::of(driver, secure(&tls, vec![silent, server.address]), (1, 1), timeouts);
        for part in 0..4 {
            assert!(both.range(part * 10..part * 10 + 10).1 == content(part * 10..part * 10 + 10));
        }
    });
}

#[test]
fn a_peer_that_closes_in_the_handshake_is_a_network_error_in_phase_tls() {
    on_both(|driver| {
        let ca = Ca::new("hangup");
        let closing = listen(|mut stream| drop(stream.read(&mut [0; 64])));
        let rig = Rig::of(driver, secure(&ca.tls("127.0.0.1"), vec![closing]), (1, 1), PATIENT);
        let error = rig.range(0..10).0.result.expect_err("closed");
        assert_eq!((error.kind, error.phase), (FailureKind::Network, Phase::Tls), "{error}");
        assert!(error.message.contains("TLS handshake with 127.0.0.1 at 127.0.0.1:"), "{error}");
    });
}

#[test]
fn a_stall_inside_a_body_ends_with_the_stall_deadline() {
    on_both(|driver| {
        let ca = Ca::new("stall");
        let server = serve_tls("127.0.0.1:0", ca.server(&["127.0.0.1"], 4000, BOTH), |seen, stream| {
            let range = seen.range().expect("range");
            write_part(stream, range.clone(), range.start..range.start + 5000);
            std::thread::sleep(Duration::from_secs(5));
            false
        });
        let rig = Rig::of(driver, secure(&ca.tls("127.0.0.1"), vec![server.address]), (1, 1), IMPATIENT);
        let error = rig.range(0..1 << 20).0.result.expect_err("a stall");
        assert_eq!((error.kind, error.phase), (FailureKind::Timeout, Phase::Body), "{error}");
        assert!(error.message.contains("after 5000 bytes"), "{error}");
    });
}

#[test]
fn slow_pieces_below_the_receive_mark_are_seen() {
    on_both(|driver| {
        let ca = Ca::new("slow");
        let server = serve_tls("127.0.0.1:0", ca.server(&["127.0.0.1"], 4000, BOTH), |seen, stream| {
            let range = seen.range().expect("range");
            write_part(stream, range.clone(), range.start..range.start);
            for at in (range.start..range.end).step_by(20_000) {
                std::thread::sleep(Duration::from_millis(150));
                drop(stream.write_all(&content(at..range.end.min(at + 20_000))));
            }
            true
        });
        let rig = Rig::of(driver, secure(&ca.tls("127.0.0.1"), vec![server.address]), (1, 1), IMPATIENT);
        let (done, bytes) = rig.range(0..200_000);
        assert!(done.result.is_ok(), "{:?}", done.result);
        assert!(bytes == content(0..200_000));
    });
}
