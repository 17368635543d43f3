//! What this process was given of objects before the verdict on them, and what it may be given next.
//!
//! Called by the read path before each copy out of an object. After a mismatch whoever has bytes of the round before
//! gets EIO: each descriptor through which such bytes came, for good; and the process itself, by whatever descriptor
//! it reads on, until it opens the object again after it was told. Bytes that an engine gave which is gone with its
//! memory are compared, part by part, with those of the engine that follows, once that one has verified them.
//!
//! No locks and no allocation. An object that does not fit the table is read after its verdict only.

use crate::early;
use crate::failed;
use crate::fills::Fills;
use crate::handle::{GONE, Handle, Slot};
use crate::log;
use crate::numbers::{self, Stamp};
use crate::parts::Grain;
use crate::process;
use crate::seen::Seen;
use crate::waiting;
use core::sync::atomic::{AtomicU64, Ordering};
use ossc_cache::event::ACT_GIVEN;
use ossc_cache::region::{OBJECTS_MAX, Object, Region, Seen as Event};
use ossc_cache::sys::{self, Errno, Result};
use ossc_cache::verdict::{Judged, Judgement};
use ossc_cache::wait;

/// Objects of which a process can be given bytes before their verdict; beyond it waits for each verdict.
const ENTRIES: usize = 1 << 13;
/// Places that are looked at for one object.
const STEPS: usize = 64;

/// One object of which this process was given bytes early.
struct Entry {
    /// `key_of` the object; 0 when free.
    key: AtomicU64,
    /// A packed `Taken`.
    taken: AtomicU64,
}

static TAKEN: [Entry; ENTRIES] = [const { Entry { key: AtomicU64::new(0), taken: AtomicU64::new(0) } }; ENTRIES];
/// By record number: the round before whose verdict this process was given bytes last, and the epoch, as `quick` packs
/// them. A hint that spares the look at the table.
static QUICK: [AtomicU64; OBJECTS_MAX as usize] = [const { AtomicU64::new(0) }; OBJECTS_MAX as usize];

const ROUND_MASK: u16 = 0x7fff;

/// What was taken of an object.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Taken {
    /// Counts the opens that began anew after an error; descriptors of an older count stay spoiled.
    epoch: u16,
    /// The process was told by an error that its bytes are not the object's.
    told: bool,
    /// The record from which it was given; `None` when nothing is.
    slot: Option<Slot>,
    /// Round, modulo 2^15.
    round: u16,
}

impl Taken {
    fn pack(self) -> u64 {
        u64::from(self.epoch)
            | u64::from(self.told) << 16
            | u64::from(self.round & ROUND_MASK) << 17
            | u64::from(self.slot.map_or(0, Slot::to_bits)) << 32
    }

    fn unpack(word: u64) -> Taken {
        Taken {
            epoch: word as u16,
            told: word >> 16 & 1 != 0,
            slot: Some((word >> 32) as u32).filter(|bits| *bits != 0).map(Slot::from_bits),
            round: (word >> 17) as u16 & ROUND_MASK,
        }
    }

    fn is_of(self, round: u32) -> bool {
        self.round == round as u16 & ROUND_MASK
    }

    /// The same descriptors are good, and nothing is taken.
    fn nothing(self) -> Taken {
        Taken { epoch: self.epoch, ..Taken::default() }
    }
}

impl Entry {
    fn get(&self) -> Taken {
        Taken::unpack(self.taken.load(Ordering::Acquire))
    }

    /// False when another thread has changed it: the caller looks again.
    fn change(&self, from: Taken, to: Taken) -> bool {
        self.taken.compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Tells one version of an object from every other, in each record alike that it ever has: its placeholder may be made
/// again, here or by another engine. Never 0.
fn key_of(region: &Region, object: &Object) -> u64 {
    let step = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    let add = |sum: u64, text: &[u8]| {
        text.chunks(8).fold(step(sum, text.len() as u64), |sum, bytes| {
            step(sum, bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)))
        })
    };
    add(add(object.size(), object.etag().as_bytes()), region.name(object).as_bytes()).max(1)
}

