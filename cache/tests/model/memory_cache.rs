//! The protocol of `src/preload/memory_cache.rs` as a model: a map and a descriptor per object that are dropped with
//! the last descriptor of the program, but never while somebody copies from them. One generation of the
//! catalog only.

use crate::sync::{AtomicU32, Ordering};
use std::sync::atomic::{AtomicBool, AtomicU32 as Plain};

const NAMES: usize = 12;

/// What the model does wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    Nothing,
    /// Drops without a look at the readers.
    IgnoresReaders,
    /// Gives what somebody else has put there, without a look at it.
    TrustsTheFaster,
}

pub struct CachedMemory {
    map: AtomicU32,
    fd: AtomicU32,
    users: AtomicU32,
    readers: AtomicU32,
    /// Which maps exist, and which descriptor numbers are the memory file.
    mapped: [AtomicBool; NAMES],
    ours: [AtomicBool; NAMES],
    next: Plain,
    wrong: Wrong,
}

pub const PLAIN: std::sync::atomic::Ordering = std::sync::atomic::Ordering::SeqCst;

impl CachedMemory {
    pub fn new(wrong: Wrong) -> CachedMemory {
        CachedMemory {
            map: AtomicU32::new(0),
            fd: AtomicU32::new(0),
            users: AtomicU32::new(0),
            readers: AtomicU32::new(0),
            mapped: Default::default(),
            ours: Default::default(),
            next: Plain::new(1),
            wrong,
        }
    }

    fn name(&self) -> u32 {
        let name = self.next.fetch_add(1, PLAIN);
        assert!((name as usize) < NAMES);
        name
    }

    pub fn one_more(&self) {
        self.users.fetch_add(1, Ordering::AcqRel);
    }

    pub fn one_less(&self) {
        let left = self.users.fetch_update(Ordering::AcqRel, Ordering::Acquire, |users| users.checked_sub(1));
        if left != Ok(1) {
            return;
        }
        let (map, fd) = (self.map.swap(0, Ordering::SeqCst), self.fd.swap(0, Ordering::SeqCst));
        if self.readers.load(Ordering::SeqCst) != 0 && self.wrong != Wrong::IgnoresReaders {
            let _ = self.map.compare_exchange(0, map, Ordering::SeqCst, Ordering::SeqCst);
            let _ = self.fd.compare_exchange(0, fd, Ordering::SeqCst, Ordering::SeqCst);
            return;
        }
        self.mapped[map as usize].store(false, PLAIN);
        self.ours[fd as usize].store(false, PLAIN);
    }

    /// The program closes the number that is kept, and opens a file of its own there.
    pub fn program_closes(&self) {
        let fd = self.fd.load(Ordering::SeqCst);
        self.ours[fd as usize].store(false, PLAIN);
    }

    pub fn begin_copy(&self) {
        self.readers.fetch_add(1, Ordering::SeqCst);
    }

    pub fn end_copy(&self) {
        self.readers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Copies from the map, under a guard: it must be there before and after.
    pub fn copy_by_map(&self) {
        let at = self.mapping();
        assert!(self.mapped[at as usize].load(PLAIN), "a copy from a map that is gone");
        self.readers.load(Ordering::Relaxed);
        assert!(self.mapped[at as usize].load(PLAIN), "the map went away under a copy");
    }

    fn mapping(&self) -> u32 {
        loop {
            let known = self.map.load(Ordering::SeqCst);
            if known != 0 {
                return known;
            }
            let new = self.name();
            self.mapped[new as usize].store(true, PLAIN);
            if self.map.compare_exchange(known, new, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return new;
            }
            self.mapped[new as usize].store(false, PLAIN);
        }
    }

    /// A descriptor that was the memory file when it was looked at. That the program closes its number
    /// between this look and the read is the one thing that nobody can help, and not in the model.
    pub fn cached_memory(&self) -> u32 {
        loop {
            let fd = self.fd.load(Ordering::SeqCst);
            if fd != 0 && self.ours[fd as usize].load(PLAIN) {
                return fd;
            }
            let new = self.name();
            self.ours[new as usize].store(true, PLAIN);
            match self.fd.compare_exchange(fd, new, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return new,
                Err(first) => {
                    self.ours[new as usize].store(false, PLAIN);
                    if self.wrong == Wrong::TrustsTheFaster {
                        return first;
                    }
                }
            }
        }
    }

    pub fn assert_ours(&self, fd: u32) {
        assert!(fd != 0 && self.ours[fd as usize].load(PLAIN), "a read from a descriptor that is not the memory file");
    }
}
