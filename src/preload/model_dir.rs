//! MODEL_DIR: which folder it is, and what lies on its device or below its name.
//!
//! Called by the constructor (`remember`), and by the look-ups of folders and unmarked files. The tests are hints, which
//! decide whom to ask: other names lead to the same files.

use crate::environ;
use core::sync::atomic::{AtomicU64, Ordering};
use ossc_cache::cpath::CPath;
use ossc_cache::sys::{self, AT_FDCWD, FileId};

/// Device and inode of MODEL_DIR.
static MODEL_DEV: AtomicU64 = AtomicU64::new(0);
static MODEL_INO: AtomicU64 = AtomicU64::new(0);
/// The mount that MODEL_DIR was found on; 0 where the kernel does not say.
static MODEL_MOUNT: AtomicU64 = AtomicU64::new(0);

/// Constructor: takes down which folder it is, and where.
pub(crate) fn remember(id: &FileId) {
    MODEL_DEV.store(id.dev, Ordering::Relaxed);
    MODEL_INO.store(id.ino, Ordering::Relaxed);
    let mount = CPath::from(environ::model_dir()).as_cstr().and_then(|path| sys::mount_at(AT_FDCWD, path));
    MODEL_MOUNT.store(mount.unwrap_or(0), Ordering::Relaxed);
}

/// MODEL_DIR's device.
pub(crate) fn dev() -> u64 {
    MODEL_DEV.load(Ordering::Relaxed)
}

/// True for MODEL_DIR and what lies below it, by name. A hint: other names lead to the same files.
pub(crate) fn is_inside(path: &[u8]) -> bool {
    let root = environ::model_dir();
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest[0] == b'/' || root == b"/")
}

/// True for what lies on the device of MODEL_DIR.
pub(crate) fn is_on_its_device(id: &FileId) -> bool {
    id.dev == MODEL_DEV.load(Ordering::Relaxed)
}

/// True for what may lie in MODEL_DIR although the kernel names it otherwise: it lies on the same device, and was reached
/// by another mount of it (a bind mount, say).
pub(crate) fn may_be_named_otherwise(id: &FileId, fd: i32) -> bool {
    is_on_its_device(id) && sys::mount_at(fd, c"").is_none_or(|mount| mount != MODEL_MOUNT.load(Ordering::Relaxed))
}

/// True for the folder itself.
pub(crate) fn is_it(id: &FileId) -> bool {
    (id.dev, id.ino) == (MODEL_DEV.load(Ordering::Relaxed), MODEL_INO.load(Ordering::Relaxed))
}
