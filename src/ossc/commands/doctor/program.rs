//! `ossc doctor -- PROGRAM ARGUMENT...`: runs a program under the library and says how it, and what it starts, read
//! large objects past the C library, and what to set.
//!
//! Called by `doctor`. Two witnesses: the library writes what it sees to a report (OSSC_PAST_REPORT, `preload/past.rs`), and
//! this command looks at the processes below /proc that have the report in their environment. It changes nothing else.

use super::Report;
use crate::commands::{executable, run};
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

const VARIABLE: &str = "OSSC_PAST_REPORT";
/// How often processes are looked at: a loader keeps its ring for longer.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Why a program has not what the dynamic linker would have loaded.
const CLEARED: &str = "had no LD_PRELOAD that names it, or of another C library: what starts it (env -i, sudo, su, a service) has to hand LD_PRELOAD, ENABLE_CONNECTOR and MODEL_DIR on";
const WHOLE: &str = "set `openMode: whole` in the configuration";

/// Runs the program to its end; its status.
pub(super) fn run(report: &mut Report, program: &[OsString]) -> Option<ExitStatus> {
    let file = report.need("program", Notes::new())?;
    let library = report.need("program", run::library().ok_or("the library is neither beside ossc nor in ../lib"))?;
    let name = program[0].to_string_lossy();
    if let Some(why) = executable::unloadable_by_name(&program[0]) {
        report.bad("program", format!("{name} {why}"));
    }
    let mut command = run::command(&library, program);
    command.env(VARIABLE, &file.0);
    let started = command.spawn().map_err(|e| format!("{name}: {e}"));
    let mut child = report.need("program", started)?;
    let mut seen = Processes::of(child.id());
    let status = report.need("program", wait(&mut child, || seen.look(&file.0)))?;
    tell(report, &file.lines(), &seen);
    if status.success() {
        report.good("program", format!("{name}: {status}"));
    } else {
        let folder = std::env::var_os("MODEL_DIR").unwrap_or_default();
        let folder = folder.to_string_lossy();
        report
            .note("program", format!("{name}: {status}; if it misses files: does it read below MODEL_DIR ({folder})?"));
    }
    Some(status)
}

