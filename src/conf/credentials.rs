//! Where access keys come from: which of the sources a user can set up is in use, and how it is
//! reached. Called by `env`.
//!
//! It fetches nothing and reads no file, and no value of a secret is part of an error.

use std::path::{Path, PathBuf};

use crate::endpoint::{Endpoint, Scheme};
use crate::reason::{self, Reason};
use crate::variable::{choice, invalid};
use ossc_sign::Secret;

/// The metadata service of an ECS instance: a link-local address, plain http by its nature.
const METADATA: &str = "http://100.100.100.200";
/// Role sessions of this program, where the user names none.
const SESSION_NAME: &str = "oss-connector";

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

/// AssumeRoleWithOIDC of the Security Token Service.
#[derive(Clone, Debug)]
pub struct Oidc {
    /// ALIBABA_CLOUD_ROLE_ARN
    pub role_arn: String,
    /// ALIBABA_CLOUD_OIDC_PROVIDER_ARN
    pub provider_arn: String,
    /// ALIBABA_CLOUD_OIDC_TOKEN_FILE: absolute; its content is renewed by the cluster.
    pub token_file: PathBuf,
    /// ALIBABA_CLOUD_ROLE_SESSION_NAME
    pub session_name: String,
    /// https always: the token goes there.
    pub service: Endpoint,
}

/// The role that an ECS instance has.
#[derive(Clone, Debug)]
pub struct EcsRole {
    /// ALIBABA_CLOUD_ECS_METADATA; `None` asks the metadata service for the name.
    pub role: Option<String>,
    /// Where the metadata service is.
    pub service: Endpoint,
    /// Without a token of version 2 the service is asked as in version 1.
    pub v1_allowed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    Anonymous,
    Env,
    File,
    Oidc,
    Ecs,
}

/// The source that OSSC_CREDENTIALS names, else the first that is set up: OSS_ACCESS_KEY_*, the file,
/// ALIBABA_CLOUD_ACCESS_KEY_*, the role of the pod, the role of the instance; else anonymous.
///
/// # Errors
/// A source that is set up by half, or named and not set up.
pub(crate) fn source(text: &impl Fn(&str) -> Option<String>) -> Result<Credentials, Reason> {
    let allowed = [
        ("anonymous", Choice::Anonymous),
        ("env", Choice::Env),
        ("file", Choice::File),
        ("oidc", Choice::Oidc),
        ("ecs", Choice::Ecs),
    ];
    let named = choice(text, "OSSC_CREDENTIALS", &allowed)?;
    let wanted = |choice| named.is_none_or(|named| named == choice);
    if wanted(Choice::Env)
        && let Some(key) = key(text, OSS_NAMES)?
    {
        return Ok(Credentials::Key(key));
    }
    if wanted(Choice::File)
        && let Some(path) = text("OSS_AUTHORIZATION_FILE_PATH")
    {
        let path = absolute(path).map_err(|why| Reason::new(reason::FILE_NOT_ACCESSIBLE, why))?;
        return Ok(Credentials::File(path));
    }
    if wanted(Choice::Env)
        && let Some(key) = key(text, ALIBABA_NAMES)?
    {
        return Ok(Credentials::Key(key));
    }
    if wanted(Choice::Oidc)
        && let Some(oidc) = oidc(text)?
    {
        return Ok(Credentials::Oidc(oidc));
    }
    if wanted(Choice::Ecs)
        && let Some(role) = ecs_role(text, named == Some(Choice::Ecs))?
    {
        return Ok(Credentials::EcsRole(role));
    }
    let missing = match named {
        None | Some(Choice::Anonymous) => return Ok(Credentials::Anonymous),
        Some(Choice::Env) => "OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET",
        Some(Choice::File) => "OSS_AUTHORIZATION_FILE_PATH",
        Some(Choice::Oidc) => {
            "ALIBABA_CLOUD_ROLE_ARN, ALIBABA_CLOUD_OIDC_PROVIDER_ARN and ALIBABA_CLOUD_OIDC_TOKEN_FILE"
        }
        Some(Choice::Ecs) => "ALIBABA_CLOUD_ECS_METADATA_DISABLED to something else than true",
    };
    invalid("OSSC_CREDENTIALS", format!("names a source that is not set up: set {missing}"))
}

