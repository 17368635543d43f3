//! The start of a mirror without its changes: the root folder is listed and each object's place looked at, and nothing is
//! made.
//!
//! Called by `ossc doctor`. The questions and the judgement are those of a start.

use crate::folder_files::{self, Lies};
use crate::mirror::listing::tree::Level;
use crate::mirror::usage::choose;
use crate::mirror::{Mirror, Reason, below, made};
use crate::order::failure::Failure;
use crate::work::Patience;
use ossc_net::error::shown;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Folders that are listed at most on the way down to a model.
const FOLDERS_MAX: usize = 64;
/// How long that may take.
const DOWN_WITHIN: Duration = Duration::from_secs(20);

/// A folder with a model in it.
pub struct ModelFolder {
    /// Its path below OSS_PATH, empty for that itself.
    pub path: String,
    /// What it holds.
    pub level: Level,
}

impl ModelFolder {
    /// Names of its weights, in the order in which they are fetched ahead; the rest is what no program waits for first.
    pub fn weights(&self, bytes_max: u64) -> Vec<String> {
        let is_large = |name: &&str| self.level.objects.get(*name).is_some_and(|object| object.size > bytes_max);
        let (large, small): (Vec<&str>, Vec<&str>) = self.level.objects.keys().map(String::as_str).partition(is_large);
        choose::ahead(&large, &small).into_iter().map(|at| large[at].to_string()).collect()
    }
}

impl Mirror {
    /// Lists the root folder as a start does.
    ///
    /// # Errors
    /// The REASON of a start that cannot list it.
    pub fn rehearse_listing(&self) -> Result<Level, Failure> {
        let patience = Patience {
            attempts: self.options.start_attempts,
            until: Some(Instant::now() + self.options.start_within),
            outlasts: true,
        };
        let listed = self.fetch_listing("", patience, u32::MAX)?;
        match listed.map(|(level, _)| level) {
            Some(level) if !(level.objects.is_empty() && level.folders.is_empty()) => Ok(level),
            _ => Err(Failure::Empty(self.location.clone())),
        }
    }

    /// Looks at the places of what was listed.
    ///
    /// # Errors
    /// The REASON of a start that finds something of a user's in an object's or a folder's place.
    pub fn rehearse_places(&self, level: &Level) -> Result<(), Failure> {
        let local = |e: rustix::io::Errno| Failure::Local(format!("MODEL_DIR: {e}"));
        let folder = self.root.folder("").map_err(local)?;
        self.decided(&folder, "", level, Reason::Start)?;
        for name in &level.folders {
            let lies = folder_files::look(&folder, name).map_err(local)?;
            let is_ours = || made::look(&folder, name).is_ok_and(|found| found.made.is_some());
            if !matches!(lies, Lies::Nothing | Lies::Folder) && !is_ours() {
                return Err(Failure::Local(format!(
                    "{} in MODEL_DIR is no folder, and OSS has a folder of that name: remove it or choose another MODEL_DIR",
                    shown(name)
                )));
            }
        }
        Ok(())
    }

    /// The first folder with a model in it, from OSS_PATH down, level by level; else the first one with objects.
    pub fn find_model(&self, root: Level) -> Option<ModelFolder> {
        let until = Instant::now() + DOWN_WITHIN;
        let patience = Patience { attempts: 1, until: Some(until), outlasts: false };
        let (mut queue, mut filled) = (VecDeque::from([ModelFolder { path: String::new(), level: root }]), None);
        for _ in 0..FOLDERS_MAX {
            let Some(ModelFolder { path, mut level }) = queue.pop_front() else { break };
            let names: Vec<&str> = level.objects.keys().map(String::as_str).collect();
            if choose::is_model(&names) {
                return Some(ModelFolder { path, level });
            }
            for name in std::mem::take(&mut level.folders) {
                let path = below(&path, &name);
                if queue.len() < FOLDERS_MAX
                    && let Ok(Some((level, _))) = self.fetch_listing(&path, patience, 1)
                {
                    queue.push_back(ModelFolder { path, level });
                }
            }
            if !level.objects.is_empty() && filled.is_none() {
                filled = Some(ModelFolder { path, level });
            }
        }
        filled
    }
}
