//! The few words that clients and the engine exchange: attach, fetch a memory file's descriptor, list a
//! folder. One packet each way on a Unix SOCK_SEQPACKET socket, descriptors beside the answer.
//!
//! Called by the library's client (`ask_at_socket`) and by the engine's attach server (`listen`, `receive`, `answer`).
//! The client keeps no socket open; nothing here allocates or retries, and every wait has a limit.

use crate::cpath::CPath;
use crate::region::LAYOUT_VERSION;
use crate::sys::{self, Errno, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const MAGIC: u32 = 0x6f73_7363;
/// Longest text of a packet in bytes.
pub const TEXT_MAX: usize = 4096;
/// Most descriptors of an answer.
pub const FDS_MAX: usize = 4;
/// For a packet without descriptors.
pub const NO_FDS: [i32; FDS_MAX] = [-1; FDS_MAX];

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// To become a client: the answer carries catalog and board of the region, the door and, where there is one, the memory
    /// folder.
    Attach,
    /// A read-only descriptor of the memory file of this record.
    Memory(u32),
    /// The folder named by the text (absolute, as the kernel names it) listed.
    List,
    /// The same, since the asker is about to read the names in it: its small objects in place, if that is a use of it.
    Enter,
    /// Why a reader of this record still waits: the answer's text says what has failed last, and is empty where nothing
    /// has since bytes of the object came.
    Why(u32),
    /// The region, to look at: who asks does not become a client, for whom the engine would stay.
    Look,
    /// What the engine says of itself: the answer carries a file of JSON. Who asks does not become a client.
    Report,
    /// The memory of what no program uses given back: of the object or folder named by the text (its path below MODEL_DIR), or
    /// of all where that is empty. The answer carries a file of JSON. Who asks does not become a client.
    Drop,
    /// To note where the asker's credentials come from: the text is `NAME=value` entries, each ended by NUL.
    Credentials,
    /// To write to the asker's standard streams: bits of `outputs` say which; the descriptors come in their order.
    Outputs(u32),
}

/// Standard streams of a program that an engine writes to.
pub mod outputs {
    /// Standard output.
    pub const STDOUT: u32 = 1;
    /// Standard error.
    pub const STDERR: u32 = 2;
}

/// Standard output and standard error of a program, for an engine that writes to them.
#[derive(Default, Debug)]
pub struct Streams {
    /// Descriptor 1.
    pub stdout: Option<OwnedFd>,
    /// Descriptor 2.
    pub stderr: Option<OwnedFd>,
}

impl Streams {
    /// Takes the first of these descriptors, as many as `bits` says. None where fewer came.
    fn of(bits: u32, fds: &[i32]) -> Streams {
        let count = (bits & (outputs::STDOUT | outputs::STDERR)).count_ones() as usize;
        if fds.len() < count || fds[..count].iter().any(|fd| *fd < 0) {
            close_all(fds);
            return Streams::default();
        }
        close_all(&fds[count..]);
        // SAFETY: the caller has received them and knows them no more.
        let mut streams = fds[..count].iter().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) });
        Streams {
            stdout: if bits & outputs::STDOUT != 0 { streams.next() } else { None },
            stderr: if bits & outputs::STDERR != 0 { streams.next() } else { None },
        }
    }
}

/// How the names of the variables begin that are settings of an engine.
pub const SETTINGS: [&str; 3] = ["OSS_", "OSSC_", "ALIBABA_CLOUD_"];

/// Settings that say nothing of credentials. Every other one is told to an engine that runs, which picks out what its
/// sources read: a new source needs no row here.
const NOT_OF_CREDENTIALS: [&str; 10] = [
    "OSS_ENDPOINT",
    "OSS_PATH",
    "OSS_REGION",
    "OSSC_BIN",
    "OSSC_CONFIG",
    "OSSC_IO",
    "OSSC_PAGES",
    "OSSC_PAST_REPORT",
    "OSSC_SIGNATURE",
    "OSSC_WARM",
];

