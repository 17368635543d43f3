//! A reader as programs are: opens files and reads or maps them, and looks at every byte. Run natively and under
//! LD_PRELOAD, where it must print the same sum. Knows nothing of the connector.

use crate::error::{Error, Result, Tried};
use crate::figures::Figures;
use crate::meter::Meter;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How to get at the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Pattern {
    /// Map each file whole and privately; threads share its blocks.
    Mmap,
    /// read() from the first byte to the end; threads share the files.
    Read,
    /// pread() of blocks; threads share the blocks of a file.
    Pread,
}

/// Arguments of `load`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// How to read.
    #[arg(long, value_enum, default_value_t = Pattern::Mmap)]
    pattern: Pattern,
    /// Bytes of one read, a multiple of 8.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = block)]
    block: usize,
    /// Threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Print one JSON line instead of text.
    #[arg(long)]
    json: bool,
    /// Files, or folders whose files are read (not their sub-folders).
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Bytes seen and the sum of their 64-bit little-endian words, which no order of the blocks changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    bytes: u64,
    sum: u64,
}

impl Seen {
    fn plus(self, other: Seen) -> Seen {
        Seen { bytes: self.bytes + other.bytes, sum: self.sum.wrapping_add(other.sum) }
    }

    /// A block that begins at a multiple of 8 in its file.
    fn block(bytes: &[u8]) -> Seen {
        let (words, rest) = bytes.as_chunks::<8>();
        let sum = words.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        Seen { bytes: bytes.len() as u64, sum: sum.wrapping_add(u64::from_le_bytes(last)) }
    }
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let meter = Meter::start()?;
    let seen = load(args)?;
    let used = meter.stop()?;
    let name = format!("load {:?} x{}", args.pattern, args.threads).to_lowercase();
    Figures::new(name, seen.bytes, used, Some(format!("sum {:016x}", seen.sum)))?.print(args.json)
}

fn load(args: &Args) -> Result<Seen> {
    let files = files(&args.paths)?;
    match args.pattern {
        Pattern::Read => shared(args.threads, files.len() as u64, || {
            let mut buffer = vec![0; args.block];
            let files = &files;
            move |index| read(&files[index as usize], &mut buffer)
        }),
        Pattern::Mmap | Pattern::Pread => files.iter().try_fold(Seen::default(), |seen, path| {
            let (file, len) = open(path)?;
            let one = if args.pattern == Pattern::Mmap {
                mapped(args, path, &file, len)
            } else {
                pread(args, path, &file, len)
            };
            Ok(seen.plus(one?))
        }),
    }
}

/// Threads take units `0..units` until none is left; `worker` makes what one thread does with a unit.
fn shared<W>(threads: u16, units: u64, worker: impl Fn() -> W + Sync) -> Result<Seen>
where
    W: FnMut(u64) -> Result<Seen>,
{
    let next = AtomicU64::new(0);
    let outcome = Mutex::new(Ok(Seen::default()));
    let work = || {
        let mut each = worker();
        let mut seen = Ok(Seen::default());
        while let Ok(sofar) = &seen {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= units {
                break;
            }
            seen = each(index).map(|more| sofar.plus(more));
        }
        let mut outcome = outcome.lock().expect("no holder of the lock panics");
        match (&mut *outcome, seen) {
            (Ok(all), Ok(seen)) => *all = all.plus(seen),
            (Ok(_), Err(error)) => *outcome = Err(error),
            (Err(_), _) => {}
        }
    };
    std::thread::scope(|scope| {
        // The calling thread works too: one thread means no other.
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    outcome.into_inner().expect("no holder of the lock panics")
}

fn read(path: &Path, buffer: &mut [u8]) -> Result<Seen> {
    let (mut file, _) = open(path)?;
    let mut seen = Seen::default();
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]) {
                Ok(0) => return Ok(seen.plus(Seen::block(&buffer[..filled]))),
                Ok(n) => filled += n,
                Err(os) if os.kind() == io::ErrorKind::Interrupted => {}
                Err(os) => return Err(os).tried(|| format!("read {}", path.display())),
            }
        }
        seen = seen.plus(Seen::block(buffer));
    }
}

