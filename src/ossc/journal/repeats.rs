//! Lines of the log that are the line before once more: they are counted instead of written.
//!
//! Called by the journal's thread. Time is an argument. It writes nothing itself.

use std::time::{Duration, Instant};
use tracing::Level;

/// How long lines are counted before the count is written.
const COUNTED_FOR: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Default)]
pub struct Repeats {
    /// The last line without its time.
    last: Vec<u8>,
    /// Its level, and since when lines like it are counted.
    counted: Option<(Level, Instant)>,
    count: u64,
}

impl Repeats {
    /// True if the line is the one before once more, and is counted.
    pub fn counts(&mut self, level: Level, body: &[u8], now: Instant) -> bool {
        if self.last != body {
            return false;
        }
        self.count += 1;
        self.counted.get_or_insert((level, now));
        true
    }

    /// This line is written.
    pub fn begin(&mut self, body: &[u8]) {
        self.last.clear();
        self.last.extend_from_slice(body);
    }

    /// How many are counted and not told, with their level. They are told with that.
    pub fn take_count(&mut self) -> Option<(Level, u64)> {
        let (level, _) = self.counted.take()?;
        Some((level, std::mem::take(&mut self.count)))
    }

    /// How long until the count is to be told, if there is one.
    pub fn due_in(&self, now: Instant) -> Option<Duration> {
        self.counted.map(|(_, since)| COUNTED_FOR.saturating_sub(now.saturating_duration_since(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_comes_again_is_counted_until_ten_seconds_are_over() {
        let (begin, mut repeats) = (Instant::now(), Repeats::default());
        assert!(!repeats.counts(Level::WARN, b"a", begin));
        repeats.begin(b"a");
        assert_eq!((repeats.due_in(begin), repeats.take_count()), (None, None));
        assert!(
            repeats.counts(Level::WARN, b"a", begin)
                && repeats.counts(Level::WARN, b"a", begin + Duration::from_secs(4))
        );
        assert_eq!(repeats.due_in(begin + Duration::from_secs(4)), Some(Duration::from_secs(6)));
        assert_eq!(repeats.due_in(begin + Duration::from_secs(11)), Some(Duration::ZERO));
        assert_eq!((repeats.take_count(), repeats.take_count()), (Some((Level::WARN, 2)), None));
        assert!(repeats.counts(Level::WARN, b"a", begin), "it is still the line before");
        assert!(!repeats.counts(Level::WARN, b"b", begin));
    }
}
