//! Credentials of programs that started after the engine: temporary ones differ from start to start, and those of a later
//! program may last longer than the engine's own.
//!
//! Noted by the attach server, taken by the thread `ossc-keys` when OSS refuses those in use or they have ended. They are
//! in memory alone, and nothing of them is logged but where they come from.

use crate::credentials::{Limits, issuer, lasting};
use crate::lock::lock;
use ossc_conf::{Settings, names_credentials};
use ossc_net::Trust;
use ossc_sign::{Credentials, Issued, Secret};
use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

/// How many are kept: the newest count.
const NEWEST_MAX: usize = 8;

/// Names and values: any of them may be a key.
pub type Variables = HashMap<String, Secret>;

/// The value of one of them, for `Settings::from_lookup`.
pub fn value(variables: &Variables, name: &str) -> Option<String> {
    variables.get(name).map(|value| value.expose().into())
}

/// Those of this process that are text.
pub fn of_environment() -> Variables {
    let text = |value: std::ffi::OsString| value.into_string().ok();
    std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, Secret::new(text(value)?)))).collect()
}

/// See the module.
pub struct Later {
    /// What else the engine was started with.
    base: Variables,
    limits: Limits,
    trust: Trust,
    given: Mutex<VecDeque<Variables>>,
}

/// Credentials that were noted, and the settings that say how to sign with them.
pub struct Noted {
    /// The credentials.
    pub issued: Issued,
    /// The settings of the program that gave them.
    pub settings: Settings,
    /// Where they come from, for the log.
    pub from: &'static str,
}

impl Later {
    /// `variables` are those that the engine was started with.
    pub fn new(variables: &Variables, limits: Limits, trust: Trust) -> Later {
        let (own, base): (Variables, Variables) =
            variables.clone().into_iter().partition(|(name, _)| names_credentials(name));
        Later { base, limits, trust, given: Mutex::new(VecDeque::from([own])) }
    }

    /// Notes what a program has sent: `NAME=value` entries, each ended by NUL. True if it is something new.
    pub fn note(&self, text: &[u8]) -> bool {
        let entries =
            text.split(|byte| *byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='));
        let variables: Variables = entries
            .filter(|(name, _)| names_credentials(name))
            .map(|(name, value)| (name.into(), Secret::new(value.into())))
            .collect();
        let mut given = lock(&self.given);
        let known = given.iter().position(|known| *known == variables);
        if let Some(known) = known.and_then(|at| given.remove(at)) {
            given.push_front(known);
            return false;
        }
        if variables.is_empty() || self.settings(&variables).is_none() {
            return false;
        }
        given.push_front(variables);
        given.truncate(NEWEST_MAX);
        true
    }

    /// The newest that can be had and are none of `refused`.
    pub fn newest(&self, refused: &[Credentials]) -> Option<Noted> {
        let given = lock(&self.given).clone();
        given.iter().find_map(|variables| self.noted(variables).filter(|n| !refused.contains(&n.issued.credentials)))
    }

    fn settings(&self, variables: &Variables) -> Option<Settings> {
        Settings::from_lookup(|name| value(variables, name).or_else(|| value(&self.base, name))).ok()
    }

    fn noted(&self, variables: &Variables) -> Option<Noted> {
        let settings = self.settings(variables)?;
        if let Some(credentials) = lasting(&settings) {
            let issued = Issued { credentials, ends_secs: None };
            return Some(Noted { issued, settings, from: "environment" });
        }
        let issuer = issuer(&settings, self.limits, &self.trust).ok()??;
        let issued = issuer.fetch().inspect_err(|why| tracing::warn!("credentials of a later program: {why}")).ok()?;
        Some(Noted { issued, settings, from: issuer.name() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn later() -> Later {
        let own = [
            ("MODEL_DIR", "/m"),
            ("OSS_PATH", "oss://bucket/m/"),
            ("OSS_ENDPOINT", "http://oss-cn-beijing.aliyuncs.com"),
            ("OSS_ACCESS_KEY_ID", "own"),
            ("OSS_ACCESS_KEY_SECRET", "s"),
        ];
        let variables = own.map(|(name, value)| (name.to_string(), Secret::new(value.to_string()))).into();
        let limit = Duration::from_secs(1);
        Later::new(&variables, Limits { connect: limit, response: limit }, Trust::default())
    }

    fn key(id: &str) -> Vec<u8> {
        format!("OSS_ACCESS_KEY_ID={id}\0OSS_ACCESS_KEY_SECRET=s\0OSS_SESSION_TOKEN=t\0").into_bytes()
    }

    fn id(noted: Option<Noted>) -> Option<String> {
        noted.map(|noted| noted.issued.credentials.access_key_id)
    }

    #[test]
    fn the_newest_that_were_not_refused_are_given() {
        let later = later();
        assert!(later.note(&key("a")) && later.note(&key("b")) && !later.note(&key("a")));
        let mut refused = Vec::new();
        for expected in ["a", "b", "own"] {
            let noted = later.newest(&refused).unwrap();
            assert_eq!(noted.issued.credentials.access_key_id, expected);
            refused.push(noted.issued.credentials);
        }
        assert_eq!(id(later.newest(&refused)), None);
    }

    #[test]
    fn a_program_tells_what_the_sources_read_and_no_other_setting() {
        let is_setting = |name: &&str| ossc_cache::wire::SETTINGS.iter().any(|prefix| name.starts_with(prefix));
        let told = |name: &str| ossc_cache::wire::may_name_credentials(name.as_bytes());
        let (of_credentials, others): (Vec<&str>, Vec<&str>) =
            ossc_conf::variables(|_| None).into_iter().map(|(name, _)| name).partition(|name| names_credentials(name));
        assert!(of_credentials.len() > 15, "{of_credentials:?}");
        for name in of_credentials {
            assert!(told(name), "{name} has none of the prefixes of wire::SETTINGS: it does not reach an engine");
        }
        for name in others.into_iter().filter(is_setting) {
            assert!(!told(name), "{name} says nothing of credentials: name it in wire::NOT_OF_CREDENTIALS");
        }
    }

    #[test]
    fn what_is_no_source_is_not_noted() {
        let later = later();
        assert!(!later.note(b"") && !later.note(b"OSS_ACCESS_KEY_ID=a\0") && !later.note(b"HOME=/x\0\xff=\0"));
        assert!(!later.note(b"OSS_ACCESS_KEY_SECRET=s\0OSS_ACCESS_KEY_ID=own\0"), "the engine's own");
        for number in 0..20 {
            later.note(&key(&number.to_string()));
        }
        assert_eq!(lock(&later.given).len(), NEWEST_MAX);
        assert_eq!(id(later.newest(&[])), Some("19".into()));
    }
}
