//! Programs and libraries that are started by their names: the C library and the kernel open these themselves, so
//! the folders on their way are listed before.
//!
//! The variadic `execl` family and `dlopen` are jumped to with the caller's registers and stack as they are: the C
//! library takes the arguments of the first from there, and the folders that the second searches from the address
//! of its caller.

use super::dir::list_tree;
use crate::active;
use crate::by_name;
use crate::listing;
use crate::outcome::{errno, set_errno};
use crate::real::{self, Strings};
use crate::say::say;
use crate::started;
use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering::Relaxed};
use libc::{AT_FDCWD, mode_t};
use ossc_cache::cpath::CPath;
use ossc_cache::sys::Errno;

hooks! {
    fn posix_spawn(pid: *mut c_int, path: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: Strings, environment: Strings) -> c_int {
        started::program(AT_FDCWD, path);
        real::posix_spawn(pid, path, actions, attributes, arguments, environment)
    }
    fn posix_spawnp(pid: *mut c_int, name: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: Strings, environment: Strings) -> c_int {
        search(name);
        real::posix_spawnp(pid, name, actions, attributes, arguments, environment)
    }
    fn pidfd_spawn(pidfd: *mut c_int, path: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: Strings, environment: Strings) -> c_int {
        started::program(AT_FDCWD, path);
        real::pidfd_spawn(pidfd, path, actions, attributes, arguments, environment)
    }
    fn pidfd_spawnp(pidfd: *mut c_int, name: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: Strings, environment: Strings) -> c_int {
        search(name);
        real::pidfd_spawnp(pidfd, name, actions, attributes, arguments, environment)
    }
    fn posix_spawn_file_actions_addopen(actions: *mut c_void, fd: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        if flags & libc::O_CREAT == 0 {
            let _ = by_name::reach(AT_FDCWD, path);
        } else {
            by_name::list_for_new(AT_FDCWD, path);
        }
        real::posix_spawn_file_actions_addopen(actions, fd, path, flags, mode)
    }
    fn posix_spawn_file_actions_addchdir_np(actions: *mut c_void, path: *const c_char) -> c_int {
        entered(path, || real::posix_spawn_file_actions_addchdir_np(actions, path))
    }
    fn posix_spawn_file_actions_addchdir(actions: *mut c_void, path: *const c_char) -> c_int {
        entered(path, || real::posix_spawn_file_actions_addchdir(actions, path))
    }
}

/// The actions behind this one open what they name in the folder.
fn entered(folder: *const c_char, call: impl FnOnce() -> c_int) -> c_int {
    list_tree(AT_FDCWD, folder, 0, 0).map_or_else(|Errno(number)| number, |()| call())
}

/// What `execvp` and its kin look for: the name itself where it has a slash, else in each folder of PATH.
pub(super) fn search(name: *const c_char) {
    if name.is_null() {
        return;
    }
    // SAFETY: the C library reads this string of the program's in the call that follows.
    let given = unsafe { CStr::from_ptr(name) }.to_bytes();
    if given.contains(&b'/') {
        return started::program(AT_FDCWD, name);
    }
    if listing::knows_all_folders() {
        return;
    }
    // SAFETY: the C library reads the same variable in the call that follows.
    let path = unsafe { libc::getenv(c"PATH".as_ptr()) };
    if path.is_null() {
        return;
    }
    // SAFETY: a value of the environment is a string.
    for folder in unsafe { CStr::from_ptr(path) }.to_bytes().split(|byte| *byte == b':') {
        let folder = if folder.is_empty() { b"." } else { folder };
        let whole = CPath::from(folder).with(b"/").with(given);
        if let Some(whole) = whole.as_cstr() {
            started::program(AT_FDCWD, whole.as_ptr());
        }
    }
}