/// True if a variable may say where credentials come from, by its name.
pub fn may_name_credentials(name: &[u8]) -> bool {
    SETTINGS.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
        && !NOT_OF_CREDENTIALS.iter().any(|other| name == other.as_bytes())
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Head {
    magic: u32,
    version: u32,
    /// Kind of an ask, or the errno of an answer.
    code: u32,
    value: u32,
    len: u32,
}

const HEAD_BYTES: usize = size_of::<Head>();

/// One packet with room for the longest text.
pub struct Packet {
    head: Head,
    text: [u8; TEXT_MAX],
    /// Descriptors that came with it; -1 where there is none. The receiver owns them.
    pub fds: [i32; FDS_MAX],
}

impl Packet {
    fn new(code: u32, value: u32, text: &[u8]) -> Packet {
        let len = text.len().min(TEXT_MAX);
        let head = Head { magic: MAGIC, version: LAYOUT_VERSION, code, value, len: len as u32 };
        let mut packet = Packet { head, text: [0; TEXT_MAX], fds: NO_FDS };
        packet.text[..len].copy_from_slice(&text[..len]);
        packet
    }

    /// The text.
    pub fn text(&self) -> &[u8] {
        &self.text[..(self.head.len as usize).min(TEXT_MAX)]
    }

    /// Overwrites the text, which may have been a key.
    pub fn wipe(&mut self) {
        self.text.fill(0);
        // Without a reader the compiler may drop the stores, since nothing reads them again.
        core::hint::black_box(&self.text);
    }

    /// The number beside the text (of an answer: what the ask defines).
    pub fn value(&self) -> u32 {
        self.head.value
    }

    /// What is asked; EPROTO for a kind that this version does not know.
    pub fn decode_ask(&self) -> Result<Ask> {
        match self.head.code {
            1 => Ok(Ask::Attach),
            2 => Ok(Ask::Memory(self.head.value)),
            3 => Ok(Ask::List),
            4 => Ok(Ask::Look),
            5 => Ok(Ask::Credentials),
            6 => Ok(Ask::Enter),
            7 => Ok(Ask::Report),
            8 => Ok(Ask::Outputs(self.head.value)),
            9 => Ok(Ask::Drop),
            10 => Ok(Ask::Why(self.head.value)),
            _ => Err(Errno(libc::EPROTO)),
        }
    }

    /// Closes the descriptors that came with it.
    pub fn close_fds(&self) {
        close_all(&self.fds);
    }

    /// The standard streams that came with it; the packet's descriptors are none afterwards.
    pub fn streams(&mut self) -> Streams {
        let fds = core::mem::replace(&mut self.fds, NO_FDS);
        Streams::of(self.head.value, &fds)
    }

    /// True if the sender has the same layout.
    pub fn same_version(&self) -> bool {
        self.head.version == LAYOUT_VERSION
    }
}

/// Connects and says something whose answer is not waited for: the listener finds it in the order of connections.
///
/// Errors: as of `ask_at_socket`, for what keeps it from being said.
pub fn tell(socket: &CPath, ask: Ask, text: &[u8], fds: [i32; FDS_MAX]) -> Result<()> {
    let fd = connect(socket)?;
    let (code, value) = number(ask);
    let mut packet = Packet::new(code, value, text);
    packet.fds = fds;
    let told = send(fd, &packet, 0);
    // It may have been a key.
    packet.text.fill(0);
    core::hint::black_box(&packet.text);
    let _ = sys::close(fd);
    told
}

/// The process that listens at a socket, whether it answers or not; `None` if none does, 0 for one of another pid
/// namespace.
pub fn listener(socket: &CPath) -> Option<i32> {
    let fd = connect(socket).ok()?;
    let pid = peer(fd).map_or(0, |peer| peer.pid);
    let _ = sys::close(fd);
    Some(pid)
}

/// Closes those that are descriptors.
pub fn close_all(fds: &[i32]) {
    for fd in fds.iter().filter(|fd| **fd >= 0) {
        let _ = sys::close(*fd);
    }
}

/// Connects, asks, and waits up to `ms` milliseconds for the answer.
///
/// Errors: ECONNREFUSED or ENOENT when nobody listens, ETIMEDOUT, ENOTSUP when the engine is of another
/// version, else the errno that the engine answers.
pub fn ask_at_socket(socket: &CPath, ask: Ask, text: &[u8], ms: u64) -> Result<Packet> {
    ask_at_socket_with(socket, ask, text, &|fd| sys::wait_readable(fd, ms))
}

/// The same, where `wait` waits for the connection to be readable: false if that takes too long.
///
/// Errors: as of `ask_at_socket`.
pub fn ask_at_socket_with(socket: &CPath, ask: Ask, text: &[u8], wait: &dyn Fn(i32) -> bool) -> Result<Packet> {
    converse(connect(socket)?, ask, text, wait)
}

/// The same through the door: a socket that every client is given when it attaches, and its children inherit. Who
/// holds it may ask, whatever its user and wherever its root: it sends the engine one end of a connection of its own.
///
/// Errors: EPIPE when the engine is gone, else as `ask_at_socket`.
pub fn ask_at_door(door: i32, ask: Ask, text: &[u8], wait: &dyn Fn(i32) -> bool) -> Result<Packet> {
    let (ours, theirs) = pair()?;
    let mut knock = Packet::new(0, 0, b"");
    knock.fds[0] = theirs;
    let sent = send(door, &knock, libc::MSG_DONTWAIT);
    let _ = sys::close(theirs);
    match sent {
        Ok(()) => converse(ours, ask, text, wait),
        Err(errno) => {
            let _ = sys::close(ours);
            Err(errno)
        }
    }
}

/// Engine only: its own end of the door, and the one for clients.
pub fn door() -> Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pair()?;
    // SAFETY: both new, and owned by nobody else.
    Ok(unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) })
}

