//! A process that is about to change its user or its root becomes a client first, while it may still go to the
//! engine's socket: afterwards it keeps what it could read, by what it was given. The calls are the real ones.

use super::Arguments;
use crate::join;
use crate::outcome::{Outcome, slow_path};
use crate::real;
use core::ffi::{c_int, c_long, c_uint};

hooks! {
    fn setuid(user: c_uint) -> c_int { prepare(); real::setuid(user) }
    fn seteuid(user: c_uint) -> c_int { prepare(); real::seteuid(user) }
    fn setreuid(user: c_uint, effective: c_uint) -> c_int { prepare(); real::setreuid(user, effective) }
    fn setresuid(user: c_uint, effective: c_uint, saved: c_uint) -> c_int { prepare(); real::setresuid(user, effective, saved) }
    fn setfsuid(user: c_uint) -> c_int { prepare(); real::setfsuid(user) }
}

/// The same by their numbers in `syscall()`, which makes the call itself.
#[inline]
pub(super) fn by_number(number: c_long, _: Arguments) -> Option<c_long> {
    if matches!(number, libc::SYS_setuid | libc::SYS_setreuid | libc::SYS_setresuid | libc::SYS_setfsuid) {
        prepare();
    }
    None
}

/// Also before `chroot`.
pub(super) fn prepare() {
    let _ = slow_path(|| {
        join::join_one_that_runs();
        Outcome::<()>::Pass
    });
}
