//! The client: which files are ours, waiting for their bytes, and the memory behind them.
//!
//! Called by the hooks' slow paths. It attaches to the engine at the first need (and starts one where it
//! may and there is none), keeps one map and one descriptor per object, allocates nothing, and never uses
//! a kept descriptor without asking the kernel whether it is still the same file.
//!
//! A slot number that this file gives out carries the generation of the region it belongs to, so that a
//! new engine with a new catalog never gets an old number taken for one of its own, and which use of the record it
//! means: records of versions that nobody uses are used again. Whatever was read of a record (facts, parts, memory)
//! counts only if that use still lasts afterwards (`ossc_cache::life`); if not, the answer is ESTALE.

use crate::attach::{self, ASK_MS, MOVED, attach, attached, say};
use crate::environ;
use crate::file::Seen;
use crate::hidden;
use crate::kept;
use crate::memory;
use crate::session;
use crate::start::{self, FirstWord};
use crate::taken::{self, May};
use core::cell::Cell;
use core::ffi::CStr;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use ossc_cache::cpath::CPath;
use ossc_cache::region::{Identity, Kind, OBJECTS_MAX, Object, Region, Seen as Event, state};
use ossc_cache::sys::{self, Errno, FileId, Result};
use ossc_cache::verdict::{Judged, Judgement};
use ossc_cache::wire::Ask;
use ossc_cache::{block, mark, pages, wait, wait_bytes};

/// A file of ours.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    /// Record number.
    pub slot: u32,
    /// Which of its files it is.
    pub identity: Identity,
}

/// What the stat family reports for a record.
pub(crate) struct Facts {
    /// Size in bytes.
    pub size: u64,
    /// Last-Modified of the object, seconds since 1970.
    pub mtime_secs: i64,
    /// Device of the placeholder.
    pub dev: u64,
    /// Inode of the placeholder.
    pub ino: u64,
    /// True for a large object (placeholder and memory file), false for a small one that is still coming.
    pub large: bool,
}

/// How long listing a folder may take, in milliseconds.
const LIST_MS: u64 = 60_000;
/// How often an engine is asked that does not answer although one runs.
const LIST_TRIES: u32 = 5;
/// How long an engine that runs may take until it hands an object's memory out, in milliseconds.
const OPEN_MS: u64 = 8_000;
/// How long a status by name waits for a small object that is still to come.
const STATUS_MS: u64 = 2_000;
/// This process has opened a folder of ours: it may ask for the status of all that is in it.
static READS_FOLDERS: AtomicBool = AtomicBool::new(false);
/// Slices of a wait (200 ms each) after which a line in the log says that somebody still waits.
const SLICES_TOLD: u32 = 50;
/// A slot: generation (7 bits), number of the record's use (8 bits), number of the record (17 bits).
const GENERATION_SHIFT: u32 = 25;
const USE_SHIFT: u32 = 17;
const USE_MASK: u32 = 0xff;
const NUMBER_MASK: u32 = (1 << USE_SHIFT) - 1;
const _: () = assert!(OBJECTS_MAX == NUMBER_MASK + 1);

/// What a slot or descriptor gives whose version no engine has any more.
pub(crate) const GONE: Errno = Errno(libc::ESTALE);

/// What the hooks do: nothing, their work, or, while the constructor looks whether they are reached, say so.
static STATE: AtomicU8 = AtomicU8::new(INERT);
const INERT: u8 = 0;
const ACTIVE: u8 = 1;
const LISTENING: u8 = 2;
/// Device and inode of MODEL_DIR.
static MODEL_DEV: AtomicU64 = AtomicU64::new(0);
static MODEL_INO: AtomicU64 = AtomicU64::new(0);

