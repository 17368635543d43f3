//! One row of the comparison: the floor or a form of the engine, on one kind of memory. Used by `compare`.

use crate::engine::{self, Driver};
use crate::memory::MemoryKind;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    pub memory: MemoryKind,
    /// The bodies are spliced into the memory file.
    pub splice: bool,
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
    /// Every combination, the floor of a kind of memory before its engines. Scratch memory is no file to splice into.
    pub fn all(memories: &[MemoryKind], drivers: &[Driver]) -> Vec<Variant> {
        let mut all = Vec::new();
        let ways = |memory: &MemoryKind| [false, true].map(|splice| (*memory, splice));
        for (memory, splice) in memories.iter().flat_map(ways) {
            if splice && memory == MemoryKind::Scratch {
                continue;
            }
            all.push(Variant { memory, splice, engine: None });
            for &driver in drivers {
                all.extend([Crc::Off, Crc::On].map(|crc| Variant { memory, splice, engine: Some((driver, crc)) }));
            }
        }
        all
    }

    /// As the measuring program calls itself in its figures.
    pub fn name(self) -> String {
        let memory = self.memory.name();
        match (self.engine, self.splice) {
            (None, false) => format!("floor {memory}"),
            (None, true) => format!("splice floor {memory}"),
            (Some((driver, crc)), splice) => engine::name(driver, crc == Crc::On, self.memory, splice),
        }
    }

    /// Arguments of the measuring program but for URL, size and connections.
    pub fn arguments(self, verify: bool) -> Vec<&'static str> {
        let mut arguments = match self.engine {
            None => vec!["floor"],
            // As the product: pages are made before bytes come.
            Some((driver, _)) => vec!["engine", "--populate", "--driver", driver.name()],
        };
        arguments.extend(["--json", "--memory", self.memory.name()]);
        if matches!(self.engine, Some((_, Crc::On))) {
            arguments.push("--crc");
        }
        if self.splice {
            arguments.push("--splice");
        }
        if verify && self.memory != MemoryKind::Scratch {
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
        let all = Variant::all(
            &[MemoryKind::Scratch, MemoryKind::TmpfsHuge, MemoryKind::Memfd],
            &[Driver::Uring, Driver::Epoll],
        );
        let mut names: Vec<_> = all.iter().map(|variant| variant.name()).collect();
        assert_eq!(
            (names.len(), names[0].as_str(), names[4].as_str()),
            (25, "floor scratch", "engine epoll crc scratch")
        );
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 25);
    }

    #[test]
    fn arguments_say_what_the_name_says() {
        let engine = Variant { memory: MemoryKind::Memfd, splice: false, engine: Some((Driver::Epoll, Crc::On)) };
        let expected =
            ["engine", "--populate", "--driver", "epoll", "--json", "--memory", "memfd", "--crc", "--verify"];
        assert_eq!(engine.arguments(true), expected);
        let floor = Variant { memory: MemoryKind::TmpfsHuge, splice: true, engine: None };
        assert_eq!(floor.arguments(false), ["floor", "--json", "--memory", "tmpfs-huge", "--splice"]);
        let floor = Variant { memory: MemoryKind::Scratch, splice: false, engine: None };
        assert_eq!(floor.arguments(true), ["floor", "--json", "--memory", "scratch"]);
    }
}
