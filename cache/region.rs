//! The shared region: two memory files that the engine makes and every client maps. The *catalog* says what there is
//! and the state of every part; clients have it read-only. On the *board* programs write: what they demand, what they
//! have pinned and been given, what they tell. After a client has attached, everything it needs on its data path is
//! here: no message is exchanged.
//!
//! Called by the engine, which alone appends records and changes states, and by clients, which look,
//! demand and count. Whatever a program writes on the board, the engine finds bits, counts and numbers that it bounds,
//! and other programs get right bytes, an error or a wait. It holds no pointers, so it may be mapped anywhere, and it never
//! shrinks. Records and parts of versions that nobody uses are used again (`life` says how a reader tells); which ones,
//! `catalog` decides.
//!
//! Layout (offsets in `Layout`): of the catalog header | objects | index | names | parts | sets of blocks; of the board
//! doorbell and head of the events | traces of objects | traces of parts | traces of sets | wanted blocks of parts | demand
//! bits | demand summary | events | bits of wanted small objects | their summary. The files are sparse: only what is used
//! costs memory. A process maps one behind the other.

use crate::block::{self, Blocks, Mask, SETS, SetState, SetTraces, SharedMask, WHOLE};
use crate::demand::Demand;
use crate::doorbell::Doorbell;
use crate::event::Events;
pub use crate::event::Seen;
use crate::index::Index;
use crate::life::{GONE, Life};
use crate::part::{Part, PartState, PartTraces};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::sys::{self, Errno};
use crate::verdict::{Handed, Judgement, Verdict};
use crate::waits::Waits;
pub use text::Text;

// Below this module, since they write and read what is private to it.
#[path = "record.rs"]
mod record;
#[path = "text.rs"]
mod text;

/// First word of every region.
pub const MAGIC: u64 = u64::from_le_bytes(*b"osscregn");
/// Version of this layout and of the attach messages; both sides must have the same. It grows with every field that is
/// added, moved or gets another meaning, also in a word that was unused.
pub const LAYOUT_VERSION: u32 = 9;

/// Most objects and folders of one MODEL_DIR.
pub const OBJECTS_MAX: u32 = 1 << 17;
/// Most parts: 8 TiB in parts of 8 MiB.
pub const PARTS_MAX: u32 = 1 << 20;
/// Two entries for each record at most use a quarter of it.
const INDEX_LEN: usize = 1 << 20;
const NAMES_BYTES: usize = 32 << 20;
/// Names begin at words of this many bytes.
pub const NAME_WORD: usize = 4;
/// Words of names.
pub const NAME_WORDS: u32 = (NAMES_BYTES / NAME_WORD) as u32;
/// Longest name in bytes: keys of OSS have at most 1023.
pub const NAME_MAX: usize = 1024;
const DEMAND_WORDS: usize = PARTS_MAX as usize / 64;
const SUMMARY_WORDS: usize = DEMAND_WORDS / 64;
const WANTED_WORDS: usize = OBJECTS_MAX as usize / 64;
const WANTED_SUMMARY_WORDS: usize = WANTED_WORDS / 64;
/// Events that fit before the engine has read them; later ones are counted as lost.
pub const EVENTS_LEN: usize = 4096;

/// Where each array of the region starts, in bytes.
struct Layout;
impl Layout {
    const OBJECTS: usize = 8192;
    const INDEX: usize = Self::OBJECTS + OBJECTS_MAX as usize * size_of::<Object>();
    const NAMES: usize = Self::INDEX + INDEX_LEN * 4;
    const PARTS: usize = Self::NAMES + NAMES_BYTES;
    const SETS: usize = Self::PARTS + PARTS_MAX as usize * size_of::<PartState>();
    const CATALOG_END: usize = Self::SETS + SETS as usize * size_of::<SetState>();
    const OBJECT_TRACES: usize = CATALOG_BYTES + 4096;
    const PART_TRACES: usize = Self::OBJECT_TRACES + OBJECTS_MAX as usize * size_of::<ObjectTraces>();
    const SET_TRACES: usize = Self::PART_TRACES + PARTS_MAX as usize * size_of::<PartTraces>();
    const BLOCKS: usize = (Self::SET_TRACES + SETS as usize * size_of::<SetTraces>() + 7) & !7;
    const DEMAND: usize = Self::BLOCKS + PARTS_MAX as usize * size_of::<SharedMask>();
    const SUMMARY: usize = Self::DEMAND + DEMAND_WORDS * 8;
    const EVENTS: usize = Self::SUMMARY + SUMMARY_WORDS * 8;
    const WANTED: usize = Self::EVENTS + EVENTS_LEN * 8;
    const WANTED_SUMMARY: usize = Self::WANTED + WANTED_WORDS * 8;
    const END: usize = Self::WANTED_SUMMARY + WANTED_SUMMARY_WORDS * 8;
}

/// Length of the catalog's file in bytes, a multiple of the page size.
const CATALOG_BYTES: usize = (Layout::CATALOG_END + 4095) & !4095;
/// Length of both files together in bytes: of their map.
pub const REGION_BYTES: usize = (Layout::END + 4095) & !4095;
/// Descriptors of catalog and board.
pub type RegionFiles = [i32; 2];

/// Longest path kept in the header.
pub const PATH_MAX: usize = 1024;

