//! Ways in which Rust programs read files through `std`. Usage: io_rust CASE FILE SCRATCH
//! Each case is a small deterministic program whose output is compared between a plain folder and a managed one.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn fold(data: &[u8]) -> u64 {
    data.iter().fold(14695981039346656037, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(1099511628211))
}

fn show<T: std::fmt::Debug>(what: &str, got: io::Result<T>) {
    match got {
        Ok(value) => println!("{what}: {value:?}"),
        Err(error) => println!("{what}: {:?} {:?}", error.kind(), error.raw_os_error()),
    }
}

fn whole(file: &Path) -> io::Result<()> {
    let data = fs::read(file)?;
    println!("{} {:016x}", data.len(), fold(&data));
    let mut opened = File::open(file)?;
    show("end", opened.seek(SeekFrom::End(-1000)));
    let mut tail = Vec::new();
    show("tail", opened.read_to_end(&mut tail));
    println!("{:016x}", fold(&tail));
    show("rewind", opened.rewind());
    show("position", opened.stream_position());
    show("before the start", opened.seek(SeekFrom::Current(-1)));
    show("write", opened.write(b"x"));
    Ok(())
}

fn at(file: &Path) -> io::Result<()> {
    let opened = File::open(file)?;
    let size = opened.metadata()?.len();
    let mut room = vec![0; 100_001];
    for offset in [0, 4097, size / 2, size.saturating_sub(100), size, size + 1] {
        let got = opened.read_at(&mut room, offset)?;
        println!("{offset} {got} {:016x}", fold(&room[..got]));
    }
    show("exact past the end", opened.read_exact_at(&mut room, size));
    show("write_at", opened.write_at(b"x", 0));
    Ok(())
}

fn lines(file: &Path) -> io::Result<()> {
    let reader = BufReader::with_capacity(8191, File::open("lines.txt")?);
    let mut sum = 0u64;
    for line in reader.lines() {
        sum = sum.wrapping_add(fold(line?.as_bytes()));
    }
    println!("{sum:016x}");
    let mut bytes = BufReader::new(File::open(file)?);
    let mut first = Vec::new();
    show("until", bytes.read_until(0, &mut first));
    println!("{:016x}", fold(&first));
    show("relative", bytes.seek_relative(70_000));
    show("fill", bytes.fill_buf().map(fold));
    Ok(())
}

fn copy(file: &Path, scratch: &Path) -> io::Result<()> {
    let target = scratch.join("rust-copy");
    show("fs::copy", fs::copy(file, &target));
    println!("{:016x} {:o}", fold(&fs::read(&target)?), fs::metadata(&target)?.mode() & 0o777);
    let (mut from, mut to) = (File::open(file)?, File::create(&target)?);
    from.seek(SeekFrom::Start(1234))?;
    show("io::copy", io::copy(&mut from, &mut to));
    show("position", from.stream_position());
    show("io::copy taken", io::copy(&mut File::open(file)?.take(54_321), &mut to));
    println!("{:016x}", fold(&fs::read(&target)?));
    fs::remove_file(target)
}

fn names(file: &Path) -> io::Result<()> {
    let status = fs::metadata(file)?;
    println!("{} {} {}", status.len(), status.is_file(), status.blocks() * 512 >= status.len());
    println!("{:?}", fs::symlink_metadata(file)?.file_type());
    println!("{}", fs::canonicalize(file)? == std::env::current_dir()?.canonicalize()?.join(file));
    println!("{} {}", file.exists(), Path::new("nested/absent").exists());
    show("absent", File::open("nested/deep/absent").map(drop));
    show("below a file", File::open(file.join("x")).map(drop));
    let opened = File::open(file)?;
    println!("{}", opened.metadata()?.ino() == status.ino() && opened.metadata()?.dev() == status.dev());
    let link = fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd()))?;
    println!("{}", link == fs::canonicalize(file)?);
    Ok(())
}

fn folders(root: &Path, found: &mut Vec<(PathBuf, u64)>) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            folders(&entry.path(), found)?;
        } else {
            found.push((entry.path(), entry.metadata()?.len()));
        }
    }
    Ok(())
}

fn walk() -> io::Result<()> {
    let mut found = Vec::new();
    folders(Path::new("."), &mut found)?;
    found.sort();
    for (path, size) in found {
        println!("{} {size} {:016x}", path.display(), fold(&fs::read(&path)?));
    }
    Ok(())
}

fn threads(file: &Path) -> io::Result<()> {
    let opened = File::open(file)?;
    let part = opened.metadata()?.len() / 4;
    let sums: Vec<u64> = std::thread::scope(|scope| {
        let spawn = |number: u64| {
            let mut own = opened.try_clone().unwrap();
            scope.spawn(move || {
                let mut room = vec![0; part as usize];
                own.read_exact_at(&mut room, number * part).unwrap();
                // The position is shared: nobody has moved it.
                fold(&room).wrapping_add(own.stream_position().unwrap())
            })
        };
        let running: Vec<_> = (0..4).map(spawn).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    println!("{sums:x?}");
    Ok(())
}

fn children(file: &Path) -> io::Result<()> {
    for skip in [0, 5000] {
        let mut input = File::open(file)?;
        input.seek(SeekFrom::Start(skip))?;
        let mut child = Command::new("sha256sum").stdin(Stdio::from(input)).stdout(Stdio::piped()).spawn()?;
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text)?;
        println!("{} {text}", child.wait()?);
    }
    let done = Command::new("sha256sum").arg(file).arg("nested/deep/c.bin").output()?;
    println!("{} {}", done.status, String::from_utf8_lossy(&done.stdout));
    Ok(())
}

fn options(file: &Path) -> io::Result<()> {
    let quiet = File::options().read(true).custom_flags(0o4000 | 0o1000000).open(file)?;
    let raw = quiet.into_raw_fd();
    // SAFETY: the number was just given up by `quiet` and is owned by nobody else.
    let mut again = unsafe { File::from_raw_fd(raw) };
    let mut room = [0; 70_000];
    show("read", again.read(&mut room));
    println!("{:016x}", fold(&room));
    show("create_new", File::options().write(true).create_new(true).open(file).map(drop));
    show("folder as a file", fs::read("nested"));
    show("set_len", again.set_len(5));
    show("sync", again.sync_all());
    let (mut one, mut two) = ([0; 7], [0; 9000]);
    let mut parts = [io::IoSliceMut::new(&mut one), io::IoSliceMut::new(&mut two)];
    show("vectored", again.read_vectored(&mut parts));
    show("position", again.stream_position());
    Ok(())
}

fn main() -> io::Result<()> {
    let given: Vec<String> = std::env::args().collect();
    let [_, case, file, scratch] = given.as_slice() else { std::process::exit(2) };
    let (file, scratch) = (Path::new(file), Path::new(scratch));
    match case.as_str() {
        "whole" => whole(file),
        "at" => at(file),
        "lines" => lines(file),
        "copy" => copy(file, scratch),
        "names" => names(file),
        "walk" => walk(),
        "threads" => threads(file),
        "children" => children(file),
        "options" => options(file),
        _ => std::process::exit(2),
    }
}