fn wait(child: &mut Child, mut look: impl FnMut()) -> io::Result<ExitStatus> {
    loop {
        look();
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The report's file, which goes when this does.
struct Notes(PathBuf);

impl Notes {
    fn new() -> io::Result<Notes> {
        let path = std::env::temp_dir().join(format!("ossc-doctor-{}", std::process::id()));
        // Not one that somebody has put there.
        std::fs::File::create_new(&path)?;
        Ok(Notes(path))
    }

    /// What the library has said: word and name, each once.
    fn lines(&self) -> BTreeSet<(String, String, String)> {
        let text = std::fs::read(&self.0).unwrap_or_default();
        let line = |line: &str| {
            let mut words = line.split('\t').skip(1).map(str::to_owned);
            Some((words.next()?, words.next()?, words.next()?))
        };
        String::from_utf8_lossy(&text).lines().filter_map(line).collect()
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What was seen of the program's processes, by their programs.
struct Processes {
    /// The program's own process.
    first: u32,
    /// With a ring or an aio context.
    past: BTreeSet<(String, &'static str)>,
    /// Without the library, and why. True: the program itself, or what took its place.
    bare: BTreeSet<(bool, String, &'static str)>,
}

impl Processes {
    fn of(first: u32) -> Processes {
        Processes { first, past: BTreeSet::new(), bare: BTreeSet::new() }
    }

    /// Looks at what the program has started: what comes of its process, and what has its variables.
    fn look(&mut self, report: &Path) {
        let mark = format!("{VARIABLE}={}", report.display());
        let Ok(entries) = std::fs::read_dir("/proc") else { return };
        let pids: Vec<u32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        let parents: HashMap<u32, u32> = pids.iter().filter_map(|pid| Some((*pid, parent(*pid)?))).collect();
        // No line of parents is longer than there are processes.
        let comes_of_it = |pid: u32| {
            let line = std::iter::successors(Some(pid), |pid| parents.get(pid).copied());
            line.take(parents.len() + 1).any(|pid| pid == self.first)
        };
        let has_mark = |pid: u32| {
            let text = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            text.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
        };
        let ours: Vec<u32> = pids.into_iter().filter(|pid| comes_of_it(*pid) || has_mark(*pid)).collect();
        ours.into_iter().for_each(|pid| self.look_at(pid));
    }

    fn look_at(&mut self, pid: u32) {
        let place = PathBuf::from(format!("/proc/{pid}"));
        let (Ok(program), Ok(maps)) = (place.join("exe").read_link(), std::fs::read(place.join("maps"))) else {
            return;
        };
        // The engine has the program's settings.
        if std::env::current_exe().is_ok_and(|own| own == program) || maps.is_empty() {
            return;
        }
        let maps = String::from_utf8_lossy(&maps);
        if !maps.contains("libossc_preload.so") {
            // By the link, since the file may be another one by now.
            let unloadable = executable::unloadable(&place.join("exe"));
            // The dynamic linker maps what LD_PRELOAD names before the C library, unless it is a part of that.
            let is_started = maps.contains("/libc.so") || maps.contains("/libc-2.") || maps.contains("/ld-musl");
            if let Some(why) = unloadable.or(is_started.then_some(CLEARED)) {
                self.bare.insert((pid == self.first, program.display().to_string(), why));
            }
            return;
        }
        let program = program.display().to_string();
        if maps.contains("/[aio]") {
            self.past.insert((program.clone(), "aio"));
        }
        let is_loop = maps.contains("/uvloop/loop.") || maps.contains("/libuv.") || program.ends_with("/node");
        if maps.contains("anon_inode:[io_uring]") && !is_loop {
            self.past.insert((program, "io_uring"));
        }
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field behind the name, which may hold any byte.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// The lines for people: what works as a note, what does not as a failure.
fn tell(report: &mut Report, lines: &BTreeSet<(String, String, String)>, seen: &Processes) {
    for (program, word, name) in lines {
        match word.as_str() {
            "sign" => report.note("reads past", format!("{program} reads past the C library: {name}")),
            "whole" => report.good("reads past", format!("{name} was opened as a whole by {program}")),
            "large" | "refused" => {
                report.bad("reads past", format!("{name} does not fit the memory: raise memoryLimit"))
            }
            "writable" => report.bad("reads past", format!("{name} was opened for writing too: open it for reading")),
            _ => report.bad("reads past", format!("{name} was opened before {program} was seen to do so: {WHOLE}")),
        }
    }
    let is_known = |program: &str| lines.iter().any(|line| line.0 == program && line.1 != "early");
    for (program, way) in seen.past.iter().filter(|(program, _)| !is_known(program)) {
        report.bad("reads past", format!("{program} has made an {way} that the library did not see: {WHOLE}"));
    }
    for (is_first, program, why) in &seen.bare {
        let found = format!(
            "{program} ran without the library, since it {why}; large objects are empty to it, but by descriptors that were opened as a whole"
        );
        match is_first {
            // What is named may be known to take no library: said before.
            true if !report.bad.iter().any(|what| what == "program") => report.bad("program", found),
            true => {}
            false => report.note("reads past", found),
        }
    }
    if lines.is_empty() && seen.past.is_empty() && seen.bare.is_empty() {
        report.good("reads past", "nothing was read past the C library, as far as can be seen");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_read_line_by_line() {
        let notes = Notes(std::env::temp_dir().join(format!("ossc-doctor-test-{}", std::process::id())));
        std::fs::write(
            &notes.0,
            "7\t/bin/x\tsign\tlibaio\n8\t/bin/x\tsign\tlibaio\n9\t/bin/y\twhole\n9\t/bin/y\twhole\t/m/a b",
        )
        .unwrap();
        let of = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(notes.lines(), BTreeSet::from([of("/bin/x", "sign", "libaio"), of("/bin/y", "whole", "/m/a b")]));
    }

    #[test]
    fn a_program_without_the_library_fails_also_where_another_one_reads_past_it() {
        let mut seen = Processes::of(1);
        seen.past.insert(("/bin/x".into(), "aio"));
        seen.bare.insert((true, "/bin/y".into(), CLEARED));
        let mut report = Report::default();
        tell(&mut report, &BTreeSet::new(), &seen);
        assert_eq!(report.bad, ["reads past", "program"]);
    }
}
