//! Where the bytes live: one memory file for each object version, on the cheapest pages that can be had.
//!
//! Called by the engine. Kinds, in the order they are tried: named files on a detached tmpfs with huge
//! pages (as root, or made by a short-lived helper in a user namespace of its own), else anonymous memory
//! files. Memory that a program may have mapped is never truncated, punched or used again.

use core::ffi::CStr;
use ossc_cache::cpath::CPath;
use ossc_cache::pages::file_name;
use ossc_cache::region::{REGION_BYTES, Region, RegionFiles};
use ossc_cache::sys::{self, Errno, Result};
use ossc_cache::wire;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Huge pages of x86-64, in bytes.
pub const HUGE_BYTES: usize = 2 << 20;

/// Names of the region's files.
const CATALOG: &CStr = c"region";
/// See `CATALOG`.
const BOARD: &CStr = c"board";

/// Which kind of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageKind {
    /// Files on a detached tmpfs mounted with huge=always.
    HugeTmpfs,
    /// memfd with the system's default pages.
    Memfd,
}

/// The memory files of one engine.
pub struct Store {
    kind: PageKind,
    why: String,
    /// Descriptor of the detached mount's root, or -1.
    folder: i32,
}

/// One object's memory: a file and the engine's writable mapping of it.
pub struct Memory {
    /// The store's folder, or -1, and the record that the file is named after.
    folder: i32,
    slot: u32,
    fd: i32,
    ino: u64,
    at: usize,
    len: usize,
    /// A thread has the lease: the kernel would give it to another one as well, and both would lose it with the first.
    leased: Arc<AtomicBool>,
}

impl Store {
    /// Makes the store. `bytes_max` bounds what the files may hold together where the kind can bound it.
    /// Must be called while the process has one thread (the helper is a plain fork).
    pub fn create(wanted: Option<PageKind>, bytes_max: u64) -> Store {
        if wanted == Some(PageKind::Memfd) {
            return Store { kind: PageKind::Memfd, why: "chosen by OSSC_PAGES".into(), folder: -1 };
        }
        let size = bytes_max.saturating_add(REGION_BYTES as u64);
        let made = detached_tmpfs(size).and_then(tried).or_else(|direct| {
            let made = in_user_namespace(size).and_then(tried);
            made.map_err(|helper| format!("{direct}; in a user namespace: {helper}"))
        });
        match made {
            Ok(folder) => Store { kind: PageKind::HugeTmpfs, why: "detached tmpfs with huge=always".into(), folder },
            Err(why) => Store { kind: PageKind::Memfd, why: format!("no tmpfs of our own: {why}"), folder: -1 },
        }
    }

    /// Takes over the folder of memory files of an engine that is gone, with its region.
    pub fn adopt(folder: i32) -> Result<(Store, Region, RegionFiles)> {
        let open = |name| sys::openat(folder, name, libc::O_RDWR | libc::O_CLOEXEC | libc::O_NOFOLLOW, 0);
        let files = [open(CATALOG)?, open(BOARD)?];
        match Region::map_own(files) {
            Ok(region) => {
                let store =
                    Store { kind: PageKind::HugeTmpfs, why: "taken over from an engine that is gone".into(), folder };
                Ok((store, region, files))
            }
            Err(errno) => {
                wire::close_all(&files);
                Err(errno)
            }
        }
    }

    /// The kind in use.
    pub fn kind(&self) -> PageKind {
        self.kind
    }

    /// Why this kind, for the log.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// Whether a write to a file makes pages as large as a touch of its mapping does. Not where huge pages of
    /// anonymous memory files are to be had by advice, which is a mapping's; nor on a tmpfs of Linux 6.14 to 6.16,
    /// where a write makes pages of its own size.
    pub fn takes_writes(&self) -> bool {
        if self.kind == PageKind::HugeTmpfs {
            return self.with_probe(written_like_touched).flatten().unwrap_or(false);
        }
        // Where the kernel has no huge pages for shared memory there is no such file.
        let huge = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled").unwrap_or_default();
        huge.is_empty() || huge.contains("[never]") || huge.contains("[deny]")
    }

