//! Which programs walk over folders without opening anything in them (`ls -R`, `find`): a listing by such a program is no
//! use of the folder. Pure.
//!
//! Called by the thread that lists folders. A program that lists a folder and opens something in it before it lists the
//! next one (`tar`, `cp -r`, a loader) uses each of them. Folders below the last one say nothing yet: who copies may go
//! down before it opens what lies beside them, in the order that the folder gives its names.

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
        let goes_on = |last: &str| last != folder && !is_below(folder, last);
        let walks = self.last.get(&pid).is_some_and(|(last, opened)| goes_on(last) && uses(last) == *opened);
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

/// True for a folder that lies below another, at any depth.
fn is_below(folder: &str, above: &str) -> bool {
    above.is_empty() || folder.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
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
    fn a_copy_that_goes_down_first_uses_each_and_a_walk_its_first_way_down() {
        let names = ["m0", "m0/a", "m0/a/x", "m0/b", "m1", "m1/a"];
        let mut scans = Scans::default();
        // What `cp -r` has opened when it lists each of them: all files of the folders that it has left, no others.
        let opened = |folder: &str, at: usize| u32::from(folder != names[at] && !is_below(names[at], folder));
        for (at, folder) in names.iter().enumerate() {
            assert!(scans.listed(1, folder, (0, true), |last| opened(last, at)), "{folder}");
        }
        let used: Vec<bool> = names.map(|folder| scans.listed(2, folder, (0, true), |_| 0)).into();
        assert_eq!(used, [true, true, true, false, false, false]);
        assert!(!is_below("m01", "m0") && !is_below("m0", "m0") && is_below("m0", ""));
    }

    #[test]
    fn programs_are_forgotten() {
        let mut scans = Scans::default();
        (0..5000).for_each(|pid| assert!(scans.listed(pid, "a", (0, true), |_| 0)));
        assert!(scans.last.len() <= PROGRAMS_MAX);
    }
}
