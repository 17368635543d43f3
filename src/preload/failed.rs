//! An object or folder that a program cannot have, or waits for in vain so far: one line on its standard error that names
//! it, the errno, the reason and the log, once for each object and cause in a process. The program by itself shows the
//! errno at best.
//!
//! Called where a wait or an open ends in an error (`waiting`, `memory_file`, `taken`, `listing`, the hooks). What comes
//! of a file that no engine knows is said by `identity`. It waits for nothing, and writes by `say` alone.

use crate::attach;
use crate::environ;
use crate::handle::Handle;
use crate::memory;
use crate::say::say;
use crate::seen::Seen;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use ossc_cache::cpath::CPath;
use ossc_cache::region::{RecordKind, Region, place_key, state};
use ossc_cache::sys::Errno;
use ossc_cache::verdict::Judgement;

/// A wait for this object has ended with an error. ESTALE of a version that is no more is looked at again by the caller.
#[cold]
#[inline(never)]
pub(crate) fn waited(now: &Handle, errno: Errno) {
    let is_failed = now.object.state() == state::FAILED;
    let why: &[u8] = match errno.0 {
        libc::ENOMEM => {
            b"there is no room for it in the engine's memory beside what is in use: raise memoryLimit, or give the program more memory"
        }
        libc::EACCES => b"OSS does not give it to these credentials, or it is archived: grant oss:GetObject, or restore it",
        libc::ENOENT => b"OSS has it no more",
        libc::ESTALE if is_failed => b"it was changed on OSS while it was read: start the load again",
        libc::EIO if now.object.verdict.get().judgement == Judgement::Wrong => {
            b"its bytes do not have the CRC-64 that OSS reports, also after they were fetched again: upload it anew"
        }
        libc::EIO if is_failed && now.object.kind() == RecordKind::Small => {
            b"it could not be had from OSS, or not be written to MODEL_DIR"
        }
        libc::EIO if is_failed => b"it could not be had from OSS",
        libc::EIO if attach::engine_runs() => b"its engine does not answer",
        libc::EIO => b"no engine works on it any more",
        // Of a wait that the caller has bounded or a signal has ended.
        _ => return,
    };
    tell(now, errno, why);
}

/// A map or stream of this object was refused: by the budget, if that can never hold it. Else the wait has told it.
#[cold]
#[inline(never)]
pub(crate) fn kept_from_memory(seen: &Seen, errno: Errno) {
    if errno.0 == libc::ENOMEM && memory::is_too_large(&seen.handle) {
        let why = b"it is larger than the memory budget, and a map or stream needs all of it: raise memoryLimit, or give the program more memory";
        tell(&seen.handle, errno, why);
    }
}

/// A reader of this object goes on waiting, although this has failed; the engine has not given it up.
#[cold]
#[inline(never)]
pub(crate) fn waits(handle: &Handle, why: &[u8]) {
    if !why.is_empty() && !is_told(key(handle, 0)) {
        let (path, log) = (CPath::default().with_shown(handle.path().as_bytes()), handle.region.log_path());
        let (before, why): (&[u8], _) =
            (if log.is_empty() { b"" } else { AND_THE_LOG }, CPath::default().with_shown(why));
        let waits = b": a reader still waits for it, since ";
        say(&[b"oss connector: ", path.as_bytes(), waits, why.as_bytes(), before, log, b"\n"]);
    }
}

/// What a line calls an object and a cause: an errno, 0 for a wait.
fn key(handle: &Handle, errno: i32) -> u64 {
    u64::from(handle.slot.to_bits()) << 32 | u64::from(errno as u32)
}

const AND_THE_LOG: &[u8] = b"; the log says more: ";

/// This object gives an error for this reason.
#[cold]
#[inline(never)]
pub(crate) fn tell(handle: &Handle, errno: Errno, why: &[u8]) {
    if !is_told(key(handle, errno.0)) {
        speak(handle.path().as_bytes(), errno, why, Some(&handle.region));
    }
}

/// The engine could not list this folder; its path is relative to MODEL_DIR, or absolute.
#[cold]
#[inline(never)]
pub(crate) fn listing(path: &[u8]) {
    let errno = Errno(libc::EIO);
    if is_told(place_key(path)) {
        return;
    }
    let folder = match path {
        _ if path.starts_with(b"/") => CPath::from(path),
        [] => CPath::from(environ::model_dir()),
        _ => CPath::from(environ::model_dir()).with(b"/").with(path),
    };
    let known = attach::last_known();
    speak(
        folder.as_bytes(),
        errno,
        b"OSS did not list it, so what lies in it is not known",
        known.as_ref().map(|(_, region)| region),
    );
}

fn speak(path: &[u8], errno: Errno, why: &[u8], region: Option<&Region>) {
    let log = region.map_or(&b""[..], |region| region.log_path());
    let before: &[u8] = if log.is_empty() { b"" } else { AND_THE_LOG };
    // A name may hold what a terminal obeys.
    let path = CPath::default().with_shown(path);
    say(&[b"oss connector: ", path.as_bytes(), b": ", name(errno), b": ", why, before, log, b"\n"]);
}

fn name(errno: Errno) -> &'static [u8] {
    match errno.0 {
        libc::EACCES => b"EACCES",
        libc::EIO => b"EIO",
        libc::ENOENT => b"ENOENT",
        libc::ENOMEM => b"ENOMEM",
        libc::ESTALE => b"ESTALE",
        _ => b"error",
    }
}

/// True if it was said before. The last ones are remembered.
fn is_told(key: u64) -> bool {
    static TOLD: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];
    let key = key | 1 << 63;
    let place = (key ^ key >> 32) as usize % TOLD.len();
    TOLD[place].swap(key, Relaxed) == key
}
