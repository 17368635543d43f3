//! The kinds of memory that bodies are received into: the engine's own memory files, or one buffer that is used again.

use crate::error::{Error, Result, Tried};
use ossc_store::pages::{HUGE_BYTES, Memory, PageKind, Store};
use std::io;

/// Which memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum MemoryKind {
    /// One reused part per connection: no page is new, the bytes are not kept.
    Scratch,
    /// A file on a detached tmpfs with huge pages: the engine's first choice.
    TmpfsHuge,
    /// A memfd with the system's default pages: the engine's second choice.
    Memfd,
}

impl MemoryKind {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            MemoryKind::Scratch => "scratch",
            MemoryKind::TmpfsHuge => "tmpfs-huge",
            MemoryKind::Memfd => "memfd",
        }
    }

    /// A memory file of `size` bytes of this kind; none for scratch memory.
    pub fn file(self, size: u64) -> Result<Option<Memory>> {
        let pages = match self {
            MemoryKind::Scratch => return Ok(None),
            MemoryKind::TmpfsHuge => PageKind::HugeTmpfs,
            MemoryKind::Memfd => PageKind::Memfd,
        };
        file(pages, size).map(Some)
    }
}

fn file(kind: PageKind, size: u64) -> Result<Memory> {
    let store = Store::create(Some(kind), size.next_multiple_of(HUGE_BYTES as u64));
    if store.kind() != kind {
        return Err(Error::Wrong(format!("{kind:?} memory cannot be had here: {}", store.why())));
    }
    store
        .memory(0, size)
        .map_err(|errno| io::Error::from_raw_os_error(errno.0))
        .tried(|| format!("make a memory file of {size} bytes, {kind:?}"))
}
