//! The commands that people run: each looks at an engine, at a bucket or at the settings, and says what it finds.
//!
//! Called by the crate's `main`. None of them changes a bucket; `drop` alone changes what an engine has.

mod arrival;
mod bar;
mod bucket;
pub mod config;
pub mod doctor;
pub mod drop;
mod engines;
pub mod errors;
mod executable;
#[allow(unsafe_code)]
mod mapped;
pub mod metrics;
mod named;
pub mod output;
mod pace;
pub mod pages;
pub mod plan;
mod progress;
pub mod ps;
mod readers;
pub mod run;
#[allow(unsafe_code)]
mod signals;
pub mod status;
pub mod top;
pub mod verify;
mod view;
pub mod wait;
pub mod warm;
