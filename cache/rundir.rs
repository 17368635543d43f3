//! Where the lock and the socket of an engine lie: a run folder, and in it names made of MODEL_DIR's
//! device and inode, so that every spelling of the same folder meets the same engine.
//!
//! Called by the library (to find the engine) and by the engine (to be found); both walk the same
//! candidates in the same order: the folder in which an engine holds the lock, else the first that can be used. It
//! never uses a folder that belongs to another user, or that this one cannot write to.

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
    /// True for those of CONNECTOR_UDS_PATH: other files may lie there.
    pub is_given: bool,
}

/// What a primary says where `paths` gives none.
pub const NO_FOLDER: &str = "none of /run/oss-connector, XDG_RUNTIME_DIR, /tmp and /dev/shm can be used";

/// Paths for the engine of the folder with this device and inode; `None` when no run folder can be used.
pub fn paths(place: &Place<'_>, dev: u64, ino: u64) -> Option<Paths> {
    if let Some(socket) = place.socket.filter(|path| !path.is_empty()) {
        return Some(Paths { lock: CPath::from(socket).with(b".lock"), socket: CPath::from(socket), is_given: true });
    }
    let uid = sys::geteuid();
    let paths = |folder: &CPath| {
        let stem = folder.clone().with(b"/").with_number(dev).with(b"-").with_number(ino);
        Paths { lock: stem.clone().with(b".lock"), socket: stem.with(b".sock"), is_given: false }
    };
    // An engine that runs stays where it is when a better folder appears or its own cannot be written any more.
    let runs = |at: &Paths| at.lock.as_cstr().is_some_and(sys::is_locked);
    let of_one_that_runs =
        folders(place, uid).filter(|folder| is_own(folder, uid, false)).map(|folder| paths(&folder)).find(runs);
    of_one_that_runs.or_else(|| folders(place, uid).find(|folder| usable(folder, uid)).map(|folder| paths(&folder)))
}

/// How many names are tried where everybody may make folders: others may have taken some.
const NAMES_MAX: u64 = 4;

/// The candidates, the best first.
fn folders(place: &Place<'_>, uid: u32) -> impl Iterator<Item = CPath> {
    let system = CPath::from(b"/run/oss-connector");
    let session =
        place.runtime_dir.filter(|dir| dir.starts_with(b"/")).map(|dir| CPath::from(dir).with(b"/oss-connector"));
    let open_to_all = [b"/tmp".as_slice(), b"/dev/shm"].into_iter().flat_map(move |above| {
        (0..NAMES_MAX).map(move |number| {
            let name = CPath::from(above).with(b"/oss-connector-").with_number(u64::from(uid));
            if number == 0 { name } else { name.with(b".").with_number(number) }
        })
    });
    [Some(system), session].into_iter().flatten().chain(open_to_all)
}

const FOLDER: i32 = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;

/// True for a folder of this user's that nobody else can write to, and this one can; it is made if it is missing.
fn usable(path: &CPath, uid: u32) -> bool {
    let Some(name) = path.as_cstr() else { return false };
    if sys::openat(sys::AT_FDCWD, name, FOLDER, 0).is_ok_and(|fd| sys::close(fd).is_ok()) {
        return is_own(path, uid, true);
    }
    sys::mkdir(name, 0o700).is_ok() && is_own(path, uid, true)
}

/// True for a folder of this user's that nobody else can write to.
fn is_own(path: &CPath, uid: u32, to_write: bool) -> bool {
    let Some(name) = path.as_cstr() else { return false };
    let Ok(fd) = sys::openat(sys::AT_FDCWD, name, FOLDER, 0) else { return false };
    let owned = sys::fstat(fd).is_ok_and(|st| st.st_uid == uid && st.st_mode & 0o022 == 0);
    let _ = sys::close(fd);
    owned && (!to_write || sys::may_write(name))
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
        if sys::geteuid() != 0 {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o500)).unwrap();
            assert!(!usable(&name, sys::geteuid()), "nothing can be made in it");
        }
        std::fs::remove_dir(&path).unwrap();
    }

    #[test]
    fn a_name_that_others_have_taken_is_passed_over() {
        let names: Vec<_> = folders(&Place { socket: None, runtime_dir: Some(b"/run/user/7") }, 7).collect();
        let names: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name.as_bytes())).collect();
        assert_eq!(names[..3], ["/run/oss-connector", "/run/user/7/oss-connector", "/tmp/oss-connector-7"]);
        assert_eq!(
            names[3..7],
            ["1", "2", "3"]
                .map(|n| format!("/tmp/oss-connector-7.{n}"))
                .iter()
                .cloned()
                .chain(["/dev/shm/oss-connector-7".to_string()])
                .collect::<Vec<_>>()
        );
        assert_eq!(folders(&Place { socket: None, runtime_dir: Some(b"relative") }, 7).count(), 9);
    }
}
