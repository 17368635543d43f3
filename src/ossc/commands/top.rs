//! `ossc top`: a load as it goes on: a bar for each object, speed, time left, and who has it mapped.
//!
//! Called by `main`. It looks twice a second, changes nothing, and ends when all that was asked for is here, or the engine is
//! gone. Without a terminal it prints a line whenever a whole percent is reached. What counts is what programs have asked for
//! and what is fetched ahead: a bucket may hold much that no program wants.

use crate::commands::arrival::{Arrival, Quiet, is_at_rest};
use crate::commands::output;
use crate::commands::pace::Pace;
use crate::commands::readers;
use crate::commands::view::{Which, failures, human, is_under_way, objects, ready_bytes, state_label};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use ossc_cache::region::{Object, RecordKind, Region, state};
use ossc_net::error::shown as name;
use serde_json::Value;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(500);
/// Lines of a terminal that tells no size, and those that are left free of a terminal's.
const ROWS: u16 = 24;
const ROWS_FREE: u16 = 3;
/// An object has failed, or a folder could not be listed.
const FAILED: u8 = 2;

/// Options of `ossc top`.
#[derive(Args)]
#[command(
    after_help = "Exit status: 0 all that was asked for is loaded; 1 no engine answers, or it ended before that; 2 an object has \
    failed, or a folder could not be listed (the reason is on stderr).\n\n\
    Examples:\n  ossc top --model-dir /models/qwen\n  ossc top --wait --stay"
)]
pub struct TopOptions {
    #[command(flatten)]
    which: Which,
    /// Go on after everything is loaded, to see who comes and goes.
    #[arg(long)]
    stay: bool,
    /// Wait for an engine where none runs yet.
    #[arg(long)]
    wait: bool,
}

/// Runs the command.
pub fn main(options: &TopOptions) -> ExitCode {
    let region = match region(options) {
        Ok(region) => region,
        Err(why) => {
            output::tell(&format!("ossc top: {why}"));
            return ExitCode::FAILURE;
        }
    };
    let is_terminal = std::io::stdout().is_terminal();
    let target = if is_terminal { ProgressDrawTarget::stdout() } else { ProgressDrawTarget::hidden() };
    let mut board = Board::new(MultiProgress::with_draw_target(target));
    let (mut told, begin, mut quiet) = (None, Instant::now(), Quiet::default());
    let (mut report, mut is_gone) = (options.which.report().unwrap_or_default(), false);
    loop {
        let sum = board.draw(&region, &report);
        let is_over = !options.stay && is_over(&report, &mut quiet);
        if !is_terminal && (told != Some(sum.percent()) || is_over) {
            told = Some(sum.percent());
            match output::print(&format!("{}  after {:.1} s\n", sum.text(), begin.elapsed().as_secs_f64())) {
                Ok(true) => {}
                Ok(false) => return ExitCode::SUCCESS,
                Err(e) => return output::lost("top", &e),
            }
        }
        if !is_terminal && output::is_left() {
            return ExitCode::SUCCESS;
        }
        // What is judged is what is drawn, and stays on the screen.
        if is_over || is_gone {
            board.end();
            return ended(&report, is_over, options.stay);
        }
        std::thread::sleep(PAUSE);
        match options.which.report() {
            Ok(next) => report = next,
            Err(_) => is_gone = !options.which.is_served(),
        }
    }
}

/// Nothing is on its way any more, and that lasts.
fn is_over(report: &Value, quiet: &mut Quiet) -> bool {
    !matches!(Arrival::of(report), Arrival::Coming(_)) && is_at_rest(report) && quiet.lasts(report)
}

fn region(options: &TopOptions) -> Result<Region, String> {
    let mut is_told = false;
    loop {
        match options.which.region() {
            Err(why) if options.wait => {
                if !std::mem::replace(&mut is_told, true) {
                    output::tell(&format!("ossc top: waiting: {why}"));
                }
            }
            answer => return answer,
        }
        std::thread::sleep(PAUSE);
    }
}