/// Two ends of one connection, close-on-exec. Never 0-2.
pub(crate) fn pair() -> Result<(i32, i32)> {
    let mut ends = [-1i32; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    let args = [libc::AF_UNIX as usize, kind as usize, 0, ends.as_mut_ptr() as usize, 0, 0];
    // SAFETY: the array has room for two descriptors.
    result(unsafe { sys::raw(libc::SYS_socketpair, args) })?;
    match ends.map(|fd| if fd > 2 { fd } else { raised(fd) }) {
        [a, b] if a >= 0 && b >= 0 => Ok((a, b)),
        ends => {
            close_all(&ends);
            Err(Errno(libc::EMFILE))
        }
    }
}

/// Asks on a connection, waits for the answer, and closes it.
fn converse(fd: i32, ask: Ask, text: &[u8], wait: &dyn Fn(i32) -> bool) -> Result<Packet> {
    let (code, value) = number(ask);
    let answered = send(fd, &Packet::new(code, value, text), 0)
        .and_then(|()| if wait(fd) { receive(fd) } else { Err(Errno(libc::ETIMEDOUT)) });
    let _ = sys::close(fd);
    let packet = answered?;
    let refusal = match packet.head.code {
        _ if !packet.same_version() => libc::ENOTSUP,
        code => code as i32,
    };
    if refusal == 0 {
        return Ok(packet);
    }
    packet.close_fds();
    Err(Errno(refusal))
}

fn number(ask: Ask) -> (u32, u32) {
    match ask {
        Ask::Attach => (1, 0),
        Ask::Memory(slot) => (2, slot),
        Ask::List => (3, 0),
        Ask::Look => (4, 0),
        Ask::Credentials => (5, 0),
        Ask::Enter => (6, 0),
        Ask::Report => (7, 0),
        Ask::Outputs(bits) => (8, bits),
        Ask::Drop => (9, 0),
        Ask::Why(slot) => (10, slot),
    }
}

/// Answers an ask: `errno` 0 is success.
pub fn answer(fd: i32, errno: i32, value: u32, text: &[u8], fds: [i32; FDS_MAX]) -> Result<()> {
    let mut packet = Packet::new(errno as u32, value, text);
    packet.fds = fds;
    send(fd, &packet, 0)
}

/// Engine only: whether this process may take connections. A policy that refuses that would let programs wait for an
/// answer that never comes.
///
/// Errors: the kernel's.
pub fn may_accept() -> Result<()> {
    let fd = new_socket(0)?;
    // SAFETY: no pointers but null, which says that no address is wanted.
    let taken = result(unsafe { sys::raw(libc::SYS_accept4, [fd as usize, 0, 0, libc::SOCK_CLOEXEC as usize, 0, 0]) });
    let _ = sys::close(fd);
    match taken {
        // It does not listen: what a kernel says that has looked at the socket.
        Err(Errno(libc::EINVAL)) => Ok(()),
        Err(errno) => Err(errno),
        Ok(_) => Ok(()),
    }
}

/// How long a socket may go on listening whose engine is just ending, in milliseconds.
const DYING_MS: u64 = 2_000;

/// Makes the engine's listening socket, replacing a leftover. Non-blocking, close-on-exec.
///
/// Only the holder of the lock comes here, so no engine listens at the path. Errors: ENOTSOCK for anything else that
/// lies there, EADDRINUSE for a socket of another program; both are left alone.
pub fn listen(socket: &CPath) -> Result<OwnedFd> {
    let address = Address::new(socket)?;
    clear(socket)?;
    let fd = new_socket(libc::SOCK_NONBLOCK)?;
    // SAFETY: the address is a live sockaddr_un of the given length.
    let bound = unsafe { libc::bind(fd, (&raw const address.inner).cast(), address.len) };
    // SAFETY: plain call on our own descriptor.
    let listening = bound == 0 && unsafe { libc::listen(fd, 1024) } == 0;
    if listening {
        // SAFETY: our own new descriptor, owned by nobody else.
        return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    let _ = sys::close(fd);
    Err(Errno(errno))
}

/// Removes a socket at which nobody listens. Only for the holder of its lock. Errors: as of `listen`.
pub fn clear(socket: &CPath) -> Result<()> {
    let path = socket.as_cstr().ok_or(Errno(libc::ENAMETOOLONG))?;
    let until = sys::now_ms() + DYING_MS;
    loop {
        match sys::file_id_at(sys::AT_FDCWD, path, libc::AT_SYMLINK_NOFOLLOW) {
            Err(Errno(libc::ENOENT)) => return Ok(()),
            Err(errno) => return Err(errno),
            Ok(id) if id.mode & libc::S_IFMT != libc::S_IFSOCK => return Err(Errno(libc::ENOTSOCK)),
            Ok(_) => {}
        }
        match connect(socket) {
            Err(Errno(libc::ECONNREFUSED)) => return sys::unlink(path),
            Err(Errno(libc::ENOENT)) => {}
            Ok(fd) => {
                let _ = sys::close(fd);
                if sys::now_ms() > until {
                    return Err(Errno(libc::EADDRINUSE));
                }
                sys::sleep_ms(20);
            }
            // A socket of another kind.
            Err(_) => return Err(Errno(libc::EADDRINUSE)),
        }
    }
}

/// Removes the engine's socket at its end, if it still is a socket at which `listener` listens.
pub fn remove(socket: &CPath, listener: OwnedFd) {
    drop(listener);
    if let Some(path) = socket.as_cstr()
        && sys::file_id_at(sys::AT_FDCWD, path, libc::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|id| id.mode & libc::S_IFMT == libc::S_IFSOCK)
        && connect(socket).err() == Some(Errno(libc::ECONNREFUSED))
    {
        let _ = sys::unlink(path);
    }
}

/// Process and user at the other end of a connected socket.
pub fn peer(fd: i32) -> Result<libc::ucred> {
    let mut cred = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as u32;
    let (cred_at, len_at) = ((&raw mut cred) as usize, (&raw mut len) as usize);
    let args = [fd as usize, libc::SOL_SOCKET as usize, libc::SO_PEERCRED as usize, cred_at, len_at, 0];
    // SAFETY: both pointers are to live locals of the sizes that the option fills.
    result(unsafe { sys::raw(libc::SYS_getsockopt, args) })?;
    Ok(cred)
}

/// A pidfd of the process at the other end, in whatever pid namespace that lives.
///
/// Errors: ENOPROTOOPT before Linux 6.5, ENODATA or EINVAL where the process is gone.
pub fn peer_process(fd: i32) -> Result<OwnedFd> {
    const SO_PEERPIDFD: usize = 77;
    let (mut pidfd, mut len) = (-1i32, size_of::<i32>() as u32);
    let (pidfd_at, len_at) = ((&raw mut pidfd) as usize, (&raw mut len) as usize);
    let args = [fd as usize, libc::SOL_SOCKET as usize, SO_PEERPIDFD, pidfd_at, len_at, 0];
    // SAFETY: both pointers are to live locals of the sizes that the option fills.
    result(unsafe { sys::raw(libc::SYS_getsockopt, args) })?;
    // SAFETY: the kernel has just made this descriptor, closed on exec, for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// Receives one packet; EPROTO for anything else, EPIPE when the other end is gone.
pub fn receive(fd: i32) -> Result<Packet> {
    let mut packet = Packet::new(0, 0, b"");
    let mut control = Control::default();
    let mut iov = [
        libc::iovec { iov_base: (&raw mut packet.head).cast(), iov_len: HEAD_BYTES },
        libc::iovec { iov_base: packet.text.as_mut_ptr().cast(), iov_len: TEXT_MAX },
    ];
    let mut message = control.message(&mut iov);
    let args = [fd as usize, (&raw mut message) as usize, libc::MSG_CMSG_CLOEXEC as usize, 0, 0, 0];
    // SAFETY: the message points at live buffers of the lengths it names.
    let got = result(unsafe { sys::raw(libc::SYS_recvmsg, args) })?;
    let received = message.msg_controllen;
    packet.fds = control.fds(received);
    if got == 0 {
        return Err(Errno(libc::EPIPE));
    }
    let is_cut = message.msg_flags & libc::MSG_TRUNC != 0;
    if is_cut || got < HEAD_BYTES || packet.head.magic != MAGIC || packet.head.len as usize + HEAD_BYTES != got {
        packet.close_fds();
        return Err(Errno(libc::EPROTO));
    }
    Ok(packet)
}

/// Engine only: the connection that was sent through the door.
pub fn receive_one(door: &OwnedFd) -> Result<OwnedFd> {
    let knock = receive(door.as_raw_fd())?;
    let [conn, rest @ ..] = knock.fds;
    close_all(&rest);
    // SAFETY: received just now, and owned by nobody else.
    if conn >= 0 { Ok(unsafe { OwnedFd::from_raw_fd(conn) }) } else { Err(Errno(libc::EPROTO)) }
}

/// Where the bits of `outputs` are in the word of `settings_head`, above the length.
const OUTPUTS_SHIFT: u32 = 24;

/// Sends the length of the settings (below 2^24) to a new engine, with the folder of an old one's memory (or -1), and the
/// standard streams of the program that starts it (each -1 where it has none).
pub fn settings_head(fd: i32, len: u32, store: i32, [stdout, stderr]: [i32; 2]) -> Result<()> {
    let bits = [(stdout, outputs::STDOUT), (stderr, outputs::STDERR)].map(|(fd, bit)| if fd < 0 { 0 } else { bit });
    let bytes = (len | (bits[0] | bits[1]) << OUTPUTS_SHIFT).to_le_bytes();
    let mut control = Control::default();
    let empty = libc::iovec { iov_base: core::ptr::null_mut(), iov_len: 0 };
    let mut iov = [libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }, empty];
    // Those that are there, one behind the other.
    let (mut fds, mut count) = (NO_FDS, 0);
    for fd in [stdout, stderr, store].into_iter().filter(|fd| *fd >= 0) {
        fds[count] = fd;
        count += 1;
    }
    let control_len = control.put(fds);
    let mut message = control.message(&mut iov);
    message.msg_controllen = control_len;
    let args = [fd as usize, (&raw mut message) as usize, libc::MSG_NOSIGNAL as usize, 0, 0, 0];
    // SAFETY: the message points at live buffers of the lengths it names; sendmsg only reads them.
    result(unsafe { sys::raw(libc::SYS_sendmsg, args) }).map(drop)
}

/// Receives what `settings_head` sent: the length, the folder's descriptor or -1, and the streams.
pub fn receive_settings_head(fd: i32) -> Result<(u32, i32, Streams)> {
    let mut bytes = [0u8; 4];
    let mut control = Control::default();
    let empty = libc::iovec { iov_base: core::ptr::null_mut(), iov_len: 0 };
    let mut iov = [libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }, empty];
    let mut message = control.message(&mut iov);
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_WAITALL;
    let args = [fd as usize, (&raw mut message) as usize, flags as usize, 0, 0, 0];
    // SAFETY: the message points at live buffers of the lengths it names.
    let got = result(unsafe { sys::raw(libc::SYS_recvmsg, args) })?;
    let received = message.msg_controllen;
    let fds = control.fds(received);
    if got != bytes.len() {
        close_all(&fds);
        return Err(Errno(libc::EPROTO));
    }
    let word = u32::from_le_bytes(bytes);
    let bits = word >> OUTPUTS_SHIFT;
    let count = (bits & (outputs::STDOUT | outputs::STDERR)).count_ones() as usize;
    Ok((word & ((1 << OUTPUTS_SHIFT) - 1), fds[count], Streams::of(bits, &fds[..count])))
}

fn send(fd: i32, packet: &Packet, flags: i32) -> Result<()> {
    let mut control = Control::default();
    let mut iov = [
        libc::iovec { iov_base: (&raw const packet.head).cast_mut().cast(), iov_len: HEAD_BYTES },
        libc::iovec { iov_base: packet.text.as_ptr().cast_mut().cast(), iov_len: packet.text().len() },
    ];
    let len = control.put(packet.fds);
    let mut message = control.message(&mut iov);
    message.msg_controllen = len;
    let args = [fd as usize, (&raw mut message) as usize, (libc::MSG_NOSIGNAL | flags) as usize, 0, 0, 0];
    // SAFETY: the message points at live buffers of the lengths it names; sendmsg only reads them.
    result(unsafe { sys::raw(libc::SYS_sendmsg, args) }).map(drop)
}

/// How long a connection may take, in milliseconds. It takes no time unless a process that is stopped has let so many
/// come that no more find room.
const CONNECT_MS: u64 = 5_000;

fn connect(socket: &CPath) -> Result<i32> {
    let address = Address::new(socket)?;
    let fd = new_socket(0)?;
    let limit = libc::timeval { tv_sec: (CONNECT_MS / 1000) as i64, tv_usec: (CONNECT_MS % 1000 * 1000) as i64 };
    let (at, len) = ((&raw const limit) as usize, size_of::<libc::timeval>());
    // SAFETY: the option reads a timeval, which lives. Where it is refused, the wait has no limit.
    unsafe {
        sys::raw(libc::SYS_setsockopt, [fd as usize, libc::SOL_SOCKET as usize, libc::SO_SNDTIMEO as usize, at, len, 0])
    };
    let args = [fd as usize, (&raw const address.inner) as usize, address.len as usize, 0, 0, 0];
    // SAFETY: the address is a live sockaddr_un of the given length.
    match result(unsafe { sys::raw(libc::SYS_connect, args) }) {
        // Another user who listens there is told nothing and believed nothing.
        Ok(_) if peer(fd).is_ok_and(|peer| peer.uid == sys::geteuid()) => Ok(fd),
        Ok(_) => {
            let _ = sys::close(fd);
            Err(Errno(libc::EACCES))
        }
        Err(errno) => {
            let _ = sys::close(fd);
            Err(if errno.0 == libc::EAGAIN { Errno(libc::ETIMEDOUT) } else { errno })
        }
    }
}

fn new_socket(flags: i32) -> Result<i32> {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | flags;
    // SAFETY: no pointers.
    let fd = result(unsafe { sys::raw(libc::SYS_socket, [libc::AF_UNIX as usize, kind as usize, 0, 0, 0, 0]) })? as i32;
    if fd > 2 {
        return Ok(fd);
    }
    // A host that closed its standard descriptors must not find our socket in their place.
    let moved = sys::dup_from(fd, 3);
    let _ = sys::close(fd);
    moved
}

fn result(value: isize) -> Result<usize> {
    if value < 0 { Err(Errno(-value as i32)) } else { Ok(value as usize) }
}

struct Address {
    inner: libc::sockaddr_un,
    len: u32,
}

impl Address {
    fn new(path: &CPath) -> Result<Address> {
        let bytes = path.as_cstr().ok_or(Errno(libc::ENAMETOOLONG))?.to_bytes();
        let mut inner = libc::sockaddr_un { sun_family: libc::AF_UNIX as u16, sun_path: [0; 108] };
        if bytes.len() >= inner.sun_path.len() {
            return Err(Errno(libc::ENAMETOOLONG));
        }
        inner.sun_path.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from as libc::c_char);
        Ok(Address { inner, len: (2 + bytes.len() + 1) as u32 })
    }
}

