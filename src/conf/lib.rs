//! Everything a user can set: the keys of the configuration file, the environment variables and
//! the endpoint, each checked once and turned into typed values.
//!
//! `ossc` calls it when an engine or a command starts. One table (`table`) yields the parser, the
//! defaults, dist/config.json and docs/CONFIG.md, so they cannot disagree. Parsing is pure: only
//! `Config::load` touches the machine, and it reads one file. Secrets are never part of an error.
#![forbid(unsafe_code)]

mod config;
mod credentials;
mod docs;
mod effective;
mod endpoint;
mod env;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod json;
mod location;
mod reason;
mod table;
mod variable;

pub use config::{DEFAULT_PATH, Error, Warning};
pub use credentials::{Credentials, EcsRole, Oidc, names_credentials};
pub use docs::{default_file, markdown};
pub use effective::{Effective, effective, variables};
pub use endpoint::{Endpoint, Scheme};
pub use env::{IoDriver, PageKind, Settings, Signature};
pub use location::Location;
pub use reason::Reason;
pub use table::{Config, LogFormat, LogLevel, OpenMode, Output};
