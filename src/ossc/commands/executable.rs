//! Programs that the library cannot be loaded into, by their files: static ones, those of another width, and those that
//! run with another user's rights. Scripts are judged by their interpreter.
//!
//! Called by `run`, which says so, and by `doctor`. It reads a few hundred bytes of the file, and runs nothing.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// elf(5), of 64 bits: where a header says where its segments are, how long one is, and how many there are.
const SEGMENTS_AT: usize = 32;
const SEGMENT_LEN_AT: usize = 54;
const SEGMENTS_AT_ALL: usize = 56;
const HEADER_LEN: usize = 64;
const CLASS_AT: usize = 4;
const CLASS_64: u8 = 2;
/// The segment that names the dynamic linker.
const PT_INTERP: u32 = 3;
/// A usual program has about a dozen.
const SEGMENTS_MAX: u16 = 128;
/// The kernel reads as much of a script's first line.
const LINE_MAX: usize = 256;
/// The kernel follows as many interpreters.
const SCRIPTS_MAX: u32 = 4;

/// The same as [`unloadable`], of a program as a user names it.
pub fn unloadable_by_name(program: &OsStr) -> Option<&'static str> {
    find(program).and_then(|path| unloadable(&path))
}

/// A program's file, as a shell finds it: by its path, or in the folders of PATH.
fn find(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Some(program.into());
    }
    let folders = std::env::var_os("PATH")?;
    let may_run = |path: &PathBuf| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file();
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(may_run)
}

/// Why the dynamic linker loads nothing of LD_PRELOAD into a program; `None` where it does, or the file cannot be read.
pub fn unloadable(program: &Path) -> Option<&'static str> {
    let mut program = program.to_path_buf();
    for _ in 0..SCRIPTS_MAX {
        let file = File::open(&program).ok()?;
        let found = file.metadata().ok()?;
        let (mode, user, group) = (found.mode(), rustix::process::getuid(), rustix::process::getgid());
        let mut head = [0; LINE_MAX];
        let len = file.read_at(&mut head, 0).ok()?;
        if let Some(line) = head[..len].strip_prefix(b"#!") {
            // The rights of a script are not those of its file.
            program = PathBuf::from(OsStr::from_bytes(interpreter(line)?));
            continue;
        }
        let is_others = mode & libc::S_ISUID != 0 && found.uid() != user.as_raw()
            || mode & libc::S_ISGID != 0 && mode & libc::S_IXGRP != 0 && found.gid() != group.as_raw();
        if is_others {
            return Some(
                "is setuid or setgid, and the dynamic linker takes no LD_PRELOAD there: run a copy without that bit",
            );
        }
        return linking(&file, &head[..len]);
    }
    None
}

fn interpreter(line: &[u8]) -> Option<&[u8]> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())
}

fn linking(file: &File, head: &[u8]) -> Option<&'static str> {
    if head.len() < HEADER_LEN || !head.starts_with(b"\x7fELF") {
        return None;
    }
    if head[CLASS_AT] != CLASS_64 {
        return Some("is of 32 bits, and the library of 64: use a build of 64 bits");
    }
    let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let at = head[SEGMENTS_AT..SEGMENTS_AT + 8].try_into().map(u64::from_le_bytes).ok()?;
    let (len, count) = (short(SEGMENT_LEN_AT), short(SEGMENTS_AT_ALL).min(SEGMENTS_MAX));
    for number in 0..count {
        let mut kind = [0; 4];
        file.read_exact_at(&mut kind, at.checked_add(u64::from(number) * u64::from(len))?).ok()?;
        if u32::from_le_bytes(kind) == PT_INTERP {
            return None;
        }
    }
    Some("is static, and nothing of LD_PRELOAD is loaded into it: use a build that is linked dynamically")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn programs_are_told_apart_by_their_files() {
        let folder = std::env::temp_dir().join(format!("ossc-executable-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let dynamic = write("dynamic", &own);
        let mut bytes = own.clone();
        let at = u64::from_le_bytes(own[SEGMENTS_AT..SEGMENTS_AT + 8].try_into().unwrap()) as usize;
        let (len, count) = (own[SEGMENT_LEN_AT] as usize, own[SEGMENTS_AT_ALL] as usize);
        (0..count).map(|n| at + n * len).filter(|at| own[*at] == PT_INTERP as u8).for_each(|at| bytes[at] = 0);
        let fixed = write("static", &bytes);
        bytes[CLASS_AT] = 1;
        let narrow = write("narrow", &bytes);
        let script = write("script", format!("#! {} -x\nexit\n", fixed.display()).as_bytes());
        let plain = write("plain", format!("#!{}\n", dynamic.display()).as_bytes());
        let itself = folder.join("itself");
        std::fs::write(&itself, format!("#!{}\n", itself.display())).unwrap();
        for (path, word) in [(&fixed, "static"), (&narrow, "32 bits"), (&script, "static")] {
            assert!(unloadable(path).is_some_and(|why| why.contains(word)), "{}", path.display());
        }
        let cut = write("cut", &own[..HEADER_LEN]);
        for path in [&dynamic, &plain, &itself, &cut, &folder, &folder.join("absent")] {
            assert_eq!(unloadable(path), None, "{}", path.display());
        }
        // Of this user's own, it is no other user's.
        std::fs::set_permissions(&dynamic, std::fs::Permissions::from_mode(0o4755)).unwrap();
        assert_eq!(unloadable(&dynamic), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_name_is_looked_for_in_the_folders_of_path() {
        assert!(find(OsStr::new("sh")).is_some_and(|path| path.is_absolute()));
        assert_eq!(find(OsStr::new("no-such-program-at-all")), None);
        assert_eq!(find(OsStr::new("./sh")), Some("./sh".into()));
    }
}
