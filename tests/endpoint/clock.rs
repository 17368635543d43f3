//! Dates in the three spellings OSS uses. Called by `v4`, `list` and `object`. Never local time.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use std::time::{SystemTime, UNIX_EPOCH};

const HTTP: &str = "%a, %d %b %Y %H:%M:%S GMT";

/// Seconds since 1970, now.
pub(crate) fn now_sec() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

/// Seconds since 1970 with fractions, now (for log lines).
pub(crate) fn now_float() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// RFC 1123, as in `Date` and `Last-Modified`: `Sat, 01 Feb 2025 09:08:07 GMT`.
pub(crate) fn http_date(sec: i64) -> String {
    stamp(sec).strftime(HTTP).to_string()
}

/// The spelling of listings: `2020-06-22T11:42:32.000Z`.
pub(crate) fn list_date(sec: i64) -> String {
    stamp(sec).strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}

/// Seconds of an RFC 1123 date; `None` if it is not one.
pub(crate) fn parse_http(text: &str) -> Option<i64> {
    parse(HTTP, text)
}

/// Seconds of `x-oss-date`, `YYYYMMDDTHHMMSSZ`; `None` if it is not exactly that.
pub(crate) fn parse_basic(text: &str) -> Option<i64> {
    (text.len() == 16).then(|| parse("%Y%m%dT%H%M%SZ", text)).flatten()
}

/// Seconds of `2024-08-02T15:04:05Z`, as credential services write an expiration.
pub(crate) fn parse_rfc3339(text: &str) -> Option<i64> {
    parse("%Y-%m-%dT%H:%M:%SZ", text)
}

fn parse(format: &str, text: &str) -> Option<i64> {
    let civil = DateTime::strptime(format, text).ok()?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

fn stamp(sec: i64) -> Timestamp {
    Timestamp::from_second(sec).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_agree() {
        let sec = parse_basic("20250201T090807Z").unwrap();
        assert_eq!(sec, 1_738_400_887);
        assert_eq!(http_date(sec), "Sat, 01 Feb 2025 09:08:07 GMT");
        assert_eq!(parse_http("Sat, 01 Feb 2025 09:08:07 GMT"), Some(sec));
        assert_eq!(list_date(sec), "2025-02-01T09:08:07.000Z");
        for bad in ["", "20250201T090807", "2025-02-01T09:08", "20251301T090807Z", "20250201T090807Zx"] {
            assert_eq!(parse_basic(bad), None, "{bad}");
        }
    }
}
