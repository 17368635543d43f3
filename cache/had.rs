//! The objects that a process has had: a table of fixed size, changed by single words, without locks and memory of its
//! own.
//!
//! Called by the library's sessions, from any thread. An entry that is half made is passed over. What finds no place is
//! not remembered: a process would have to use a hundred thousand objects for that.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

/// Numbers that stand for the path of a folder and of an object in it, the same whatever engine lists them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// Of the folder.
    pub folder: u32,
    /// Of the object.
    pub path: u32,
}

struct Entry {
    /// The object's slot; or one of the values below.
    slot: AtomicU32,
    /// `Names`: folder above, path below.
    names: AtomicU64,
}

const FREE: u32 = 0;
/// Being written. No slot is so large: generations are counted to 126.
const BUSY: u32 = u32::MAX;
/// It was taken out: later entries of its chain are looked for on.
const GONE: u32 = u32::MAX - 1;
const LEN: usize = 1 << 17;
/// Entries that one object may lie behind each other.
const CHAIN: usize = 256;

/// See the module. Slots are numbers but 0 and the two largest.
pub struct Had {
    entries: [Entry; LEN],
    /// Entries that were ever made: none are looked at while there are none.
    made: AtomicU32,
}

impl Default for Had {
    fn default() -> Had {
        Had::new()
    }
}

impl Had {
    /// An empty table; zeroed memory is one.
    pub const fn new() -> Had {
        Had {
            entries: [const { Entry { slot: AtomicU32::new(FREE), names: AtomicU64::new(0) } }; LEN],
            made: AtomicU32::new(0),
        }
    }

    fn chain(&self, slot: u32) -> impl Iterator<Item = &Entry> {
        // The multiplier is 2^32 / golden ratio.
        let start = (slot.wrapping_mul(0x9E37_79B9) >> 15) as usize;
        (start..start + CHAIN).filter_map(|at| self.entries.get(at % LEN))
    }

    /// True if the object was opened.
    pub fn has(&self, slot: u32) -> bool {
        self.chain(slot)
            .map(|entry| entry.slot.load(SeqCst))
            .take_while(|found| *found != FREE)
            .any(|found| found == slot)
    }

    /// Takes an object in; true if it was not there.
    pub fn insert(&self, slot: u32, names: Names) -> bool {
        if self.has(slot) {
            return false;
        }
        for entry in self.chain(slot) {
            let found = entry.slot.load(SeqCst);
            if matches!(found, FREE | GONE) && entry.slot.compare_exchange(found, BUSY, SeqCst, SeqCst).is_ok() {
                entry.names.store(u64::from(names.folder) << 32 | u64::from(names.path), SeqCst);
                entry.slot.store(slot, SeqCst);
                self.made.fetch_add(1, SeqCst);
                return true;
            }
        }
        false
    }

    /// Takes an object out again.
    pub fn remove(&self, slot: u32) {
        for entry in self.chain(slot) {
            match entry.slot.load(SeqCst) {
                FREE => return,
                // Two threads may have taken it in: all of its entries go.
                found if found == slot => drop(entry.slot.compare_exchange(slot, GONE, SeqCst, SeqCst)),
                _ => {}
            }
        }
    }

    /// Takes out all objects of a folder.
    pub fn forget(&self, folder: u32) {
        for entry in self.entries() {
            let slot = entry.slot.load(SeqCst);
            if is_slot(slot) && (entry.names.load(SeqCst) >> 32) as u32 == folder {
                let _ = entry.slot.compare_exchange(slot, GONE, SeqCst, SeqCst);
            }
        }
    }

    /// Slot and path of each object of a folder.
    pub fn each(&self, folder: u32, mut each: impl FnMut(u32, u32)) {
        for entry in self.entries() {
            let slot = entry.slot.load(SeqCst);
            let names = entry.names.load(SeqCst);
            if is_slot(slot) && (names >> 32) as u32 == folder {
                each(slot, names as u32);
            }
        }
    }

    /// True if an object of the folder was opened.
    pub fn any(&self, folder: u32) -> bool {
        let mut any = false;
        self.each(folder, |_, _| any = true);
        any
    }

    fn entries(&self) -> &[Entry] {
        if self.made.load(SeqCst) == 0 { &[] } else { &self.entries }
    }
}

fn is_slot(slot: u32) -> bool {
    !matches!(slot, FREE | BUSY | GONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    static HAD: Had = Had::new();

    #[test]
    fn objects_are_remembered_by_folder_until_they_are_forgotten() {
        let of = |folder, path| Names { folder, path };
        for slot in 1..3000 {
            assert!(HAD.insert(slot, of(slot % 3, slot)));
        }
        assert!(!HAD.insert(7, of(1, 7)) && HAD.has(2999) && !HAD.has(3000));
        let mut found = 0;
        HAD.each(1, |slot, path| {
            assert_eq!((slot % 3, slot), (1, path));
            found += 1;
        });
        assert_eq!(found, 1000);
        HAD.forget(1);
        assert!(!HAD.any(1) && HAD.any(2) && !HAD.has(7) && HAD.has(8));
        HAD.remove(8);
        assert!(!HAD.has(8) && HAD.insert(8, of(2, 8)) && HAD.has(8));
    }
}
