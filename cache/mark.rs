//! The mark by which a file says that an engine has made it, and for what.
//!
//! Called by the engine, which marks a file before the file has its name, and by the client, which asks an empty
//! file that it does not know. The mark is an extended attribute. Where a file system has none, the nanoseconds of
//! the file's mtime stand in: a checksum of inode, size and seconds, which says what the file is and no more.
//! A mark names the file's own inode and time of birth, so that a copy that carries it (`cp -a`) is told from the
//! file it was made for. Nothing here changes a name or a byte of a file.

use crate::sys::{self, FileId, Result};
use core::ffi::CStr;

/// Name of the extended attribute.
pub const ATTRIBUTE: &CStr = c"user.ossc.made";
/// Longest mark in bytes: a key of 1,023 bytes, an ETag, and the numbers. The attributes of an ext4 file fit 4 KiB.
pub const TEXT_MAX: usize = 1536;
/// First word of a mark; another version of the format has another one.
const FORMAT: &str = "2";
const FIELDS: usize = 10;

/// What a file stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MarkKind {
    /// An empty file whose bytes the engine holds in memory.
    Placeholder,
    /// An empty file in whose place a small object's real file will come.
    Coming,
    /// A real file with all bytes of its object.
    Finished,
    /// A folder.
    Folder,
}

impl MarkKind {
    const ALL: [MarkKind; 4] = [MarkKind::Placeholder, MarkKind::Coming, MarkKind::Finished, MarkKind::Folder];

    fn letter(self) -> &'static str {
        match self {
            MarkKind::Placeholder => "placeholder",
            MarkKind::Coming => "coming",
            MarkKind::Finished => "finished",
            MarkKind::Folder => "folder",
        }
    }

    /// True if an empty file of this kind must never be read as empty.
    pub fn stands_in(self) -> bool {
        matches!(self, MarkKind::Placeholder | MarkKind::Coming)
    }
}

/// What a mark says. Fields that come from a file of somebody else's making may be anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark<'a> {
    /// What the file stands for.
    pub kind: MarkKind,
    /// Inode that the file had when it was marked.
    pub ino: u64,
    /// Time of birth that it had, in nanoseconds since 1970, or its device where there is none: `Born`.
    pub born: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its mtime: seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Key of the engine that made it: what it serves.
    pub engine: u64,
    /// Size of the object in bytes.
    pub object_size: u64,
    /// ETag of the object, with its quotes.
    pub etag: &'a str,
    /// Path relative to MODEL_DIR, as the key of the object has it.
    pub path: &'a str,
}

impl<'a> Mark<'a> {
    /// Reads a mark; `None` for what is not one of this format.
    pub fn parse(text: &'a [u8]) -> Option<Mark<'a>> {
        let text = core::str::from_utf8(text).ok()?;
        let mut fields = text.splitn(FIELDS + 1, '\n');
        let mut next = || fields.next();
        if next()? != FORMAT {
            return None;
        }
        let kind = next()?;
        let kind = MarkKind::ALL.into_iter().find(|known| known.letter() == kind)?;
        let (ino, born, size) = (next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?);
        let (secs, nanos) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let (engine, object_size) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let (etag, path) = (next()?, next()?);
        Some(Mark { kind, ino, born, size, mtime: (secs, nanos), engine, object_size, etag, path })
    }

    /// True if the mark was made for this very file, and not for one that it was copied from.
    pub fn is_of(&self, id: &FileId, born: u64) -> bool {
        (self.ino, self.born) == (id.ino, born)
    }

    /// True if the file is as its engine has left it.
    pub fn is_unchanged(&self, id: &FileId) -> bool {
        (self.size, self.mtime) == (id.size, (id.mtime_secs, id.mtime_nanos))
    }
}

impl core::fmt::Display for Mark<'_> {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Mark { kind, ino, born, size, mtime: (secs, nanos), engine, object_size, etag, path } = self;
        let kind = kind.letter();
        write!(out, "{FORMAT}\n{kind}\n{ino}\n{born}\n{size}\n{secs}\n{nanos}\n{engine}\n{object_size}\n{etag}\n{path}")
    }
}

/// Room for the text of one mark.
pub struct Text {
    bytes: [u8; TEXT_MAX],
    len: usize,
}

