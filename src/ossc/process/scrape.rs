//! `metricsListen`: GET /metrics over HTTP/1.1, for a Prometheus that scrapes the engine itself.
//!
//! Started by the engine where the configuration names an address; the body of the thread `ossc-metrics`. A scrape waits for
//! no lock that a reader's bytes wait for, and costs at most one page a second, however many ask. Connections are few, short
//! and bounded; the oldest gives way to a new one, so that connections which say nothing keep no scrape out. It answers
//! nothing else, takes no body, and knows no user: what it says is in `exposition`, without a secret.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connections at a time, and those that are taken between two looks at them all.
const CONNECTIONS_MAX: usize = 16;
/// What still comes behind a request is read up to so much: a body, or another request.
const REST_BYTES_MAX: usize = 64 << 10;
/// A longer head is no scrape.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// A connection has so long from its begin to its end.
const ALL_WITHIN: Duration = Duration::from_secs(10);
/// A page that is not older is given again.
const FRESH: Duration = Duration::from_secs(1);
/// How often an address that cannot be had is tried again, and how long the thread leaves be what the kernel refuses.
const BIND_AGAIN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// What makes a page.
pub type MakePage = Box<dyn Fn() -> String + Send>;

/// The thread, for ever. `listener` is what could be had of the address at the start.
pub fn run(address: SocketAddr, listener: std::io::Result<TcpListener>, make: &MakePage) -> ! {
    let mut tried = listener;
    let listener = loop {
        match tried.and_then(|listener| listener.set_nonblocking(true).map(|()| listener)) {
            Ok(listener) => break listener,
            Err(e) => tracing::debug!("metricsListen {address}: {e}"),
        }
        std::thread::sleep(BIND_AGAIN);
        tried = TcpListener::bind(address);
    };
    let at = listener.local_addr().unwrap_or(address);
    tracing::info!(%at, "metrics are served");
    let mut scraper = Scraper { listener, peers: Vec::new(), page: None };
    loop {
        scraper.turn(make);
    }
}

struct Scraper {
    listener: TcpListener,
    peers: Vec<Peer>,
    page: Option<(Instant, Arc<str>)>,
}

impl Scraper {
    /// Waits until there is something to do, and does it.
    fn turn(&mut self, make: &MakePage) {
        if self.wait() {
            self.accept();
        }
        let now = Instant::now();
        let page = &mut self.page;
        let mut fresh = || {
            if page.as_ref().is_none_or(|(made, _)| now.saturating_duration_since(*made) >= FRESH) {
                *page = Some((now, make().into()));
            }
            page.as_ref().map_or_else(|| "".into(), |(_, text)| text.clone())
        };
        self.peers.retain_mut(|peer| now < peer.begun + ALL_WITHIN && peer.goes_on(&mut fresh));
    }

    /// True if a connection has come.
    fn wait(&self) -> bool {
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        fds.extend(self.peers.iter().map(|peer| PollFd::new(&peer.stream, peer.waits_for())));
        let end = self.peers.iter().map(|peer| peer.begun + ALL_WITHIN).min();
        let left = end.map(|end| end.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        let left = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
        let is_refused = matches!(poll(&mut fds, left.as_ref()), Err(e) if e != rustix::io::Errno::INTR);
        let has_come = !fds[0].revents().is_empty();
        if is_refused {
            std::thread::sleep(PAUSE);
        }
        has_come
    }

    fn accept(&mut self) {
        for _ in 0..CONNECTIONS_MAX {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                // Of one connection, or no descriptor is free.
                Err(_) => {
                    self.peers.clear();
                    return std::thread::sleep(PAUSE);
                }
            };
            if self.peers.len() >= CONNECTIONS_MAX {
                self.peers.remove(0);
            }
            if stream.set_nonblocking(true).is_ok() {
                self.peers.push(Peer { stream, begun: Instant::now(), at: At::Asks(Vec::new()) });
            }
        }
    }
}

/// One connection. They stand in the order in which they came.
struct Peer {
    stream: TcpStream,
    begun: Instant,
    at: At,
}

enum At {
    /// The request so far.
    Asks(Vec<u8>),
    /// Head and body of the answer, and how much of both is sent.
    IsAnswered(String, Arc<str>, usize),
    /// Nothing more is sent; what still comes is read, or the kernel would take the answer back. So much of it was read.
    Ends(usize),
}

impl Peer {
    fn waits_for(&self) -> PollFlags {
        if matches!(self.at, At::IsAnswered(..)) { PollFlags::OUT } else { PollFlags::IN }
    }

