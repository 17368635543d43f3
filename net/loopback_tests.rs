//! The whole crate against small servers on loopback, each test on both drivers. The servers
//! misbehave on purpose; nothing here leaves the machine.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime};

use crate::error::{FailureKind, Phase};
use crate::retry::Hint;
use crate::*;

const SIZE: u64 = 64 << 20;
const ETAG: &str = "\"5B3C1A2E053D763E1B002CC607C5A0FE-8\"";

fn byte_at(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

fn content(range: Range<u64>) -> Vec<u8> {
    range.map(byte_at).collect()
}

/// One request as the server saw it.
struct Seen {
    line: String,
    head: String,
    /// Which connection, and which request on it, both from 0.
    connection: usize,
    nth: usize,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn range(&self) -> Option<Range<u64>> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some(first.parse().ok()?..last.parse::<u64>().ok()? + 1)
    }
}

struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

/// Serves until the test process ends. `answer` returns whether the connection goes on.
fn serve(answer: impl Fn(&Seen, &mut TcpStream) -> bool + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("address");
    let connections = Arc::new(AtomicUsize::new(0));
    let (count, answer) = (Arc::clone(&connections), Arc::new(answer));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = count.fetch_add(1, Ordering::SeqCst);
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || converse(&mut { stream }, connection, &*answer));
        }
    });
    Server { address, connections }
}

fn converse<S: Read>(stream: &mut S, connection: usize, answer: &dyn Fn(&Seen, &mut S) -> bool) {
    for nth in 0.. {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let head = String::from_utf8(head).expect("ASCII head");
        let line = head.lines().next().unwrap_or_default().to_owned();
        if !answer(&Seen { line, head, connection, nth }, stream) {
            return;
        }
    }
}

fn write_part(stream: &mut impl Write, range: Range<u64>, send: Range<u64>) {
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {}-{}/{SIZE}\r\nETag: {ETAG}\r\n\
         x-oss-request-id: 5F00\r\nx-oss-hash-crc64ecma: 42\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n\r\n",
        range.end - range.start,
        range.start,
        range.end - 1
    );
    // The client may have gone already: that is its right.
    drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content(send))));
}

fn good(seen: &Seen, stream: &mut impl Write) -> bool {
    let range = seen.range().expect("range");
    write_part(stream, range.clone(), range);
    true
}

/// Gives out prepared fetches and collects the ends.
struct Queue {
    fetches: Mutex<VecDeque<Fetch>>,
    done: Mutex<mpsc::Sender<Finished>>,
    pulls: AtomicUsize,
}

impl Source for Queue {
    fn pull(&self, _now: Instant) -> Pull {
        self.pulls.fetch_add(1, Ordering::SeqCst);
        self.fetches.lock().expect("queue").pop_front().map_or(Pull::Until(None), Pull::Fetch)
    }

    fn finished(&self, done: Finished) {
        self.done.lock().expect("sender").send(done).expect("the test waits");
    }

    fn make_present(&self, token: u64, filled: usize, bytes: Range<usize>) -> Result<(), Error> {
        fresh::make_present(token, filled, bytes)
    }
}

/// For servers that answer: a busy machine must not look like a silent one.
const PATIENT: Timeouts = Timeouts { connect_ms: 5000, response_ms: 10_000, stall_ms: 10_000, ..Timeouts::DEFAULT };
/// For servers that do not.
const IMPATIENT: Timeouts = Timeouts { connect_ms: 5000, response_ms: 800, stall_ms: 800, ..Timeouts::DEFAULT };

struct Rig {
    vcpus: Vcpus,
    queue: Arc<Queue>,
    done: mpsc::Receiver<Finished>,
}

fn origin(addresses: Vec<SocketAddr>) -> Origin {
    Origin { path_style: true, ..Origin::new(addresses, "127.0.0.1", "b") }
}

impl Rig {
    fn new(driver: DriverChoice, addresses: Vec<SocketAddr>, workers: usize, vcpus: usize) -> Rig {
        Rig::with(driver, addresses, (workers, vcpus), PATIENT)
    }

    /// Gives up after a short silence.
    fn impatient(driver: DriverChoice, server: &Server) -> Rig {
        Rig::with(driver, vec![server.address], (4, 1), IMPATIENT)
    }

