//! What the constructor keeps of the environment: role, MODEL_DIR, where the engine is found and which
//! program it is, and the settings that an engine gets. Taken once, before `main`, since a program may
//! clear or change its environment later and any client may have to start an engine then.
//!
//! Called by the constructor (`capture`), by `attach` and `start`, and by what looks at paths. It prints nothing.

use core::cell::UnsafeCell;
use core::ffi::CStr;
use ossc_cache::cpath::CPath;
use ossc_cache::rundir::{Paths, RunDirSettings};
use ossc_cache::sys::{self, Errno};
use ossc_cache::wire;

/// Room for the settings; longer ones are refused by the start with a clear error.
const SETTINGS_MAX: usize = 1 << 16;

/// Names handed to the engine beside its settings.
const NAMES: [&[u8]; 7] =
    [b"CONNECTOR_UDS_PATH", b"ENABLE_CONNECTOR", b"HOME", b"SSL_CERT_DIR", b"SSL_CERT_FILE", b"TZ", b"XDG_RUNTIME_DIR"];

/// ENABLE_CONNECTOR.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Unset, empty or 0.
    Inert,
    /// Neither of them nor a role.
    Unknown,
    /// 1: may start an engine.
    Primary,
    /// 2: waits for one.
    Secondary,
}

struct Environment {
    /// `SETTINGS_MAX` bytes of their own pages, see `private_pages`; null before the constructor.
    settings: *mut u8,
    settings_len: usize,
    overflow: bool,
    program: CPath,
    program_found: bool,
    model_dir: CPath,
    /// `MODEL_DIR=/path` for children, where it was given as a relative path.
    handed_on: CPath,
    paths: Paths,
    can_start: bool,
    /// OSSC_PAST_REPORT; empty where it is not set.
    report: CPath,
    oss_path_key: u64,
    endpoint_key: u64,
}

struct Once(UnsafeCell<core::mem::MaybeUninit<Environment>>);

// SAFETY: written by the constructor alone, before the program's first thread; read-only afterwards, and so are the
// pages that it points to.
unsafe impl Sync for Once {}

/// Zeroed memory, so that it costs nothing in inert processes; all-zero is a valid `Environment`.
static ENVIRONMENT: Once = Once(UnsafeCell::new(core::mem::MaybeUninit::zeroed()));

fn environment() -> &'static Environment {
    // SAFETY: all-zero is valid for every field, and nobody writes after the constructor.
    unsafe { (*ENVIRONMENT.0.get()).assume_init_ref() }
}

/// Reads the role; nothing else is looked at in an inert process. One that has privileges which its starter has not (a
/// setuid program that the library came into by /etc/ld.so.preload) obeys no variable.
pub(crate) fn role() -> Role {
    // SAFETY: no pointers.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return Role::Inert;
    }
    match variable(c"ENABLE_CONNECTOR") {
        Some(b"1") => Role::Primary,
        Some(b"2") => Role::Secondary,
        None | Some(b"" | b"0") => Role::Inert,
        Some(_) => Role::Unknown,
    }
}

/// Why the environment cannot be used.
pub(crate) enum Unusable {
    /// MODEL_DIR is not set or empty.
    NoModelDir,
    /// MODEL_DIR is not a folder and cannot be made.
    BadModelDir,
    /// This user may not reach MODEL_DIR: a child that gave up privileges.
    Unreachable,
    /// No run folder can be used.
    NoRunFolder,
}

