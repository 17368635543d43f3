//! Unix seconds to the spellings of time that signatures use, and back. Called by both signers, and
//! by `net` for the Date header.
//!
//! It knows UTC and the proleptic Gregorian calendar, and never asks the system for the time.

use std::time::{Duration, SystemTime};

const SECS_PER_DAY: i64 = 86_400;

/// `Sat, 01 Feb 2025 09:08:07 GMT` (RFC 1123): the Date header, which V1 signs. Times before 1970
/// are 1970.
pub fn http_date(unix_secs: i64) -> String {
    let since = Duration::from_secs(u64::try_from(unix_secs).unwrap_or(0));
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since)
}

/// `YYYYMMDDTHHMMSSZ`; its first eight characters are the day of the scope.
pub(crate) fn basic_utc(unix_secs: i64) -> String {
    let (year, month, day) = civil_from_days(unix_secs.div_euclid(SECS_PER_DAY));
    let second = unix_secs.rem_euclid(SECS_PER_DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Days since 1970-01-01 to (year, month, day): H. Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`. An era is 400 years or 146097 days; years begin in March, so
/// that the leap day is the last one.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468; // days from 0000-03-01 to 1970-01-01
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// The inverse, for tests that read dates from vectors.
#[cfg(test)]
pub(crate) fn unix_secs(iso: &str) -> i64 {
    let number = |range: std::ops::Range<usize>| -> i64 { iso[range].parse().expect(iso) };
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let leap = |y: i64| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
    let days_in = |y: i64, m: i64| match m {
        2 => 28 + i64::from(leap(y)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let years: i64 = (1970..year).map(|y| 365 + i64::from(leap(y))).sum();
    let months: i64 = (1..month).map(|m| days_in(year, m)).sum();
    (years + months + day - 1) * SECS_PER_DAY + number(11..13) * 3600 + number(14..16) * 60 + number(17..19)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants() {
        // Right column: GNU date -u -d @N.
        for (secs, text) in [
            (0, "19700101T000000Z"),
            (-1, "19691231T235959Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (1_702_743_657, "20231216T162057Z"),
            (4_107_542_399, "21000228T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(basic_utc(secs), text, "{secs}");
        }
    }

    #[test]
    fn days_of_four_centuries_survive_the_round_trip() {
        let iso = |secs| {
            let t = basic_utc(secs);
            format!("{}-{}-{}T00:00:00Z", &t[0..4], &t[4..6], &t[6..8])
        };
        for day in (0..146_097).step_by(7) {
            assert_eq!(unix_secs(&iso(day * SECS_PER_DAY)), day * SECS_PER_DAY);
        }
    }
}
