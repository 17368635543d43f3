//! The floor by splice: bytes go from the socket through a pipe into the memory file, whole pages at a time, so that
//! no page is zeroed before it is written and none is mapped. Used by `floor`. Plain HTTP only.

use crate::error::{Error, Result, Tried};
use crate::http::{HEAD_BYTES_MAX, parse, request};
use crate::space::Space;
use crate::target::Target;
use std::cell::OnceCell;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Room of the pipe in bytes, if the system allows it (fs.pipe-max-size is 1 MiB).
const PIPE_BYTES: libc::c_int = 1 << 20;

thread_local! {
    static PIPE: OnceCell<Pipe> = const { OnceCell::new() };
}

struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

/// Receives `range` into the memory file; the object's CRC-64 as the origin says it.
pub fn get(stream: &TcpStream, target: &Target, range: &Range<u64>, size: u64, space: &Space) -> Result<Option<u64>> {
    let file = space.fd().ok_or_else(|| Error::Wrong("scratch memory is no file to splice into".into()))?;
    let mut stream = stream;
    stream.write_all(request(target, range).as_bytes()).tried(|| "send the request".into())?;
    // Nothing of the body is taken with the head: the body begins with a whole page.
    let mut bytes = vec![0; HEAD_BYTES_MAX];
    let head = loop {
        let seen = stream.peek(&mut bytes).tried(|| "receive".into())?;
        if let Some(head) = parse(&bytes[..seen], range, size)? {
            break head;
        }
        if seen == 0 || seen == bytes.len() {
            return Err(Error::Wrong(format!("no head within {seen} bytes")));
        }
    };
    stream.read_exact(&mut bytes[..head.len]).tried(|| "receive".into())?;
    PIPE.with(|pipe| {
        if pipe.get().is_none() {
            let _set = pipe.set(Pipe::make()?);
        }
        pipe.get().map_or(Ok(()), |pipe| pipe.pass(stream.as_raw_fd(), file, range))
    })?;
    Ok(head.crc64)
}

impl Pipe {
    fn make() -> Result<Pipe> {
        let mut fds = [0; 2];
        // SAFETY: the array has room for two descriptors.
        if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
            return Err(io::Error::last_os_error()).tried(|| "pipe2".into());
        }
        // SAFETY: just made, and nobody else knows them.
        let [out, into] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: no pointers. A smaller pipe only means more calls.
        unsafe { libc::fcntl(into.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES) };
        Ok(Pipe { out, into })
    }

    fn pass(&self, from: i32, file: i32, range: &Range<u64>) -> Result<()> {
        let (mut taken, mut at) = (range.start, range.start as i64);
        while (at as u64) < range.end {
            if taken < range.end {
                taken += moved(from, None, self.into.as_raw_fd(), None, range.end - taken)?;
            }
            while (at as u64) < taken {
                let left = taken - at as u64;
                moved(self.out.as_raw_fd(), None, file, Some(&mut at), left)?;
            }
        }
        Ok(())
    }
}

fn moved(from: i32, from_at: Option<&mut i64>, to: i32, to_at: Option<&mut i64>, bytes: u64) -> Result<u64> {
    let place = |at: Option<&mut i64>| at.map_or(std::ptr::null_mut(), std::ptr::from_mut);
    let (from_at, to_at) = (place(from_at), place(to_at));
    loop {
        // SAFETY: the offsets are null or live for the call.
        let n = unsafe { libc::splice(from, from_at, to, to_at, bytes as usize, libc::SPLICE_F_MOVE) };
        match n {
            1.. => return Ok(n as u64),
            0 => return Err(Error::Wrong("the server closed the connection in the middle of an answer".into())),
            _ => {
                let os = io::Error::last_os_error();
                if os.kind() != io::ErrorKind::Interrupted {
                    return Err(os).tried(|| "splice".into());
                }
            }
        }
    }
}