/// Defines functions that run the block on the first three arguments, and then jump on to the C library's. `absent`
/// is what such a call gives where the C library has none.
macro_rules! jumps {
    ($(fn $name:ident($a:ident: usize, $b:ident: usize, $c:ident: usize) absent $absent:literal $block:block)*) => {
        mod slot {
            use super::*;
            $(#[allow(non_upper_case_globals)]
            pub(super) static $name: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());)*
        }
        mod before {
            use super::*;
            $(pub(super) extern "C" fn $name($a: usize, $b: usize, $c: usize) -> *mut c_void {
                if active::is_active() {
                    let kept = errno();
                    $block
                    set_errno(kept);
                }
                next(&slot::$name, concat!(stringify!($name), "\0"), absent::<$absent> as *mut c_void)
            })*
        }
        $(
            /// Keeps all that may hold an argument, asks where to go on, and goes there.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            pub(crate) extern "C" fn $name() {
                core::arch::naked_asm!(
                    "push rax", "push rdi", "push rsi", "push rdx", "push rcx", "push r8", "push r9",
                    "call {before}",
                    "mov r11, rax",
                    "pop r9", "pop r8", "pop rcx", "pop rdx", "pop rsi", "pop rdi", "pop rax",
                    "jmp r11",
                    before = sym before::$name,
                )
            }
        )*
        /// Looks all of them up: before `main`, since a hook must not.
        pub(crate) fn resolve_jumps() {
            $(next(&slot::$name, concat!(stringify!($name), "\0"), absent::<$absent> as *mut c_void);)*
        }
    };
}

jumps! {
    fn execl(path: usize, _b: usize, _c: usize) absent -1 { started::program(AT_FDCWD, path as *const c_char) }
    fn execle(path: usize, _b: usize, _c: usize) absent -1 { started::program(AT_FDCWD, path as *const c_char) }
    fn execlp(name: usize, _b: usize, _c: usize) absent -1 { search(name as *const c_char) }
    fn dlopen(path: usize, flags: usize, _c: usize) absent 0 { library(path as *const c_char, flags as c_int, BASE) }
    fn dlmopen(space: usize, path: usize, flags: usize) absent 0 { library(path as *const c_char, flags as c_int, space as c_long) }
}

extern "C" fn absent<const GIVES: isize>() -> isize {
    set_errno(libc::ENOSYS);
    GIVES
}

fn next(slot: &AtomicPtr<c_void>, name: &'static str, absent: *mut c_void) -> *mut c_void {
    let known = slot.load(Relaxed);
    if !known.is_null() {
        return known;
    }
    let name = CStr::from_bytes_with_nul(name.as_bytes()).unwrap_or(c"");
    let found = real::look_up(name).unwrap_or(absent);
    slot.store(found, Relaxed);
    found
}

/// The program's own namespace (LM_ID_BASE).
const BASE: c_long = 0;
/// What was said already: of RTLD_DEEPBIND, of another namespace.
static SAID: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];

/// A library that is given as a path is opened by the loader, which no hook sees. One that binds to the C library past
/// this one is spoken of: it goes by what it finds, and empty files are what it finds.
fn library(path: *const c_char, flags: c_int, space: c_long) {
    if path.is_null() {
        return;
    }
    // SAFETY: the loader reads this string of the program's in the call that follows.
    let name = unsafe { CStr::from_ptr(path) }.to_bytes();
    if name.contains(&b'/') {
        started::library(AT_FDCWD, path);
    }
    let (said, how): (_, &[u8]) = match space {
        BASE if flags & libc::RTLD_DEEPBIND == 0 => return,
        BASE => (&SAID[0], b"with RTLD_DEEPBIND"),
        _ => (&SAID[1], b"by dlmopen"),
    };
    if flags & libc::RTLD_NOLOAD == 0 && !said.swap(true, Relaxed) {
        say(&[
            b"oss connector: ",
            name,
            b" is loaded ",
            how,
            b", so its own calls pass the library by: large objects of MODEL_DIR are empty for it\n",
        ]);
    }
}
