//! Whether a folder is quiet: a model that is being replaced object by object is not shown half old and half new.
//! Pure.
//!
//! Called by the mirror with what a listing says, before it makes the listing real. It reads no clock: the time is
//! the server's, of the answer itself.

use crate::mirror::listing::tree::Level;

/// Seconds on top of three times `listAgainSec` for which a folder is waited for at most.
const PATIENCE_SECS: u64 = 5;

/// What was known of a folder before a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Before {
    /// Nothing: no engine has listed it, and no leftover says how it was.
    Nothing,
    /// The same as the listing says.
    Same,
    /// Something else: another version of an object, one more or one less.
    Other,
}

/// The object of a folder that changed last, and how long to wait for more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unquiet {
    /// Its name in the folder.
    pub name: String,
    /// How long ago it changed, by the server's clock.
    pub ago_secs: u64,
    /// Until the folder is quiet, if nothing else changes.
    pub wait_secs: u64,
}

/// How long a folder is waited for at most, in seconds; `quiet_secs` is `listAgainSec`.
pub fn patience_secs(quiet_secs: u64) -> u64 {
    3 * quiet_secs + PATIENCE_SECS
}

/// `None` if the listing may be made real: it shows no change, or its newest object is `quiet_secs` old by the
/// server's clock. A first listing whose objects are all recent, as after an upload, and one whose answer names no
/// time are taken as they are.
pub fn look(level: &Level, before: Before, quiet_secs: u64) -> Option<Unquiet> {
    let date = level.date?;
    let age = |secs: i64| u64::try_from(date - secs).unwrap_or(0);
    let (name, newest) = level.objects.iter().max_by_key(|(_, object)| object.last_modified.0)?;
    let ago_secs = age(newest.last_modified.0);
    let is_recent = |secs: i64| age(secs) < quiet_secs;
    let is_mixed = || level.objects.values().any(|object| !is_recent(object.last_modified.0));
    let may_be_half = match before {
        Before::Same => false,
        Before::Other => true,
        Before::Nothing => is_mixed(),
    };
    (may_be_half && ago_secs < quiet_secs).then(|| Unquiet {
        name: name.clone(),
        ago_secs,
        wait_secs: (quiet_secs - ago_secs).max(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ossc_net::list::ObjectEntry;

    const NOW: i64 = 1_000_000;

    fn level(ages: &[i64]) -> Level {
        let object = |(number, age): (usize, &i64)| ObjectEntry {
            key: format!("o{number}"),
            etag: "\"E\"".into(),
            last_modified: (NOW - age, 0),
            ..ObjectEntry::default()
        };
        let objects = ages.iter().enumerate().map(object).collect();
        Level { date: Some(NOW), ..Level::new("", objects, &[]) }
    }

    #[test]
    fn what_changed_and_is_recent_is_waited_for() {
        let unquiet = look(&level(&[100, 2, 50]), Before::Other, 5);
        assert_eq!(unquiet, Some(Unquiet { name: "o1".into(), ago_secs: 2, wait_secs: 3 }));
        assert_eq!(look(&level(&[100, 5, 50]), Before::Other, 5), None, "quiet for long enough");
        assert_eq!(look(&level(&[100, 2]), Before::Same, 5), None, "no change");
    }

    #[test]
    fn a_first_listing_waits_only_where_old_and_new_lie_side_by_side() {
        assert_eq!(look(&level(&[1, 2, 0]), Before::Nothing, 5), None, "all of it was uploaded just now");
        assert!(look(&level(&[1, 2, 60]), Before::Nothing, 5).is_some());
        assert_eq!(look(&level(&[60, 70]), Before::Nothing, 5), None);
        assert_eq!(look(&level(&[]), Before::Other, 5), None, "an empty folder says nothing");
    }

    #[test]
    fn clocks_that_differ_cost_no_more_than_the_quiet_time() {
        assert_eq!(look(&level(&[-30]), Before::Other, 5).map(|unquiet| unquiet.wait_secs), Some(5));
        let undated = Level { date: None, ..level(&[0]) };
        assert_eq!(look(&undated, Before::Other, 5), None);
        assert_eq!(patience_secs(5), 20);
    }
}