/// Constructor: takes what is needed of the environment, and as a primary makes sure an engine runs.
/// A primary that cannot start says why and ends the program, as the product does.
pub(crate) fn init() {
    let role = environ::role();
    match role {
        environ::Role::Inert => return,
        // To go on would be to show placeholders as empty files.
        environ::Role::Unknown => refuse(b"ENABLE_CONNECTOR is neither 1 (primary) nor 2 (secondary)"),
        _ => {}
    }
    let primary = role == environ::Role::Primary;
    let model_dir = match environ::take() {
        Ok(id) => id,
        Err(environ::Unusable::Unreachable) => {
            // Every look at MODEL_DIR fails for this user without the library too: nothing to serve, nothing to end.
            if primary {
                say(&[b"oss connector: this user may not reach MODEL_DIR: going on without it\n"]);
            }
            return;
        }
        Err(why) if primary => refuse(match why {
            environ::Unusable::NoModelDir => {
                b"MODEL_DIR not set: set it to the folder that the program loads the model from"
            }
            environ::Unusable::BadModelDir | environ::Unusable::Unreachable => {
                b"failed to download metadata: MODEL_DIR is not a folder and cannot be made"
            }
            environ::Unusable::NoRunFolder => {
                b"failed to acquire uds lock: none of /run/oss-connector, XDG_RUNTIME_DIR, /tmp and /dev/shm can be used"
            }
        }),
        Err(_) => return,
    };
    if let Some(why) = hidden::find() {
        // To go on would be to show placeholders as empty files.
        refuse(why.as_bytes());
    }
    MODEL_DEV.store(model_dir.dev, Ordering::Relaxed);
    MODEL_INO.store(model_dir.ino, Ordering::Relaxed);
    attach::begin();
    if primary && attach::engine_runs() {
        if let Some(why) = attach::is_another() {
            refuse(why);
        }
        attach::tell_credentials();
    } else if primary {
        let start = attach::start_engine(-1);
        match start.word {
            FirstWord::Failed | FirstWord::Silent => refuse(start.text()),
            FirstWord::Ready if !start.text().is_empty() => say(&[b"oss connector: ", start.text(), b"\n"]),
            _ => {}
        }
    }
    STATE.store(ACTIVE, Ordering::Release);
}

fn refuse(reason: &[u8]) -> ! {
    say(&[b"failed to launch oss connector: ", reason, b"\n"]);
    start::exit_now(1)
}

/// True once the constructor has seen ENABLE_CONNECTOR and MODEL_DIR: one relaxed load.
#[inline(always)]
pub(crate) fn is_active() -> bool {
    STATE.load(Ordering::Relaxed) == ACTIVE
}

/// The same for a hook that has nothing to do where it is false: if the constructor listens, it hears of the call.
#[inline(always)]
pub(crate) fn is_wanted() -> bool {
    match STATE.load(Ordering::Relaxed) {
        ACTIVE => true,
        INERT => false,
        _ => {
            hidden::heard();
            false
        }
    }
}

/// Constructor: runs `call` while hooks that are reached say so.
pub(crate) fn while_listening(call: impl FnOnce()) {
    STATE.store(LISTENING, Ordering::Relaxed);
    call();
    STATE.store(INERT, Ordering::Relaxed);
}

/// True if this process is registered with an engine.
pub(crate) fn is_attached() -> bool {
    attached().is_some()
}

/// MODEL_DIR's device.
pub(crate) fn model_dev() -> u64 {
    MODEL_DEV.load(Ordering::Relaxed)
}

/// True for the memory file of an engine that is gone, in a process that knows the next one.
pub(crate) fn is_of_an_engine_before(id: &FileId) -> bool {
    attach::generation() > 1
        && id.is_file()
        && attach::regions_before().any(|region| {
            id.dev == region.header().memory_dev.load(Ordering::Acquire)
                && matches!(region.find(id.dev, id.ino), Some((_, Identity::Memory)))
        })
}

/// True for MODEL_DIR and what lies below it, by name. A hint: other names lead to the same files.
pub(crate) fn is_inside(path: &[u8]) -> bool {
    let root = environ::model_dir();
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest[0] == b'/' || root == b"/")
}

pub(crate) fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) | None => b"/",
        Some(cut) => &path[..cut],
    }
}

/// Runs `act` on a descriptor of the path, if it can be opened with these flags.
pub(crate) fn with_descriptor<T>(dir: i32, path: &CStr, flags: i32, act: impl FnOnce(i32) -> T) -> Option<T> {
    let fd = sys::openat(dir, path, flags, 0).ok()?;
    let value = act(fd);
    let _ = sys::close(fd);
    Some(value)
}

/// The record of an object, as its own engine knew it, and the generation of that.
pub(crate) fn was(slot: u32) -> Option<(u32, &'static Object)> {
    record_of(slot).map(|(_, object)| (slot >> GENERATION_SHIFT, object))
}

/// What the stat family reports for a record; `None` if the slot is of a version that is no more.
pub(crate) fn facts(slot: u32) -> Option<Facts> {
    let (_, object, now) = resolve(slot)?;
    let facts = Facts {
        size: object.size(),
        mtime_secs: object.mtime_secs(),
        dev: object.dev(),
        ino: object.ino(),
        large: object.kind() == Kind::Large,
    };
    lasts(object, now).then_some(facts)
}

/// EACCES for an object that cannot be read until its owner acts (restores it, grants it); the log says so.
pub(crate) fn denied(slot: u32) -> Option<Errno> {
    let (_, object, _) = resolve(slot)?;
    let errno = object.errno.load(Ordering::Acquire) as i32;
    (object.state() == state::FAILED && errno == libc::EACCES).then(|| {
        log(b"open refused: the object is archived or may not be read", slot);
        Errno(errno)
    })
}

