//! Being a client: the engine's region and store in this process, under a generation number that changes
//! with every engine whose catalog is a new one, and what is done when that engine is gone.
//!
//! Called by the constructor, and by all that needs the region. It starts an engine where this process may and there is
//! none. It never unmaps a region that it has given out, and never uses a kept descriptor without asking what it is.

use crate::early;
use crate::engine_name;
use crate::environ;
use crate::process::pid;
use crate::say;
pub(crate) use crate::say::say;
use crate::start::{self, FirstWord};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use ossc_cache::lock;
use ossc_cache::region::{REGION_BYTES, Region};
use ossc_cache::sys::{self, Errno, Result};
use ossc_cache::wire::{self, Ask, outputs};

/// How long one question to the engine may take, in milliseconds.
pub(crate) const ASK_MS: u64 = 5_000;
/// How long a client waits for an engine that is starting, or for its first one to be started by somebody else.
const ATTACH_MS: u64 = 60_000;
/// How long a client that has lost its engine and may not start one waits for somebody who may: readers get
/// EIO within 5 s.
const ORPHAN_MS: u64 = 3_000;
/// For so long after that it does not try again.
const ORPHAN_PAUSE_MS: u64 = 1_000;
/// The same for one that has never met an engine in all of `ATTACH_MS`.
const LONELY_PAUSE_MS: u64 = 10_000;
/// A wait for an engine that runs is spoken of after this long, and again each time that so much has passed.
const WORD_MS: u64 = 5_000;
const AGAIN_MS: u64 = 10_000;
/// How often an engine is started that ends without a word (somebody has killed it).
const STARTS_MAX: u32 = 3;
/// Kept descriptors lie from here on, out of the way of programs that count on low numbers.
pub(crate) const PRIVATE_FD_MIN: i32 = 700;
/// The door is kept where numbers up to here may be used.
const SPARE_FD_MIN: i32 = 64;
/// Not an errno of any kernel: the wait goes on with another region.
pub(crate) const MOVED: Errno = Errno(i32::MAX);

/// Most engines with a catalog of their own that a process meets: a slot has 7 bits for their number, which never
/// comes back, since what is kept of an object of an engine before is known by it.
const GENERATIONS_MAX: u32 = 126;

static MEMORY_DEV: AtomicU64 = AtomicU64::new(u64::MAX);
static REGIONS: [AtomicPtr<u8>; 128] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 128];
/// Generation in use, counted from 1; 0 before the first attach.
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// Process that is registered with the engine; a forked child differs and registers anew.
static ATTACHED_PID: AtomicI32 = AtomicI32::new(0);
/// The engine that it is registered with.
static ENGINE_PID: AtomicU32 = AtomicU32::new(0);
/// Holder of the right to attach: the number of a thread, so that a forked child does not wait for a thread it has not got.
static ATTACHING: AtomicI32 = AtomicI32::new(0);
/// Folder of the memory files, where there is one.
static STORE: PrivateFd = PrivateFd::new();
/// The engine's door, see `wire::ask_at_door`.
static DOOR: PrivateFd = PrivateFd::new();
/// The user that this process had when it started.
static USER: AtomicU32 = AtomicU32::new(u32::MAX);
static REFUSED: AtomicBool = AtomicBool::new(false);
/// Until when (monotonic milliseconds) no engine is looked for again.
static ORPHAN_UNTIL: AtomicU64 = AtomicU64::new(0);

/// Constructor: takes down what must not change.
pub(crate) fn begin() {
    USER.store(sys::geteuid(), Ordering::Relaxed);
    sys::meet_clock();
}

/// Device of the memory files, once attached.
#[inline]
pub(crate) fn memory_dev() -> u64 {
    MEMORY_DEV.load(Ordering::Relaxed)
}

/// Generation of the catalog in use; 0 before the first attach.
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Acquire)
}

/// The region of a generation.
pub(crate) fn region_of(generation: u32) -> Option<Region> {
    let base = REGIONS.get(generation as usize)?.load(Ordering::Acquire);
    // SAFETY: only `adopt` stores bases, of regions that it has mapped for good.
    (!base.is_null()).then(|| unsafe { Region::from_base(base) })
}

/// The regions of the engines before the one in use.
pub(crate) fn regions_before() -> impl Iterator<Item = Region> {
    let current = generation();
    (1..REGIONS.len() as u32).filter(move |generation| *generation != current).filter_map(region_of)
}

/// The region in use, if this process is a client.
pub(crate) fn attached() -> Option<(u32, Region)> {
    let mine = ATTACHED_PID.load(Ordering::Acquire) == pid();
    if mine { last_known() } else { None }
}

/// True if this process is registered with an engine.
pub(crate) fn is_attached() -> bool {
    attached().is_some()
}

