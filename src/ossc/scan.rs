//! Which programs walk over folders without opening anything in them (`ls -R`, `find`): a listing by such a program is no
//! use of the folder. Pure.
//!
//! Called by the thread that lists folders. A program that lists a folder and opens something in it before it lists the
//! next one (`tar`, `cp -r`, a loader) uses each of them.

use std::collections::HashMap;

/// Programs that are remembered.
const PROGRAMS_MAX: usize = 1024;

/// See the module.
#[derive(Default)]
pub struct Scans {
    /// By program: the folder that was last fetched for its listing, and how often something had been opened in it.
    last: HashMap<u32, (String, u32)>,
}

impl Scans {
    /// A program has listed a folder. `state`: how often something in it was opened, and whether small objects wait for its
    /// use. True if the listing is a use. `uses` says how often something was opened in another folder.
    pub fn listed(&mut self, pid: u32, folder: &str, (opened, waits): (u32, bool), uses: impl Fn(&str) -> u32) -> bool {
        if !waits {
            return true;
        }
        let walks = self.last.get(&pid).is_some_and(|(last, opened)| last != folder && uses(last) == *opened);
        if walks {
            return false;
        }
        if self.last.len() >= PROGRAMS_MAX {
            self.last.clear();
        }
        self.last.insert(pid, (folder.to_string(), opened));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_uses_its_first_folder_alone() {
        let mut scans = Scans::default();
        let used: Vec<bool> = ["a", "b", "b", "c"].map(|folder| scans.listed(1, folder, (0, true), |_| 0)).into();
        assert_eq!(used, [true, false, false, false]);
        assert!(scans.listed(2, "c", (0, true), |_| 0), "another program");
        assert!(scans.listed(1, "empty", (0, false), |_| 0), "nothing is to be fetched there");
        assert!(scans.listed(1, "a", (0, true), |_| 0), "the first one again");
    }

    #[test]
    fn a_program_that_opens_what_it_lists_uses_each() {
        let mut scans = Scans::default();
        for folder in ["a", "b", "c"] {
            assert!(scans.listed(1, folder, (0, true), |_| 1), "{folder}");
        }
        // It stops to open.
        assert!(!scans.listed(1, "d", (0, true), |last| u32::from(last != "c")));
    }

    #[test]
    fn programs_are_forgotten() {
        let mut scans = Scans::default();
        (0..5000).for_each(|pid| assert!(scans.listed(pid, "a", (0, true), |_| 0)));
        assert!(scans.last.len() <= PROGRAMS_MAX);
    }
}