/// Takes what is needed later; gives what MODEL_DIR is. Constructor only.
pub(crate) fn capture() -> Result<sys::FileId, Unusable> {
    let given = variable(c"MODEL_DIR").filter(|dir| !dir.is_empty()).ok_or(Unusable::NoModelDir)?;
    // SAFETY: the constructor runs alone.
    let environment = unsafe { (*ENVIRONMENT.0.get()).assume_init_mut() };
    environment.model_dir.push(given);
    let (fd, id) = open_model_dir(&environment.model_dir)?;
    environment.name_model_dir(fd, given);
    let _ = sys::close(fd);
    if !given.starts_with(b"/") {
        environment.handed_on.push(HANDED_ON);
        environment.handed_on.push(environment.model_dir.as_bytes());
    }
    let place = RunDirSettings {
        socket: variable(c"CONNECTOR_UDS_PATH"),
        runtime_dir: variable(c"XDG_RUNTIME_DIR"),
        model_dir: environment.model_dir.as_bytes(),
    };
    if !environment.paths.find(&place, id.dev, id.ino) {
        return Err(Unusable::NoRunFolder);
    }
    environment.settings = private_pages();
    environment.push(b"MODEL_DIR=");
    environment.push_model_dir();
    environment.push(b"\0");
    each_variable(|entry| {
        if is_setting(entry) {
            environment.push(entry);
            environment.push(b"\0");
        }
    });
    environment.oss_path_key = variable(c"OSS_PATH").map_or(0, |path| ossc_cache::region::place_key(path.trim_ascii()));
    environment.endpoint_key = variable(c"OSS_ENDPOINT").map_or(0, ossc_cache::region::endpoint_key);
    environment.can_start =
        role() == Role::Primary || variable(c"OSS_ENDPOINT").is_some() && variable(c"OSS_PATH").is_some();
    if let Some(path) = variable(c"OSSC_PAST_REPORT") {
        environment.report.push(path);
    }
    environment.program_found = find_program(&mut environment.program);
    if !given.starts_with(b"/") {
        hand_on(&self::environment().handed_on);
    }
    Ok(id)
}

impl Environment {
    /// MODEL_DIR as the kernel names it, where it does; in a frame of its own, since it takes three paths.
    #[inline(never)]
    fn name_model_dir(&mut self, fd: i32, given: &[u8]) {
        match descriptor_path(fd) {
            Some(path) => self.model_dir = path,
            None => self.model_dir = below_working_folder(given),
        }
    }

    fn push_model_dir(&mut self) {
        let to = (self.settings, &mut self.settings_len, &mut self.overflow);
        append(to, self.model_dir.as_bytes());
    }

    fn push(&mut self, bytes: &[u8]) {
        append((self.settings, &mut self.settings_len, &mut self.overflow), bytes);
    }
}

/// Puts bytes behind the settings: their pages, how much of them is used, and whether they did not do.
fn append((settings, len, overflow): (*mut u8, &mut usize, &mut bool), bytes: &[u8]) {
    if settings.is_null() || bytes.len() > SETTINGS_MAX - *len {
        *overflow = true;
        return;
    }
    // SAFETY: the pages are `SETTINGS_MAX` long, and the constructor, which alone writes them, has them for itself.
    unsafe { settings.add(*len).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    *len += bytes.len();
}

/// Pages of `SETTINGS_MAX` bytes that core dumps leave out, since the settings have keys; null where none can be had.
/// What is not written takes no memory: mostly one page is all.
fn private_pages() -> *mut u8 {
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the kernel's choice; it is never unmapped.
    let Ok(at) = (unsafe { sys::mmap(0, SETTINGS_MAX, prot, flags, -1, 0) }) else { return core::ptr::null_mut() };
    // SAFETY: advice on the new mapping that changes no contents.
    let _ = unsafe { sys::madvise(at, SETTINGS_MAX, libc::MADV_DONTDUMP) };
    at as *mut u8
}

/// `NAME=value` entries, each ended by NUL, for the engine.
pub(crate) fn settings() -> &'static [u8] {
    let (at, len) = (environment().settings, environment().settings_len);
    if environment().overflow || at.is_null() {
        return &[];
    }
    // SAFETY: so much of the pages was written by the constructor, and nothing writes there afterwards.
    unsafe { core::slice::from_raw_parts(at, len) }
}

/// True if this process may start an engine when there is none.
pub(crate) fn can_start() -> bool {
    environment().can_start
}

/// OSSC_PAST_REPORT: a file that takes down how this program reads past the C library, for `ossc doctor`.
pub(crate) fn report_path() -> Option<&'static CStr> {
    environment().report.as_cstr().filter(|path| !path.is_empty())
}

/// `place_key` of OSS_PATH; 0 when it is not set.
pub(crate) fn oss_path_key() -> u64 {
    environment().oss_path_key
}