    fn with(
        driver: DriverChoice,
        addresses: Vec<SocketAddr>,
        (workers, vcpus): (usize, usize),
        timeouts: Timeouts,
    ) -> Rig {
        Rig::of(driver, origin(addresses), (workers, vcpus), timeouts)
    }

    fn of(driver: DriverChoice, origin: Origin, (workers, vcpus): (usize, usize), timeouts: Timeouts) -> Rig {
        let (sender, done) = mpsc::channel();
        let queue = Arc::new(Queue { fetches: Mutex::default(), done: Mutex::new(sender), pulls: AtomicUsize::new(0) });
        let options = VcpuOptions { vcpus, workers, driver, timeouts, rcvbuf_bytes: None };
        let source: Arc<dyn Source> = Arc::<Queue>::clone(&queue);
        let vcpus = Vcpus::start(Arc::new(origin), source, options).expect("start");
        Rig { vcpus, queue, done }
    }

    fn to(driver: DriverChoice, server: &Server) -> Rig {
        Rig::new(driver, vec![server.address], 4, 1)
    }

    fn push(&self, fetch: Fetch) {
        self.queue.fetches.lock().expect("queue").push_back(fetch);
        self.vcpus.wake();
    }

    fn next(&self) -> Finished {
        self.done.recv_timeout(Duration::from_secs(20)).expect("an end for every fetch")
    }

    /// One range into a buffer.
    fn buffered(&self, range: Range<u64>) -> Finished {
        let sink = Sink::Buffer { bytes_max: (range.end - range.start) as usize };
        self.push(Fetch { token: 1, query: query(range), sink, crc: true, urgent: true });
        self.next()
    }

    /// One range into memory with guards on both sides.
    fn range(&self, range: Range<u64>) -> (Finished, Vec<u8>) {
        let len = (range.end - range.start) as usize;
        let mut memory = Guarded::new(len);
        self.push(get(1, range, &mut memory));
        let done = self.next();
        (done, memory.into_bytes())
    }
}

thread_local! {
    /// Bodies are spliced into memory files in this test now.
    static SPLICED: Cell<bool> = const { Cell::new(false) };
}

/// Memory for a sink between two guard zones: a memory file's mapping.
struct Guarded {
    file: File,
    at: *mut u8,
    /// With the guards.
    len: usize,
}

const GUARD: usize = 4096;

impl Guarded {
    fn new(len: usize) -> Guarded {
        let len = len + 2 * GUARD;
        let file = splice::memory_file();
        file.set_len(len as u64).expect("a size");
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(at, libc::MAP_FAILED);
        let mut memory = Guarded { file, at: at.cast(), len };
        memory.bytes().fill(0xA5);
        memory
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: its own mapping; nothing is under way into it when a test asks for it.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }

    fn sink(&mut self) -> Sink {
        let file = InFile { fd: self.file.as_raw_fd(), offset: GUARD as u64 };
        let pages = if SPLICED.get() { Pages::File(file) } else { Pages::Made };
        Sink::Memory { at: self.at.wrapping_add(GUARD), len: self.len - 2 * GUARD, pages }
    }

