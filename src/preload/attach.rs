//! Being a client: the engine's region and store in this process, under a generation number that changes
//! with every engine whose catalog is a new one, and what is done when that engine is gone.
//!
//! Called by `client` and `kept`. It starts an engine where this process may and there is none. It never
//! unmaps a region that it has given out, and never uses a kept descriptor without asking what it is.

use crate::environ;
pub(crate) use crate::say::say;
use crate::start::{self, FirstWord};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use ossc_cache::region::{REGION_BYTES, Region};
use ossc_cache::sys::{self, Errno, Result};
use ossc_cache::wire::{self, Ask};

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
/// A wait for an engine is spoken of after this long.
const WORD_MS: u64 = 5_000;
/// How often an engine is started that ends without a word (somebody has killed it).
const STARTS_MAX: u32 = 3;
/// Kept descriptors lie from here on, out of the way of programs that count on low numbers.
pub(crate) const KEPT_FD_MIN: i32 = 700;
/// Not an errno of any kernel: the wait goes on with another region.
pub(crate) const MOVED: Errno = Errno(i32::MAX);

static MEMORY_DEV: AtomicU64 = AtomicU64::new(u64::MAX);
static REGIONS: [AtomicPtr<u8>; 128] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 128];
/// Generation in use, counted from 1; 0 before the first attach.
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// Process that is registered with the engine; a forked child differs and registers anew.
static ATTACHED_PID: AtomicI32 = AtomicI32::new(0);
/// The engine that it is registered with.
static ENGINE_PID: AtomicU32 = AtomicU32::new(0);
static PID: AtomicI32 = AtomicI32::new(0);
/// Holder of the right to attach: a pid, so that a forked child does not wait for a thread it has not got.
static ATTACHING: AtomicI32 = AtomicI32::new(0);
static STORE_FD: AtomicI32 = AtomicI32::new(-1);
static STORE_INO: AtomicU64 = AtomicU64::new(0);
static STORE_DEV: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicBool = AtomicBool::new(false);
/// Until when (monotonic milliseconds) no engine is looked for again.
static ORPHAN_UNTIL: AtomicU64 = AtomicU64::new(0);

/// This process is another one now: at start, and in the child of a fork.
pub(crate) fn own() {
    PID.store(sys::getpid(), Ordering::Relaxed);
}