/// How bytes of a part are there that are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grain {
    /// With all of the part: their memory leaves this library's hands.
    Parts,
    /// In the part, or in blocks of it: for a copy, which is made again if they have gone meanwhile.
    Blocks,
}

/// Waits until bytes `start..end` are ready.
pub(crate) fn wait_range(slot: u32, start: u64, end: u64) -> Result<()> {
    wait_for(slot, start, end, Grain::Parts)
}

/// Waits until bytes `start..end` are there.
pub(crate) fn wait_for(slot: u32, start: u64, end: u64, grain: Grain) -> Result<()> {
    waiting(slot, |region, object, check| match grain {
        Grain::Parts => wait::range(region, object, start, end, check),
        Grain::Blocks => wait_bytes::bytes(region, object, start, end, check),
    })
}

/// Waits until the whole object is ready and verified, and keeps it whole: for a program that has its memory mapped.
pub(crate) fn wait_whole(slot: u32) -> Result<()> {
    waiting(slot, |region, object, check| {
        // In each region that is waited in: a map is of the last one.
        (0..object.parts()).for_each(|index| region.part(object, index).pin());
        wait::whole(region, object, check)
    })
}

/// A map that was made of a part is about to grow: waits for the rest. ENOMEM where another engine has taken over
/// since then with memory of its own, whose bytes never come into the memory that is mapped, and for what the memory
/// budget can never hold.
pub(crate) fn wait_rest(slot: u32) -> Result<()> {
    if memory::is_too_large(slot) {
        return Err(Errno(libc::ENOMEM));
    }
    wait_whole(slot)?;
    if attach::generation() == slot >> GENERATION_SHIFT {
        return Ok(());
    }
    log(b"a map cannot grow: the engine that it is of is gone; map the object again", slot);
    Err(Errno(libc::ENOMEM))
}

/// Waits until a small object is a real file; the caller then repeats its open or stat.
pub(crate) fn wait_placed(slot: u32) -> Result<()> {
    wait_placed_until(slot, u64::MAX)
}

/// The same for a status by name, of a program that has read no folder of ours: it names the file because it will open it,
/// and may compare the two (`cp` does). True if there is another file now; not for long.
pub(crate) fn settles(slot: u32) -> bool {
    !READS_FOLDERS.load(Ordering::Relaxed) && wait_placed_until(slot, sys::now_ms() + STATUS_MS).is_ok()
}

/// ETIMEDOUT behind that moment (`sys::now_ms`).
fn wait_placed_until(slot: u32, end_ms: u64) -> Result<()> {
    waiting(slot, |region, object, check| {
        let want = || {
            if object.state() == state::COMING
                && let Some((_, _, now)) = resolve(slot)
            {
                region.want(number_of(now));
            }
        };
        want();
        // Again after each slice: an engine that took over has not heard of it.
        wait::placed(object, &|| {
            want();
            if sys::now_ms() > end_ms { Err(Errno(libc::ETIMEDOUT)) } else { check() }
        })
    })
}

/// Where reads wait for the verdict (`readsWait`): until it is given, or is that the bytes are wrong.
pub(crate) fn wait_first(slot: u32) -> Result<()> {
    loop {
        let (region, object, _) = resolve(slot).ok_or(GONE)?;
        let judged = object.verdict.get();
        if region.header().reads_wait.load(Ordering::Relaxed) == 0 || judged.judgement != Judgement::Open {
            return Ok(());
        }
        waiting(slot, |region, object, check| wait::verdict(region, object, judged, check))?;
    }
}

/// Waits until bytes `start..end` are there and may be given to the program through the descriptor of `seen`: before
/// the verdict on the whole object, but for the last of it that nobody was given yet.
pub(crate) fn wait_given(seen: &Seen, start: u64, end: u64, grain: Grain) -> Result<()> {
    loop {
        wait_for(seen.slot, start, end, grain)?;
        let Some(fills) = fills(seen.slot, start, end, grain) else { continue };
        match taken::may_take(seen, &fills)? {
            May::Take => return Ok(()),
            May::Wait(judged) => {
                waiting(seen.slot, |region, object, check| wait::verdict(region, object, judged, check))?;
            }
        }
    }
}

/// Runs a wait in the region of now, again in the next one when that is replaced.
pub(crate) fn waiting(slot: u32, wait: impl Fn(&Region, &Object, &dyn Fn() -> Result<()>) -> Result<()>) -> Result<()> {
    loop {
        match waiting_here(slot, &wait) {
            // A new engine with a new catalog: the same file under another number.
            Err(MOVED) => continue,
            done => return done,
        }
    }
}

