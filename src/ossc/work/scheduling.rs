//! The scheduling wing: which request a free connection makes next, and how many are under way.
//!
//! Called by the work. It knows neither what a request brings nor where that goes.

pub mod growth;
pub mod pace;