fn places(key: u64) -> impl Iterator<Item = &'static Entry> {
    (0..STEPS).map(move |step| &TAKEN[(key as usize).wrapping_add(step) % ENTRIES])
}

fn find(key: u64) -> Option<&'static Entry> {
    if !early::any() {
        return None;
    }
    places(key).take_while(|entry| entry.key.load(Ordering::Acquire) != 0).find(|entry| is_of(entry, key))
}

fn is_of(entry: &Entry, key: u64) -> bool {
    entry.key.load(Ordering::Acquire) == key
}

fn find_or_make(key: u64) -> Option<&'static Entry> {
    early::note();
    let taken = |entry: &&'static Entry| {
        let made = entry.key.compare_exchange(0, key, Ordering::AcqRel, Ordering::Acquire);
        made.is_ok() || made == Err(key)
    };
    places(key).find(taken)
}

/// What a reader may have of some parts now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum May {
    /// Their bytes.
    Take,
    /// Nothing before there is another verdict than this.
    Wait(Judged),
}

/// True where nothing else needs to be looked at: the verdict is given, and always was right. One load of the region.
#[inline(always)]
fn is_plain(object: &Object) -> bool {
    object.verdict.is_plain() && !early::any_older()
}

/// True if the bytes of these fills may be given to the program now, through the descriptor of `seen`.
#[inline(always)]
pub(crate) fn may_be_given(seen: &Seen, fills: &Fills) -> Result<bool> {
    Ok(is_plain(fills.handle.object) || may_take(seen, fills)? == May::Take)
}

/// Asked before bytes of parts that are ready are given to the program through the descriptor of `seen`; counts them
/// as handed out where that is before the verdict. EIO when the process has bytes that turned out to be others.
#[cold]
#[inline(never)]
pub(crate) fn may_take(seen: &Seen, fills: &Fills) -> Result<May> {
    let Handle { region, object, .. } = fills.handle;
    if is_as_before(seen, fills) {
        return Ok(May::Take);
    }
    loop {
        let judged = object.verdict.get();
        let key = key_of(&region, object);
        let entry = find(key);
        let taken = entry.map_or(Taken::default(), Entry::get);
        if let Some(wait) = checked(seen, fills, judged, (entry, taken))? {
            return Ok(May::Wait(wait));
        }
        match judged.judgement {
            Judgement::Matched | Judgement::Nothing => return Ok(May::Take),
            Judgement::Wrong => return Err(spoiled(seen, entry)),
            Judgement::Open if region.header().reads_wait.load(Ordering::Relaxed) != 0 => {
                return Ok(May::Wait(judged));
            }
            Judgement::Open => {}
        }
        if !fills.hand_out(judged.round) {
            return Ok(May::Wait(judged));
        }
        let Some(entry) = entry.or_else(|| find_or_make(key)) else { return Ok(May::Wait(judged)) };
        if stamp(seen, fills, judged, entry) && object.verdict.get() == judged {
            return Ok(May::Take);
        }
    }
}

/// Where reads wait for the verdict (`readsWait`): until it is given, or is that the bytes are wrong.
pub(crate) fn wait_first(handle: &Handle) -> Result<()> {
    loop {
        let Handle { region, object, .. } = handle.now().ok_or(GONE)?;
        let judged = object.verdict.get();
        if region.header().reads_wait.load(Ordering::Relaxed) == 0 || judged.judgement != Judgement::Open {
            return Ok(());
        }
        waiting::run(handle, |now, check| wait::verdict(&now.region, now.object, judged, check))?;
    }
}