/// The same in the region of now: `MOVED` when that is replaced.
pub(crate) fn waiting_here(
    slot: u32,
    wait: &impl Fn(&Region, &Object, &dyn Fn() -> Result<()>) -> Result<()>,
) -> Result<()> {
    // Before the region is looked at: a region that is replaced in between must end the wait.
    let generation = attach::generation();
    let (region, object, now) = resolve(slot).ok_or(GONE)?;
    let is_large = object.kind() == Kind::Large;
    let slices = Cell::new(1u32);
    let check = || {
        if slices.replace(slices.get().wrapping_add(1)).is_multiple_of(SLICES_TOLD) {
            log(b"a reader has been waiting for 10 s more", slot);
        }
        attach::alive(generation)
    };
    match wait(&region, object, &check) {
        // What was waited for may have been of another version's record in the end.
        Ok(()) if is_large && !lasts(object, now) => Err(GONE),
        Err(errno) if errno != MOVED => {
            log(b"a reader got an error for this object", slot);
            Err(errno)
        }
        done => done,
    }
}

/// A fresh read-only, close-on-exec descriptor of the object's memory file; the caller owns it. Never 0-2. Nothing was
/// waited for: what is read through it counts only if the fills are the same before and after.
pub(crate) fn open_unready(slot: u32) -> Result<i32> {
    let until = sys::now_ms() + OPEN_MS;
    loop {
        let generation = attach::generation();
        let errno = match open_once(slot) {
            Ok(fd) => return Ok(fd),
            Err(errno) => errno,
        };
        match (attach::alive(generation), errno.0) {
            // Memory that died with its engine is had again from the next one.
            (Err(MOVED), _) => {}
            (_, libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ESTALE) => return Err(errno),
            // An engine that is just starting does not answer yet.
            (Ok(()), _) if sys::now_ms() < until => sys::sleep_ms(20),
            _ => {
                log(b"the memory of this object cannot be opened: its reader gets EIO", slot);
                return Err(Errno(libc::EIO));
            }
        }
    }
}

fn open_once(slot: u32) -> Result<i32> {
    let (region, object, now) = resolve(slot).ok_or(GONE)?;
    let number = number_of(now);
    let checked = |opened: i32| {
        let fd = if opened > 2 { opened } else { raise(opened, 3)? };
        let is_right = is_memory(fd, &region, object);
        // While it is open the engine is granted no lease on it, and so the record is not used again: what lasts now
        // lasts as long as the descriptor and its maps.
        if is_right && lasts(object, now) {
            return Ok(fd);
        }
        let _ = sys::close(fd);
        Err(if lasts(object, now) { Errno(libc::EIO) } else { GONE })
    };
    open_in_store(number).and_then(checked).or_else(|_| ask_for_memory(number).and_then(checked))
}

fn open_in_store(number: u32) -> Result<i32> {
    let store = attach::store_folder().ok_or(Errno(libc::EBADF))?;
    let name = pages::file_name(number);
    sys::openat(store, name.as_cstr().ok_or(Errno(libc::EIO))?, libc::O_RDONLY | libc::O_CLOEXEC, 0)
}

fn ask_for_memory(number: u32) -> Result<i32> {
    let packet = attach::ask(Ask::Memory(number), b"", ASK_MS)?;
    match packet.fds {
        [fd, -1, -1] if fd >= 0 => Ok(fd),
        _ => {
            packet.close_fds();
            Err(Errno(libc::EPROTO))
        }
    }
}

fn raise(fd: i32, at_least: i32) -> Result<i32> {
    let raised = sys::dup_from(fd, at_least);
    let _ = sys::close(fd);
    raised
}

/// From now on the parts that hold bytes `start..end` are not given up, until the kernel says that nobody has
/// the object's memory open or mapped: this process must have it open. To be called before the wait for bytes that
/// leave this library's hands (maps, pipes, sockets).
pub(crate) fn pin(slot: u32, start: u64, end: u64) {
    if let Some((region, object, _)) = resolve(slot) {
        object.parts_of(start, end).for_each(|index| region.part(object, index).pin());
    }
}

/// Parts that stay as long as this lives: see `hold`.
pub(crate) struct HeldParts {
    region: Region,
    /// Numbers in the region: those that were held are let go, whatever the record says by then.
    parts: core::ops::Range<u32>,
}

impl Drop for HeldParts {
    fn drop(&mut self) {
        self.parts.clone().for_each(|at| self.region.part_at(at).let_go());
    }
}

/// The parts that hold bytes `start..end` are not given up while they are waited for and copied. One part at a
/// time, see `Part::hold`: without it a reader may never see a part that others want the room of.
pub(crate) fn hold(slot: u32, start: u64, end: u64) -> Option<HeldParts> {
    let (region, object, _) = resolve(slot)?;
    let (first, parts) = (object.first_part(), object.parts_of(start, end));
    let parts = first.saturating_add(parts.start)..first.saturating_add(parts.end);
    parts.clone().for_each(|at| region.part_at(at).hold());
    Some(HeldParts { region, parts })
}

