//! The engine as a process: what its starter gives it, how it reaches OSS, who its clients are.
//!
//! Called by `engine`, which wires it. It knows the work and the mirror only to hand them what clients ask for.

pub mod alone;
pub mod assemble;
pub mod clients;
pub mod connect;
pub mod dropping;
pub mod exposition;
pub mod first_word;
pub mod folders;
pub mod keys;
pub mod memory;
pub mod names;
pub mod nearby;
pub mod outputs;
pub mod panics;
pub mod planned;
pub mod records;
pub mod report;
#[allow(unsafe_code)]
pub mod reset;
pub mod rest;
pub mod scrape;
pub mod serve;
pub mod socket;
pub mod summary;