    fn into_bytes(mut self) -> Vec<u8> {
        let end = self.len - GUARD;
        let bytes = self.bytes();
        assert!(bytes[..GUARD].iter().chain(&bytes[end..]).all(|byte| *byte == 0xA5), "written past the sink");
        bytes[GUARD..end].to_vec()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: its own mapping; the request into it has ended.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

fn query(range: Range<u64>) -> Query {
    Query::Get { key: "dir/model.bin".into(), range: Some(range), etag: Some(ETAG.into()), size: SIZE }
}

fn get(token: u64, range: Range<u64>, memory: &mut Guarded) -> Fetch {
    Fetch { token, query: query(range), sink: memory.sink(), crc: true, urgent: true }
}

/// With both drivers, and bodies received and spliced.
fn on_both(test: impl Fn(DriverChoice)) {
    let uring = crate::driver::choose(DriverChoice::Uring, 4);
    if let Err(error) = &uring {
        eprintln!("not run on io_uring: {error}");
    }
    for spliced in [false, true] {
        SPLICED.set(spliced);
        if uring.is_ok() {
            test(DriverChoice::Uring);
        }
        test(DriverChoice::Epoll);
    }
}

#[path = "fresh_loopback_tests.rs"]
mod fresh;
#[path = "node_loopback_tests.rs"]
mod node;
#[path = "tls_loopback_tests.rs"]
mod tls;

#[test]
fn new_addresses_are_used_after_all_known_ones_failed() {
    on_both(|driver| {
        let server = serve(good);
        let closed = TcpListener::bind("127.0.0.2:0").expect("listen").local_addr().expect("address");
        let rig = Rig::new(driver, vec![closed], 2, 1);
        let mut names = rig.vcpus.names();
        let error = rig.range(0..4096).0.result.expect_err("nobody listens");
        assert_eq!((error.kind, error.phase), (FailureKind::Network, Phase::Connect));
        assert!(names.wait_unreachable());
        assert!(names.set_addresses(&[server.address]) && !names.set_addresses(&[server.address]));
        assert!(rig.range(0..4096).1 == content(0..4096));
        let waiter = std::thread::spawn(move || names.wait_unreachable());
        rig.vcpus.stop();
        assert!(!waiter.join().expect("no panic"), "a stop ends the wait");
    });
}

#[test]
fn a_part_arrives_in_its_place() {
    on_both(|driver| {
        let server = serve(|seen, stream| {
            assert_eq!(seen.line, "GET /b/dir/model.bin HTTP/1.1");
            assert_eq!(seen.header("if-match"), Some(ETAG));
            assert_eq!(seen.header("x-oss-range-behavior"), Some("standard"));
            good(seen, stream)
        });
        let rig = Rig::to(driver, &server);
        let range = (3 << 20) + 17..(11 << 20) + 17;
        let (done, bytes) = rig.range(range.clone());
        let response = done.result.expect("response");
        assert!(bytes == content(range), "wrong bytes");
        assert_eq!((response.status, response.bytes, response.total), (206, 8 << 20, Some(SIZE)));
        assert_eq!((response.crc64_body, response.crc64_object), (Some(crc::of(&bytes)), Some(42)));
        assert_eq!((response.request_id.as_str(), response.date), ("5F00", Some(1_700_000_000)));
        assert_eq!((response.etag.as_deref(), done.retry_hint, done.token), (Some(ETAG), Hint::No, 1));
    });
}

#[test]
fn many_ranges_use_few_connections() {
    on_both(|driver| {
        let server = serve(good);
        let rig = Rig::new(driver, vec![server.address], 2, 2);
        let ranges: Vec<Range<u64>> = (0..200).map(|i| i * 70_001..i * 70_001 + 1 + (i * 7919) % 300_000).collect();
        let mut memories: Vec<Guarded> =
            ranges.iter().map(|range| Guarded::new((range.end - range.start) as usize)).collect();
        for (i, (range, memory)) in ranges.iter().zip(&mut memories).enumerate() {
            rig.push(get(i as u64, range.clone(), memory));
        }
        let mut tokens = HashSet::new();
        for _ in &ranges {
            let done = rig.next();
            done.result.expect("response");
            assert!(tokens.insert(done.token), "delivered twice");
        }
        for (range, memory) in ranges.into_iter().zip(memories) {
            assert!(memory.into_bytes() == content(range.clone()), "wrong bytes in {range:?}");
        }
        let connections = server.connections.load(Ordering::SeqCst);
        assert!((1..=4).contains(&connections), "{connections} connections");
    });
}

#[test]
fn a_short_body_is_an_error_that_names_object_and_range() {
    on_both(|driver| {
        let server = serve(|seen, stream| {
            let range = seen.range().expect("range");
            write_part(stream, range.clone(), range.start..range.end - 1);
            false
        });
        let (done, memory) = Rig::to(driver, &server).range(0..100_000);
        let error = done.result.expect_err("short");
        assert_eq!((error.kind, error.phase, done.retry_hint), (FailureKind::Network, Phase::Body, Hint::Backoff));
        let text = error.to_string();
        for part in ["dir/model.bin", "bytes 0..100000", "99999 bytes", "5F00"] {
            assert!(text.contains(part), "{part} missing in {text}");
        }
        let partial = done.partial.expect("what had come");
        let bytes = &memory[..99_999];
        assert_eq!((partial.status, partial.bytes, partial.crc64_body), (206, 99_999, Some(crc::of(bytes))));
        assert!(bytes == content(0..99_999), "wrong bytes");
        let done = Rig::to(driver, &server).buffered(0..100_000);
        let partial = done.partial.expect("what had come");
        assert!(done.result.is_err() && done.body == content(0..99_999), "{} bytes", done.body.len());
        assert_eq!((partial.bytes, partial.crc64_body), (99_999, Some(crc::of(&done.body))));
    });
}

#[test]
fn an_error_document_that_is_cut_is_no_body() {
    on_both(|driver| {
        let server = serve(|_, stream| {
            let head = b"HTTP/1.1 503 Busy\r\nContent-Length: 1000\r\n\r\n<Error><Code>SlowDown</Code>";
            drop(stream.write_all(head));
            std::thread::sleep(Duration::from_secs(5));
            false
        });
        let done = Rig::impatient(driver, &server).buffered(0..100_000);
        assert_eq!((done.partial, done.body.len()), (None, 0));
        assert_eq!(done.result.expect_err("cut").status, Some(503));
    });
}

#[test]
fn a_reset_is_a_network_error() {
    on_both(|driver| {
        let server = serve(|seen, stream| {
            let range = seen.range().expect("range");
            write_part(stream, range.clone(), range.start..range.start + 1000);
            std::thread::sleep(Duration::from_millis(50));
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            let fd = std::os::fd::AsRawFd::as_raw_fd(stream);
            let len = size_of::<libc::linger>() as libc::socklen_t;
            // SAFETY: `linger` outlives the call and `len` is its size.
            let rc =
                unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), len) };
            assert_eq!(rc, 0);
            false
        });
        let (done, _) = Rig::to(driver, &server).range(0..5 << 20);
        let error = done.result.expect_err("reset");
        assert_eq!((error.kind, error.phase), (FailureKind::Network, Phase::Body), "{error}");
    });
}