/// End of the part that holds byte `at`, but not more than `end`.
pub(crate) fn part_end(slot: u32, at: u64, end: u64) -> u64 {
    let part_bytes = resolve(slot).map_or(0, |(_, object, _)| u64::from(object.part_bytes()));
    at.checked_div(part_bytes).map_or(end, |index| ((index + 1) * part_bytes).min(end))
}

/// The fills that held a range at one moment.
pub(crate) struct Fills {
    /// Belongs to them: another engine counts its own fills.
    pub generation: u32,
    /// Its region.
    pub region: Region,
    /// The record there.
    pub object: &'static Object,
    /// The slot in that generation.
    pub slot: u32,
    /// The parts that hold the range.
    pub parts: Range<u32>,
    /// The range.
    bytes: Range<u64>,
    grain: Grain,
    sum: u64,
}

/// Those that hold bytes `start..end` now, `None` if some are missing.
pub(crate) fn fills(slot: u32, start: u64, end: u64, grain: Grain) -> Option<Fills> {
    core::sync::atomic::fence(Ordering::SeqCst);
    let generation = attach::generation();
    let (region, object, now) = resolve(slot)?;
    let (parts, bytes) = (object.parts_of(start, end), start..end);
    let sum = sum_of(&region, object, &bytes, grain)?;
    let fills = Fills { generation, region, object, slot: now, parts, bytes, grain, sum };
    (attach::generation() == generation).then_some(fills)
}

#[inline(always)]
fn sum_of(region: &Region, object: &Object, bytes: &Range<u64>, grain: Grain) -> Option<u64> {
    match grain {
        Grain::Parts => object.fills(region, bytes.start, bytes.end),
        Grain::Blocks => object.fills_with_blocks(region, bytes.start, bytes.end),
    }
}

impl Fills {
    /// True if they are there still: a copy made meanwhile is good. The record must be the one it was: the parts of
    /// one that is GONE may be full of another object's bytes.
    pub fn are_there(&self) -> bool {
        core::sync::atomic::fence(Ordering::SeqCst);
        attach::generation() == self.generation
            && sum_of(&self.region, self.object, &self.bytes, self.grain) == Some(self.sum)
            && lasts(self.object, self.slot)
            && attach::generation() == self.generation
    }

    /// True if their bytes may be given to the program now, through the descriptor of `seen`: see `taken`.
    #[inline(always)]
    pub fn may_be_given(&self, seen: &Seen) -> Result<bool> {
        Ok(taken::is_plain(self.object) || taken::may_take(seen, self)? == May::Take)
    }

    /// Bytes of all their parts were copied: they are in use.
    pub fn touch(&self) {
        let clock = self.region.header().clock.load(Ordering::Relaxed);
        for index in self.parts.clone() {
            let part = self.region.part(self.object, index);
            let is_first = part.used() == 0;
            part.touch(clock);
            if is_first {
                self.reads_on(index);
            }
        }
    }

    /// A part was read for the first time. From its beginning, and the one before was read: the next ones will be.
    #[cold]
    #[inline(never)]
    fn reads_on(&self, index: u32) {
        let Some(before) = index.checked_sub(1) else { return };
        let (part, before) = (self.region.part(self.object, index), self.region.part(self.object, before));
        let follows = part.is_ready() && before.is_ready() && before.used() != 0;
        if follows && self.bytes.start <= self.object.part_range(index).start {
            self.region.demand(self.object, index + 1, index + 2);
        }
    }

    /// The bytes were handed out in this round before.
    pub fn were_handed_out(&self, round: u32) -> bool {
        self.parts.clone().all(|index| {
            let part = self.region.part(self.object, index);
            part.is_known(round) && part.is_handed_out(round)
        })
    }

    /// The bytes are handed out from now on, if they may be: of this round, and not the last.
    pub fn hand_out(&self, round: u32) -> bool {
        let (region, object) = (&self.region, self.object);
        self.parts.clone().all(|index| {
            let part = region.part(object, index);
            // Also of one that was given up just now: the copy does not count then.
            if self.grain == Grain::Parts || part.is_known(round) {
                return object.verdict.hand_out(part, object.parts(), round);
            }
            let Some(blocks) = region.blocks(object, index) else { return false };
            let counts = (object.blocks_len(index), object.parts());
            let mut wanted = block::numbers(object.blocks_of(index, self.bytes.start, self.bytes.end));
            wanted.all(|number| blocks.hand_out(number, &object.verdict, part, counts, round))
        })
    }
}

/// True if the descriptor is the object's memory file.
pub(crate) fn is_memory(fd: i32, region: &Region, object: &Object) -> bool {
    let (dev, ino) = (region.header().memory_dev.load(Ordering::Acquire), object.memory_ino.load(Ordering::Acquire));
    sys::file_id(fd).is_ok_and(|id| id.ino == ino && id.dev == dev)
}

