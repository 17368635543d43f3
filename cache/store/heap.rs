//! The engine's own heap: what the allocator keeps of freed bodies and errors goes back to the system.
//!
//! Called by the lease thread when the engine has come to rest. It never moves or frees anything that is in use.

/// Gives the pages back that lie between what is in use, in the heaps of all threads. glibc does so by itself only at
/// the end of the main heap (malloc_trim(3)): bodies that come and go on several threads leave theirs in pieces.
pub fn trim() {
    // SAFETY: it takes the allocator's own locks, and touches only chunks that are free.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