/// The region that was in use last, also when its engine is gone.
pub(crate) fn last_known() -> Option<(u32, Region)> {
    let generation = generation();
    region_of(generation).map(|region| (generation, region))
}

/// Starts an engine, again if it ends without a word. `store` as for `launch`.
pub(crate) fn start_engine(store: i32) -> start::Start {
    let mut start = start::launch(store);
    for _ in 1..STARTS_MAX {
        if !matches!(start.word, FirstWord::Silent) {
            break;
        }
        start = start::launch(store);
    }
    start
}

/// True if some process holds the lock of an engine. A process that has changed its user or its root cannot look at
/// the lock's file any more: then the door tells.
pub(crate) fn engine_runs() -> bool {
    environ::lock_path().as_cstr().is_some_and(sys::is_locked) || DOOR.get().is_some_and(|door| !sys::is_hung_up(door))
}

/// Asks the engine: by the socket's path, or at the door where this process may not go there any more.
pub(crate) fn ask_engine(question: Ask, text: &[u8], ms: u64) -> Result<wire::Packet> {
    ask_engine_with(question, text, &|fd| sys::wait_readable(fd, ms))
}

/// The same, where `wait` waits for the connection to be readable: false if that takes too long.
pub(crate) fn ask_engine_with(question: Ask, text: &[u8], wait: &dyn Fn(i32) -> bool) -> Result<wire::Packet> {
    match wire::ask_at_socket_with(environ::socket_path(), question, text, wait) {
        Err(errno @ Errno(libc::EACCES | libc::EPERM | libc::ENOENT | libc::ENOTDIR)) => match DOOR.get() {
            Some(door) => wire::ask_at_door(door, question, text, wait).map_err(|at_door| match at_door.0 {
                // The engine that it is the door of is gone.
                libc::EPIPE => errno,
                _ => at_door,
            }),
            None => Err(errno),
        },
        answer => answer,
    }
}

/// True if this process may start an engine: not for another user than the one that it was started by, whose run
/// folder and MODEL_DIR are others.
fn can_start() -> bool {
    environ::can_start() && !has_other_user()
}

fn has_other_user() -> bool {
    sys::geteuid() != USER.load(Ordering::Relaxed)
}

/// True if the engine that runs is the one behind this region, and knows this process: it has left the
/// region's number in its lock file. Whether its pid lives would not tell: it may be a zombie's, another
/// namespace's, or used again. One that has left no number yet is starting: another one, or this one's successor. Where this process cannot read the file any more its door has told that the engine runs.
fn engine_is_same(generation: u32) -> bool {
    let Some(region) = region_of(generation) else { return false };
    let birth = region.header().birth.load(Ordering::Acquire);
    region.header().engine_pid.load(Ordering::Acquire) == ENGINE_PID.load(Ordering::Acquire)
        && environ::lock_path().as_cstr().is_none_or(|path| lock::may_name(path, birth))
}

/// After each slice of a wait: is somebody working on it? Starts an engine where there is none. MOVED when
/// there is another region by now.
pub(crate) fn alive(waited_in: u32) -> Result<()> {
    if generation() != waited_in {
        return Err(MOVED);
    }
    if engine_runs() && engine_is_same(waited_in) {
        return Ok(());
    }
    ATTACHED_PID.store(0, Ordering::Release);
    match attach() {
        Some((now, _)) if now != waited_in => Err(MOVED),
        Some(_) => Ok(()),
        None => Err(Errno(libc::EIO)),
    }
}

/// Makes this process a client; at once if it is one.
pub(crate) fn attach() -> Option<(u32, Region)> {
    if let Some(known) = attached() {
        return Some(known);
    }
    let in_vain = || REFUSED.load(Ordering::Relaxed) || sys::now_ms() < ORPHAN_UNTIL.load(Ordering::Relaxed);
    if in_vain() {
        return None;
    }
    // A forked child may have a time namespace of its own.
    sys::meet_clock();
    let until = sys::now_ms() + ATTACH_MS;
    // This thread itself may have left the attach by a jump out of a signal handler, or stand in a handler in the middle of it.
    // To attach twice is no more than to attach once.
    let tid = sys::gettid();
    loop {
        let holder = ATTACHING.load(Ordering::Acquire);
        if (holder == 0 || holder == tid || sys::is_no_thread(pid(), holder))
            && ATTACHING.compare_exchange(holder, tid, Ordering::AcqRel, Ordering::Acquire).is_ok()
        {
            break;
        }
        if sys::now_ms() > until {
            return None;
        }
        sys::sleep_ms(1);
    }
    // Another thread may have done it meanwhile, or have tried in vain.
    let done = attached().or_else(|| if in_vain() { None } else { attach_alone(until) });
    if done.is_none() && !in_vain() {
        let pause = if generation() == 0 { LONELY_PAUSE_MS } else { ORPHAN_PAUSE_MS };
        ORPHAN_UNTIL.store(sys::now_ms() + pause, Ordering::Relaxed);
    }
    ATTACHING.store(0, Ordering::Release);
    done
}

