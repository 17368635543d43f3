//! How the engine locks.
//!
//! Called wherever a mutex is held. It waits for nothing but the mutex.

use std::sync::{Mutex, MutexGuard};

/// Locks; a panic of another holder leaves plain values behind, which are still right.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
