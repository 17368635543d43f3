//! What the kernel does with a memory file, as a model: who has it open or mapped, and the engine's lease on it.
//!
//! Each operation is one step, as under the kernel's locks. An open that meets the lease waits for its end.

use crate::sync::{AtomicU32, Ordering, futex_wait, futex_wake};

const LEASED: u32 = 1 << 31;

/// Descriptors and maps of one file, and the lease.
#[derive(Default)]
pub struct File(AtomicU32);

impl File {
    /// A descriptor of its own: `open`.
    pub fn open(&self) {
        let free = |word: u32| (word & LEASED == 0).then(|| word + 1);
        while self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, free).is_err() {
            let seen = self.0.load(Ordering::SeqCst);
            if seen & LEASED != 0 {
                let _ = futex_wait(&self.0, seen, 1);
            }
        }
    }

    /// One more holder beside one that there is: `dup`, `mmap`, `fork`. Never waits.
    pub fn share(&self) {
        assert!(self.0.fetch_add(1, Ordering::SeqCst) & !LEASED > 0, "shared by a program that has no part of it");
    }

    /// `close`, `munmap`, `exit`.
    pub fn leave(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    /// Granted only when nobody has it. The kernel grants it once more to a thread that asks with the same descriptor.
    pub fn lease(&self) -> bool {
        let grant = |word: u32| (word & !LEASED == 0).then_some(LEASED);
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, grant).is_ok()
    }

    /// Who waits in `open` goes on.
    pub fn give_back(&self) {
        let without = |word: u32| Some(word & !LEASED);
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, without);
        futex_wake(&self.0);
    }
}