/// The catalog's first page: identity, liveness, counters.
#[repr(C)]
pub struct Header {
    magic: AtomicU64,
    version: AtomicU32,
    /// Process id of the engine that owns the region now.
    pub engine_pid: AtomicU32,
    /// Device of the memory files.
    pub memory_dev: AtomicU64,
    /// Device and inode of MODEL_DIR.
    pub model_dev: AtomicU64,
    /// See `model_dev`.
    pub model_ino: AtomicU64,
    objects_len: AtomicU32,
    parts_len: AtomicU32,
    names_len: AtomicU32,
    /// Folders that are known and not listed yet.
    pub folders_unlisted: AtomicU32,
    /// How many listings were made real: a name that was missing before one may be there after it.
    pub listings: AtomicU32,
    /// Body bytes received from the origin.
    pub origin_bytes: AtomicU64,
    /// Finished requests to the origin.
    pub origin_requests: AtomicU64,
    /// Requests that failed and were tried again.
    pub origin_retries: AtomicU64,
    /// Sum of the sizes of all large objects.
    pub large_bytes: AtomicU64,
    /// Bytes of parts that are ready.
    pub ready_bytes: AtomicU64,
    /// Most bytes that parts may hold together; 0 until the engine knows.
    pub budget_bytes: AtomicU64,
    /// Counts finished parts: the time by which readers and the engine tell early uses from late ones.
    pub clock: AtomicU32,
    /// See `doorbell`.
    sleeps: AtomicU32,
    /// Random number that tells this region from every other.
    pub birth: AtomicU64,
    /// `place_key` of OSS_PATH: a program that names another one is not this engine's client.
    pub oss_path_key: AtomicU64,
    /// `place_key` of the endpoint, see `oss_path_key`.
    pub endpoint_key: AtomicU64,
    /// A listing that is older than this many milliseconds is renewed before a program's first use of its folder.
    pub list_again_ms: AtomicU64,
    /// 1: every read waits for the verdict on the whole object (`readsWait: verdict`).
    pub reads_wait: AtomicU32,
    /// What an open of a large object gives (`openMode`): one of `open_mode`.
    pub open_mode: AtomicU32,
    /// 1: lines of the log are JSON objects (`logFormat: json`).
    pub log_json: AtomicU32,
    unused: AtomicU32,
    /// Wall-clock seconds when the engine was started.
    pub started_secs: AtomicU64,
    model_dir_len: AtomicU32,
    log_path_len: AtomicU32,
    model_dir: [u8; PATH_MAX],
    log_path: [u8; PATH_MAX],
}

/// The board's first page.
#[repr(C)]
pub struct Board {
    /// See `doorbell`.
    rings: AtomicU32,
    unused: AtomicU32,
    events_head: AtomicU64,
    /// Events that found the queue full.
    pub events_lost: AtomicU64,
    /// How long readers have waited.
    pub waits: Waits,
}

/// What programs say of an object.
#[repr(C)]
pub struct ObjectTraces {
    /// Opens, maps and streams of programs: it changes with every use, however short. Of a folder: opens of what lies in
    /// it.
    pub uses: AtomicU32,
    /// How many parts were handed out before the verdict.
    pub handed: Handed,
}

/// What a record of the catalog stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum RecordKind {
    /// A placeholder of 0 bytes whose bytes live in a memory file.
    Large = 1,
    /// An object that becomes a real file; an empty file stands in until then.
    Small = 2,
    /// A folder of MODEL_DIR.
    Folder = 3,
}

/// Values of the header's `open_mode`.
pub mod open_mode {
    /// As `WHOLE` in processes that are seen to read past the C library, else as `PARTS`.
    pub const AUTO: u32 = 0;
    /// An open waits for all of the object and gives its memory.
    pub const WHOLE: u32 = 1;
    /// An open gives the placeholder.
    pub const PARTS: u32 = 2;
}

/// What becomes of a folder's small objects; 0 when all are there, or nobody has to wait for them.
pub mod unfetched {
    /// They are fetched only when a program uses the folder.
    pub const WAITS: u32 = 1;
    /// They are on their way: who is about to read the names in it waits a while.
    pub const COMES: u32 = 2;
}

/// State of a record. Small: Coming -> Placed. Large: Loading -> Verified. Folder: Unlisted -> Listed.
/// Any may become Failed, and Failed may be tried again; Gone is final.
pub mod state {
    /// A small object on its way into a real file.
    pub const COMING: u32 = 1;
    /// The real file is in place; see `settled` for the inode of the stand-in.
    pub const PLACED: u32 = 2;
    /// A large object with parts missing or its verdict open.
    pub const LOADING: u32 = 3;
    /// All parts are ready and the verdict on the whole object is given (also where there was nothing to compare).
    pub const VERIFIED: u32 = 4;
    /// It cannot be had; the record's errno says what readers get.
    pub const FAILED: u32 = 5;
    /// The record is void: its inode number may be another file's, and it may be used again.
    pub const GONE: u32 = crate::life::GONE;
    /// A folder whose content is not known yet.
    pub const UNLISTED: u32 = 7;
    /// A folder whose objects are all in the catalog and in place.
    pub const LISTED: u32 = 8;
}

/// Longest ETag with its quotes.
pub const ETAG_MAX: usize = 76;

/// One record of the catalog. What `life` says holds for all of it: read, then ask whether its use lasts. Everything is
/// atomic, since a reader may look while the engine writes the record for another version.
#[repr(C)]
pub struct Object {
    life: Life,
    /// What readers get when the state is FAILED.
    pub errno: AtomicU32,
    kind: AtomicU32,
    part_bytes: AtomicU32,
    folder: AtomicU32,
    size: AtomicU64,
    dev: AtomicU64,
    ino: AtomicU64,
    /// Inode of the memory file (its device is in the header); 0 when it has none yet.
    pub memory_ino: AtomicU64,
    mtime_secs: AtomicU64,
    /// Folder: when its newest listing was asked for, in milliseconds of the monotonic clock; 0 before the first.
    pub listed_ms: AtomicU64,
    /// Small object: device of the real file that was put in place; 0 before that.
    pub file_dev: AtomicU64,
    /// Small object: inode of that file; 0 before it is in place.
    pub file_ino: AtomicU64,
    /// What tells the placeholder from a later file with its inode number (`mark::incarnation`); 0 where nothing does:
    /// then the engine holds a descriptor that keeps the number.
    pub born: AtomicU64,
    first_part: AtomicU32,
    parts: AtomicU32,
    /// How many are ready.
    pub ready_parts: AtomicU32,
    /// The verdict on the whole object; near the fields that every read looks at.
    pub verdict: Verdict,
    name_at: AtomicU32,
    name_len: AtomicU32,
    etag_len: AtomicU32,
    etag: [AtomicU32; ETAG_MAX / 4],
    /// Not 0: what readers of missing parts get, since there is no memory for them. Cleared when there is.
    pub starved: AtomicU32,
    /// 1 when the newest listing of its folder names another version of the object, or none.
    pub superseded: AtomicU32,
    /// Folder: grows by two with every listing that shows another content than the one before; odd while such a
    /// listing is being made real, see `Object::is_changing`.
    pub changes: AtomicU32,
    /// Small object: 1 when its stand-in is gone, whose inode number may be another file's by now.
    pub settled: AtomicU32,
    /// Folder: see `unfetched`.
    pub unfetched: AtomicU32,
    unused: [AtomicU32; 9],
}

