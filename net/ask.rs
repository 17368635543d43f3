//! One question to a service beside OSS, from which credentials come: the metadata service of an
//! ECS instance, the Security Token Service. Called by the engine's credential sources on a thread
//! that may wait. Every request has its own connection and one deadline for all of it.
//!
//! Never called on a vcpu thread, never retries, follows no redirect, and repeats nothing of a question
//! but method and path in an error: the rest may hold tokens.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use crate::answer::{self, Framing};
use crate::error::{Phase, printable};
use crate::http1::{self, HEAD_BYTES_MAX};
use crate::resolve;
use crate::tls::Tls;

/// Longest answer that is read (bytes): documents of credentials have one or two thousand.
const BODY_BYTES_MAX: u64 = 64 << 10;

/// Where a service is.
#[derive(Clone, Debug)]
pub struct Service {
    /// A name or an IP literal, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Value of the Host header.
    pub host_header: String,
    /// `None` for plain http.
    pub tls: Option<Tls>,
}

/// What is asked.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// Upper-case HTTP method.
    pub method: &'a str,
    /// Path and query, encoded.
    pub target: &'a str,
    /// Further headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// Encoded pairs for the body; empty for none.
    pub form: &'a str,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Decoded from chunks; never compressed.
    pub body: Vec<u8>,
}

impl Service {
    /// Sends one question; the answer must be whole within `limit`.
    ///
    /// # Errors
    /// Text that says how far it came and what went wrong.
    pub fn round_trip(&self, question: &Question<'_>, limit: Duration) -> Result<Answer, String> {
        let (method, path) = (question.method, question.target.split('?').next().unwrap_or_default());
        let failed = |why: String| printable(&format!("{method} {}{path}: {why}", self.host_header));
        let until = Instant::now() + limit;
        let request = self.request(question).map_err(failed)?;
        let socket = self.connect(until).map_err(failed)?;
        let outcome = match &self.tls {
            None => exchange(socket, &request),
            Some(tls) => match ClientConnection::new(Arc::clone(tls.config()), tls.name().clone()) {
                Ok(session) => exchange(StreamOwned::new(session, socket), &request),
                Err(cause) => Err(io::Error::other(cause)),
            },
        };
        outcome.map_err(|os| failed(self.in_words(&os, limit)))
    }

    fn request(&self, question: &Question<'_>) -> Result<Vec<u8>, String> {
        let Question { method, target, headers, form } = question;
        let mut text = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nUser-Agent: oss-connector\r\nAccept-Encoding: identity\r\n\
             Connection: close\r\nContent-Length: {}\r\n",
            self.host_header,
            form.len()
        );
        for (name, value) in *headers {
            if value.bytes().any(|byte| byte.is_ascii_control()) {
                return Err(format!("the value of {name} has control characters"));
            }
            text += &format!("{name}: {value}\r\n");
        }
        if !form.is_empty() {
            text += "Content-Type: application/x-www-form-urlencoded\r\n";
        }
        text += "\r\n";
        text += form;
        Ok(text.into_bytes())
    }

    /// To the first address that takes the connection.
    fn connect(&self, until: Instant) -> Result<Timed, String> {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let addresses = resolve::resolve(&self.host, self.port, left(until)).map_err(|e| e.message.to_string())?;
        let mut failures = Vec::new();
        for (tried, address) in addresses.iter().enumerate() {
            // The last address may take all the time that is left, the others their share.
            let share = left(until) / (addresses.len() - tried) as u32;
            if share.is_zero() {
                break;
            }
            match TcpStream::connect_timeout(address, share) {
                Ok(stream) => return Ok(Timed { stream, until }),
                Err(os) => failures.push(format!("connect to {address}: {os}")),
            }
        }
        Err(failures.join("; "))
    }

    fn in_words(&self, os: &io::Error, limit: Duration) -> String {
        let cause = os.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        match (cause, os.kind()) {
            (Some(cause), _) => crate::tls::in_words(&self.host, Phase::Tls, cause),
            (None, io::ErrorKind::TimedOut) => format!("no whole answer within {} ms", limit.as_millis()),
            (None, _) => os.to_string(),
        }
    }
}

/// A socket whose every operation ends by one deadline.
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

/// The kernel says `WouldBlock` when a timeout of the socket is over.
fn timed_out(os: io::Error) -> io::Error {
    if os.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { os }
}

