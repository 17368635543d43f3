//! Folders that MODEL_DIR cannot be: the system's own, and those whose files the kernel makes up.
//!
//! And what the file system of a MODEL_DIR keeps of its files.
//!
//! Called by the engine at its start and by `ossc doctor`. Nothing of what it makes to find out stays.

use crate::folder_files::Root;
use crate::mirror::made;
use crate::process::first_word::NotStarted;
use rustix::fs::statfs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// By whatever name they are reached: they are compared by device and inode.
const SYSTEMS: [&str; 12] =
    ["/", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr"];

/// Why a folder, which is there, cannot be MODEL_DIR; `None` if it can.
pub fn unfit(folder: &Path) -> Option<String> {
    let id = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let own = id(folder)?;
    let system = SYSTEMS.iter().find(|path| id(Path::new(path)) == Some(own));
    let is_made_up = || statfs(folder).is_ok_and(|fs| ossc_cache::mark::is_of_kernel(fs.f_type));
    let why = match system {
        Some(path) => format!("is {path}, a folder of the system"),
        None if is_made_up() => "lies on a file system whose files the kernel makes up".into(),
        None => return None,
    };
    Some(format!("MODEL_DIR {} {why}: give the model a folder of its own", folder.display()))
}

/// What the file system of MODEL_DIR keeps; the REASON if placeholders cannot be known there, or here.
pub fn probed(root: &Root, model_dir: &Path) -> Result<Option<made::FsFeatures>, NotStarted> {
    if !Path::new("/proc/self/fd").exists() {
        return Err(NotStarted::Reason(
            "failed to initialize connector: /proc is not there: mount it, since files are reopened through it".into(),
        ));
    }
    let folder = root.folder("").map_err(|e| e.to_string());
    folder
        .and_then(made::probe)
        .map_err(|why| format!("failed to download metadata: MODEL_DIR {}: {why}", model_dir.display()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_system_are_known_by_any_name() {
        let links = std::env::temp_dir().join(format!("ossc-folders-{}", std::process::id()));
        std::fs::create_dir(&links).unwrap();
        let link = links.join("link");
        std::os::unix::fs::symlink("/dev/../dev", &link).unwrap();
        for folder in ["/", "/dev", "/proc", "/sys", "/proc/self", "/dev/pts", "/etc/."] {
            if Path::new(folder).exists() {
                let why = unfit(Path::new(folder)).unwrap_or_else(|| panic!("{folder} is fit"));
                assert!(why.starts_with(&format!("MODEL_DIR {folder} ")), "{why}");
            }
        }
        assert!(unfit(&link).unwrap().contains(" is /dev, "));
        for folder in [links.as_path(), Path::new("/dev/shm"), Path::new("/no/such/folder")] {
            assert_eq!(unfit(folder), None);
        }
        std::fs::remove_dir_all(&links).unwrap();
    }
}
