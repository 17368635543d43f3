//! What must hold for any packet on the attach socket and any board: called with inputs of a fuzzer (tests/fuzz) and, in
//! the unit tests, with the corpus that is kept there. Not part of the product; it panics when its property is broken,
//! and returns nothing.

use crate::region::{EVENTS_LEN, NewObject, OBJECTS_MAX, PARTS_MAX, RecordKind, Region, Seen, state};
use crate::sync::Ordering;
use crate::sys;
use crate::wire;
use std::sync::{LazyLock, Mutex};

/// Any bytes as one packet: it is taken as what was sent, or refused, and its descriptors are closed.
pub fn packet(bytes: &[u8]) {
    let (ours, theirs) = wire::pair().expect("a socket pair");
    let args = [ours as usize, bytes.as_ptr() as usize, bytes.len(), libc::MSG_NOSIGNAL as usize, 0, 0];
    // SAFETY: the buffer is live; sendto without an address only reads it.
    let sent = unsafe { sys::raw(libc::SYS_sendto, args) };
    assert!(sent == bytes.len() as isize || bytes.len() > 65_536, "{sent}");
    if sent > 0 {
        match wire::receive(theirs) {
            Ok(packet) => {
                let text = packet.text();
                assert!(bytes.ends_with(text) && bytes.len() - text.len() == 20, "a text that was not sent");
                let _ = (packet.decode_ask(), packet.same_version());
                packet.close_fds();
            }
            Err(errno) => assert_eq!(errno.0, libc::EPROTO),
        }
    }
    wire::close_all(&[ours, theirs]);
}

/// A region with one object, and how far its events were taken.
static TRIED: LazyLock<Mutex<(Region, u64)>> = LazyLock::new(|| {
    let files = sys::memfds(c"fuzz").expect("memory files");
    let region = Region::create(files, "/m", "/l").expect("a region");
    wire::close_all(&files);
    let new = NewObject {
        kind: RecordKind::Large,
        state: state::LOADING,
        name: "a",
        etag: "\"E\"",
        size: 4096 * 300,
        part_bytes: 4096,
        mtime_secs: 5,
        dev: 9,
        ino: 1,
        folder: 0,
    };
    region.append(&new).expect("a record");
    Mutex::new((region, 0))
});

/// Bytes of each step: the number of a word of the board, and what a program writes there.
const STEP: usize = 12;
/// Few words are in use: most steps go there, so that inputs are short.
const NEAR: usize = 1 << 12;

/// Whatever a program leaves on the board, the engine takes bits and numbers that exist and comes to an end, and so does
/// a program that tells and hands out.
pub fn board(bytes: &[u8]) {
    let mut tried = TRIED.lock().unwrap_or_else(|e| e.into_inner());
    let (region, from) = *tried;
    let words = region.board_words();
    for step in bytes.chunks_exact(STEP) {
        let number = u32::from_le_bytes([step[0], step[1], step[2], step[3]]) as usize;
        let at = if number.is_multiple_of(4) { number } else { number % NEAR };
        let mut value = [0; 8];
        value.copy_from_slice(&step[4..]);
        words[at % words.len()].store(u64::from_le_bytes(value), Ordering::Relaxed);
    }
    region.take_demand(|part, _| assert!(part < PARTS_MAX));
    region.take_wanted(|slot| assert!(slot < OBJECTS_MAX));
    let mut count = 0;
    tried.1 = region.take_events(from, |seen| {
        assert!(seen.slot < OBJECTS_MAX && seen.pid < 1 << 22);
        count += 1;
    });
    assert!(count <= EVENTS_LEN);
    let object = region.object(0).expect("the record");
    region.tell(Seen { pid: 1, slot: 0, act: 1 });
    for index in 0..object.parts() {
        let part = region.part(object, index);
        part.pin();
        part.pin_for_copy();
        part.unpin_after_copy();
        assert!(part.is_mapped());
        let _ = region.traces(object).handed.hand_out(part, object.parts(), 1);
        part.unpin();
        assert!(!part.is_pinned());
    }
    // What the engine says of a part is not on the board.
    assert_eq!((object.state(), object.parts(), region.part(object, 0).attempts()), (state::LOADING, 300, 0));
    object.verdict.set(object.verdict.get().next(), &region.traces(object).handed);
    assert_eq!(region.traces(object).handed.count(object.verdict.get().round), 0);
    object.verdict.renew(&region.traces(object).handed);
}

#[cfg(test)]
#[path = "../tests/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_inputs_hold() {
        replay::replay("packet", packet);
        replay::replay("board", board);
    }

    #[test]
    fn any_board_is_taken() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..100 {
            let mut bytes = vec![0; STEP * random.usize(1..20_000)];
            random.fill(&mut bytes);
            if random.bool() {
                bytes.fill(0xFF);
            }
            board(&bytes);
        }
    }
}
