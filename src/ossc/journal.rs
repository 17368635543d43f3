//! The log and the audit file: one thread writes both, so that what serves bytes never waits for a disk.
//!
//! Called by the engine through `tracing` (log) and `audit` (audit lines). A file that cannot be opened costs one
//! warning, and its lines go beside the engine's lock; lines that do not fit the queue or cannot be written are counted
//! and the count is written later.

pub mod audit;
pub mod line;
mod output;
mod repeats;

use crate::journal::line::Form;
use crate::journal::output::Sink;
use crate::journal::repeats::Repeats;
use crate::lock::lock;
use ossc_cache::wire::Streams;
use ossc_conf::{Config, LogFormat, LogLevel, Output};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for the writer.
const LINES_MAX: usize = 8192;
/// How often a full queue is tried again by who waits for the writer.
const FULL_PAUSE: Duration = Duration::from_millis(5);
/// How long the writer sleeps where no line comes.
const IDLE: Duration = Duration::from_secs(3600);

/// What the log of this process goes through.
static OF_PROCESS: OnceLock<Journal> = OnceLock::new();

/// Waits until what this process has logged so far is written, at most so long. Before its end a process calls it, or
/// loses its last lines: the reason of its end.
pub fn flush(within: Duration) {
    OF_PROCESS.get().into_iter().for_each(|journal| journal.flush(within));
}

/// Lines of log and audit of this process that were lost.
pub fn lines_lost() -> u64 {
    OF_PROCESS.get().map_or(0, |journal| journal.lost.total.load(Ordering::Relaxed))
}

enum Line {
    /// What stands behind the time.
    Log(SystemTime, Level, Vec<u8>),
    Audit(Vec<u8>),
    Flush(SyncSender<()>),
    /// Where the log, or the audit lines, go from now on.
    To(Half, Option<Sink>),
}

/// One of the two things that are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Half {
    /// Lines of `tracing`.
    Log,
    /// Lines of `audit`.
    Audit,
}

/// What could not be opened, and why.
#[derive(Default)]
pub struct Refused {
    log: Option<std::io::Error>,
    audit: Option<std::io::Error>,
}

/// Lines that were lost: those that no line has told yet, and all.
#[derive(Default)]
struct Lost {
    untold: AtomicU64,
    total: AtomicU64,
}

impl Lost {
    fn one(&self) {
        self.untold.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(1, Ordering::Relaxed);
    }
}

/// Where lines go.
#[derive(Clone)]
pub struct Journal {
    lines: SyncSender<Line>,
    lost: Arc<Lost>,
    late: Arc<Late>,
}

/// Changes that found the queue full: unlike a line none may be lost, since a stream has to be given up.
#[derive(Default)]
struct Late {
    any: AtomicBool,
    changes: Mutex<Vec<(Half, Option<Sink>)>>,
}

impl Journal {
    /// Opens what log and audit lines go to (the streams are those of the program that starts the engine), and starts the
    /// writer. The texts are warnings for the user.
    pub fn start(
        (log, audit): (&Output, Option<&Output>),
        level: LogLevel,
        format: LogFormat,
        streams: &Streams,
    ) -> (Journal, Refused, Vec<String>) {
        let (lines, queue) = sync_channel(LINES_MAX);
        let journal = Journal { lines, lost: Arc::default(), late: Arc::default() };
        let (mut refused, mut warnings) = (Refused::default(), Vec::new());
        let log = sink(log, streams).map_err(|e| refused.log = Some(e)).ok();
        let audit = audit.and_then(|audit| sink(audit, streams).map_err(|e| refused.audit = Some(e)).ok());
        let form = Form(format);
        let (lost, late) = (journal.lost.clone(), journal.late.clone());
        let writer = Writing { form, log, audit, lost, late, repeats: Repeats::default() };
        let named = std::thread::Builder::new().name("ossc-journal".into()).stack_size(256 << 10);
        if let Err(e) = named.spawn(move || writer.run(&queue)) {
            warnings.push(format!("cannot start the thread that writes the log: {e}"));
        }
        let level = match level {
            LogLevel::Debug => Level::DEBUG,
            LogLevel::Info => Level::INFO,
            LogLevel::Warn => Level::WARN,
            LogLevel::Error => Level::ERROR,
        };
        let log =
            tracing_subscriber::fmt().event_format(form).with_writer(Writer(journal.clone())).with_max_level(level);
        // Only tests start two journals in one process; the first keeps the log then.
        if tracing::subscriber::set_global_default(log.finish()).is_ok() {
            let _ = OF_PROCESS.set(journal.clone());
        }
        (journal, refused, warnings)
    }

    /// Opens what was refused beside `lock`, the engine's own file. The configuration names that place from then on. The
    /// texts are warnings for the user.
    pub fn move_beside(&self, lock: &Path, refused: Refused, config: &mut Config) -> Vec<String> {
        let log = (Half::Log, refused.log, &mut config.log_path);
        let audit = (Half::Audit, refused.audit, &mut config.audit_path);
        let mut warnings = Vec::new();
        for (half, refused, output) in [log, audit] {
            let Some(why) = refused else { continue };
            let (what, beside) = (half.name(), lock.with_extension(half.ending()));
            let opened = open_beside(&beside);
            warnings.push(match &opened {
                Ok(_) => format!("cannot write the {what} {output}: {why}: it goes to {}", beside.display()),
                Err(e) => {
                    format!("cannot write the {what} {output}: {why}, nor {}: {e}; going on without", beside.display())
                }
            });
            if let Ok(sink) = opened {
                self.change(half, Some(sink));
                *output = Output::File(beside);
            }
        }
        warnings
    }

