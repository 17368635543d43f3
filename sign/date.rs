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

/// `YYYY-MM-DDTHH:MM:SSZ`, as services beside OSS want it.
pub fn utc(unix_secs: i64) -> String {
    let basic = basic_utc(unix_secs);
    let (date, time) = (&basic[..8], &basic[9..15]);
    format!("{}-{}-{}T{}:{}:{}Z", &date[..4], &date[4..6], &date[6..], &time[..2], &time[2..4], &time[4..])
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

/// The inverse of `civil_from_days`, from the same source.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Unix seconds of `2024-08-02T15:04:05Z`, the spelling of an Expiration; fractions of a second are
/// dropped. `None` if it is anything else, or no day of the calendar.
pub(crate) fn parse_utc(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z')?;
    let (text, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    if shape != "0000-00-00T00:00:00" || fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let days = days_from_civil(year, month, day);
    let is_date = civil_from_days(days) == (year, month, day);
    // 60 is a leap second, which Unix time does not count.
    let is_time = hour < 24 && minute < 60 && second <= 60;
    (is_date && is_time).then_some(days * SECS_PER_DAY + hour * 3600 + minute * 60 + second.min(59))
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
        // Miri is some thousand times as slow.
        for day in (0..146_097).step_by(if cfg!(miri) { 1_999 } else { 7 }) {
            let secs = day * SECS_PER_DAY + day % SECS_PER_DAY;
            assert_eq!(parse_utc(&utc(secs)), Some(secs));
        }
    }

    #[test]
    fn times_of_an_expiration() {
        assert_eq!(parse_utc("2024-08-02T15:04:05Z"), Some(1_722_611_045));
        assert_eq!(parse_utc("2024-02-29T23:59:60.123Z"), parse_utc("2024-02-29T23:59:59Z"));
        for text in [
            "",
            "Z",
            "2024-08-02T15:04:05",
            "2024-08-02T15:04:05+08:00",
            "2024-08-02 15:04:05Z",
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2024-01-00T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00.xZ",
            "\u{662}024-01-01T00:00:0Z",
        ] {
            assert_eq!(parse_utc(text), None, "{text}");
        }
    }
}