#[test]
fn silence_before_and_inside_the_answer_ends_at_the_deadline() {
    on_both(|driver| {
        let server = serve(|seen, stream| {
            if seen.connection > 0 {
                let range = seen.range().expect("range");
                write_part(stream, range.clone(), range.start..range.start + 10_000);
            }
            std::thread::sleep(Duration::from_secs(5));
            false
        });
        let rig = Rig::impatient(driver, &server);
        for (phase, text) in
            [(Phase::Head, "no answer within 800 ms"), (Phase::Body, "no byte for 800 ms after 10000 bytes")]
        {
            let begun = Instant::now();
            let (done, _) = rig.range(0..1 << 20);
            let error = done.result.expect_err("silence");
            assert_eq!((error.kind, error.phase), (FailureKind::Timeout, phase), "{error}");
            assert!(error.message.contains(text), "{error}");
            let took = begun.elapsed();
            assert!(took >= Duration::from_millis(790) && took < Duration::from_secs(4), "{took:?}");
        }
    });
}

#[test]
fn slow_but_steady_is_not_a_stall() {
    on_both(|driver| {
        // 40 KiB in 20 steps over 2 s: far below SO_RCVLOWAT, far longer than the stall deadline.
        let server = serve(|seen, stream| {
            let range = seen.range().expect("range");
            write_part(stream, range.clone(), 0..0);
            for step in 0..20 {
                std::thread::sleep(Duration::from_millis(100));
                stream.write_all(&content(step * 2048..(step + 1) * 2048)).expect("the client still listens");
            }
            true
        });
        let (done, bytes) = Rig::impatient(driver, &server).range(0..40 << 10);
        assert_eq!(done.result.expect("response").bytes, 40 << 10);
        assert!(bytes == content(0..40 << 10));
    });
}

#[test]
fn a_whole_object_to_a_range_is_refused() {
    on_both(|driver| {
        let server = serve(|_, stream| {
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\nETag: {ETAG}\r\nx-oss-request-id: 77\r\n\r\n");
            drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content(0..100_000))));
            true
        });
        let (done, bytes) = Rig::to(driver, &server).range(8..4096);
        let error = done.result.expect_err("whole object");
        assert_eq!(
            (error.kind, error.phase, error.status),
            (FailureKind::Protocol, Phase::Status, Some(200)),
            "{error}"
        );
        assert_eq!(error.request_id.as_deref(), Some("77"));
        assert!(bytes.iter().all(|byte| *byte == 0xA5), "bytes of a refused answer reached the sink");
    });
}

