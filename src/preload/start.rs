//! Starting the engine from inside a host program: a child that the host never notices.
//!
//! Called by the constructor of a primary, and by any client that finds no engine alive. Raw `clone` with
//! exit signal 0 (no SIGCHLD, invisible to the host's `wait`), no atfork handlers; the child makes system
//! calls only. Credentials go over a socket, never through arguments or the new process's environment.

use crate::environ;
use crate::say::{self, say};
use core::arch::asm;
use core::ffi::CStr;
use core::sync::atomic::{AtomicI32, Ordering};
use ossc_cache::cpath::CPath;
use ossc_cache::sys::{self, Errno};
use ossc_cache::wire;

/// Longest text of the engine's first word in bytes.
pub(crate) const TEXT_MAX: usize = 2048;
/// How long the engine's first word is waited for, in milliseconds: more than its own `startTimeoutSec`
/// may be, since the engine knows better why it is late.
const FIRST_WORD_MS: u64 = 600_000;

/// A start that takes longer than this is spoken of on stderr, and again each time that so much more has passed. More
/// than the default of `listAgainSec`, for which any start after an upload waits.
const WORD_MS: u64 = 6_000;
const AGAIN_MS: u64 = 10_000;

/// The child that stays between this host and its engine, if there is one.
static STAYED: AtomicI32 = AtomicI32::new(0);

/// The engine's first word.
pub(crate) enum FirstWord {
    /// It runs; the text, if any, is a warning for the user.
    Ready,
    /// Another engine holds the lock.
    SomebodyElse,
    /// It could not start; the text is the reason.
    Failed,
    /// It ended without a word: somebody has killed it.
    Silent,
}

/// A first word and its text.
pub(crate) struct Start {
    pub word: FirstWord,
    text: [u8; TEXT_MAX],
    len: usize,
}

impl Start {
    fn new(word: FirstWord, pieces: &[&[u8]]) -> Start {
        let mut start = Start { word, text: [0; TEXT_MAX], len: 0 };
        pieces.iter().for_each(|piece| start.push(piece));
        start
    }

    fn failed(what: &[u8], errno: Errno) -> Start {
        let mut start = Start::new(FirstWord::Failed, &[b"failed to start the engine: ", what, b": errno "]);
        let path = CPath::default().with_number(errno.0 as u64);
        start.push(path.as_bytes());
        start
    }

    fn push(&mut self, piece: &[u8]) {
        let room = &mut self.text[self.len..];
        let len = piece.len().min(room.len());
        room[..len].copy_from_slice(&piece[..len]);
        self.len += len;
    }

