//! Raw Linux system calls (x86-64), without the C library in between.
//!
//! The library exports `open`, `read`, `fstat` … itself, so anything it calls by those names would come
//! back to its own hooks; and inside another program's `vfork` child or before constructors the C library
//! is not to be relied on. The engine uses the same calls where the library does, so both sides agree.
//! Nothing here touches `errno`, allocates, or retries by itself (but `EINTR` where a doc says so).

use core::arch::asm;
use core::ffi::CStr;
use core::sync::atomic::{AtomicI64, Ordering};

/// A Linux error number, as the kernel returned it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

impl Errno {
    /// True for the error of a call that a signal interrupted.
    pub fn is_interrupt(self) -> bool {
        self.0 == libc::EINTR
    }
}

/// What a system call gave: a value, or the error number.
pub type Result<T> = core::result::Result<T, Errno>;

/// One system call with up to six arguments; the raw return value, negative for an error.
///
/// # Safety
/// The arguments must be what the call named by `number` expects; pointers among them must be valid for it.
#[inline(always)]
pub unsafe fn raw(number: i64, a: [usize; 6]) -> isize {
    let value: isize;
    // SAFETY: the syscall instruction clobbers rcx, r11 and memory only; the caller vouches for the arguments.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => value,
             in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    value
}

fn checked(value: isize) -> Result<usize> {
    if (-4095..0).contains(&value) { Err(Errno(-value as i32)) } else { Ok(value as usize) }
}

/// A system call whose pointers (if any) the caller in this file has made from references or owned ranges.
macro_rules! call {
    ($number:expr $(, $arg:expr)*) => {{
        let given = [$($arg as usize),*];
        let mut all = [0usize; 6];
        all[..given.len()].copy_from_slice(&given);
        // SAFETY: each caller in this file passes arguments of the kinds that the call documents, and
        // pointers that come from live references or that the kernel checks itself (EFAULT).
        checked(unsafe { raw($number, all) })
    }};
}

/// The current folder, for the `*at` calls.
pub const AT_FDCWD: i32 = libc::AT_FDCWD;

/// Opens `path` relative to `dir`; the kernel's `openat`.
pub fn openat(dir: i32, path: &CStr, flags: i32, mode: u32) -> Result<i32> {
    call!(libc::SYS_openat, dir as isize, path.as_ptr(), flags as isize, mode).map(|fd| fd as i32)
}

/// Takes a file's name out of a folder.
pub fn unlinkat(dir: i32, path: &CStr) -> Result<()> {
    call!(libc::SYS_unlinkat, dir as isize, path.as_ptr(), 0isize).map(drop)
}

/// Closes a descriptor.
pub fn close(fd: i32) -> Result<()> {
    call!(libc::SYS_close, fd as isize).map(drop)
}

/// What the library needs to know of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileId {
    /// st_dev.
    pub dev: u64,
    /// st_ino.
    pub ino: u64,
    /// st_size in bytes.
    pub size: u64,
    /// st_mode: type and permission bits.
    pub mode: u32,
    /// st_mtime: seconds since 1970.
    pub mtime_secs: i64,
    /// Nanoseconds of st_mtime.
    pub mtime_nanos: u32,
}

impl From<&libc::stat> for FileId {
    fn from(st: &libc::stat) -> FileId {
        let (size, mode) = (st.st_size as u64, st.st_mode);
        FileId {
            dev: st.st_dev,
            ino: st.st_ino,
            size,
            mode,
            mtime_secs: st.st_mtime,
            mtime_nanos: st.st_mtime_nsec as u32,
        }
    }
}

impl FileId {
    /// A regular file of 0 bytes: what a placeholder looks like to the kernel.
    pub fn is_empty_file(&self) -> bool {
        self.size == 0 && self.mode & libc::S_IFMT == libc::S_IFREG
    }

    /// A folder.
    pub fn is_folder(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// A regular file.
    pub fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }
}