#[test]
fn a_wrong_content_range_is_refused() {
    on_both(|driver| {
        let server = serve(|seen, stream| {
            let range = seen.range().expect("range");
            write_part(stream, range.start + 1..range.end + 1, range.start + 1..range.end + 1);
            true
        });
        let (done, bytes) = Rig::to(driver, &server).range(0..4096);
        let error = done.result.expect_err("other range");
        assert_eq!((error.kind, error.phase), (FailureKind::Protocol, Phase::Status), "{error}");
        assert!(error.message.contains("0-4095") && error.message.contains("1-4096"), "{error}");
        assert!(bytes.iter().all(|byte| *byte == 0xA5));
    });
}

#[test]
fn throttling_says_slow_down_and_keeps_the_connection() {
    on_both(|driver| {
        let server = serve(|seen, stream| {
            if seen.nth > 0 {
                return good(seen, stream);
            }
            let body = "<Error><Code>DownloadTrafficRateLimitExceeded</Code><Message>slow down</Message><RequestId>9A</RequestId><EC>0048-00000107</EC></Error>";
            let head = format!(
                "HTTP/1.1 503 Service Unavailable\r\nContent-Length: {}\r\nx-oss-request-id: 9A\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).expect("head");
            std::thread::sleep(Duration::from_millis(30));
            stream.write_all(body.as_bytes()).expect("body");
            true
        });
        let rig = Rig::to(driver, &server);
        let (done, _) = rig.range(0..4096);
        let error = done.result.expect_err("throttled");
        assert_eq!((error.kind, error.status, done.retry_hint), (FailureKind::Throttled, Some(503), Hint::SlowDown));
        assert_eq!(error.oss_code.as_deref(), Some("DownloadTrafficRateLimitExceeded"));
        assert_eq!((error.request_id.as_deref(), error.ec.as_deref()), (Some("9A"), Some("0048-00000107")));
        rig.range(0..4096).0.result.expect("the next one");
        assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_stale_kept_connection_is_replaced_unseen() {
    on_both(|driver| {
        // The first connection answers once; the second request on it is met by a close.
        let server =
            serve(|seen, stream| if seen.connection == 0 && seen.nth == 1 { false } else { good(seen, stream) });
        let rig = Rig::to(driver, &server);
        rig.range(0..4096).0.result.expect("first");
        let (done, bytes) = rig.range(4096..9000);
        done.result.expect("second");
        assert!(bytes == content(4096..9000));
        assert_eq!(server.connections.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn a_fresh_connection_that_closes_is_an_error_not_a_loop() {
    on_both(|driver| {
        let server = serve(|_, _| false);
        let (done, _) = Rig::to(driver, &server).range(0..4096);
        let error = done.result.expect_err("closed");
        assert_eq!((error.kind, error.phase), (FailureKind::Network, Phase::Head), "{error}");
        assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn documents_come_by_length_by_chunks_and_by_close() {
    on_both(|driver| {
        let document = format!(
            "<ListBucketResult><Contents><Key>{}</Key><Size>1</Size><ETag>x</ETag></Contents></ListBucketResult>",
            "k".repeat(40_000)
        );
        let text = document.clone();
        let server = serve(move |seen, stream| {
            assert!(seen.line.contains("list-type=2"), "{}", seen.line);
            let (head, body) = match seen.nth {
                0 => (format!("Content-Length: {}", text.len()), text.clone()),
                1 => {
                    let chunks: Vec<String> = text
                        .as_bytes()
                        .chunks(9_999)
                        .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)))
                        .collect();
                    ("Transfer-Encoding: chunked".into(), chunks.concat() + "0\r\n\r\n")
                }
                _ => ("Connection: close".into(), text.clone()),
            };
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").as_bytes()).expect("answer");
            seen.nth < 2
        });
        let rig = Rig::to(driver, &server);
        for _ in 0..3 {
            let query = Query::List { prefix: "k".into(), delimiter: None, continuation: None };
            rig.push(Fetch { token: 0, query, sink: Sink::Buffer { bytes_max: 1 << 20 }, crc: true, urgent: true });
            let done = rig.next();
            assert_eq!(done.result.expect("response").crc64_body, Some(crc::of(document.as_bytes())));
            assert!(done.body == document.as_bytes());
            assert_eq!(list::parse(&done.body).expect("page").objects[0].key.len(), 40_000);
        }
        assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn refused_addresses_are_passed_over() {
    on_both(|driver| {
        // Nobody listens on tcpmux; a port that was just free could be another test's by now.
        let closed = SocketAddr::from(([127, 0, 0, 1], 1));
        let server = serve(good);
        let rig = Rig::new(driver, vec![closed, server.address], 1, 1);
        rig.range(0..4096).0.result.expect("by the other address");
        let rig = Rig::new(driver, vec![closed], 1, 1);
        let error = rig.range(0..4096).0.result.expect_err("refused");
        assert_eq!((error.kind, error.phase), (FailureKind::Network, Phase::Connect));
        assert!(error.message.contains(&closed.to_string()), "{error}");
    });
}

/// An address that never answers a connect: its queue is full.
fn silent() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
    let listener = TcpListener::bind("127.0.0.3:0").expect("listen");
    // SAFETY: shortens the queue of a socket that listens already.
    assert_eq!(unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&listener), 0) }, 0);
    let address = listener.local_addr().expect("address");
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
    let fillers: Vec<TcpStream> = (0..4).filter_map(connect).collect();
    assert!(fillers.len() < 4, "its queue takes everybody");
    (address, fillers, listener)
}

#[test]
fn a_dead_address_costs_one_connect_timeout_in_all() {
    on_both(|driver| {
        // Each answer ends its connection, so that every request opens one.
        let server = serve(|seen, stream| {
            good(seen, stream);
            false
        });
        let (dead, _fillers, _listener) = silent();
        let timeouts = Timeouts { connect_ms: 700, ..PATIENT };
        let rig = Rig::with(driver, vec![dead, server.address], (4, 1), timeouts);
        let begin = Instant::now();
        let ranges: Vec<Range<u64>> = (0..60).map(|i| i * 1000..i * 1000 + 1000).collect();
        let mut memories: Vec<Guarded> = ranges.iter().map(|_| Guarded::new(1000)).collect();
        for (i, (range, memory)) in ranges.iter().zip(&mut memories).enumerate() {
            rig.push(get(i as u64, range.clone(), memory));
        }
        for _ in &ranges {
            rig.next().result.expect("the other address works");
        }
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(700), "{took:?}: the dead address was never tried");
        assert!(took < Duration::from_millis(1350), "{took:?}: more than one connect timeout");
    });
}

#[test]
fn stop_ends_what_is_under_way_and_an_idle_engine_sleeps() {
    on_both(|driver| {
        let server = serve(|seen, stream| {
            if seen.range() == Some(0..10) {
                return good(seen, stream);
            }
            std::thread::sleep(Duration::from_secs(3));
            false
        });
        let rig = Rig::to(driver, &server);
        rig.range(0..10).0.result.expect("first");
        std::thread::sleep(Duration::from_millis(100));
        let before = rig.queue.pulls.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(rig.queue.pulls.load(Ordering::SeqCst), before, "an idle vcpu asked for work");
        let mut memory = Guarded::new(4096);
        rig.push(get(9, 4096..8192, &mut memory));
        std::thread::sleep(Duration::from_millis(100));
        let begun = Instant::now();
        rig.vcpus.stop();
        assert!(begun.elapsed() < Duration::from_secs(1));
        let done = rig.done.try_recv().expect("delivered before stop returned");
        assert_eq!((done.token, done.result.expect_err("stopped").kind), (9, FailureKind::Cancelled));
        memory.into_bytes();
    });
}

#[test]
fn a_new_origin_replaces_idle_connections() {
    on_both(|driver| {
        let (first, second) = (serve(good), serve(good));
        let rig = Rig::to(driver, &first);
        rig.range(0..10).0.result.expect("first");
        rig.vcpus.set_origin(Arc::new(origin(vec![second.address])));
        rig.range(0..10).0.result.expect("second");
        assert_eq!((first.connections.load(Ordering::SeqCst), second.connections.load(Ordering::SeqCst)), (1, 1));
    });
}

#[test]
fn the_driver_says_why() {
    on_both(|driver| {
        let server = serve(good);
        let (name, why) = Rig::to(driver, &server).vcpus.driver();
        assert_eq!(name, if driver == DriverChoice::Epoll { "epoll" } else { "io_uring" });
        assert!(!why.is_empty());
    });
}

#[test]
fn nothing_is_written_after_the_end() {
    on_both(|driver| {
        let (release, held) = mpsc::channel::<()>();
        let (written, seen_written) = mpsc::channel::<()>();
        let (held, written) = (Mutex::new(held), Mutex::new(written));
        let server = serve(move |seen, stream| {
            let range = seen.range().expect("range");
            write_part(stream, range.clone(), range.start..range.start + 1000);
            held.lock().expect("held").recv().expect("the test goes on");
            // The client has given up by now; whatever still reaches it must not reach the sink.
            drop(stream.write_all(&content(range.start + 1000..range.end)));
            written.lock().expect("written").send(()).expect("the test waits");
            false
        });
        let rig = Rig::impatient(driver, &server);
        let mut memory = Guarded::new(1 << 20);
        rig.push(get(1, 0..1 << 20, &mut memory));
        assert_eq!(rig.next().result.expect_err("stall").kind, FailureKind::Timeout);
        memory.bytes().fill(0xA5);
        release.send(()).expect("the server waits");
        seen_written.recv().expect("the server went on");
        std::thread::sleep(Duration::from_millis(100));
        assert!(memory.into_bytes().iter().all(|byte| *byte == 0xA5), "written after the end");
    });
}

/// What a misbehaving server does to one request.
fn misbehave(seen: &Seen, stream: &mut TcpStream, dice: u64) -> bool {
    let range = seen.range().expect("range");
    let half = range.start + (range.end - range.start) / 2;
    match dice {
        0 => return false,
        1 => write_part(stream, range.clone(), range.start..half),
        2 => drop(stream.write_all(b"HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nOops!")),
        3 => drop(stream.write_all(b"\x16\x03\x01 this is not HTTP\r\n\r\n")),
        4 => write_part(stream, range.start + 1..range.end + 1, range.start + 1..range.end + 1),
        5 => {
            // Everything, and the connection ends: legal, but the next request meets a close.
            good(seen, stream);
            return false;
        }
        6 => {
            // In two pieces, cut inside the head.
            let mut whole = Vec::new();
            let head = format!(
                "HTTP/1.1 206 P\r\nContent-Length: {}\r\nContent-Range: bytes {}-{}/{SIZE}\r\n\r\n",
                range.end - range.start,
                range.start,
                range.end - 1
            );
            whole.extend_from_slice(head.as_bytes());
            whole.extend(content(range));
            drop(stream.write_all(&whole[..20]));
            std::thread::sleep(Duration::from_millis(5));
            drop(stream.write_all(&whole[20..]));
            return true;
        }
        _ => return good(seen, stream),
    }
    dice == 2 || dice == 4
}

#[test]
fn under_mixed_faults_every_success_is_right_and_every_fetch_ends() {
    on_both(|driver| {
        let dice = AtomicUsize::new(0);
        let server = serve(move |seen, stream| {
            let roll = byte_at(dice.fetch_add(1, Ordering::SeqCst) as u64) % 16;
            misbehave(seen, stream, u64::from(roll))
        });
        let rig = Rig::new(driver, vec![server.address], 4, 2);
        let ranges: Vec<Range<u64>> = (0..300).map(|i| i * 9973..i * 9973 + 1 + (i * 7919) % 200_000).collect();
        let mut left: HashSet<usize> = (0..ranges.len()).collect();
        let (mut rounds, mut failures) = (0, 0);
        while !left.is_empty() {
            rounds += 1;
            assert!(rounds < 30, "{} ranges never succeed", left.len());
            let mut memories: Vec<(usize, Guarded)> =
                left.iter().map(|i| (*i, Guarded::new((ranges[*i].end - ranges[*i].start) as usize))).collect();
            for (i, memory) in &mut memories {
                rig.push(get(*i as u64, ranges[*i].clone(), memory));
            }
            let ends: Vec<Finished> = memories.iter().map(|_| rig.next()).collect();
            let good: HashSet<usize> =
                ends.iter().filter(|done| done.result.is_ok()).map(|done| done.token as usize).collect();
            failures += ends.len() - good.len();
            assert_eq!(ends.iter().map(|done| done.token).collect::<HashSet<_>>().len(), ends.len());
            for (i, memory) in memories {
                let bytes = memory.into_bytes();
                if good.contains(&i) {
                    assert!(bytes == content(ranges[i].clone()), "wrong bytes in {:?}", ranges[i]);
                    left.remove(&i);
                }
            }
        }
        assert!(failures > 30, "only {failures} failures: the faults were not met");
    });
}

/// A server whose clock is `ahead_secs` ahead, and what its second answer says of the request's Date.
fn skewed(driver: DriverChoice, ahead_secs: i64) -> (Finished, Finished) {
    let server = serve(move |seen, stream| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        let here = now.checked_add_signed(ahead_secs).expect("after 1970");
        let sent = httpdate::parse_http_date(seen.header("date").unwrap_or_default()).expect("a date");
        let sent = sent.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        if sent.abs_diff(here) < 900 {
            return good(seen, stream);
        }
        let body = "<Error><Code>RequestTimeTooSkewed</Code></Error>";
        let date = ossc_sign::http_date(here as i64);
        let length = body.len();
        let head = format!("HTTP/1.1 403 Forbidden\r\nDate: {date}\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(head.as_bytes()).expect("answer");
        true
    });
    let rig = Rig::to(driver, &server);
    (rig.range(0..10).0, rig.range(0..10).0)
}

#[test]
fn a_skewed_clock_is_corrected_by_the_next_request() {
    on_both(|driver| {
        for ahead_secs in [3600, -50_000] {
            let (first, second) = skewed(driver, ahead_secs);
            assert_eq!((first.result.expect_err("skewed").kind, first.retry_hint), (FailureKind::Clock, Hint::Backoff));
            second.result.expect("with the server's time");
        }
    });
}

#[test]
fn an_absurd_skew_is_not_corrected() {
    on_both(|driver| {
        let (first, second) = skewed(driver, -90_000);
        for done in [first, second] {
            assert_eq!(done.result.expect_err("skewed").kind, FailureKind::Clock);
        }
    });
}

#[test]
fn a_renewed_key_signs_the_next_request_and_keeps_the_addresses() {
    let v1 = |id: &str| {
        ossc_sign::Signer::V1(ossc_sign::V1::new(ossc_sign::Credentials {
            access_key_id: id.into(),
            access_key_secret: ossc_sign::Secret::new("s".into()),
            security_token: None,
        }))
    };
    on_both(|driver| {
        let server = serve(|seen, stream| {
            let id = if seen.nth == 0 { "OSS first:" } else { "OSS second:" };
            assert!(seen.header("authorization").is_some_and(|value| value.starts_with(id)), "{}", seen.nth);
            good(seen, stream)
        });
        // The address comes from a later look-up, not from the origin.
        let origin = Origin { signer: Some(v1("first").into()), ..origin(Vec::new()) };
        let rig = Rig::of(driver, origin, (1, 1), PATIENT);
        assert!(rig.vcpus.names().set_addresses(&[server.address]));
        rig.range(0..10).0.result.expect("the first key");
        rig.vcpus.set_signer(v1("second"));
        rig.range(0..10).0.result.expect("the second key");
    });
}

/// Makes io_uring_setup fail with EPERM on this thread and those it starts, as container
/// runtimes do.
fn block_io_uring() {
    let code = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        // The number of the system call is the first word.
        code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
        code(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        code(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: no pointers are passed.
    let rc = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(rc, 0);
    // SAFETY: `filter` and its program outlive the call, which copies them.
    let rc = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn where_io_uring_is_blocked_epoll_takes_over_and_says_why() {
    // The process-wide choice is made before the filter, which is this thread's own.
    let usual = crate::driver::choose(DriverChoice::Auto, 4).expect("a driver").0;
    let server = serve(good);
    let blocked = std::thread::spawn(move || {
        block_io_uring();
        let why = crate::driver::uring::probe(4).expect_err("blocked");
        assert!(why.contains("blocked here by seccomp"), "{why}");
        let rig = Rig::new(DriverChoice::Auto, vec![server.address], 2, 2);
        let (name, why) = rig.vcpus.driver();
        assert_eq!(name, "epoll");
        if usual == crate::driver::Chosen::Uring {
            assert!(why.contains("not every vcpu could have a ring"), "{why}");
        }
        let (done, bytes) = rig.range(5..100_000);
        done.result.expect("by epoll");
        assert!(bytes == content(5..100_000));
    });
    blocked.join().expect("the blocked thread");
}