const _: () = assert!(size_of::<Object>() == 256 && size_of::<Header>() <= Layout::OBJECTS);
const _: () = assert!(size_of::<PartState>() == 24 && size_of::<PartTraces>() == 16 && size_of::<Board>() <= 4096);

/// What the engine gives to append a record.
#[derive(Clone, Debug)]
pub struct NewObject<'a> {
    /// What it stands for.
    pub kind: RecordKind,
    /// Its state at publication.
    pub state: u32,
    /// Key relative to OSS_PATH, or the folder's path, without a leading slash.
    pub name: &'a str,
    /// ETag as listed, with quotes.
    pub etag: &'a str,
    /// Size in bytes.
    pub size: u64,
    /// Bytes of each part but the last; 0 when it has no parts.
    pub part_bytes: u32,
    /// Last-Modified in seconds since 1970.
    pub mtime_secs: i64,
    /// Device and inode of the placeholder or folder.
    pub dev: u64,
    /// See `dev`.
    pub ino: u64,
    /// Number of the folder's record.
    pub folder: u32,
}

/// Where a record and what belongs to it lie: numbers that nothing living has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordSpace {
    /// Number of the record.
    pub slot: u32,
    /// First of its parts.
    pub first_part: u32,
    /// How many.
    pub parts: u32,
    /// First word of its name.
    pub name_at: u32,
}

/// Why the catalog could not take a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// More than `OBJECTS_MAX` records.
    Objects,
    /// More than `PARTS_MAX` parts.
    Parts,
    /// The names do not fit, or this one is longer than `NAME_MAX`.
    Names,
    /// The ETag is longer than `ETAG_MAX`.
    Etag,
}

/// How a file was recognised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identity {
    /// The placeholder, or the empty stand-in of a small object.
    Placeholder,
    /// The memory file behind a FILE or a map.
    Memory,
}

/// A mapped region. Copies are the same region; it is never unmapped.
#[derive(Clone, Copy)]
pub struct Region {
    base: *const u8,
}

