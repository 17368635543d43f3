//! Objects, log and shaping over real loopback sockets.

mod rig;

use base64::Engine as _;
use oss_endpoint::{Config, Endpoint};
use rig::{Client, Got, Rig, crc64, noise};
use serde_json::{Value, json};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

const STANDARD: (&str, &str) = ("x-oss-range-behavior", "standard");

#[test]
fn object_heads() {
    let (rig, bytes) = (Rig::new(), noise(1000));
    rig.put("dir/k", &bytes);
    let endpoint = rig.start();
    let mut client = Client::to(endpoint.addr());
    let whole = client.get("/b/dir/k", &[]);
    assert_eq!((whole.status, &whole.body), (200, &bytes));
    let crc = crc64(&bytes).to_string();
    for (name, value) in [
        ("Server", "AliyunOSS"),
        ("Connection", "keep-alive"),
        ("Accept-Ranges", "bytes"),
        ("x-oss-object-type", "Normal"),
        ("x-oss-storage-class", "Standard"),
        ("x-oss-hash-crc64ecma", &crc),
        ("ETag", &format!("\"{:X}\"", md5::compute(&bytes))),
    ] {
        assert_eq!(whole.header(name), Some(value), "{name}");
    }
    for name in ["Date", "Last-Modified", "x-oss-server-time"] {
        assert!(whole.header(name).is_some(), "{name}");
    }
    let head = client.round_trip("HEAD", "/b/dir/k", &[("Range", "bytes=0-1")]);
    assert_eq!((head.status, head.header("Content-Length")), (200, Some("1000")));
    assert_eq!(head.header("ETag"), whole.header("ETag"));
}

#[test]
fn ranges() {
    let (rig, bytes) = (Rig::new(), noise(1000));
    rig.put("dir/k", &bytes);
    rig.put("empty", b"");
    let endpoint = rig.start();
    let mut client = Client::to(endpoint.addr());
    let crc = crc64(&bytes).to_string();
    let rows: [(&str, Option<&str>, Option<&str>); 7] = [
        ("bytes=0-499", Some("bytes 0-499/1000"), Some("bytes 0-499/1000")),
        ("bytes=500-2000", None, Some("bytes 500-999/1000")),
        ("bytes=1000-", None, Some("416")),
        ("bytes=1000-2000", None, Some("416")),
        ("bytes=-2000", None, Some("bytes 0-999/1000")),
        ("bytes=-10", Some("bytes 990-999/1000"), Some("bytes 990-999/1000")),
        ("byte=0-1", None, None),
    ];
    for (range, plain, standard) in rows {
        check_range(&client.get("/b/dir/k", &[("Range", range)]), plain, &bytes, &crc);
        check_range(&client.get("/b/dir/k", &[("Range", range), STANDARD]), standard, &bytes, &crc);
    }
    assert_eq!(client.get("/b/empty", &[("Range", "bytes=0-0"), STANDARD]).status, 416);
    let empty = client.get("/b/empty", &[("Range", "bytes=0-0")]);
    assert_eq!((empty.status, empty.header("x-oss-hash-crc64ecma")), (200, Some("0")));
}

fn check_range(got: &Got, expected: Option<&str>, bytes: &[u8], crc: &str) {
    match expected {
        Some("416") => assert_eq!((got.status, got.element("Code").as_str()), (416, "InvalidRange")),
        Some(text) => {
            assert_eq!((got.status, got.header("Content-Range")), (206, Some(text)));
            let (first, last) = text["bytes ".len()..].split('/').next().unwrap().split_once('-').unwrap();
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            assert_eq!(got.body, bytes[first..=last]);
            assert_eq!(got.header("x-oss-hash-crc64ecma"), Some(crc), "CRC of the whole object");
        }
        None => assert_eq!((got.status, got.header("Content-Range"), got.body == bytes), (200, None, true)),
    }
}

