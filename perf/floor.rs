//! The least a download can cost here: one thread per connection, blocking receives of range requests straight
//! into memory, no events, no checksum. Compared with by `compare`. Does none of what a product must do beyond
//! checking that an answer is the one that was asked for.

use crate::error::{Error, Result, Tried};
use crate::figures::Figures;
use crate::http::{HEAD_BYTES_MAX, Head, parse, request};
use crate::meter::Meter;
use crate::space::Space;
use crate::splice;
use crate::target::{Target, Wanted};
use crate::tls::RECORD_BYTES_MAX;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::io::{self, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Longest wait for a byte; a floor that hangs is no floor.
pub const STALL_MAX: Duration = Duration::from_secs(20);
/// Bytes of one receive of a head; what it takes of the body is copied (at most 1 in 8192 bytes).
const HEAD_BYTES: usize = 1 << 10;
/// Arguments of `floor`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    wanted: Wanted,
    /// Bytes of one receive call. A whole part was the cheapest (0.29 CPU-s/GB, with 1 MiB 0.33).
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20, value_parser = clap::value_parser!(u32).range(4096..))]
    block: u32,
    /// Move the bytes by splice (socket, pipe, memory file): no page is zeroed or faulted in. Not with scratch memory.
    #[arg(long)]
    splice: bool,
    /// Seal what each receive call brought with AES-128-GCM, in place and in records of 16 KiB: the cipher's work of
    /// https and nothing else of it.
    #[arg(long, conflicts_with_all = ["splice", "verify"])]
    aead: bool,
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let wanted = &args.wanted;
    let space = Space::make(wanted)?;
    let target = wanted.target_of(false)?;
    let meter = Meter::start()?;
    let crc64 = receive(args, &target, &space)?;
    let used = meter.stop()?;
    let proof = prove(wanted, &space, crc64)?;
    let name = match (args.splice, args.aead) {
        (true, _) => "splice floor",
        (_, true) => "floor and AES-GCM",
        _ => "floor",
    };
    Figures::new(format!("{name} {}", wanted.memory.name()), wanted.size, used, proof)?.print(wanted.json)
}

/// Compares what was received with what the origin says, if asked to.
pub fn prove(wanted: &Wanted, space: &Space, expected: Option<u64>) -> Result<Option<String>> {
    if !wanted.verify {
        return Ok(None);
    }
    match (space.crc64(wanted.size), expected) {
        (Some(found), Some(expected)) if found == expected => Ok(Some("crc64 of the memory ok".into())),
        (Some(found), Some(expected)) => Err(Error::Wrong(format!(
            "{}: the bytes received have CRC-64 {found}, the origin says {expected}",
            wanted.url
        ))),
        (Some(_), None) => Err(Error::Wrong(format!("{}: the origin sends no CRC-64 to compare with", wanted.url))),
        (None, _) => Err(Error::Wrong("scratch memory keeps no bytes that could be verified".into())),
    }
}

/// All parts by all connections; the object's CRC-64 as the origin says it.
fn receive(args: &Args, target: &Target, space: &Space) -> Result<Option<u64>> {
    let next = AtomicU64::new(0);
    let outcome = Mutex::new(Ok(None));
    std::thread::scope(|scope| {
        for slot in 0..usize::from(args.wanted.connections) {
            let (next, outcome) = (&next, &outcome);
            scope.spawn(move || {
                let ended = connection(args, target, space, slot, next);
                if ended.is_err() {
                    next.store(args.wanted.parts(), Ordering::Relaxed);
                }
                let mut outcome = outcome.lock().expect("no holder of the lock panics");
                // The first error stays; connections that had no part say nothing.
                if outcome.is_ok() && !matches!(ended, Ok(None)) {
                    *outcome = ended;
                }
            });
        }
    });
    outcome.into_inner().expect("no holder of the lock panics")
}

