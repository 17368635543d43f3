//! The lock and the socket's path of an engine: one engine serves a MODEL_DIR.
//!
//! Called by the engine at its start and its end, and by `ossc doctor`, which only looks. The lock is held as long as its
//! file is open. Its file goes with the engine, and those of engines that were killed go with the next one of their run
//! folder: whoever holds the lock of a file may remove it, and whoever takes one asks afterwards whether the file still has
//! its name.

use crate::process::first_word::NotStarted;
use ossc_cache::cpath::CPath;
use ossc_cache::rundir::{self, Paths, RunDirSettings};
use ossc_cache::{sys, wire};
use ossc_conf::Settings;
use rustix::fs::{Access, access};
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a lock is asked for whose file has gone, or is looked at, just then.
const TRIES: u32 = 5;
/// How long one who looks at a lock has it at most.
const LOOKED_AT: Duration = Duration::from_millis(2);
/// Most leftovers that one engine removes.
const LEFT_MAX: usize = 256;

/// The lock's file by the shortest name of its folder, for people.
pub fn lock_file(paths: &Paths) -> PathBuf {
    let path = Path::new(OsStr::from_bytes(paths.lock.as_bytes()));
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    folder.zip(path.file_name()).map_or_else(|| path.to_path_buf(), |(folder, name)| folder.join(name))
}

/// Takes the lock.
///
/// # Errors
/// Another engine has it, or it cannot be had.
pub fn lock(settings: &Settings, id: (u64, u64)) -> Result<(Paths, File), NotStarted> {
    let paths = paths(settings, id)?;
    let (name, path) = named(&paths)?;
    for _ in 0..TRIES {
        let file = ossc_cache::lock::open(path, paths.is_given).map_err(|errno| refused(&name, errno.0))?;
        let file = File::from(file);
        match sys::try_lock(file.as_raw_fd()) {
            Ok(()) if has_name(&file, Path::new(OsStr::from_bytes(paths.lock.as_bytes()))) => {
                // What an engine before has left in it is of another region and maybe of another OSS_PATH.
                file.set_len(0).map_err(|e| failed(format!("{name}: {e}")))?;
                return Ok((paths, file));
            }
            // Its holder has ended meanwhile, and its file with it.
            Ok(()) => {}
            Err(errno) if errno.0 == libc::EAGAIN || errno.0 == libc::EACCES => std::thread::sleep(LOOKED_AT),
            Err(errno) => return Err(refused(&name, errno.0)),
        }
    }
    Err(NotStarted::OtherEngine)
}

/// The paths, if an engine could take the lock and listen there, or one does. It makes nothing.
///
/// # Errors
/// The REASON of the start that cannot.
pub fn look(settings: &Settings, id: (u64, u64)) -> Result<Paths, NotStarted> {
    let paths = paths(settings, id)?;
    let (name, path) = named(&paths)?;
    ossc_cache::lock::look(path, paths.is_given).map_err(|errno| refused(&name, errno.0))?;
    let folder = Path::new(&name).parent().unwrap_or(Path::new("/"));
    access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|e| failed(unmade(&name, e.into())))?;
    let socket = String::from_utf8_lossy(paths.socket.as_bytes()).into_owned();
    let lies = std::fs::symlink_metadata(&socket);
    if lies.is_ok_and(|lies| !lies.file_type().is_socket()) {
        return Err(taken(&socket, libc::ENOTSOCK).into());
    }
    if !sys::is_locked(path) && ossc_cache::wire::listener(&paths.socket).is_some() {
        return Err(taken(&socket, libc::EADDRINUSE).into());
    }
    Ok(paths)
}

/// The socket at which programs ask.
///
/// # Errors
/// A text for the REASON.
pub fn listen(socket: &CPath) -> Result<OwnedFd, String> {
    may_accept()?;
    wire::listen(socket).map_err(|e| taken(&String::from_utf8_lossy(socket.as_bytes()), e.0))
}

/// Whether this machine lets a process take connections.
///
/// # Errors
/// A text for the REASON.
pub fn may_accept() -> Result<(), String> {
    wire::may_accept().map_err(|e| {
        let e = std::io::Error::from_raw_os_error(e.0);
        format!("failed to initialize connector: accept4: {e}: a policy of this machine (seccomp) refuses it: allow it")
    })
}

fn paths(settings: &Settings, id: (u64, u64)) -> Result<Paths, NotStarted> {
    let bytes = |path: &Option<PathBuf>| path.as_ref().map(|path| path.as_os_str().as_encoded_bytes().to_vec());
    let (socket, runtime_dir) = (bytes(&settings.uds_path), bytes(&settings.runtime_dir));
    let model_dir = settings.model_dir.as_os_str().as_encoded_bytes();
    let place = RunDirSettings { socket: socket.as_deref(), runtime_dir: runtime_dir.as_deref(), model_dir };
    rundir::paths(&place, id.0, id.1).ok_or_else(|| NotStarted::Reason(rundir::NO_FOLDER.into()))
}