impl Text {
    /// The attribute of an open file. An error where the file has none, or its file system has none.
    pub fn of_descriptor(fd: i32) -> Result<Text> {
        Text::filled(|bytes| sys::fgetxattr(fd, ATTRIBUTE, bytes))
    }

    /// The attribute of the file at a path, which is followed through symbolic links.
    pub fn of_path(path: &CStr) -> Result<Text> {
        Text::filled(|bytes| sys::getxattr(path, ATTRIBUTE, bytes))
    }

    fn filled(get: impl FnOnce(&mut [u8]) -> Result<usize>) -> Result<Text> {
        let mut text = Text { bytes: [0; TEXT_MAX], len: 0 };
        text.len = get(&mut text.bytes)?.min(TEXT_MAX);
        Ok(text)
    }

    /// What it says.
    pub fn mark(&self) -> Option<Mark<'_>> {
        Mark::parse(&self.bytes[..self.len])
    }
}

/// Nanoseconds that say what a file stands for where it can have no attribute: a multiple of 100, the finest time
/// of file systems without attributes (NTFS, exFAT: 100 ns and 10 ms), never 0.
pub fn nanos(kind: MarkKind, ino: u64, size: u64, mtime_secs: i64) -> u32 {
    const STEPS: u64 = 9_999_999;
    let words = [kind as u64 + 1, ino, size, mtime_secs as u64];
    let mixed = words.into_iter().fold(0x6f73_7363_6d61_726b, |sum: u64, word| {
        let sum = (sum ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        sum ^ sum >> 29
    });
    (mixed % STEPS + 1) as u32 * 100
}

/// What the nanoseconds of a file's mtime say; `None` when they are no mark. One file in three million of another
/// making says something by chance, so what follows from it has to be looked at again (`is_of_kernel`).
pub fn by_time(id: &FileId) -> Option<MarkKind> {
    let says = |kind: &MarkKind| id.mtime_nanos == nanos(*kind, id.ino, id.size, id.mtime_secs);
    if !id.is_file() || id.mtime_nanos == 0 || !id.mtime_nanos.is_multiple_of(100) {
        return None;
    }
    [MarkKind::Placeholder, MarkKind::Coming, MarkKind::Finished].into_iter().find(says)
}

/// False for file systems whose inode numbers a server or another process gives out: a descriptor without access
/// (O_PATH) keeps no number from being used again there. The numbers are those of linux/magic.h and fs/*/.
pub fn keeps_pinned_numbers(fs_type: i64) -> bool {
    const ELSEWHERE: [i64; 7] = [
        0x6573_5546, // FUSE
        0x6969,      // NFS
        0x0102_1997, // 9p
        0xff53_4d42, // CIFS
        0xfe53_4d42, // SMB2
        0x00c3_6400, // Ceph
        0x0bd0_0bd0, // Lustre
    ];
    !ELSEWHERE.contains(&fs_type)
}

/// True for files that the kernel makes up (procfs, sysfs, ...): their times are those of the moment.
pub fn is_of_kernel(fs_type: i64) -> bool {
    const MADE_UP: [i64; 12] = [
        0x9fa0,      // procfs
        0x6265_6572, // sysfs
        0x27_e0eb,   // cgroup
        0x6367_7270, // cgroup2
        0x6462_6720, // debugfs
        0x7472_6163, // tracefs
        0x7363_6673, // securityfs
        0xcafe_4a11, // bpf
        0x1cd1,      // devpts
        0xde5e_81e4, // efivarfs
        0x1980_0202, // mqueue
        0x6e73_6673, // nsfs
    ];
    MADE_UP.contains(&fs_type)
}

/// What tells a file from every later one with its inode number, for as long as it lies on its file system; `None` where
/// nothing does. Never 0. Handles of files whose numbers another process gives out change while the file stays.
pub fn incarnation(fd: i32) -> Option<u64> {
    let has_handles = sys::fs_type(fd).is_ok_and(keeps_pinned_numbers);
    let handle = || sys::handle(fd).ok().filter(|_| has_handles);
    let birth = || sys::birth(fd).ok().flatten().map(|(secs, nanos)| (secs as u64) << 30 | u64::from(nanos));
    handle().or_else(birth).map(|number| number.max(1))
}

/// What tells a file from a later one with the same inode number: its time of birth in nanoseconds since 1970, or
/// its device where the file system keeps no such time.
pub fn born(fd: i32) -> Result<u64> {
    match sys::birth(fd) {
        Ok(Some((secs, nanos))) => Ok((secs as u64).wrapping_mul(1_000_000_000).wrapping_add(u64::from(nanos))),
        _ => sys::file_id(fd).map(|id| id.dev),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ino: u64, size: u64, mtime: (i64, u32)) -> FileId {
        FileId { dev: 9, ino, size, mode: libc::S_IFREG | 0o644, mtime_secs: mtime.0, mtime_nanos: mtime.1 }
    }

    fn mark() -> Mark<'static> {
        Mark {
            kind: MarkKind::Placeholder,
            ino: 7,
            born: 8,
            size: 0,
            mtime: (-5, 300),
            engine: u64::MAX,
            object_size: 1 << 40,
            etag: "\"A B\"",
            path: "a b/\n c",
        }
    }

    #[test]
    fn a_mark_says_what_was_written() {
        let text = mark().to_string();
        assert_eq!(Mark::parse(text.as_bytes()), Some(mark()));
        for cut in 0..text.len() - 8 {
            assert_ne!(Mark::parse(&text.as_bytes()[..cut]), Some(mark()));
        }
        assert_eq!(Mark::parse(b"0 1700000000"), None, "the mark of 0.1.0");
        assert_eq!(Mark::parse(b"\xff\xfe"), None);
        let longest = Mark { path: &"x".repeat(1023), etag: &"e".repeat(crate::region::ETAG_MAX), ..mark() };
        let numbers = Mark { ino: u64::MAX, born: u64::MAX, size: u64::MAX, mtime: (i64::MIN, u32::MAX), ..longest };
        assert!(Mark { object_size: u64::MAX, ..numbers }.to_string().len() <= TEXT_MAX);
    }

    #[test]
    fn copies_and_edits_are_told_from_the_file_itself() {
        assert!(mark().is_of(&id(7, 0, (-5, 300)), 8) && mark().is_unchanged(&id(7, 0, (-5, 300))));
        assert!(!mark().is_of(&id(6, 0, (-5, 300)), 8), "a copy has another inode");
        assert!(!mark().is_of(&id(7, 0, (-5, 300)), 9), "a later file with the same number was born later");
        assert!(!mark().is_unchanged(&id(7, 0, (-5, 301))) && !mark().is_unchanged(&id(7, 1, (-5, 300))));
    }

    #[test]
    fn nanoseconds_stand_in_for_an_attribute() {
        let mut by_chance = 0;
        for ino in 1..200_000u64 {
            let nanos = nanos(MarkKind::Placeholder, ino, 0, 1_700_000_000);
            assert!(nanos > 0 && nanos < 1_000_000_000 && nanos.is_multiple_of(100));
            assert_eq!(by_time(&id(ino, 0, (1_700_000_000, nanos))), Some(MarkKind::Placeholder));
            by_chance += u32::from(by_time(&id(ino + 1, 0, (1_700_000_000, nanos))).is_some());
        }
        assert!(by_chance <= 2, "{by_chance} copies of 200,000 were taken for the file itself");
        assert_eq!(by_time(&id(1, 0, (1_700_000_000, 0))), None);
    }

    #[test]
    fn the_attribute_of_a_real_file_is_read_back() {
        let path = std::env::temp_dir().join(format!("ossc-mark-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        let fd = sys::openat(sys::AT_FDCWD, &name, libc::O_RDWR, 0).unwrap();
        assert!(Text::of_descriptor(fd).is_err());
        let (id, born) = (sys::file_id(fd).unwrap(), born(fd).unwrap());
        let made = Mark { ino: id.ino, born, mtime: (id.mtime_secs, id.mtime_nanos), ..mark() };
        if sys::fsetxattr(fd, ATTRIBUTE, made.to_string().as_bytes()).is_ok() {
            let text = Text::of_path(&name).unwrap();
            assert_eq!(text.mark(), Some(made));
            assert!(made.is_of(&id, born) && made.is_unchanged(&id));
        }
        let _ = sys::close(fd);
        std::fs::remove_file(&path).unwrap();
    }
}
