//! Which folder's weights are fetched before a program opens the first of them: a program that opens the configuration
//! or the index of a model mostly loads it next. One that reads the configurations of many models does not. Pure: time is
//! an argument, and so is what is known of processes and folders.
//!
//! Called by the thread that lists folders, with what programs do. One folder at a time; given up when a program uses
//! another one, when the program that announced it has ended, or when none of its weights is opened for a minute.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long nothing else may be used after an announcement before anything is fetched for it: who reads one
/// configuration after the other has gone on by then.
pub const QUIET: Duration = Duration::from_secs(2);
/// How long nothing may have been on its way to the folder, for the same reason.
const SETTLED: Duration = Duration::from_secs(1);
/// After so long without an open of a weight the fetch is given up; as long a program is remembered as one that looks
/// at many models.
pub const UNOPENED_MAX: Duration = Duration::from_secs(60);
/// So many folders announced, with no weight of them opened, are a look at many models.
const MANY: usize = 3;

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// The weights of this folder are to be fetched.
    Begin(String),
    /// No more of them.
    GiveUp(String),
}

struct Candidate {
    folder: String,
    pid: u32,
    due: Instant,
}

struct Running {
    folder: String,
    pid: u32,
    until: Instant,
}

/// See the module.
#[derive(Default)]
pub struct Announced {
    candidate: Option<Candidate>,
    running: Option<Running>,
    /// Folders that were announced and of which no weight was opened, the oldest first.
    unopened: VecDeque<(Instant, String)>,
}

impl Announced {
    /// A program has opened something in a folder that is no weight.
    pub fn used(&mut self, folder: &str) -> Option<Step> {
        self.candidate.take_if(|candidate| candidate.folder != folder);
        self.running.take_if(|running| running.folder != folder).map(|running| Step::GiveUp(running.folder))
    }

    /// A program has listed a folder: it goes on, if it is the one that has announced another.
    pub fn listed(&mut self, folder: &str, pid: u32) {
        self.candidate.take_if(|candidate| candidate.folder != folder && candidate.pid == pid);
    }

    /// A program has opened the configuration or the index of a model. `used` was told of it.
    pub fn sign(&mut self, folder: &str, pid: u32, now: Instant) {
        self.unopened.retain(|(at, _)| now.saturating_duration_since(*at) < UNOPENED_MAX);
        if !self.unopened.iter().any(|(_, other)| other == folder) {
            self.unopened.push_back((now, folder.to_string()));
        }
        let is_known = self.running.is_some() || self.candidate.as_ref().is_some_and(|c| c.folder == folder);
        if !is_known && self.unopened.len() < MANY {
            self.candidate = Some(Candidate { folder: folder.to_string(), pid, due: now + QUIET });
        }
    }

    /// A program has opened a weight of a folder: what is fetched of it is fetched for that program from now on.
    pub fn weight(&mut self, folder: &str) {
        self.unopened.retain(|(_, other)| other != folder);
        self.candidate.take_if(|candidate| candidate.folder == folder);
        self.running.take_if(|running| running.folder == folder);
    }

    /// What is due. `is_busy`: small objects of a folder are on their way; `lives`: whether a process does.
    pub fn due(&mut self, now: Instant, is_busy: impl Fn(&str) -> bool, lives: impl Fn(u32) -> bool) -> Option<Step> {
        let ends = |running: &mut Running| now >= running.until || !lives(running.pid);
        if let Some(running) = self.running.take_if(ends) {
            return Some(Step::GiveUp(running.folder));
        }
        let candidate = self.candidate.take_if(|candidate| now >= candidate.due)?;
        if !lives(candidate.pid) {
            return None;
        }
        if is_busy(&candidate.folder) {
            self.candidate = Some(Candidate { due: now + SETTLED, ..candidate });
            return None;
        }
        let Candidate { folder, pid, .. } = candidate;
        self.running = Some(Running { folder: folder.clone(), pid, until: now + UNOPENED_MAX });
        Some(Step::Begin(folder))
    }