/// What it has come to, by the last report; `is_over` or the engine is gone.
fn ended(report: &Value, is_over: bool, stays: bool) -> ExitCode {
    let sum = Sum::of(report);
    match Arrival::of(report) {
        Arrival::Failed(lines) => {
            lines.iter().for_each(|line| output::tell(&format!("ossc top: {line}")));
            ExitCode::from(FAILED)
        }
        _ if !is_over && sum.ready < sum.bytes => {
            let (ready, bytes) = (human(sum.ready), human(sum.bytes));
            output::tell(&format!("ossc top: the engine ended while {ready} of {bytes} were here"));
            ExitCode::FAILURE
        }
        Arrival::Coming(why) if !stays => {
            output::tell(&format!("ossc top: the engine has ended: {why}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// How much of what was asked for is here.
struct Sum {
    bytes: u64,
    ready: u64,
    failed: usize,
}

impl Sum {
    fn of(report: &Value) -> Sum {
        let number = |name: &str| report["load"][name].as_u64().unwrap_or(0);
        Sum { bytes: number("bytes"), ready: number("here_bytes"), failed: failures(report).len() }
    }

    fn percent(&self) -> u64 {
        (self.ready * 100).checked_div(self.bytes).unwrap_or(100)
    }

    fn text(&self) -> String {
        let failed = if self.failed > 0 { format!("  {} FAILED", self.failed) } else { String::new() };
        format!("{:3} %  {} of {}{failed}", self.percent(), human(self.ready), human(self.bytes))
    }
}

struct Board {
    all: MultiProgress,
    sum: ProgressBar,
    /// As many lines as the terminal has room for; which object each one shows changes.
    lines: Vec<ProgressBar>,
    pace: Pace,
}

impl Board {
    fn new(all: MultiProgress) -> Board {
        let sum = all.add(ProgressBar::new(0).with_style(style("{bar:20} {wide_msg}")));
        Board { all, sum, lines: Vec::new(), pace: Pace::default() }
    }

    fn draw(&mut self, region: &Region, report: &Value) -> Sum {
        let header = region.header();
        let (dev, engine) = (header.memory_dev.load(Ordering::Acquire), header.engine_pid.load(Ordering::Acquire));
        let readers = readers::by_inode(dev, engine);
        let mut shown = Vec::new();
        for object in objects(region) {
            let ready = ready_bytes(region, object);
            let is_failed = object.state() == state::FAILED && !object.is_in_the_way();
            if object.kind() == RecordKind::Large || is_failed {
                // What is wrong first, then what is loading, what is whole, and what no program wants.
                let order = match ready {
                    _ if is_failed => 0,
                    whole if whole == object.size() => 2,
                    _ => 1 + 2 * u8::from(!is_under_way(region, object)),
                };
                shown.push((order, object, ready));
            }
        }
        shown.sort_by_key(|(order, ..)| *order);
        self.draw_lines(region, &shown, &readers);
        let sum = Sum::of(report);
        self.sum.set_length(sum.bytes);
        self.sum.set_position(sum.ready);
        let message = self.message(&sum, report);
        self.sum.set_message(message);
        sum
    }

    fn draw_lines(&mut self, region: &Region, shown: &[(u8, &Object, u64)], readers: &HashMap<u64, Vec<String>>) {
        let told = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(0, |size| size.ws_row);
        let rows = if told == 0 { ROWS } else { told.max(ROWS_FREE + 1) };
        let count = shown.len().min(usize::from(rows - ROWS_FREE));
        while self.lines.len() > count {
            self.lines.pop().iter().for_each(|line| self.all.remove(line));
        }
        while self.lines.len() < count {
            self.lines.push(self.all.add(ProgressBar::new(0).with_style(style("{bar:20} {wide_msg}"))));
        }
        for (line, (_, object, ready)) in self.lines.iter().zip(shown) {
            let percent = (ready * 100).checked_div(object.size()).unwrap_or(100);
            let who = readers
                .get(&object.memory_ino.load(Ordering::Acquire))
                .map_or(String::new(), |who| format!("  mapped by {}", who.join(", ")));
            let (size, label) = (human(object.size()), state_label(region, object));
            line.set_length(object.size());
            line.set_position(*ready);
            line.set_message(format!(
                "{percent:>3} %  {size:>9}  {label:<8} {}{}",
                name(&region.name(object)),
                name(&who)
            ));
        }
    }

    /// Rate and time left, memory, requests.
    fn message(&mut self, sum: &Sum, report: &Value) -> String {
        let number = |group: &str, name: &str| report[group][name].as_u64().unwrap_or(0);
        // What is under way counts, too: parts become ready many at a time.
        let rate = self.pace.rate(number("load", "received_at_us"), number("load", "received_bytes"));
        let origin = |name: &str| number("origin", name);
        let pace = match sum.bytes.saturating_sub(sum.ready) {
            // All is here, and nothing comes: a rate would be that of what came before.
            0 if origin("requests_under_way") == 0 => String::new(),
            more if more > 0 && rate > 0.0 => format!("  {}/s  {:.0} s left", human(rate as u64), more as f64 / rate),
            _ => format!("  {}/s", human(rate as u64)),
        };
        let throttled =
            if origin("throttled") > 0 { format!("  {} throttled", origin("throttled")) } else { String::new() };
        format!(
            "{}{pace}  memory {} of {}  {} of {} requests, {} retries{throttled}",
            sum.text(),
            human(number("memory", "used_bytes")),
            human(number("memory", "budget_bytes")),
            origin("requests_under_way"),
            origin("requests_allowed"),
            origin("retries"),
        )
    }

    /// Leaves what was drawn on the screen.
    fn end(self) {
        self.lines.iter().for_each(ProgressBar::abandon);
        self.sum.abandon();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
