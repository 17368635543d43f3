//! What this process has had of each folder, so that it gets one version of a model as a whole: the newest listing before
//! its first use, and an error instead of a mixture where objects change under a load that is under way.
//!
//! Called by the hooks where a file or folder of ours was recognised. It allocates nothing, takes no lock and
//! remembers in fixed tables; the child of a `vfork`, which shares them, changes nothing. A session of a folder is
//! the objects that were opened in it since its content changed last; when it has changed again, what is open keeps
//! its version, and what would mix with it is ESTALE until a new session may begin.

use crate::attach;
use crate::handle::{Handle, Slot};
use crate::listing;
use crate::log;
use crate::process;
use crate::say::say;
use crate::uses;
use crate::version;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use ossc_cache::event::ACT_SMALL;
use ossc_cache::had::{Had, Names};
use ossc_cache::region::{OBJECTS_MAX, Object, RecordKind, Region, place_key, state};
use ossc_cache::sys;

mod old_versions;

/// How long a listing that changes names may take to be made real, in milliseconds.
const CHANGING_MS: u64 = 10_000;
const SLICE_MS: u64 = 200;
/// A program that opens the only object that it uses of a folder again after this many milliseconds looks for a new
/// version; one that does so at once is still loading the old one.
const ALONE_MS: u64 = 500;
/// After so many times `listAgainSec` without a use a program loads anew, although it has parts of the old version
/// mapped or open, or is slow.
const HELD_TIMES: u64 = 12;
/// The same for one that goes on with a file that it did not use before: it may be a slow load, or a server that had
/// something of the folder days ago.
const OTHERS_TIMES: u64 = 120;

/// What the hook does with what it has opened or looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is the version that this process may have.
    Go,
    /// Its name may lead to another version by now: the call is to be made again.
    Again,
    /// It would mix versions: ESTALE.
    Stale,
}

/// What is kept of a folder.
struct Folder {
    /// Generation of the catalog (above) and the value of `changes` (below) that the session is of.
    seen: AtomicU64,
    /// When something of it was used last, in milliseconds of the monotonic clock; 0 before.
    used_ms: AtomicU64,
}

static FOLDERS: [Folder; OBJECTS_MAX as usize] =
    [const { Folder { seen: AtomicU64::new(0), used_ms: AtomicU64::new(0) } }; OBJECTS_MAX as usize];
/// The objects that were opened.
static HAD: Had = Had::new();
/// The last refusal that was spoken of: one line for each change of a folder.
static SPOKEN: AtomicU32 = AtomicU32::new(0);

/// An object was opened by its name, for the first time if `repeats` is 0: may this process have it?
pub(crate) fn opened(handle: &Handle, repeats: u32) -> Turn {
    let Some(now @ Handle { region, object, .. }) = handle.now() else { return Turn::Go };
    let Some(folder) = region.folder_of(object) else { return Turn::Go };
    if repeats == 0 {
        region.traces(folder).uses.fetch_add(1, SeqCst);
    }
    let changed = renew(&region, folder);
    if object.is_superseded() {
        return if repeats == 0 || changed { Turn::Again } else { old(handle, &now) };
    }
    if changed {
        return Turn::Again;
    }
    if object.kind() == RecordKind::Small {
        uses::tell(&now, ACT_SMALL);
    }
    join(handle, &now, folder)
}

/// An object was looked at (`stat`): its folder's listing is renewed where it is too old.
pub(crate) fn looked(handle: &Handle, repeats: u32) -> Turn {
    let Some(Handle { region, object, .. }) = handle.now() else { return Turn::Go };
    let Some(folder) = region.folder_of(object) else { return Turn::Go };
    let changed = renew(&region, folder);
    if changed || object.is_superseded() && repeats == 0 { Turn::Again } else { Turn::Go }
}

/// Bytes are read through a descriptor that came from elsewhere, or was opened before: it is part of the session.
pub(crate) fn taken(handle: &Handle) {
    let Some(Handle { region, object, .. }) = handle.now() else { return };
    if let Some(folder) = region.folder_of(object)
        && process::is_owner()
    {
        HAD.insert(handle.slot.to_bits(), names(&region, folder, object));
        used(object.folder());
    }
}

/// A descriptor or map of the object is gone: until now it was in use.
pub(crate) fn let_go(handle: &Handle) {
    if let Some(now) = handle.now() {
        used(now.object.folder());
    }
}

/// Has the listing of a folder renewed if it is too old, and waits while another one is made real. True if the folder's
/// content changed meanwhile.
pub(crate) fn renew(region: &Region, folder: &Object) -> bool {
    let before = folder.changes.load(SeqCst);
    if is_too_old(region, folder) {
        listing::list_again(region, folder);
    }
    let until = sys::now_ms() + CHANGING_MS;
    let mut looked_ms = sys::now_ms();
    while folder.is_changing() && sys::now_ms() < until {
        sys::sleep_ms(1);
        if sys::now_ms() - looked_ms > SLICE_MS {
            looked_ms = sys::now_ms();
            if attach::alive(attach::generation()).is_err() {
                break;
            }
        }
    }
    folder.changes.load(SeqCst) != before
}

/// True if a listing is older than a program's first use may find it.
pub(crate) fn is_too_old(region: &Region, folder: &Object) -> bool {
    let again_ms = region.header().list_again_ms.load(SeqCst);
    let age_ms = sys::now_ms().saturating_sub(folder.listed_ms.load(SeqCst));
    folder.state() == state::LISTED && again_ms != 0 && age_ms > again_ms
}

