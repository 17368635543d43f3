//! The memory behind maps and streams: what leaves this library's hands, and so must be there, verified, and stay.
//!
//! Called by the hooks for maps and streams. The memory file is opened first: from then on the engine is granted no
//! lease on it, and erases no pin. Then the parts are pinned, then waited for. It keeps nothing of its own.

use crate::attach::{self, MOVED};
use crate::fills::Fills;
use crate::handle::Handle;
use crate::log;
use crate::memory_file::open_unready;
use crate::parts::{Grain, pin};
use crate::seen::Seen;
use crate::taken::{self, May};
use crate::waiting;
use core::ops::Range;
use core::sync::atomic::{AtomicI32, Ordering};
use ossc_cache::sys::{self, Errno, FileId, Result};
use ossc_cache::wait::{self, Patience};

/// A fresh read-only, close-on-exec descriptor of the object's memory file, in which the whole object is ready and
/// verified, and stays. The caller owns it. Never 0-2. ENOMEM at once for what the memory budget can never hold.
pub(crate) fn of_whole(seen: &Seen) -> Result<i32> {
    if is_too_large(&seen.handle) {
        log::line(
            b"a map or FILE of this object was refused: it is larger than the memory budget (memoryLimit)",
            &seen.handle,
        );
        return Err(Errno(libc::ENOMEM));
    }
    opened_and_ready(seen, 0..seen.facts.size, &|now, check| wait::whole(&now.region, now.object, check))
}

/// The same for a part of it: bytes `start..end` are ready and stay, and the verdict on the whole object is given; of
/// an object that the budget cannot hold as a whole they are given as to a read.
pub(crate) fn of_part(seen: &Seen, start: u64, end: u64) -> Result<i32> {
    let is_early = start >= end || is_too_large(&seen.handle);
    opened_and_ready(seen, start..end, &|now, check| match is_early {
        true => wait::range(&now.region, now.object, start, end, check),
        false => wait::judged(&now.region, now.object, start, end, check),
    })
}

/// A map that was made of a part is about to grow: waits for the rest. ENOMEM where another engine has taken over
/// since then with memory of its own, whose bytes never come into the memory that is mapped, and for what the memory
/// budget can never hold.
pub(crate) fn wait_rest(handle: &Handle) -> Result<()> {
    if is_too_large(handle) {
        return Err(Errno(libc::ENOMEM));
    }
    waiting::whole(handle)?;
    if attach::generation() == handle.generation() {
        return Ok(());
    }
    log::line(b"a map cannot grow: the engine that it is of is gone; map the object again", handle);
    Err(Errno(libc::ENOMEM))
}

/// True for an object that the memory budget can never hold as a whole.
pub(crate) fn is_too_large(handle: &Handle) -> bool {
    handle.now().is_some_and(|now| {
        let budget = now.region.header().budget_bytes.load(Ordering::Acquire);
        budget != 0 && now.object.size() > budget
    })
}

/// The memory is opened first: from then on the engine is granted no lease on it, and erases no pin. Then the parts
/// are pinned, then waited for. What comes of a wait in another memory than the one that is open does not count.
fn opened_and_ready(
    seen: &Seen,
    range: Range<u64>,
    wait: &impl Fn(&Handle, &dyn Patience) -> Result<()>,
) -> Result<i32> {
    let handle = &seen.handle;
    loop {
        let generation = attach::generation();
        let memory = Opened::new(handle)?;
        pin(handle, range.start, range.end);
        match waiting::run_here(handle, wait) {
            Err(MOVED) => continue,
            Err(errno) => return Err(errno),
            Ok(()) => {}
        }
        let Some(fills) = Fills::of(handle, range.start, range.end, Grain::Parts) else { continue };
        match taken::may_take(seen, &fills)? {
            May::Take if attach::generation() == generation && memory.is_open() => return Ok(memory.into_fd()),
            May::Take => {}
            May::Wait(judged) => {
                waiting::run(handle, |now, check| wait::verdict(&now.region, now.object, judged, check))?;
            }
        }
    }
}

/// Descriptors of memory files that are open while their bytes are waited for: the child of a fork in another thread
/// has no use for them, and closes them.
static WAITING: [AtomicI32; 64] = [const { AtomicI32::new(-1) }; 64];

/// A memory file that was opened and is not handed out yet.
struct Opened {
    fd: i32,
    id: FileId,
    place: Option<&'static AtomicI32>,
}

impl Opened {
    fn new(handle: &Handle) -> Result<Opened> {
        let fd = open_unready(handle)?;
        let is_taken = |place: &&AtomicI32| place.compare_exchange(-1, fd, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let place = WAITING.iter().find(is_taken);
        let id = sys::file_id(fd).inspect_err(|_| {
            let _ = sys::close(fd);
        })?;
        Ok(Opened { fd, id, place })
    }

    /// False when the program has closed the number meanwhile.
    fn is_open(&self) -> bool {
        sys::file_id(self.fd).is_ok_and(|id| (id.dev, id.ino) == (self.id.dev, self.id.ino))
    }

    fn into_fd(mut self) -> i32 {
        self.leave();
        let fd = self.fd;
        core::mem::forget(self);
        fd
    }

    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            place.store(-1, Ordering::Release);
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.leave();
        // Else its number is the program's by now.
        if self.is_open() {
            let _ = sys::close(self.fd);
        }
    }
}

/// In the child of a fork: what other threads of the parent wait for is theirs.
pub(crate) fn leave_to_parent() {
    for place in &WAITING {
        let fd = place.swap(-1, Ordering::AcqRel);
        if fd >= 0 && sys::file_id(fd).is_ok_and(|id| id.dev == attach::memory_dev()) {
            let _ = sys::close(fd);
        }
    }
}
