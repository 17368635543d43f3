//! What the library inside the program and the engine share: the region (records, parts, demand), the names of memory
//! files, waiting, and the words they exchange when a client attaches. What only the engine needs is in `ossc-store`.
//!
//! Called by `src/preload` (from hooks, so the client side allocates nothing, locks nothing and never
//! panics) and by `src/ossc` (the engine side). It knows nothing of HTTP, signatures or configuration.

#![deny(unsafe_code)]

pub mod block;
pub mod cpath;
pub mod demand;
pub mod doorbell;
pub mod event;
pub mod futex_word;
#[cfg(any(test, fuzzing))]
#[allow(unsafe_code)]
pub mod fuzz;
pub mod had;
pub mod index;
pub mod life;
#[allow(unsafe_code)]
pub mod lock;
pub mod mark;
pub mod pages;
pub mod part;
#[allow(unsafe_code)]
pub mod region;
pub mod rundir;
pub mod sync;
#[allow(unsafe_code)]
pub mod sys;
pub mod utc;
pub mod verdict;
pub mod wait;
pub mod wait_bytes;
pub mod waits;
#[allow(unsafe_code)]
pub mod wire;