    /// Whether few bytes take little memory: by a mapping of their own that wants no huge pages. Not on a kernel
    /// that makes them in spite of it.
    pub fn makes_small_pages(&self) -> bool {
        let tried = |fd: i32| {
            sys::ftruncate(fd, 2 * HUGE_BYTES as u64)?;
            write_on_small_pages(fd, 0, &[1; 1 << 16])?;
            Ok(sys::fstat(fd)?.st_blocks * 512 <= 1 << 16)
        };
        self.with_probe(tried).and_then(|seen| seen).unwrap_or(false)
    }

    /// Calls `look` with an empty file of the store that holds nothing of anybody's, and empties it again.
    pub fn with_probe<T>(&self, look: impl FnOnce(i32) -> T) -> Result<T> {
        let fd = self.file(c"probe", PRIVATE)?;
        let seen = look(fd);
        let emptied = sys::ftruncate(fd, 0);
        let _ = sys::close(fd);
        emptied.map(|()| seen)
    }

    /// Descriptor of the folder with the memory files, -1 when there is none: for clients, who open
    /// `file_name(slot)` in it read-only.
    pub fn folder(&self) -> i32 {
        self.folder
    }

    /// How many bytes of files a file system of our own holds at most, and holds now, without room for the region.
    /// `None` where the memory files lie on none.
    pub fn space(&self) -> Option<(u64, u64)> {
        // SAFETY: all-zero is a valid `statfs`.
        let mut fs: libc::statfs = unsafe { core::mem::zeroed() };
        let args = [self.folder as usize, (&raw mut fs) as usize, 0, 0, 0, 0];
        // SAFETY: fills the struct that it is given; a number that is no descriptor is an error.
        let asked = unsafe { sys::raw(libc::SYS_fstatfs, args) };
        let bytes = |blocks: u64| (blocks * fs.f_bsize as u64).saturating_sub(REGION_BYTES as u64);
        // The region takes less than its length; what is used is counted too low rather than too high.
        (self.folder >= 0 && asked == 0).then(|| (bytes(fs.f_blocks), bytes(fs.f_blocks - fs.f_bfree)))
    }

    /// Makes and maps a region; returns its descriptors too.
    pub fn region(&self, model_dir: &str, log_path: &str) -> Result<(Region, RegionFiles)> {
        let files = [self.file(CATALOG, PRIVATE)?, counted(self.file(BOARD, PRIVATE)?)?];
        Ok((Region::create(files, model_dir, log_path)?, files))
    }

    /// Makes a new memory file for a record and maps it. What an engine before has left under its name goes.
    pub fn new_memory(&self, slot: u32, len: u64) -> Result<Memory> {
        self.remove(slot);
        self.memory(slot, len)
    }

    /// Takes the name of a record's memory file away.
    pub fn remove(&self, slot: u32) {
        unlink(self.folder, slot);
    }

    /// The memory file of a record, mapped; made where there is none.
    pub fn memory(&self, slot: u32, len: u64) -> Result<Memory> {
        let name = file_name(slot);
        let fd = self.file(name.as_cstr().ok_or(Errno(libc::ENAMETOOLONG))?, READABLE)?;
        let made = sys::ftruncate(fd, len)
            .and_then(|()| sys::file_id(fd))
            .and_then(|id| Ok((id.ino, map_aligned(fd, len as usize)?)))
            .map(|(ino, at)| Memory {
                folder: self.folder,
                slot,
                fd,
                ino,
                at,
                len: len as usize,
                leased: Arc::default(),
            });
        if made.is_err() {
            let _ = sys::close(fd);
        }
        made
    }