// SAFETY: all shared state behind `base` is atomic, or written before the region is shared.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Maps the region's files for good, the catalog read-only. ENOTSUP when they are of another layout.
    pub fn map(files: RegionFiles) -> sys::Result<Region> {
        Region::map_as(files, libc::PROT_READ)
    }

    /// The same for the engine, which writes to the catalog.
    pub fn map_own(files: RegionFiles) -> sys::Result<Region> {
        Region::map_as(files, libc::PROT_READ | libc::PROT_WRITE)
    }

    fn map_as(files @ [catalog, board]: RegionFiles, prot: i32) -> sys::Result<Region> {
        let is_whole = |fd: i32, bytes: usize| sys::file_id(fd).map(|id| id.size >= bytes as u64);
        if !is_whole(catalog, CATALOG_BYTES)? || !is_whole(board, REGION_BYTES - CATALOG_BYTES)? {
            return Err(Errno(libc::ENOTSUP));
        }
        let base = Region::map_both(files, prot)?;
        let region = Region { base: base as *const u8 };
        let header = region.header();
        match (header.magic.load(Ordering::Acquire), header.version.load(Ordering::Acquire)) {
            (MAGIC, LAYOUT_VERSION) => Ok(region),
            // SAFETY: the mapping was made above and nothing refers to it.
            _ => unsafe { sys::munmap(base, REGION_BYTES) }.and(Err(Errno(libc::ENOTSUP))),
        }
    }

    /// One file behind the other.
    fn map_both([catalog, board]: RegionFiles, prot: i32) -> sys::Result<usize> {
        let nowhere = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new reservation at an address of the kernel's choice.
        let base = unsafe { sys::mmap(0, REGION_BYTES, libc::PROT_NONE, nowhere, -1, 0)? };
        let fixed = |at: usize, len: usize, prot: i32, fd: i32| {
            // SAFETY: MAP_FIXED inside the reservation, which nothing else knows.
            unsafe { sys::mmap(at, len, prot, libc::MAP_SHARED | libc::MAP_FIXED, fd, 0) }
        };
        let written = libc::PROT_READ | libc::PROT_WRITE;
        let mapped = fixed(base, CATALOG_BYTES, prot, catalog)
            .and_then(|_| fixed(base + CATALOG_BYTES, REGION_BYTES - CATALOG_BYTES, written, board));
        match mapped {
            Ok(_) => Ok(base),
            Err(errno) => {
                // SAFETY: the reservation was made above and nothing refers to it.
                let _ = unsafe { sys::munmap(base, REGION_BYTES) };
                Err(errno)
            }
        }
    }

    /// Gives new, empty files the region's size and identity, and maps them. Engine only.
    pub fn create(files @ [catalog, board]: RegionFiles, model_dir: &str, log_path: &str) -> sys::Result<Region> {
        sys::ftruncate(catalog, CATALOG_BYTES as u64)?;
        sys::ftruncate(board, (REGION_BYTES - CATALOG_BYTES) as u64)?;
        let base = Region::map_both(files, libc::PROT_READ | libc::PROT_WRITE)?;
        let header = base as *mut Header;
        let (dir_len, log_len) = (model_dir.len().min(PATH_MAX), log_path.len().min(PATH_MAX));
        // SAFETY: nobody else has the new file; the lengths are within the arrays.
        unsafe {
            (&raw mut (*header).model_dir).cast::<u8>().copy_from(model_dir.as_ptr(), dir_len);
            (&raw mut (*header).log_path).cast::<u8>().copy_from(log_path.as_ptr(), log_len);
        }
        let region = Region { base: base as *const u8 };
        region.header().model_dir_len.store(dir_len as u32, Ordering::Relaxed);
        region.header().log_path_len.store(log_len as u32, Ordering::Relaxed);
        // Not 0, which a part has that was never read.
        region.header().clock.store(1, Ordering::Relaxed);
        region.header().version.store(LAYOUT_VERSION, Ordering::Release);
        region.header().magic.store(MAGIC, Ordering::Release);
        Ok(region)
    }

    /// Where it is mapped, to be kept in a static.
    pub fn base(&self) -> *const u8 {
        self.base
    }

    /// The region whose `base` was kept.
    ///
    /// # Safety
    /// `base` must come from `base()` of a region of this process or of its parent before a fork.
    pub unsafe fn from_base(base: *const u8) -> Region {
        Region { base }
    }

    /// True if both are maps of the same engine's region: made by the same process at the same time.
    pub fn same_as(&self, other: &Region) -> bool {
        let key = |region: &Region| {
            let header = region.header();
            (header.birth.load(Ordering::Acquire), header.model_ino.load(Ordering::Acquire))
        };
        self.base == other.base || key(self) == key(other)
    }

    /// The first page.
    pub fn header(&self) -> &Header {
        // SAFETY: the mapping is REGION_BYTES long and lives for ever; Header is all atomics but two
        // arrays that are written before the region is shared.
        unsafe { &*(self.base as *const Header) }
    }

    /// All of the board, as words.
    #[cfg(any(test, fuzzing))]
    pub fn board_words(&self) -> &[AtomicU64] {
        self.words(CATALOG_BYTES, (REGION_BYTES - CATALOG_BYTES) / 8)
    }

    /// What programs ring and tell.
    pub fn board(&self) -> &Board {
        // SAFETY: within the mapping, which lives for ever; all of it is atomic, and zeroed memory is valid.
        unsafe { &*self.at::<Board>(CATALOG_BYTES, 0) }
    }

    /// Rung by clients when demand or events wait.
    pub fn doorbell(&self) -> Doorbell<'_> {
        Doorbell { rings: &self.board().rings, sleeps: &self.header().sleeps }
    }

    /// What programs say of an object of this region.
    pub fn traces(&self, object: &Object) -> &ObjectTraces {
        let offset = (core::ptr::from_ref(object) as usize).wrapping_sub(self.base as usize + Layout::OBJECTS);
        let slot = (offset / size_of::<Object>()).min(OBJECTS_MAX as usize - 1);
        // SAFETY: within the array, all atomics; zeroed memory is valid.
        unsafe { &*self.at::<ObjectTraces>(Layout::OBJECT_TRACES, slot) }
    }

    /// MODEL_DIR as the kernel names it.
    pub fn model_dir(&self) -> &[u8] {
        &self.header().model_dir[..(self.header().model_dir_len.load(Ordering::Acquire) as usize).min(PATH_MAX)]
    }

    /// Path of the log file, for the few lines that a client has to write itself.
    pub fn log_path(&self) -> &[u8] {
        &self.header().log_path[..(self.header().log_path_len.load(Ordering::Acquire) as usize).min(PATH_MAX)]
    }

    /// What the engine serves, as one number: the key in the marks of its files.
    pub fn engine_key(&self) -> u64 {
        let header = self.header();
        header.oss_path_key.load(Ordering::Acquire) ^ header.endpoint_key.load(Ordering::Acquire).rotate_left(32)
    }

    /// Number of published records.
    pub fn objects_len(&self) -> u32 {
        self.header().objects_len.load(Ordering::Acquire).min(OBJECTS_MAX)
    }

    /// A published record. `None` for a number that was never given out.
    pub fn object(&self, slot: u32) -> Option<&Object> {
        // SAFETY: within the array; records below `objects_len` are written and stay.
        (slot < self.objects_len()).then(|| unsafe { &*self.at::<Object>(Layout::OBJECTS, slot as usize) })
    }

    /// Name (key relative to OSS_PATH, or path of a folder) of a record: a copy.
    pub fn name(&self, object: &Object) -> Name {
        let (at, len) = (object.name_at.load(Ordering::Relaxed), object.name_len.load(Ordering::Relaxed));
        let mut bytes = [0; NAME_MAX];
        let words = self.name_words(at, (len as usize).min(NAME_MAX).div_ceil(NAME_WORD));
        for (word, room) in words.iter().zip(bytes.chunks_exact_mut(NAME_WORD)) {
            room.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        Text::new(bytes, len as usize)
    }

    /// The words of a name; none for numbers that are none.
    fn name_words(&self, at: u32, count: usize) -> &[AtomicU32] {
        let (at, count) = (at as usize, if at as usize + count > NAME_WORDS as usize { 0 } else { count });
        // SAFETY: within the array of names, whose memory is only ever used as these atomics.
        unsafe { core::slice::from_raw_parts(self.at::<AtomicU32>(Layout::NAMES, at), count) }
    }

    /// Part `index` of an object, counted from 0.
    pub fn part(&self, object: &Object, index: u32) -> Part<'_> {
        self.part_at(object.first_part().wrapping_add(index))
    }

    /// Part `at` of all.
    #[inline(always)]
    pub fn part_at(&self, at: u32) -> Part<'_> {
        let at = at.min(PARTS_MAX - 1) as usize;
        // SAFETY: within the array of parts; zeroed memory is an empty part.
        let state = unsafe { &*self.at::<PartState>(Layout::PARTS, at) };
        // SAFETY: within the array of their traces, all atomics; zeroed memory is valid.
        Part::new(state, unsafe { &*self.at::<PartTraces>(Layout::PART_TRACES, at) })
    }

    /// Blocks that readers of part `at` of all wait for, or `WHOLE`, beside its demand bit.
    pub fn wanted_at(&self, at: u32) -> &SharedMask {
        let at = at.min(PARTS_MAX - 1);
        // SAFETY: within the array of masks, all atomics; zeroed memory is an empty one.
        unsafe { &*self.at::<SharedMask>(Layout::BLOCKS, at as usize) }
    }

    /// A set of blocks, whosoever it is.
    pub fn set_at(&self, number: u32) -> Blocks<'_> {
        let number = number.min(SETS - 1) as usize;
        // SAFETY: within the array of sets, all atomics; zeroed memory is a set that no part has.
        let state = unsafe { &*self.at::<SetState>(Layout::SETS, number) };
        // SAFETY: within the array of their traces, all atomics; zeroed memory is valid.
        Blocks::new(state, unsafe { &*self.at::<SetTraces>(Layout::SET_TRACES, number) })
    }

    /// The blocks of part `at` of all, if it has any.
    pub fn blocks_at(&self, at: u32) -> Option<Blocks<'_>> {
        let blocks = self.set_at(self.part_at(at).set()?);
        blocks.is_of(at).then_some(blocks)
    }

    /// The blocks of part `index` of an object, if it has any.
    pub fn blocks(&self, object: &Object, index: u32) -> Option<Blocks<'_>> {
        self.blocks_at(object.first_part().wrapping_add(index))
    }

    /// Number of the fill that those of bytes `start..end` are of that lie in part `index`; `None` if they are not all
    /// there, in a part that is ready or in blocks.
    #[inline(always)]
    pub fn fill_of(&self, object: &Object, index: u32, start: u64, end: u64) -> Option<u32> {
        self.part(object, index).fill_if(|| self.has_blocks(object, index, start, end))
    }

    #[cold]
    #[inline(never)]
    fn has_blocks(&self, object: &Object, index: u32, start: u64, end: u64) -> bool {
        let mask = object.blocks_of(index, start, end);
        self.blocks(object, index).is_some_and(|blocks| mask & !blocks.ready() == 0)
    }

    /// Finds the record of a file by device and inode. Never a folder's: its folder may be gone, and its number have gone
    /// to a file (see `find_folder`).
    pub fn find(&self, dev: u64, ino: u64) -> Option<(u32, Identity)> {
        self.find_use(dev, ino).map(|(slot, _, identity)| (slot, identity))
    }

    /// The same with the number of the record's use, which `Object::lasts` asks for.
    pub fn find_use(&self, dev: u64, ino: u64) -> Option<(u32, u32, Identity)> {
        self.first(dev, ino, |object| self.identity(object, dev, ino))
    }

    /// Finds the record of a folder by device and inode.
    pub fn find_folder(&self, dev: u64, ino: u64) -> Option<u32> {
        let is_its = |object: &Object| object.kind() == RecordKind::Folder && object.has_number(dev, ino);
        self.first(dev, ino, |object| is_its(object).then_some(())).map(|(slot, ..)| slot)
    }

    /// The first record of this number of which `look` says something; with the number of its use.
    fn first<T>(&self, dev: u64, ino: u64, look: impl Fn(&Object) -> Option<T>) -> Option<(u32, u32, T)> {
        self.index().candidates(dev, ino).find_map(|slot| {
            let object = self.object(slot)?;
            let number = object.life.seen()?;
            let found = look(object)?;
            // A record that was rewritten under this look is another's: what it was compared by may be half of each.
            object.lasts(number).then_some((slot, number, found))
        })
    }

    /// Engine only: a new file or folder has this number, so what had it before is no more.
    pub fn number_is_anothers(&self, dev: u64, ino: u64) {
        let stands_in = || match self.find(dev, ino) {
            Some((slot, Identity::Placeholder)) => Some(slot),
            _ => None,
        };
        while let Some(object) = stands_in().or_else(|| self.find_folder(dev, ino)).and_then(|slot| self.object(slot)) {
            object.settled.store(1, Ordering::Release);
        }
    }

    fn identity(&self, object: &Object, dev: u64, ino: u64) -> Option<Identity> {
        let memory_dev = self.header().memory_dev.load(Ordering::Acquire);
        if object.memory_ino.load(Ordering::Acquire) == ino && dev == memory_dev && ino != 0 {
            return Some(Identity::Memory);
        }
        (object.kind() != RecordKind::Folder && object.has_number(dev, ino)).then_some(Identity::Placeholder)
    }

    /// Finds the small object whose real file this is as it was put in place, by device, inode, size (bytes) and
    /// modification time (seconds since 1970). The number may have been used again, so the newest version counts
    /// before those that it supersedes.
    pub fn find_file(&self, (dev, ino): (u64, u64), size: u64, mtime_secs: i64) -> Option<u32> {
        self.find_file_if((dev, ino), |object| (object.size(), object.mtime_secs()) == (size, mtime_secs))
    }

    /// The same whatever its size and time.
    pub fn find_any_file(&self, dev: u64, ino: u64) -> Option<u32> {
        self.find_file_if((dev, ino), |_| true)
    }

    fn find_file_if(&self, (dev, ino): (u64, u64), is: impl Fn(&Object) -> bool) -> Option<u32> {
        let mut found = None;
        for slot in self.index().candidates(dev, ino) {
            let Some(object) = self.object(slot) else { continue };
            let Some(number) = object.seen() else { continue };
            let is_its =
                object.file_ino.load(Ordering::Acquire) == ino && object.file_dev.load(Ordering::Acquire) == dev;
            let (is_its, is_superseded) = (is_its && is(object), object.is_superseded());
            // A record that was rewritten under this look is another's.
            if is_its && object.lasts(number) {
                if !is_superseded {
                    return Some(slot);
                }
                found = Some(slot);
            }
        }
        found
    }

    /// Asks for parts `first..end` of an object to be fetched before all others, and rings the doorbell.
    pub fn demand(&self, object: &Object, first: u32, end: u32) {
        self.demand_if(object, first..end, |part| !part.is_ready());
    }

    /// The same for all parts of it whose CRC-64 is not known in this round: the verdict waits for them, and not for
    /// what was here and has been given back.
    pub fn demand_unknown(&self, object: &Object, round: u32) {
        self.demand_if(object, 0..object.parts(), |part| !part.is_ready() && !part.is_known(round));
    }

    fn demand_if(&self, object: &Object, parts: core::ops::Range<u32>, is_wanted: impl Fn(Part<'_>) -> bool) {
        let mut any = false;
        for index in (parts.start..parts.end.min(object.parts())).filter(|index| is_wanted(self.part(object, *index))) {
            self.want_of_part(object, index, WHOLE);
            any = true;
        }
        if any {
            self.doorbell().ring();
        }
    }

    /// Asks for a small object to be fetched before all others, and rings the doorbell. Asked again it changes nothing.
    pub fn want(&self, slot: u32) {
        self.wanted().set(slot.min(OBJECTS_MAX - 1));
        self.doorbell().ring();
    }

    /// Engine only: takes the records that programs wait for.
    pub fn take_wanted(&self, each: impl FnMut(u32)) {
        self.wanted().drain(each);
    }

    /// Asks for bytes `start..end` of an object: for blocks, where it is not all of a part. Rings the doorbell.
    pub fn demand_bytes(&self, object: &Object, start: u64, end: u64) {
        let parts = object.parts_of(start, end);
        for index in parts.clone().filter(|index| self.fill_of(object, *index, start, end).is_none()) {
            let range = object.part_range(index);
            let is_whole = start <= range.start && range.end <= end;
            self.want_of_part(object, index, if is_whole { WHOLE } else { object.blocks_of(index, start, end) });
        }
        if !parts.is_empty() {
            self.doorbell().ring();
        }
    }

    /// What is wanted before the bit that says that something is.
    fn want_of_part(&self, object: &Object, index: u32, mask: Mask) {
        let at = object.first_part().wrapping_add(index).min(PARTS_MAX - 1);
        self.wanted_at(at).add(mask);
        self.demands().set(at);
    }

    /// Tells the engine what this process did, for the audit file. A full queue is counted, never waited for.
    pub fn tell(&self, seen: Seen) {
        self.events().tell(seen);
        self.doorbell().ring();
    }

    /// Engine only: takes the demanded parts, as indexes into the region, with the blocks of them that are wanted or
    /// `WHOLE`, and clears their bits.
    pub fn take_demand(&self, mut each: impl FnMut(u32, Mask)) {
        self.demands().drain(|at| match self.wanted_at(at).take() {
            // Taken with a demand before.
            0 => {}
            mask => each(at, mask),
        });
    }

    /// Engine only: takes the events from number `next` on; returns the next number to read. A new engine
    /// begins at 0 and gets what its predecessor has left.
    pub fn take_events(&self, next: u64, each: impl FnMut(Seen)) -> u64 {
        self.events().drain_from(next, each)
    }

    /// Record of the folder that an object or folder lies in.
    pub fn folder_of(&self, object: &Object) -> Option<&Object> {
        self.object(object.folder()).filter(|folder| folder.kind() == RecordKind::Folder)
    }

    fn at<T>(&self, start: usize, index: usize) -> *const T {
        self.base.wrapping_add(start + index * size_of::<T>()).cast()
    }

    fn index(&self) -> Index<'_> {
        // SAFETY: the bounds of the array; zeroed memory is an empty index.
        Index { entries: unsafe { core::slice::from_raw_parts(self.at::<AtomicU32>(Layout::INDEX, 0), INDEX_LEN) } }
    }

    fn demands(&self) -> Demand<'_> {
        Demand { bits: self.words(Layout::DEMAND, DEMAND_WORDS), summary: self.words(Layout::SUMMARY, SUMMARY_WORDS) }
    }

    fn wanted(&self) -> Demand<'_> {
        Demand {
            bits: self.words(Layout::WANTED, WANTED_WORDS),
            summary: self.words(Layout::WANTED_SUMMARY, WANTED_SUMMARY_WORDS),
        }
    }

    fn events(&self) -> Events<'_> {
        let board = self.board();
        let places = self.words(Layout::EVENTS, EVENTS_LEN);
        Events { places, head: &board.events_head, lost: &board.events_lost }
    }

    fn words(&self, start: usize, len: usize) -> &[AtomicU64] {
        // SAFETY: only called with the bounds of an array of words in the layout; zeroed memory is valid.
        unsafe { core::slice::from_raw_parts(self.at::<AtomicU64>(start, 0), len) }
    }
}

