//! One row of the comparison: the floor or a form of the engine, on one kind of memory. Used by `compare`.

use crate::engine::{self, Driver};
use crate::space::Kind;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    pub memory: Kind,
    /// `None` for the floor.
    pub engine: Option<(Driver, Crc)>,
}

/// Whether the engine computes checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crc {
    On,
    Off,
}

impl Variant {
    /// Every combination, the floor of a kind of memory before its engines.
    pub fn all(memories: &[Kind], drivers: &[Driver]) -> Vec<Variant> {
        let mut all = Vec::new();
        for &memory in memories {
            all.push(Variant { memory, engine: None });
            for &driver in drivers {
                all.extend([Crc::Off, Crc::On].map(|crc| Variant { memory, engine: Some((driver, crc)) }));
            }
        }
        all
    }

    /// As the measuring program calls itself in its figures.
    pub fn name(self) -> String {
        match self.engine {
            None => format!("floor {}", self.memory.name()),
            Some((driver, crc)) => engine::name(driver, crc == Crc::On, self.memory),
        }
    }

    /// Arguments of the measuring program but for URL, size and connections.
    pub fn arguments(self, verify: bool) -> Vec<&'static str> {
        let mut arguments = match self.engine {
            None => vec!["floor"],
            // As the product: pages are made before the request goes out.
            Some((driver, _)) => vec!["engine", "--populate", "--driver", driver.name()],
        };
        arguments.extend(["--json", "--memory", self.memory.name()]);
        if matches!(self.engine, Some((_, Crc::On))) {
            arguments.push("--crc");
        }
        if verify && self.memory != Kind::Scratch {
            arguments.push("--verify");
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_once() {
        let all = Variant::all(&[Kind::Scratch, Kind::TmpfsHuge, Kind::Memfd], &[Driver::Uring, Driver::Epoll]);
        let mut names: Vec<_> = all.iter().map(|variant| variant.name()).collect();
        assert_eq!(
            (names.len(), names[0].as_str(), names[4].as_str()),
            (15, "floor scratch", "engine epoll crc scratch")
        );
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 15);
    }

    #[test]
    fn arguments_say_what_the_name_says() {
        let engine = Variant { memory: Kind::Memfd, engine: Some((Driver::Epoll, Crc::On)) };
        let expected =
            ["engine", "--populate", "--driver", "epoll", "--json", "--memory", "memfd", "--crc", "--verify"];
        assert_eq!(engine.arguments(true), expected);
        let floor = Variant { memory: Kind::Scratch, engine: None };
        assert_eq!(floor.arguments(true), ["floor", "--json", "--memory", "scratch"]);
    }
}