/// What came of looking whether a folder has to be listed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listing {
    /// There was nothing to list.
    Needless,
    /// It was listed now: the caller should repeat its call.
    Done,
    /// It should have been, but no engine can be asked, or the origin refuses: what lies in it is not known.
    Failed,
    /// It may have to be, and the program has no descriptor left to look with: what lies in it is not known.
    NoDescriptor,
}

/// True if no folder is left that would have to be listed.
pub(crate) fn knows_all_folders() -> bool {
    attached().is_some_and(|(_, region)| region.header().folders_unlisted.load(Ordering::Acquire) == 0)
}

/// A folder was opened or is about to be read: lists it if it is an unlisted one of ours.
/// `id` is its identity, `fd` (or -1) a descriptor of it.
/// False if it may hold objects that nobody can tell: to show it as it is would be a wrong answer.
pub(crate) fn folder(id: &FileId, fd: i32) -> bool {
    if list_if_ours(id, fd) == Listing::Failed {
        return false;
    }
    if let Some((_, region)) = attached()
        && let Some(folder) = region.find(id.dev, id.ino).and_then(|(slot, _)| region.object(slot))
        && folder.kind() == Kind::Folder
    {
        READS_FOLDERS.store(true, Ordering::Relaxed);
        if folder.unfetched.load(Ordering::Acquire) != 0 {
            let _ = list_by(Ask::Enter, region.name(folder).as_bytes());
        }
    }
    true
}

/// Has an old listing of a folder renewed; what cannot be renewed stays as it is.
pub(crate) fn list_again(region: &Region, folder: &Object) {
    let _ = list(region.name(folder).as_bytes());
}

/// `id` is the folder's identity, `fd` a descriptor of it.
pub(crate) fn list_if_ours(id: &FileId, fd: i32) -> Listing {
    if attached().is_none() && !may_be_managed(id, fd) {
        return Listing::Needless;
    }
    let Some((_, region)) = attach().or_else(attach::last_known) else {
        let path = environ::descriptor_path(fd);
        let is_inside = path.is_some_and(|path| is_inside(path.as_bytes())) || is_model_dir(id);
        return if is_inside { Listing::Failed } else { Listing::Needless };
    };
    let folder = region.find(id.dev, id.ino).and_then(|(slot, _)| region.object(slot));
    let path = match folder.filter(|folder| folder.kind() == Kind::Folder) {
        Some(folder) if folder.state() == state::LISTED => {
            return if session::renew(&region, folder) { Listing::Done } else { Listing::Needless };
        }
        Some(folder) => CPath::from(region.name(folder).as_bytes()),
        None if region.header().folders_unlisted.load(Ordering::Acquire) == 0 => return Listing::Needless,
        // Something else may have been mounted over it since.
        None => match environ::descriptor_path(fd).filter(|path| is_inside(path.as_bytes())) {
            Some(path) => path,
            None => return Listing::Needless,
        },
    };
    if list(path.as_bytes()) { Listing::Done } else { Listing::Failed }
}

/// True for a folder that the engine in use has in its catalog.
pub(crate) fn is_folder_of_ours(id: &FileId) -> bool {
    attached().and_then(|(_, region)| region.find(id.dev, id.ino)).is_some_and(|(_, what)| what == Identity::Folder)
}

/// True for what lies on the device of MODEL_DIR.
pub(crate) fn is_on_model_dir(id: &FileId) -> bool {
    id.dev == MODEL_DEV.load(Ordering::Relaxed)
}

fn is_model_dir(id: &FileId) -> bool {
    (id.dev, id.ino) == (MODEL_DEV.load(Ordering::Relaxed), MODEL_INO.load(Ordering::Relaxed))
}

/// Whether a folder is worth asking an engine about, before this process has one: it is MODEL_DIR, an engine has
/// made it, or it lies inside by its name. Where folders can have no mark, every folder of the device is.
fn may_be_managed(id: &FileId, fd: i32) -> bool {
    if is_model_dir(id) || environ::descriptor_path(fd).is_some_and(|path| is_inside(path.as_bytes())) {
        return true;
    }
    let link = CPath::from(b"/proc/self/fd/").with_number(fd.max(0) as u64);
    match link.as_cstr().map(mark::Text::of_path) {
        Some(Ok(text)) => text.mark().is_some_and(|mark| mark.kind == mark::Kind::Folder),
        Some(Err(Errno(libc::EOPNOTSUPP))) => is_on_model_dir(id),
        _ => false,
    }
}

