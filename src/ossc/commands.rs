//! The commands that people run: each looks at an engine, at a bucket or at the settings, and says what it finds.
//!
//! Called by the crate's `main`. None of them changes an engine or a bucket.

pub mod config;
pub mod doctor;
mod engines;
pub mod errors;
pub mod metrics;
pub mod output;
pub mod pages;
pub mod ps;
mod readers;
pub mod run;
pub mod status;
pub mod top;
mod view;
pub mod wait;
