//! The figures of one measured run: as a line for people, as JSON for programs. Printed by `load`, `floor`
//! and `engine`, read back by `compare`. Computes nothing but ratios.

use crate::error::{Error, Result};
use crate::meter::Used;
use serde::{Deserialize, Serialize};

/// See the module. 1 GB is 10^9 bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// What ran, such as `floor memfd`.
    pub name: String,
    pub bytes: u64,
    pub wall_secs: f64,
    pub gb_per_sec: f64,
    pub user_secs: f64,
    pub sys_secs: f64,
    /// User and system time of the whole process over the bytes.
    pub cpu_secs_per_gb: f64,
    pub faults: u64,
    pub switches: u64,
    pub rss_bytes_max: u64,
    /// What proves the bytes: a CRC-64 compared with the origin's, a sum to compare, or nothing.
    pub proof: Option<String>,
}

impl Figures {
    /// # Errors
    /// If nothing was transferred: a speed of nothing is no figure.
    pub fn new(name: String, bytes: u64, used: Used, proof: Option<String>) -> Result<Figures> {
        if bytes == 0 {
            return Err(Error::Wrong(format!("{name}: 0 bytes came, so there is nothing to measure")));
        }
        let gb = bytes as f64 / 1e9;
        let (wall, user, sys) = (used.wall.as_secs_f64(), used.user.as_secs_f64(), used.sys.as_secs_f64());
        Ok(Figures {
            name,
            bytes,
            wall_secs: wall,
            gb_per_sec: gb / wall.max(f64::MIN_POSITIVE),
            user_secs: user,
            sys_secs: sys,
            cpu_secs_per_gb: (user + sys) / gb,
            faults: used.faults,
            switches: used.switches,
            rss_bytes_max: used.rss_bytes_max,
            proof,
        })
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let gb = self.bytes as f64 / 1e9;
        format!(
            "{}: {gb:.3} GB in {:.3} s, {:.2} GB/s, {:.3} CPU-s/GB (user {:.3} + sys {:.3}), max RSS {} MiB, {} faults, {} switches{}",
            self.name,
            self.wall_secs,
            self.gb_per_sec,
            self.cpu_secs_per_gb,
            self.user_secs / gb,
            self.sys_secs / gb,
            self.rss_bytes_max >> 20,
            self.faults,
            self.switches,
            self.proof.as_ref().map(|proof| format!(", {proof}")).unwrap_or_default(),
        )
    }

    /// Prints the line, or the JSON.
    pub fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string(self).map_err(|e| Error::Wrong(e.to_string()))?);
        } else {
            println!("{}", self.line());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn used() -> Used {
        Used {
            wall: Duration::from_millis(500),
            user: Duration::from_millis(100),
            sys: Duration::from_millis(300),
            faults: 7,
            switches: 9,
            rss_bytes_max: 3 << 20,
        }
    }

    #[test]
    fn ratios_are_per_decimal_gigabyte() {
        let figures = Figures::new("x".into(), 2_000_000_000, used(), Some("crc64 ok".into())).unwrap();
        assert_eq!(figures.gb_per_sec, 4.0);
        assert_eq!(figures.cpu_secs_per_gb, 0.2);
        assert_eq!(
            figures.line(),
            "x: 2.000 GB in 0.500 s, 4.00 GB/s, 0.200 CPU-s/GB (user 0.050 + sys 0.150), max RSS 3 MiB, 7 faults, 9 switches, crc64 ok"
        );
    }

    #[test]
    fn json_comes_back_as_it_was() {
        let figures = Figures::new("x".into(), 123, used(), None).unwrap();
        let text = serde_json::to_string(&figures).unwrap();
        assert_eq!(serde_json::from_str::<Figures>(&text).unwrap(), figures);
    }

    #[test]
    fn nothing_is_not_measured() {
        assert!(Figures::new("x".into(), 0, used(), None).is_err());
    }
}