fn connection(args: &Args, target: &Target, space: &Space, slot: usize, next: &AtomicU64) -> Result<Option<u64>> {
    let mut conn: Option<Conn> = None;
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= args.wanted.parts() {
            return Ok(conn.and_then(|conn| conn.crc64));
        }
        let range = args.wanted.part(index);
        let open = match &mut conn {
            Some(open) => open,
            none => none.insert(Conn::open(target, args.aead)?),
        };
        let failed = |error: Error| Error::Wrong(format!("GET {} bytes {range:?}: {error}", args.wanted.url));
        if args.splice {
            open.crc64 =
                splice::get(&open.stream, target, &range, args.wanted.size, space).map_err(failed)?.or(open.crc64);
            continue;
        }
        let at = space.place(slot, &range)?;
        let len = (range.end - range.start) as usize;
        // SAFETY: the place has room for the part; the counter gives each part, and with scratch memory each
        // slot, to this thread alone.
        let body = unsafe { std::slice::from_raw_parts_mut(at, len) };
        open.get(target, &range, body, args).map_err(failed)?;
    }
}

struct Conn {
    stream: TcpStream,
    crc64: Option<u64>,
    aead: Option<LessSafeKey>,
}

impl Conn {
    fn open(target: &Target, aead: bool) -> Result<Conn> {
        let stream = target.connect(STALL_MAX)?;
        // Any key: what it seals is thrown away.
        let key = || UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(|_| Error::Wrong("no AES-GCM".into()));
        let aead = aead.then(key).transpose()?.map(LessSafeKey::new);
        Ok(Conn { stream, crc64: None, aead })
    }

    /// Requests `range` and fills `body`, which has exactly its length.
    fn get(&mut self, target: &Target, range: &Range<u64>, body: &mut [u8], args: &Args) -> Result<()> {
        let request = request(target, range);
        self.stream.write_all(request.as_bytes()).tried(|| "send the request".into())?;
        let (head, early) = self.head(range, args.wanted.size)?;
        if early.len() > body.len() {
            return Err(Error::Wrong("more bytes than were asked for".into()));
        }
        body[..early.len()].copy_from_slice(&early);
        self.body(&mut body[early.len()..], args)?;
        self.crc64 = head.crc64.or(self.crc64);
        Ok(())
    }

    /// The head of the answer, and the first bytes of its body, which came with it.
    fn head(&self, range: &Range<u64>, size: u64) -> Result<(Head, Vec<u8>)> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES_MAX);
        loop {
            if bytes.len() >= HEAD_BYTES_MAX {
                return Err(Error::Wrong(format!("a head of more than {HEAD_BYTES_MAX} bytes")));
            }
            let begun = bytes.len();
            bytes.resize(begun + HEAD_BYTES, 0);
            let came = self.recv(&mut bytes[begun..], 0)?;
            bytes.truncate(begun + came);
            if let Some(head) = parse(&bytes, range, size)? {
                let early = bytes.split_off(head.len);
                return Ok((head, early));
            }
        }
    }

    /// SO_RCVLOWAT, which saves the engine most of its wake-ups, is not for blocking receives: one that has taken
    /// less than the mark waits for the mark again, and a tail that is shorter never wakes it.
    fn body(&self, mut rest: &mut [u8], args: &Args) -> Result<()> {
        while !rest.is_empty() {
            let block = rest.len().min(args.block as usize);
            let came = self.recv(&mut rest[..block], libc::MSG_WAITALL)?;
            self.seal(&mut rest[..came])?;
            rest = &mut rest[came..];
        }
        Ok(())
    }

    /// Sealing is the same work as opening, which would end with an error and wipe what is not sealed.
    fn seal(&self, bytes: &mut [u8]) -> Result<()> {
        let Some(key) = &self.aead else { return Ok(()) };
        for record in bytes.chunks_mut(RECORD_BYTES_MAX) {
            let nonce = Nonce::assume_unique_for_key([0; 12]);
            let tag = key.seal_in_place_separate_tag(nonce, Aad::from([0; 5]), record);
            let _tag = tag.map_err(|_| Error::Wrong("AES-GCM failed".into()))?;
        }
        Ok(())
    }

    fn recv(&self, into: &mut [u8], flags: i32) -> Result<usize> {
        loop {
            // SAFETY: the kernel writes at most the length of a slice that is borrowed for the call.
            let n = unsafe { libc::recv(self.stream.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), flags) };
            match n {
                1.. => return Ok(n as usize),
                0 => return Err(Error::Wrong("the server closed the connection in the middle of an answer".into())),
                _ => {
                    let os = io::Error::last_os_error();
                    if os.kind() != io::ErrorKind::Interrupted {
                        return Err(os).tried(|| "receive".into());
                    }
                }
            }
        }
    }
}