#[test]
fn conditions() {
    let rig = Rig::new();
    rig.put("k", b"one");
    let endpoint = rig.start();
    let mut client = Client::to(endpoint.addr());
    let head = client.round_trip("HEAD", "/b/k", &[]);
    let (etag, date) = (head.header("ETag").unwrap().to_owned(), head.header("Last-Modified").unwrap().to_owned());
    let mut status = |name: &str, value: &str| client.get("/b/k", &[(name, value)]).status;
    assert_eq!(status("If-Match", &etag), 200);
    assert_eq!(status("If-Match", "*"), 200);
    assert_eq!(status("If-Match", &format!("\"zz\", {etag}")), 200);
    assert_eq!(status("If-Match", "\"zz\""), 412);
    assert_eq!(status("If-None-Match", &etag), 304);
    assert_eq!(status("If-None-Match", "\"zz\""), 200);
    assert_eq!(status("If-Modified-Since", &date), 304);
    assert_eq!(status("If-Unmodified-Since", &date), 200);
    assert_eq!(status("If-Unmodified-Since", "Sat, 01 Feb 2025 09:08:07 GMT"), 412);
    let got = client.get("/b/k", &[("If-Match", "\"zz\""), ("Range", "bytes=0-0")]);
    assert_eq!((got.status, got.element("Code").as_str()), (412, "PreconditionFailed"));
    assert_eq!(client.get("/b/k", &[]).body, b"one", "the connection survives 304 and 412");
}

#[test]
fn replaced_content_has_another_etag() {
    let rig = Rig::new();
    let (one, mut two) = (noise((16 << 20) + 1), noise((16 << 20) + 1));
    two[7] ^= 1;
    rig.put("k", &one);
    rig.put("s", b"a");
    let endpoint = rig.start();
    let mut client = Client::to(endpoint.addr());
    let first = client.round_trip("HEAD", "/b/k", &[]);
    let small = client.round_trip("HEAD", "/b/s", &[]);
    let etag = first.header("ETag").unwrap().to_owned();
    assert!(etag.ends_with("-2\"") && first.header("x-oss-object-type") == Some("Multipart"), "{etag}");
    rig.put("k", &two);
    rig.put("s", b"b");
    let second = client.get("/b/k", &[("Range", "bytes=0-9")]);
    assert_ne!(second.header("ETag"), Some(&*etag));
    assert_eq!(second.body, two[..10]);
    assert_eq!(second.header("x-oss-hash-crc64ecma"), Some(&*crc64(&two).to_string()));
    assert_eq!(client.get("/b/k", &[("If-Match", &etag)]).status, 412);
    let now = client.get("/b/s", &[]);
    assert_ne!(now.header("ETag"), small.header("ETag"));
    let listed = client.get("/b/?list-type=2", &[]);
    let tags = [second.header("ETag").unwrap().to_owned(), now.header("ETag").unwrap().to_owned()];
    assert_eq!(listed.elements("ETag"), tags);
}

#[test]
fn errors_and_paths() {
    let rig = Rig::new();
    rig.put("dir/k", b"x");
    rig.put("m/.folder-marker", b"");
    rig.put("full/.folder-marker", b"not empty");
    fs::write(rig.path("outside"), b"secret").unwrap();
    fs::write(rig.path("root/top"), b"no bucket").unwrap();
    let endpoint = rig.start();
    let mut client = Client::to(endpoint.addr());
    let rows = [
        ("/b/nope", 404, "NoSuchKey"),
        ("/b/dir", 404, "NoSuchKey"),
        ("/b/dir/", 404, "NoSuchKey"),
        ("/b/dir/k/x", 404, "NoSuchKey"),
        ("/b/../../outside", 404, "NoSuchKey"),
        ("/b/%2e%2e/%2E%2E/outside", 404, "NoSuchKey"),
        ("/b/..%2f..%2foutside", 404, "NoSuchKey"),
        ("/b//dir/k", 404, "NoSuchKey"),
        ("/b/m/.folder-marker", 404, "NoSuchKey"),
        ("/../?list-type=2", 404, "NoSuchBucket"),
        ("/%2e%2e/outside", 404, "NoSuchBucket"),
        ("/nope/k", 404, "NoSuchBucket"),
        ("/nope/?list-type=2", 404, "NoSuchBucket"),
        ("/top/?list-type=2", 404, "NoSuchBucket"),
        ("/b/?list-type=2&max-keys=0", 400, "InvalidArgument"),
        ("/b/?list-type=2&max-keys=1001", 400, "InvalidArgument"),
        ("/b/?list-type=2&continuation-token=!", 400, "InvalidArgument"),
        ("/", 501, "NotImplemented"),
        ("/b/?acl", 501, "NotImplemented"),
    ];
    for (target, status, code) in rows {
        let got = client.get(target, &[]);
        assert_eq!((got.status, got.element("Code").as_str()), (status, code), "{target}");
        assert_eq!(got.header("Content-Type"), Some("application/xml"));
        assert_eq!(got.element("RequestId"), got.header("x-oss-request-id").unwrap());
        assert_eq!(got.element("EC"), got.header("x-oss-ec").unwrap());
        assert_eq!(got.element("HostId"), "127.0.0.1");
    }
}

