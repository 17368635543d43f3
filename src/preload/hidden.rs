//! Whether another preloaded library hides our hooks: one that stands before ours and goes on to the C library by a
//! way of its own. Its callers would see placeholders as empty files.
//!
//! Called by the constructor of an active process. Where a function's first definition is another library's, it is
//! called once, on /dev/null or /, and what counts is whether a hook of ours heard of that: libraries that pass their
//! calls on (allocators, sanitizers, tracers) are as good as none. It judges nothing that the program itself defines,
//! since that may be another function of the same name.

use crate::active;
use crate::real;
use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use core::ptr::null_mut;
use libc::{AT_FDCWD, DIR, FILE, off_t, size_t, ssize_t, stat as Stat, statx as Statx};
use ossc_cache::cpath::CPath;
use ossc_cache::sys;

const NULL: &CStr = c"/dev/null";
const ROOT: &CStr = c"/";

type Open = extern "C" fn(*const c_char, c_int, c_int) -> c_int;
type OpenAt = extern "C" fn(c_int, *const c_char, c_int, c_int) -> c_int;
type Read = extern "C" fn(c_int, *mut u8, size_t) -> ssize_t;
type PRead = extern "C" fn(c_int, *mut u8, size_t, off_t) -> ssize_t;
type Seek = extern "C" fn(c_int, off_t, c_int) -> off_t;
type Map = extern "C" fn(*mut c_void, size_t, c_int, c_int, c_int, off_t) -> *mut c_void;
type ByPath = extern "C" fn(*const c_char, *mut Stat) -> c_int;
type ByFd = extern "C" fn(c_int, *mut Stat) -> c_int;
type OldByPath = extern "C" fn(c_int, *const c_char, *mut Stat) -> c_int;
type OldByFd = extern "C" fn(c_int, c_int, *mut Stat) -> c_int;
type ByStatx = extern "C" fn(c_int, *const c_char, c_int, u32, *mut Statx) -> c_int;
type Stream = extern "C" fn(*const c_char, *const c_char) -> *mut FILE;
type Folder = extern "C" fn(*const c_char) -> *mut DIR;
type Number = extern "C" fn(c_long, usize, usize, usize, usize, usize, usize) -> c_long;

/// Functions of one type, and a call of it on a descriptor of /dev/null.
struct Family {
    names: &'static [&'static CStr],
    call: fn(*mut c_void, c_int),
}

/// The version that `__xstat` and its kin take on x86-64 (bits/stat.h).
const STAT_VERSION: c_int = 1;

/// What a program must not get past: each gives bytes, a size, or a folder's entries.
const FAMILIES: [Family; 14] = [
    Family { names: &[c"open", c"open64"], call: |front, _| close(as_type::<Open>(front)(NULL.as_ptr(), 0, 0)) },
    Family {
        names: &[c"openat", c"openat64"],
        call: |front, _| close(as_type::<OpenAt>(front)(AT_FDCWD, NULL.as_ptr(), 0, 0)),
    },
    Family {
        names: &[c"read"],
        call: |front, null| {
            as_type::<Read>(front)(null, [0u8; 8].as_mut_ptr(), 8);
        },
    },
    Family {
        names: &[c"pread", c"pread64"],
        call: |front, null| {
            as_type::<PRead>(front)(null, [0u8; 8].as_mut_ptr(), 8, 0);
        },
    },
    Family {
        names: &[c"lseek", c"lseek64"],
        call: |front, null| {
            as_type::<Seek>(front)(null, 0, libc::SEEK_SET);
        },
    },
    Family {
        names: &[c"mmap", c"mmap64"],
        // The device refuses it.
        call: |front, null| {
            as_type::<Map>(front)(null_mut(), 4096, libc::PROT_READ, libc::MAP_PRIVATE, null, 0);
        },
    },
    Family {
        names: &[c"stat", c"stat64", c"lstat", c"lstat64"],
        call: |front, _| {
            as_type::<ByPath>(front)(NULL.as_ptr(), &mut zeroed());
        },
    },
    Family {
        names: &[c"fstat", c"fstat64"],
        call: |front, null| {
            as_type::<ByFd>(front)(null, &mut zeroed());
        },
    },
    Family {
        names: &[c"__xstat", c"__xstat64", c"__lxstat", c"__lxstat64"],
        call: |front, _| {
            as_type::<OldByPath>(front)(STAT_VERSION, NULL.as_ptr(), &mut zeroed());
        },
    },
    Family {
        names: &[c"__fxstat", c"__fxstat64"],
        call: |front, null| {
            as_type::<OldByFd>(front)(STAT_VERSION, null, &mut zeroed());
        },
    },
    Family {
        names: &[c"statx"],
        call: |front, _| {
            as_type::<ByStatx>(front)(AT_FDCWD, NULL.as_ptr(), 0, libc::STATX_SIZE, &mut zeroed());
        },
    },
    Family {
        names: &[c"fopen", c"fopen64"],
        call: |front, _| {
            let stream = as_type::<Stream>(front)(NULL.as_ptr(), c"r".as_ptr());
            if !stream.is_null() {
                // Not by the hook of that name, which would be heard.
                let _ = real::fclose(stream);
            }
        },
    },
    Family {
        names: &[c"opendir"],
        call: |front, _| {
            let folder = as_type::<Folder>(front)(ROOT.as_ptr());
            if !folder.is_null() {
                // SAFETY: opened above, and nobody else's.
                unsafe { libc::closedir(folder) };
            }
        },
    },
    Family {
        names: &[c"syscall"],
        call: |front, _| {
            as_type::<Number>(front)(libc::SYS_getppid, 0, 0, 0, 0, 0, 0);
        },
    },
];

