//! What the engine alone keeps of the cache: the memory that holds the objects' bytes, how much of it may be used, what
//! is free in the region, and the order of work.
//!
//! Called by `src/ossc`, by the measurements and by the simulation. The library inside programs does not link it: what it
//! shares with the engine is in `ossc-cache`.

#![deny(unsafe_code)]

pub mod budget;
pub mod catalog;
pub mod free;
#[allow(unsafe_code)]
pub mod heap;
pub mod machine;
#[allow(unsafe_code)]
pub mod pages;
pub mod plan;