/// `struct stat` of a descriptor.
pub fn fstat(fd: i32) -> Result<libc::stat> {
    let mut st = core::mem::MaybeUninit::<libc::stat>::zeroed();
    call!(libc::SYS_fstat, fd as isize, st.as_mut_ptr())?;
    // SAFETY: zeroed is a valid `stat`, and the kernel has filled it.
    Ok(unsafe { st.assume_init() })
}

/// What a descriptor is (`fstat`).
pub fn file_id(fd: i32) -> Result<FileId> {
    fstat(fd).map(|st| FileId::from(&st))
}

/// What a path names (`newfstatat`, symlinks followed unless `flags` say otherwise).
pub fn file_id_at(dir: i32, path: &CStr, flags: i32) -> Result<FileId> {
    let mut st = core::mem::MaybeUninit::<libc::stat>::zeroed();
    call!(libc::SYS_newfstatat, dir as isize, path.as_ptr(), st.as_mut_ptr(), flags as isize)?;
    // SAFETY: zeroed is a valid `stat`, and the kernel has filled it.
    Ok(FileId::from(&unsafe { st.assume_init() }))
}

/// An extended attribute of an open file (not of an O_PATH descriptor: EBADF); how many bytes of `out` were filled.
/// ENODATA when the file has none, EOPNOTSUPP when its file system has none, ERANGE when it does not fit.
pub fn fgetxattr(fd: i32, name: &CStr, out: &mut [u8]) -> Result<usize> {
    call!(libc::SYS_fgetxattr, fd as isize, name.as_ptr(), out.as_mut_ptr(), out.len())
}

/// The same of the file at a path, through symbolic links.
pub fn getxattr(path: &CStr, name: &CStr, out: &mut [u8]) -> Result<usize> {
    call!(libc::SYS_getxattr, path.as_ptr(), name.as_ptr(), out.as_mut_ptr(), out.len())
}

/// Sets an extended attribute of an open file.
pub fn fsetxattr(fd: i32, name: &CStr, value: &[u8]) -> Result<()> {
    call!(libc::SYS_fsetxattr, fd as isize, name.as_ptr(), value.as_ptr(), value.len(), 0usize).map(drop)
}

/// Time of birth of an open file, in seconds since 1970 and nanoseconds; `None` where the file system keeps none.
pub fn birth(fd: i32) -> Result<Option<(i64, u32)>> {
    let st = statx(fd, c"", libc::STATX_BTIME)?;
    Ok((st.stx_mask & libc::STATX_BTIME != 0).then_some((st.stx_btime.tv_sec, st.stx_btime.tv_nsec)))
}

/// Number of the mount that a path leads to, or a descriptor where the path is empty; `None` where the kernel does not say
/// it (before Linux 5.8, or the call may not be made).
pub fn mount_at(dir: i32, path: &CStr) -> Option<u64> {
    let st = statx(dir, path, libc::STATX_MNT_ID).ok()?;
    (st.stx_mask & libc::STATX_MNT_ID != 0).then_some(st.stx_mnt_id)
}

fn statx(dir: i32, path: &CStr, mask: u32) -> Result<libc::statx> {
    let mut st = core::mem::MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_EMPTY_PATH;
    call!(libc::SYS_statx, dir as isize, path.as_ptr(), flags as isize, mask, st.as_mut_ptr())?;
    // SAFETY: zeroed is a valid `statx`, and the kernel has filled it.
    Ok(unsafe { st.assume_init() })
}

/// A number of the file's handle (`name_to_handle_at`), which the kernel gives to no other file, later ones with its inode
/// number among them. An error where the file system has no handles, or the call may not be made.
pub fn handle(fd: i32) -> Result<u64> {
    /// `struct file_handle` with room for MAX_HANDLE_SZ bytes.
    #[repr(C)]
    struct Handle {
        len: u32,
        kind: i32,
        bytes: [u8; 128],
    }
    let mut handle = Handle { len: 128, kind: 0, bytes: [0; 128] };
    let (mut mount, out) = (0i32, &raw mut handle);
    call!(libc::SYS_name_to_handle_at, fd as isize, c"".as_ptr(), out, &raw mut mount, libc::AT_EMPTY_PATH as isize)?;
    let bytes = handle.bytes.iter().take(handle.len as usize);
    Ok(bytes.fold(handle.kind as u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)))
}

