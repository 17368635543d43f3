//! Bytes that do not match their CRC-64: how often all of them are fetched, and what the log says. Used by the objects wing,
//! and by the transfers wing of small objects.

use ossc_net::Error;
use ossc_net::error::{FailureKind, Phase};

/// Mismatches in a row after which an object is given up: one answer may be a stray one, and so may a second one.
const MISMATCHES_MAX: u32 = 3;

/// What follows from a mismatch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AfterMismatch {
    /// All is fetched again.
    Again,
    /// The same, behind a look at the listing.
    AgainBehindListing,
    /// The object is given up.
    GivenUp,
}

impl AfterMismatch {
    /// Another mismatch in a row. An object that was given up for some, and is tried again, has one try.
    pub fn count(mismatches: &mut u32) -> AfterMismatch {
        match *mismatches + 1 {
            MISMATCHES_MAX.. => AfterMismatch::GivenUp,
            count => {
                *mismatches = count;
                if count == 1 { AfterMismatch::Again } else { AfterMismatch::AgainBehindListing }
            }
        }
    }

    /// As the log says it.
    pub fn text(self) -> &'static str {
        match self {
            AfterMismatch::Again => "its bytes do not match its CRC-64: fetching it again, over new connections",
            AfterMismatch::AgainBehindListing => {
                "its bytes do not match its CRC-64, twice: its folder is listed, and it is fetched once more"
            }
            AfterMismatch::GivenUp => {
                "its bytes do not match its CRC-64, as often as it was fetched: readers get EIO, until a program opens it \
                 or a listing shows it again; check the object in the bucket, and for a proxy that alters answers"
            }
        }
    }
}

/// What an object is given up for whose bytes have the CRC-64 `found`.
pub(crate) fn corrupt(key: &str, (expected, found): (u64, u64)) -> Error {
    let text = format!("its bytes have the CRC-64 {found}, as often as it was fetched, and OSS reports {expected}");
    let mut error = Error::new(FailureKind::Corrupt, Phase::Crc, text);
    error.object = key.into();
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mismatches_may_be_stray_and_a_third_is_none() {
        let mut mismatches = 0;
        let mut next = || AfterMismatch::count(&mut mismatches);
        let all = [next(), next(), next(), next()];
        use AfterMismatch::{Again, AgainBehindListing, GivenUp};
        assert_eq!(all, [Again, AgainBehindListing, GivenUp, GivenUp], "tried again later it has one try");
    }
}
