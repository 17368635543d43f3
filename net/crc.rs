//! CRC-64/XZ, the checksum behind `x-oss-hash-crc64ecma` (ECMA-182 polynomial reflected, init and
//! xorout all ones). Used per receive on the vcpu threads and by the engine to fold parts.
//! Never compares with anything: the verdict is the caller's.

use crc_fast::{CrcAlgorithm, Digest};

/// Checksum of a whole slice.
pub fn of(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Xz, bytes)
}

/// Checksum of `a || b` from those of `a` and `b` and the length of `b` in bytes: that of `a`, moved on by as many
/// zeros, plus that of `b` (as in zlib's crc32_combine). 0.2 us, where the library squares matrices for 400; an object
/// of 60 GB has 7,500 parts to fold on a vcpu.
pub fn combine(crc_a: u64, crc_b: u64, len_b: u64) -> u64 {
    let mut moved = crc_a;
    let mut left = len_b;
    while left != 0 && moved != 0 {
        moved = multiply(BYTES_ON[left.trailing_zeros() as usize], moved);
        left &= left - 1;
    }
    moved ^ crc_b
}

/// ECMA-182, reflected: the coefficient of x^63 is bit 0.
const POLYNOMIAL: u64 = 0xc96c_5795_d787_0f42;

/// x^(8 * 2^n) modulo the polynomial: what 2^n bytes move a checksum on by.
const BYTES_ON: [u64; 64] = {
    // x^8.
    let mut power = 1 << (63 - 8);
    let mut all = [0; 64];
    let mut n = 0;
    while n < 64 {
        all[n] = power;
        power = multiply(power, power);
        n += 1;
    }
    all
};

/// Product of two polynomials modulo the polynomial.
const fn multiply(a: u64, mut b: u64) -> u64 {
    let mut product = 0;
    let mut bit = 1 << 63;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
        bit >>= 1;
    }
    product
}

/// A running checksum.
#[derive(Clone, Debug)]
pub struct Crc(Digest);

impl Crc {
    /// Of nothing yet.
    pub fn new() -> Crc {
        Crc(Digest::new(CrcAlgorithm::Crc64Xz))
    }

    /// Goes on with the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum so far; more updates may follow.
    pub fn value(&self) -> u64 {
        self.0.finalize()
    }
}

impl Default for Crc {
    fn default() -> Crc {
        Crc::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn combining_is_what_the_library_does() {
        let mut rng = fastrand::Rng::with_seed(11);
        for _ in 0..300 {
            let (a, b, len) = (rng.u64(..), rng.u64(..), rng.u64(..) >> rng.u32(1..64));
            let expected = crc_fast::checksum_combine(CrcAlgorithm::Crc64Xz, a, b, len);
            assert_eq!(combine(a, b, len), expected, "{a:x}, {b:x}, {len}");
        }
        assert_eq!(combine(0, 5, 1 << 40), 5);
        assert_eq!(combine(5, 7, 0), 2);
    }

    #[test]
    fn parts_of_any_length_fold_to_the_whole() {
        let whole = lcg(3, 70_001);
        for len in [1, 7, 4096, 8191, 65_537] {
            let folded = whole.chunks(len).fold(0, |sum, part| combine(sum, of(part), part.len() as u64));
            assert_eq!(folded, of(&whole), "in parts of {len}");
        }
    }

    fn vectors() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../sign/vectors/crc64-open.json");
        serde_json::from_slice(&std::fs::read(path).expect("vectors")).expect("json")
    }

    fn number(value: &Value) -> u64 {
        value.as_str().expect("decimal string").parse().expect("u64")
    }

    fn lcg(seed: u64, len: usize) -> Vec<u8> {
        let mut x = seed;
        (0..len)
            .map(|_| {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (x >> 56) as u8
            })
            .collect()
    }

    fn data(case: &Value) -> Vec<u8> {
        if let Some(hex) = case["hex"].as_str() {
            return (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex")).collect();
        }
        let len = case["len"].as_u64().expect("len") as usize;
        match case["gen"].as_str() {
            Some("fill") => vec![case["byte"].as_u64().expect("byte") as u8; len],
            Some("counter") => (0..len).map(|i| i as u8).collect(),
            Some("lcg") => lcg(case["seed"].as_u64().expect("seed"), len),
            other => panic!("unknown generator {other:?}"),
        }
    }

    #[test]
    fn plain_vectors_whole_and_in_pieces() {
        let vectors = vectors();
        let cases = vectors["plain"].as_array().expect("plain");
        assert!(cases.len() >= 8);
        for case in cases {
            let (bytes, want) = (data(case), number(&case["crc64"]));
            assert_eq!(of(&bytes), want, "{case}");
            let mut crc = Crc::new();
            for piece in bytes.chunks(777) {
                crc.update(piece);
                crc.value();
            }
            assert_eq!(crc.value(), want, "{case} in pieces");
        }
    }

    #[test]
    fn combine_vectors() {
        let vectors = vectors();
        let cases = vectors["combine"].as_array().expect("combine");
        assert!(!cases.is_empty());
        for case in cases {
            let lens: Vec<u64> =
                case["lens"].as_array().expect("lens").iter().map(|v| v.as_u64().expect("len")).collect();
            let parts: Vec<u64> = case["part_crcs"].as_array().expect("crcs").iter().map(number).collect();
            let mut folded = parts[0];
            for (crc, len) in parts.iter().zip(&lens).skip(1) {
                folded = combine(folded, *crc, *len);
            }
            assert_eq!(folded, number(&case["crc64"]), "{case}");
            let bytes = lcg(7, lens.iter().sum::<u64>() as usize);
            let mut at = 0;
            for (crc, len) in parts.iter().zip(&lens) {
                assert_eq!(of(&bytes[at..at + *len as usize]), *crc, "part of {case}");
                at += *len as usize;
            }
        }
    }

    #[test]
    fn combine_over_zeros() {
        let vectors = vectors();
        for case in vectors["combine_zeros"].as_array().expect("combine_zeros") {
            let (a, b) = (number(&case["crc1"]), number(&case["crc2"]));
            let len =
                case["len2"].as_u64().or_else(|| case["len2"].as_str().and_then(|s| s.parse().ok())).expect("len2");
            assert_eq!(combine(a, b, len), number(&case["crc64"]), "{case}");
        }
    }

    #[test]
    fn incremental_vectors() {
        let vectors = vectors();
        let cases = vectors["incremental"].as_array().expect("incremental");
        assert!(!cases.is_empty());
        for case in cases {
            let (bytes, first) = (data(case), case["first"].as_u64().expect("first") as usize);
            let mut crc = Crc::new();
            crc.update(&bytes[..first]);
            assert_eq!(crc.value(), number(&case["crc_after_first"]), "{case}");
            crc.update(&bytes[first..]);
            assert_eq!(crc.value(), number(&case["crc64"]), "{case}");
        }
    }
}
