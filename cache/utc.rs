//! The one form of time in log, audit lines and reports: `2026-11-30T17:09:15.258308Z`.
//!
//! Called by the engine's journal and by the few lines that the library writes itself. It reads no clock and allocates
//! nothing.

/// Length of a time's text.
pub const LEN: usize = 27;

/// A time as text, of seconds since 1970 and microseconds (RFC 3339, UTC). Of years that have more than four digits it
/// shows the last four.
pub fn text(secs: u64, micros: u32) -> [u8; LEN] {
    let (year, month, day) = date(secs / 86_400);
    let of_day = secs % 86_400;
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let mut put = |at: usize, digits: usize, mut value: u64| {
        for place in text[at..at + digits].iter_mut().rev() {
            *place = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, of_day / 3600);
    put(14, 2, of_day / 60 % 60);
    put(17, 2, of_day % 60);
    put(20, 6, u64::from(micros));
    text
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar: counted in years that begin in March, so that
/// a leap day is a year's last, and in eras of 400 years, which have 146,097 days.
fn date(days: u64) -> (u64, u64, u64) {
    // From 0000-03-01 on.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_calendar() {
        // By `date -u -d @SECS`.
        for (secs, shown) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_709_251_199, "2024-02-29T23:59:59"),
            (1_798_761_599, "2026-12-31T23:59:59"),
            (4_107_542_399, "2100-02-28T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (253_402_300_799, "9999-12-31T23:59:59"),
        ] {
            assert_eq!(std::str::from_utf8(&text(secs, 42)).unwrap(), format!("{shown}.000042Z"));
        }
        assert_eq!(&text(u64::MAX, u32::MAX)[26..], b"Z");
    }
}