/// `endpoint_key` of OSS_ENDPOINT; 0 when it is not set.
pub(crate) fn endpoint_key() -> u64 {
    environment().endpoint_key
}

/// Copies the settings that may say where credentials come from into `room`, as `settings` has them; how many bytes they are.
/// Nothing where they do not fit.
pub(crate) fn credentials(room: &mut [u8]) -> usize {
    let mut len = 0;
    for entry in settings().split_inclusive(|byte| *byte == 0) {
        if !name_of(entry).is_some_and(wire::may_name_credentials) {
            continue;
        }
        let Some(to) = room.get_mut(len..len + entry.len()) else { return 0 };
        to.copy_from_slice(entry);
        len += entry.len();
    }
    len
}

/// The engine's program file.
pub(crate) fn engine_program() -> Option<&'static CStr> {
    environment().program_found.then(|| environment().program.as_cstr()).flatten()
}

/// MODEL_DIR as the kernel names it.
pub(crate) fn model_dir() -> &'static [u8] {
    environment().model_dir.as_bytes()
}

/// The file whose lock the engine holds.
pub(crate) fn lock_path() -> &'static CPath {
    &environment().paths.lock
}

/// The engine's socket.
pub(crate) fn socket_path() -> &'static CPath {
    &environment().paths.socket
}

/// The path behind a descriptor, as /proc names it.
pub(crate) fn descriptor_path(fd: i32) -> Option<CPath> {
    let link = CPath::from(b"/proc/self/fd/").with_number(fd as u64);
    let mut target = [0u8; ossc_cache::cpath::CAPACITY];
    let len = sys::readlink(sys::AT_FDCWD, link.as_cstr()?, &mut target).ok()?;
    (len > 0 && target[0] == b'/' && len < target.len()).then(|| CPath::from(&target[..len]))
}

fn open_model_dir(path: &CPath) -> Result<(i32, sys::FileId), Unusable> {
    let bad = |_| Unusable::BadModelDir;
    let name = path.as_cstr().ok_or(Unusable::BadModelDir)?;
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let fd = match sys::openat(sys::AT_FDCWD, name, flags, 0) {
        Ok(fd) => fd,
        Err(Errno(libc::EACCES)) => return Err(Unusable::Unreachable),
        Err(_) => {
            make_folders(path.as_bytes());
            sys::openat(sys::AT_FDCWD, name, flags, 0).map_err(bad)?
        }
    };
    let high = if fd > 2 { fd } else { sys::dup_from(fd, 3).map_err(bad)? };
    if high != fd {
        let _ = sys::close(fd);
    }
    Ok((high, sys::file_id(high).map_err(bad)?))
}

/// `mkdir -p`.
#[inline(never)]
fn make_folders(path: &[u8]) {
    let ends = path.iter().enumerate().filter(|(at, byte)| **byte == b'/' && *at > 0).map(|(at, _)| at);
    for end in ends.chain(core::iter::once(path.len())) {
        if let Some(name) = CPath::from(&path[..end]).as_cstr() {
            let _ = sys::mkdir(name, 0o755);
        }
    }
}

/// Puts the engine's program to `path`: OSSC_BIN, else `ossc` beside this library, else in ../bin. False without one.
fn find_program(path: &mut CPath) -> bool {
    if let Some(own) = variable(c"OSSC_BIN").filter(|path| !path.is_empty()) {
        path.push(own);
        return true;
    }
    let mut info = core::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr fills the struct for an address inside this library, and gives 0 otherwise.
    let found =
        unsafe { libc::dladdr(find_program as fn(&mut CPath) -> bool as *const libc::c_void, info.as_mut_ptr()) };
    // SAFETY: zeroed or filled, both valid; the name lives as long as the library.
    let name = unsafe { info.assume_init() }.dli_fname;
    if found == 0 || name.is_null() {
        return false;
    }
    // SAFETY: a NUL-terminated string of the loader's.
    let own = unsafe { CStr::from_ptr(name) }.to_bytes();
    let Some(end) = own.iter().rposition(|byte| *byte == b'/') else { return false };
    [b"/ossc".as_slice(), b"/../bin/ossc"].into_iter().any(|tail| {
        path.clear();
        path.push(&own[..end]);
        path.push(tail);
        path.as_cstr().is_some_and(|name| {
            let args = [sys::AT_FDCWD as usize, name.as_ptr() as usize, libc::X_OK as usize, 0, 0, 0];
            // SAFETY: a NUL-terminated path.
            unsafe { sys::raw(libc::SYS_faccessat, args) == 0 }
        })
    })
}