/// The file system that a descriptor lies on.
pub fn fs_of(fd: i32) -> Result<libc::statfs> {
    let mut fs = core::mem::MaybeUninit::<libc::statfs>::zeroed();
    call!(libc::SYS_fstatfs, fd as isize, fs.as_mut_ptr())?;
    // SAFETY: zeroed is a valid `statfs`, and the kernel has filled it.
    Ok(unsafe { fs.assume_init() })
}

/// Its type (`statfs`'s f_type).
pub fn fs_type(fd: i32) -> Result<i64> {
    fs_of(fd).map(|fs| fs.f_type)
}

/// The writing end of a pipe that nobody reads, close-on-exec.
pub fn write_end() -> Result<i32> {
    let mut ends = [-1i32; 2];
    call!(libc::SYS_pipe2, ends.as_mut_ptr(), libc::O_CLOEXEC as isize)?;
    let _ = close(ends[0]);
    Ok(ends[1])
}

/// True for a file on a tmpfs, anonymous memory files among them.
pub fn is_on_tmpfs(fd: i32) -> bool {
    fs_type(fd) == Ok(libc::TMPFS_MAGIC)
}

/// Moves or asks the file offset.
pub fn lseek(fd: i32, offset: i64, whence: i32) -> Result<i64> {
    call!(libc::SYS_lseek, fd as isize, offset, whence as isize).map(|at| at as i64)
}

/// Reads at an offset into a buffer given by address: the kernel answers EFAULT for a bad one.
pub fn pread(fd: i32, buffer: *mut u8, len: usize, offset: u64) -> Result<usize> {
    call!(libc::SYS_pread64, fd as isize, buffer, len, offset)
}

/// Reads from the current offset.
pub fn read(fd: i32, buffer: &mut [u8]) -> Result<usize> {
    call!(libc::SYS_read, fd as isize, buffer.as_mut_ptr(), buffer.len())
}

/// Writes at the current offset.
pub fn write(fd: i32, bytes: &[u8]) -> Result<usize> {
    call!(libc::SYS_write, fd as isize, bytes.as_ptr(), bytes.len())
}

/// Maps memory; returns its address.
///
/// # Safety
/// As `mmap`: with MAP_FIXED it replaces what is mapped at `at`.
pub unsafe fn mmap(at: usize, len: usize, prot: i32, flags: i32, fd: i32, offset: u64) -> Result<usize> {
    call!(libc::SYS_mmap, at, len, prot as isize, flags as isize, fd as isize, offset)
}

/// Unmaps memory.
///
/// # Safety
/// Nothing may use the range afterwards.
pub unsafe fn munmap(at: usize, len: usize) -> Result<()> {
    call!(libc::SYS_munmap, at, len).map(drop)
}

/// `madvise` on a range; the kernel checks the range itself.
///
/// # Safety
/// Advice that drops contents (MADV_DONTNEED, MADV_REMOVE …) needs the caller to own them.
pub unsafe fn madvise(at: usize, len: usize, advice: i32) -> Result<()> {
    call!(libc::SYS_madvise, at, len, advice as isize).map(drop)
}

/// Makes a buffer's pages writable and present, so that a copy into it cannot fault (Linux 5.14).
/// Any error means "not known to be safe".
pub fn populate_write(at: usize, len: usize) -> Result<()> {
    const MADV_POPULATE_WRITE: i32 = 23;
    let start = at & !4095;
    let end = at.checked_add(len).and_then(|e| e.checked_add(4095)).ok_or(Errno(libc::EFAULT))? & !4095;
    call!(libc::SYS_madvise, start, end - start, MADV_POPULATE_WRITE as isize).map(drop)
}

