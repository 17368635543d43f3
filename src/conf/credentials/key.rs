//! Access keys that stand in the environment, under either of two groups of names. Called by `credentials`.
//!
//! No value is part of an error.

use ossc_sign::Secret;

use super::{Credentials, Lookup, SourceRow};
use crate::docs::Variable;
use crate::reason::{self, Reason};
use crate::variable::invalid;

/// OSS_ACCESS_KEY_*
pub(super) const OSS: SourceRow = SourceRow {
    word: "env",
    line: "`OSS_ACCESS_KEY_ID`, `OSS_ACCESS_KEY_SECRET`, `OSS_SESSION_TOKEN`",
    secrets: &["OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET", "OSS_SESSION_TOKEN"],
    missing: "OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET",
    variables: &[
        Variable {
            name: "OSS_ACCESS_KEY_ID",
            need: "see text",
            text: "Access key with `oss:ListObjects` and `oss:GetObject`. Unset or empty, together \
                   with the secret: another source of the list below, else anonymous access.",
        },
        Variable { name: "OSS_ACCESS_KEY_SECRET", need: "see text", text: "Its secret." },
        Variable {
            name: "OSS_SESSION_TOKEN",
            need: "no",
            text: "Token of temporary (STS) credentials. Unset or empty with a permanent key.",
        },
    ],
    find: |text, _| Ok(key(text, OSS_NAMES)?.map(Credentials::Key)),
};

/// ALIBABA_CLOUD_ACCESS_KEY_*
pub(super) const ALIBABA: SourceRow = SourceRow {
    word: "env",
    line: "`ALIBABA_CLOUD_ACCESS_KEY_ID`, `ALIBABA_CLOUD_ACCESS_KEY_SECRET`, `ALIBABA_CLOUD_SECURITY_TOKEN`",
    secrets: &["ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_SECURITY_TOKEN"],
    missing: "ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET",
    variables: &[
        Variable {
            name: "ALIBABA_CLOUD_ACCESS_KEY_ID",
            need: "no",
            text: "With ALIBABA_CLOUD_ACCESS_KEY_SECRET and, for temporary ones, ALIBABA_CLOUD_SECURITY_TOKEN: taken \
                   where neither OSS_ACCESS_KEY_ID nor OSS_AUTHORIZATION_FILE_PATH is set.",
        },
        Variable { name: "ALIBABA_CLOUD_ACCESS_KEY_SECRET", need: "no", text: "Its secret." },
        Variable { name: "ALIBABA_CLOUD_SECURITY_TOKEN", need: "no", text: "Its token." },
    ],
    find: |text, _| Ok(key(text, ALIBABA_NAMES)?.map(Credentials::Key)),
};

type Names = (&'static str, &'static str, &'static str);
const OSS_NAMES: Names = ("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET", "OSS_SESSION_TOKEN");
const ALIBABA_NAMES: Names =
    ("ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_SECURITY_TOKEN");

fn key(text: Lookup<'_>, (id_name, secret_name, token_name): Names) -> Result<Option<ossc_sign::Credentials>, Reason> {
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
