//! `ossc top`: a load as it goes on: a bar for each object, speed, time left, and who has it mapped.
//!
//! Called by `main`. It looks twice a second, changes nothing, and ends when everything is loaded or the engine is
//! gone. Without a terminal it prints a line whenever a whole percent is reached.

use crate::commands::output;
use crate::commands::readers;
use crate::commands::view::{Which, human, objects, ready_bytes, state_label};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use ossc_cache::region::{Object, RecordKind, Region, state};
use std::collections::HashMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(500);
/// Objects that have a bar of their own; the others are in the sum.
const BARS_MAX: usize = 40;

#[derive(Args)]
pub struct TopOptions {
    #[command(flatten)]
    which: Which,
    /// Go on after everything is loaded, to see who comes and goes.
    #[arg(long)]
    stay: bool,
}

/// Runs the command.
pub fn main(options: &TopOptions) -> ExitCode {
    let region = match options.which.region() {
        Ok(region) => region,
        Err(why) => {
            eprintln!("ossc top: {why}");
            return ExitCode::FAILURE;
        }
    };
    let is_terminal = std::io::stdout().is_terminal();
    let target = if is_terminal { ProgressDrawTarget::stdout() } else { ProgressDrawTarget::hidden() };
    let mut board = Board::new(MultiProgress::with_draw_target(target));
    let (mut told, begin) = (None, Instant::now());
    loop {
        let sum = board.draw(&region);
        if !is_terminal && told != Some(sum.percent()) {
            told = Some(sum.percent());
            let line = format!(
                "{:3} %  {} of {}  after {:.1} s\n",
                sum.percent(),
                human(sum.ready),
                human(sum.bytes),
                begin.elapsed().as_secs_f64()
            );
            match output::print(&line) {
                Ok(true) => {}
                Ok(false) => return ExitCode::SUCCESS,
                Err(e) => return output::lost("top", &e),
            }
        }
        let is_over = sum.open == 0 && !options.stay;
        if is_over || !options.which.is_served() {
            board.end();
            return ExitCode::SUCCESS;
        }
        std::thread::sleep(PAUSE);
    }
}

/// What one look has found.
#[derive(Default)]
struct Sum {
    bytes: u64,
    ready: u64,
    /// Objects that are neither whole nor failed.
    open: usize,
}

impl Sum {
    fn percent(&self) -> u64 {
        (self.ready * 100).checked_div(self.bytes).unwrap_or(100)
    }
}

struct Board {
    all: MultiProgress,
    sum: ProgressBar,
    bars: HashMap<u32, ProgressBar>,
}

impl Board {
    fn new(all: MultiProgress) -> Board {
        let sum = all.add(ProgressBar::new(0).with_style(style(
            "{bar:30} {percent:>3} %  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left  {msg}",
        )));
        Board { all, sum, bars: HashMap::new() }
    }

    fn draw(&mut self, region: &Region) -> Sum {
        let header = region.header();
        let (dev, engine) = (header.memory_dev.load(Ordering::Acquire), header.engine_pid.load(Ordering::Acquire));
        let readers = readers::by_inode(dev, engine);
        let mut sum = Sum::default();
        for object in
            objects(region).filter(|object| object.state() != state::GONE || object.kind() == RecordKind::Large)
        {
            let ready = ready_bytes(region, object);
            sum.bytes += object.size();
            sum.ready += ready;
            sum.open += usize::from(matches!(object.state(), state::COMING | state::LOADING));
            if object.kind() == RecordKind::Large {
                self.bar(region, object, ready, &readers);
            }
        }
        self.sum.set_length(sum.bytes);
        self.sum.set_position(sum.ready);
        let requests = header.origin_requests.load(Ordering::Relaxed);
        let retries = header.origin_retries.load(Ordering::Relaxed);
        self.sum.set_message(format!("{requests} requests, {retries} retries"));
        sum
    }

    fn bar(&mut self, region: &Region, object: &Object, ready: u64, readers: &HashMap<u64, Vec<String>>) {
        if self.bars.len() >= BARS_MAX && !self.bars.contains_key(&object.first_part()) {
            return;
        }
        let all = &self.all;
        let bar = self.bars.entry(object.first_part()).or_insert_with(|| {
            all.add(
                ProgressBar::new(object.size()).with_style(style("{bar:30} {percent:>3} %  {total_bytes:>11}  {msg}")),
            )
        });
        bar.set_position(ready);
        let who = readers
            .get(&object.memory_ino.load(Ordering::Acquire))
            .map_or(String::new(), |who| format!("  mapped by {}", who.join(", ")));
        bar.set_message(format!("{:<8} {}{who}", state_label(region, object), region.name(object)));
    }

    /// Leaves what was drawn on the screen.
    fn end(self) {
        self.bars.values().for_each(ProgressBar::abandon);
        self.sum.abandon();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