/// What an engine serves that this process names otherwise: the reason, if there is one. `its`: the engine's keys of
/// OSS_PATH and OSS_ENDPOINT, 0 where they are not known.
fn differs(its: [u64; 2]) -> Option<&'static [u8]> {
    let is_other = |own: u64, its: u64| own != 0 && its != 0 && own != its;
    match its {
        [path, _] if is_other(environ::oss_path_key(), path) => Some(ANOTHER_PATH),
        [_, endpoint] if is_other(environ::endpoint_key(), endpoint) => Some(ANOTHER_ENDPOINT),
        _ => None,
    }
}

const ANOTHER_PATH: &[u8] = b"the engine of this MODEL_DIR serves another OSS_PATH: use another MODEL_DIR, or wait until lingerSec after its last program";
const ANOTHER_ENDPOINT: &[u8] = b"the engine of this MODEL_DIR serves another OSS_ENDPOINT: use another MODEL_DIR, or wait until lingerSec after its last program";

/// Why the running engine is not the one that this process names: it serves another OSS_PATH, or from another
/// OSS_ENDPOINT.
pub(crate) fn is_another() -> Option<&'static [u8]> {
    let word = |index| environ::lock_path().as_cstr().and_then(|path| lock::read_number(path, index)).unwrap_or(0);
    let look = || differs([word(lock::PATH_KEY), word(lock::ENDPOINT_KEY)]);
    // An engine that has just taken the lock empties the file of what the one before has left.
    look()?;
    sys::sleep_ms(50);
    look()
}

/// Tells the running engine where this process's credentials come from: they may be newer than its own. It takes them
/// before what this process asks later; one that does not listen yet was just started, mostly with the same ones.
pub(crate) fn tell_credentials() {
    let mut text = [0u8; wire::TEXT_MAX];
    let len = environ::credentials(&mut text);
    if len > 0 {
        let _ = wire::tell(environ::socket_path(), Ask::Credentials, &text[..len], wire::NO_FDS);
    }
    text.fill(0);
    core::hint::black_box(&text);
}

/// Offers this process's standard streams to the running engine, if that writes to such: those that it had may be of a
/// program that has ended.
pub(crate) fn offer_streams() {
    let wanted = environ::lock_path().as_cstr().and_then(|path| lock::read_number(path, lock::OUTPUTS)).unwrap_or(0);
    let (mut bits, mut count, mut fds) = (0, 0, wire::NO_FDS);
    for (fd, bit) in [(say::STDOUT, outputs::STDOUT), (say::STDERR, outputs::STDERR)] {
        if wanted & u64::from(bit) != 0 && say::stream(fd) >= 0 {
            (fds[count], bits, count) = (fd, bits | bit, count + 1);
        }
    }
    if bits != 0 {
        let _ = wire::tell(environ::socket_path(), Ask::Outputs(bits), b"", fds);
    }
}

fn attach_alone(until: u64) -> Option<(u32, Region)> {
    let orphan_until = sys::now_ms() + ORPHAN_MS;
    // Where there is no engine only another program can help: its user has to know at once.
    let mut word_at = if engine_runs() || can_start() { sys::now_ms() + WORD_MS } else { 0 };
    loop {
        match ask_engine(Ask::Attach, b"", ASK_MS) {
            Ok(packet) => return adopt(packet.fds),
            Err(Errno(libc::ENOTSUP)) => {
                say(&[
                    b"oss connector: the running engine is of another version: restart the program that started it\n",
                ]);
                REFUSED.store(true, Ordering::Relaxed);
                return None;
            }
            Err(Errno(libc::EACCES | libc::EPERM)) => {
                say(&[if has_other_user() {
                    b"oss connector: this process has changed its user and cannot reach an engine any more\n"
                } else {
                    b"oss connector: the running engine belongs to another user: give this one a CONNECTOR_UDS_PATH of its own\n".as_slice()
                }]);
                REFUSED.store(true, Ordering::Relaxed);
                return None;
            }
            // No descriptor can be had, now or soon.
            Err(Errno(libc::EMFILE | libc::ENFILE)) => return None,
            Err(_) if engine_runs() => {}
            Err(_) if can_start() => {
                let start = start_engine(store_folder().unwrap_or(-1));
                if matches!(start.word, FirstWord::Failed | FirstWord::Silent) {
                    say(&[b"oss connector: ", start.text(), b"\n"]);
                    return None;
                }
                continue;
            }
            // Once there was one: nobody is waited for that may never come.
            Err(_) if generation() != 0 && sys::now_ms() > orphan_until => return None,
            Err(_) => {}
        }
        if sys::now_ms() > word_at {
            engine_name::speak(engine_runs(), b"waiting for ", b"");
            word_at = sys::now_ms() + AGAIN_MS;
        }
        if sys::now_ms() > until {
            engine_name::speak(
                engine_runs(),
                b"no answer of ",
                b": what may be in MODEL_DIR cannot be told, and reads of it give EIO",
            );
            return None;
        }
        sys::sleep_ms(20);
    }
}