impl Object {
    /// What it stands for.
    pub fn kind(&self) -> RecordKind {
        match self.kind.load(Ordering::Relaxed) {
            1 => RecordKind::Large,
            2 => RecordKind::Small,
            _ => RecordKind::Folder,
        }
    }

    /// Number of the use that the record is in, also after its end.
    pub fn incarnation(&self) -> u32 {
        self.life.number()
    }

    /// The same while it lasts; `None` when the record is GONE.
    pub fn seen(&self) -> Option<u32> {
        self.life.seen()
    }

    /// True if the file or folder of this number is the record's, as far as the engine knows.
    fn has_number(&self, dev: u64, ino: u64) -> bool {
        (self.dev(), self.ino()) == (dev, ino) && self.settled.load(Ordering::Acquire) == 0
    }

    /// True if all that was read of the record since `seen` or `find_use` gave this number is of one use of it.
    pub fn lasts(&self, incarnation: u32) -> bool {
        self.life.lasts(incarnation)
    }

    /// Bytes of each part but the last.
    pub fn part_bytes(&self) -> u32 {
        self.part_bytes.load(Ordering::Relaxed)
    }

    /// Size of the object in bytes.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Device of the placeholder or folder.
    pub fn dev(&self) -> u64 {
        self.dev.load(Ordering::Relaxed)
    }

