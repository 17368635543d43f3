//! Calls by a path: folders on its way that still have to be listed, and small objects at its end that are on their way.
//!
//! Called by the hooks of calls that take a path, around the real call. The path itself is walked by `missing`, and only
//! where the kernel has found nothing.

use crate::file::{id_of, of_path, real_at};
use crate::handle::Handle;
use crate::identity::Real;
use crate::listing::{self, Listing};
use crate::missing;
use crate::outcome::{Outcome, errno, set_errno, slow_path};
use crate::real;
use crate::seen::Seen;
use crate::session;
use crate::waiting;
use core::ffi::{c_char, c_int};
use ossc_cache::sys::Errno;

/// Most folders of one path that are listed one after the other.
const FOLDERS_DEEP: usize = 64;

/// A path as the `*at` calls take it.
pub(crate) type Named = (c_int, *const c_char);

/// Makes a call by path; while it ends in ENOENT and a folder was listed for it or meanwhile, makes it again.
pub(crate) fn until_listed<T>(dir: c_int, path: *const c_char, call: impl Fn() -> T, failed: impl Fn(&T) -> bool) -> T {
    until_all_listed(&[(dir, path)], call, failed)
}

/// The same for a call that takes several paths.
pub(crate) fn until_all_listed<T>(paths: &[Named], call: impl Fn() -> T, failed: impl Fn(&T) -> bool) -> T {
    let before = errno();
    let listings = listing::count();
    let mut got = call();
    if failed(&got) && errno() == libc::ENOENT {
        list_and_repeat(paths, before, listings, &mut || {
            got = call();
            failed(&got) && errno() == libc::ENOENT
        });
    }
    got
}

/// The part of it that is the same for all calls: `again` makes the call, and is true while it ends in ENOENT.
#[cold]
#[inline(never)]
fn list_and_repeat(paths: &[Named], before: c_int, mut listings: u64, again: &mut dyn FnMut() -> bool) {
    for _ in 0..FOLDERS_DEEP {
        let listing = paths.iter().fold(Listing::Needless, |so_far, (dir, path)| match so_far {
            Listing::Needless => listing_for(*dir, *path),
            _ => so_far,
        });
        if listing::count() == listings {
            // What may lie in a folder that could not be listed is not absent.
            return set_errno(match listing {
                Listing::Failed => libc::EIO,
                Listing::NoDescriptor => libc::EMFILE,
                _ => libc::ENOENT,
            });
        }
        set_errno(before);
        listings = listing::count();
        if !again() {
            return;
        }
    }
}

/// A name is about to be made: the folder that it will lie in is listed first, so that what is in the bucket is in
/// the way as it would be in a local folder. What cannot be listed is left to the call itself.
pub(crate) fn list_for_new(dir: c_int, path: *const c_char) {
    if listing::knows_all_folders() {
        return;
    }
    let mut listings = listing::count();
    for _ in 0..FOLDERS_DEEP {
        let mut target = [0u8; 1];
        let arguments = [dir as usize, path as usize, target.as_mut_ptr() as usize, target.len(), 0, 0];
        // Not there, or a link, perhaps to nothing; the kernel has read the path in both cases.
        match real::kernel(libc::SYS_readlinkat, arguments) {
            Ok(_) | Err(Errno(libc::ENOENT)) => {}
            Err(_) => return,
        }
        if listing_for(dir, path) != Listing::Done && listing::count() == listings {
            return;
        }
        listings = listing::count();
    }
}

/// What is about to be done to the file at this name must not be done to the empty one that stands in for a small
/// object on its way: waits for the object. `flags` is AT_SYMLINK_NOFOLLOW for calls that do not follow a link: what it
/// leads to may be a mount that does not answer.
pub(crate) fn settle(dir: c_int, path: *const c_char, flags: c_int) {
    let before = errno();
    let _ = slow_path(|| {
        of_path(dir, path, flags).filter(Seen::is_coming).then(|seen| waiting::placed(&seen.handle).into())
    });
    set_errno(before);
}

/// Makes sure that what a path leads through is listed, and waits for a small object at its end, for calls that go on
/// inside the C library or the kernel. The small object whose file the path names.
pub(crate) fn reach(dir: c_int, path: *const c_char) -> Option<Handle> {
    let arguments = [dir as usize, path as usize, libc::F_OK as usize, 0, 0, 0];
    let before = errno();
    let got = until_listed(dir, path, || real::in_c(real::kernel(libc::SYS_faccessat, arguments)), |got| *got < 0);
    if got >= 0 {
        settle(dir, path, 0);
    }
    let object = slow_path(|| {
        let id = real::stat_at(dir, path, 0).map(|st| id_of(&st));
        // A script or library that is a real file of ours: its folder's listing is to be new enough.
        if let Ok(id) = id
            && id.is_file()
            && let Real::Of(handle) = real_at(&id, dir, path)
        {
            let _ = session::looked(&handle, 0);
            return Outcome::Served(handle);
        }
        Outcome::Pass
    });
    set_errno(before);
    object.served()
}

fn listing_for(dir: c_int, path: *const c_char) -> Listing {
    slow_path(|| Outcome::Served(missing::list_for(dir, path))).answer(Listing::Failed, || Listing::Needless)
}
