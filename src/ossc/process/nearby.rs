//! Processes that run under the library for this MODEL_DIR and have not touched it yet: `ray start` leaves
//! such behind, and workers that load much later come from them.
//!
//! Called by the attach server before it would end the engine, and only then. It reads what /proc shows of
//! this user's processes and changes nothing.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Process ids, but this process's own and its parent's (which may be the copy of a host that stayed as the
/// engine's reaper).
pub fn processes(model_dir: (u64, u64)) -> Vec<i32> {
    let own = [std::process::id() as i32, std::os::unix::process::parent_id() as i32];
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| !own.contains(pid) && is_nearby(*pid, model_dir)).collect()
}

fn is_nearby(pid: i32, model_dir: (u64, u64)) -> bool {
    // Processes of other users are not ours to know, and a zombie has no environment any more.
    let Ok(environ) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
    let Some(path) = managed_folder(&environ) else { return false };
    let seen_from_it = Path::new("/proc").join(pid.to_string()).join("cwd").join(path);
    std::fs::metadata(seen_from_it).is_ok_and(|folder| (folder.dev(), folder.ino()) == model_dir)
}

/// MODEL_DIR of an environment that makes a program a client.
fn managed_folder(environ: &[u8]) -> Option<PathBuf> {
    let variable = |name: &[u8]| {
        let value = |entry: &[u8]| Some(entry.strip_prefix(name)?.strip_prefix(b"=")?.to_vec());
        environ.split(|byte| *byte == 0).find_map(value)
    };
    let is_role = matches!(variable(b"ENABLE_CONNECTOR")?.as_slice(), b"1" | b"2");
    let library = variable(b"LD_PRELOAD")?;
    let is_preloaded = library.windows(15).any(|part| part == b"libossc_preload");
    let folder = variable(b"MODEL_DIR").filter(|folder| !folder.is_empty())?;
    (is_role && is_preloaded).then(|| PathBuf::from(OsStr::from_bytes(&folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_of_a_client() {
        let whole = b"A=1\0LD_PRELOAD=/x.so:/usr/local/lib/libossc_preload.so\0ENABLE_CONNECTOR=2\0MODEL_DIR=/m\0";
        assert_eq!(managed_folder(whole), Some(PathBuf::from("/m")));
        for (from, to) in [
            ("CONNECTOR=2", "CONNECTOR=0"),
            ("libossc_", "libother_"),
            ("MODEL_DIR=/m", "MODEL_DIR="),
            ("ENABLE_", "DISABLE_"),
        ] {
            let other = String::from_utf8(whole.to_vec()).unwrap().replace(from, to);
            assert_eq!(managed_folder(other.as_bytes()), None, "{to}");
        }
        assert_eq!(managed_folder(b""), None);
    }

    #[test]
    fn a_process_that_has_not_attached_is_found() {
        let folder = std::env::temp_dir().join(format!("ossc-nearby-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let id = std::fs::metadata(&folder).map(|folder| (folder.dev(), folder.ino())).unwrap();
        // The name is enough: there is no such file, and the loader only warns.
        let variables = [("LD_PRELOAD", "libossc_preload.missing"), ("ENABLE_CONNECTOR", "1")];
        let relative = folder.file_name().unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .envs(variables)
            .env("MODEL_DIR", relative)
            .current_dir(folder.parent().unwrap())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // The kernel reports the start of a program a moment before it shows its environment.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
        let mut found = processes(id);
        while !found.contains(&(child.id() as i32)) && std::time::Instant::now() < end {
            found = processes(id);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        std::fs::remove_dir(&folder).unwrap();
        assert!(found.contains(&(child.id() as i32)), "{found:?}");
        assert!(!processes(id).contains(&(child.id() as i32)));
    }
}