/// The same for a buffer that is about to be overwritten, whose bytes it may change. For up to two pages the kernel
/// is made to write a word into each of them by the cheapest call there is, once for both: 0.11 us, where the
/// advice takes 0.26.
pub fn vouch(at: usize, len: usize) -> Result<()> {
    const WORD: usize = size_of::<u32>();
    let first_page_end = (at & !4095).saturating_add(4096);
    let end = at.checked_add(len).ok_or(Errno(libc::EFAULT))?;
    let in_first = end.min(first_page_end) - at;
    let in_second = end.saturating_sub(first_page_end);
    if in_first < WORD || in_second > 4096 || (1..WORD).contains(&in_second) {
        return populate_write(at, len);
    }
    call!(libc::SYS_getcpu, at, if in_second > 0 { first_page_end } else { 0 }, 0).map(drop)
}

/// The number of this thread.
pub fn gettid() -> i32 {
    call!(libc::SYS_gettid).map_or(0, |tid| tid as i32)
}

/// True if a process has no such thread (any more). Where a policy hides that, it has.
pub fn is_no_thread(pid: i32, tid: i32) -> bool {
    call!(libc::SYS_tgkill, pid as isize, tid as isize, 0) == Err(Errno(libc::ESRCH))
}

/// Relative time for futexes and polls.
#[repr(C)]
#[derive(Clone, Copy)]
struct Timespec {
    sec: i64,
    nsec: i64,
}

/// Microseconds of the machine's monotonic clock, for times between two moments in one process.
pub fn now_us() -> u64 {
    let mut t = Timespec { sec: 0, nsec: 0 };
    let _ = call!(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC as isize, &raw mut t);
    (t.sec * 1_000_000 + t.nsec / 1000) as u64
}

/// Milliseconds of the machine's monotonic clock, by which programs and engine compare their times. It is asked of the
/// kernel: a preloaded library may show a program another clock.
pub fn now_ms() -> u64 {
    let mut t = Timespec { sec: 0, nsec: 0 };
    let _ = call!(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC as isize, &raw mut t);
    (t.sec * 1000 + t.nsec / 1_000_000 - AHEAD_MS.load(Ordering::Relaxed)) as u64
}

/// How far this process's monotonic clock is ahead of the machine's: 0 but in a time namespace.
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

/// Finds out by what clock this process runs. Until then it is taken for the machine's.
pub fn meet_clock() {
    let mut text = [0u8; 256];
    let asked = openat(AT_FDCWD, c"/proc/self/timens_offsets", libc::O_RDONLY | libc::O_CLOEXEC, 0).and_then(|fd| {
        let got = read(fd, &mut text);
        let _ = close(fd);
        got
    });
    // Kernels before 5.6 have no such file, and no time namespaces.
    if let Some(ahead) = asked.ok().and_then(|len| ahead_ms(text.get(..len)?)) {
        AHEAD_MS.store(ahead, Ordering::Relaxed);
    }
}