    /// Device of the memory files.
    pub fn dev(&self) -> Result<u64> {
        self.with_probe(sys::file_id)?.map(|id| id.dev)
    }

    fn file(&self, name: &CStr, mode: u32) -> Result<i32> {
        if self.folder < 0 {
            return sys::memfd(name);
        }
        let fd = sys::openat(self.folder, name, libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC, mode)?;
        // Whatever the umask: none but clients reach the folder, and one that has changed its user goes on reading.
        let _ = sys::fchmod(fd, mode);
        Ok(fd)
    }
}

fn unlink(folder: i32, slot: u32) {
    if folder >= 0
        && let Some(name) = file_name(slot).as_cstr()
    {
        // A file that is not there needs no removal.
        let _ = sys::unlinkat(folder, name);
    }
}

/// Another opening of the file behind a descriptor; the caller closes it.
pub fn reopen(fd: i32, flags: i32) -> Result<i32> {
    let path = CPath::from(b"/proc/self/fd/").with_number(fd as u64);
    sys::openat(sys::AT_FDCWD, path.as_cstr().ok_or(Errno(libc::EIO))?, flags | libc::O_CLOEXEC, 0)
}

/// The same file behind a descriptor that the kernel counts among those that may write: it does not count the first
/// one of an anonymous memory file.
///
/// # Errors
/// It cannot be opened again.
pub fn counted(fd: i32) -> Result<i32> {
    let again = reopen(fd, libc::O_RDWR);
    let _ = sys::close(fd);
    again
}

/// True while another opening of a file of the store's is in use than that of `fd` (see `counted`): by a descriptor or a
/// map that may write, in whatever process and namespace.
pub fn is_open_elsewhere(fd: i32) -> bool {
    Lease::acquire(fd).is_err_and(|errno| errno.0 == libc::EAGAIN)
}

impl Memory {
    /// Takes the file's name away, for the record's next use; what has it open keeps it.
    pub fn unlink(&self) {
        unlink(self.folder, self.slot);
    }

    /// Inode of the memory file.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// The engine's descriptor of the file (writable: never handed out).
    pub fn fd(&self) -> i32 {
        self.fd
    }

    /// A read-only reopening for a client; the caller closes it.
    pub fn reopen_read_only(&self) -> Result<i32> {
        reopen(self.fd, libc::O_RDONLY)
    }

    /// Makes the pages of `start..end` present, so that a full budget is an error here and not a fault later.
    pub fn populate(&self, start: u64, end: u64) -> Result<()> {
        let end = (end as usize).min(self.len);
        if start as usize >= end {
            return Ok(());
        }
        match sys::populate_write(self.at + start as usize, end - start as usize) {
            // A kernel before 5.14 does not know the advice: the receive itself makes the pages.
            Err(Errno(libc::EINVAL)) => Ok(()),
            other => other,
        }
    }

    /// Puts bytes to their place on pages of 4 KiB, also where the file has huge ones. The place is claimed by nobody.
    pub fn write_small(&self, start: u64, bytes: &[u8]) -> Result<()> {
        let end = start as usize + bytes.len();
        if bytes.is_empty() || end > self.len {
            return if bytes.is_empty() { Ok(()) } else { Err(Errno(libc::EFBIG)) };
        }
        write_on_small_pages(self.fd, start as usize, bytes)
    }

