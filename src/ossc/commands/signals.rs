//! Signals of a command that runs beside a program, or until it is told to end: they are taken in order by one thread,
//! and no handler ever runs.
//!
//! Called by `ossc run --progress`, `ossc warm` and `ossc verify`, before they start a thread. It sends nothing by itself. The
//! key that stops a program (SIGTSTP) is taken as well: a bar is off the terminal before a shell has that.

use crate::commands::bar::Bar;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

/// What asks a program to end, or tells it something: forwarded to a program that is run.
pub const FORWARDED: [i32; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];
/// What asks a command to end.
pub const ENDING: [i32; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];

/// One that has come.
pub struct Caught {
    pub number: i32,
    /// The kernel sent it, as it does for a key of the terminal: then all of its foreground has it.
    pub is_of_kernel: bool,
}

/// Signals that this thread, and threads that it starts later, do not get but take.
pub struct Signals {
    taken: libc::sigset_t,
    before: libc::sigset_t,
}

impl Signals {
    /// From now on these are taken, those aside that the starter has this process ignore.
    pub fn take_over(numbers: &[i32]) -> Signals {
        let mut taken = empty();
        for number in numbers.iter().chain(&[libc::SIGTSTP]).filter(|number| !is_ignored(**number)) {
            // SAFETY: a set that was made empty, and a valid number.
            unsafe { libc::sigaddset(&mut taken, *number) };
        }
        let mut before = empty();
        // SAFETY: both sets live, and a blocked signal changes nothing but when it is delivered.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &taken, &mut before) };
        Signals { taken, before }
    }

    /// The next one, waiting for it at most so long; sooner where this process was stopped and goes on. It is stopped while
    /// `bar` is off the terminal.
    pub fn next(&self, within: Duration, bar: Option<&Bar>) -> Option<Caught> {
        let caught = self.taken(within)?;
        if caught.number != libc::SIGTSTP {
            return Some(caught);
        }
        bar.map_or_else(stop, |bar| bar.aside(stop));
        None
    }

    fn taken(&self, within: Duration) -> Option<Caught> {
        let limit = libc::timespec { tv_sec: within.as_secs() as i64, tv_nsec: i64::from(within.subsec_nanos()) };
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: the set and the limit live, and `info` has room for what is said.
        let number = unsafe { libc::sigtimedwait(&self.taken, info.as_mut_ptr(), &limit) };
        if number <= 0 {
            return None;
        }
        // SAFETY: zeroed before and filled by now; each pattern of bits is valid.
        let code = unsafe { info.assume_init() }.si_code;
        Some(Caught { number, is_of_kernel: code == libc::SI_KERNEL })
    }

    /// Starts a program with the signals that this process had.
    ///
    /// # Errors
    /// The kernel's.
    pub fn spawn(&self, command: &mut Command) -> std::io::Result<Child> {
        let before = self.before;
        // SAFETY: the closure makes one system call and takes nothing but a copy of the set.
        unsafe {
            command.pre_exec(move || {
                libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
                Ok(())
            })
        };
        command.spawn()
    }
}

/// Sends a process a signal; one that is gone does not get it.
pub fn send(pid: u32, number: i32) {
    // SAFETY: no memory is touched; the caller has not reaped the process, so the number is still its own.
    unsafe { libc::kill(pid as i32, number) };
}

/// Stops this process as SIGTSTP would have: in a process group that no shell looks after it goes on at once, as any
/// program does.
fn stop() {
    let mut only = empty();
    // SAFETY: live sets, the default action, and a signal to this thread, which has it blocked before and after.
    unsafe {
        libc::sigaddset(&mut only, libc::SIGTSTP);
        libc::raise(libc::SIGTSTP);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &only, std::ptr::null_mut());
        libc::pthread_sigmask(libc::SIG_BLOCK, &only, std::ptr::null_mut());
    }
}

/// Ends this process as a program ended that a signal has killed, without a second core file. Comes back if it cannot.
pub fn end_by(number: i32) {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = setrlimit(Resource::Core, none);
    let mut only = empty();
    // SAFETY: live sets, the default action, and a signal to this thread.
    unsafe {
        libc::sigaddset(&mut only, number);
        libc::signal(number, libc::SIG_DFL);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &only, std::ptr::null_mut());
        libc::raise(number);
    }
}

fn empty() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the call fills the set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

/// True if this process was started with a signal ignored, as its programs will be.
pub fn is_ignored(number: i32) -> bool {
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with no new action the call only fills `now`, which is valid in any case.
    let now = unsafe {
        libc::sigaction(number, std::ptr::null(), now.as_mut_ptr());
        now.assume_init()
    };
    now.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_taken_and_a_program_gets_its_own() {
        let signals = Signals::take_over(&[libc::SIGUSR1, libc::SIGCHLD]);
        assert!(signals.next(Duration::ZERO, None).is_none());
        // SAFETY: to this thread, which has it blocked.
        unsafe { libc::raise(libc::SIGUSR1) };
        let caught = signals.next(Duration::from_secs(5), None).unwrap();
        assert_eq!((caught.number, caught.is_of_kernel), (libc::SIGUSR1, false));
        let mut shell = Command::new("sh");
        shell.args(["-c", "kill -USR1 $$; exit 3"]);
        let status = signals.spawn(&mut shell).unwrap().wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGUSR1));
    }
}
