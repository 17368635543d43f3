//! One progress bar on a terminal that a program writes to as well.
//!
//! Called by the commands that take long (`run --progress`, `verify`). The library indicatif lays the bar out; this puts
//! it in the line below the cursor and leaves the cursor where it was, so that what a program writes begins where it would
//! begin without a bar. No mode of the terminal is changed: whatever ends this process, the terminal is as it was. Where
//! standard error is no terminal, or this process is not in its foreground, nothing is written.

use crate::lock::lock;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use std::io::{IsTerminal, Result, Write};
use std::sync::{Arc, Mutex};

/// Columns of a terminal that tells no size, and the fewest that have room for more than words.
const COLUMNS: u16 = 80;
const COLUMNS_OF_BAR: u16 = 64;
/// Erases from the cursor on: the rest of its line, and the bar below.
const ERASE: &str = "\x1b[J";
/// Makes sure that there is a line below, by a step down and one up in the same column (IND, RI); keeps the cursor (DECSC)
/// and goes there.
const BELOW: &str = "\x1bD\x1bM\x1b7\x1b[B\r";
/// Back to where the cursor was (DECRC).
const BACK: &str = "\x1b8";

/// See the module.
pub struct Bar {
    what: &'static str,
    shown: Mutex<Shown>,
}

struct Shown {
    bar: ProgressBar,
    line: OneLine,
    is_drawn: bool,
    is_closed: bool,
}

impl Bar {
    /// On standard error, if that is a terminal that can move its cursor. `what` stands before the bar.
    pub fn on_stderr(what: &'static str) -> Option<Bar> {
        let moves = std::env::var_os("TERM").is_some_and(|name| !name.is_empty() && name != "dumb");
        if !moves || !std::io::stderr().is_terminal() {
            return None;
        }
        let line = OneLine::default();
        let target = ProgressDrawTarget::term_like(Box::new(line.clone()));
        let bar = ProgressBar::with_draw_target(Some(0), target);
        Some(Bar { what, shown: Mutex::new(Shown { bar, line, is_drawn: false, is_closed: false }) })
    }

    /// Shows so much of so much, and a text.
    pub fn draw(&self, position: u64, length: u64, text: String) {
        let mut shown = lock(&self.shown);
        if shown.is_closed || !is_in_foreground() {
            return;
        }
        shown.bar.set_style(style(self.what, shown.line.width()));
        shown.bar.set_length(length);
        shown.bar.set_position(position);
        shown.bar.set_message(text);
        shown.bar.tick();
        let line = shown.line.text();
        write(&format!("{ERASE}{BELOW}{line}{BACK}"));
        shown.is_drawn = true;
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.aside(|| {});
    }

    /// Takes the bar away, and draws none before `meanwhile` comes back.
    pub fn aside(&self, meanwhile: impl FnOnce()) {
        let mut shown = lock(&self.shown);
        if std::mem::take(&mut shown.is_drawn) {
            write(ERASE);
        }
        meanwhile();
    }

    /// Takes the bar away and writes a line of its own; a program may have left the cursor behind half a line.
    pub fn say(&self, text: &str) {
        self.clear();
        // From behind a text they reach into the next line, and from the begin of a line not.
        let columns = usize::from(lock(&self.shown).line.width()) + 1;
        write(&format!("{}\r\x1b[K{text}\n", " ".repeat(columns)));
    }

    /// Takes the bar away for good.
    pub fn close(&self) {
        self.clear();
        lock(&self.shown).is_closed = true;
    }
}

/// In one write, so that nothing comes in between. Who has closed the terminal sees no bar.
fn write(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// False while another job has the terminal.
fn is_in_foreground() -> bool {
    rustix::termios::tcgetpgrp(std::io::stderr()).map_or(true, |group| group == rustix::process::getpgrp())
}

fn style(what: &str, columns: u16) -> ProgressStyle {
    let bar = if columns >= COLUMNS_OF_BAR { "[{bar:20}] " } else { "" };
    let template = format!("{what} {bar}{{wide_msg}}");
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// A terminal of one line, which takes what is drawn last.
#[derive(Clone, Debug, Default)]
struct OneLine(Arc<Mutex<String>>);

impl OneLine {
    fn text(&self) -> String {
        lock(&self.0).trim_end().to_string()
    }
}

impl TermLike for OneLine {
    /// One less than there are: a full line would move the cursor on some terminals.
    fn width(&self) -> u16 {
        let told = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(0, |size| size.ws_col);
        (if told == 0 { COLUMNS } else { told }).max(2) - 1
    }
    fn move_cursor_up(&self, _: usize) -> Result<()> {
        Ok(())
    }
    fn move_cursor_down(&self, _: usize) -> Result<()> {
        Ok(())
    }
    fn move_cursor_right(&self, _: usize) -> Result<()> {
        Ok(())
    }
    fn move_cursor_left(&self, _: usize) -> Result<()> {
        Ok(())
    }
    fn write_line(&self, text: &str) -> Result<()> {
        self.write_str(text)
    }
    fn write_str(&self, text: &str) -> Result<()> {
        lock(&self.0).push_str(text);
        Ok(())
    }
    fn clear_line(&self) -> Result<()> {
        lock(&self.0).clear();
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_never_longer_than_the_terminal() {
        for columns in [2, 20, 63, 64, 79, 200] {
            let line = OneLine::default();
            let target = ProgressDrawTarget::term_like(Box::new(line.clone()));
            let bar = ProgressBar::with_draw_target(Some(100), target);
            bar.set_style(style("loading", columns));
            bar.set_position(40);
            bar.set_message("40 %  1.6 GiB of 4.0 GiB  0.300 GB/s  8 s left");
            bar.tick();
            assert!(line.text().chars().count() <= usize::from(line.width()), "{columns}: {}", line.text());
            assert_eq!(line.text().contains("[========>"), columns >= COLUMNS_OF_BAR, "{columns}: {}", line.text());
        }
    }
}
