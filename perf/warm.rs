//! Memory that the host has already given: in a VM the host hands pages out at the first touch, at many times the
//! price of the second, and takes those back that lie free for a second or two. Run by `compare`, the harness and
//! the bars before what they measure; it measures nothing itself.

use crate::affinity;
use crate::error::{Error, Result, Tried};
use crate::memory::MemoryKind;
use crate::space::present;
use ossc_store::pages::Memory;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Given back ahead of what others take, in bytes. More of it would lie free for long enough that the host takes it.
const AHEAD_BYTES: u64 = 256 << 20;
/// Given back at once, in bytes: whole pages of every kind.
const STEP_BYTES: u64 = 16 << 20;
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Arguments of `warm`.
#[derive(clap::Args)]
pub struct Args {
    /// Bytes to touch.
    #[arg(long, value_name = "BYTES")]
    size: u64,
    /// How to get them.
    #[arg(long, value_enum)]
    memory: MemoryKind,
    /// Print "held", and give the memory back in step with what others take, until stdin ends.
    #[arg(long)]
    hold: bool,
}

/// Touches `size` bytes of a kind of memory, and frees them.
pub fn run(args: &Args) -> Result<()> {
    let Some(memory) = args.memory.file(args.size)? else {
        return Ok(());
    };
    present(&memory, &(0..args.size))?;
    if args.hold { give_back(&memory, args.size) } else { Ok(()) }
}

/// Ours counts too, so what others have taken is the node's growth and what was given back together.
fn give_back(memory: &Memory, size: u64) -> Result<()> {
    memory.unmap_pages(0, size);
    let at_first = taken_bytes()?;
    println!("held");
    std::io::stdout().flush().tried(|| "say that the memory is held".into())?;
    let ended = stdin_ends();
    // What a core frees stays on lists of its own, which the other cores do not look at.
    let mut cores = affinity::allowed()?.into_iter().cycle();
    let mut given = 0;
    while given < size && !ended.load(Ordering::Acquire) {
        let taken = (taken_bytes()? + given).saturating_sub(at_first);
        while given < size.min(taken + AHEAD_BYTES) {
            cores.next().map_or(Ok(()), affinity::pin)?;
            let end = size.min(given + STEP_BYTES);
            memory.punch(given, end);
            given = end;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn stdin_ends() -> Arc<AtomicBool> {
    let ended = Arc::new(AtomicBool::new(false));
    let seen = ended.clone();
    std::thread::spawn(move || {
        // An error is an end, too.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        seen.store(true, Ordering::Release);
    });
    ended
}

/// The node's shared and anonymous memory: Shmem and AnonPages of /proc/meminfo.
fn taken_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").tried(|| "read /proc/meminfo".into())?;
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(|| Error::Wrong(format!("no {name} in /proc/meminfo")))
    };
    Ok(of("Shmem")? + of("AnonPages")?)
}