/// True in the command `ossc`, by its name: where LD_PRELOAD is set for a whole session, that is preloaded, too.
pub(crate) fn is_own_command() -> bool {
    let mut own = [0u8; ossc_cache::cpath::CAPACITY];
    let len = sys::readlink(sys::AT_FDCWD, c"/proc/self/exe", &mut own).unwrap_or(0);
    own[..len].ends_with(b"/ossc")
}

/// True in `ossc warm`, which is served like any program.
pub(crate) fn is_warm() -> bool {
    variable(c"OSSC_WARM") == Some(b"1")
}

fn is_setting(entry: &[u8]) -> bool {
    let Some(name) = name_of(entry) else { return false };
    NAMES.contains(&name) || wire::SETTINGS.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// What stands before the `=`.
fn name_of(entry: &[u8]) -> Option<&[u8]> {
    entry.iter().position(|byte| *byte == b'=').map(|cut| &entry[..cut])
}

/// A path as it is from any working folder.
pub(crate) fn below_working_folder(path: &[u8]) -> CPath {
    let mut folder = [0u8; ossc_cache::cpath::CAPACITY];
    // The kernel counts the NUL.
    match sys::getcwd(&mut folder) {
        Ok(len) if len > 1 && !path.starts_with(b"/") => CPath::from(&folder[..len - 1]).with(b"/").with(path),
        _ => CPath::from(path),
    }
}

const HANDED_ON: &[u8] = b"MODEL_DIR=";

/// Puts MODEL_DIR as an absolute path into this program's environment, and so into its children's, which may have
/// another working folder: they shall meet the same engine and the same files.
///
/// One pointer of the environment's array is replaced, before `main` and by a string that lives as long as the
/// process. The C library frees no string that it has not made, so `setenv`, `putenv` and `unsetenv` stay right.
fn hand_on(entry: &'static CPath) {
    let Some(entry) = entry.as_cstr() else { return };
    // SAFETY: the environment is a NULL-terminated array of strings, which the constructor looks at alone.
    let mut at = unsafe { environ };
    // SAFETY: inside the array: its NULL was not reached yet.
    while !at.is_null() && !unsafe { *at }.is_null() {
        // SAFETY: as above, and each entry is a string.
        if unsafe { CStr::from_ptr(*at) }.to_bytes().starts_with(HANDED_ON) {
            // SAFETY: the array is writable memory: the kernel has put it on the stack, or the C library has made it.
            unsafe { *at = entry.as_ptr() };
        }
        // SAFETY: as above.
        at = unsafe { at.add(1) };
    }
}

unsafe extern "C" {
    static environ: *mut *const libc::c_char;
}

fn each_variable(mut each: impl FnMut(&'static [u8])) {
    // SAFETY: the environment is a NULL-terminated array of strings; the constructor reads it alone.
    let mut at = unsafe { environ };
    while !at.is_null() {
        // SAFETY: inside the array, see above.
        let entry = unsafe { *at };
        if entry.is_null() {
            break;
        }
        // SAFETY: a NUL-terminated string of the process's start or of the program's making.
        each(unsafe { CStr::from_ptr(entry) }.to_bytes());
        // SAFETY: the array ends with NULL, which was not reached yet.
        at = unsafe { at.add(1) };
    }
}

fn variable(name: &CStr) -> Option<&'static [u8]> {
    let mut found = None;
    let name = name.to_bytes();
    each_variable(|entry| {
        if found.is_none() && entry.len() > name.len() && entry.starts_with(name) && entry[name.len()] == b'=' {
            found = Some(&entry[name.len() + 1..]);
        }
    });
    found
}
