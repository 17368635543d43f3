//! `statfs`, `statvfs` and their kin: a large object lies where its bytes are, on the tmpfs of the engine's memory.
//! Loaders choose by it how they read: a map of a file on tmpfs, direct or ring I/O of one on a disk.
//!
//! The call is the real one first; what it said of anything else than a large object stands, of folders and of small
//! objects, too, which are real.

use super::Arguments;
use super::stat::{again_if_gone, known, look};
use crate::attach;
use crate::by_name::until_listed;
use crate::environ;
use crate::file;
use crate::outcome::{Outcome, slow_path};
use crate::real;
use crate::seen::Seen;
use core::ffi::{c_char, c_int, c_long, c_ulong};
use libc::{AT_FDCWD, statfs as StatFs, statvfs as StatVfs};
use ossc_cache::cpath::CPath;
use ossc_cache::sys;

hooks! {
    fn statfs(path: *const c_char, out: *mut StatFs) -> c_int { by_path(path, out, &|| real::statfs(path, out)) }
    fn statfs64(path: *const c_char, out: *mut StatFs) -> c_int { by_path(path, out, &|| real::statfs64(path, out)) }
    fn __statfs(path: *const c_char, out: *mut StatFs) -> c_int { by_path(path, out, &|| real::__statfs(path, out)) }
    fn statvfs(path: *const c_char, out: *mut StatVfs) -> c_int { by_path(path, out, &|| real::statvfs(path, out)) }
    fn statvfs64(path: *const c_char, out: *mut StatVfs) -> c_int { by_path(path, out, &|| real::statvfs64(path, out)) }
    fn fstatfs(fd: c_int, out: *mut StatFs) -> c_int { by_descriptor(fd, out, real::fstatfs(fd, out)) }
    fn fstatfs64(fd: c_int, out: *mut StatFs) -> c_int { by_descriptor(fd, out, real::fstatfs64(fd, out)) }
    fn fstatvfs(fd: c_int, out: *mut StatVfs) -> c_int { by_descriptor(fd, out, real::fstatvfs(fd, out)) }
    fn fstatvfs64(fd: c_int, out: *mut StatVfs) -> c_int { by_descriptor(fd, out, real::fstatvfs64(fd, out)) }
}

/// The same by their numbers in `syscall()`.
#[inline]
pub(super) fn by_number(number: c_long, [a, b, ..]: Arguments) -> Option<c_long> {
    let out = b as *mut StatFs;
    Some(match number {
        libc::SYS_statfs => statfs(a as *const c_char, out).into(),
        libc::SYS_fstatfs => fstatfs(a as c_int, out).into(),
        _ => return None,
    })
}

/// What a call of this family fills in.
trait Answer {
    /// Says that the file lies on `fs`.
    fn lie_on(&mut self, fs: &StatFs);
}

impl Answer for StatFs {
    fn lie_on(&mut self, fs: &StatFs) {
        // Identity, flags and length of names stay those of the folder that the file is in.
        (self.f_type, self.f_bsize, self.f_frsize) = (fs.f_type, fs.f_bsize, fs.f_frsize);
        (self.f_blocks, self.f_bfree, self.f_bavail) = (fs.f_blocks, fs.f_bfree, fs.f_bavail);
        (self.f_files, self.f_ffree) = (fs.f_files, fs.f_ffree);
    }
}

impl Answer for StatVfs {
    fn lie_on(&mut self, fs: &StatFs) {
        (self.f_bsize, self.f_frsize) = (fs.f_bsize as c_ulong, fs.f_frsize as c_ulong);
        (self.f_blocks, self.f_bfree, self.f_bavail) = (fs.f_blocks, fs.f_bfree, fs.f_bavail);
        (self.f_files, self.f_ffree, self.f_favail) = (fs.f_files, fs.f_ffree, fs.f_ffree);
        let kind = (&raw mut *self).cast::<u8>().wrapping_add(KIND_AT).cast::<u32>();
        // SAFETY: within the struct, of which any value is valid, and aligned as its last fields are.
        let kind = unsafe { &mut *kind };
        if *kind != 0 {
            *kind = fs.f_type as u32;
        }
    }
}

/// Where glibc 2.39 and newer tell the type (bits/statvfs.h, x86-64: the first of six spare words); older ones have a
/// zero there.
const KIND_AT: usize = size_of::<StatVfs>() - 6 * size_of::<c_int>();

#[inline(never)]
fn by_path<T: Answer>(path: *const c_char, out: *mut T, call: &dyn Fn() -> c_int) -> c_int {
    again_if_gone(|repeats| {
        let got = until_listed(AT_FDCWD, path, call, |got| *got != 0);
        let Ok(st) = real::stat_at(AT_FDCWD, path, 0) else { return Ok(got) };
        if got == 0 && is_large(known(&file::id_of(&st), |id| look(id, AT_FDCWD, path, repeats))?) {
            lie_on_memory(out);
        }
        Ok(got)
    })
}

fn by_descriptor<T: Answer>(fd: c_int, out: *mut T, got: c_int) -> c_int {
    if got != 0 {
        return got;
    }
    let asked = slow_path(|| file::of_descriptor(fd));
    if matches!(&asked, Outcome::Served(seen) if seen.facts.large) {
        lie_on_memory(out);
    }
    asked.then(|_| Outcome::Served(got)).answer(-1, || got)
}

fn is_large(seen: Option<Seen>) -> bool {
    seen.is_some_and(|seen| seen.facts.large)
}

fn lie_on_memory<T: Answer>(out: *mut T) {
    // SAFETY: the real call has just filled this struct of the program's.
    let out = unsafe { &mut *out };
    if let Some(fs) = memory_fs() {
        out.lie_on(&fs);
    }
}

const BLOCK_BYTES: u64 = 4096;

/// The tmpfs that holds the bytes. Memory files without a mount of their own lie on one of the kernel's that counts
/// nothing: then the counts are those of MODEL_DIR.
fn memory_fs() -> Option<StatFs> {
    let of_store = attach::store_folder().and_then(|store| sys::fs_of(store).ok());
    if let Some(fs) = of_store.filter(|fs| fs.f_type == libc::TMPFS_MAGIC && fs.f_blocks != 0) {
        return Some(fs);
    }
    let path = CPath::from(environ::model_dir());
    let path = path.as_cstr()?;
    let mut fs = core::mem::MaybeUninit::<StatFs>::zeroed();
    real::kernel(libc::SYS_statfs, [path.as_ptr() as usize, fs.as_mut_ptr() as usize, 0, 0, 0, 0]).ok()?;
    // SAFETY: zeroed is a valid `statfs`, and the kernel has filled it.
    let mut fs = unsafe { fs.assume_init() };
    let unit = if fs.f_frsize > 0 { fs.f_frsize as u64 } else { BLOCK_BYTES };
    for blocks in [&mut fs.f_blocks, &mut fs.f_bfree, &mut fs.f_bavail] {
        *blocks = (u128::from(*blocks) * u128::from(unit) / u128::from(BLOCK_BYTES)) as u64;
    }
    (fs.f_type, fs.f_bsize, fs.f_frsize) = (libc::TMPFS_MAGIC, BLOCK_BYTES as i64, BLOCK_BYTES as i64);
    Some(fs)
}
