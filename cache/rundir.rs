//! Where the lock and the socket of an engine lie: a run folder, and in it names made of MODEL_DIR's
//! device and inode, so that every spelling of the same folder meets the same engine.
//!
//! Called by the library (to find the engine) and by the engine (to be found); both walk the same
//! candidates in the same order: the folder in which an engine holds the lock, else the first that can be used. The
//! last ones lie beside MODEL_DIR and in it, which is writable wherever an engine can work. It never uses a folder that
//! belongs to another user, or that this one cannot write to.

use crate::cpath::CPath;
use crate::sys;

/// What decides the place, from the environment.
#[derive(Clone, Copy, Default, Debug)]
pub struct RunDirSettings<'a> {
    /// CONNECTOR_UDS_PATH: the socket's path, instead of the run folder.
    pub socket: Option<&'a [u8]>,
    /// XDG_RUNTIME_DIR.
    pub runtime_dir: Option<&'a [u8]>,
    /// MODEL_DIR.
    pub model_dir: &'a [u8],
}

/// The two paths of one engine.
#[derive(Clone, Default)]
pub struct Paths {
    /// The file whose OFD lock the engine holds.
    pub lock: CPath,
    /// Its Unix socket.
    pub socket: CPath,
    /// True for those of CONNECTOR_UDS_PATH: other files may lie there.
    pub is_given: bool,
}

/// The REASON where `paths` gives none.
pub const NO_FOLDER: &str = "failed to acquire uds lock: this user can write to none of /run/oss-connector, XDG_RUNTIME_DIR, /tmp, /dev/shm, MODEL_DIR and the folder it lies in";

/// Paths for the engine of the folder with this device and inode; `None` when no run folder can be used.
pub fn paths(place: &RunDirSettings<'_>, dev: u64, ino: u64) -> Option<Paths> {
    let mut paths = Paths::default();
    paths.find(place, dev, ino).then_some(paths)
}

impl Paths {
    /// The same, where these lie: a program may start on a small stack. False when no run folder can be used.
    pub fn find(&mut self, place: &RunDirSettings<'_>, dev: u64, ino: u64) -> bool {
        self.is_given = false;
        if let Some(socket) = place.socket.filter(|path| !path.is_empty()) {
            self.is_given = true;
            self.socket.clear();
            self.socket.push(socket);
            self.lock.clear();
            self.lock.push(socket);
            self.lock.push(b".lock");
            return true;
        }
        let uid = sys::geteuid();
        // An engine that runs stays where it is when a better folder appears or its own cannot be written any more.
        for index in 0..FOLDERS {
            if folder(place, uid, index, &mut self.socket) && is_own(&self.socket, uid, false) {
                self.name(dev, ino);
                if self.lock.as_cstr().is_some_and(sys::is_locked) {
                    return true;
                }
            }
        }
        for index in 0..FOLDERS {
            if folder(place, uid, index, &mut self.socket) && usable(&self.socket, uid) {
                self.name(dev, ino);
                return true;
            }
        }
        false
    }

    /// Both names in the folder that `socket` is so far.
    fn name(&mut self, dev: u64, ino: u64) {
        self.socket.push(b"/");
        self.socket.push_number(dev);
        self.socket.push(b"-");
        self.socket.push_number(ino);
        self.lock.clear();
        self.lock.push(self.socket.as_bytes());
        self.lock.push(b".lock");
        self.socket.push(b".sock");
    }
}

/// How many names are tried where everybody may make folders: others may have taken some.
const NAMES_MAX: u64 = 4;
/// How many candidates there are.
const FOLDERS: u64 = 2 + 2 * NAMES_MAX + 2;
/// The last ones, from MODEL_DIR: what is left where all else is read-only, as in a container with one volume. In it
/// comes last, since programs may walk through it. Whatever link leads to MODEL_DIR, the kernel finds the same `..`.
const FROM_MODEL_DIR: [&[u8]; 2] = [b"/../.oss-connector-", b"/.oss-connector-"];

/// Puts a candidate, the best first, to `path`; false where there is none of this number.
fn folder(place: &RunDirSettings<'_>, uid: u32, index: u64, path: &mut CPath) -> bool {
    const LAST: u64 = FOLDERS - FROM_MODEL_DIR.len() as u64;
    path.clear();
    match (index, place.runtime_dir.filter(|dir| dir.starts_with(b"/"))) {
        (0, _) => path.push(b"/run/oss-connector"),
        (1, None) => return false,
        (1, Some(dir)) => {
            path.push(dir);
            path.push(b"/oss-connector");
        }
        (LAST.., _) if place.model_dir.is_empty() => return false,
        (LAST.., _) => {
            path.push(place.model_dir);
            path.push(FROM_MODEL_DIR[(index - LAST) as usize]);
            path.push_number(u64::from(uid));
        }
        _ => {
            let (above, number) = ((index - 2) / NAMES_MAX, (index - 2) % NAMES_MAX);
            path.push(if above == 0 { b"/tmp".as_slice() } else { b"/dev/shm" });
            path.push(b"/oss-connector-");
            path.push_number(u64::from(uid));
            if number > 0 {
                path.push(b".");
                path.push_number(number);
            }
        }
    }
    true
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
        let place = RunDirSettings { socket: Some(b"/some/where/c.sock"), ..Default::default() };
        let paths = paths(&place, 1, 2).unwrap();
        assert_eq!(paths.socket.as_bytes(), b"/some/where/c.sock");
        assert_eq!(paths.lock.as_bytes(), b"/some/where/c.sock.lock");
    }

    #[test]
    fn names_carry_device_and_inode() {
        let paths = paths(&RunDirSettings::default(), 12, 345).unwrap();
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
        let folders = |runtime_dir: &[u8], model_dir: &[u8]| -> Vec<String> {
            let place = RunDirSettings { socket: None, runtime_dir: Some(runtime_dir), model_dir };
            let mut path = CPath::default();
            let mut name = |index| {
                folder(&place, 7, index, &mut path).then(|| String::from_utf8_lossy(path.as_bytes()).into_owned())
            };
            (0..FOLDERS).filter_map(&mut name).collect()
        };
        let names = folders(b"/run/user/7", b"/models/m");
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
        assert_eq!(names[10..], ["/models/m/../.oss-connector-7", "/models/m/.oss-connector-7"]);
        assert_eq!(folders(b"relative", b"").len(), 9);
    }
}
