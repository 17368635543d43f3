//! Names: making, moving and removing them. The calls are the real ones, on placeholders too; all that is added is
//! that the folders which the names lie in are listed, so that what is in the bucket is found, or is in the way.

use super::Arguments;
use super::dir::{DEPTH_MAX, list_tree};
use crate::attach;
use crate::by_name::{Named, list_for_new, settle, until_all_listed, until_listed};
use crate::join;
use crate::listing;
use crate::outcome::{Outcome, slow_path};
use crate::real;
use core::ffi::{c_char, c_int, c_long, c_uint};
use libc::{AT_FDCWD, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, dev_t, mode_t};
use ossc_cache::sys::Result;

hooks! {
    fn mkdir(path: *const c_char, mode: mode_t) -> c_int { made(AT_FDCWD, path, &|| real::mkdir(path, mode)) }
    fn mkdirat(dir: c_int, path: *const c_char, mode: mode_t) -> c_int { made(dir, path, &|| real::mkdirat(dir, path, mode)) }
    fn mknod(path: *const c_char, mode: mode_t, device: dev_t) -> c_int { made(AT_FDCWD, path, &|| real::mknod(path, mode, device)) }
    fn mknodat(dir: c_int, path: *const c_char, mode: mode_t, device: dev_t) -> c_int { made(dir, path, &|| real::mknodat(dir, path, mode, device)) }
    fn __xmknod(version: c_int, path: *const c_char, mode: mode_t, device: *mut dev_t) -> c_int { made(AT_FDCWD, path, &|| real::__xmknod(version, path, mode, device)) }
    fn __xmknodat(version: c_int, dir: c_int, path: *const c_char, mode: mode_t, device: *mut dev_t) -> c_int { made(dir, path, &|| real::__xmknodat(version, dir, path, mode, device)) }
    fn mkfifo(path: *const c_char, mode: mode_t) -> c_int { made(AT_FDCWD, path, &|| real::mkfifo(path, mode)) }
    fn mkfifoat(dir: c_int, path: *const c_char, mode: mode_t) -> c_int { made(dir, path, &|| real::mkfifoat(dir, path, mode)) }
    fn symlink(target: *const c_char, path: *const c_char) -> c_int { made(AT_FDCWD, path, &|| real::symlink(target, path)) }
    fn symlinkat(target: *const c_char, dir: c_int, path: *const c_char) -> c_int { made(dir, path, &|| real::symlinkat(target, dir, path)) }
    fn link(old: *const c_char, new: *const c_char) -> c_int { linked([(AT_FDCWD, old), (AT_FDCWD, new)], 0, &|| real::link(old, new)) }
    fn linkat(old_dir: c_int, old: *const c_char, new_dir: c_int, new: *const c_char, flags: c_int) -> c_int { linked([(old_dir, old), (new_dir, new)], flags, &|| real::linkat(old_dir, old, new_dir, new, flags)) }
    fn rename(old: *const c_char, new: *const c_char) -> c_int { moved([(AT_FDCWD, old), (AT_FDCWD, new)], 0, &|| real::rename(old, new)) }
    fn renameat(old_dir: c_int, old: *const c_char, new_dir: c_int, new: *const c_char) -> c_int { moved([(old_dir, old), (new_dir, new)], 0, &|| real::renameat(old_dir, old, new_dir, new)) }
    fn renameat2(old_dir: c_int, old: *const c_char, new_dir: c_int, new: *const c_char, flags: c_uint) -> c_int { moved([(old_dir, old), (new_dir, new)], flags, &|| real::renameat2(old_dir, old, new_dir, new, flags)) }
    fn unlink(path: *const c_char) -> c_int { removed(AT_FDCWD, path, false, &|| real::unlink(path)) }
    fn unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int { removed(dir, path, flags & libc::AT_REMOVEDIR != 0, &|| real::unlinkat(dir, path, flags)) }
    fn rmdir(path: *const c_char) -> c_int { removed(AT_FDCWD, path, true, &|| real::rmdir(path)) }
    fn remove(path: *const c_char) -> c_int { removed(AT_FDCWD, path, true, &|| real::remove(path)) }
    // These write into the name before they try it, so a second try would be refused: the folder is listed first.
    fn mkstemp(name: *mut c_char) -> c_int { list_for_new(AT_FDCWD, name); real::mkstemp(name) }
    fn mkstemp64(name: *mut c_char) -> c_int { list_for_new(AT_FDCWD, name); real::mkstemp64(name) }
    fn mkostemp(name: *mut c_char, flags: c_int) -> c_int { list_for_new(AT_FDCWD, name); real::mkostemp(name, flags) }
    fn mkostemp64(name: *mut c_char, flags: c_int) -> c_int { list_for_new(AT_FDCWD, name); real::mkostemp64(name, flags) }
    fn mkstemps(name: *mut c_char, tail: c_int) -> c_int { list_for_new(AT_FDCWD, name); real::mkstemps(name, tail) }
    fn mkstemps64(name: *mut c_char, tail: c_int) -> c_int { list_for_new(AT_FDCWD, name); real::mkstemps64(name, tail) }
    fn mkostemps(name: *mut c_char, tail: c_int, flags: c_int) -> c_int { list_for_new(AT_FDCWD, name); real::mkostemps(name, tail, flags) }
    fn mkostemps64(name: *mut c_char, tail: c_int, flags: c_int) -> c_int { list_for_new(AT_FDCWD, name); real::mkostemps64(name, tail, flags) }
    fn mkdtemp(name: *mut c_char) -> *mut c_char { list_for_new(AT_FDCWD, name); real::mkdtemp(name) }
}