fn named(paths: &Paths) -> Result<(String, &CStr), NotStarted> {
    let name = String::from_utf8_lossy(paths.lock.as_bytes()).into_owned();
    let path = paths.lock.as_cstr().ok_or_else(|| failed(format!("{name}: the path is too long")))?;
    Ok((name, path))
}

fn failed(what: String) -> NotStarted {
    NotStarted::Reason(format!("failed to acquire uds lock: {what}"))
}

fn refused(name: &str, errno: i32) -> NotStarted {
    failed(match errno {
        libc::EEXIST | libc::ELOOP | libc::EISDIR | libc::ENXIO => {
            format!("{name} is not an engine's lock: remove it, or give CONNECTOR_UDS_PATH another name")
        }
        number => unmade(name, std::io::Error::from_raw_os_error(number)),
    })
}

/// A file of the run folder that cannot be made, and what to do.
fn unmade(name: &str, why: std::io::Error) -> String {
    let what = match why.kind() {
        ErrorKind::NotFound => ": make that folder, or give CONNECTOR_UDS_PATH a place in one that is there",
        ErrorKind::PermissionDenied => ": let this user write there, or give CONNECTOR_UDS_PATH another place",
        _ => "",
    };
    format!("{name}: {why}{what}")
}

fn taken(socket: &str, errno: i32) -> String {
    let why = match errno {
        libc::ENOTSOCK => "is no socket: remove it, or give CONNECTOR_UDS_PATH another name".into(),
        libc::EADDRINUSE => "is the socket of another program: give CONNECTOR_UDS_PATH another name".into(),
        number => std::io::Error::from_raw_os_error(number).to_string(),
    };
    format!("failed to acquire uds lock: {socket}: {why}")
}

/// True if the file is the one that lies at `path`.
fn has_name(file: &File, path: &Path) -> bool {
    let id = |found: std::io::Result<std::fs::Metadata>| found.map(|found| (found.dev(), found.ino())).ok();
    id(file.metadata()).is_some_and(|own| id(path.symlink_metadata()) == Some(own))
}

/// The engine ends: its lock's file goes.
pub fn release(paths: &Paths, lock: File) {
    let path = Path::new(OsStr::from_bytes(paths.lock.as_bytes()));
    if has_name(&lock, path) {
        let _ = std::fs::remove_file(path);
    }
}

/// Removes what engines that were killed have left in the run folder: those of other folders, too, whose engines nobody
/// starts again. Nothing at CONNECTOR_UDS_PATH, where other files lie.
pub fn sweep(paths: &Paths) {
    let own = Path::new(OsStr::from_bytes(paths.lock.as_bytes()));
    let Some(folder) = own.parent().filter(|_| !paths.is_given) else { return };
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let locks = entries.flatten().map(|entry| entry.path()).filter(|path| path != own && is_lock(path));
    for lock in locks.take(LEFT_MAX) {
        let name = CPath::from(lock.as_os_str().as_bytes());
        let Some(Ok(file)) = name.as_cstr().map(|name| ossc_cache::lock::open(name, false)) else { continue };
        let file = File::from(file);
        if sys::try_lock(file.as_raw_fd()).is_ok() && has_name(&file, &lock) {
            let _ = wire::clear(&CPath::from(lock.with_extension("sock").as_os_str().as_bytes()));
            let _ = std::fs::remove_file(&lock);
        }
    }
}

/// True for a name that a lock has: see `rundir`.
fn is_lock(path: &Path) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let name = path.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_suffix(".lock"));
    name.and_then(|name| name.split_once('-')).is_some_and(|(dev, ino)| is_number(dev) && is_number(ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dead_engines_left_goes_and_what_lives_stays() {
        let folder = std::env::temp_dir().join(format!("ossc-sweep-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let at = |name: &str| folder.join(name);
        let path = |name: &str| CPath::from(at(name).as_os_str().as_bytes());
        for name in ["1-2.lock", "3-4.lock", "5-6.lock", "mine.lock", "1-2x.lock", "7-8.lock.old"] {
            std::fs::write(at(name), b"").unwrap();
        }
        drop(wire::listen(&path("1-2.sock")).unwrap());
        let listener = wire::listen(&path("3-4.sock")).unwrap();
        let held = File::options().write(true).open(at("3-4.lock")).unwrap();
        sys::try_lock(held.as_raw_fd()).unwrap();
        let paths = Paths { lock: path("5-6.lock"), socket: path("5-6.sock"), is_given: false };
        sweep(&Paths { is_given: true, ..paths.clone() });
        assert!(at("1-2.lock").exists(), "at CONNECTOR_UDS_PATH nothing is removed");
        sweep(&paths);
        let mut left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["1-2x.lock", "3-4.lock", "3-4.sock", "5-6.lock", "7-8.lock.old", "mine.lock"]);
        drop(listener);
        // Another one took the name meanwhile.
        let lock = File::open(at("5-6.lock")).unwrap();
        std::fs::rename(at("mine.lock"), at("5-6.lock")).unwrap();
        release(&paths, lock);
        assert!(at("5-6.lock").exists());
        release(&paths, File::open(at("5-6.lock")).unwrap());
        assert!(!at("5-6.lock").exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