/// Takes the region and the memory folder that came with the answer.
fn adopt(fds: [i32; wire::FDS_MAX]) -> Option<(u32, Region)> {
    let [catalog, board, door, store] = fds;
    let mapped = Region::map([catalog, board]);
    wire::close_all(&[catalog, board]);
    let Ok(region) = mapped else {
        wire::close_all(&[door, store]);
        return None;
    };
    let header = region.header();
    if let Some(why) = differs([&header.oss_path_key, &header.endpoint_key].map(|key| key.load(Ordering::Acquire))) {
        say(&[b"oss connector: ", why, b"\n"]);
        REFUSED.store(true, Ordering::Relaxed);
        wire::close_all(&[door, store]);
        return None;
    }
    let before = generation();
    if before >= GENERATIONS_MAX && !region_of(before).is_some_and(|old| old.same_as(&region)) {
        // SAFETY: mapped above, and nothing refers to it.
        let _ = unsafe { sys::munmap(region.base() as usize, REGION_BYTES) };
        say(&[
            b"oss connector: this program has lost more engines than it can tell apart: reads give EIO until it is started again\n",
        ]);
        REFUSED.store(true, Ordering::Relaxed);
        wire::close_all(&[door, store]);
        return None;
    }
    MEMORY_DEV.store(region.header().memory_dev.load(Ordering::Acquire), Ordering::Relaxed);
    STORE.replace(store);
    // A process that may have few descriptors needs them for its files.
    match sys::dup_from(door, SPARE_FD_MIN) {
        Ok(spare) => {
            let _ = sys::close(spare);
            DOOR.replace(door);
        }
        Err(_) => wire::close_all(&[door]),
    }
    // A forked child or a process that registers again meets the region it already has: same numbers.
    let known = region_of(before).filter(|old| old.same_as(&region));
    let found = match known {
        Some(old) => {
            // SAFETY: mapped above, and nothing refers to it.
            let _ = unsafe { sys::munmap(region.base() as usize, REGION_BYTES) };
            (before, old)
        }
        None => {
            let generation = before + 1;
            early::moves();
            REGIONS[generation as usize].store(region.base().cast_mut(), Ordering::Release);
            GENERATION.store(generation, Ordering::Release);
            (generation, region)
        }
    };
    ENGINE_PID.store(found.1.header().engine_pid.load(Ordering::Acquire), Ordering::Release);
    ATTACHED_PID.store(pid(), Ordering::Release);
    Some(found)
}

/// The kept descriptor of the folder with the memory files, if it still is that.
pub(crate) fn store_folder() -> Option<i32> {
    STORE.get()
}

/// A descriptor of ours in the host's table, which the host may close, and open a file of its own at its number.
struct PrivateFd {
    fd: AtomicI32,
    dev: AtomicU64,
    ino: AtomicU64,
}

impl PrivateFd {
    const fn new() -> PrivateFd {
        PrivateFd { fd: AtomicI32::new(-1), dev: AtomicU64::new(0), ino: AtomicU64::new(0) }
    }

    /// Keeps this one, or none (-1), instead of the one before, which would keep all that it leads to alive.
    fn replace(&self, fd: i32) {
        let before = self.get();
        if fd < 0 {
            self.fd.store(-1, Ordering::Release);
        } else {
            let high = sys::dup_from(fd, PRIVATE_FD_MIN).inspect(|_| {
                let _ = sys::close(fd);
            });
            let kept = high.unwrap_or(fd);
            let id = sys::file_id(kept).map_or((0, 0), |id| (id.dev, id.ino));
            self.dev.store(id.0, Ordering::Relaxed);
            self.ino.store(id.1, Ordering::Relaxed);
            self.fd.store(kept, Ordering::Release);
        }
        if let Some(before) = before {
            let _ = sys::close(before);
        }
    }

    /// The descriptor, if it still is what was kept.
    fn get(&self) -> Option<i32> {
        let fd = self.fd.load(Ordering::Acquire);
        let id = (fd >= 0).then(|| sys::file_id(fd).ok())??;
        (id.ino == self.ino.load(Ordering::Relaxed) && id.dev == self.dev.load(Ordering::Relaxed)).then_some(fd)
    }
}
