//! Standard input redirected from a placeholder: the C library's `stdin` reads inside itself, so descriptor
//! 0 gets the memory file before `main`. The offset of the redirected file is shared with whoever opened
//! it (`{ head -n 1; cat; } < file`), so it is brought up to date whenever this process lets go of it.

use super::{Arguments, filled, spawn};
use crate::file;
use crate::identity;
use crate::marks;
use crate::outcome::{Outcome, slow_path};
use crate::real::{self, Strings};
use crate::say::say;
use crate::started;
use core::ffi::{c_char, c_int, c_long, c_uint};
use core::ptr::null;
use core::sync::atomic::{AtomicI32, AtomicI64, Ordering::Relaxed};
use libc::AT_FDCWD;
use ossc_cache::sys::{self, Errno};

hooks! {
    fn execve(path: *const c_char, arguments: Strings, environment: Strings) -> c_int { replaced(AT_FDCWD, path, &|| real::execve(path, arguments, environment)) }
    fn execv(path: *const c_char, arguments: Strings) -> c_int { replaced(AT_FDCWD, path, &|| real::execv(path, arguments)) }
    fn execvp(name: *const c_char, arguments: Strings) -> c_int { spawn::search(name); replaced(AT_FDCWD, null(), &|| real::execvp(name, arguments)) }
    fn execvpe(name: *const c_char, arguments: Strings, environment: Strings) -> c_int { spawn::search(name); replaced(AT_FDCWD, null(), &|| real::execvpe(name, arguments, environment)) }
    fn execveat(dir: c_int, path: *const c_char, arguments: Strings, environment: Strings, flags: c_int) -> c_int { replaced(dir, path, &|| real::execveat(dir, path, arguments, environment, flags)) }
    fn fexecve(fd: c_int, arguments: Strings, environment: Strings) -> c_int { replaced(AT_FDCWD, null(), &|| real::fexecve(fd, arguments, environment)) }
    // Shells end this way; the real ones do not return either.
    fn _exit(status: c_int) -> () { leave(); real::_exit(status) }
    fn _Exit(status: c_int) -> () { leave(); real::_Exit(status) }
}

/// The same by their numbers in `syscall()`.
#[inline]
pub(super) fn by_number(number: c_long, all: Arguments) -> Option<c_long> {
    let [a, b, c, ..] = all;
    Some(match number {
        libc::SYS_exit_group => {
            leave();
            return None;
        }
        libc::SYS_execve => execve(a as *const c_char, b as Strings, c as Strings).into(),
        libc::SYS_execveat => {
            replaced(a as c_int, b as *const c_char, &|| real::by_number(number, all) as c_int).into()
        }
        _ => return None,
    })
}

/// A descriptor of the placeholder that was at 0; -1 when there was none.
static SAVED: AtomicI32 = AtomicI32::new(-1);
/// The offset that it was left at: whoever has moved it since goes on from there.
static LEFT_AT: AtomicI64 = AtomicI64::new(0);
/// The process that took it. Its children share the memory file's offset with it, and leave this alone.
static REDIRECTED_BY: AtomicI32 = AtomicI32::new(0);
/// Where it is kept: above what programs count on.
const SAVED_FROM: c_int = 600;

/// Gives `stdin` the object's bytes when descriptor 0 is a placeholder: called by the constructor, and when another
/// file comes to the number.
pub(crate) fn redirect_stdin() {
    if !sys::file_id(0).is_ok_and(|id| identity::could_be_ours(&id)) {
        return;
    }
    match slow_path(|| filled::memory_of(0, false)) {
        Outcome::Served(memory) => {
            // Of the file that standard input was before.
            if let Some(before) = saved() {
                let _ = sys::close(before);
            }
            REDIRECTED_BY.store(sys::getpid(), Relaxed);
            let saved = sys::dup_from(0, SAVED_FROM).unwrap_or(-1);
            LEFT_AT.store(sys::lseek(saved, 0, libc::SEEK_CUR).unwrap_or(0), Relaxed);
            SAVED.store(saved, Relaxed);
            filled::put(memory, 0);
        }
        // What the memory budget can never hold a program may still read through the hooks.
        Outcome::Failed(Errno(libc::ENOMEM)) | Outcome::Pass => {}
        Outcome::Failed(_) => lose(),
    }
}

