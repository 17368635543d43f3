//! Each fault kind, seen through a raw socket, and in the log.

mod rig;

use rig::{Client, Rig, noise};
use std::fs;
use std::time::{Duration, Instant};

const SIZE: usize = 300_000;

fn rig() -> (Rig, Vec<u8>) {
    let (rig, bytes) = (Rig::new(), noise(SIZE));
    rig.put("k", &bytes);
    (rig, bytes)
}

#[test]
fn status_and_code() {
    let (rig, bytes) = rig();
    let rules = r#"[{"match":{"kind":"get","nth":1},"do":{"status":503,"code":"ServiceUnavailable"}},
        {"match":{"kind":"head"},"do":{"status":403,"code":"AccessDenied"}},
        {"match":{"kind":"list"},"do":{"status":500,"code":"InternalError"}}]"#;
    let endpoint = rig.start_with(rules);
    let mut client = Client::to(endpoint.addr());
    let got = client.get("/b/k", &[("Range", "bytes=10-19")]);
    assert_eq!((got.status, got.element("Code").as_str()), (503, "ServiceUnavailable"));
    assert_eq!(got.element("RequestId"), got.header("x-oss-request-id").unwrap());
    assert!(got.header("x-oss-ec").is_some());
    assert_eq!(client.get("/b/k", &[]).body, bytes);
    let got = client.round_trip("HEAD", "/b/k", &[]);
    assert_eq!(got.status, 403);
    assert!(got.header("x-oss-err").is_some());
    assert_eq!(client.get("/b/?list-type=2", &[]).status, 500);
    let log = rig.log(4);
    assert_eq!((&log[0]["status"], &log[0]["code"]), (&503.into(), &"ServiceUnavailable".into()));
    assert_eq!(log[0]["range"], serde_json::json!([10, 20]));
    assert_eq!(log[1]["code"], serde_json::Value::Null);
}

#[test]
fn a_listing_that_loops() {
    let (rig, _) = rig();
    let endpoint = rig.start_with(r#"[{"match":{"kind":"list"},"do":{"loop_list":true}}]"#);
    let mut client = Client::to(endpoint.addr());
    let mut token = String::new();
    for _ in 0..3 {
        let got = client.get(&format!("/b/?list-type=2{token}"), &[]);
        assert_eq!((got.element("Key").as_str(), got.element("IsTruncated").as_str()), ("k", "true"));
        token = format!("&continuation-token={}", got.element("NextContinuationToken"));
    }
}

#[test]
fn documents_that_are_changed() {
    let (rig, _) = rig();
    let rules = r#"[{"match":{"kind":"list","nth":1},"do":{"replace":["<IsTruncated>false</IsTruncated>","<Odd/>"]}},
        {"match":{"kind":"list","nth":2},"do":{"page":"<html>log in</html>"}}]"#;
    let endpoint = rig.start_with(rules);
    let mut client = Client::to(endpoint.addr());
    let text = |got: rig::Got| String::from_utf8(got.body).unwrap();
    let got = text(client.get("/b/?list-type=2", &[]));
    assert!(got.contains("<Odd/>") && got.contains("<Key>k</Key>") && !got.contains("IsTruncated"), "{got}");
    let got = client.get("/b/?list-type=2", &[]);
    assert_eq!((got.status, got.header("Content-Type")), (200, Some("text/html")));
    assert_eq!(text(got), "<html>log in</html>");
    assert!(text(client.get("/b/?list-type=2", &[])).contains("<IsTruncated>false</IsTruncated>"));
}

#[test]
fn heads_that_are_changed() {
    let (rig, bytes) = rig();
    let rules = r#"[{"match":{"nth":1},"do":{"headers":60}},{"match":{"nth":2},"do":{"total":77}},
        {"match":{"nth":3},"do":{"interim":2,"interim_ms":100}},{"match":{"nth":4},"do":{"surplus":"more"}}]"#;
    let endpoint = rig.start_with(rules);
    let mut client = Client::to(endpoint.addr());
    let range = [("Range", "bytes=10-19")];
    let got = client.get("/b/k", &range);
    assert_eq!((got.headers.iter().filter(|(name, _)| name == "x-oss-meta-some").count(), got.status), (60, 206));
    assert_eq!(client.get("/b/k", &range).header("Content-Range"), Some("bytes 10-19/77"));
    let started = Instant::now();
    client.send("GET", "/b/k", &range);
    assert_eq!((client.head().unwrap().status, client.head().unwrap().status), (100, 100));
    let mut got = client.head().unwrap();
    assert_eq!(got.status, 206);
    client.body(&mut got);
    assert!(got.body == bytes[10..20] && started.elapsed() >= Duration::from_millis(200));
    assert_eq!(client.get("/b/k", &range).body, bytes[10..20]);
    let mut rest = [0; 4];
    std::io::Read::read_exact(&mut client.0, &mut rest).unwrap();
    assert_eq!(&rest, b"more");
}