    /// Inode of the placeholder or folder.
    pub fn ino(&self) -> u64 {
        self.ino.load(Ordering::Relaxed)
    }

    /// Last-Modified: seconds since 1970.
    pub fn mtime_secs(&self) -> i64 {
        self.mtime_secs.load(Ordering::Relaxed) as i64
    }

    /// Index of its first part in the region.
    pub fn first_part(&self) -> u32 {
        self.first_part.load(Ordering::Relaxed)
    }

    /// How many parts.
    pub fn parts(&self) -> u32 {
        self.parts.load(Ordering::Relaxed)
    }

    /// Number of the folder's record; of the root folder its own.
    pub fn folder(&self) -> u32 {
        self.folder.load(Ordering::Relaxed)
    }

    /// Its state: a constant of `state`.
    pub fn state(&self) -> u32 {
        self.life.state().get()
    }

    /// ETag as listed, with quotes: a copy.
    pub fn etag(&self) -> Etag {
        let mut bytes = [0; ETAG_MAX];
        for (word, room) in self.etag.iter().zip(bytes.chunks_exact_mut(4)) {
            room.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        Text::new(bytes, self.etag_len.load(Ordering::Relaxed) as usize)
    }

    /// Folder: a listing with changes is being made real: names lead to old or new versions.
    pub fn is_changing(&self) -> bool {
        !self.changes.load(Ordering::SeqCst).is_multiple_of(2)
    }

    /// The newest listing of its folder names another version, or none.
    pub fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::SeqCst) != 0
    }

    /// Engine only: moves to another state and wakes who waits for it. A record that is GONE stays so, whoever comes late.
    pub fn set_state(&self, state: u32) {
        self.life.state().set_unless(GONE, state);
    }

    /// Whether its bytes have the check value that OSS reports; `None` while it is not here as a whole.
    pub fn verified(&self) -> Option<bool> {
        let whole = matches!(self.state(), state::VERIFIED | state::PLACED | state::GONE);
        match self.verdict.get().judgement {
            Judgement::Matched if whole => Some(true),
            Judgement::Nothing if whole => Some(false),
            _ => None,
        }
    }

    /// Engine only: moves to FAILED; readers get `errno`.
    pub fn fail(&self, errno: i32) {
        self.errno.store(errno as u32, Ordering::Release);
        self.set_state(state::FAILED);
        self.verdict.stir();
    }

    /// Sleeps while the state is `seen`, at most `ms` milliseconds. Spurious returns are allowed.
    pub fn sleep(&self, seen: u32, ms: u64) {
        self.life.state().sleep(seen, ms);
    }

    /// The parts that hold bytes `start..end`, as a range of part numbers.
    pub fn parts_of(&self, start: u64, end: u64) -> core::ops::Range<u32> {
        let (end, part) = (end.min(self.size()), u64::from(self.part_bytes()));
        if start >= end || part == 0 {
            return 0..0;
        }
        (start / part) as u32..end.div_ceil(part) as u32
    }

    /// Bytes of each of its blocks but the last of a part.
    pub fn block_bytes(&self) -> u64 {
        u64::from(block::block_bytes(self.part_bytes()))
    }

    /// Those blocks of part `index` that hold bytes of `start..end`.
    pub fn blocks_of(&self, index: u32, start: u64, end: u64) -> Mask {
        let (range, bytes) = (self.part_range(index), self.block_bytes());
        let (start, end) = (start.clamp(range.start, range.end), end.clamp(range.start, range.end));
        if start >= end {
            return 0;
        }
        block::mask(((start - range.start) / bytes) as u32, (end - range.start).div_ceil(bytes) as u32)
    }

    /// How many blocks part `index` has.
    pub fn blocks_len(&self, index: u32) -> u32 {
        let range = self.part_range(index);
        (range.end - range.start).div_ceil(self.block_bytes()) as u32
    }

    /// The bytes of blocks `first..end` of part `index`.
    pub fn block_range(&self, index: u32, first: u32, end: u32) -> core::ops::Range<u64> {
        let range = self.part_range(index);
        let at = |block: u32| (range.start + u64::from(block) * self.block_bytes()).min(range.end);
        at(first)..at(end)
    }

    /// As `fills`, also of bytes that are there in blocks.
    #[inline(always)]
    pub fn fills_with_blocks(&self, region: &Region, start: u64, end: u64) -> Option<u64> {
        self.parts_of(start, end)
            .try_fold(0u64, |sum, index| Some(sum + u64::from(region.fill_of(self, index, start, end)?)))
    }

    /// Number of the fills that hold bytes `start..end` now, `None` if some are not ready.
    pub fn fills(&self, region: &Region, start: u64, end: u64) -> Option<u64> {
        self.fills_of(region, self.parts_of(start, end))
    }

    /// The same for all bytes of these parts.
    pub fn fills_of(&self, region: &Region, mut parts: core::ops::Range<u32>) -> Option<u64> {
        parts.try_fold(0u64, |sum, index| Some(sum + u64::from(region.part(self, index).fill()?)))
    }

    /// The bytes of part `index`.
    pub fn part_range(&self, index: u32) -> core::ops::Range<u64> {
        let part = u64::from(self.part_bytes());
        let start = u64::from(index) * part;
        start..(start + part).min(self.size())
    }
}

