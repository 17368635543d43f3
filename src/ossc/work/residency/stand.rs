//! The file that stands for an object in MODEL_DIR, as the engine finds it again.
//!
//! Called by `unused`, which asks the kernel whether a program has it open, and by the mirror. It is found by its
//! name: a descriptor is kept only while a program may have it open without a name, or where nothing else tells it from
//! a later file with its inode number. It changes no file.

use crate::folder_files::{self, Pinned};
use crate::lock::lock;
use crate::work::residency::Residency;
use crate::work::shared::entry::RegisterEntry;
use ossc_cache::cpath::CPath;
use ossc_cache::region::{Object, ObjectTraces, state};
use ossc_cache::sys::{self, Errno};
use ossc_store::pages::Lease;
use std::sync::atomic::Ordering;

/// Whether a program has an object's placeholder open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stands {
    /// One has.
    Open,
    /// None has.
    Closed,
    /// The kernel does not tell: a file system without leases, or a file without a name.
    Unknown,
}

/// The placeholder if it lies at its name.
fn at_its_name(entry: &RegisterEntry, object: &Object) -> Option<Pinned> {
    let folder = entry.root.as_ref()?.folder(&entry.folder).ok()?;
    let pinned = folder_files::pinned(&folder, &entry.name).ok()?;
    is_its(&pinned, object).then_some(pinned)
}

fn is_its(pinned: &Pinned, object: &Object) -> bool {
    let born = object.born.load(Ordering::Acquire);
    (pinned.dev, pinned.ino) == (object.dev(), object.ino()) && (born == 0 || pinned.incarnation() == born)
}

fn lease(pinned: &Pinned) -> Result<Lease, Errno> {
    let path = CPath::from(b"/proc/self/fd/").with_number(pinned.descriptor() as u64);
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    Lease::acquire_owned(sys::openat(sys::AT_FDCWD, path.as_cstr().ok_or(Errno(libc::EIO))?, flags, 0)?)
}

/// Asks the kernel. The lease is given back at once, so that no program waits for it.
pub(crate) fn look(entry: &RegisterEntry, object: &Object, traces: &ObjectTraces) -> Stands {
    let mut pinned = lock(&entry.pinned);
    look_through(&mut pinned, entry, object, traces)
}

fn look_through(pinned: &mut Option<Pinned>, entry: &RegisterEntry, object: &Object, traces: &ObjectTraces) -> Stands {
    // Who opens it later counts one more.
    let uses = traces.uses.load(Ordering::Acquire);
    let found = match &*pinned {
        Some(pinned) => Some(lease(pinned).map(drop)),
        None => at_its_name(entry, object).map(|pinned| lease(&pinned).map(drop)),
    };
    match found {
        Some(Ok(())) => {
            entry.closed_at.store(uses, Ordering::Release);
            // Needed no more, unless nothing else tells its number from a later file's.
            if object.born.load(Ordering::Acquire) != 0 {
                *pinned = None;
            }
            Stands::Closed
        }
        // Also where no descriptor can be had to ask with.
        Some(Err(Errno(libc::EAGAIN | libc::EMFILE | libc::ENFILE))) => Stands::Open,
        Some(Err(_)) => Stands::Unknown,
        // It has no name any more. Nobody is served by it, or nobody has opened it since it was known to be closed.
        None if object.state() == state::GONE || entry.closed_at.load(Ordering::Acquire) == uses => Stands::Closed,
        None => Stands::Unknown,
    }
}

impl Residency {
    /// A program has opened the object, and may go on with it when its placeholder has lost its name: a descriptor of it
    /// is kept until none has it open, if there are not too many such. Without one a version that has no name any more
    /// goes after a time without a use.
    pub fn keep_opened(&self, slot: u32) {
        if self.opened_stands.load(Ordering::Acquire) < self.options.memory_files_max / 4 {
            self.keep_stand(slot);
            let Some(entry) = self.register.entry(slot) else { return };
            lock(&entry.pinned).iter_mut().for_each(|pinned| pinned.count_in(&self.opened_stands));
        }
    }

    /// The placeholder may lose its name while a program has it open: a descriptor of it is kept until none has.
    pub fn keep_stand(&self, slot: u32) {
        let Some((object, entry)) = self.register.get(slot) else { return };
        let mut pinned = lock(&entry.pinned);
        if pinned.is_none() {
            *pinned = at_its_name(&entry, object);
        }
    }

    /// The placeholder has lost its name: the descriptor stays only if a program has it open.
    pub fn drop_stand(&self, slot: u32) {
        let Some((object, entry)) = self.register.get(slot) else { return };
        look(&entry, object, self.region.traces(object));
    }
}
