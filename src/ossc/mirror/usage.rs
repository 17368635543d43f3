//! What programs use: small objects of a folder are fetched when something of it is used, and its weights when one of them
//! is, or when the folder was announced.
//!
//! Called by the mirror after a listing, and by the thread that lists folders with what programs do. It asks OSS for
//! nothing itself: it puts objects into the plan.

pub mod choose;

use crate::lock::lock;
use crate::mirror::known::Known;
use crate::mirror::{Mirror, Reason};
use crate::work::scheduling::order;
use ossc_cache::region::{Object, RecordKind, Region, state, unfetched};
use std::collections::HashMap;
use std::sync::atomic::Ordering;

impl Mirror {
    /// A program uses something of a folder: its small objects are fetched.
    pub fn use_folder(&self, path: &str) {
        let known = lock(&self.known);
        let Some(folder) = known.folder(path).and_then(|slot| self.work.region().object(slot)) else { return };
        if folder.state() != state::LISTED {
            // Of an object whose folder is just being made real.
            self.work.region().traces(folder).uses.fetch_add(1, Ordering::AcqRel);
        } else if folder.unfetched.load(Ordering::Acquire) == unfetched::WAITS {
            self.fetch_small_of(&known, path, folder);
        }
    }

    fn fetch_small_of(&self, known: &Known, path: &str, folder: &Object) {
        folder.unfetched.store(unfetched::COMES, Ordering::Release);
        for slot in known.objects_of(path) {
            if self.work.region().object(slot).is_some_and(|object| object.state() == state::COMING) {
                self.work.act(self.work.transfers.materializer.fetch_once(slot));
            }
        }
    }

    /// How often something in the folder was opened.
    pub fn uses_of(&self, path: &str) -> u32 {
        let folder = lock(&self.known).folder(path).and_then(|slot| self.work.region().object(slot));
        folder.map_or(0, |folder| self.work.region().traces(folder).uses.load(Ordering::Acquire))
    }

    /// True if the folder's weights are fetched ahead, or were.
    pub fn fetches_weights(&self, path: &str) -> bool {
        lock(&self.ahead).contains(path)
    }

    /// The public records.
    pub fn region(&self) -> &Region {
        self.work.region()
    }

    /// Nobody has to wait for small objects of the folder any more, if all of them are there.
    pub fn end_fetch(&self, path: &str) {
        let known = lock(&self.known);
        let Some(folder) = known.folder(path).and_then(|slot| self.work.region().object(slot)) else { return };
        let is_coming = |slot: &u32| self.work.region().object(*slot).is_some_and(|o| o.state() == state::COMING);
        if folder.unfetched.load(Ordering::Acquire) == unfetched::COMES && !known.objects_of(path).iter().any(is_coming)
        {
            folder.unfetched.store(0, Ordering::Release);
        }
    }

    /// True if small objects of the folder are on their way.
    pub fn is_fetching(&self, path: &str) -> bool {
        let slots = lock(&self.known).objects_of(path);
        let is_coming = |slot: &u32| self.work.region().object(*slot).is_some_and(|o| o.state() == state::COMING);
        slots.iter().any(|slot| is_coming(slot) && self.work.transfers.materializer.is_begun(*slot))
    }

    /// True if there are small objects in the folder that wait for its use.
    pub fn waits_for_use(&self, path: &str) -> bool {
        let known = lock(&self.known);
        let Some(folder) = known.folder(path).and_then(|slot| self.work.region().object(slot)) else { return false };
        let is_coming = |slot: &u32| self.work.region().object(*slot).is_some_and(|o| o.state() == state::COMING);
        folder.unfetched.load(Ordering::Acquire) == unfetched::WAITS && known.objects_of(path).iter().any(is_coming)
    }

    /// A listing was made real: small objects that are new in it are fetched where the folder is in use.
    pub(crate) fn used_or_not(&self, known: &Known, (path, slot): (&str, u32), reason: Reason) {
        let Some(folder) = self.work.region().object(slot) else { return };
        let was_used = folder.state() == state::LISTED && folder.unfetched.load(Ordering::Acquire) != unfetched::WAITS;
        if reason == Reason::Start || was_used || self.work.region().traces(folder).uses.load(Ordering::Acquire) != 0 {
            self.fetch_small_of(known, path, folder);
        } else {
            folder.unfetched.store(unfetched::WAITS, Ordering::Release);
        }
    }

    /// A listing has brought new large objects: they are fetched ahead if OSS_PATH is a model's folder, or if the
    /// others of the folder were.
    pub(crate) fn plan_new(&self, path: &str, reason: Reason, new: &HashMap<String, u32>) {
        if reason == Reason::Start {
            self.fetch_weights(path);
        } else if !new.is_empty() && lock(&self.ahead).contains(path) {
            self.plan(path);
        }
    }

    /// The weights of a folder are fetched, if it is a model's.
    pub fn fetch_weights(&self, path: &str) {
        if lock(&self.ahead).insert(path.to_string()) {
            self.plan(path);
        }
    }

    /// No more of them: what no program wants is left where it is.
    pub fn leave_weights(&self, path: &str) {
        lock(&self.ahead).remove(path);
        let slots = lock(&self.known).objects_of(path);
        order::leave(&self.work.scheduling, &self.work.register, &slots);
    }

    /// Puts a folder's weights into the plan, if it is a model's.
    fn plan(&self, path: &str) {
        let region = self.work.region();
        let named = lock(&self.known).named_objects_of(path);
        let living = |slot: u32| region.object(slot).filter(|object| object.state() != state::GONE);
        let is_large =
            |(_, slot): &&(String, u32)| living(*slot).is_some_and(|object| object.kind() == RecordKind::Large);
        let (large, small): (Vec<_>, Vec<_>) = named.iter().partition(is_large);
        let large_names: Vec<&str> = large.iter().map(|(name, _)| name.as_str()).collect();
        let small_names: Vec<&str> = small.iter().map(|(name, _)| name.as_str()).collect();
        let all: Vec<&str> = large_names.iter().chain(&small_names).copied().collect();
        if !choose::is_model(&all) {
            return;
        }
        let order: Vec<u32> = choose::ahead(&large_names, &small_names).into_iter().map(|at| large[at].1).collect();
        self.work.prefetch(&order);
    }
}