/// Waits until bytes `start..end` are there and may be given to the program through the descriptor of `seen`: before
/// the verdict on the whole object, but for the last of it that nobody was given yet.
pub(crate) fn wait_given(seen: &Seen, start: u64, end: u64, grain: Grain) -> Result<()> {
    loop {
        waiting::bytes(&seen.handle, start, end, grain)?;
        let Some(fills) = Fills::of(&seen.handle, start, end, grain) else { continue };
        match may_take(seen, &fills)? {
            May::Take => return Ok(()),
            May::Wait(judged) => {
                waiting::run(&seen.handle, |now, check| wait::verdict(&now.region, now.object, judged, check))?;
            }
        }
    }
}

/// True if the process and this descriptor were given bytes of this round before, and the parts are handed out: as in
/// most reads before a verdict. In 20 ns, where the table takes 100.
fn is_as_before(seen: &Seen, fills: &Fills) -> bool {
    let judged = fills.handle.object.verdict.get();
    let Stamp::Took(epoch) = numbers::stamp(seen.fd) else { return false };
    judged.judgement == Judgement::Open
        && QUICK
            .get(fills.handle.slot.number() as usize)
            .is_some_and(|at| at.load(Ordering::Acquire) == quick(fills, epoch, judged))
        && fills.were_handed_out(judged.round)
}

/// Never 0: generations count from 1. A record that is used again has another tag.
fn quick(fills: &Fills, epoch: u16, judged: Judged) -> u64 {
    u64::from(fills.handle.slot.tag()) << 48 | u64::from(epoch) << 32 | u64::from(judged.round)
}

/// The process and the descriptor have bytes of this round from now on. False if another thread changed what is known.
fn stamp(seen: &Seen, fills: &Fills, judged: Judged, entry: &Entry) -> bool {
    let before = entry.get();
    let number = fills.handle.slot.number();
    let round = judged.round as u16 & ROUND_MASK;
    let now = Taken { epoch: before.epoch.max(1), told: false, slot: Some(fills.handle.slot), round };
    if before != now {
        // What is here from an earlier round or engine was judged by the caller, unless it has just come.
        if before.slot.is_some() || !entry.change(before, now) {
            return false;
        }
        fills.handle.region.tell(Event { pid: process::pid() as u32, slot: number, act: ACT_GIVEN });
    }
    numbers::set_stamp(seen.fd, Stamp::Took(now.epoch));
    if let Some(at) = QUICK.get(number as usize) {
        at.store(quick(fills, now.epoch, judged), Ordering::Release);
    }
    true
}

