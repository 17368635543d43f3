//! The lock and the socket's path of an engine: one engine serves a MODEL_DIR.
//!
//! Called by the engine at its start. The lock is held as long as its file is open.

use crate::process::first_word::NotStarted;
use ossc_cache::rundir::{self, Paths, RunDirSettings};
use ossc_cache::sys;
use ossc_conf::Settings;
use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

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
pub fn lock(settings: &Settings, id: (u64, u64)) -> Result<(Paths, std::fs::File), NotStarted> {
    let bytes = |path: &Option<PathBuf>| path.as_ref().map(|path| path.as_os_str().as_encoded_bytes().to_vec());
    let (socket, runtime_dir) = (bytes(&settings.uds_path), bytes(&settings.runtime_dir));
    let model_dir = settings.model_dir.as_os_str().as_encoded_bytes();
    let place = RunDirSettings { socket: socket.as_deref(), runtime_dir: runtime_dir.as_deref(), model_dir };
    let failed = |what: String| NotStarted::Reason(format!("failed to acquire uds lock: {what}"));
    let paths = rundir::paths(&place, id.0, id.1).ok_or_else(|| NotStarted::Reason(rundir::NO_FOLDER.into()))?;
    let name = String::from_utf8_lossy(paths.lock.as_bytes()).into_owned();
    let not_ours =
        || failed(format!("{name} is not an engine's lock: remove it, or give CONNECTOR_UDS_PATH another name"));
    let path = paths.lock.as_cstr().ok_or_else(|| failed(format!("{name}: the path is too long")))?;
    let file = ossc_cache::lock::open(path, paths.is_given).map_err(|errno| match errno.0 {
        libc::EEXIST | libc::ELOOP | libc::EISDIR | libc::ENXIO => not_ours(),
        number => failed(format!("{name}: {}", std::io::Error::from_raw_os_error(number))),
    })?;
    let file = std::fs::File::from(file);
    match sys::try_lock(file.as_raw_fd()) {
        Ok(()) => {
            // What an engine before has left in it is of another region and maybe of another OSS_PATH.
            file.set_len(0).map_err(|e| failed(format!("{name}: {e}")))?;
            Ok((paths, file))
        }
        Err(errno) if errno.0 == libc::EAGAIN || errno.0 == libc::EACCES => Err(NotStarted::OtherEngine),
        Err(errno) => Err(failed(format!("{name}: {}", std::io::Error::from_raw_os_error(errno.0)))),
    }
}