impl Read for Timed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(bytes).map_err(timed_out)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn exchange(mut stream: impl Read + Write, request: &[u8]) -> io::Result<Answer> {
    stream.write_all(request)?;
    stream.flush()?;
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut bytes = Vec::with_capacity(4096);
    let head = loop {
        if let Some(head) = http1::parse(&bytes).map_err(|why| wrong(&why))? {
            break head;
        }
        if bytes.len() >= HEAD_BYTES_MAX {
            return Err(wrong("the head of the answer is too long"));
        }
        if more(&mut stream, &mut bytes)? == 0 {
            return Err(wrong("the service closed before it had answered"));
        }
    };
    if head.encoded {
        return Err(wrong("the answer is compressed, which was not asked for"));
    }
    let (mut framing, mut body) = (answer::framing(&head), Vec::new());
    let mut rest = bytes.split_off(head.len);
    while !framing.ended() {
        framing.decode_into(&rest, &mut body, BODY_BYTES_MAX).map_err(|why| wrong(&why))?;
        rest.clear();
        if !framing.ended() && more(&mut stream, &mut rest)? == 0 {
            match framing {
                Framing::Close => break,
                _ => return Err(wrong("the service closed before the answer was whole")),
            }
        }
    }
    Ok(Answer { status: head.status, body })
}

/// Appends what one read brings; 0 at the end of the stream.
fn more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let mut piece = [0; 4096];
    let n = loop {
        match stream.read(&mut piece) {
            Err(os) if os.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    bytes.extend_from_slice(&piece[..n]);
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const LIMIT: Duration = Duration::from_secs(10);

    fn get<'a>(target: &'a str, headers: &'a [(&'a str, &'a str)]) -> Question<'a> {
        Question { method: "GET", target, headers, form: "" }
    }

    /// Answers one connection with `answer` and hands out what it was asked.
    fn served(answer: &'static [u8]) -> (Service, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                assert_ne!(more(&mut stream, &mut asked).expect("request"), 0);
            }
            stream.write_all(answer).expect("answer");
            String::from_utf8(asked).expect("text")
        });
        let host = "127.0.0.1".to_owned();
        (Service { host_header: format!("{host}:{port}"), host, port, tls: None }, thread)
    }

    #[test]
    fn bodies_of_all_framings() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\nhello",
        ] {
            let (service, thread) = served(answer);
            let question = Question { method: "PUT", target: "/a?b=c", headers: &[("x-t", "1")], form: "" };
            let got = service.round_trip(&question, LIMIT).expect("an answer");
            assert_eq!((got.status, got.body.as_slice()), (200, &b"hello"[..]));
            let asked = thread.join().expect("server");
            assert!(asked.starts_with("PUT /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:"), "{asked}");
            assert!(asked.contains("\r\nx-t: 1\r\n"), "{asked}");
        }
    }

    #[test]
    fn failures_are_told_without_the_query() {
        for (answer, words) in [
            (&b""[..], "closed before it had answered"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "closed before the answer was whole"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", "longer than 65536 bytes"),
            (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", "compressed"),
            (b"220 smtp\r\n\r\n", "not HTTP/1"),
        ] {
            let (service, thread) = served(answer);
            let error = service.round_trip(&get("/a?Token=hidden", &[]), LIMIT).expect_err(words);
            thread.join().expect("server");
            assert!(error.contains(words) && error.starts_with("GET 127.0.0.1:"), "{error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }

    #[test]
    fn nobody_there_and_nobody_answering() {
        let (service, thread) = served(b"");
        let refused = Service { port: 1, ..service.clone() };
        assert!(
            refused.round_trip(&get("/", &[]), LIMIT).is_err_and(|error| error.contains("connect to 127.0.0.1:1: "))
        );
        let begin = Instant::now();
        // The rest of the request's head never comes, so the answer does not either.
        let silent = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = silent.local_addr().expect("address").port();
        let mute = Service { port, ..service.clone() };
        let error = mute.round_trip(&get("/", &[]), Duration::from_millis(100)).expect_err("too late");
        assert!(error.contains("no whole answer within 100 ms") && begin.elapsed() < LIMIT, "{error}");
        assert!(
            service.round_trip(&get("/", &[("a", "b\r\nc: d")]), LIMIT).is_err_and(|error| error.contains("control"))
        );
        let _ = service.round_trip(&get("/", &[]), LIMIT);
        thread.join().expect("server");
    }
}
