//! The least a download by https can cost here with rustls: range requests over kept connections, each record opened
//! in a small buffer and copied to its place; blocking threads or one thread with epoll. Does none of what a product
//! must do beyond checking that an answer is the one that was asked for. Held against the engine by the rows of perf/speed.

use crate::error::{Error, Result, Tried};
use crate::figures::Figures;
use crate::floor::{STALL_MAX, prove};
use crate::http::request;
use crate::meter::Meter;
use crate::space::Space;
use crate::target::{Target, Wanted};
use crate::tls::{self, Part, Session, records::Records, unbuffered::Unbuffered};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Readiness reports taken at once.
const REPORTS: usize = 64;

/// Receive buffer of a handshake whose records are then opened elsewhere.
const HANDSHAKE_BYTES: usize = 32 << 10;

/// Who waits for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Wait {
    /// One blocking thread per connection.
    Threads,
    /// One thread, epoll, SO_RCVLOWAT.
    Epoll,
}

/// Which interface of rustls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Api {
    /// Records are opened in a buffer of ours.
    Unbuffered,
    /// The handshake only; records are opened by ourselves, in their places.
    Own,
}

/// Arguments of `floor-tls`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    wanted: Wanted,
    // Of seven rounds, 16 connections, scratch memory: epoll 0.68 CPU-s/GB with 128 KiB, 0.79 with 64, 0.72 with 256 and
    // 0.74 with 512; threads 0.80 with 128, 0.70 with 512, and 0.89 by rustls' ordinary interface. Floor 0.48, with AES-GCM 0.63. Own records,
    // another time: 0.59 against 0.79.
    /// Bytes of a connection's buffer for sealed records (unbuffered), or of one receive (own).
    #[arg(long, value_name = "BYTES", default_value_t = 128 << 10, value_parser = clap::value_parser!(u32).range(32768..=4194304))]
    input: u32,
    /// Who waits for bytes.
    #[arg(long, value_enum, default_value_t = Wait::Epoll)]
    wait: Wait,
    /// Which interface of rustls.
    #[arg(long, value_enum, default_value_t = Api::Unbuffered)]
    api: Api,
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let wanted = &args.wanted;
    let space = Space::make(wanted)?;
    let target = wanted.target_of(true)?;
    let (config, name) = (tls::config(wanted)?, tls::name(&target)?);
    let floor = Floor { args, target, space, config, name, next: AtomicU64::new(0) };
    let meter = Meter::start()?;
    let crc64 = match args.wait {
        Wait::Threads => floor.threads()?,
        Wait::Epoll => floor.epoll()?,
    };
    let used = meter.stop()?;
    let proof = prove(wanted, &floor.space, crc64)?;
    let api = match args.api {
        Api::Unbuffered => "",
        Api::Own => " own records",
    };
    Figures::new(format!("floor-tls{api} {}", wanted.memory.name()), wanted.size, used, proof)?.print(wanted.json)
}

struct Floor<'a> {
    args: &'a Args,
    target: Target,
    space: Space,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    next: AtomicU64,
}

/// A connection with the part it receives.
struct Open<'a> {
    stream: TcpStream,
    session: Box<dyn Session>,
    part: Part<'a>,
    /// As set last.
    lowat: usize,
}