    /// When `due` is to be asked again; whether a process lives is looked at once a second.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let running = self.running.as_ref().map(|running| running.until.min(now + Duration::from_secs(1)));
        let candidate = self.candidate.as_ref().map(|candidate| candidate.due);
        [running, candidate].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn sign(announced: &mut Announced, folder: &str, now: Instant) -> Option<Step> {
        let step = announced.used(folder);
        announced.sign(folder, 7, now);
        step
    }

    fn due(announced: &mut Announced, now: Instant) -> Option<Step> {
        announced.due(now, |_| false, |_| true)
    }

    #[test]
    fn one_model_begins_when_it_was_quiet() {
        let (mut announced, now) = (Announced::default(), Instant::now());
        assert_eq!(sign(&mut announced, "a", now), None);
        assert_eq!(announced.used("a"), None);
        assert_eq!(announced.next(now), Some(now + QUIET));
        assert_eq!(due(&mut announced, now + SECOND), None);
        assert_eq!(due(&mut announced, now + QUIET), Some(Step::Begin("a".into())));
        assert_eq!(due(&mut announced, now + 30 * SECOND), None);
        announced.weight("a");
        assert_eq!(due(&mut announced, now + 300 * SECOND), None, "it is the program's now");
        assert_eq!(announced.used("b"), None);
    }

    #[test]
    fn a_scan_over_many_models_begins_none() {
        // Whatever the pause between two models: at most the first two are begun, and given up at once.
        for (pause_ms, begun_max) in [(1, 0), (100, 0), (1900, 0), (2500, 2), (20_000, 2)] {
            let (mut announced, mut now, mut begun) = (Announced::default(), Instant::now(), Vec::new());
            for model in 0..100 {
                let step = sign(&mut announced, &format!("m{model}"), now);
                assert_eq!(step, begun.pop(), "given up when the next is used");
                let until = now + Duration::from_millis(pause_ms);
                while let Some(at) = announced.next(now).filter(|at| *at < until) {
                    now = at;
                    if let Some(Step::Begin(folder)) = due(&mut announced, now) {
                        begun.push(Step::GiveUp(folder));
                        assert!(model < begun_max, "pause {pause_ms}: model {model} was begun");
                    }
                }
                now = until;
            }
        }
    }

    #[test]
    fn it_ends_with_its_program_and_after_a_minute() {
        for lives in [true, false] {
            let (mut announced, now) = (Announced::default(), Instant::now());
            sign(&mut announced, "a", now);
            assert_eq!(due(&mut announced, now + QUIET), Some(Step::Begin("a".into())));
            let step = announced.due(now + 3 * SECOND, |_| false, |_| lives);
            assert_eq!(step, (!lives).then(|| Step::GiveUp("a".into())));
            if lives {
                assert_eq!(due(&mut announced, now + QUIET + UNOPENED_MAX), Some(Step::GiveUp("a".into())));
            }
        }
        let (mut announced, now) = (Announced::default(), Instant::now());
        sign(&mut announced, "a", now);
        assert_eq!(announced.due(now + QUIET, |_| false, |_| false), None, "its program has ended before");
        assert_eq!(announced.next(now), None);
    }

    #[test]
    fn a_slow_line_and_a_listing_put_it_off() {
        let (mut announced, now) = (Announced::default(), Instant::now());
        sign(&mut announced, "a", now);
        assert_eq!(announced.due(now + QUIET, |folder| folder == "a", |_| true), None);
        assert_eq!(due(&mut announced, now + QUIET + SECOND / 2), None, "a moment after the last small object");
        announced.listed("b", 8);
        assert!(announced.next(now).is_some(), "another program's listing says nothing");
        announced.listed("b", 7);
        assert_eq!(due(&mut announced, now + 9 * SECOND), None);
    }

    #[test]
    fn weights_make_a_looker_a_loader() {
        let (mut announced, now) = (Announced::default(), Instant::now());
        for (count, model) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
            let now = now + count as u32 * 10 * SECOND;
            sign(&mut announced, model, now);
            assert_eq!(due(&mut announced, now + QUIET), Some(Step::Begin(model.into())));
            announced.weight(model);
        }
    }
}