/// Room for one SCM_RIGHTS message of FDS_MAX descriptors, laid out as the kernel wants it.
#[repr(C, align(8))]
#[derive(Default)]
struct Control {
    len: usize,
    level: i32,
    kind: i32,
    fds: [i32; FDS_MAX],
}

const CONTROL_HEAD: usize = size_of::<usize>() + 2 * size_of::<i32>();

impl Control {
    fn message(&mut self, iov: &mut [libc::iovec; 2]) -> libc::msghdr {
        // SAFETY: all-zero is a valid msghdr.
        let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
        message.msg_iov = iov.as_mut_ptr();
        message.msg_iovlen = iov.len();
        message.msg_control = (self as *mut Control).cast();
        // Not the padding: a descriptor there would be nobody's.
        message.msg_controllen = CONTROL_HEAD + 4 * FDS_MAX;
        message
    }

    /// Puts the leading valid descriptors in; returns the length of the control data.
    fn put(&mut self, fds: [i32; FDS_MAX]) -> usize {
        let count = fds.iter().take_while(|fd| **fd >= 0).count();
        if count == 0 {
            return 0;
        }
        *self = Control { len: CONTROL_HEAD + 4 * count, level: libc::SOL_SOCKET, kind: libc::SCM_RIGHTS, fds };
        self.len
    }