impl Floor<'_> {
    fn connect(&self) -> Result<(TcpStream, Box<dyn Session>)> {
        let mut stream = self.target.connect(STALL_MAX)?;
        let (config, name) = (Arc::clone(&self.config), self.name.clone());
        let session: Box<dyn Session> = match self.args.api {
            Api::Unbuffered => Box::new(Unbuffered::open(config, name, &mut stream, self.args.input as usize)?),
            Api::Own => {
                let session = Unbuffered::open(config, name, &mut stream, HANDSHAKE_BYTES)?;
                Box::new(Records::after(session, self.args.input as usize)?)
            }
        };
        Ok((stream, session))
    }

    /// The next part of the object, asked for.
    fn request_next_part(
        &self,
        slot: usize,
        stream: &mut TcpStream,
        session: &mut dyn Session,
    ) -> Result<Option<Part<'_>>> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let wanted = &self.args.wanted;
        if index >= wanted.parts() {
            return Ok(None);
        }
        let range = wanted.part(index);
        let at = self.space.place(slot, &range)?;
        let len = (range.end - range.start) as usize;
        // SAFETY: the place has room for the part; the counter gives each part, and with scratch memory each
        // slot, to this caller alone.
        let body = unsafe { std::slice::from_raw_parts_mut(at, len) };
        session.request(stream, request(&self.target, &range).as_bytes())?;
        Ok(Some(Part::new(range, wanted.size, body)))
    }

    fn threads(&self) -> Result<Option<u64>> {
        let ended = std::thread::scope(|scope| {
            let started: Vec<_> = (0..usize::from(self.args.wanted.connections))
                .map(|slot| scope.spawn(move || self.thread(slot)))
                .collect();
            started.into_iter().map(|thread| thread.join().expect("no thread panics")).collect::<Result<Vec<_>>>()
        })?;
        Ok(ended.into_iter().flatten().next())
    }

    fn thread(&self, slot: usize) -> Result<Option<u64>> {
        let (mut stream, mut session) = self.connect()?;
        let mut crc64 = None;
        while let Some(mut part) = self.request_next_part(slot, &mut stream, &mut *session)? {
            while part.missing() > 0 {
                session.receive(&mut stream, &mut part, true)?;
            }
            crc64 = part.crc64.or(crc64);
        }
        Ok(crc64)
    }

    fn epoll(&self) -> Result<Option<u64>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(os).tried(|| "epoll_create".into())?;
        let mut open = Vec::new();
        for slot in 0..usize::from(self.args.wanted.connections) {
            let (mut stream, mut session) = self.connect()?;
            let Some(part) = self.request_next_part(slot, &mut stream, &mut *session)? else { break };
            stream.set_nonblocking(true).tried(|| "O_NONBLOCK".into())?;
            let mark = epoll::EventData::new_u64(slot as u64);
            epoll::add(&epoll, &stream, mark, epoll::EventFlags::IN).map_err(os).tried(|| "epoll_ctl".into())?;
            open.push(Some(Open { stream, session, part, lowat: 1 }));
        }
        let (mut left, mut crc64) = (open.len(), None);
        let mut reports = Vec::with_capacity(REPORTS);
        while left > 0 {
            let stall = rustix::event::Timespec::try_from(STALL_MAX).ok();
            reports.clear();
            epoll::wait(&epoll, spare_capacity(&mut reports), stall.as_ref()).map_err(os).tried(|| "wait".into())?;
            if reports.is_empty() {
                return Err(Error::Wrong("no byte came for a long time".into()));
            }
            for report in reports.drain(..) {
                let slot = report.data.u64() as usize;
                let Some(conn) = &mut open[slot] else { continue };
                if self.turn(slot, conn)? {
                    crc64 = conn.part.crc64.or(crc64);
                    open[slot] = None;
                    left -= 1;
                }
            }
        }
        Ok(crc64)
    }

    /// One receive; true if there is nothing more to ask for.
    fn turn<'a>(&'a self, slot: usize, conn: &mut Open<'a>) -> Result<bool> {
        let Open { stream, session, part, lowat } = conn;
        session.receive(stream, part, false)?;
        if part.missing() == 0 {
            let crc64 = part.crc64;
            match self.request_next_part(slot, stream, &mut **session)? {
                Some(next) => *part = next,
                None => return Ok(true),
            }
            part.crc64 = crc64;
        }
        let mark = session.lowat(part.missing());
        if mark != *lowat {
            *lowat = mark;
            set_lowat(stream, mark)?;
        }
        Ok(false)
    }
}

fn os(errno: rustix::io::Errno) -> std::io::Error {
    errno.into()
}

fn set_lowat(stream: &TcpStream, bytes: usize) -> Result<()> {
    let value = bytes as libc::c_int;
    let (at, len) = ((&raw const value).cast(), size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: `value` outlives the call, and `len` is its size.
    let rc = unsafe { libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, at, len) };
    if rc == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).tried(|| "SO_RCVLOWAT".into()) }
}