fn pread(args: &Args, path: &Path, file: &File, len: u64) -> Result<Seen> {
    let block = args.block as u64;
    shared(args.threads, len.div_ceil(block), || {
        let mut buffer = vec![0; args.block];
        move |index| {
            let start = index * block;
            let wanted = &mut buffer[..block.min(len - start) as usize];
            file.read_exact_at(wanted, start).tried(|| format!("pread {} at {start}", path.display()))?;
            Ok(Seen::block(wanted))
        }
    })
}

fn mapped(args: &Args, path: &Path, file: &File, len: u64) -> Result<Seen> {
    if len == 0 {
        return Ok(Seen::default());
    }
    let map = Map::of(file, len as usize).tried(|| format!("mmap {} bytes of {}", len, path.display()))?;
    let bytes = map.bytes();
    shared(args.threads, len.div_ceil(args.block as u64), || {
        |index| {
            let start = index as usize * args.block;
            Ok(Seen::block(&bytes[start..bytes.len().min(start + args.block)]))
        }
    })
}

/// A whole file, mapped privately to be read.
struct Map {
    at: *mut libc::c_void,
    len: usize,
}

impl Map {
    fn of(file: &File, len: usize) -> io::Result<Map> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Map { at, len }) }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for as long as `self` is. A file that others change or cut meanwhile breaks this, as
        // it breaks every program that maps model files; measure files that nobody writes.
        unsafe { std::slice::from_raw_parts(self.at.cast(), self.len) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and no slice of it outlives `self`.
        unsafe { libc::munmap(self.at, self.len) };
    }
}

fn open(path: &Path) -> Result<(File, u64)> {
    let file = File::open(path).tried(|| format!("open {}", path.display()))?;
    let len = file.metadata().tried(|| format!("stat {}", path.display()))?.len();
    Ok((file, len))
}

/// The paths, with folders replaced by their files in the order of names.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = path.read_dir().and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.tried(|| format!("list {}", path.display()))?;
        let mut found: Vec<_> = entries.iter().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

fn block(text: &str) -> std::result::Result<usize, Error> {
    let wrong = || Error::Wrong(format!("{text:?} is not a multiple of 8 between 8 and 1 GiB"));
    let bytes: usize = text.parse().map_err(|_| wrong())?;
    if bytes.is_multiple_of(8) && (8..=1 << 30).contains(&bytes) { Ok(bytes) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn make(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("ossc-perf-load-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn all_patterns_see_the_same_bytes() {
        let folder = Folder::make("patterns");
        let mut rng = fastrand::Rng::with_seed(7);
        let mut expected = Seen::default();
        for (name, len) in [("a", 100_003), ("b", 4096), ("empty", 0), ("c", 7)] {
            let mut bytes = vec![0; len];
            rng.fill(&mut bytes);
            expected = expected.plus(Seen::block(&bytes));
            std::fs::write(folder.0.join(name), bytes).unwrap();
        }
        for pattern in [Pattern::Mmap, Pattern::Read, Pattern::Pread] {
            for (threads, block) in [(1, 8), (3, 4096), (2, 1 << 20)] {
                let args = Args { pattern, block, threads, json: false, paths: vec![folder.0.clone()] };
                assert_eq!(load(&args).unwrap(), expected, "{args:?}");
            }
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        for pattern in [Pattern::Mmap, Pattern::Read, Pattern::Pread] {
            let paths = vec![PathBuf::from("/nonexistent/weights")];
            let args = Args { pattern, block: 4096, threads: 2, json: false, paths };
            let error = load(&args).unwrap_err().to_string();
            assert!(error.contains("open /nonexistent/weights"), "{error}");
        }
    }

    #[test]
    fn blocks_are_multiples_of_eight() {
        assert_eq!(block("4096").unwrap(), 4096);
        for bad in ["0", "7", "-8", "x", "2147483648"] {
            assert!(block(bad).is_err(), "{bad}");
        }
    }
}
