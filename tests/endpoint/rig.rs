//! A folder tree, an endpoint on it, and a raw socket client. Used by the socket tests. Shares
//! no HTTP code with the endpoint.
#![allow(dead_code, reason = "each test program uses a part of it")]

use oss_endpoint::{Config, Endpoint};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// An answer as it came, body as far as it came.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, v)| v.as_str());
        assert!(found.next().is_none(), "{name} twice");
        value
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// Texts of all elements of this name.
    pub fn elements(&self, name: &str) -> Vec<String> {
        let text = self.text();
        let open = format!("<{name}>");
        let parts = text.split(&open).skip(1);
        parts.map(|p| p.split(&format!("</{name}>")).next().unwrap().to_owned()).collect()
    }

    pub fn element(&self, name: &str) -> String {
        self.elements(name).into_iter().next().unwrap_or_else(|| panic!("no {name} in {}", self.text()))
    }
}

/// A keep-alive connection.
pub struct Client(pub TcpStream);

impl Client {
    pub fn to(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(stream)
    }

    /// Sends a request with a Host of 127.0.0.1 unless `extra` has one.
    pub fn send(&mut self, method: &str, target: &str, extra: &[(&str, &str)]) {
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        if !extra.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
            head += "Host: 127.0.0.1\r\n";
        }
        for (name, value) in extra {
            head += &format!("{name}: {value}\r\n");
        }
        self.0.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn line(&mut self) -> Option<String> {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\r\n") {
            if self.0.read(&mut byte).unwrap() == 0 {
                assert!(line.is_empty(), "the head broke off");
                return None;
            }
            line.push(byte[0]);
        }
        line.truncate(line.len() - 2);
        Some(String::from_utf8(line).unwrap())
    }

    /// Reads status and headers; `None` if the connection ended without an answer.
    pub fn head(&mut self) -> Option<Got> {
        let first = self.line()?;
        let status = first.strip_prefix("HTTP/1.1 ").unwrap().get(..3).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line().expect("the head broke off");
            if line.is_empty() {
                return Some(Got { status, headers, body: Vec::new() });
            }
            let (name, value) = line.split_once(": ").unwrap();
            headers.push((name.to_owned(), value.to_owned()));
        }
    }

    /// Reads a body of the announced length, or what comes of it.
    pub fn body(&mut self, got: &mut Got) {
        let len = got.header("Content-Length").map_or(0, |n| n.parse().unwrap());
        (&mut self.0).take(len).read_to_end(&mut got.body).unwrap();
    }

    pub fn round_trip(&mut self, method: &str, target: &str, extra: &[(&str, &str)]) -> Got {
        self.send(method, target, extra);
        let mut got = self.head().expect("no answer");
        if method != "HEAD" && got.status != 304 {
            self.body(&mut got);
        }
        got
    }

    pub fn get(&mut self, target: &str, extra: &[(&str, &str)]) -> Got {
        self.round_trip("GET", target, extra)
    }
}

/// A root folder with one bucket `b`, and files beside it.
pub struct Rig {
    pub folder: TempDir,
}

impl Rig {
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir_all(folder.path().join("root/b")).unwrap();
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of bucket `b` by rename.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.path("root/b").join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let partial = self.path("partial");
        fs::write(&partial, bytes).unwrap();
        fs::rename(&partial, path).unwrap();
    }

    /// Anonymous, with a log.
    pub fn config(&self) -> Config {
        Config { anonymous: true, log: Some(self.path("log")), ..Config::new(self.path("root")) }
    }

    pub fn start(&self) -> Endpoint {
        Endpoint::start(&self.config()).unwrap()
    }

    /// An endpoint with fault rules.
    pub fn start_with(&self, rules: &str) -> Endpoint {
        fs::write(self.path("faults"), rules).unwrap();
        Endpoint::start(&Config { faults: Some(self.path("faults")), ..self.config() }).unwrap()
    }

    /// The first `count` log lines; waits for them, since a line follows its answer.
    pub fn log(&self, count: usize) -> Vec<Value> {
        read_log(&self.path("log"), count)
    }
}

pub fn read_log(path: &Path, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
        if whole.lines().count() >= count {
            return whole.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        }
        assert!(Instant::now() < deadline, "only these log lines came: {whole}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Bytes that differ at every offset one is likely to confuse.
pub fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x9E37_79B9_7F4A_7C15u64;
    let next = |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..len).map(next).collect()
}

/// CRC-64/XZ bit by bit, from its definition.
pub fn crc64(bytes: &[u8]) -> u64 {
    let step = |crc: u64| (crc >> 1) ^ if crc & 1 == 1 { 0xC96C_5795_D787_0F42 } else { 0 };
    !bytes.iter().fold(!0, |crc, b| (0..8).fold(crc ^ u64::from(*b), |c, _| step(c)))
}
