//! The stat family and `access`: the real call first, then the object's size over the placeholder's.

use super::{Arguments, open};
use crate::by_name;
use crate::file;
use crate::folder;
use crate::handle::{GONE, Handle};
use crate::identity::{self, Real};
use crate::outcome::{Outcome, errno, set_errno, slow_path};
use crate::real;
use crate::seen::Seen;
use crate::session::{self, Turn};
use crate::waiting;
use core::ffi::{c_char, c_int, c_long, c_uint};
use libc::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, stat as Stat, statx as Statx};
use ossc_cache::region::Identity;
use ossc_cache::sys::{self, Errno, FileId, Result};

hooks! {
    fn stat(path: *const c_char, out: *mut Stat) -> c_int { by_path(AT_FDCWD, path, out, &|| real::stat(path, out)) }
    fn stat64(path: *const c_char, out: *mut Stat) -> c_int { by_path(AT_FDCWD, path, out, &|| real::stat64(path, out)) }
    fn lstat(path: *const c_char, out: *mut Stat) -> c_int { by_path(AT_FDCWD, path, out, &|| real::lstat(path, out)) }
    fn lstat64(path: *const c_char, out: *mut Stat) -> c_int { by_path(AT_FDCWD, path, out, &|| real::lstat64(path, out)) }
    fn fstat(fd: c_int, out: *mut Stat) -> c_int { by_descriptor(real::fstat(fd, out), fd, out) }
    fn fstat64(fd: c_int, out: *mut Stat) -> c_int { by_descriptor(real::fstat64(fd, out), fd, out) }
    fn fstatat(dir: c_int, path: *const c_char, out: *mut Stat, flags: c_int) -> c_int { by_path(dir, path, out, &|| real::fstatat(dir, path, out, flags)) }
    fn fstatat64(dir: c_int, path: *const c_char, out: *mut Stat, flags: c_int) -> c_int { by_path(dir, path, out, &|| real::fstatat64(dir, path, out, flags)) }
    fn __xstat(version: c_int, path: *const c_char, out: *mut Stat) -> c_int { by_path(AT_FDCWD, path, out, &|| real::__xstat(version, path, out)) }
    fn __xstat64(version: c_int, path: *const c_char, out: *mut Stat) -> c_int { by_path(AT_FDCWD, path, out, &|| real::__xstat64(version, path, out)) }
    fn __lxstat(version: c_int, path: *const c_char, out: *mut Stat) -> c_int { by_path(AT_FDCWD, path, out, &|| real::__lxstat(version, path, out)) }
    fn __lxstat64(version: c_int, path: *const c_char, out: *mut Stat) -> c_int { by_path(AT_FDCWD, path, out, &|| real::__lxstat64(version, path, out)) }
    fn __fxstat(version: c_int, fd: c_int, out: *mut Stat) -> c_int { by_descriptor(real::__fxstat(version, fd, out), fd, out) }
    fn __fxstat64(version: c_int, fd: c_int, out: *mut Stat) -> c_int { by_descriptor(real::__fxstat64(version, fd, out), fd, out) }
    fn __fxstatat(version: c_int, dir: c_int, path: *const c_char, out: *mut Stat, flags: c_int) -> c_int { by_path(dir, path, out, &|| real::__fxstatat(version, dir, path, out, flags)) }
    fn __fxstatat64(version: c_int, dir: c_int, path: *const c_char, out: *mut Stat, flags: c_int) -> c_int { by_path(dir, path, out, &|| real::__fxstatat64(version, dir, path, out, flags)) }
    fn statx(dir: c_int, path: *const c_char, flags: c_int, mask: c_uint, out: *mut Statx) -> c_int {
        // What tells the file is asked for in any case; more than was asked for is allowed.
        let mask = mask | libc::STATX_TYPE | libc::STATX_INO | libc::STATX_SIZE | libc::STATX_MTIME;
        again_if_gone(|repeats| {
            let got = by_name::until_listed(dir, path, || real::statx(dir, path, flags, mask, out), |got| *got != 0);
            if got == 0 { patch_x(dir, path, out, repeats).map(|()| got) } else { Ok(got) }
        })
    }
    fn access(path: *const c_char, mode: c_int) -> c_int { reached(AT_FDCWD, path, mode, 0, &|| real::access(path, mode)) }
    fn faccessat(dir: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int { reached(dir, path, mode, flags, &|| real::faccessat(dir, path, mode, flags)) }
    fn euidaccess(path: *const c_char, mode: c_int) -> c_int { reached(AT_FDCWD, path, mode, 0, &|| real::euidaccess(path, mode)) }
    fn eaccess(path: *const c_char, mode: c_int) -> c_int { reached(AT_FDCWD, path, mode, 0, &|| real::eaccess(path, mode)) }
}

/// The same by their numbers in `syscall()`.
#[inline]
pub(super) fn by_number(number: c_long, all: Arguments) -> Option<c_long> {
    let [a, b, c, d, e, _] = all;
    let (dir, path, first) = (a as c_int, b as *const c_char, a as *const c_char);
    let got = match number {
        libc::SYS_stat => stat(first, b as *mut Stat),
        libc::SYS_lstat => lstat(first, b as *mut Stat),
        libc::SYS_fstat => fstat(dir, b as *mut Stat),
        libc::SYS_newfstatat => fstatat(dir, path, c as *mut Stat, d as c_int),
        libc::SYS_statx => statx(dir, path, c as c_int, d as c_uint, e as *mut Statx),
        libc::SYS_access => access(first, b as c_int),
        // The kernel is what comes next: the C library's function does it in another way.
        libc::SYS_faccessat | libc::SYS_faccessat2 => {
            return Some(by_name::until_listed(dir, path, || real::by_number(number, all), |got| *got < 0));
        }
        _ => return None,
    };
    Some(got.into())
}

#[inline(never)]
fn by_path(dir: c_int, path: *const c_char, out: *mut Stat, call: &dyn Fn() -> c_int) -> c_int {
    again_if_gone(|repeats| {
        let got = by_name::until_listed(dir, path, call, |got| *got != 0);
        if got != 0 { Ok(got) } else { patch(out, |id| look(id, dir, path, repeats)).map(|()| got) }
    })
}

/// Asks again where the first answer was a file that its engine does not know, or one that a newer listing may have
/// replaced: the listing that this has caused may have given the name to another file.
pub(super) fn again_if_gone(ask: impl Fn(u32) -> Result<c_int>) -> c_int {
    let mut answer = ask(0);
    for repeats in 1..open::TRIES_MAX {
        if !matches!(answer, Err(GONE)) {
            break;
        }
        answer = ask(repeats);
    }
    Outcome::from(answer).answer(-1, || -1)
}

/// How long a status by name waits for a small object that is still to come.
const STATUS_MS: u64 = 2_000;

/// The same for a status by name, of a program that has read no folder of ours: it names the file because it will open it,
/// and may compare the two (`cp` does). True if there is another file now; not for long.
fn settles(handle: &Handle) -> bool {
    !folder::was_read() && waiting::placed_until(handle, sys::now_ms() + STATUS_MS).is_ok()
}

/// The file of ours that a path names, once the listing of its folder is new enough; GONE for one that may have been
/// replaced meanwhile.
pub(super) fn look(id: &FileId, dir: c_int, path: *const c_char, repeats: u32) -> Outcome<Seen> {
    let is_last = repeats + 1 == open::TRIES_MAX;
    let current = |handle: &Handle| is_last || session::looked(handle, repeats) != Turn::Again;
    if !identity::could_be_ours(id) {
        return match file::real_at(id, dir, path) {
            Real::Of(handle) if !current(&handle) => Outcome::Failed(GONE),
            Real::Again if !is_last => Outcome::Failed(GONE),
            _ => Outcome::Pass,
        };
    }
    file::of_id_at(id, dir, path).then(|seen| {
        if !is_last && !seen.facts.large && settles(&seen.handle) {
            return Outcome::Failed(GONE);
        }
        let is_current = seen.identity != Identity::Placeholder || current(&seen.handle);
        if is_current { Outcome::Served(seen) } else { Outcome::Failed(GONE) }
    })
}

fn by_descriptor(got: c_int, fd: c_int, out: *mut Stat) -> c_int {
    if got != 0 {
        return got;
    }
    Outcome::from(patch(out, |id| file::of_id(id, fd)).map(|()| got)).answer(-1, || got)
}

/// Patches a status that the C library has read inside itself, in a folder that is listed. A file that no engine
/// serves keeps its 0 bytes here, and its open fails.
pub(super) fn patch_known(out: &mut Stat) {
    let _ = patch(out, file::of_status);
}

/// Puts the object's facts over what the kernel said of a placeholder or a memory file.
fn patch(out: *mut Stat, look: impl FnOnce(&FileId) -> Outcome<Seen>) -> Result<()> {
    // SAFETY: the real call has just filled this struct of the program's.
    let st = unsafe { &mut *out };
    let Some(seen) = known(&file::id_of(st), look)? else { return Ok(()) };
    st.st_size = seen.facts.size as i64;
    st.st_blocks = blocks(seen.facts.size) as i64;
    (st.st_mtime, st.st_mtime_nsec) = (seen.facts.mtime_secs, 0);
    if seen.identity == Identity::Memory {
        (st.st_dev, st.st_ino) = (seen.facts.dev, seen.facts.ino);
        (st.st_mode, st.st_nlink, st.st_blksize) = (libc::S_IFREG | 0o644, 1, BLOCK_BYTES as i64);
        (st.st_ctime, st.st_ctime_nsec) = (seen.facts.mtime_secs, 0);
    }
    Ok(())
}

/// The file of ours whose facts count.
pub(super) fn known(id: &FileId, look: impl FnOnce(&FileId) -> Outcome<Seen>) -> Result<Option<Seen>> {
    if !id.is_file() && !identity::is_lost(id) {
        return Ok(None);
    }
    match slow_path(|| look(id)) {
        Outcome::Served(seen) => Ok(Some(seen)),
        Outcome::Failed(errno) => Err(errno),
        _ => Ok(None),
    }
}

const BLOCK_BYTES: u64 = 4096;

/// In units of 512 bytes, as if the file lay on disk without holes.
fn blocks(size: u64) -> u64 {
    size.div_ceil(BLOCK_BYTES) * (BLOCK_BYTES / 512)
}

fn patch_x(dir: c_int, path: *const c_char, out: *mut Statx, repeats: u32) -> Result<()> {
    // SAFETY: the real call has just filled this struct of the program's.
    let st = unsafe { &mut *out };
    let id = FileId {
        dev: libc::makedev(st.stx_dev_major, st.stx_dev_minor),
        ino: st.stx_ino,
        size: st.stx_size,
        mode: u32::from(st.stx_mode),
        mtime_secs: st.stx_mtime.tv_sec,
        mtime_nanos: st.stx_mtime.tv_nsec,
    };
    let Some(seen) = known(&id, |id| look(id, dir, path, repeats))? else { return Ok(()) };
    st.stx_size = seen.facts.size;
    st.stx_blocks = blocks(seen.facts.size);
    (st.stx_mtime.tv_sec, st.stx_mtime.tv_nsec) = (seen.facts.mtime_secs, 0);
    if seen.identity == Identity::Memory {
        (st.stx_dev_major, st.stx_dev_minor) = (libc::major(seen.facts.dev), libc::minor(seen.facts.dev));
        st.stx_ino = seen.facts.ino;
        (st.stx_mode, st.stx_nlink, st.stx_blksize) = ((libc::S_IFREG | 0o644) as u16, 1, BLOCK_BYTES as u32);
        (st.stx_ctime.tv_sec, st.stx_ctime.tv_nsec) = (seen.facts.mtime_secs, 0);
    }
    Ok(())
}

#[inline(never)]
fn reached(dir: c_int, path: *const c_char, mode: c_int, flags: c_int, call: &dyn Fn() -> c_int) -> c_int {
    let got = by_name::until_listed(dir, path, call, |got| *got != 0);
    if got != 0 || mode & libc::W_OK == 0 {
        return got;
    }
    let before = errno();
    let nofollow = flags & AT_SYMLINK_NOFOLLOW;
    let outcome = slow_path(|| open::may_change(dir, path, nofollow));
    set_errno(before);
    match outcome {
        Outcome::Failed(_) => Outcome::Failed(Errno(libc::EROFS)).answer(-1, || got),
        _ => got,
    }
}
