//! What lines are written to: a file of the engine's own, or a standard stream of a program.
//!
//! Called by the journal's thread alone. A file that was moved away or removed is opened again by its path (logrotate's
//! `create`), and one that was cut off goes on at its new end (`copytruncate`). What cannot be written at once is not
//! waited for: the caller counts it.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::net::SendFlags;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often it is asked whether the path still leads to the file.
const LOOKED_AGAIN: Duration = Duration::from_secs(1);
/// A pipe that polls as writable takes so much in one write without waiting (PIPE_BUF of Linux).
const AT_ONCE: usize = 4096;

/// See the module.
pub struct Sink {
    to: To,
    /// The last line was written in part: the next one begins behind a line break.
    is_torn: bool,
}

enum To {
    /// Opened by this path with these flags, and looked at last then.
    Path { file: File, path: PathBuf, flags: i32, looked: Instant },
    /// A program has it too, so its flags are left as they are.
    Stream(OwnedFd),
    /// The same; the stream is a socket.
    Socket(OwnedFd),
}

impl Sink {
    /// A file, made if it is missing, with these flags of open(2) beside the usual ones.
    ///
    /// # Errors
    /// The kernel's. A FIFO without a reader is one (ENXIO): the engine does not wait for it.
    pub fn open(path: &Path, flags: i32) -> Result<Sink> {
        let file = opened(path, flags)?;
        let to = To::Path { file, path: path.to_path_buf(), flags, looked: Instant::now() };
        Ok(Sink { to, is_torn: false })
    }

    /// A program's standard stream.
    ///
    /// # Errors
    /// There is none, or no descriptor can be had.
    pub fn stream(stream: Option<&OwnedFd>) -> Result<Sink> {
        let stream = stream.ok_or_else(|| Error::other("the program that started the engine has none"))?.try_clone()?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&stream)?.st_mode);
        let to = if kind == FileType::Socket { To::Socket(stream) } else { To::Stream(stream) };
        Ok(Sink { to, is_torn: false })
    }

    /// Writes a line; false if it, or the rest of it, is lost.
    pub fn put(&mut self, line: &[u8]) -> bool {
        self.follow();
        if self.is_torn && self.write(b"\n") != 1 {
            return false;
        }
        let written = self.write(line);
        self.is_torn = written > 0 && written < line.len();
        written == line.len()
    }

    /// Opens the file again if its path leads to another one, or to none.
    fn follow(&mut self) {
        let To::Path { file, path, flags, looked } = &mut self.to else { return };
        if looked.elapsed() < LOOKED_AGAIN {
            return;
        }
        *looked = Instant::now();
        let id = |meta: Result<std::fs::Metadata>| meta.map(|meta| (meta.dev(), meta.ino())).ok();
        if id(std::fs::metadata(&*path)) == id(file.metadata()) {
            return;
        }
        // Where none can be had, the lines go on to the one that is open.
        if let Ok(other) = opened(path, *flags) {
            *file = other;
            self.is_torn = false;
        }
    }

    /// How many bytes went out.
    fn write(&self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let left = &bytes[done..];
            let written = match &self.to {
                To::Path { file, .. } => (&*file).write(left),
                To::Stream(stream) if has_room(stream) => {
                    rustix::io::write(stream, &left[..left.len().min(AT_ONCE)]).map_err(Error::from)
                }
                To::Stream(_) => Err(ErrorKind::WouldBlock.into()),
                To::Socket(socket) => {
                    rustix::net::send(socket, left, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).map_err(Error::from)
                }
            };
            match written {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        done
    }
}

/// True if a write does not wait, also where it ends in an error. Another writer may take the room first: then this thread
/// waits for the reader, and no other one does.
fn has_room(stream: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(stream, PollFlags::OUT)];
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().intersects(PollFlags::OUT | PollFlags::ERR | PollFlags::HUP)
}

fn opened(path: &Path, flags: i32) -> Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).custom_flags(libc::O_NONBLOCK | flags).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// A sink that has not looked for its path for long.
    fn late(sink: &mut Sink) {
        if let To::Path { looked, .. } = &mut sink.to {
            *looked = Instant::now().checked_sub(LOOKED_AGAIN * 2).unwrap();
        }
    }

    #[test]
    fn a_file_that_was_moved_removed_or_cut_off_is_followed() {
        let folder = std::env::temp_dir().join(format!("ossc-output-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let (path, moved) = (folder.join("log"), folder.join("log.1"));
        let mut sink = Sink::open(&path, 0).unwrap();
        assert!(sink.put(b"1\n"));
        std::fs::rename(&path, &moved).unwrap();
        assert!(sink.put(b"2\n"), "it is not looked at for each line");
        late(&mut sink);
        assert!(sink.put(b"3\n"));
        assert_eq!((std::fs::read(&moved).unwrap(), std::fs::read(&path).unwrap()), (b"1\n2\n".into(), b"3\n".into()));
        std::fs::remove_file(&path).unwrap();
        late(&mut sink);
        assert!(sink.put(b"4\n"));
        assert_eq!(std::fs::read(&path).unwrap(), b"4\n");
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert!(sink.put(b"5\n"));
        assert_eq!(std::fs::read(&path).unwrap(), b"5\n", "no hole before it");
        std::fs::remove_dir_all(&folder).unwrap();
        late(&mut sink);
        assert!(sink.put(b"6\n") && path.exists(), "a folder that is gone is made again");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_stream_that_is_full_or_closed_loses_lines_and_keeps_its_flags() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let writer = OwnedFd::from(writer);
        let before = rustix::fs::fcntl_getfl(&writer).unwrap();
        let mut sink = Sink::stream(Some(&writer)).unwrap();
        let line = [&[b'x'; 9_999][..], b"\n"].concat();
        let whole = (0..100).take_while(|_| sink.put(&line)).count();
        assert!((3..100).contains(&whole) && !sink.put(&line), "{whole}");
        assert_eq!(rustix::fs::fcntl_getfl(&writer).unwrap(), before);
        let mut room = vec![0; 1 << 16];
        assert!(reader.read(&mut room).unwrap() > 3 * AT_ONCE);
        assert!(sink.put(b"behind a line break\n"));
        let got = reader.read(&mut room).unwrap();
        assert!(room[..got].ends_with(b"\nbehind a line break\n"), "{:?}", String::from_utf8_lossy(&room[..got]));
        drop(reader);
        assert!(!sink.put(b"to no reader\n"));
    }

    #[test]
    fn a_socket_that_is_full_loses_lines() {
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut sink = Sink::stream(Some(&OwnedFd::from(writer))).unwrap();
        assert!(sink.put(b"a line\n"));
        assert!((0..10_000).any(|_| !sink.put(&[b'x'; 4096])));
        drop(reader);
        assert!(!sink.put(b"to no reader\n"));
        assert!(Sink::stream(None).is_err());
    }
}