/// Changes with every listing that was made real, and when this process attaches: a name that was missing
/// under another value may be there now.
pub(crate) fn listings() -> u64 {
    attached().map_or(0, |(generation, region)| {
        u64::from(generation) << 32 | u64::from(region.header().listings.load(Ordering::Acquire))
    })
}

/// Asks the engine to list a folder, the next one if it is gone; true if it did. The path is relative to MODEL_DIR,
/// or absolute as the kernel names it.
pub(crate) fn list(path: &[u8]) -> bool {
    list_by(Ask::List, path)
}

fn list_by(ask: Ask, path: &[u8]) -> bool {
    for _ in 0..LIST_TRIES {
        let generation = attach::generation();
        let errno = match attach::ask(ask, path, LIST_MS) {
            Ok(_) => return true,
            // It had its time, and is still at it: the log says with what.
            Err(Errno(libc::ETIMEDOUT)) => return false,
            Err(errno) => errno,
        };
        match attach::alive(generation) {
            Err(MOVED) => {}
            // Its own answer: the origin refuses.
            Ok(()) if errno.0 == libc::EIO => return false,
            Ok(()) => sys::sleep_ms(20),
            Err(_) => return false,
        }
    }
    false
}

/// Hints: these bytes will be wanted soon.
pub(crate) fn will_need(slot: u32, start: u64, end: u64) {
    if let Some((region, object, _)) = resolve(slot) {
        region.demand_bytes(object, start, end);
    }
}

/// The program opened (1), mapped (2) or took as FILE (3) the object: a use; the audit file is told once of each.
pub(crate) fn tell(slot: u32, act: u32) {
    let Some((region, object, now)) = resolve(slot) else { return };
    // Each time: by this the engine knows of uses that begin and end between two of its looks.
    object.uses.fetch_add(1, Ordering::Relaxed);
    if kept::is_first(now, act) {
        region.tell(Event { pid: attach::pid() as u32, slot: number_of(now), act });
    }
}

/// Where an object's file was made: MODEL_DIR and its name.
pub(crate) fn path_of(slot: u32) -> CPath {
    let path = CPath::from(environ::model_dir());
    match resolve(slot) {
        Some((region, object, _)) => path.with(b"/").with(region.name(object).as_bytes()),
        None => path,
    }
}

/// A line for the log, from a client (rare: refused writes, failed waits): what, on which object.
pub(crate) fn log(what: &[u8], slot: u32) {
    let Some((region, object, _)) = resolve(slot) else { return };
    log_named(what, region.name(object).as_bytes());
}

/// The same with the object's name.
pub(crate) fn log_named(what: &[u8], object: &[u8]) {
    let Some((_, region)) = attach::last_known() else { return };
    let path = CPath::from(region.log_path());
    let Some(name) = path.as_cstr() else { return };
    // A FIFO without a reader, or whose reader does not keep up, holds no program back.
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let Ok(fd) = sys::openat(sys::AT_FDCWD, name, flags, 0) else { return };
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the struct it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut now) };
    let line = CPath::default()
        .with_number(now.tv_sec as u64)
        .with(b" WARN client pid=")
        .with_number(attach::pid() as u64)
        .with(b" ")
        .with(what)
        .with(b" object=")
        .with_shown(object)
        .with(b"\n");
    let _ = sys::write(fd, line.as_bytes());
    let _ = sys::close(fd);
}

pub(crate) fn slot_of(generation: u32, incarnation: u32, number: u32) -> u32 {
    generation << GENERATION_SHIFT | (incarnation & USE_MASK) << USE_SHIFT | number & NUMBER_MASK
}

/// True if both are one object in the region of now.
pub(crate) fn is_same(one: u32, other: u32) -> bool {
    match (resolve(one), resolve(other)) {
        (Some((_, _, one)), Some((_, _, other))) => one == other,
        _ => false,
    }
}

/// Plain number of a slot's record in its own generation.
pub(crate) fn number_of(slot: u32) -> u32 {
    slot & NUMBER_MASK
}

/// Generation and use of a slot: what is kept of a record is kept of these.
pub(crate) fn tag_of(slot: u32) -> u32 {
    slot >> USE_SHIFT
}

/// True while the record is in the use that the slot is of: what was read of it so far is of that use. The slot has
/// the low bits of its number; a call does not take as long as 256 uses with a rest each.
#[inline]
fn lasts(object: &Object, slot: u32) -> bool {
    let incarnation = object.incarnation();
    incarnation & USE_MASK == tag_of(slot) & USE_MASK && object.lasts(incarnation)
}

