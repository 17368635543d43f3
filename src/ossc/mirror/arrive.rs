//! Small objects that have arrived: each is put into its real file, whole and only as the version that it came for.
//!
//! Called by the thread that writes files, and before a listing is made real. It overwrites nothing but the stand-in
//! that it was made for.

use crate::folder_files::Pinned;
use crate::lock::lock;
use crate::mirror::made::{self, Growing, Purpose};
use crate::mirror::{Mirror, below};
use crate::work::shared::entry::RegisterEntry;
use crate::work::shared::item::Arrived;
use ossc_cache::mark;
use ossc_cache::region::{Object, state};
use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long an inode number of a small object's stand-in is kept from being used again.
const PIN_FOR: Duration = Duration::from_secs(30);
/// How much later it may end: files that arrive together then cost one wake-up.
const PIN_SLACK: Duration = Duration::from_secs(2);

/// The thread `ossc-files`: small objects become files. Their stand-ins' inode numbers are kept a while.
pub fn run(mirror: &Mirror, arrived: &Receiver<Arrived>) {
    let mut pins = VecDeque::new();
    loop {
        let next = pins
            .front()
            .map(|(until, ..): &(Instant, u32, u32, _)| (*until + PIN_SLACK).saturating_duration_since(Instant::now()));
        match next.map_or_else(
            || arrived.recv().map_err(|_| RecvTimeoutError::Disconnected),
            |wait| arrived.recv_timeout(wait),
        ) {
            Ok(file) => {
                // Before its record may be used again. Where it already is another version's, nothing comes back.
                let incarnation = mirror.incarnation(file.slot);
                if let Some(pin) = mirror.settle(&file) {
                    pins.push_back((Instant::now() + PIN_FOR, file.slot, incarnation, pin));
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                let now = Instant::now();
                while pins.front().is_some_and(|(until, ..)| *until <= now)
                    && let Some((_, slot, incarnation, pin)) = pins.pop_front()
                {
                    mirror.forget(slot, incarnation);
                    drop(pin);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Mirror {
    /// Puts a small object's bytes into its file. Of one whose stand-in is gone now the descriptor that kept its number,
    /// if there was one, is given back: the caller tells `forget` in a while, since a client may be just about to look the
    /// stand-in up.
    pub fn settle(&self, arrived: &Arrived) -> Option<Option<Pinned>> {
        // No listing is made real meanwhile, which may put a new version at this name, or give the record to another
        // version.
        let _known = lock(&self.known);
        self.end_growing();
        let (object, entry): (&Object, &RegisterEntry) = (self.work.region().object(arrived.slot)?, &arrived.entry);
        if !self.is_record_of(arrived.slot, &arrived.entry) {
            self.work.transfers.materializer.is_over(entry);
            return None;
        }
        if object.is_superseded() {
            self.work.transfers.materializer.is_over(entry);
            object.set_state(state::PLACED);
            return Some(lock(&entry.pinned).take());
        }
        let put = self.put(arrived, object);
        match arrived.at {
            Some(at) if put.is_ok() => self.work.transfers.materializer.piece_is_over(entry, at),
            _ => self.work.transfers.materializer.is_over(entry),
        }
        match put {
            Ok(false) => None,
            Ok(true) => {
                tracing::debug!(object = entry.key, bytes = entry.size, "in place");
                object.set_state(state::PLACED);
                Some(lock(&entry.pinned).take())
            }
            Err(e) => {
                self.work.register.clear_file(arrived.slot);
                tracing::error!(
                    object = entry.key,
                    folder = entry.folder,
                    "cannot write the file in MODEL_DIR, readers get EIO: {e}"
                );
                object.fail(ossc_net::error::FailureKind::Local.errno());
                // A full disk may have room again; what a user put at its place stays.
                if e.kind() != std::io::ErrorKind::AlreadyExists {
                    self.work.act([self.work.objects.revive_later(arrived.slot)]);
                }
                None
            }
        }
    }

    /// Puts what has arrived where it belongs; true when that is the real file, whole. The catalog knows the file before
    /// its name leads to it: a program that opens it at that moment has it as the version that it is.
    fn put(&self, arrived: &Arrived, object: &Object) -> Result<bool, std::io::Error> {
        // Given up meanwhile: what is on the way of it is not wanted.
        if object.state() != state::COMING {
            return Ok(false);
        }
        let entry = &arrived.entry;
        let mut growing = lock(&self.growing);
        let path = below(&entry.folder, &entry.name);
        let purpose = Purpose {
            kind: mark::MarkKind::Finished,
            engine: self.work.region().engine_key(),
            etag: &entry.etag,
            object_size: entry.size,
            path: &path,
            mtime_secs: entry.mtime_secs,
        };
        let is_stand_in = |found: &made::Found| found.is_stand_in_of(object);
        let known = |id| self.work.register.set_file(arrived.slot, id);
        let result = match arrived.at {
            Some(at) => {
                let (_, file) = match growing.entry(arrived.slot) {
                    Entry::Occupied(file) => file.into_mut(),
                    Entry::Vacant(none) => {
                        none.insert((entry.clone(), Growing::new(self.root.folder(&entry.folder)?)?))
                    }
                };
                file.write(&arrived.body, at).map(|()| false)
            }
            None => match growing.remove(&arrived.slot) {
                Some((_, file)) => match file.len().and_then(|len| is_whole(len, entry.size)) {
                    Ok(()) => file.put(&entry.name, &purpose, is_stand_in, known).map(|()| true),
                    Err(e) => {
                        file.drop_it();
                        Err(e)
                    }
                },
                None => {
                    is_whole(arrived.body.len() as u64, entry.size)?;
                    let folder = self.root.folder(&entry.folder)?;
                    made::put(folder.as_fd(), &entry.name, &arrived.body, &purpose, is_stand_in, known).map(|()| true)
                }
            },
        };
        if result.is_err()
            && let Some((_, file)) = growing.remove(&arrived.slot)
        {
            file.drop_it();
        }
        result
    }

    /// True while a record is that of the version that the entry is of.
    fn is_record_of(&self, slot: u32, entry: &Arc<RegisterEntry>) -> bool {
        self.work.entry(slot).is_some_and(|now| Arc::ptr_eq(&now, entry))
    }

    /// Files that are being written are dropped where their version is given up or superseded. One that is fetched
    /// again is written from its beginning. The caller holds `known`.
    pub(crate) fn end_growing(&self) {
        let is_coming = |(slot, entry): (&u32, &Arc<RegisterEntry>)| {
            let record = self.work.region().object(*slot).filter(|_| self.is_record_of(*slot, entry));
            record.is_some_and(|object| object.state() == state::COMING && !object.is_superseded())
        };
        let over = lock(&self.growing).extract_if(|slot, (entry, _)| !is_coming((slot, entry))).collect::<Vec<_>>();
        over.into_iter().for_each(|(_, (_, file))| file.drop_it());
    }

    /// Which use of its record a settled object has, for `forget`.
    pub fn incarnation(&self, slot: u32) -> u32 {
        self.work.region().object(slot).map_or(0, Object::incarnation)
    }

    /// The inode number of a settled object's stand-in may be used again from now on.
    pub fn forget(&self, slot: u32, incarnation: u32) {
        if let Some(object) = self.work.region().object(slot).filter(|object| object.lasts(incarnation)) {
            object.settled.store(1, Ordering::Release);
        }
    }
}

/// An error where not as many bytes have come as the object has.
fn is_whole(bytes: u64, size: u64) -> Result<(), std::io::Error> {
    match bytes == size {
        true => Ok(()),
        false => Err(std::io::Error::other(format!("{bytes} bytes have come of {size}"))),
    }
}
