//! The log and the audit file: one thread writes both, so that nobody who serves bytes waits for a disk.
//!
//! Called by the engine through `tracing` (log) and `audit` (audit lines). A file that cannot be opened costs one
//! warning, and its lines go beside the engine's lock; lines that do not fit the queue are counted and the count is
//! written later.

pub mod audit;

use ossc_conf::{Config, LogLevel};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for the writer.
const LINES_MAX: usize = 8192;
/// How often a full queue is tried again by who waits for the writer.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// What the log of this process goes through.
static OF_PROCESS: OnceLock<Journal> = OnceLock::new();

/// Waits until what this process has logged so far is written, at most so long. Before its end a process calls it, or
/// loses its last lines: the reason of its end.
pub fn flush(within: Duration) {
    OF_PROCESS.get().into_iter().for_each(|journal| journal.flush(within));
}

enum Line {
    Log(Vec<u8>),
    Audit(Vec<u8>),
    Flush(SyncSender<()>),
    /// The file of the log, and of the audit lines, from now on.
    LogTo(File),
    AuditTo(File),
}

/// The files that could not be opened, and why.
#[derive(Default)]
pub struct Refused {
    log: Option<std::io::Error>,
    audit: Option<std::io::Error>,
}

/// Where lines go.
#[derive(Clone)]
pub struct Journal {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

impl Journal {
    /// Opens the files and starts the writer. The texts are warnings for the user.
    pub fn start(log: &Path, audit: Option<&Path>, level: LogLevel) -> (Journal, Refused, Vec<String>) {
        let (lines, queue) = sync_channel(LINES_MAX);
        let journal = Journal { lines, lost: Arc::default() };
        let (mut refused, mut warnings) = (Refused::default(), Vec::new());
        let log = open(log, 0).map_err(|e| refused.log = Some(e)).ok();
        let audit = audit.and_then(|audit| open(audit, 0).map_err(|e| refused.audit = Some(e)).ok());
        let lost = journal.lost.clone();
        let named = std::thread::Builder::new().name("ossc-journal".into()).stack_size(256 << 10);
        if let Err(e) = named.spawn(move || write(&queue, log, audit, &lost)) {
            warnings.push(format!("cannot start the thread that writes the log: {e}"));
        }
        let writer = Writer(Mutex::new(journal.clone()));
        let level = match level {
            LogLevel::Debug => tracing::Level::DEBUG,
            LogLevel::Info => tracing::Level::INFO,
            LogLevel::Warn => tracing::Level::WARN,
            LogLevel::Error => tracing::Level::ERROR,
        };
        let log = tracing_subscriber::fmt()
            .with_writer(writer)
            .with_max_level(level)
            .with_target(false)
            .with_thread_names(false);
        // Only tests start two journals in one process; the first keeps the log then.
        if tracing::subscriber::set_global_default(log.finish()).is_ok() {
            let _ = OF_PROCESS.set(journal.clone());
        }
        (journal, refused, warnings)
    }

    /// Opens what was refused beside `lock`, the engine's own file. The configuration names that place from then on. The
    /// texts are warnings for the user.
    pub fn move_beside(&self, lock: &Path, refused: Refused, config: &mut Config) -> Vec<String> {
        let log = (refused.log, &mut config.log_path, "log", "log", Line::LogTo as fn(File) -> Line);
        let audit =
            (refused.audit, &mut config.audit_path, "audit log", "audit.log", Line::AuditTo as fn(File) -> Line);
        let mut warnings = Vec::new();
        for (refused, path, what, ending, line) in [log, audit] {
            let Some(why) = refused else { continue };
            let (beside, named) = (lock.with_extension(ending), path.display());
            // The run folder is this user's, but at CONNECTOR_UDS_PATH others may have put a link.
            let opened = open(&beside, libc::O_NOFOLLOW);
            warnings.push(match &opened {
                Ok(_) => format!("cannot write the {what} {named}: {why}: it goes to {}", beside.display()),
                Err(e) => {
                    format!("cannot write the {what} {named}: {why}, nor {}: {e}; going on without", beside.display())
                }
            });
            if let Ok(file) = opened {
                self.send(line(file));
                *path = beside;
            }
        }
        warnings
    }

    /// One line of the audit file, without its line break.
    pub fn audit(&self, mut line: Vec<u8>) {
        line.push(b'\n');
        self.send(Line::Audit(line));
    }

    /// Waits until all lines so far are written, at most so long.
    fn flush(&self, within: Duration) {
        let until = Instant::now() + within;
        let (done, wait) = sync_channel(1);
        let mut line = Line::Flush(done);
        while let Err(TrySendError::Full(back)) = self.lines.try_send(line) {
            if Instant::now() > until {
                return;
            }
            line = back;
            std::thread::sleep(FULL_PAUSE);
        }
        let _ = wait.recv_timeout(until.saturating_duration_since(Instant::now()));
    }

    fn send(&self, line: Line) {
        if self.lines.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A FIFO without a reader is an error (ENXIO), and one whose reader does not keep up loses lines: the engine waits for
/// neither.
fn open(path: &Path, more: i32) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).custom_flags(libc::O_NONBLOCK | more).open(path)
}

fn write(queue: &Receiver<Line>, mut log: Option<File>, mut audit: Option<File>, lost: &AtomicU64) {
    loop {
        let line = match queue.recv_timeout(Duration::from_secs(3600)) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let missed = lost.swap(0, Ordering::Relaxed);
        if missed > 0 {
            let text = format!("WARN {missed} lines of log and audit were lost: the disk or the reader is too slow\n");
            if !put(&mut log, text.as_bytes()) {
                lost.fetch_add(missed, Ordering::Relaxed);
            }
        }
        let is_written = match line {
            Line::Log(bytes) => put(&mut log, &bytes),
            Line::Audit(bytes) => put(&mut audit, &bytes),
            Line::Flush(done) => {
                let _ = done.send(());
                true
            }
            Line::LogTo(file) => {
                log = Some(file);
                true
            }
            Line::AuditTo(file) => {
                audit = Some(file);
                true
            }
        };
        if !is_written {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// False if the reader of a pipe has not made room for the line.
fn put(file: &mut Option<File>, bytes: &[u8]) -> bool {
    // A full disk must not stop the engine, and there is nowhere left to say so.
    file.as_mut().is_none_or(|file| !matches!(file.write_all(bytes), Err(e) if e.kind() == ErrorKind::WouldBlock))
}

struct Writer(Mutex<Journal>);

impl<'a> MakeWriter<'a> for Writer {
    type Writer = OneLine;
    fn make_writer(&'a self) -> OneLine {
        OneLine { journal: self.0.lock().unwrap_or_else(|e| e.into_inner()).clone(), bytes: Vec::with_capacity(256) }
    }
}

/// Gathers what the formatter writes of one event, and sends it whole.
struct OneLine {
    journal: Journal,
    bytes: Vec<u8>,
}

impl Write for OneLine {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for OneLine {
    fn drop(&mut self) {
        self.journal.send(Line::Log(std::mem::take(&mut self.bytes)));
    }
}