/// The same by their numbers in `syscall()`: the kernel is what comes next, since the C library's function of the name
/// may do it in another way.
#[inline]
pub(super) fn by_number(number: c_long, all: Arguments) -> Option<c_long> {
    let [a, b, c, d, e, _] = all;
    let call: &dyn Fn() -> c_int = &|| real::by_number(number, all) as c_int;
    let (first, second) = ((AT_FDCWD, a as *const c_char), (AT_FDCWD, b as *const c_char));
    let (at, at_third) = ((a as c_int, b as *const c_char), (c as c_int, d as *const c_char));
    let got = match number {
        libc::SYS_mkdir | libc::SYS_mknod => made(first.0, first.1, call),
        libc::SYS_mkdirat | libc::SYS_mknodat => made(at.0, at.1, call),
        libc::SYS_symlink => made(second.0, second.1, call),
        libc::SYS_symlinkat => made(b as c_int, c as *const c_char, call),
        libc::SYS_link => linked([first, second], 0, call),
        libc::SYS_linkat => linked([at, at_third], e as c_int, call),
        libc::SYS_rename => moved([first, second], 0, call),
        libc::SYS_renameat => moved([at, at_third], 0, call),
        libc::SYS_renameat2 => moved([at, at_third], e as c_uint, call),
        libc::SYS_unlink => removed(first.0, first.1, false, call),
        libc::SYS_unlinkat => removed(at.0, at.1, c & libc::AT_REMOVEDIR as usize != 0, call),
        libc::SYS_rmdir => removed(first.0, first.1, true, call),
        _ => return None,
    };
    Some(got.into())
}

fn leaving(dir: c_int, path: *const c_char) {
    settle(dir, path, AT_SYMLINK_NOFOLLOW);
    before_removal(dir, path);
}

fn before_removal(dir: c_int, path: *const c_char) {
    if !attach::is_attached() {
        let _ = slow_path(|| {
            join::before_removal(dir, path);
            Outcome::<()>::Pass
        });
    }
}

fn failed(got: &c_int) -> bool {
    *got < 0
}

/// A call that makes one name.
#[inline(never)]
fn made(dir: c_int, path: *const c_char, call: &dyn Fn() -> c_int) -> c_int {
    list_for_new(dir, path);
    until_listed(dir, path, call, failed)
}

/// A call that gives the first name a second one. `flags` are those of `linkat`.
#[inline(never)]
fn linked(names: [Named; 2], flags: c_int, call: &dyn Fn() -> c_int) -> c_int {
    list_for_new(names[1].0, names[1].1);
    let follows = flags & AT_SYMLINK_FOLLOW != 0;
    // Behind each listing, too: it may have brought the file that a small object is still to come for.
    let settled = || {
        settle(names[0].0, names[0].1, if follows { 0 } else { AT_SYMLINK_NOFOLLOW });
        call()
    };
    until_all_listed(&names, settled, failed)
}

/// A call that moves the first name to the second. A folder takes with it what is in it, so that is listed before; what is
/// not known cannot be moved. The same holds for a folder in its way, which it replaces where that is empty, and with
/// RENAME_EXCHANGE (of `flags`, those of `renameat2`) moves.
#[inline(never)]
fn moved([old, new]: [Named; 2], flags: c_uint, call: &dyn Fn() -> c_int) -> c_int {
    before_removal(old.0, old.1);
    let in_its_way = || {
        list_for_new(new.0, new.1);
        let is_folder = |st: libc::stat| st.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let depth = if flags & libc::RENAME_EXCHANGE != 0 { DEPTH_MAX } else { 0 };
        // Else there is no such name, or a file that says so by itself.
        if real::stat_at(new.0, new.1, AT_SYMLINK_NOFOLLOW).is_ok_and(is_folder) { known(new, depth) } else { Ok(()) }
    };
    match known(old, DEPTH_MAX).and_then(|()| in_its_way()) {
        Ok(()) => linked([old, new], 0, call),
        Err(errno) => Outcome::Failed(errno).answer(-1, || -1),
    }
}

/// What is in the folder of this name, and in those below it to `depth`, is known from now on. Links are not followed.
fn known((dir, path): Named, depth: u32) -> Result<()> {
    if listing::knows_all_folders() { Ok(()) } else { list_tree(dir, path, depth, AT_SYMLINK_NOFOLLOW) }
}

/// A call that removes a name, maybe a folder's: one that is not empty in the bucket is not empty here.
#[inline(never)]
fn removed(dir: c_int, path: *const c_char, is_folder: bool, call: &dyn Fn() -> c_int) -> c_int {
    if is_folder && let Err(errno) = known((dir, path), 0) {
        return Outcome::Failed(errno).answer(-1, || -1);
    }
    let settled = || {
        leaving(dir, path);
        call()
    };
    until_listed(dir, path, settled, failed)
}
