//! A process that is about to change its user or its root becomes a client first, while it may still go to the
//! engine's socket: afterwards it keeps what it could read, by what it was given. The calls are the real ones.

use crate::join;
use crate::outcome::{Outcome, slow_path};
use crate::real;
use core::ffi::{c_int, c_uint};

hooks! {
    fn setuid(user: c_uint) -> c_int { prepare(); real::setuid(user) }
    fn seteuid(user: c_uint) -> c_int { prepare(); real::seteuid(user) }
    fn setreuid(user: c_uint, effective: c_uint) -> c_int { prepare(); real::setreuid(user, effective) }
    fn setresuid(user: c_uint, effective: c_uint, saved: c_uint) -> c_int { prepare(); real::setresuid(user, effective, saved) }
    fn setfsuid(user: c_uint) -> c_int { prepare(); real::setfsuid(user) }
}

/// Also before `chroot`, and before the same calls by their numbers.
pub(super) fn prepare() {
    let _ = slow_path(|| {
        join::join_one_that_runs();
        Outcome::<()>::Pass
    });
}