/// The line `monotonic SECONDS NANOSECONDS` of time_namespaces(7).
fn ahead_ms(text: &[u8]) -> Option<i64> {
    let text = core::str::from_utf8(text).ok()?;
    let mut words = text.lines().find_map(|line| line.strip_prefix("monotonic"))?.split_ascii_whitespace();
    let (secs, nanos): (i64, i64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(secs.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}

/// Waits while `word` holds `seen`, at most `ms` milliseconds. Shared between processes.
/// ETIMEDOUT, EAGAIN and EINTR are all "look again".
pub fn futex_wait(word: &core::sync::atomic::AtomicU32, seen: u32, ms: u64) -> Result<()> {
    let time = Timespec { sec: (ms / 1000) as i64, nsec: (ms % 1000 * 1_000_000) as i64 };
    call!(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT as isize, seen, &time as *const Timespec).map(drop)
}

/// Wakes everybody who waits on `word`, in every process.
pub fn futex_wake(word: &core::sync::atomic::AtomicU32) {
    let _ = call!(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE as isize, i32::MAX as isize);
}

/// Sleeps for `ms` milliseconds or until a signal.
pub fn sleep_ms(ms: u64) {
    let time = Timespec { sec: (ms / 1000) as i64, nsec: (ms % 1000 * 1_000_000) as i64 };
    let _ = call!(libc::SYS_nanosleep, &time as *const Timespec, 0usize);
}

/// The working folder with its NUL; how many bytes of `out` were filled.
pub fn getcwd(out: &mut [u8]) -> Result<usize> {
    call!(libc::SYS_getcwd, out.as_mut_ptr(), out.len())
}

/// Process id, from the kernel (right also in a `vfork` child).
pub fn getpid() -> i32 {
    call!(libc::SYS_getpid).map_or(0, |pid| pid as i32)
}

/// Effective user id.
pub fn geteuid() -> u32 {
    call!(libc::SYS_geteuid).map_or(u32::MAX, |uid| uid as u32)
}

/// Duplicates `fd` to the lowest free number from `at_least` on, close-on-exec.
pub fn dup_from(fd: i32, at_least: i32) -> Result<i32> {
    call!(libc::SYS_fcntl, fd as isize, libc::F_DUPFD_CLOEXEC as isize, at_least as isize).map(|fd| fd as i32)
}

/// Puts `fd` at the number `target`, replacing what is there.
pub fn dup3(fd: i32, target: i32, flags: i32) -> Result<i32> {
    call!(libc::SYS_dup3, fd as isize, target as isize, flags as isize).map(|fd| fd as i32)
}

/// `fcntl` with an integer argument.
pub fn fcntl(fd: i32, command: i32, argument: usize) -> Result<usize> {
    call!(libc::SYS_fcntl, fd as isize, command as isize, argument)
}

/// An anonymous memory file, close-on-exec.
pub fn memfd(name: &CStr) -> Result<i32> {
    call!(libc::SYS_memfd_create, name.as_ptr(), 1usize).map(|fd| fd as i32)
}

/// Two of them.
pub fn memfds(name: &CStr) -> Result<[i32; 2]> {
    Ok([memfd(name)?, memfd(name)?])
}

/// Sets a file's permissions.
pub fn fchmod(fd: i32, mode: u32) -> Result<()> {
    call!(libc::SYS_fchmod, fd as isize, mode as usize).map(drop)
}

/// Sets a file's length in bytes.
pub fn ftruncate(fd: i32, len: u64) -> Result<()> {
    call!(libc::SYS_ftruncate, fd as isize, len).map(drop)
}

/// The target of a symbolic link, without a NUL; returns how many bytes of `out` were filled.
pub fn readlink(dir: i32, path: &CStr, out: &mut [u8]) -> Result<usize> {
    call!(libc::SYS_readlinkat, dir as isize, path.as_ptr(), out.as_mut_ptr(), out.len())
}

/// Removes a name.
pub fn unlink(path: &CStr) -> Result<()> {
    call!(libc::SYS_unlink, path.as_ptr()).map(drop)
}

/// Makes a folder.
pub fn mkdir(path: &CStr, mode: u32) -> Result<()> {
    call!(libc::SYS_mkdir, path.as_ptr(), mode).map(drop)
}

/// True if this process may make names in a folder: what its mode and its mount say to the effective user.
pub fn may_write(path: &CStr) -> bool {
    let (wanted, folder) = ((libc::W_OK | libc::X_OK) as isize, AT_FDCWD as isize);
    let effective = libc::AT_EACCESS as isize;
    match call!(libc::SYS_faccessat2, folder, path.as_ptr(), wanted, effective) {
        Ok(_) => true,
        Err(Errno(libc::EACCES | libc::EROFS)) => false,
        // Linux before 5.8, and filters that do not know the call: the real user's rights, mostly the same.
        Err(_) => call!(libc::SYS_faccessat, folder, path.as_ptr(), wanted).is_ok(),
    }
}

/// True if another process holds an OFD write lock on the file at `path` (a lock of the engine).
/// Any error (no such file, no access) is "nobody", but for a full table of descriptors, which says nothing.
pub fn is_locked(path: &CStr) -> bool {
    let fd = match openat(AT_FDCWD, path, libc::O_RDWR | libc::O_CLOEXEC | libc::O_NOFOLLOW, 0) {
        Ok(fd) => fd,
        Err(errno) => return matches!(errno.0, libc::EMFILE | libc::ENFILE),
    };
    let mut lock = ofd_lock(libc::F_WRLCK as i16);
    let asked = call!(libc::SYS_fcntl, fd as isize, libc::F_OFD_GETLK as isize, &mut lock as *mut libc::flock);
    let _ = close(fd);
    asked.is_ok() && lock.l_type != libc::F_UNLCK as i16
}

/// Tries to take the OFD write lock on `fd`; EAGAIN when another has it. It is gone with the descriptor.
pub fn try_lock(fd: i32) -> Result<()> {
    let lock = ofd_lock(libc::F_WRLCK as i16);
    call!(libc::SYS_fcntl, fd as isize, libc::F_OFD_SETLK as isize, &lock as *const libc::flock).map(drop)
}

/// Takes an OFD read lock on the byte at `at` of `fd`, which may be a folder. Others may have one, too. It is gone with
/// the descriptor.
pub fn share_byte(fd: i32, at: i64) -> Result<()> {
    let lock = libc::flock { l_start: at, l_len: 1, ..ofd_lock(libc::F_RDLCK as i16) };
    call!(libc::SYS_fcntl, fd as isize, libc::F_OFD_SETLK as isize, &lock as *const libc::flock).map(drop)
}

/// Gives it back.
pub fn leave_byte(fd: i32, at: i64) -> Result<()> {
    let lock = libc::flock { l_start: at, l_len: 1, ..ofd_lock(libc::F_UNLCK as i16) };
    call!(libc::SYS_fcntl, fd as isize, libc::F_OFD_SETLK as isize, &lock as *const libc::flock).map(drop)
}

/// True if another opening of the file has a lock on this byte alone.
pub fn has_byte_another(fd: i32, at: i64) -> Result<bool> {
    // It is asked for a write lock, which needs no permission as long as none is taken.
    let mut lock = libc::flock { l_start: at, l_len: 1, ..ofd_lock(libc::F_WRLCK as i16) };
    call!(libc::SYS_fcntl, fd as isize, libc::F_OFD_GETLK as isize, &mut lock as *mut libc::flock)?;
    Ok(lock.l_type != libc::F_UNLCK as i16 && (lock.l_start, lock.l_len) == (at, 1))
}

fn ofd_lock(kind: i16) -> libc::flock {
    libc::flock { l_type: kind, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

/// True if the other end of a connection is gone.
pub fn is_hung_up(fd: i32) -> bool {
    let time = Timespec { sec: 0, nsec: 0 };
    let mut poll = libc::pollfd { fd, events: 0, revents: 0 };
    let ready = call!(libc::SYS_ppoll, &mut poll as *mut libc::pollfd, 1usize, &time as *const Timespec, 0usize);
    ready != Ok(0)
}

/// Waits until `fd` is readable (or its peer gone), at most `ms` milliseconds; false on time-out.
/// Interruptions by signals are waited out within the same limit.
pub fn wait_readable(fd: i32, ms: u64) -> bool {
    let until = now_ms() + ms;
    loop {
        let left = until.saturating_sub(now_ms());
        let time = Timespec { sec: (left / 1000) as i64, nsec: (left % 1000 * 1_000_000) as i64 };
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let ready = call!(libc::SYS_ppoll, &mut poll as *mut libc::pollfd, 1usize, &time as *const Timespec, 0usize);
        match ready {
            Ok(n) => return n > 0,
            Err(e) if e.is_interrupt() && left > 0 => continue,
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ahead_ms;

    #[test]
    fn the_offset_of_a_time_namespace_is_read() {
        let text = b"monotonic        -900  500000000\nboottime            7         0\n";
        assert_eq!(ahead_ms(text), Some(-899_500));
        assert_eq!(ahead_ms(b"boottime            7         0\n"), None);
        assert_eq!(ahead_ms(b""), None);
    }
}