    /// From now on it goes to a file beside `lock`, or nowhere if there can be none: its stream is given up behind the
    /// lines so far.
    pub fn leave_stream(&self, half: Half, lock: &Path) {
        self.change(half, open_beside(&lock.with_extension(half.ending())).ok());
    }

    /// From now on it goes to this stream of a program; false if it cannot.
    pub fn take_stream(&self, half: Half, output: &Output, streams: &Streams) -> bool {
        let opened = sink(output, streams);
        opened.map(|sink| self.change(half, Some(sink))).is_ok()
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

    fn change(&self, half: Half, sink: Option<Sink>) {
        if let Err(TrySendError::Full(Line::To(half, sink))) = self.lines.try_send(Line::To(half, sink)) {
            lock(&self.late.changes).push((half, sink));
            self.late.any.store(true, Ordering::Release);
        }
    }

    fn send(&self, line: Line) {
        if self.lines.try_send(line).is_err() {
            self.lost.one();
        }
    }
}

impl Half {
    /// For people.
    fn name(self) -> &'static str {
        match self {
            Half::Log => "log",
            Half::Audit => "audit log",
        }
    }

    /// How its file beside the engine's lock ends.
    fn ending(self) -> &'static str {
        match self {
            Half::Log => "log",
            Half::Audit => "audit.log",
        }
    }
}

fn sink(output: &Output, streams: &Streams) -> std::io::Result<Sink> {
    match output {
        Output::File(path) => Sink::open(path, 0),
        Output::Stdout => Sink::stream(streams.stdout.as_ref()),
        Output::Stderr => Sink::stream(streams.stderr.as_ref()),
    }
}

/// The run folder is this user's, but at CONNECTOR_UDS_PATH others may have put a link.
fn open_beside(path: &Path) -> std::io::Result<Sink> {
    Sink::open(path, libc::O_NOFOLLOW)
}

/// What the writer's thread has.
struct Writing {
    form: Form,
    log: Option<Sink>,
    audit: Option<Sink>,
    lost: Arc<Lost>,
    late: Arc<Late>,
    repeats: Repeats,
}

impl Writing {
    fn run(mut self, queue: &Receiver<Line>) {
        loop {
            let wait = self.repeats.due_in(Instant::now());
            match queue.recv_timeout(wait.unwrap_or(IDLE)) {
                Ok(line) => {
                    self.tell_lost();
                    self.write(line);
                    if self.late.any.swap(false, Ordering::AcqRel) {
                        let changes = std::mem::take(&mut *lock(&self.late.changes));
                        changes.into_iter().for_each(|(half, sink)| self.write(Line::To(half, sink)));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.tell_repeats(),
            }
            if self.repeats.due_in(Instant::now()) == Some(Duration::ZERO) {
                self.tell_repeats();
            }
        }
    }

    fn write(&mut self, line: Line) {
        match line {
            Line::Log(at, level, body) => {
                if !self.repeats.counts(level, &body, Instant::now()) {
                    self.tell_repeats();
                    self.put_log(at, &body);
                    self.repeats.begin(&body);
                }
            }
            Line::Audit(bytes) => {
                if !put(&mut self.audit, &bytes) {
                    self.lost.one();
                }
            }
            Line::Flush(done) => {
                self.tell_repeats();
                let _ = done.send(());
            }
            Line::To(Half::Log, sink) => {
                self.tell_repeats();
                self.log = sink;
            }
            Line::To(Half::Audit, sink) => self.audit = sink,
        }
    }

    fn put_log(&mut self, at: SystemTime, body: &[u8]) {
        if !put(&mut self.log, &self.form.line(at, body)) {
            self.lost.one();
        }
    }

    fn tell_lost(&mut self) {
        let untold = self.lost.untold.swap(0, Ordering::Relaxed);
        if untold > 0 {
            let words =
                format!("{untold} lines of log and audit were lost: the disk is full, or the reader is too slow");
            let line = self.form.line(SystemTime::now(), &self.form.of_words(Level::WARN, &words));
            if !put(&mut self.log, &line) {
                self.lost.untold.fetch_add(untold, Ordering::Relaxed);
            }
        }
    }

    fn tell_repeats(&mut self) {
        if let Some((level, count)) = self.repeats.take_count() {
            let words = format!("the line before came {count} times more");
            self.put_log(SystemTime::now(), &self.form.of_words(level, &words));
        }
    }
}

/// False if the line could not be written.
fn put(sink: &mut Option<Sink>, bytes: &[u8]) -> bool {
    sink.as_mut().is_none_or(|sink| sink.put(bytes))
}

struct Writer(Journal);

impl<'a> MakeWriter<'a> for Writer {
    type Writer = OneLine;
    fn make_writer(&'a self) -> OneLine {
        OneLine { journal: self.0.clone(), at: SystemTime::now(), level: Level::INFO, body: Vec::with_capacity(256) }
    }
    fn make_writer_for(&'a self, about: &Metadata<'_>) -> OneLine {
        let mut line = self.make_writer();
        line.level = *about.level();
        line
    }
}

/// Gathers what the formatter writes of one event, and sends it whole.
struct OneLine {
    journal: Journal,
    at: SystemTime,
    level: Level,
    body: Vec<u8>,
}

impl Write for OneLine {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.body.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for OneLine {
    fn drop(&mut self) {
        self.journal.send(Line::Log(self.at, self.level, std::mem::take(&mut self.body)));
    }
}