/// A number that tells one OSS_PATH from another (FNV-1a, 64 bit); slashes at its end do not count. Never 0.
pub fn place_key(path: &[u8]) -> u64 {
    let len = path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    fnv(path[..len].iter().copied())
}

/// A number that tells one OSS_ENDPOINT from another: of host and port, in lower case, without the scheme and the
/// port that the scheme has anyway (https without one). Never 0.
pub fn endpoint_key(endpoint: &[u8]) -> u64 {
    let text = endpoint.trim_ascii();
    let begins = |scheme: &[u8]| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let (rest, port) = match () {
        _ if begins(b"http://") => (&text[7..], b":80".as_slice()),
        _ if begins(b"https://") => (&text[8..], b":443".as_slice()),
        _ => (text, b":443".as_slice()),
    };
    let rest = rest.strip_suffix(b"/").unwrap_or(rest);
    fnv(rest.strip_suffix(port).unwrap_or(rest).iter().map(u8::to_ascii_lowercase))
}

fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)).max(1)
}

/// An ETag with its quotes.
pub type Etag = Text<ETAG_MAX>;
/// A record's name.
pub type Name = Text<NAME_MAX>;

#[cfg(test)]
mod tests {
    use super::*;

    fn region() -> Region {
        Region::create(sys::memfds(c"test").unwrap(), "/tmp/model", "/tmp/log").unwrap()
    }

