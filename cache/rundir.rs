//! Where the lock and the socket of an engine lie: a run folder, and in it names made of MODEL_DIR's
//! device and inode, so that every spelling of the same folder meets the same engine.
//!
//! Called by the library (to find the engine) and by the engine (to be found); both walk the same
//! candidates in the same order. It never uses a folder that belongs to another user.

use crate::cpath::CPath;
use crate::sys;

/// What decides the place, from the environment.
#[derive(Clone, Copy, Default, Debug)]
pub struct Place<'a> {
    /// CONNECTOR_UDS_PATH: the socket's path, instead of the run folder.
    pub socket: Option<&'a [u8]>,
    /// XDG_RUNTIME_DIR.
    pub runtime_dir: Option<&'a [u8]>,
}

/// The two paths of one engine.
#[derive(Clone)]
pub struct Paths {
    /// The file whose OFD lock the engine holds.
    pub lock: CPath,
    /// Its Unix socket.
    pub socket: CPath,
}

/// Paths for the engine of the folder with this device and inode; `None` when no run folder can be used.
pub fn paths(place: &Place<'_>, dev: u64, ino: u64) -> Option<Paths> {
    if let Some(socket) = place.socket.filter(|path| !path.is_empty()) {
        return Some(Paths { lock: CPath::from(socket).with(b".lock"), socket: CPath::from(socket) });
    }
    let folder = folder(place)?;
    let stem = folder.with(b"/").with_number(dev).with(b"-").with_number(ino);
    Some(Paths { lock: stem.clone().with(b".lock"), socket: stem.with(b".sock") })
}

fn folder(place: &Place<'_>) -> Option<CPath> {
    let uid = sys::geteuid();
    let system = CPath::from(b"/run/oss-connector");
    let own = CPath::from(b"/tmp/oss-connector-").with_number(u64::from(uid));
    let session =
        place.runtime_dir.filter(|dir| dir.starts_with(b"/")).map(|dir| CPath::from(dir).with(b"/oss-connector"));
    [Some(system), session, Some(own)].into_iter().flatten().find(|path| usable(path, uid))
}

/// True for a folder of this user's that nobody else can write to; it is made if it is missing.
fn usable(path: &CPath, uid: u32) -> bool {
    let Some(name) = path.as_cstr() else {
        return false;
    };
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let fd = match sys::openat(sys::AT_FDCWD, name, flags, 0) {
        Ok(fd) => fd,
        Err(_) => {
            let _ = sys::mkdir(name, 0o700);
            match sys::openat(sys::AT_FDCWD, name, flags, 0) {
                Ok(fd) => fd,
                Err(_) => return false,
            }
        }
    };
    let owned = sys::fstat(fd).is_ok_and(|st| st.st_uid == uid && st.st_mode & 0o022 == 0);
    let _ = sys::close(fd);
    owned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_socket_path_decides() {
        let place = Place { socket: Some(b"/some/where/c.sock"), runtime_dir: None };
        let paths = paths(&place, 1, 2).unwrap();
        assert_eq!(paths.socket.as_bytes(), b"/some/where/c.sock");
        assert_eq!(paths.lock.as_bytes(), b"/some/where/c.sock.lock");
    }

    #[test]
    fn names_carry_device_and_inode() {
        let paths = paths(&Place::default(), 12, 345).unwrap();
        assert!(paths.lock.as_bytes().ends_with(b"/12-345.lock"));
        assert!(paths.socket.as_bytes().ends_with(b"/12-345.sock"));
    }

    #[test]
    fn a_folder_that_others_can_write_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("ossc-rundir-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        let name = CPath::from(path.as_os_str().as_encoded_bytes());
        assert!(!usable(&name, sys::geteuid()));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(usable(&name, sys::geteuid()));
        assert!(!usable(&name, sys::geteuid() + 1));
        std::fs::remove_dir(&path).unwrap();
    }
}
