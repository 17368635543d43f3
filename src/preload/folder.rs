//! A folder that a program opens or reads: whether it is one of ours, and what has to be listed or fetched before.
//!
//! Called by the hooks for folders, by `missing` and `identity`. A folder is known by its device and inode; its path only
//! says what to ask the engine for.

use crate::attach::{self, attach, attached};
use crate::descriptors;
use crate::environ;
use crate::listing::{self, Listing};
use crate::model_dir;
use crate::session;
use core::sync::atomic::{AtomicBool, Ordering};
use ossc_cache::cpath::CPath;
use ossc_cache::mark;
use ossc_cache::region::state;
use ossc_cache::sys::{Errno, FileId, Result};
use ossc_cache::wire::Ask;

/// This process has opened a folder of ours: it may ask for the status of all that is in it.
static READS_FOLDERS: AtomicBool = AtomicBool::new(false);

/// A folder was opened or is about to be read: lists it if it is an unlisted one of ours.
/// `id` is its identity, `fd` (or -1) a descriptor of it.
/// False if it may hold objects that nobody can tell: to show it as it is would be a wrong answer.
pub(crate) fn opened(id: &FileId, fd: i32) -> bool {
    if list_if_ours(id, fd) == Listing::Failed {
        return false;
    }
    if let Some((_, region)) = attached()
        && let Some(folder) = region.find_folder(id.dev, id.ino).and_then(|slot| region.object(slot))
    {
        READS_FOLDERS.store(true, Ordering::Relaxed);
        if folder.unfetched.load(Ordering::Acquire) != 0 {
            let _ = listing::list_by(Ask::Enter, region.name(folder).as_bytes());
        }
    }
    true
}

/// True once this process has opened a folder of ours.
pub(crate) fn was_read() -> bool {
    READS_FOLDERS.load(Ordering::Relaxed)
}

/// `id` is the folder's identity, `fd` a descriptor of it.
pub(crate) fn list_if_ours(id: &FileId, fd: i32) -> Listing {
    if attached().is_none() && !may_be_managed(id, fd) {
        return Listing::Needless;
    }
    let Some((_, region)) = attach().or_else(attach::last_known) else {
        let path = environ::descriptor_path(fd);
        let is_inside = path.is_some_and(|path| model_dir::is_inside(path.as_bytes())) || model_dir::is_it(id);
        return if is_inside { Listing::Failed } else { Listing::Needless };
    };
    let path = match region.find_folder(id.dev, id.ino).and_then(|slot| region.object(slot)) {
        Some(folder) if folder.state() == state::LISTED => {
            return if session::renew(&region, folder) { Listing::Done } else { Listing::Needless };
        }
        Some(folder) => CPath::from(region.name(folder).as_bytes()),
        None if region.header().folders_unlisted.load(Ordering::Acquire) == 0 => return Listing::Needless,
        // Something else may have been mounted over it since.
        None => match environ::descriptor_path(fd).filter(|path| model_dir::is_inside(path.as_bytes())) {
            Some(path) => path,
            None => return Listing::Needless,
        },
    };
    if listing::list(path.as_bytes()) { Listing::Done } else { Listing::Failed }
}

/// True for a folder that the engine in use has in its catalog.
pub(crate) fn is_folder_of_ours(id: &FileId) -> bool {
    attached().is_some_and(|(_, region)| region.find_folder(id.dev, id.ino).is_some())
}

/// Whether a folder is worth asking an engine about, before this process has one: it is MODEL_DIR, an engine has
/// made it, or it lies inside by its name. Where folders can have no mark, every folder of the device is.
fn may_be_managed(id: &FileId, fd: i32) -> bool {
    if model_dir::is_it(id) || environ::descriptor_path(fd).is_some_and(|path| model_dir::is_inside(path.as_bytes())) {
        return true;
    }
    match text_of(fd) {
        Ok(text) => text.mark().is_some_and(|mark| mark.kind == mark::Kind::Folder),
        Err(Errno(libc::EOPNOTSUPP)) => model_dir::is_on_its_device(id),
        Err(_) => false,
    }
}

/// What a folder says of itself. Where there is no /proc to ask an O_PATH descriptor by, the folder is opened once more.
fn text_of(fd: i32) -> Result<mark::Text> {
    match mark::Text::of_descriptor(fd) {
        Err(Errno(libc::EBADF)) if fd >= 0 => {
            let link = CPath::from(b"/proc/self/fd/").with_number(fd as u64);
            match mark::Text::of_path(link.as_cstr().ok_or(Errno(libc::EIO))?) {
                Err(Errno(libc::ENOENT)) => {
                    descriptors::with(fd, c".", FOLDER, mark::Text::of_descriptor).unwrap_or(Err(Errno(libc::EACCES)))
                }
                asked => asked,
            }
        }
        asked => asked,
    }
}

const FOLDER: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