/// The object's bytes cannot be had, and the C library would find the placeholder empty: descriptor 0 becomes the
/// writing end of a pipe. Its reads are EBADF inside the C library, after exec and in children that live on; the hooks
/// make it EIO.
fn lose() {
    if let Some(id) = filled::make_unreadable(0, 0) {
        identity::lose(&id);
    }
    marks::mark_lost(0);
    say(&[
        b"oss connector: standard input is an object whose bytes cannot be had: reads of it fail; the log says why\n",
    ]);
}

/// End of the program, after its own exit handlers.
pub(crate) fn give_back() {
    if saved().is_some() {
        step_back();
        leave();
    }
}

/// End of the program without the C library's last acts.
pub(super) fn leave() {
    if let Some(saved) = saved() {
        tell(saved, 0);
    }
}

unsafe extern "C" {
    static stdin: *mut libc::FILE;
    fn ftrylockfile(stream: *mut libc::FILE) -> c_int;
    fn funlockfile(stream: *mut libc::FILE);
}

/// Puts the offset to what the program has really consumed, as the C library does at its own end, which
/// comes after ours.
fn step_back() {
    // SAFETY: the C library's own stream; reading the pointer is what every program does.
    let stream = unsafe { stdin };
    // SAFETY: an open stream; a thread that holds it is not waited for.
    if unsafe { ftrylockfile(stream) } != 0 {
        return;
    }
    // SAFETY: as above.
    unsafe { libc::fflush(stream) };
    // SAFETY: locked above.
    unsafe { funlockfile(stream) };
}

/// Descriptor `fd` is about to be closed or replaced by `close`; standard input's offset is told after it,
/// since a stream steps back to what was really consumed when it closes.
pub(super) fn closing(fd: c_int, close: impl FnOnce() -> c_int) -> c_int {
    let Some(saved) = saved() else { return close() };
    if fd != 0 {
        if fd == saved {
            SAVED.store(-1, Relaxed);
        }
        return close();
    }
    let last = sys::dup_from(0, SAVED_FROM);
    let got = close();
    if let Ok(last) = last {
        tell(saved, last);
        let _ = sys::close(last);
    }
    got
}

/// A new program takes over: it finds the placeholder at 0, as it was, and does the same on its own. `path` is the
/// program's file, or null where its folder needs no listing.
#[inline(never)]
fn replaced(dir: c_int, path: *const c_char, exec: &dyn Fn() -> c_int) -> c_int {
    if !path.is_null() {
        started::program(dir, path);
    }
    let Some(saved) = saved() else { return exec() };
    tell(saved, 0);
    let Ok(memory) = sys::dup_from(0, SAVED_FROM) else { return exec() };
    let is_same = is_stdin(saved, memory);
    if is_same {
        let _ = sys::dup3(saved, 0, 0);
    }
    let failed = exec();
    if is_same {
        let _ = sys::dup3(memory, 0, 0);
    }
    let _ = sys::close(memory);
    failed
}

fn saved() -> Option<c_int> {
    let saved = SAVED.load(Relaxed);
    (saved >= 0 && REDIRECTED_BY.load(Relaxed) == sys::getpid()).then_some(saved)
}

/// Gives the placeholder the offset of the memory file that `from` is.
fn tell(saved: c_int, from: c_int) {
    if is_stdin(saved, from)
        && sys::lseek(saved, 0, libc::SEEK_CUR) == Ok(LEFT_AT.load(Relaxed))
        && let Ok(at) = sys::lseek(from, 0, libc::SEEK_CUR)
        && sys::lseek(saved, at, libc::SEEK_SET).is_ok()
    {
        LEFT_AT.store(at, Relaxed);
    }
}

/// The program closes these numbers, and may have taken one for its own.
pub(super) fn lost_between(from: c_uint, to: c_uint) {
    if saved().is_some_and(|saved| (from..=to).contains(&(saved as c_uint))) {
        SAVED.store(-1, Relaxed);
    }
}

/// True if the two are still the placeholder and the memory file of one object: the program may have put
/// other files at these numbers.
fn is_stdin(saved: c_int, memory: c_int) -> bool {
    let same = || {
        let was = file::placeholder(saved).served()?;
        let is = file::of_descriptor(memory).served()?;
        Some(was.handle.slot == is.handle.slot && !is.is_placeholder())
    };
    slow_path(|| Outcome::Served(same() == Some(true))).answer(false, || false)
}