/// EIO if descriptor or process have bytes that are not the object's; a verdict to wait for if that is not known yet.
fn checked(
    seen: &Seen,
    fills: &Fills,
    judged: Judged,
    (entry, taken): (Option<&'static Entry>, Taken),
) -> Result<Option<Judged>> {
    match numbers::stamp(seen.fd) {
        Stamp::Took(epoch) if epoch != taken.epoch => return Err(Errno(libc::EIO)),
        // It came from elsewhere (another program, a message), and was read from: before the mismatch, perhaps.
        Stamp::None if judged.round > 1 && taken.slot.is_none() => {
            if seen.fd >= 0 && sys::lseek(seen.fd, 0, libc::SEEK_CUR).is_ok_and(|at| at != 0) {
                let why = b"a descriptor that was read from when the object had other bytes gives EIO";
                log::line(why, &seen.handle);
                failed::tell(&seen.handle, Errno(libc::EIO), why);
                return Err(Errno(libc::EIO));
            }
            numbers::set_stamp(seen.fd, Stamp::Opened);
        }
        _ => {}
    }
    let (Some(entry), Some(from)) = (entry, taken.slot) else { return Ok(None) };
    if from == fills.handle.slot {
        let is_same = taken.is_of(judged.round) && !taken.told;
        return if is_same { Ok(None) } else { Err(spoiled(seen, Some(entry))) };
    }
    of_older_record(seen, fills, judged, (entry, taken, from))
}

/// The process has bytes of another record of the same version: of an engine that is gone with its memory, or of a
/// placeholder that was removed and made again.
fn of_older_record(
    seen: &Seen,
    fills: &Fills,
    judged: Judged,
    (entry, taken, from): (&'static Entry, Taken, Slot),
) -> Result<Option<Judged>> {
    let then = from.handle().and_then(|old| Some((old, verdict_of(&old)?)));
    let Some((old, then)) = then.filter(|(_, then)| taken.is_of(then.round) && !taken.told) else {
        return Err(spoiled(seen, Some(entry)));
    };
    match judged.judgement {
        _ if then.is_given() => {}
        Judgement::Open => return Ok(Some(judged)),
        Judgement::Wrong => return Err(spoiled(seen, Some(entry))),
        Judgement::Nothing => {}
        Judgement::Matched if has_parts_of(&old, then.round, &fills.handle) => {}
        Judgement::Matched => {
            log::line(
                b"a reader has bytes that came before the object was fetched anew, and they were wrong: it gets EIO",
                &seen.handle,
            );
            return Err(spoiled(seen, Some(entry)));
        }
    }
    // Should another thread have been faster, it has seen the same.
    entry.change(taken, taken.nothing());
    Ok(None)
}

/// The verdict in a record, also of one that is GONE, as long as it is not used again.
fn verdict_of(old: &Handle) -> Option<Judged> {
    let judged = old.object.verdict.get();
    old.is_not_reused().then_some(judged)
}

/// True if what was handed out of an old record, in a round without a verdict, is what the object has. One that is GONE
/// may have lost its parts to another.
fn has_parts_of(old: &Handle, round: u32, now: &Handle) -> bool {
    if !old.lasts() {
        return false;
    }
    // Of blocks only is not known here whether they were right: with their part nobody has compared them.
    let is_same = |index: u32| {
        let (part, blocks) = (old.region.part(old.object, index), old.region.blocks(old.object, index));
        let is_handed = part.is_handed_out(round) || blocks.is_some_and(|blocks| blocks.is_handed_out(round));
        !is_handed || part.is_known(round) && part.crc64() == now.region.part(now.object, index).crc64()
    };
    let is_alike = old.object.part_bytes() == now.object.part_bytes();
    is_alike && (0..now.object.parts()).all(is_same) && old.lasts()
}

/// The error of a reader whose bytes are not the object's. From now on the process may begin anew, by an open.
fn spoiled(seen: &Seen, entry: Option<&Entry>) -> Errno {
    if let Some(entry) = entry {
        let taken = entry.get();
        if taken.slot.is_some() && !taken.told {
            entry.change(taken, Taken { told: true, ..taken });
            let why = b"a reader has bytes that do not match the CRC-64 of the object: it gets EIO";
            log::line(why, &seen.handle);
            failed::tell(&seen.handle, Errno(libc::EIO), why);
        }
    }
    Errno(libc::EIO)
}

/// The program reads the object by this record from now on. What it has of another record is compared.
pub(crate) fn met(handle: &Handle) {
    if let Some((_, taken)) = taken_of(handle)
        && taken.slot.is_some_and(|slot| slot != handle.slot)
    {
        early::note_older();
    }
}

fn taken_of(handle: &Handle) -> Option<(&'static Entry, Taken)> {
    if !early::any() {
        return None;
    }
    let now = handle.now()?;
    let entry = find(key_of(&now.region, now.object))?;
    Some((entry, entry.get()))
}

/// The program has opened the object: a process that was told of wrong bytes begins anew with this descriptor.
pub(crate) fn opened(seen: &Seen) {
    numbers::set_stamp(seen.fd, Stamp::Opened);
    if let Some((entry, taken)) = taken_of(&seen.handle) {
        if taken.told {
            entry.change(taken, Taken { epoch: taken.epoch.wrapping_add(1).max(1), ..Taken::default() });
        }
        met(&seen.handle);
    }
}