    fn large(name: &str, ino: u64, size: u64) -> NewObject<'_> {
        NewObject {
            kind: RecordKind::Large,
            state: state::LOADING,
            name,
            etag: "\"AB\"",
            size,
            part_bytes: 4096,
            mtime_secs: 5,
            dev: 9,
            ino,
            folder: 0,
        }
    }

    #[test]
    fn a_record_is_found_by_both_identities() {
        let region = region();
        region.header().memory_dev.store(77, Ordering::Release);
        let a = region.append(&large("a", 100, 10_000)).unwrap();
        let b = region.append(&large("b/c", 101, 1)).unwrap();
        region.set_memory(b, 100);
        assert_eq!(region.find(9, 100), Some((a, Identity::Placeholder)));
        assert_eq!(region.find(77, 100), Some((b, Identity::Memory)));
        assert_eq!(region.find(9, 102), None);
        assert_eq!(region.name(region.object(b).unwrap()), "b/c");
        region.object(a).unwrap().set_state(state::GONE);
        assert_eq!(region.find(9, 100), None, "the inode of a void record belongs to somebody else");
        let again = region.append(&large("new", 100, 3)).unwrap();
        assert_eq!(region.find(9, 100), Some((again, Identity::Placeholder)));
    }

    #[test]
    fn parts_cover_the_object_once() {
        let region = region();
        let slot = region.append(&large("a", 1, 10_000)).unwrap();
        let object = region.object(slot).unwrap();
        assert_eq!(object.parts(), 3);
        assert_eq!((object.part_range(0), object.part_range(2)), (0..4096, 8192..10_000));
        assert_eq!(object.parts_of(4095, 4097), 0..2);
        assert_eq!(object.parts_of(9_999, 50_000), 2..3);
        assert!(object.parts_of(10_000, 10_001).is_empty());
    }

    #[test]
    fn demand_is_taken_once_and_only_for_missing_parts() {
        let region = region();
        region.append(&large("x", 1, 4096 * 70)).unwrap();
        let slot = region.append(&large("a", 2, 4096 * 3)).unwrap();
        let object = region.object(slot).unwrap();
        assert!(region.part(object, 1).claim());
        region.part(object, 1).publish(0);
        region.demand(object, 0, 3);
        let mut got = Vec::new();
        region.take_demand(|part, mask| got.push((part, mask)));
        assert_eq!(got, [(70, WHOLE), (72, WHOLE)]);
        region.take_demand(|_, _| panic!("taken twice"));
    }

    #[test]
    fn a_wait_is_in_the_first_class_whose_limit_it_keeps() {
        let region = region();
        let waits = &region.board().waits;
        [0, 1_000, 1_001, 300_000_000, 300_000_001].into_iter().for_each(|us| waits.count(us));
        assert_eq!(waits.read(), ([2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1], 600_002_002));
        assert!(crate::waits::LIMITS_US.is_sorted());
        waits.forget();
        assert_eq!(waits.read(), ([0; crate::waits::CLASSES], 0));
    }

    #[test]
    fn events_come_in_order_and_a_full_queue_is_counted() {
        let region = region();
        for pid in 0..3 {
            region.tell(Seen { pid, slot: 1, act: 1 });
        }
        let mut pids = Vec::new();
        let next = region.take_events(0, |seen| pids.push(seen.pid));
        assert_eq!((pids.as_slice(), next), ([0, 1, 2].as_slice(), 3));
        for pid in 0..EVENTS_LEN as u32 + 5 {
            region.tell(Seen { pid, slot: 1, act: 1 });
        }
        assert_eq!(region.board().events_lost.load(Ordering::Relaxed), 5);
        let mut count = 0;
        region.take_events(next, |_| count += 1);
        assert_eq!(count, EVENTS_LEN);
    }

    #[test]
    fn another_layout_is_refused() {
        let files = sys::memfds(c"test").unwrap();
        let region = Region::create(files, "/m", "/l").unwrap();
        assert!(Region::map(files).is_ok());
        let short = Region::map([files[1], files[1]]).err();
        assert_eq!(short, Some(Errno(libc::ENOTSUP)), "a map must not be longer than its file");
        region.header().version.store(LAYOUT_VERSION + 1, Ordering::Release);
        assert_eq!(Region::map(files).err(), Some(Errno(libc::ENOTSUP)));
    }

    #[test]
    fn a_client_writes_on_the_board_and_nowhere_else() {
        let files = sys::memfds(c"test").unwrap();
        let region = Region::create(files, "/m", "/l").unwrap();
        let slot = region.append(&large("a", 1, 10_000)).unwrap();
        let client = Region::map(files).unwrap();
        let object = client.object(slot).unwrap();
        // All that a client does of itself; a write to the catalog would end this test.
        client.demand(object, 0, 3);
        client.demand_bytes(object, 5, 4000);
        client.want(slot);
        client.tell(Seen { pid: 1, slot, act: 1 });
        let part = client.part(object, 1);
        part.pin();
        part.pin_for_copy();
        part.unpin_after_copy();
        part.touch(5);
        part.sleep(1);
        object.sleep(object.state(), 1);
        object.verdict.sleep(object.verdict.get(), 1, || false);
        region.part(region.object(slot).unwrap(), 1).learn(7, 1);
        assert!(client.traces(object).handed.hand_out(part, object.parts(), 1));
        client.traces(object).uses.fetch_add(1, Ordering::Relaxed);
        let seen = region.object(slot).unwrap();
        assert_eq!((region.traces(seen).uses.load(Ordering::Relaxed), region.traces(seen).handed.count(1)), (1, 1));
        assert!(region.part(seen, 1).is_mapped() && region.part(seen, 1).used() == 5);
        let catalog = std::fs::read_to_string("/proc/self/maps").unwrap();
        let start = format!("{:x}-{:x} r--s", client.base() as usize, client.base() as usize + CATALOG_BYTES);
        assert!(catalog.contains(&start), "{start}\n{catalog}");
    }

    #[test]
    fn paths_of_oss_are_told_apart() {
        assert_eq!(place_key(b"oss://b/m/"), place_key(b"oss://b/m"));
        assert_ne!(place_key(b"oss://b/m"), place_key(b"oss://b/n"));
        assert_ne!(place_key(b"oss://b"), place_key(b"oss://b/b"));
    }

    #[test]
    fn endpoints_are_told_apart_by_host_and_port() {
        let same =
            ["oss.example.com", "https://OSS.example.com", "http://oss.example.com:80/", " oss.example.com:443 "];
        assert!(same.iter().all(|text| endpoint_key(text.as_bytes()) == endpoint_key(b"http://oss.example.com")));
        for other in ["oss.example.org", "http://oss.example.com:443", "oss.example.com:80", "127.0.0.1:8080"] {
            assert_ne!(endpoint_key(other.as_bytes()), endpoint_key(b"oss.example.com"), "{other}");
        }
    }

    #[test]
    fn the_real_file_of_a_small_object_is_found_and_its_stand_in_is_given_up() {
        let region = region();
        let small = NewObject { kind: RecordKind::Small, state: state::COMING, part_bytes: 0, ..large("a", 100, 10) };
        let slot = region.append(&small).unwrap();
        let object = region.object(slot).unwrap();
        region.set_file(slot, (9, 200));
        object.set_state(state::PLACED);
        assert_eq!(region.find(9, 200), None, "a real file is no placeholder");
        assert_eq!(region.find(9, 100), Some((slot, Identity::Placeholder)), "a program may have it open");
        object.settled.store(1, Ordering::Release);
        assert_eq!((region.find(9, 100), region.find_file((9, 200), 10, 5)), (None, Some(slot)));
        for (id, size, mtime) in [((9, 200), 11, 5), ((9, 200), 10, 6), ((8, 200), 10, 5)] {
            assert_eq!(region.find_file(id, size, mtime), None, "somebody else's file");
        }
        let again = region.append(&NewObject { name: "b", ino: 300, ..small }).unwrap();
        region.set_file(again, (9, 200));
        object.superseded.store(1, Ordering::Release);
        assert_eq!(region.find_file((9, 200), 10, 5), Some(again), "its number was used again");
        region.object(again).unwrap().set_state(state::GONE);
        assert_eq!(region.find_file((9, 200), 10, 5), Some(slot));
    }

    #[test]
    fn limits_are_errors() {
        let region = region();
        assert_eq!(region.append(&large("a", 1, 4096 * (u64::from(PARTS_MAX) + 1))), Err(Full::Parts));
        let etag = "x".repeat(ETAG_MAX + 1);
        assert_eq!(region.append(&NewObject { etag: &etag, ..large("a", 1, 1) }), Err(Full::Etag));
    }
}
