//! A folder that a program opens or reads: whether it is one of ours, and what has to be listed or fetched before.
//!
//! Called by the hooks for folders, by `missing` and `identity`. A folder is known by its device and inode; its path only
//! says what to ask the engine for.

use crate::above;
use crate::attach::{self, attach, attached};
use crate::descriptors;
use crate::environ;
use crate::listing::{self, Listing};
use crate::log;
use crate::model_dir;
use crate::say::{self, say};
use crate::session;
use core::sync::atomic::{AtomicBool, Ordering};
use ossc_cache::cpath::CPath;
use ossc_cache::mark;
use ossc_cache::region::{Region, state};
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
        let is_ours = is_named_ours(id, fd) || is_below_ours(id, fd) || is_elsewhere(id, fd, None);
        return if is_ours { Listing::Failed } else { Listing::Needless };
    };
    let path = match region.find_folder(id.dev, id.ino).and_then(|slot| region.object(slot)) {
        Some(folder) if folder.state() == state::LISTED => {
            return if session::renew(&region, folder) { Listing::Done } else { Listing::Needless };
        }
        Some(folder) => CPath::from(region.name(folder).as_bytes()),
        // Something else may have been mounted over it since.
        None => match unlisted_path(&region, id, fd) {
            Some(path) => path,
            None if is_elsewhere(id, fd, Some(region.engine_key())) => return Listing::Failed,
            None => return Listing::Needless,
        },
    };
    if listing::list(path.as_bytes()) { Listing::Done } else { Listing::Failed }
}

/// The path of a folder that the engine may still have to list, though the catalog does not have its numbers.
fn unlisted_path(region: &Region, id: &FileId, fd: i32) -> Option<CPath> {
    if region.header().folders_unlisted.load(Ordering::Acquire) == 0 {
        return None;
    }
    let path = environ::descriptor_path(fd)?;
    if model_dir::is_inside(path.as_bytes()) {
        return Some(path);
    }
    if !model_dir::may_be_named_otherwise(id, fd) {
        return None;
    }
    let below = |id: &FileId, above: i32| {
        let name = region.name(region.object(region.find_folder(id.dev, id.ino)?)?);
        let above = environ::descriptor_path(above)?;
        let rest = path.as_bytes().strip_prefix(above.as_bytes())?;
        let rest = if name.is_empty() { rest.strip_prefix(b"/")? } else { rest };
        Some(CPath::from(name.as_bytes()).with(rest))
    };
    above::nearest(fd, below).or_else(|| {
        let text = text_of(fd).ok()?;
        let mark = text.mark().filter(|mark| mark.engine == region.engine_key() && mark.ino == id.ino)?;
        (mark.kind == mark::MarkKind::Folder).then(|| CPath::from(mark.path.as_bytes()))
    })
}

/// True for a folder that is empty because another engine than `own` has made it and not listed it yet: the program sees a
/// part of another MODEL_DIR. It says so once.
fn is_elsewhere(id: &FileId, fd: i32, own: Option<u64>) -> bool {
    let Ok(text) = text_of(fd) else { return false };
    let is_others =
        |mark: &mark::Mark<'_>| mark.kind == mark::MarkKind::Folder && mark.ino == id.ino && Some(mark.engine) != own;
    let is_unlisted = text.mark().is_some_and(|mark| is_others(&mark))
        && descriptors::with(fd, c".", FOLDER, descriptors::is_empty) == Some(true);
    if is_unlisted && !say::is_told(id) {
        let path = environ::descriptor_path(fd).unwrap_or_else(|| CPath::from(b"a folder"));
        let why = b"this folder belongs to another MODEL_DIR, whose engine has not listed it, so what lies in it is not known: reading it is an error";
        say(&[b"oss connector: ", path.as_bytes(), b": ", why, b"\n"]);
        log::named(why, path.as_bytes());
    }
    is_unlisted
}

/// True for a folder that the engine in use has in its catalog.
pub(crate) fn is_folder_of_ours(id: &FileId) -> bool {
    attached().is_some_and(|(_, region)| region.find_folder(id.dev, id.ino).is_some())
}

/// Whether a folder may be one of ours of which the engine has to be asked first.
pub(crate) fn may_be_ours(id: &FileId, fd: i32) -> bool {
    match attached() {
        Some((_, region)) => region.find_folder(id.dev, id.ino).is_some() || unlisted_path(&region, id, fd).is_some(),
        None => may_be_managed(id, fd),
    }
}

/// Whether a folder is worth asking an engine about, before this process has one: it is MODEL_DIR, an engine has
/// made it, or it lies inside by its name or by the folders above it. Where folders can have no mark, every folder of the
/// device is. So is one without a mark that was reached by another mount of the device, if an engine runs: the bind mount
/// may be of a folder inside.
fn may_be_managed(id: &FileId, fd: i32) -> bool {
    if is_named_ours(id, fd) {
        return true;
    }
    match text_of(fd) {
        Ok(text) => text.mark().is_some_and(|mark| mark.kind == mark::MarkKind::Folder),
        Err(Errno(libc::EOPNOTSUPP)) => model_dir::is_on_its_device(id),
        Err(_) => model_dir::may_be_named_otherwise(id, fd) && (is_below_model_dir(fd) || attach::engine_runs()),
    }
}

fn is_named_ours(id: &FileId, fd: i32) -> bool {
    model_dir::is_it(id) || environ::descriptor_path(fd).is_some_and(|path| model_dir::is_inside(path.as_bytes()))
}

/// True for a folder below MODEL_DIR that the kernel names otherwise.
fn is_below_ours(id: &FileId, fd: i32) -> bool {
    model_dir::may_be_named_otherwise(id, fd) && is_below_model_dir(fd)
}

fn is_below_model_dir(fd: i32) -> bool {
    above::nearest(fd, |id, _| model_dir::is_it(id).then_some(())).is_some()
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