    fn fds(&self, received: usize) -> [i32; FDS_MAX] {
        let mut fds = NO_FDS;
        if received < CONTROL_HEAD || self.level != libc::SOL_SOCKET || self.kind != libc::SCM_RIGHTS {
            return fds;
        }
        let count = (self.len.saturating_sub(CONTROL_HEAD) / 4).min(FDS_MAX);
        for (to, from) in fds.iter_mut().zip(self.fds).take(count) {
            *to = if from > 2 { from } else { raised(from) };
        }
        fds
    }
}

/// Moves a received descriptor out of the range 0-2, which belongs to the host.
fn raised(fd: i32) -> i32 {
    let moved = sys::dup_from(fd, 3).unwrap_or(-1);
    let _ = sys::close(fd);
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> CPath {
        let path = std::env::temp_dir().join(format!("ossc-wire-{}-{name}", std::process::id()));
        CPath::from(path.as_os_str().as_encoded_bytes())
    }

    #[test]
    fn a_wiped_packet_has_nothing_of_its_text() {
        let mut packet = Packet::new(1, 2, b"OSS_ACCESS_KEY_SECRET=s");
        packet.wipe();
        assert!(packet.text.iter().all(|byte| *byte == 0) && packet.value() == 2);
    }

    fn serve(socket: &CPath, reply: impl FnOnce(i32, Packet) + Send + 'static) -> std::thread::JoinHandle<()> {
        let fd = listen(socket).unwrap();
        std::thread::spawn(move || {
            let fd = std::os::fd::IntoRawFd::into_raw_fd(fd);
            assert!(sys::wait_readable(fd, 5000));
            // SAFETY: plain accept on our own socket.
            let conn = unsafe { libc::accept(fd, std::ptr::null_mut(), std::ptr::null_mut()) };
            let packet = receive(conn).unwrap();
            reply(conn, packet);
            let _ = (sys::close(conn), sys::close(fd));
        })
    }

    #[test]
    fn an_answer_carries_descriptors_and_the_peer_is_known() {
        let socket = path("fds");
        let server = serve(&socket, |conn, packet| {
            assert_eq!(packet.decode_ask(), Ok(Ask::List));
            assert_eq!(packet.text(), b"/a/b");
            assert_eq!(peer(conn).unwrap().pid, sys::getpid());
            let memfd = sys::memfd(c"x").unwrap();
            sys::ftruncate(memfd, 123).unwrap();
            answer(conn, 0, 9, b"fine", [memfd, -1, -1, -1]).unwrap();
        });
        let packet = ask_at_socket(&socket, Ask::List, b"/a/b", 5000).unwrap();
        server.join().unwrap();
        assert_eq!((packet.value(), packet.text()), (9, b"fine".as_slice()));
        assert_eq!(sys::file_id(packet.fds[0]).unwrap().size, 123);
        assert_eq!(packet.fds[1], -1);
    }

    #[test]
    fn what_was_told_is_there_when_the_teller_is_gone() {
        let socket = path("told");
        let fd = listen(&socket).unwrap();
        tell(&socket, Ask::Credentials, b"A=1\0", NO_FDS).unwrap();
        let server = std::thread::spawn(move || {
            let fd = std::os::fd::IntoRawFd::into_raw_fd(fd);
            // SAFETY: plain accept on our own socket.
            let conn = unsafe { libc::accept(fd, std::ptr::null_mut(), std::ptr::null_mut()) };
            assert_eq!(peer(conn).unwrap().pid, sys::getpid());
            let packet = receive(conn).unwrap();
            assert_eq!((packet.decode_ask(), packet.text()), (Ok(Ask::Credentials), b"A=1\0".as_slice()));
            assert!(answer(conn, 0, 0, b"", NO_FDS).is_err());
        });
        server.join().unwrap();
    }

    #[test]
    fn a_new_engine_gets_the_streams_that_are_there_and_the_folder() {
        let (out, err, store) = (sys::memfd(c"o").unwrap(), sys::memfd(c"e").unwrap(), sys::memfd(c"s").unwrap());
        [out, err, store].into_iter().zip([1, 2, 3]).for_each(|(fd, size)| sys::ftruncate(fd, size).unwrap());
        let size = |fd: Option<i32>| fd.map_or(0, |fd| sys::file_id(fd).unwrap().size);
        for given in [[-1; 3], [out, err, store], [-1, err, -1], [out, -1, store], [-1, -1, store]] {
            let (ours, theirs) = pair().unwrap();
            settings_head(ours, 65_536, given[2], [given[0], given[1]]).unwrap();
            let (len, folder, streams) = receive_settings_head(theirs).unwrap();
            let got = [streams.stdout.as_ref(), streams.stderr.as_ref()].map(|fd| size(fd.map(|fd| fd.as_raw_fd())));
            let is_there = |fd: i32| Some(fd).filter(|fd| *fd >= 0);
            let expected = [is_there(given[0]), is_there(given[1])].map(size);
            assert_eq!((len, got, size(is_there(folder))), (65_536, expected, size(is_there(given[2]))));
            close_all(&[ours, theirs, folder]);
        }
        close_all(&[out, err, store]);
    }

    #[test]
    fn streams_that_are_said_and_do_not_come_are_none() {
        let fd = sys::memfd(c"o").unwrap();
        let streams = Streams::of(outputs::STDOUT | outputs::STDERR, &[fd, -1, -1, -1]);
        assert!(streams.stdout.is_none() && streams.stderr.is_none());
        assert!(sys::fstat(fd).is_err(), "it was closed");
        assert!(Streams::of(0, &NO_FDS).stdout.is_none());
    }

    #[test]
    fn this_process_may_accept() {
        assert_eq!(may_accept(), Ok(()));
    }

    #[test]
    fn refusals_and_absence_are_errors() {
        let socket = path("refuse");
        assert_eq!(ask_at_socket(&socket, Ask::Attach, b"", 100).err(), Some(Errno(libc::ENOENT)));
        let server = serve(&socket, |conn, _| answer(conn, libc::EACCES, 0, b"", NO_FDS).unwrap());
        assert_eq!(ask_at_socket(&socket, Ask::Attach, b"", 5000).err(), Some(Errno(libc::EACCES)));
        server.join().unwrap();
        assert_eq!(ask_at_socket(&socket, Ask::Attach, b"", 100).err(), Some(Errno(libc::ECONNREFUSED)));
        assert_eq!(Address::new(&CPath::from(&[b'x'; 108])).err(), Some(Errno(libc::ENAMETOOLONG)));
    }

    #[test]
    fn who_holds_the_door_may_ask_until_the_engine_is_gone() {
        let (engine, door) = pair().unwrap();
        let server = std::thread::spawn(move || {
            assert!(sys::wait_readable(engine, 5000));
            let knock = receive(engine).unwrap();
            let conn = knock.fds[0];
            assert_eq!(peer(conn).unwrap().pid, sys::getpid());
            assert_eq!(receive(conn).unwrap().decode_ask(), Ok(Ask::Memory(7)));
            answer(conn, 0, 5, b"", NO_FDS).unwrap();
            let _ = (sys::close(conn), sys::close(engine));
        });
        assert!(!sys::is_hung_up(door));
        let wait = |fd| sys::wait_readable(fd, 5000);
        assert_eq!(ask_at_door(door, Ask::Memory(7), b"", &wait).unwrap().value(), 5);
        server.join().unwrap();
        assert!(sys::is_hung_up(door));
        assert_eq!(ask_at_door(door, Ask::Attach, b"", &wait).err(), Some(Errno(libc::EPIPE)));
        let _ = sys::close(door);
    }
}
