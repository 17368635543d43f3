//! Nodes behind one name that are bad in one layer or another, connections that rest and lead nowhere by then, and bytes
//! that are left in a socket.

use super::tls::serve_tls;
use super::*;
use crate::tls::tests::{BOTH, Ca};

/// How many of so many requests, one after the other, fail.
fn failures(rig: &Rig, requests: u64) -> usize {
    let failed = |part: u64| {
        let (done, bytes) = rig.range(part * 4096..(part + 1) * 4096);
        done.result.is_err() || bytes != content(part * 4096..(part + 1) * 4096)
    };
    (0..requests).filter(|part| failed(*part)).count()
}

/// One request on each connection.
fn once(seen: &Seen, stream: &mut TcpStream) -> bool {
    let range = seen.range().expect("range");
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nConnection: close\r\nContent-Length: {}\r\nContent-Range: bytes {}-{}/{SIZE}\r\n\r\n",
        range.end - range.start,
        range.start,
        range.end - 1
    );
    drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content(range))));
    false
}

#[test]
fn a_node_that_fails_behind_its_connect_is_avoided() {
    on_both(|driver| {
        for answer in ["", "garbage that is not HTTP\r\n\r\n", "HTTP/1.1 206 OK\r\nContent-Length: 4096\r\n\r\n"] {
            let bad = serve(move |_, stream| {
                drop(stream.write_all(answer.as_bytes()));
                false
            });
            let good = serve(once);
            let rig = Rig::new(driver, vec![bad.address, good.address], 1, 1);
            assert!(failures(&rig, 8) <= 1, "{answer:?}");
            assert!(bad.connections.load(Ordering::SeqCst) <= 1, "{answer:?}");
        }
    });
}

#[test]
fn a_node_whose_tls_is_bad_costs_no_request() {
    on_both(|driver| {
        let (ca, other) = (Ca::new("good"), Ca::new("bad"));
        let tls = ca.tls("127.0.0.1");
        let answer = |seen: &Seen, stream: &mut _| {
            good(seen, stream);
            false
        };
        let node = serve_tls("127.0.0.1:0", ca.server(&["127.0.0.1"], 4000, BOTH), answer);
        let untrusted = serve_tls("127.0.0.1:0", other.server(&["127.0.0.1"], 4000, BOTH), answer);
        let plain = serve(|_, _| false);
        for bad in [&untrusted, &plain] {
            let origin = Origin { tls: Some(tls.clone()), ..origin(vec![bad.address, node.address]) };
            let rig = Rig::of(driver, origin, (1, 1), PATIENT);
            assert_eq!(failures(&rig, 6), 0);
        }
    });
}

#[test]
fn idle_connections_are_distrusted_together() {
    on_both(|driver| {
        let server = serve(|seen, stream| {
            if seen.nth > 0 && seen.connection < 4 {
                // The way to here is lost.
                std::thread::sleep(Duration::from_secs(60));
                return false;
            }
            std::thread::sleep(Duration::from_millis(100));
            good(seen, stream)
        });
        let timeouts = Timeouts { connect_ms: 700, response_ms: 1400, ..PATIENT };
        let rig = Rig::with(driver, vec![server.address], (4, 1), timeouts);
        let mut memory: Vec<Guarded> = (0..4).map(|_| Guarded::new(4096)).collect();
        for (token, memory) in (0..).zip(&mut memory) {
            rig.push(get(token, 0..4096, memory));
        }
        (0..4).for_each(|_| assert!(rig.next().result.is_ok()));
        assert_eq!(server.connections.load(Ordering::SeqCst), 4);
        std::thread::sleep(Duration::from_millis(1100));
        let begun = Instant::now();
        assert_eq!(failures(&rig, 4), 0);
        assert!(begun.elapsed() < Duration::from_secs(3), "one after the other: {:?}", begun.elapsed());
    });
}

#[test]
fn what_is_left_in_a_socket_answers_no_other_request() {
    on_both(|driver| {
        let server = serve(|seen, stream| {
            let range = seen.range().expect("range");
            let mut answer = Vec::new();
            write_part(&mut answer, range.clone(), range.clone());
            if seen.connection == 0 {
                // Bytes 0..4096 are said to be those of the next request.
                write_part(&mut answer, 4096..8192, 0..4096);
            }
            drop(stream.write_all(&answer));
            true
        });
        for _ in 0..5 {
            let rig = Rig::new(driver, vec![server.address], 1, 1);
            server.connections.store(0, Ordering::SeqCst);
            let mut memory = [Guarded::new(4096), Guarded::new(4096)];
            for (token, memory) in (0..).zip(&mut memory) {
                rig.push(get(token, token * 4096..(token + 1) * 4096, memory));
            }
            (0..2).for_each(|_| assert!(rig.next().result.is_ok()));
            for (at, memory) in (0..).zip(memory) {
                assert!(memory.into_bytes() == content(at * 4096..(at + 1) * 4096), "request {at} got other bytes");
            }
        }
    });
}
