//! The memory that bodies are received into: the engine's own kinds of memory files, or one small buffer per
//! connection that is written again and again. Used by `floor` and `engine` alike, so that their ratio is about
//! the receive and not about pages.

use crate::error::{Result, Tried};
use crate::target::{PART_BYTES, Wanted};
use ossc_net::{InFile, Pages};
use ossc_store::pages::Memory;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicPtr, Ordering};

/// See the module.
pub struct Space {
    backing: Backing,
    populate: bool,
}

enum Backing {
    Scratch(Vec<AtomicPtr<u8>>),
    File(Memory),
}

impl Space {
    /// Makes the memory for `wanted`. Called while the process has one thread.
    pub fn make(wanted: &Wanted) -> Result<Space> {
        let backing = match wanted.memory.file(wanted.size)? {
            None => Backing::Scratch((0..wanted.connections).map(|_| scratch()).collect()),
            Some(memory) => Backing::File(memory),
        };
        Ok(Space { backing, populate: wanted.populate })
    }

    /// Where the bytes of `range` go when connection `slot` receives them. `range` is a part of the object,
    /// and one part at a time uses a slot.
    pub fn place(&self, slot: usize, range: &Range<u64>) -> Result<*mut u8> {
        if self.is_fresh() {
            self.make_present(range)?;
        }
        Ok(self.address(slot, range))
    }

    /// The same, before its pages are made.
    pub fn address(&self, slot: usize, range: &Range<u64>) -> *mut u8 {
        match &self.backing {
            Backing::Scratch(parts) => parts[slot].load(Ordering::Relaxed),
            Backing::File(memory) => memory.address(range.start),
        }
    }

    /// Whether pages have to be made before bytes are received.
    pub fn is_fresh(&self) -> bool {
        self.populate && matches!(self.backing, Backing::File(_))
    }

    /// The pages of `range` of the object, for the engine's receive.
    pub fn pages(&self, range: &Range<u64>, splice: bool) -> Pages {
        match self.fd().filter(|_| splice) {
            Some(fd) => Pages::File(InFile { fd, offset: range.start }),
            None if self.is_fresh() => Pages::Fresh,
            None => Pages::Made,
        }
    }

    /// Makes the pages of `range` of the object.
    pub fn make_present(&self, range: &Range<u64>) -> Result<()> {
        match &self.backing {
            Backing::Scratch(_) => Ok(()),
            Backing::File(memory) => present(memory, range),
        }
    }

    /// The memory file, where there is one.
    pub fn fd(&self) -> Option<i32> {
        match &self.backing {
            Backing::Scratch(_) => None,
            Backing::File(memory) => Some(memory.fd()),
        }
    }

    /// The part is complete; drops its page tables, as the product does.
    pub fn settle(&self, range: &Range<u64>) {
        if let Backing::File(memory) = &self.backing {
            memory.unmap_pages(range.start, range.end);
        }
    }

    /// CRC-64/XZ of the whole object, `None` where the bytes were not kept. Nothing may be under way.
    pub fn crc64(&self, size: u64) -> Option<u64> {
        let Backing::File(memory) = &self.backing else {
            return None;
        };
        // SAFETY: `size` bytes are mapped by `make`, every receive has ended, and nobody writes any more.
        let bytes = unsafe { std::slice::from_raw_parts(memory.address(0), size as usize) };
        Some(ossc_net::crc::of(bytes))
    }
}

pub fn present(memory: &Memory, range: &Range<u64>) -> Result<()> {
    let populated = memory.populate(range.start, range.end);
    populated.map_err(|errno| io::Error::from_raw_os_error(errno.0)).tried(|| format!("make pages of {range:?}"))
}

/// A part's worth of touched memory, kept until the process ends.
fn scratch() -> AtomicPtr<u8> {
    AtomicPtr::new(vec![1u8; PART_BYTES as usize].leak().as_mut_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryKind;

    fn wanted(memory: MemoryKind, populate: bool) -> Wanted {
        Wanted {
            url: String::new(),
            ca: None,
            size: PART_BYTES + 5,
            connections: 2,
            memory,
            populate,
            verify: false,
            json: false,
        }
    }

    #[test]
    fn files_keep_every_part_in_its_place() {
        let wanted = wanted(MemoryKind::Memfd, true);
        let space = Space::make(&wanted).unwrap();
        for (index, byte) in [(0, 1u8), (1, 2)] {
            let range = wanted.part(index);
            let at = space.place(0, &range).unwrap();
            // SAFETY: the place of a part has room for the part, and nobody else uses it.
            unsafe { at.write_bytes(byte, (range.end - range.start) as usize) };
            space.settle(&range);
        }
        let mut bytes = vec![1u8; PART_BYTES as usize];
        bytes.extend([2; 5]);
        assert_eq!(space.crc64(wanted.size), Some(ossc_net::crc::of(&bytes)));
    }

    #[test]
    fn scratch_is_one_part_per_connection() {
        let wanted = wanted(MemoryKind::Scratch, false);
        let space = Space::make(&wanted).unwrap();
        let at = |slot, index| space.place(slot, &wanted.part(index)).unwrap();
        assert_eq!(at(0, 0), at(0, 1));
        assert_ne!(at(0, 0), at(1, 0));
        assert_eq!(space.crc64(wanted.size), None);
    }
}
