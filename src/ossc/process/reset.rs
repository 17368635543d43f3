//! Undoing what a process inherits from the host program that started it: signals, mask, umask, limits,
//! memory policy, huge-page switch, working folder. And taking the one descriptor that it was given.
//!
//! Called once by the engine, before it has a second thread. It keeps the CPU affinity: a user who binds
//! the program binds its loading too.

use std::os::fd::{FromRawFd, OwnedFd};

/// Number of the descriptor over which the starter talks.
const STARTER_FD: i32 = 3;
/// Bits of a umask: what it withholds from other users, and of that what the engine always withholds.
const OTHERS: libc::mode_t = 0o077;
const OTHERS_WRITE: libc::mode_t = 0o022;
/// Descriptors that are enough for every object, connection and client.
const DESCRIPTORS: libc::rlim_t = 1 << 18;

/// The socket to the starter; `None` when this process was started by hand.
pub fn starter() -> Option<OwnedFd> {
    // SAFETY: asks about a descriptor number only.
    let kind = unsafe { libc::fcntl(STARTER_FD, libc::F_GETFD) };
    if kind < 0 {
        return None;
    }
    // SAFETY: asks about a descriptor number only.
    unsafe { libc::fcntl(STARTER_FD, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: descriptor 3 is open, and nothing else in this process knows it.
    Some(unsafe { OwnedFd::from_raw_fd(STARTER_FD) })
}

/// Undoes the rest.
pub fn inherited() {
    for signal in 1..=64 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            // SAFETY: default dispositions in a process with one thread.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    // SAFETY: the kernel tells of a program that opens a file under our lease by SIGIO; leases last microseconds.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
    // SAFETY: an ignored SIGPIPE only turns a signal into an error that every write here handles.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    // SAFETY: a file that may not grow is an error that every write here handles.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    // SAFETY: all-zero is the empty signal set; the call reads it.
    unsafe {
        let none: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        // What is made for the program's user is as private as the program's own files. No other user may write to it,
        // and the engine itself can read it in any case.
        let inherited = libc::umask(OTHERS_WRITE);
        libc::umask(inherited & OTHERS | OTHERS_WRITE);
        libc::chdir(c"/".as_ptr());
        libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0);
        libc::syscall(libc::SYS_set_mempolicy, 0, 0, 0);
    }
    raise(libc::RLIMIT_NOFILE, DESCRIPTORS);
    raise(libc::RLIMIT_FSIZE, libc::RLIM_INFINITY);
    for limit in [libc::RLIMIT_AS, libc::RLIMIT_DATA, libc::RLIMIT_CPU, libc::RLIMIT_NPROC] {
        raise(limit, libc::RLIM_INFINITY);
    }
    // Credentials are in this process's memory: no core files. The kernel makes none of 1 byte, and asks no program that
    // core_pattern names, which it does with a limit of 0.
    // SAFETY: the struct is valid; lowering a limit is always allowed.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 1, rlim_max: 1 }) } != 0 {
        // SAFETY: as above. The limit was 0 already, and this process may not raise it.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 }) };
    }
}

/// Raises a limit to what is wanted where this process may, else to its hard limit.
fn raise(limit: libc::__rlimit_resource_t, wanted: libc::rlim_t) {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: fills, then reads, the structs that it is given.
    unsafe {
        if libc::getrlimit(limit, &mut now) == 0 {
            let more = now.rlim_max.max(wanted);
            if libc::setrlimit(limit, &libc::rlimit { rlim_cur: more, rlim_max: more }) != 0 {
                now.rlim_cur = now.rlim_max;
                libc::setrlimit(limit, &now);
            }
        }
    }
}
