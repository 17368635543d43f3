//! What a Range header selects, OSS's way. Called by `object`. Never serves several ranges.

use std::ops::Range;

/// Outcome of a Range header on an object of known size.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// 200 and the whole object, without Content-Range.
    Whole,
    /// 206 and these bytes, half-open.
    Part(Range<u64>),
    /// 416 InvalidRange.
    Outside,
}

enum Asked {
    /// First byte, and last byte (inclusive) if given.
    From(u64, Option<u64>),
    /// The last n bytes.
    Suffix(u64),
}

/// The table of GetObject: by default a range that does not lie within the object yields 200 and
/// the whole; under `x-oss-range-behavior: standard` RFC 9110 holds. Several ranges: 416 (the
/// newer documentation). Malformed: ignored in both modes.
pub(crate) fn select(header: &str, standard: bool, size: u64) -> Selection {
    if header.starts_with("bytes=") && header.contains(',') {
        return Selection::Outside;
    }
    let outside = if standard { Selection::Outside } else { Selection::Whole };
    match parse(header) {
        None => Selection::Whole,
        Some(Asked::Suffix(n)) if n == 0 || size == 0 => outside,
        Some(Asked::Suffix(n)) if n > size && !standard => Selection::Whole,
        Some(Asked::Suffix(n)) => Selection::Part(size.saturating_sub(n)..size),
        Some(Asked::From(first, _)) if first >= size => outside,
        Some(Asked::From(first, None)) => Selection::Part(first..size),
        Some(Asked::From(_, Some(last))) if last >= size && !standard => Selection::Whole,
        Some(Asked::From(first, Some(last))) => Selection::Part(first..last.saturating_add(1).min(size)),
    }
}

/// The half-open range a header names by itself (`bytes=a-b`), for log lines of requests that
/// never got as far as an object.
pub(crate) fn named(header: &str) -> Option<Range<u64>> {
    match parse(header)? {
        Asked::From(first, Some(last)) => Some(first..last.saturating_add(1)),
        _ => None,
    }
}

fn parse(header: &str) -> Option<Asked> {
    let (first, last) = header.strip_prefix("bytes=")?.trim().split_once('-')?;
    let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u64>().ok()).flatten();
    match (first, last) {
        ("", n) => number(n).map(Asked::Suffix),
        (a, "") => number(a).map(|a| Asked::From(a, None)),
        (a, b) => {
            let (a, b) = (number(a)?, number(b)?);
            (a <= b).then_some(Asked::From(a, Some(b)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Selection::{Outside, Part, Whole};
    use super::*;

    #[test]
    fn table() {
        let rows = [
            ("bytes=0-499", Part(0..500), Part(0..500)),
            ("bytes=999-999", Part(999..1000), Part(999..1000)),
            ("bytes=500-", Part(500..1000), Part(500..1000)),
            ("bytes=-200", Part(800..1000), Part(800..1000)),
            ("bytes=-1000", Part(0..1000), Part(0..1000)),
            ("bytes=500-2000", Whole, Part(500..1000)),
            ("bytes=500-1000", Whole, Part(500..1000)),
            ("bytes=1000-2000", Whole, Outside),
            ("bytes=1000-", Whole, Outside),
            ("bytes=-2000", Whole, Part(0..1000)),
            ("bytes=-0", Whole, Outside),
            ("byte=0-1", Whole, Whole),
            ("bytes=5-4", Whole, Whole),
            ("bytes=a-b", Whole, Whole),
            ("bytes=-", Whole, Whole),
            ("bytes=0-1,3-4", Outside, Outside),
            ("bytes=0-18446744073709551615", Whole, Part(0..1000)),
        ];
        for (header, plain, standard) in rows {
            assert_eq!(select(header, false, 1000), plain, "{header} default");
            assert_eq!(select(header, true, 1000), standard, "{header} standard");
        }
        for header in ["bytes=0-0", "bytes=0-", "bytes=-1"] {
            assert_eq!(select(header, false, 0), Whole, "{header} empty default");
            assert_eq!(select(header, true, 0), Outside, "{header} empty standard");
        }
    }
}