type Names = (&'static str, &'static str, &'static str);
const OSS_NAMES: Names = ("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET", "OSS_SESSION_TOKEN");
const ALIBABA_NAMES: Names =
    ("ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_SECURITY_TOKEN");

fn key(
    text: &impl Fn(&str) -> Option<String>,
    (id_name, secret_name, token_name): Names,
) -> Result<Option<ossc_sign::Credentials>, Reason> {
    let both = format!("set {id_name} and {secret_name}, or neither");
    let (id, secret) = match (text(id_name), text(secret_name)) {
        (None, None) => return Ok(None),
        (Some(_), None) if id_name == OSS_NAMES.0 => return Err(Reason::new(reason::SECRET_NOT_SET, both)),
        (None, Some(_)) if id_name == OSS_NAMES.0 => return Err(Reason::new(reason::ID_NOT_SET, both)),
        (Some(_), None) => return invalid(secret_name, format!("is not set; {both}")),
        (None, Some(_)) => return invalid(id_name, format!("is not set; {both}")),
        (Some(id), Some(secret)) => (id, secret),
    };
    let token = text(token_name);
    // They become parts of a request head: a line break in one would be a header of its own.
    for (name, value) in [(id_name, Some(&id)), (secret_name, Some(&secret)), (token_name, token.as_ref())] {
        if value.is_some_and(|value| !value.bytes().all(|byte| byte.is_ascii_graphic())) {
            return invalid(name, "holds white space or characters that no key has; copy it again");
        }
    }
    let (access_key_secret, security_token) = (Secret::new(secret), token.map(Secret::new));
    Ok(Some(ossc_sign::Credentials { access_key_id: id, access_key_secret, security_token }))
}

/// `None` unless all three variables are there that a cluster gives to a pod.
fn oidc(text: &impl Fn(&str) -> Option<String>) -> Result<Option<Oidc>, Reason> {
    let three =
        ["ALIBABA_CLOUD_ROLE_ARN", "ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "ALIBABA_CLOUD_OIDC_TOKEN_FILE"].map(text);
    let [Some(role_arn), Some(provider_arn), Some(token_file)] = three else {
        return Ok(None);
    };
    let token_file = absolute(token_file).or_else(|why| invalid("ALIBABA_CLOUD_OIDC_TOKEN_FILE", why))?;
    let session_name = text("ALIBABA_CLOUD_ROLE_SESSION_NAME").unwrap_or_else(|| SESSION_NAME.into());
    let service = match service(text, "OSSC_STS_URL")? {
        Some(own) => own,
        None => endpoint("ALIBABA_CLOUD_STS_REGION", &format!("https://{}", sts_host(text)))?,
    };
    if service.scheme() != Scheme::Https {
        return invalid("OSSC_STS_URL", "is not https: the token of the pod would cross the network in the clear");
    }
    Ok(Some(Oidc { role_arn, provider_arn, token_file, session_name, service }))
}

fn sts_host(text: &impl Fn(&str) -> Option<String>) -> String {
    let inside = text("ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    match text("ALIBABA_CLOUD_STS_REGION") {
        Some(region) if inside => format!("sts-vpc.{region}.aliyuncs.com"),
        Some(region) => format!("sts.{region}.aliyuncs.com"),
        None => "sts.aliyuncs.com".into(),
    }
}

fn ecs_role(text: &impl Fn(&str) -> Option<String>, named: bool) -> Result<Option<EcsRole>, Reason> {
    let is_true = |name| text(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let role = text("ALIBABA_CLOUD_ECS_METADATA");
    if is_true("ALIBABA_CLOUD_ECS_METADATA_DISABLED") || (role.is_none() && !named) {
        return Ok(None);
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if role.as_ref().is_some_and(|role| !role.bytes().all(plain)) {
        return invalid("ALIBABA_CLOUD_ECS_METADATA", "is not the name of a RAM role");
    }
    let service = match service(text, "OSSC_METADATA_URL")? {
        Some(own) => own,
        None => endpoint("OSSC_METADATA_URL", METADATA)?,
    };
    Ok(Some(EcsRole { role, service, v1_allowed: !is_true("ALIBABA_CLOUD_IMDSV1_DISABLED") }))
}

fn service(text: &impl Fn(&str) -> Option<String>, name: &str) -> Result<Option<Endpoint>, Reason> {
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
    fn every_variable_that_is_looked_up_is_in_the_manual() {
        let asked = RefCell::new(BTreeSet::new());
        for named in ["anonymous", "env", "file", "oidc", "ecs"] {
            let others = if named == "oidc" { &OIDC[..] } else { &[] };
            let get = |name: &str| {
                asked.borrow_mut().insert(name.to_owned());
                let own = (name == "OSSC_CREDENTIALS").then_some(named);
                own.or(others.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)).map(str::to_owned)
            };
            assert_eq!(source(&get).is_ok(), !matches!(named, "env" | "file"), "{named}");
        }
        let asked = asked.into_inner();
        assert_eq!(asked.len(), 17, "{asked:?}");
        for name in asked {
            assert!(crate::docs::VARIABLES.iter().any(|v| v.name == name), "{name}");
        }
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
