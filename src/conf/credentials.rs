//! Where access keys come from: the list of the sources that a user can set up, which of them is in use, and how it is
//! reached. Called by `env`, and by `docs` for the manual.
//!
//! Another source is a file in the folder beside this one, and a row of [`SOURCES`]; the engine fetches from it by a file
//! of `src/ossc/credentials`. It fetches nothing and reads no file, and no value of a secret is part of an error.

use std::path::{Path, PathBuf};

use crate::docs::Variable;
use crate::endpoint::Endpoint;
use crate::reason::Reason;
use crate::variable::{choice, invalid};

mod ecs;
mod file;
mod key;
mod oidc;

pub use ecs::EcsRole;
pub use oidc::Oidc;

/// All sources. The first that is set up is used, or the one that OSSC_CREDENTIALS names.
pub(crate) const SOURCES: [&SourceRow; 5] = [&key::OSS, &file::SOURCE, &key::ALIBABA, &oidc::SOURCE, &ecs::SOURCE];

/// The source in use.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Requests go out unsigned.
    Anonymous,
    /// From the environment, for as long as the engine lives.
    Key(ossc_sign::Credentials),
    /// OSS_AUTHORIZATION_FILE_PATH: absolute.
    File(PathBuf),
    /// Of the pod: a token file is exchanged for credentials of a role.
    Oidc(Oidc),
    /// Of the ECS instance.
    EcsRole(EcsRole),
}

/// The value of a variable; `None` where it is unset or empty.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What a source says of itself.
pub(crate) struct SourceRow {
    /// How OSSC_CREDENTIALS names it.
    pub word: &'static str,
    /// Its line in the list of docs/CONFIG.md.
    pub line: &'static str,
    /// All variables that it reads, for the manual; a program that starts later hands on these.
    pub variables: &'static [Variable],
    /// Those of them whose values are shown nowhere; each name holds KEY, SECRET or TOKEN.
    pub secrets: &'static [&'static str],
    /// What has to be set, where it is named and not set up.
    missing: &'static str,
    /// What is set up, if it is; `true` where OSSC_CREDENTIALS names it.
    find: fn(Lookup<'_>, bool) -> Result<Option<Credentials>, Reason>,
}

const CHOICE: &str = "OSSC_CREDENTIALS";
/// No source: what OSSC_CREDENTIALS calls it.
pub(crate) const ANONYMOUS: &str = "anonymous";

/// True if the variable says where credentials come from.
pub fn names_credentials(name: &str) -> bool {
    name == CHOICE || SOURCES.iter().any(|source| source.variables.iter().any(|variable| variable.name == name))
}

/// The source that OSSC_CREDENTIALS names, else the first that is set up, else anonymous access.
///
/// # Errors
/// A source that is set up by half, or named and not set up.
pub(crate) fn source(text: &impl Fn(&str) -> Option<String>) -> Result<Credentials, Reason> {
    let mut words = vec![(ANONYMOUS, ANONYMOUS)];
    for source in SOURCES {
        if !words.contains(&(source.word, source.word)) {
            words.push((source.word, source.word));
        }
    }
    let named = choice(text, CHOICE, &words)?;
    let wanted = || SOURCES.into_iter().filter(|source| named.is_none_or(|word| word == source.word));
    for source in wanted() {
        if let Some(found) = (source.find)(text, named.is_some())? {
            return Ok(found);
        }
    }
    match wanted().next() {
        Some(source) if named.is_some() => {
            invalid(CHOICE, format!("names a source that is not set up: set {}", source.missing))
        }
        _ => Ok(Credentials::Anonymous),
    }
}

fn service(text: Lookup<'_>, name: &str) -> Result<Option<Endpoint>, Reason> {
    text(name).map(|url| endpoint(name, &url)).transpose()
}

fn endpoint(name: &str, url: &str) -> Result<Endpoint, Reason> {
    let form = "does not make a valid address; expected [http://|https://]HOST[:PORT]";
    Endpoint::parse(url).or_else(|_| invalid(name, form))
}