#[test]
fn cut_after() {
    let (rig, bytes) = rig();
    let endpoint =
        rig.start_with(r#"[{"match":{"nth":1},"do":{"cut_after":1000}},{"match":{"nth":2},"do":{"cut_after":0}}]"#);
    let mut client = Client::to(endpoint.addr());
    let got = client.get("/b/k", &[]);
    assert_eq!(got.header("Content-Length"), Some(&*SIZE.to_string()));
    assert_eq!(got.body, bytes[..1000]);
    let got = Client::to(endpoint.addr()).get("/b/k", &[]);
    assert_eq!((got.status, got.body.len()), (200, 0));
    assert_eq!(Client::to(endpoint.addr()).get("/b/k", &[]).body, bytes);
    let log = rig.log(3);
    assert_eq!(
        (&log[0]["bytes_sent"], &log[0]["cut"], &log[0]["status"]),
        (&1000.into(), &"fault".into(), &200.into())
    );
    assert_eq!(log[1]["bytes_sent"], 0);
    assert_eq!(log[2]["bytes_sent"], SIZE);
}

#[test]
fn stall_after() {
    let (rig, bytes) = rig();
    let endpoint = rig.start_with(r#"[{"do":{"stall_after":5000,"ms":1500}}]"#);
    let mut client = Client::to(endpoint.addr());
    let started = Instant::now();
    client.send("GET", "/b/k", &[]);
    let mut got = client.head().unwrap();
    let mut first = vec![0; 5000];
    std::io::Read::read_exact(&mut client.0, &mut first).unwrap();
    assert!(started.elapsed() < Duration::from_millis(1490), "{:?}", started.elapsed());
    assert_eq!(first, bytes[..5000]);
    let mut rest = [0];
    std::io::Read::read_exact(&mut client.0, &mut rest).unwrap();
    assert!(started.elapsed() >= Duration::from_millis(1500), "{:?}", started.elapsed());
    got.headers = vec![("Content-Length".into(), (SIZE - 5001).to_string())];
    client.body(&mut got);
    assert_eq!(got.body, bytes[5001..]);
}

#[test]
fn delay_ms() {
    let (rig, bytes) = rig();
    let endpoint = rig.start_with(r#"[{"times":1,"do":{"delay_ms":300}}]"#);
    let mut client = Client::to(endpoint.addr());
    let started = Instant::now();
    assert_eq!(client.get("/b/k", &[]).body, bytes);
    assert!(started.elapsed() >= Duration::from_millis(300));
    let started = Instant::now();
    assert_eq!(client.get("/b/k", &[]).body, bytes);
    assert!(started.elapsed() < Duration::from_millis(290));
}

#[test]
fn flip_object_byte() {
    let (rig, bytes) = rig();
    let endpoint = rig.start_with(r#"[{"match":{"covers":260},"times":1,"do":{"flip_object_byte":260}}]"#);
    let mut client = Client::to(endpoint.addr());
    let mut flipped = bytes[250..300].to_vec();
    flipped[10] = !flipped[10];
    assert_eq!(client.get("/b/k", &[("Range", "bytes=200-249")]).body, bytes[200..250]);
    assert_eq!(client.get("/b/k", &[("Range", "bytes=250-299")]).body, flipped);
    assert_eq!(client.get("/b/k", &[("Range", "bytes=250-299")]).body, bytes[250..300]);
}

#[test]
fn flip_byte() {
    let (rig, bytes) = rig();
    let endpoint = rig.start_with(r#"[{"match":{"nth":1},"do":{"flip_byte":0}},{"match":{"nth":2},"do":{"flip_byte":99}},{"match":{"nth":3},"do":{"flip_byte":100}}]"#);
    let mut client = Client::to(endpoint.addr());
    for at in [0, 99] {
        let got = client.get("/b/k", &[("Range", "bytes=200-299")]);
        let mut expected = bytes[200..300].to_vec();
        expected[at] = !expected[at];
        assert_eq!(got.body, expected);
    }
    // Beyond the body: nothing to flip.
    assert_eq!(client.get("/b/k", &[("Range", "bytes=200-299")]).body, bytes[200..300]);
}

#[test]
fn ignore_range() {
    let (rig, bytes) = rig();
    let endpoint = rig.start_with(r#"[{"do":{"ignore_range":true}}]"#);
    let range = [("Range", "bytes=5-9"), ("x-oss-range-behavior", "standard")];
    let got = Client::to(endpoint.addr()).get("/b/k", &range);
    assert_eq!((got.status, got.header("Content-Range"), got.body == bytes), (200, None, true));
    assert_eq!(rig.log(1)[0]["range"], serde_json::Value::Null);
}

#[test]
fn wrong_content_range() {
    let (rig, bytes) = rig();
    let endpoint = rig.start_with(r#"[{"do":{"wrong_content_range":true}}]"#);
    let got = Client::to(endpoint.addr()).get("/b/k", &[("Range", "bytes=5-9")]);
    assert_eq!((got.status, got.header("Content-Range")), (206, Some(&*format!("bytes 6-10/{SIZE}"))));
    assert_eq!(got.body, bytes[5..10]);
    assert_eq!(rig.log(1)[0]["range"], serde_json::json!([5, 10]));
}

#[test]
fn another_total() {
    let (rig, bytes) = rig();
    let endpoint = rig.start_with(r#"[{"do":{"total":77}}]"#);
    let mut client = Client::to(endpoint.addr());
    let got = client.get("/b/k", &[("Range", "bytes=5-9")]);
    assert_eq!((got.status, got.header("Content-Range")), (206, Some("bytes 5-9/77")));
    assert_eq!(got.body, bytes[5..10]);
    assert_eq!(client.get("/b/k", &[]).header("Content-Range"), None);
}

#[test]
fn etag_and_crc() {
    let (rig, bytes) = rig();
    let rules = r#"[{"match":{"nth":2},"do":{"etag":"x"}},{"match":{"nth":3},"do":{"drop_crc":true}},{"match":{"nth":4},"do":{"bad_crc":true}}]"#;
    let endpoint = rig.start_with(rules);
    let mut client = Client::to(endpoint.addr());
    let all: Vec<_> = (0..4).map(|_| client.get("/b/k", &[])).collect();
    let crc = rig::crc64(&bytes).to_string();
    assert_eq!(all[0].header("x-oss-hash-crc64ecma"), Some(&*crc));
    assert_eq!(all[1].header("ETag"), Some("\"x\""));
    assert_ne!(all[0].header("ETag"), all[1].header("ETag"));
    assert_eq!(all[2].header("x-oss-hash-crc64ecma"), None);
    let bad: u64 = all[3].header("x-oss-hash-crc64ecma").unwrap().parse().unwrap();
    assert_ne!(bad.to_string(), crc);
    assert!(all.iter().all(|got| got.body == bytes));
}

#[test]
fn close_and_garbage() {
    let (rig, bytes) = rig();
    let endpoint =
        rig.start_with(r#"[{"match":{"nth":1},"do":{"close":true}},{"match":{"nth":2},"do":{"garbage":true}}]"#);
    let mut client = Client::to(endpoint.addr());
    client.send("GET", "/b/k", &[]);
    assert_eq!(client.rest(), b"");
    let mut client = Client::to(endpoint.addr());
    client.send("GET", "/b/k", &[]);
    let garbage = client.rest();
    assert!(!garbage.is_empty() && !garbage.starts_with(b"HTTP/"));
    assert_eq!(Client::to(endpoint.addr()).get("/b/k", &[]).body, bytes);
    let log = rig.log(3);
    for line in &log[..2] {
        assert_eq!((&line["status"], &line["cut"], &line["bytes_sent"]), (&0.into(), &"fault".into(), &0.into()));
    }
}

#[test]
fn faults_of_a_listing() {
    let (rig, _) = rig();
    let endpoint = rig.start_with(r#"[{"match":{"kind":"list","nth":1},"do":{"cut_after":60}},{"match":{"kind":"list","nth":2},"do":{"flip_byte":0}}]"#);
    assert_eq!(Client::to(endpoint.addr()).get("/b/?list-type=2", &[]).body.len(), 60);
    let got = Client::to(endpoint.addr()).get("/b/?list-type=2", &[]);
    assert_eq!(got.body[0], !b'<');
}

#[test]
fn rules_are_read_again() {
    let (rig, bytes) = rig();
    let endpoint = rig.start_with("[]");
    let mut client = Client::to(endpoint.addr());
    let status = |client: &mut Client| client.get("/b/k", &[]).status;
    assert_eq!(status(&mut client), 200);
    let replace = |text: &str| {
        fs::write(rig.path("new"), text).unwrap();
        fs::rename(rig.path("new"), rig.path("faults")).unwrap();
    };
    replace(r#"[{"do":{"status":503,"code":"ServiceUnavailable"}}]"#);
    assert_eq!(status(&mut client), 503);
    // Broken rules: the earlier ones stay.
    replace("[{");
    assert_eq!(status(&mut client), 503);
    replace(r#"[{"times":1,"do":{"status":429,"code":"Busy"}}]"#);
    assert_eq!((status(&mut client), status(&mut client)), (429, 200));
    fs::remove_file(rig.path("faults")).unwrap();
    assert_eq!(client.get("/b/k", &[]).body, bytes);
}

#[test]
fn broken_rules_prevent_the_start() {
    let (rig, _) = rig();
    fs::write(rig.path("faults"), r#"[{"do":{"status":503}}]"#).unwrap();
    let config = oss_endpoint::Config { faults: Some(rig.path("faults")), ..rig.config() };
    let error = oss_endpoint::Endpoint::start(&config).err().unwrap().to_string();
    assert!(error.contains("rule 1") && error.contains("\"code\""), "{error}");
}

#[test]
fn every_documented_example_works() {
    let examples: Vec<&str> =
        include_str!("FAULTS.md").split("```json\n").skip(1).map(|p| p.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 14, "{}", examples.len());
    let (rig, _) = rig();
    for example in examples {
        rig.start_with(example).stop();
    }
}

#[test]
fn each_connection_has_its_own_rate() {
    let (rig, bytes) = rig();
    let rules = r#"[{"match":{"kind":"get","share":0.3,"seed":5},"do":{"delay_ms":200,"conn_bytes_per_sec":300000}},
        {"match":{"kind":"get"},"do":{"conn_bytes_per_sec":3000000}}]"#;
    let endpoint = rig.start_with(rules);
    let begin = Instant::now();
    let times: Vec<Duration> = std::thread::scope(|scope| {
        let one = || {
            let begin = Instant::now();
            assert_eq!(Client::to(endpoint.addr()).get("/b/k", &[]).body, bytes);
            begin.elapsed()
        };
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // One after the other they would take 0.1 s and 1.2 s each.
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    let slow = times.iter().filter(|time| **time >= Duration::from_millis(1200)).count();
    assert!(times.iter().all(|time| *time >= Duration::from_millis(100)), "{times:?}");
    assert!((2..=10).contains(&slow), "{times:?}");
}

#[test]
fn the_shapes_that_come_along_can_be_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shapes");
    let mut count = 0;
    for file in fs::read_dir(folder).unwrap() {
        let (rig, bytes) = rig();
        let endpoint = rig.start_with(&fs::read_to_string(file.unwrap().path()).unwrap());
        let begin = Instant::now();
        assert_eq!(Client::to(endpoint.addr()).get("/b/k", &[]).body, bytes);
        // 300,000 bytes at 8 MB/s, 20 ms after the request.
        assert!(begin.elapsed() >= Duration::from_millis(57), "{:?}", begin.elapsed());
        count += 1;
    }
    assert_eq!(count, 2);
}

#[test]
fn busy_above_refuses_what_is_too_much_at_a_time() {
    let (rig, bytes) = rig();
    let endpoint = rig.start_with(r#"[{"match":{"kind":"get"},"do":{"busy_above":2,"delay_ms":600}}]"#);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| Client::to(endpoint.addr()).get("/b/k", &[]).status)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 2, "{statuses:?}");
    assert_eq!(Client::to(endpoint.addr()).get("/b/k", &[]).body, bytes);
}