    /// False once there is no more to do.
    fn goes_on(&mut self, page: &mut impl FnMut() -> Arc<str>) -> bool {
        loop {
            match &mut self.at {
                At::Asks(head) => match read(&mut self.stream, head) {
                    Ok(()) => {
                        if let Some((head, body)) = answer(head, page) {
                            self.at = At::IsAnswered(head, body, 0);
                        }
                    }
                    Err(e) => return is_for_later(&e),
                },
                At::IsAnswered(head, body, sent) => {
                    let left = match head.as_bytes().get(*sent..).filter(|left| !left.is_empty()) {
                        Some(left) => left,
                        None => &body.as_bytes()[*sent - head.len()..],
                    };
                    match self.stream.write(left) {
                        _ if left.is_empty() => {
                            let _ = self.stream.shutdown(Shutdown::Write);
                            self.at = At::Ends(0);
                        }
                        Ok(count) => *sent += count,
                        Err(e) => return is_for_later(&e),
                    }
                }
                At::Ends(read) => match self.stream.read(&mut [0; 1024]) {
                    Ok(1..) if *read >= REST_BYTES_MAX => return false,
                    Ok(0) => return false,
                    Ok(count) => *read += count,
                    Err(e) => return is_for_later(&e),
                },
            }
        }
    }
}

/// The next turn tries again.
fn is_for_later(e: &std::io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// More of the request; an end of the stream is an error, since nothing was asked.
fn read(stream: &mut TcpStream, head: &mut Vec<u8>) -> std::io::Result<()> {
    let mut room = [0; 1024];
    match stream.read(&mut room)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        count => {
            head.extend_from_slice(&room[..count]);
            Ok(())
        }
    }
}

/// Head and body of the answer; `None` while the request is not whole.
fn answer(request: &[u8], page: &mut impl FnMut() -> Arc<str>) -> Option<(String, Arc<str>)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let (status, more) = match parsed.parse(request) {
        Ok(httparse::Status::Partial) if request.len() < HEAD_BYTES_MAX => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            ("431 Request Header Fields Too Large", "")
        }
        Err(_) => ("400 Bad Request", ""),
        Ok(httparse::Status::Complete(_)) if parsed.method != Some("GET") => {
            ("405 Method Not Allowed", "Allow: GET\r\n")
        }
        Ok(httparse::Status::Complete(_)) => match parsed.path.map(|path| path.split('?').next().unwrap_or_default()) {
            Some("/metrics") => ("200 OK", ""),
            _ => ("404 Not Found", ""),
        },
    };
    let (kind, body) = match status {
        "200 OK" => ("text/plain; version=0.0.4; charset=utf-8", page()),
        _ => ("text/plain; charset=utf-8", format!("{status}: this answers GET /metrics\n").into()),
    };
    let len = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\n{more}Content-Type: {kind}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n"
    );
    Some((head, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_get_of_the_page_gets_it() {
        let status = |request: &[u8]| {
            let answer = answer(request, &mut || "page".into());
            answer.map(|(head, body)| (head["HTTP/1.1 ".len()..][..3].to_string(), body.len()))
        };
        let of = |request: &str| status(request.as_bytes()).map(|(code, _)| code).unwrap_or_default();
        assert_eq!(status(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), Some(("200".into(), 4)));
        assert_eq!(of("GET /metrics?x=1 HTTP/1.0\r\n\r\n"), "200");
        assert_eq!(of("GET /metrics HTTP/1.1\r\n"), "");
        assert_eq!(of("GET / HTTP/1.1\r\n\r\n"), "404");
        assert_eq!(of("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"), "405");
        assert_eq!(of("\u{16}\u{3}\u{1}\u{2}\u{0}hello"), "400");
        assert_eq!(of(&format!("GET /metrics HTTP/1.1\r\nA: {}", "x".repeat(HEAD_BYTES_MAX))), "431");
        assert_eq!(of(&format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65))), "431");
    }

    /// A thread of its own that gives a page of 1 MiB.
    fn serving() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let make: MakePage = Box::new(|| "x".repeat(1 << 20));
        std::thread::spawn(move || run(address, Ok(listener), &make));
        address
    }

    #[test]
    fn who_sends_without_an_end_is_left() {
        let mut endless = TcpStream::connect(serving()).unwrap();
        endless.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        // More than the kernel has room for between the two.
        let taken = (0..1024).take_while(|_| endless.write_all(&[b'x'; 1 << 20]).is_ok()).count();
        assert!(taken < 256, "{taken} MiB were taken");
    }

    #[test]
    fn connections_that_say_nothing_keep_no_scrape_out() {
        let address = serving();
        let _silent: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut scrape = TcpStream::connect(address).unwrap();
        scrape.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let mut text = String::new();
        scrape.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with(&"x".repeat(1 << 20)), "{}", &text[..200]);
    }
}