    /// Copies bytes out of the file.
    pub fn read(&self, start: u64, bytes: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match sys::pread(self.fd, bytes[done..].as_mut_ptr(), bytes.len() - done, start + done as u64) {
                Ok(0) => return Err(Errno(libc::EIO)),
                Ok(n) => done += n,
                Err(errno) if errno.is_interrupt() => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Address of byte `offset`. The range behind it is written by the one who claimed the part only.
    pub fn address(&self, offset: u64) -> *mut u8 {
        (self.at + (offset as usize).min(self.len)) as *mut u8
    }

    /// Gives the memory of `start..end` back to the system. Only for ranges that no program has mapped, and
    /// only in whole huge pages, so that bytes which a pipe still refers to stay what they are.
    pub fn punch(&self, start: u64, end: u64) {
        let end = if end as usize >= self.len { (self.len as u64).next_multiple_of(4096) } else { end };
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let args = [self.fd as usize, mode as usize, start as usize, (end - start) as usize, 0, 0];
        // SAFETY: no pointers; the range lies in our own file, and the caller vouches that nobody reads it.
        unsafe { sys::raw(libc::SYS_fallocate, args) };
    }

    /// The write lease on the memory file: granted only while no other process has it open or mapped, and to one
    /// thread of this one.
    pub fn lease(&self) -> Result<Lease> {
        if self.leased.swap(true, Ordering::SeqCst) {
            return Err(Errno(libc::EAGAIN));
        }
        match Lease::of_memory(self.fd) {
            Ok(mut lease) => {
                lease.leased = Some(self.leased.clone());
                Ok(lease)
            }
            Err(errno) => {
                self.leased.store(false, Ordering::SeqCst);
                Err(errno)
            }
        }
    }

    /// Drops the engine's page tables for a finished range: the bytes stay in the file. Whole pages only,
    /// so that a neighbour that is still being filled keeps its own.
    pub fn unmap_pages(&self, start: u64, end: u64) {
        let from = (self.at + start as usize).next_multiple_of(4096);
        let to = (self.at + (end as usize).min(self.len)) & !4095;
        if from < to {
            // SAFETY: on a shared file mapping MADV_DONTNEED drops page tables, never contents.
            let _ = unsafe { sys::madvise(from, to - from, libc::MADV_DONTNEED) };
        }
    }
}

/// A write lease of the kernel's on a file: while it is held nobody else has the file open, and who opens
/// it waits until it is given back.
#[derive(Debug)]
pub struct Lease {
    fd: i32,
    owned: bool,
    /// Of the memory that it is on: cleared when it is given back.
    leased: Option<Arc<AtomicBool>>,
}

impl Lease {
    /// On a descriptor that stays the caller's. EAGAIN when somebody else has the file open; other errors
    /// where the file system knows no leases.
    pub fn acquire(fd: i32) -> Result<Lease> {
        sys::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK as usize).map(|_| Lease { fd, owned: false, leased: None })
    }

    /// On a file of the store's, by its first descriptor, which stays the caller's.
    fn of_memory(fd: i32) -> Result<Lease> {
        match Lease::acquire(fd) {
            // An anonymous memory file does not count its own first descriptor: ask with a second one.
            Err(Errno(libc::EAGAIN)) => reopen(fd, libc::O_RDONLY).and_then(Lease::acquire_owned),
            other => other,
        }
    }

    /// On a descriptor that is closed with the lease.
    pub fn acquire_owned(fd: i32) -> Result<Lease> {
        match Lease::acquire(fd) {
            Ok(mut lease) => {
                lease.owned = true;
                Ok(lease)
            }
            Err(errno) => {
                let _ = sys::close(fd);
                Err(errno)
            }
        }
    }

    /// True while nobody waits to open the file: the kernel says what a lease is about to become.
    pub fn is_whole(&self) -> bool {
        sys::fcntl(self.fd, libc::F_GETLEASE, 0) == Ok(libc::F_WRLCK as usize)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = sys::fcntl(self.fd, libc::F_SETLEASE, libc::F_UNLCK as usize);
        if self.owned {
            let _ = sys::close(self.fd);
        }
        if let Some(leased) = &self.leased {
            leased.store(false, Ordering::SeqCst);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and who drops it has no receive under way into it.
        let _ = unsafe { sys::munmap(self.at, self.len.max(1)) };
        let _ = sys::close(self.fd);
    }
}

/// Whether a byte that is written to a file takes as much memory as one that is touched in its mapping.
fn written_like_touched(fd: i32) -> Result<bool> {
    let len = 2 * HUGE_BYTES;
    sys::ftruncate(fd, len as u64)?;
    sys::write(fd, b"w")?;
    let written = sys::fstat(fd)?.st_blocks;
    let at = map_aligned(fd, len)?;
    let touched = sys::populate_write(at + HUGE_BYTES, 1).and_then(|()| sys::fstat(fd));
    // SAFETY: the mapping was made above, and nobody else knows it.
    let _ = unsafe { sys::munmap(at, len) };
    touched.map(|both| written >= both.st_blocks - written)
}

/// Writes bytes through a mapping of their own, which takes no huge pages whatever the file would have.
fn write_on_small_pages(fd: i32, start: usize, bytes: &[u8]) -> Result<()> {
    let from = start & !4095;
    let len = start - from + bytes.len();
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe { sys::mmap(0, len, prot, libc::MAP_SHARED, fd, from as u64)? };
    // Where the kernel knows no huge pages there is nothing to refuse.
    // SAFETY: advice on the new mapping.
    let _ = unsafe { sys::madvise(at, len, libc::MADV_NOHUGEPAGE) };
    let made = sys::populate_write(at, len);
    if made.is_ok() {
        // SAFETY: inside the new mapping, whose pages the kernel has just made; nobody else writes there.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), (at + start - from) as *mut u8, bytes.len()) };
    }
    // SAFETY: the mapping was made above, and nobody else knows it.
    let _ = unsafe { sys::munmap(at, len) };
    made
}

/// Maps a file shared and writable at an address that huge pages can use.
fn map_aligned(fd: i32, len: usize) -> Result<usize> {
    let len = len.max(1);
    let room = len.checked_add(HUGE_BYTES).ok_or(Errno(libc::ENOMEM))?;
    let nowhere = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new reservation at an address of the kernel's choice.
    let reserved = unsafe { sys::mmap(0, room, libc::PROT_NONE, nowhere, -1, 0)? };
    let at = reserved.next_multiple_of(HUGE_BYTES);
    let end = (at + len).next_multiple_of(4096);
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: MAP_FIXED inside our own reservation.
    let mapped = unsafe { sys::mmap(at, len, prot, libc::MAP_SHARED | libc::MAP_FIXED, fd, 0) };
    let waste =
        if mapped.is_ok() { [(reserved, at), (end, reserved + room)] } else { [(reserved, reserved + room), (0, 0)] };
    for (from, to) in waste {
        if from < to {
            // SAFETY: the rest of our own reservation, which nothing uses.
            let _ = unsafe { sys::munmap(from, to - from) };
        }
    }
    mapped.inspect(|at| {
        // SAFETY: advice on the new mapping; harmless where it does not apply.
        let _ = unsafe { sys::madvise(*at, len, libc::MADV_HUGEPAGE) };
    })
}

/// Modes of the files on a tmpfs of our own. It is mounted nowhere: what is in it can be reached only through the
/// descriptor of its root, which the engine gives to its clients. A client that changes its user keeps the descriptor,
/// and must be able to go on reading objects by it; so the root may be searched and objects be read by all, which
/// lets in nobody who was not let in before. Only the engine's user can write to an object, or open the region.
const READABLE: u32 = 0o644;
/// See `READABLE`.
const PRIVATE: u32 = 0o600;

const FSCONFIG_SET_STRING: usize = 1;
const FSCONFIG_CMD_CREATE: usize = 6;
/// nosuid, nodev.
const MOUNT_ATTRS: usize = 0x2 | 0x4;

/// A tmpfs that is mounted nowhere, with huge pages.
fn detached_tmpfs(bytes: u64) -> core::result::Result<i32, String> {
    tmpfs(bytes, c"always")
}

/// `fsopen`, `fsconfig`, `fsmount` (Linux 5.2).
fn tmpfs(bytes: u64, huge: &CStr) -> core::result::Result<i32, String> {
    let step = |what: &str, errno: Errno| format!("{what}: {}", std::io::Error::from_raw_os_error(errno.0));
    let call = |number: i64, a: [usize; 6]| -> Result<usize> {
        // SAFETY: the callers below pass NUL-terminated strings that outlive the call, or numbers.
        let value = unsafe { sys::raw(number, a) };
        if value < 0 { Err(Errno(-value as i32)) } else { Ok(value as usize) }
    };
    let fs = call(libc::SYS_fsopen, [c"tmpfs".as_ptr() as usize, 1, 0, 0, 0, 0]).map_err(|e| step("fsopen", e))?;
    let size = CPath::default().with_number(bytes);
    let options = [(c"huge", huge), (c"mode", c"0711"), (c"size", size.as_cstr().unwrap_or(c"0"))];
    let configured = options.iter().try_for_each(|(key, value)| {
        let args = [fs, FSCONFIG_SET_STRING, key.as_ptr() as usize, value.as_ptr() as usize, 0, 0];
        call(libc::SYS_fsconfig, args).map(drop).map_err(|e| step("fsconfig", e))
    });
    let mounted = configured
        .and_then(|()| call(libc::SYS_fsconfig, [fs, FSCONFIG_CMD_CREATE, 0, 0, 0, 0]).map_err(|e| step("create", e)))
        .and_then(|_| call(libc::SYS_fsmount, [fs, 1, MOUNT_ATTRS, 0, 0, 0]).map_err(|e| step("fsmount", e)));
    let _ = sys::close(fs as i32);
    mounted.map(|fd| fd as i32)
}

/// The same, made by a helper process in a user and mount namespace of its own, which sends the mount's
/// descriptor and exits: the engine itself stays in the initial namespaces.
fn in_user_namespace(bytes: u64) -> core::result::Result<i32, String> {
    let mut pair = [0i32; 2];
    // SAFETY: the array has room for two descriptors.
    if unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr()) } != 0
    {
        return Err(format!("socketpair: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: no pointers.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: the process has one thread (see `create`), so the child may run ordinary code.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let sent =
            namespace_helper(bytes, uid, gid).map(|fd| ossc_cache::wire::answer(pair[1], 0, 0, b"", [fd, -1, -1, -1]));
        let code = match sent {
            Ok(Ok(())) => 0,
            Ok(Err(_)) => 1,
            Err(why) => ossc_cache::wire::answer(pair[1], libc::EPERM, 0, why.as_bytes(), ossc_cache::wire::NO_FDS)
                .is_err() as i32,
        };
        // SAFETY: ends the helper without running the parent's exit handlers.
        unsafe { libc::_exit(code) };
    }
    let _ = sys::close(pair[1]);
    let packet = if child > 0 && sys::wait_readable(pair[0], 5000) {
        ossc_cache::wire::receive(pair[0])
    } else {
        Err(Errno(libc::ETIMEDOUT))
    };
    let _ = sys::close(pair[0]);
    if child > 0 {
        // SAFETY: our own child, which has answered or is ended here.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, core::ptr::null_mut(), 0);
        }
    }
    match packet {
        Ok(packet) if packet.fds[0] >= 0 => Ok(packet.fds[0]),
        Ok(packet) => Err(String::from_utf8_lossy(packet.text()).into_owned()),
        Err(errno) => Err(format!("helper: {}", std::io::Error::from_raw_os_error(errno.0))),
    }
}

/// Maps user and group: a file system refuses files (EOVERFLOW) of anybody its namespace does not know.
fn namespace_helper(bytes: u64, uid: u32, gid: u32) -> core::result::Result<i32, String> {
    // SAFETY: a call without pointers, in a process with one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) } != 0 {
        return Err(format!("unshare: {}", std::io::Error::last_os_error()));
    }
    let write =
        |name: &str, text: &str| std::fs::write(format!("/proc/self/{name}"), text).map_err(|e| format!("{name}: {e}"));
    write("uid_map", &format!("{uid} {uid} 1"))?;
    // user_namespaces(7): an unprivileged process may write gid_map only after it gave up setgroups.
    write("setgroups", "deny")?;
    write("gid_map", &format!("{gid} {gid} 1"))?;
    detached_tmpfs(bytes)
}

