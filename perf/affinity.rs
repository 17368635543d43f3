//! Which cores this process, and children started after, may run on. Used by `compare` to keep server and
//! client apart. Never changes other processes.

use crate::error::{Result, Tried};
use std::io;

/// Cores that this process may use, ascending.
pub fn allowed() -> Result<Vec<usize>> {
    let mut set = empty();
    // SAFETY: the kernel writes at most the given size into a live set.
    let rc = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if rc != 0 {
        return Err(io::Error::last_os_error()).tried(|| "sched_getaffinity".into());
    }
    // SAFETY: the index is below CPU_SETSIZE, so it is inside the set.
    let has = |cpu: usize| unsafe { libc::CPU_ISSET(cpu, &set) };
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&cpu| has(cpu)).collect())
}

/// Keeps the calling thread, and what it starts from now on, on one core.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = empty();
    // SAFETY: `cpu` comes from `allowed`, so it is inside the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the kernel reads the given size from a live set.
    let rc = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()).tried(|| format!("pin to core {cpu}")) }
}

fn empty() -> libc::cpu_set_t {
    // SAFETY: a cpu_set_t is an array of integers; all zeros is the empty set.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_has_one_core() {
        let cores = allowed().unwrap();
        let last = *cores.last().unwrap();
        // On a thread of its own, so that other tests keep their cores.
        let pinned = std::thread::spawn(move || pin(last).and_then(|()| allowed())).join().unwrap().unwrap();
        assert_eq!(pinned, [last]);
        assert_eq!(allowed().unwrap(), cores);
    }
}
