//! The objects (program and libraries) that the loader has in this process.
//!
//! Called by `past`. The loader's own lock is held meanwhile, which a thread may take twice.

use core::ffi::{CStr, c_int, c_void};

struct Walk<'a> {
    is: &'a mut dyn FnMut(&[u8]) -> bool,
    /// How many objects had ever been loaded when they were looked at before.
    before: u64,
    now: u64,
    found: bool,
}

/// True if `is` holds of the path of one of them, and how many had ever been loaded by then. If that is `before`,
/// which an earlier call has given, none is looked at.
pub(crate) fn any(before: u64, is: &mut dyn FnMut(&[u8]) -> bool) -> (bool, u64) {
    let mut walk = Walk { is, before, now: 0, found: false };
    let data = (&raw mut walk).cast::<c_void>();
    // SAFETY: `visit` gets each loaded object in turn, and `data`, a `Walk` that lives until this returns.
    unsafe { libc::dl_iterate_phdr(Some(visit), data) };
    (walk.found, walk.now)
}

extern "C" fn visit(info: *mut libc::dl_phdr_info, _bytes: usize, data: *mut c_void) -> c_int {
    // SAFETY: `any` has passed its own `Walk`, and nothing else refers to it during the call.
    let walk = unsafe { &mut *data.cast::<Walk<'_>>() };
    // SAFETY: the loader's struct, which lives during the call; glibc has filled `dlpi_adds` since 2.4.
    let info = unsafe { &*info };
    walk.now = info.dlpi_adds;
    if walk.now != walk.before && !info.dlpi_name.is_null() {
        // SAFETY: a string of the loader's.
        walk.found = (walk.is)(unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes());
    }
    (walk.found || walk.now == walk.before).into()
}