/// The engine leaves the folder that it is started in.
fn absolute(path: String) -> Result<PathBuf, String> {
    match Path::new(&path).is_absolute() && !path.contains('\0') {
        true => Ok(PathBuf::from(path)),
        false => Err(format!("`{}` is not an absolute path", path.escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Credentials, String> {
        let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        source(&get).map_err(|reason| reason.to_string())
    }

    const OIDC: [(&str, &str); 3] = [
        ("ALIBABA_CLOUD_ROLE_ARN", "acs:ram::1:role/r"),
        ("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "acs:ram::1:oidc-provider/p"),
        ("ALIBABA_CLOUD_OIDC_TOKEN_FILE", "/var/run/token"),
    ];
    const ECS: (&str, &str) = ("ALIBABA_CLOUD_ECS_METADATA", "loader");
    const FILE: (&str, &str) = ("OSS_AUTHORIZATION_FILE_PATH", "/run/key.json");
    const ALIBABA: [(&str, &str); 2] =
        [("ALIBABA_CLOUD_ACCESS_KEY_ID", "ali"), ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "hunter2")];

    #[test]
    fn the_first_that_is_set_up_is_taken() {
        assert!(matches!(of(&[]), Ok(Credentials::Anonymous)));
        assert!(matches!(of(&[ECS]), Ok(Credentials::EcsRole(_))));
        assert!(matches!(of(&[&[ECS], &OIDC[..]].concat()), Ok(Credentials::Oidc(_))));
        assert!(
            matches!(of(&[&[ECS], &OIDC[..], &ALIBABA[..]].concat()), Ok(Credentials::Key(key)) if key.access_key_id == "ali")
        );
        assert!(matches!(of(&[&[FILE], &ALIBABA[..]].concat()), Ok(Credentials::File(_))));
        let oss = [("OSS_ACCESS_KEY_ID", "oss"), ("OSS_ACCESS_KEY_SECRET", "s"), FILE];
        assert!(matches!(of(&oss), Ok(Credentials::Key(key)) if key.access_key_id == "oss"));
        assert!(matches!(of(&OIDC[..2]), Ok(Credentials::Anonymous)), "two of three are no source");
    }

    #[test]
    fn a_named_source_is_the_only_one() {
        let with = |name: &'static str, others: &[(&'static str, &'static str)]| {
            of(&[&[("OSSC_CREDENTIALS", name)], others].concat())
        };
        assert!(matches!(with("anonymous", &ALIBABA), Ok(Credentials::Anonymous)));
        assert!(matches!(with("ecs", &ALIBABA), Ok(Credentials::EcsRole(EcsRole { role: None, .. }))));
        assert!(matches!(with("oidc", &[&ALIBABA[..], &OIDC[..]].concat()), Ok(Credentials::Oidc(_))));
        for name in ["env", "file", "oidc"] {
            let error = with(name, &[ECS]).expect_err(name);
            assert!(error.contains("OSSC_CREDENTIALS names a source that is not set up"), "{error}");
        }
        assert!(with("ram", &[]).is_err_and(|error| error.contains("OSSC_CREDENTIALS is `ram`")));
    }

    #[test]
    fn the_token_service_follows_region_and_network() {
        let host = |others: &[(&'static str, &'static str)]| match of(&[&OIDC[..], others].concat()) {
            Ok(Credentials::Oidc(oidc)) => oidc.service.to_string(),
            other => panic!("{other:?}"),
        };
        let region = ("ALIBABA_CLOUD_STS_REGION", "cn-beijing");
        let inside = ("ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED", "true");
        assert_eq!(host(&[]), "https://sts.aliyuncs.com");
        assert_eq!(host(&[inside]), "https://sts.aliyuncs.com");
        assert_eq!(host(&[region]), "https://sts.cn-beijing.aliyuncs.com");
        assert_eq!(host(&[region, inside]), "https://sts-vpc.cn-beijing.aliyuncs.com");
        assert_eq!(host(&[region, ("OSSC_STS_URL", "https://127.0.0.1:9")]), "https://127.0.0.1:9");
    }

    #[test]
    fn each_source_lists_what_it_reads_and_reads_what_it_lists() {
        for source in SOURCES {
            let asked = RefCell::new(BTreeSet::new());
            // One after the other is set, so that what is read behind them is asked for, too.
            for count in 0..=source.variables.len() {
                let get = |name: &str| {
                    asked.borrow_mut().insert(name.to_owned());
                    let at = source.variables.iter().position(|variable| variable.name == name);
                    at.filter(|at| *at < count).map(|_| "/x".to_owned())
                };
                let _ = (source.find)(&get, true);
            }
            let listed: BTreeSet<String> = source.variables.iter().map(|variable| variable.name.to_owned()).collect();
            assert_eq!(asked.into_inner(), listed, "{}", source.line);
            assert!(listed.iter().all(|name| names_credentials(name)), "{listed:?}");
        }
        assert!(names_credentials("OSSC_CREDENTIALS") && !names_credentials("OSS_PATH"));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (variables, words) in [
            (
                vec![("OSS_AUTHORIZATION_FILE_PATH", "key.json")],
                "OSS_AUTHORIZATION_FILE_PATH not accessible: `key.json`",
            ),
            (vec![ALIBABA[0]], "ALIBABA_CLOUD_ACCESS_KEY_SECRET is not set"),
            (vec![ALIBABA[1]], "ALIBABA_CLOUD_ACCESS_KEY_ID is not set"),
            (vec![OIDC[0], OIDC[1], OIDC[2], ("OSSC_STS_URL", "http://127.0.0.1:9")], "OSSC_STS_URL is not https"),
            (vec![OIDC[0], OIDC[1], OIDC[2], ("ALIBABA_CLOUD_STS_REGION", "a/b")], "ALIBABA_CLOUD_STS_REGION does not"),
            (vec![OIDC[0], OIDC[1], ("ALIBABA_CLOUD_OIDC_TOKEN_FILE", "t")], "ALIBABA_CLOUD_OIDC_TOKEN_FILE `t`"),
            (vec![("ALIBABA_CLOUD_ECS_METADATA", "a/../b")], "ALIBABA_CLOUD_ECS_METADATA is not the name"),
            (vec![ECS, ("OSSC_METADATA_URL", "ftp://x")], "OSSC_METADATA_URL does not make a valid address"),
        ] {
            let error = of(&variables).expect_err(words);
            assert!(error.contains(words) && !error.contains("hunter2"), "{error}");
        }
        let disabled = [ECS, ("ALIBABA_CLOUD_ECS_METADATA_DISABLED", "true")];
        assert!(matches!(of(&disabled), Ok(Credentials::Anonymous)));
    }
}
