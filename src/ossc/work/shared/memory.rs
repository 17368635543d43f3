//! One object's memory as the engine uses it: a file of the cache's (`ossc_store::pages`), or what stands for
//! one where there are no files (simulations).
//!
//! Called by `work` (fills), `reclaim` (what is given back) and the attach server. It decides nothing.

use ossc_cache::sys::Result;
use ossc_store::pages::{self, Lease};

/// While it lives nobody has the memory open or mapped, and who opens it waits.
pub trait Guard {
    /// False when somebody waits for its end.
    fn is_whole(&self) -> bool {
        true
    }

    /// False where there was no memory when it was taken.
    fn is_of_memory(&self) -> bool {
        true
    }
}

impl Guard for Lease {
    fn is_whole(&self) -> bool {
        self.is_whole()
    }
}

/// See the module. What each does and needs is said at `pages::Memory`.
pub trait Memory: Send + Sync {
    /// Makes it, if it is not there: then the number of its inode.
    fn open(&self) -> Result<Option<u64>> {
        Ok(None)
    }
    /// True while it is there.
    fn is_open(&self) -> bool {
        true
    }
    /// Gives all of it back if `may` says so, which is asked while nobody has it open or can open it: `guard` is given
    /// back after that. True if it did.
    fn close(&self, _guard: Box<dyn Guard>, _may: &dyn Fn(&dyn Guard) -> bool) -> bool {
        false
    }
    /// Address of byte `offset`.
    fn address(&self, offset: u64) -> *mut u8;
    /// The file that it is a mapping of, open for writing.
    fn file(&self) -> Option<i32>;
    /// Makes the pages of `start..end` present.
    fn populate(&self, start: u64, end: u64) -> Result<()>;
    /// Puts bytes to their place, on pages as small as there are, so that they take no more memory than they need.
    fn write_small(&self, start: u64, bytes: &[u8]) -> Result<()>;
    /// Copies bytes that are there.
    fn read(&self, start: u64, bytes: &mut [u8]) -> Result<()>;
    /// Gives the memory of `start..end` back to the system.
    fn punch(&self, start: u64, end: u64);
    /// Drops the engine's page tables for `start..end`.
    fn unmap_pages(&self, start: u64, end: u64);
    /// EAGAIN while somebody else has it open or mapped.
    fn lease(&self) -> Result<Box<dyn Guard>>;
    /// A read-only descriptor for a client; the caller closes it.
    fn reopen_read_only(&self) -> Result<i32>;
    /// Takes its name away, where it has one, for the next version that its record is used for.
    fn unlink(&self) {}
}

impl Memory for pages::Memory {
    fn address(&self, offset: u64) -> *mut u8 {
        self.address(offset)
    }

    fn file(&self) -> Option<i32> {
        Some(self.fd())
    }

    fn populate(&self, start: u64, end: u64) -> Result<()> {
        self.populate(start, end)
    }

    fn write_small(&self, start: u64, bytes: &[u8]) -> Result<()> {
        self.write_small(start, bytes)
    }

    fn read(&self, start: u64, bytes: &mut [u8]) -> Result<()> {
        self.read(start, bytes)
    }

    fn punch(&self, start: u64, end: u64) {
        self.punch(start, end);
    }

    fn unmap_pages(&self, start: u64, end: u64) {
        self.unmap_pages(start, end);
    }

    fn lease(&self) -> Result<Box<dyn Guard>> {
        self.lease().map(|lease| Box::new(lease) as Box<dyn Guard>)
    }

    fn reopen_read_only(&self) -> Result<i32> {
        self.reopen_read_only()
    }

    fn unlink(&self) {
        self.unlink();
    }
}