/// The folder of a mount, if this process can make a file in it.
fn tried(folder: i32) -> core::result::Result<i32, String> {
    match sys::openat(folder, c"probe", libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC, 0o600) {
        Ok(fd) => {
            let _ = sys::close(fd);
            Ok(folder)
        }
        Err(errno) => {
            let _ = sys::close(folder);
            Err(format!("a first file: {}", std::io::Error::from_raw_os_error(errno.0)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_seen_whether_a_write_makes_the_pages_of_a_touch() {
        let store = Store::create(None, 1 << 30);
        if store.kind() == PageKind::HugeTmpfs {
            assert_eq!(store.with_probe(|fd| sys::fstat(fd).unwrap().st_size), Ok(0), "a probe is left empty");
            // Here huge pages are to be had by the mapping's advice alone.
            let folder = tmpfs(16 << 20, c"advise").unwrap();
            let advised = Store { kind: PageKind::HugeTmpfs, why: String::new(), folder };
            assert!(!advised.takes_writes());
            assert_eq!(advised.with_probe(written_like_touched), Ok(Ok(false)));
            assert_eq!(advised.with_probe(|fd| sys::fstat(fd).unwrap().st_blocks), Ok(0), "a probe is left empty");
        }
    }

    fn round_trip(store: &Store) {
        let memory = store.memory(3, 5_000_000).unwrap();
        memory.populate(0, 5_000_000).unwrap();
        assert_eq!(memory.address(0) as usize % HUGE_BYTES, 0);
        // SAFETY: inside the mapping that the test alone uses.
        unsafe { memory.address(4_999_999).write(42) };
        memory.unmap_pages(0, 5_000_000);
        let fd = memory.reopen_read_only().unwrap();
        let mut byte = [0u8];
        assert_eq!(sys::pread(fd, byte.as_mut_ptr(), 1, 4_999_999), Ok(1));
        assert_eq!(byte, [42]);
        assert_eq!(sys::write(fd, b"x"), Err(Errno(libc::EBADF)), "a reopening never writes");
        assert_eq!(sys::file_id(fd).unwrap().ino, memory.ino());
        assert_eq!(sys::file_id(fd).unwrap().dev, store.dev().unwrap());
        let _ = sys::close(fd);
    }

    #[test]
    fn a_few_bytes_take_few_pages() {
        for kind in [Some(PageKind::Memfd), None] {
            let store = Store::create(kind, 1 << 30);
            if !store.makes_small_pages() {
                continue;
            }
            let memory = store.memory(1, (8 << 20) + 777).unwrap();
            let bytes: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
            for start in [65_536, (3 << 20) + 5, (8 << 20) + 777 - 200_000] {
                memory.write_small(start, &bytes).unwrap();
                let mut again = vec![0; bytes.len()];
                memory.read(start, &mut again).unwrap();
                assert!(again == bytes, "{start}");
            }
            assert!(sys::fstat(memory.fd()).unwrap().st_blocks * 512 <= 3 * (200_000 + 2 * 4096), "{:?}", store.kind());
            assert_eq!(memory.write_small((8 << 20) + 700, &bytes), Err(Errno(libc::EFBIG)));
            memory.punch(0, (8 << 20) + 777);
            assert_eq!(sys::fstat(memory.fd()).unwrap().st_blocks, 0);
        }
    }

    #[test]
    fn the_space_is_that_of_the_own_file_system() {
        assert_eq!(Store::create(Some(PageKind::Memfd), 1 << 30).space(), None);
        let store = Store::create(None, 1 << 30);
        if store.kind() == PageKind::HugeTmpfs {
            let before = store.space().unwrap();
            let memory = store.memory(1, 128 << 20).unwrap();
            memory.populate(0, 128 << 20).unwrap();
            let (total, used) = store.space().unwrap();
            assert_eq!((before, total), ((1 << 30, 0), 1 << 30));
            assert!(used + REGION_BYTES as u64 >= 128 << 20 && used <= 128 << 20, "{used}");
        }
    }

    #[test]
    fn the_lease_tells_who_has_it_open_or_mapped() {
        for kind in [Some(PageKind::Memfd), None] {
            let store = Store::create(kind, 1 << 30);
            let memory = store.memory(1, 3 << 20).unwrap();
            drop(memory.lease().unwrap());
            let fd = memory.reopen_read_only().unwrap();
            assert_eq!(memory.lease().err(), Some(Errno(libc::EAGAIN)), "open elsewhere");
            // SAFETY: a new mapping.
            let at = unsafe { sys::mmap(0, 4096, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0).unwrap() };
            sys::close(fd).unwrap();
            assert_eq!(memory.lease().err(), Some(Errno(libc::EAGAIN)), "mapped elsewhere");
            // SAFETY: the test's own mapping.
            unsafe { sys::munmap(at, 4096).unwrap() };
            memory.populate(0, 3 << 20).unwrap();
            let lease = memory.lease().unwrap();
            memory.punch(0, 3 << 20);
            assert_eq!(sys::fstat(memory.fd()).unwrap().st_blocks, 0, "the memory is given back");
            drop(lease);
        }
    }

    /// As long as the value lives the kernel holds the lease, on either kind: an open that does not wait is refused,
    /// and is seen by the holder.
    #[test]
    fn a_lease_is_held_until_it_is_dropped() {
        // The kernel tells the holder by a signal that would end it; the engine ignores it too.
        // SAFETY: no handler is installed.
        unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
        for kind in [Some(PageKind::Memfd), None] {
            let store = Store::create(kind, 1 << 30);
            let memory = store.memory(1, 3 << 20).unwrap();
            let path = CPath::from(b"/proc/self/fd/").with_number(memory.fd() as u64);
            let open = |flags: i32| sys::openat(sys::AT_FDCWD, path.as_cstr().unwrap(), libc::O_RDONLY | flags, 0);
            let lease = memory.lease().unwrap();
            assert!(lease.is_whole());
            assert_eq!(memory.lease().err(), Some(Errno(libc::EAGAIN)), "another thread has it");
            assert_eq!(open(libc::O_NONBLOCK), Err(Errno(libc::EAGAIN)), "{:?}: opened under the lease", store.kind());
            assert!(!lease.is_whole(), "an open that meets the lease is not seen");
            drop(lease);
            sys::close(open(libc::O_NONBLOCK).unwrap()).unwrap();
        }
    }

    #[test]
    fn memfd_files() {
        let store = Store::create(Some(PageKind::Memfd), 1 << 30);
        assert_eq!((store.kind(), store.folder()), (PageKind::Memfd, -1));
        round_trip(&store);
    }

    #[test]
    fn the_best_kind_here() {
        let store = Store::create(None, 1 << 30);
        assert!(!store.why().is_empty());
        round_trip(&store);
        if store.kind() == PageKind::HugeTmpfs {
            let fd = sys::openat(store.folder(), file_name(9).as_cstr().unwrap(), libc::O_RDONLY, 0);
            assert_eq!(fd, Err(Errno(libc::ENOENT)));
            let small =
                Store { kind: PageKind::HugeTmpfs, why: String::new(), folder: detached_tmpfs(4 << 20).unwrap() };
            let memory = small.memory(1, 64 << 20).unwrap();
            assert!(memory.populate(0, 64 << 20).is_err(), "a full store is an error, not a fault");
        }
    }
}