    /// Warning or reason.
    pub fn text(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

/// Starts an engine and waits for its first word. `store` (or -1) is the folder of memory files of an
/// engine that is gone: the new one takes over what has arrived.
pub(crate) fn launch(store: i32) -> Start {
    let Some(program) = environ::engine_program() else {
        return Start::new(
            FirstWord::Failed,
            &[b"the program ossc was found neither beside libossc_preload.so nor in ../bin: install it there or set OSSC_BIN"],
        );
    };
    let (ours, theirs) = match socket_pair() {
        Ok(pair) => pair,
        Err(errno) => return Start::failed(b"socketpair", errno),
    };
    let stays = host_would_reap();
    // One that stayed with an engine before has ended with it, and nobody else waits for it.
    reap_stayed();
    let mask = block_signals();
    let child = clone_child();
    if child == 0 {
        intermediate(program, theirs, stays);
    }
    restore_signals(mask);
    let _ = sys::close(theirs);
    let start = if child < 0 {
        Start::failed(b"clone", Errno(-child as i32))
    } else {
        if stays {
            STAYED.store(child as i32, Ordering::Release);
        } else {
            reap(child);
        }
        converse(ours, store)
    };
    let _ = sys::close(ours);
    start
}

/// What the engine says that it waits for, until its first word.
struct Waits {
    what: CPath,
    begun_ms: u64,
    speak_at_ms: u64,
}

impl Waits {
    fn new() -> Waits {
        let now = sys::now_ms();
        Waits { what: CPath::from(b"the engine's process"), begun_ms: now, speak_at_ms: now + WORD_MS }
    }

    fn learn(&mut self, what: &[u8]) {
        self.what = CPath::default().with_shown(what);
    }

    /// Waits until the engine has said something; false after `FIRST_WORD_MS` without its first word.
    fn wait(&mut self, fd: i32) -> bool {
        loop {
            let now = sys::now_ms();
            if now >= self.speak_at_ms {
                let secs = CPath::default().with_number((now - self.begun_ms) / 1000);
                say(&[
                    b"oss connector: still starting after ",
                    secs.as_bytes(),
                    b" s, waiting for ",
                    self.what.as_bytes(),
                    b"\n",
                ]);
                self.speak_at_ms = now + AGAIN_MS;
            }
            if sys::wait_readable(fd, self.speak_at_ms.saturating_sub(now)) {
                return true;
            }
            if now - self.begun_ms > FIRST_WORD_MS {
                return false;
            }
        }
    }
}

/// Sends the settings and reads the engine's words up to its first of a kind other than `W`: kind byte, then text until
/// a NUL or the end.
fn converse(fd: i32, store: i32) -> Start {
    let settings = environ::settings();
    // Before the engine has read its configuration it does not know whether it needs them.
    let streams = [say::STDOUT, say::STDERR].map(say::stream);
    let head = wire::settings_head(fd, settings.len() as u32, store, streams);
    // A program that is no engine, or ends at once, closes its end: what it said before can be read all the same.
    let has_settings = head.is_ok() && send_all(fd, settings);
    if !has_settings {
        number(libc::SYS_shutdown, [fd as usize, libc::SHUT_WR as usize, 0, 0, 0, 0]);
    }
    let mut text = [0u8; TEXT_MAX];
    let (mut len, mut waits) = (0, Waits::new());
    while len < TEXT_MAX {
        if !waits.wait(fd) {
            return Start::new(FirstWord::Failed, &[b"the engine said nothing for 600 s"]);
        }
        match sys::read(fd, &mut text[len..]) {
            Ok(0) => break,
            Ok(got) => {
                len += got;
                len = heard(&mut text, len, &mut waits);
                if text[..len].ends_with(b"\0") {
                    len -= 1;
                    break;
                }
            }
            Err(errno) if errno.is_interrupt() => {}
            Err(Errno(libc::ECONNRESET)) => break,
            Err(errno) => return Start::failed(b"reading its first word", errno),
        }
    }
    match text[..len].split_first() {
        Some((b'R', rest)) => Start::new(FirstWord::Ready, &[rest]),
        Some((b'O', rest)) => Start::new(FirstWord::SomebodyElse, &[rest]),
        Some((b'E', rest)) => Start::new(FirstWord::Failed, &[rest]),
        _ if has_settings => Start::new(FirstWord::Silent, &[b"the engine ended without a word"]),
        _ => Start::new(FirstWord::Silent, &[b"the engine ended before it took its settings"]),
    }
}

/// Takes out of `text` what the engine says that it waits for; how much is left. With its first word that ends in a NUL.
fn heard(text: &mut [u8; TEXT_MAX], mut len: usize, waits: &mut Waits) -> usize {
    while let Some(end) = text[..len].iter().position(|byte| *byte == 0) {
        if text[0] != b'W' {
            return end + 1;
        }
        waits.learn(&text[1..end]);
        text.copy_within(end + 1..len, 0);
        len -= end + 1;
    }
    len
}

fn send_all(fd: i32, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let args = [fd as usize, bytes.as_ptr() as usize, bytes.len(), libc::MSG_NOSIGNAL as usize, 0, 0];
        // SAFETY: the buffer is live; sendto without an address only reads it.
        let sent = unsafe { sys::raw(libc::SYS_sendto, args) };
        match sent {
            n if n > 0 => bytes = &bytes[n as usize..],
            n if n == -(libc::EINTR as isize) => {}
            _ => return false,
        }
    }
    true
}

/// The child between host and engine: starts the engine as its own child, then goes (the engine falls to
/// init) or stays as its reaper where the host would get the engine as a child. System calls only.
fn intermediate(program: &CStr, socket: i32, stays: bool) -> ! {
    number(libc::SYS_setsid, [0; 6]);
    if stays {
        number(libc::SYS_prctl, [libc::PR_SET_CHILD_SUBREAPER as usize, 1, 0, 0, 0, 0]);
        number(libc::SYS_prctl, [libc::PR_SET_NAME as usize, c"ossc-reaper".as_ptr() as usize, 0, 0, 0, 0]);
    }
    let engine = clone_child();
    if engine == 0 {
        become_engine(program, socket);
    }
    close_from(0);
    if stays && engine > 0 {
        number(libc::SYS_chdir, [c"/".as_ptr() as usize, 0, 0, 0, 0, 0]);
        reap_without_memory();
    }
    exit_now(0)
}

/// Where a program's memory ends on x86-64, unless it asks for more.
const MEMORY_END: usize = 0x7fff_ffff_f000;

/// Bytes around the thread's own block that stay: the kernel writes there whenever it runs the process again (rseq(2),
/// which glibc 2.35 and newer have registered in or beside that block).
const THREAD_BYTES: usize = 32 << 10;
const PAGE: usize = 4096;
/// The code of `reap_without_memory` is shorter.
const CODE_BYTES: usize = 4096;

/// Ends when everything below this process is reaped, which is the engine's subtree. Until then it has no memory but
/// the pages that this code is in, and those that the kernel writes to: it is a copy of the host, which would keep what the
/// host has since given back or written anew, and which would count as a program that has objects mapped.
///
/// To exec a program instead would be seen: the kernel makes SIGCHLD the exit signal of whatever execs.
#[inline(never)]
fn reap_without_memory() -> ! {
    let around = |from: usize, to: usize| (from & !(PAGE - 1), to.next_multiple_of(PAGE));
    let code = reap_without_memory as *const () as usize;
    let thread: usize;
    // SAFETY: on x86-64 the first word of a thread's block is the block's own address (System V ABI, TLS variant 2).
    unsafe { asm!("mov {}, fs:0", out(reg) thread, options(nostack, preserves_flags, readonly)) };
    let (a, b) = (around(code, code + CODE_BYTES), around(thread - THREAD_BYTES, thread + THREAD_BYTES));
    let (low, high) = if a.0 < b.0 { (a, b) } else { (b, a) };
    // What lies between them; nothing where they touch.
    let between = high.0.saturating_sub(low.1);
    let above = low.1.max(high.1);
    // SAFETY: no instruction after the first `munmap` touches memory but its own code, which stays mapped, and control
    // never comes back. A range that the kernel does not give up (a sealed map is in it) stays: that does no harm.
    unsafe {
        asm!(
            "mov eax, {munmap}",
            "xor edi, edi",
            "mov rsi, r12",
            "syscall",
            "mov eax, {munmap}",
            "mov rdi, r13",
            "mov rsi, r14",
            "syscall",
            "mov eax, {munmap}",
            "mov rdi, r15",
            "mov rsi, r9",
            "sub rsi, r15",
            "syscall",
            "3:",
            "mov eax, {wait4}",
            "mov rdi, -1",
            "xor esi, esi",
            "mov edx, {all}",
            "xor r10d, r10d",
            "syscall",
            "test rax, rax",
            "jns 3b",
            "cmp rax, {interrupted}",
            "je 3b",
            "mov eax, {exit_group}",
            "xor edi, edi",
            "syscall",
            "ud2",
            munmap = const libc::SYS_munmap,
            wait4 = const libc::SYS_wait4,
            exit_group = const libc::SYS_exit_group,
            all = const WALL,
            interrupted = const -libc::EINTR,
            in("r12") low.0,
            in("r13") low.1,
            in("r14") between,
            in("r15") above,
            in("r9") MEMORY_END,
            options(noreturn),
        )
    }
}

/// Descriptors: /dev/null at 0 to 2, the socket at 3, nothing else. Then the program.
fn become_engine(program: &CStr, socket: i32) -> ! {
    let null = sys::openat(sys::AT_FDCWD, c"/dev/null", libc::O_RDWR, 0).unwrap_or(-1);
    // Out of the way of 0 to 3 first; both may lie anywhere.
    let socket = sys::dup_from(socket, 10).unwrap_or(socket);
    for target in 0..3 {
        if null != target {
            let _ = sys::dup3(null, target, 0);
        }
    }
    let _ = sys::dup3(socket, 3, 0);
    close_from(4);
    let arguments = [program.as_ptr(), c"engine".as_ptr(), core::ptr::null()];
    let environment: [*const libc::c_char; 1] = [core::ptr::null()];
    let args = [program.as_ptr() as usize, arguments.as_ptr() as usize, environment.as_ptr() as usize, 0, 0, 0];
    let refused = number(libc::SYS_execve, args);
    let start = Start::failed(program.to_bytes(), Errno(-refused as i32));
    let _ = sys::write(3, b"E");
    let _ = sys::write(3, start.text());
    exit_now(127)
}

/// Closes all descriptors from a number on; where `close_range` is refused (Linux before 5.9, older seccomp
/// filters) one by one: a pipe of the host's that stayed open here would never end for its reader.
fn close_from(first: usize) {
    if number(libc::SYS_close_range, [first, u32::MAX as usize, 0, 0, 0, 0]) == 0 {
        return;
    }
    let mut limit = [0u64; 2];
    number(libc::SYS_prlimit64, [0, libc::RLIMIT_NOFILE as usize, 0, (&raw mut limit) as usize, 0, 0]);
    // The host may have lowered its limit after it opened more.
    for fd in first..(limit[0] as usize).clamp(1 << 16, 1 << 20) {
        number(libc::SYS_close, [fd, 0, 0, 0, 0, 0]);
    }
}

/// Where the host is PID 1 or a subreaper, an orphaned engine would become its child.
fn host_would_reap() -> bool {
    let mut subreaper = 0i32;
    number(libc::SYS_prctl, [libc::PR_GET_CHILD_SUBREAPER as usize, (&raw mut subreaper) as usize, 0, 0, 0, 0]);
    sys::getpid() == 1 || subreaper != 0
}

/// Waits for children of every exit signal.
const WALL: usize = 0x4000_0000;

fn reap(child: isize) {
    while number(libc::SYS_wait4, [child as usize, 0, WALL, 0, 0, 0]) == -(libc::EINTR as isize) {}
}

/// The one that stayed is just about to end: 100 ms are plenty, and a host is not held up for more.
fn reap_stayed() {
    let child = STAYED.swap(0, Ordering::AcqRel);
    for _ in 0..20 {
        let options = WALL | libc::WNOHANG as usize;
        if child == 0 || number(libc::SYS_wait4, [child as usize, 0, options, 0, 0, 0]) != 0 {
            return;
        }
        sys::sleep_ms(5);
    }
}

/// `fork` without the C library: exit signal 0, no handlers.
fn clone_child() -> isize {
    number(libc::SYS_clone, [0; 6])
}

fn socket_pair() -> sys::Result<(i32, i32)> {
    let mut pair = [0i32; 2];
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    let made =
        number(libc::SYS_socketpair, [libc::AF_UNIX as usize, kind as usize, 0, pair.as_mut_ptr() as usize, 0, 0]);
    if made < 0 {
        return Err(Errno(-made as i32));
    }
    // A host without descriptors 0 to 2 keeps them free.
    let raised = pair.map(|fd| if fd > 2 { fd } else { sys::dup_from(fd, 3).unwrap_or(-1) });
    for (old, new) in pair.into_iter().zip(raised) {
        if old != new {
            let _ = sys::close(old);
        }
    }
    if raised.contains(&-1) { Err(Errno(libc::EMFILE)) } else { Ok((raised[0], raised[1])) }
}

/// Blocks every signal, so that no handler of the host runs in the child; returns the mask before.
fn block_signals() -> u64 {
    let (all, mut before) = (u64::MAX, 0u64);
    let args = [libc::SIG_SETMASK as usize, (&raw const all) as usize, (&raw mut before) as usize, 8, 0, 0];
    number(libc::SYS_rt_sigprocmask, args);
    before
}

fn restore_signals(mask: u64) {
    number(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, (&raw const mask) as usize, 0, 8, 0, 0]);
}

/// Ends the process without running anything of the host's.
pub(crate) fn exit_now(code: usize) -> ! {
    loop {
        number(libc::SYS_exit_group, [code, 0, 0, 0, 0, 0]);
    }
}

fn number(call: i64, args: [usize; 6]) -> isize {
    // SAFETY: callers in this file pass numbers, or addresses of live locals and NUL-terminated strings.
    unsafe { sys::raw(call, args) }
}