#[test]
fn markers_heads_methods_and_hosts() {
    let rig = Rig::new();
    rig.put("dir/k", b"x");
    rig.put("m/.folder-marker", b"");
    rig.put("full/.folder-marker", b"not empty");
    let endpoint = rig.start();
    let mut client = Client::to(endpoint.addr());
    assert_eq!(client.get("/b/m/", &[]).status, 200);
    assert_eq!(client.get("/b/full/.folder-marker", &[]).body, b"not empty");
    let head = client.round_trip("HEAD", "/b/nope", &[]);
    let coded = head.header("x-oss-err").unwrap();
    let xml = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(coded).unwrap()).unwrap();
    assert!(xml.contains("<Code>NoSuchKey</Code>"), "{xml}");
    assert_eq!(client.round_trip("DELETE", "/b/dir/k", &[]).status, 405);
    assert_eq!(client.get("/b/dir/k", &[]).body, b"x");
    let virtual_host = [("Host", "b.oss-cn-test.example:80")];
    assert_eq!(client.get("/dir/k", &virtual_host).body, b"x");
    client.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"");
}

#[test]
fn refused_heads_get_their_answer() {
    let rig = Rig::new();
    let endpoint = rig.start();
    let long = "x".repeat(1 << 20);
    for (method, header, status) in [("BAD\u{1}", "", 400), ("GET", long.as_str(), 431)] {
        let mut client = Client::to(endpoint.addr());
        client.send(method, "/", &[("X-Long", header)]);
        let mut got = client.head().unwrap();
        client.body(&mut got);
        assert_eq!((got.status, got.header("Connection")), (status, Some("close")));
        assert_eq!(got.element("Code"), "BadRequest");
    }
    // Each connection's thread writes its own line.
    let mut statuses: Vec<_> = rig.log(2).iter().map(|line| line["status"].as_u64()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [Some(400), Some(431)]);
}

#[test]
fn unsigned_requests_need_the_anonymous_flag() {
    let rig = Rig::new();
    rig.put("k", b"x");
    let endpoint = Endpoint::start(&Config { anonymous: false, ..rig.config() }).unwrap();
    let mut client = Client::to(endpoint.addr());
    for target in ["/b/k", "/b/?list-type=2", "/nope/k"] {
        let got = client.get(target, &[]);
        assert_eq!((got.status, got.element("Code").as_str()), (403, "AccessDenied"));
    }
    let log = rig.log(3);
    assert_eq!((&log[0]["status"], &log[0]["code"]), (&403.into(), &"AccessDenied".into()));
}