/// This process's id.
pub(crate) fn pid() -> i32 {
    PID.load(Ordering::Relaxed)
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

/// True if some process holds the lock of an engine.
pub(crate) fn engine_runs() -> bool {
    environ::lock_path().as_cstr().is_some_and(sys::is_locked)
}

/// True if the engine that runs is the one behind this region, and knows this process: it has left the
/// region's number in its lock file. Whether its pid lives would not tell: it may be a zombie's, another
/// namespace's, or used again.
fn engine_is_same(generation: u32) -> bool {
    let Some(region) = region_of(generation) else { return false };
    let birth = region.header().birth.load(Ordering::Acquire);
    region.header().engine_pid.load(Ordering::Acquire) == ENGINE_PID.load(Ordering::Acquire)
        && environ::lock_path().as_cstr().and_then(|path| sys::lock_word(path, 0)).is_none_or(|word| word == birth)
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
    let until = sys::now_ms() + ATTACH_MS;
    loop {
        let holder = ATTACHING.load(Ordering::Acquire);
        if (holder == 0 || holder != pid())
            && ATTACHING.compare_exchange(holder, pid(), Ordering::AcqRel, Ordering::Acquire).is_ok()
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

/// True if the running engine serves another OSS_PATH than this process names.
pub(crate) fn is_of_another_path() -> bool {
    let own = environ::oss_path_key();
    let differs = || {
        let its = environ::lock_path().as_cstr().and_then(|path| sys::lock_word(path, 1)).unwrap_or(0);
        own != 0 && its != 0 && own != its
    };
    // An engine that has just taken the lock empties the file of what the one before has left.
    differs() && {
        sys::sleep_ms(50);
        differs()
    }
}

fn attach_alone(until: u64) -> Option<(u32, Region)> {
    let orphan_until = sys::now_ms() + ORPHAN_MS;
    let mut word_at = sys::now_ms() + WORD_MS;
    loop {
        match wire::ask(environ::socket_path(), Ask::Attach, b"", ASK_MS) {
            Ok(packet) => return adopt(packet.fds),
            Err(Errno(libc::ENOTSUP)) => {
                say(&[
                    b"oss connector: the running engine is of another version: restart the program that started it\n",
                ]);
                REFUSED.store(true, Ordering::Relaxed);
                return None;
            }
            Err(Errno(libc::EACCES | libc::EPERM)) => {
                say(&[b"oss connector: the running engine belongs to another user: give this one a CONNECTOR_UDS_PATH of its own\n"]);
                REFUSED.store(true, Ordering::Relaxed);
                return None;
            }
            // No descriptor can be had, now or soon.
            Err(Errno(libc::EMFILE | libc::ENFILE)) => return None,
            Err(_) if engine_runs() => {}
            Err(_) if environ::can_start() => {
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
            say(&[b"oss connector: waiting for an engine (a program with ENABLE_CONNECTOR=1 starts it)\n"]);
            word_at = u64::MAX;
        }
        if sys::now_ms() > until {
            say(&[
                b"oss connector: no engine came: what may be in MODEL_DIR cannot be told, and reads of it give EIO\n",
            ]);
            return None;
        }
        sys::sleep_ms(20);
    }
}

/// Takes the region and the memory folder that came with the answer.
fn adopt(fds: [i32; wire::FDS_MAX]) -> Option<(u32, Region)> {
    let [region_fd, store] = fds;
    let mapped = Region::map(region_fd);
    let _ = sys::close(region_fd);
    let Ok(region) = mapped else {
        let _ = sys::close(store);
        return None;
    };
    let (own, its) = (environ::oss_path_key(), region.header().oss_path_key.load(Ordering::Acquire));
    if own != 0 && its != 0 && own != its {
        say(&[b"oss connector: the engine of this MODEL_DIR serves another OSS_PATH: use another MODEL_DIR, or wait until lingerSec after its last program\n"]);
        REFUSED.store(true, Ordering::Relaxed);
        let _ = sys::close(store);
        return None;
    }
    MEMORY_DEV.store(region.header().memory_dev.load(Ordering::Acquire), Ordering::Relaxed);
    keep_store(store);
    let before = generation();
    // A forked child or a process that registers again meets the region it already has: same numbers.
    let known = region_of(before).filter(|old| old.same_as(&region));
    let found = match known {
        Some(old) => {
            // SAFETY: mapped above, and nothing refers to it.
            let _ = unsafe { sys::munmap(region.base() as usize, REGION_BYTES) };
            (before, old)
        }
        None => {
            let generation = before % 127 + 1;
            REGIONS[generation as usize].store(region.base().cast_mut(), Ordering::Release);
            GENERATION.store(generation, Ordering::Release);
            (generation, region)
        }
    };
    ENGINE_PID.store(found.1.header().engine_pid.load(Ordering::Acquire), Ordering::Release);
    ATTACHED_PID.store(pid(), Ordering::Release);
    Some(found)
}

/// Keeps the folder of the memory files instead of the one before, which would keep all of its files alive.
fn keep_store(store: i32) {
    let before = store_folder();
    if store < 0 {
        STORE_FD.store(-1, Ordering::Release);
    } else {
        let high = sys::dup_from(store, KEPT_FD_MIN).inspect(|_| {
            let _ = sys::close(store);
        });
        let kept = high.unwrap_or(store);
        let id = sys::file_id(kept).map_or((0, 0), |id| (id.dev, id.ino));
        STORE_DEV.store(id.0, Ordering::Relaxed);
        STORE_INO.store(id.1, Ordering::Relaxed);
        STORE_FD.store(kept, Ordering::Release);
    }
    if let Some(before) = before {
        let _ = sys::close(before);
    }
}

/// The kept descriptor of the folder with the memory files, if it still is that.
pub(crate) fn store_folder() -> Option<i32> {
    let store = STORE_FD.load(Ordering::Acquire);
    let id = (store >= 0).then(|| sys::file_id(store).ok())??;
    (id.ino == STORE_INO.load(Ordering::Relaxed) && id.dev == STORE_DEV.load(Ordering::Relaxed)).then_some(store)
}