/// An old version, reached by a name that no listing gives: what this process has of the folder may be of that time
/// or of a later one.
fn old(handle: &Handle, now: &Handle) -> Turn {
    let Some(folder) = now.region.folder_of(now.object) else { return Turn::Go };
    let names = names(&now.region, folder, now.object);
    if HAD.has(handle.slot.to_bits()) || !HAD.any(names.folder) {
        remember(handle, names);
        return Turn::Go;
    }
    refuse(handle, &now.region, folder)
}

/// The object is of the newest listing: is that what this process has had of the folder?
fn join(handle: &Handle, now: &Handle, folder: &Object) -> Turn {
    let Handle { region, object, .. } = now;
    let changes = folder.changes.load(SeqCst);
    let names = names(region, folder, object);
    let Some(kept) = FOLDERS.get(object.folder() as usize) else { return Turn::Go };
    let seen = u64::from(attach::generation()) << 32 | u64::from(changes);
    let is_known = kept.seen.load(SeqCst) == seen;
    if HAD.has(handle.slot.to_bits()) {
        if is_known {
            used(object.folder());
        }
        return Turn::Go;
    }
    if !is_known {
        match mixture(region, names) {
            Mixture::None => {}
            mixture if may_begin_anew(&mixture, object.folder(), region) => {
                if process::is_owner() {
                    HAD.forget(names.folder);
                }
            }
            _ => return refuse(handle, region, folder),
        }
        if process::is_owner() {
            kept.seen.store(seen, SeqCst);
        }
    }
    let is_new = remember(handle, names);
    // Another thread may have seen a change that this one has not, and not seen what this one has just had.
    if folder.changes.load(SeqCst) != changes {
        if is_new {
            HAD.remove(handle.slot.to_bits());
        }
        return Turn::Again;
    }
    used(object.folder());
    Turn::Go
}

/// What an object of the newest listing would be mixed with.
enum Mixture {
    /// Nothing that the listing does not show.
    None,
    /// Old versions of other objects only: it was not used before.
    Others,
    /// Old versions, one of itself among them.
    Itself {
        /// Nothing else of the folder was used.
        alone: bool,
        /// A large one is among them.
        large: bool,
    },
}

/// What this process has had of the folder that its newest listing does not show.
fn mixture(region: &Region, names: Names) -> Mixture {
    let (mut any, mut itself, mut alone, mut large) = (false, false, true, false);
    HAD.each(names.folder, |slot, path| {
        alone &= path == names.path;
        if is_old(region, Slot::from_bits(slot), &mut large) {
            any = true;
            itself |= path == names.path;
        }
    });
    match (any, itself) {
        (false, _) => Mixture::None,
        (true, false) => Mixture::Others,
        (true, true) => Mixture::Itself { alone, large },
    }
}

/// True if the newest listing no longer shows the version behind this slot, of whatever engine's catalog.
fn is_old(region: &Region, slot: Slot, large: &mut bool) -> bool {
    let Some(had) = slot.handle().filter(Handle::lasts) else { return true };
    let is_old = if had.generation() == attach::generation() {
        had.object.is_superseded()
    } else {
        !version::is_shown(region, &had.region, had.object)
    };
    *large |= is_old && had.object.kind() == RecordKind::Large;
    is_old
}

/// Does a program load anew, or does it go on with what it has begun?
fn may_begin_anew(mixture: &Mixture, folder: u32, region: &Region) -> bool {
    let Some(kept) = FOLDERS.get(folder as usize) else { return false };
    let now = sys::now_ms();
    // Not known after a change of engines: counted from now on.
    let _ = kept.used_ms.compare_exchange(0, now, SeqCst, SeqCst);
    let idle_ms = now.saturating_sub(kept.used_ms.load(SeqCst));
    let again_ms = region.header().list_again_ms.load(SeqCst);
    let Mixture::Itself { alone, large } = *mixture else {
        return idle_ms >= again_ms.saturating_mul(OTHERS_TIMES);
    };
    let has_old = old_versions::any_old();
    let times = if has_old || large { HELD_TIMES } else { 1 };
    alone && !has_old && idle_ms >= ALONE_MS.min(again_ms) || idle_ms >= again_ms.saturating_mul(times)
}

fn refuse(handle: &Handle, region: &Region, folder: &Object) -> Turn {
    log::line(b"open refused (ESTALE): the model was changed while this program was loading it", handle);
    let token = folder.changes.load(SeqCst).wrapping_mul(OBJECTS_MAX).wrapping_add(handle.slot.number()) | 1;
    let token = token ^ attach::generation() << 24;
    let spoken = SPOKEN.load(SeqCst);
    if spoken != token && process::is_owner() && SPOKEN.compare_exchange(spoken, token, SeqCst, SeqCst).is_ok() {
        let (dir, name) = (crate::environ::model_dir(), region.name(folder));
        let below = name.as_bytes();
        let slash: &[u8] = if below.is_empty() { b"" } else { b"/" };
        say(&[
            b"oss connector: the model in ",
            dir,
            slash,
            below,
            b" changed while this program was loading it: start the load again\n",
        ]);
    }
    Turn::Stale
}

fn names(region: &Region, folder: &Object, object: &Object) -> Names {
    let short = |text: &str| {
        let key = place_key(text.as_bytes());
        (key ^ key >> 32) as u32
    };
    Names { folder: short(&region.name(folder)), path: short(&region.name(object)) }
}

/// True if it was not remembered before.
fn remember(handle: &Handle, names: Names) -> bool {
    process::is_owner() && HAD.insert(handle.slot.to_bits(), names)
}

fn used(folder: u32) {
    if let Some(kept) = FOLDERS.get(folder as usize)
        && process::is_owner()
    {
        kept.used_ms.store(sys::now_ms(), SeqCst);
    }
}