#[test]
fn log_lines() {
    let rig = Rig::new();
    let bytes = noise(30 << 20);
    rig.put("dir/k é", &bytes);
    let endpoint = rig.start();
    let mut client = Client::to(endpoint.addr());
    let target = "/b/dir/k%20%C3%A9";
    let headers = [("Range", "bytes=10-19"), ("If-Match", "*"), ("User-Agent", "test/1")];
    let got = client.get(target, &headers);
    let id = got.header("x-oss-request-id").unwrap().to_owned();
    assert!(id.len() == 24 && id.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)), "{id}");
    let list = client.get("/b/?list-type=2", &[]);
    assert_ne!(list.header("x-oss-request-id").unwrap(), id);
    // Lines of different connections come in any order.
    rig.log(2);
    // A client that goes away in the middle: what the kernel took is counted, less than all.
    let mut rude = Client::to(endpoint.addr());
    rude.send("GET", target, &[]);
    rude.head().unwrap();
    drop(rude);
    let log = rig.log(3);
    let line = &log[0];
    let expected = json!({"conn": 1, "method": "GET", "path": target, "bucket": "b", "key": "dir/k é", "query": "",
        "range": [10, 20], "status": 206, "code": null, "request_id": id, "bytes_sent": 10, "if_match": "*",
        "user_agent": "test/1", "cut": null});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&line[name], value, "{name}");
    }
    assert!(line["time"].as_f64().unwrap() > 1.7e9 && line["duration_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(log[1]["bytes_sent"], list.body.len());
    assert_eq!((&log[1]["query"], &log[1]["if_match"]), (&"list-type=2".into(), &Value::Null));
    assert_eq!((&log[2]["conn"], &log[2]["cut"], &log[2]["status"]), (&2.into(), &"client".into(), &200.into()));
    assert!(log[2]["bytes_sent"].as_u64().unwrap() < bytes.len() as u64);
}

#[test]
fn rate_holds_over_all_connections() {
    let rig = Rig::new();
    let bytes = noise(1_000_000);
    rig.put("k", &bytes);
    let config = Config { rate_bytes_per_sec: Some(4_000_000), ..rig.config() };
    let endpoint = Endpoint::start(&config).unwrap();
    let (addr, started) = (endpoint.addr(), Instant::now());
    let readers: Vec<_> = (0..4).map(|_| thread::spawn(move || Client::to(addr).get("/b/k", &[]).body)).collect();
    for reader in readers {
        assert!(reader.join().unwrap() == bytes);
    }
    let took = started.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn first_byte_delay_and_stop() {
    let rig = Rig::new();
    rig.put("k", b"x");
    let config = Config { first_byte_delay: Duration::from_millis(150), ..rig.config() };
    let endpoint = Endpoint::start(&config).unwrap();
    let started = Instant::now();
    assert_eq!(Client::to(endpoint.addr()).get("/b/k", &[]).body, b"x");
    assert!(started.elapsed() >= Duration::from_millis(150));
    endpoint.stop();
    let config = Config { first_byte_delay: Duration::from_secs(60), ..rig.config() };
    let endpoint = Endpoint::start(&config).unwrap();
    let mut waiting = Client::to(endpoint.addr());
    waiting.send("GET", "/b/k", &[]);
    let mut idle = Client::to(endpoint.addr());
    thread::sleep(Duration::from_millis(100));
    let started = Instant::now();
    endpoint.stop();
    assert!(started.elapsed() < Duration::from_secs(4));
    assert_eq!((waiting.rest(), idle.rest()), (vec![], vec![]));
    assert_eq!(rig.log(2)[1]["cut"], "stop");
}

#[test]
fn many_readers_of_one_object() {
    let rig = Rig::new();
    let bytes = noise(24 << 20);
    rig.put("k", &bytes);
    let endpoint = rig.start();
    let addr = endpoint.addr();
    thread::scope(|scope| {
        for n in 0..8usize {
            let bytes = &bytes;
            scope.spawn(move || {
                let mut client = Client::to(addr);
                for step in 0..6 {
                    let from = (n * 6 + step) * 500_000;
                    let range = format!("bytes={from}-{}", from + 499_999);
                    let got = client.get("/b/k", &[("Range", &range), STANDARD]);
                    assert!(got.status == 206 && got.body == bytes[from..from + 500_000], "{range}");
                }
            });
        }
    });
}
