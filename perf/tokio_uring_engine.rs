//! The same download by tokio-uring, the ready-made engine that the product does not use: one thread, one task for
//! each connection, reads of 1 MiB straight into the parts' places. Measured beside `floor` and `engine`, so that the
//! choice stays a number.

use crate::error::{Error, Result, Tried};
use crate::figures::Figures;
use crate::floor::{HEAD_BYTES_MAX, parse, prove, request};
use crate::meter::Meter;
use crate::space::Space;
use crate::target::{Target, Wanted};
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use tokio_uring::buf::{IoBuf, IoBufMut};
use tokio_uring::net::TcpStream;

/// Bytes of one read: larger ones gain nothing.
const READ_BYTES: usize = 1 << 20;

/// Arguments of `tokio-uring`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    wanted: Wanted,
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let wanted = &args.wanted;
    let space = Rc::new(Space::make(wanted)?);
    let target = Rc::new(wanted.target_of(false)?);
    let meter = Meter::start()?;
    let crc64 = tokio_uring::start(receive(wanted, &target, &space))?;
    let used = meter.stop()?;
    let proof = prove(wanted, &space, crc64)?;
    Figures::new(format!("tokio-uring {}", wanted.memory.name()), wanted.size, used, proof)?.print(wanted.json)
}

async fn receive(wanted: &Wanted, target: &Rc<Target>, space: &Rc<Space>) -> Result<Option<u64>> {
    let next = Rc::new(Cell::new(0));
    let parts: Rc<[Range<u64>]> = (0..wanted.parts()).map(|index| wanted.part(index)).collect();
    let mut tasks = Vec::new();
    for slot in 0..usize::from(wanted.connections) {
        let (target, space, next, parts) = (Rc::clone(target), Rc::clone(space), Rc::clone(&next), Rc::clone(&parts));
        let size = wanted.size;
        tasks.push(tokio_uring::spawn(async move { connection(&target, &space, slot, &next, &parts, size).await }));
    }
    let mut crc64 = None;
    for task in tasks {
        let ended = task.await.map_err(|e| Error::Wrong(format!("a task failed: {e}")))??;
        crc64 = crc64.or(ended);
    }
    Ok(crc64)
}

async fn connection(
    target: &Target,
    space: &Space,
    slot: usize,
    next: &Cell<usize>,
    parts: &[Range<u64>],
    size: u64,
) -> Result<Option<u64>> {
    let address = *target.addresses.first().ok_or_else(|| Error::Wrong("no address".into()))?;
    let stream = TcpStream::connect(address).await.tried(|| format!("connect to {address}"))?;
    let mut crc64 = None;
    while let Some(range) = parts.get(next.get()) {
        next.set(next.get() + 1);
        let place = Place { at: space.place(slot, range)?, len: (range.end - range.start) as usize, filled: 0 };
        crc64 = part(&stream, target, range, size, place).await?.or(crc64);
        space.settle(range);
    }
    Ok(crc64)
}

async fn part(
    stream: &TcpStream,
    target: &Target,
    range: &Range<u64>,
    size: u64,
    mut place: Place,
) -> Result<Option<u64>> {
    let (sent, _) = stream.write_all(request(target, range).into_bytes()).await;
    sent.tried(|| "send the request".into())?;
    let mut bytes: Vec<u8> = Vec::with_capacity(HEAD_BYTES_MAX);
    let head = loop {
        let (came, more) = stream.read(vec![0; 1024]).await;
        let came = came.tried(|| "receive".into())?;
        bytes.extend(&more[..came]);
        if let Some(head) = parse(&bytes, range, size)? {
            break head;
        }
        if came == 0 || bytes.len() >= HEAD_BYTES_MAX {
            return Err(Error::Wrong(format!("no head within {} bytes", bytes.len())));
        }
    };
    place.copy_in(&bytes[head.len..])?;
    while place.filled < place.len {
        let (came, back) = stream.read(Rest(place)).await;
        place = back.0;
        match came.tried(|| "receive".into())? {
            0 => return Err(Error::Wrong("the server closed the connection in the middle of an answer".into())),
            came => place.filled += came,
        }
    }
    Ok(head.crc64)
}

/// The place of a part, filled from its beginning. Only the task that has it writes there.
struct Place {
    at: *mut u8,
    len: usize,
    filled: usize,
}

impl Place {
    fn copy_in(&mut self, early: &[u8]) -> Result<()> {
        if early.len() > self.len {
            return Err(Error::Wrong("more bytes than were asked for".into()));
        }
        // SAFETY: the place has room for `len` bytes, which this task alone writes.
        unsafe { std::ptr::copy_nonoverlapping(early.as_ptr(), self.at, early.len()) };
        self.filled = early.len();
        Ok(())
    }
}

/// The unfilled rest of a place, at most one read of it, as a buffer for the kernel.
struct Rest(Place);

// SAFETY: the place is mapped until the process ends and does not move; see `Place` for who writes.
unsafe impl IoBuf for Rest {
    fn stable_ptr(&self) -> *const u8 {
        self.0.at.wrapping_add(self.0.filled)
    }

    fn bytes_init(&self) -> usize {
        0
    }

    fn bytes_total(&self) -> usize {
        (self.0.len - self.0.filled).min(READ_BYTES)
    }
}

// SAFETY: as above.
unsafe impl IoBufMut for Rest {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.0.at.wrapping_add(self.0.filled)
    }

    unsafe fn set_init(&mut self, _: usize) {}
}