/// Region, record and slot of now behind a slot; an old generation's slot is looked up again by inode, after
/// its folder was listed where the new engine has not done so yet. `None` for a version that is no more.
#[inline]
pub(crate) fn resolve(slot: u32) -> Option<(Region, &'static Object, u32)> {
    let (region, object) = record_of(slot)?;
    if attach::generation() != slot >> GENERATION_SHIFT {
        resolve_again(slot, region, object)
    } else {
        let is_same = object.seen().is_some_and(|incarnation| incarnation & USE_MASK == tag_of(slot) & USE_MASK);
        is_same.then_some((region, object, slot))
    }
}

/// The same for what is kept: also of a record that is GONE, as long as it is not used again. `None` if there is
/// another generation by now.
pub(crate) fn resolve_kept(slot: u32) -> Option<(Region, &'static Object)> {
    let (region, object) = record_of(slot)?;
    let is_same = object.incarnation() & USE_MASK == tag_of(slot) & USE_MASK;
    (is_same && attach::generation() == slot >> GENERATION_SHIFT).then_some((region, object))
}

/// The record of a slot, whatever it says now.
fn record_of(slot: u32) -> Option<(Region, &'static Object)> {
    let region = attach::region_of(slot >> GENERATION_SHIFT)?;
    Some((region, record(region, number_of(slot))?))
}

/// The record in the region of now of an object in the region of an engine before.
#[cold]
#[inline(never)]
fn resolve_again(slot: u32, region: Region, object: &'static Object) -> Option<(Region, &'static Object, u32)> {
    let before = (object.dev(), object.ino(), object.size(), object.etag());
    let name = region.name(object);
    if !lasts(object, slot) {
        return None;
    }
    let (dev, ino, size, etag) = before;
    loop {
        let current = attach::generation();
        if current == slot >> GENERATION_SHIFT {
            return Some((region, object, slot));
        }
        let region_now = attach::region_of(current)?;
        if let Some((number_now, incarnation, _)) = region_now.find_use(dev, ino) {
            let object_now = record(region_now, number_now)?;
            let is_same = object_now.etag() == etag && object_now.size() == size && object_now.lasts(incarnation);
            return is_same.then_some((region_now, object_now, slot_of(current, incarnation, number_now)));
        }
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let is_unlisted = region_now.header().folders_unlisted.load(Ordering::Acquire) != 0;
        let listed = is_unlisted && list(folder.as_bytes());
        if attach::generation() == current && (!listed || region_now.find(dev, ino).is_none()) {
            return None;
        }
    }
}

/// The record behind a slot in its own region while it stands for the same version, and the generation of that.
pub(crate) fn record_in(slot: u32) -> Option<(u32, &'static Object)> {
    let (_, object) = record_of(slot)?;
    lasts(object, slot).then_some((slot >> GENERATION_SHIFT, object))
}

/// The verdict in the record behind a slot in its own region, also of one that is GONE, as long as it is not used again.
pub(crate) fn verdict_of(slot: u32) -> Option<Judged> {
    let (_, object) = record_of(slot)?;
    let judged = object.verdict.get();
    (object.incarnation() & USE_MASK == tag_of(slot) & USE_MASK).then_some(judged)
}

/// True if the newest listing of `region` shows the very version that a record of another region (of this generation)
/// stands for: by its file, or by its name.
pub(crate) fn is_shown(region: &Region, generation: u32, object: &Object) -> bool {
    let Some(own) = attach::region_of(generation) else { return false };
    let is_same = |now: &Object| {
        !now.is_superseded() && (now.etag(), now.size()) == (object.etag(), object.size()) && now.state() != state::GONE
    };
    let by_file = region.find(object.dev(), object.ino()).and_then(|(number, _)| region.object(number));
    by_file.is_some_and(is_same)
        || (0..region.objects_len())
            .filter_map(|number| region.object(number))
            .any(|now| is_same(now) && now.kind() != Kind::Folder && region.name(now) == own.name(object))
}

/// True if a file that this process has open or mapped is of a version that the newest listing does not show.
pub(crate) fn is_old_file(dev: u64, ino: u64) -> bool {
    let is_old = |generation: u32, object: &Object, region: &Region| match attach::last_known() {
        Some((now, _)) if now == generation => object.is_superseded() && !is_shown(region, generation, object),
        Some((_, region)) => !is_shown(&region, generation, object),
        None => true,
    };
    (1..=attach::generation()).rev().any(|generation| {
        let Some(region) = attach::region_of(generation) else { return false };
        let found = region.find(dev, ino).map(|(number, _)| number).or_else(|| region.find_any_file(dev, ino));
        let object = found.and_then(|number| region.object(number)).filter(|object| object.kind() != Kind::Folder);
        object.is_some_and(|object| is_old(generation, object, &region))
    })
}

/// The record with this number in a region.
pub(crate) fn record(region: Region, number: u32) -> Option<&'static Object> {
    // SAFETY: regions are never unmapped, so a record lives as long as the process.
    region.object(number).map(|object| unsafe { &*(object as *const Object) })
}