fn as_type<T: Copy>(front: *mut c_void) -> T {
    const { assert!(size_of::<T>() == size_of::<*mut c_void>()) };
    // SAFETY: the table above names for each symbol the type that POSIX and glibc give it, and a library that
    // defines it for its host's callers must have the same; a function pointer has a data pointer's size.
    unsafe { core::mem::transmute_copy::<*mut c_void, T>(&front) }
}

fn zeroed<T>() -> T {
    // SAFETY: used for `stat` and `statx`, of which all-zero is a valid value.
    unsafe { core::mem::zeroed() }
}

fn close(fd: c_int) {
    if fd >= 0 {
        let _ = sys::close(fd);
    }
}

/// What is hidden, and by which file; `None` where nothing is.
pub(crate) fn find() -> Option<CPath> {
    let own = file_of(find as *const c_void)?;
    // SAFETY: asks for a number of the auxiliary vector.
    let program = file_of(unsafe { libc::getauxval(libc::AT_ENTRY) } as *const c_void).map_or(0, |file| file.base);
    // The program's own order. RTLD_DEFAULT begins with this library itself, which is linked with -Bsymbolic.
    // SAFETY: null stands for the program, which stays loaded; nothing is loaded by it.
    let order = unsafe { libc::dlopen(core::ptr::null(), libc::RTLD_LAZY) };
    let mut null = None;
    let mut hidden = None;
    for (family, name) in FAMILIES.iter().flat_map(|family| family.names.iter().map(move |name| (family, name))) {
        // SAFETY: looks a name up; finds the definition that the program's own calls go to.
        let front = unsafe { libc::dlsym(order, name.as_ptr()) };
        let Some(file) = file_of(front).filter(|file| file.base != own.base && file.base != program) else { continue };
        let Ok(fd) = *null.get_or_insert_with(open_null) else { break };
        if !active::is_reached(|| (family.call)(front, fd)) {
            let line = CPath::from(b"another library hides the hooks: ")
                .with(file.name)
                .with(b" stands before libossc_preload.so and hides ");
            hidden = Some(line.with(name.to_bytes()).with(b"() from it: put libossc_preload.so first in LD_PRELOAD"));
            break;
        }
    }
    if let Some(Ok(fd)) = null {
        close(fd);
    }
    hidden
}

fn open_null() -> sys::Result<c_int> {
    let fd = sys::openat(AT_FDCWD, NULL, libc::O_RDONLY | libc::O_CLOEXEC, 0)?;
    let high = sys::dup_from(fd, 3);
    let _ = sys::close(fd);
    high
}

/// A loaded file.
struct File {
    base: usize,
    name: &'static [u8],
}

fn file_of(address: *const c_void) -> Option<File> {
    let mut info = core::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: fills the struct for an address inside a loaded file, and gives 0 otherwise.
    let found = unsafe { libc::dladdr(address, info.as_mut_ptr()) };
    // SAFETY: zeroed or filled, both valid.
    let info = unsafe { info.assume_init() };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: a string of the loader's, which lives as long as the file is loaded: preloaded ones stay.
    let name = unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes();
    Some(File { base: info.dli_fbase as usize, name })
}
