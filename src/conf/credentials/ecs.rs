//! The RAM role of an ECS instance, which its metadata service tells. Called by `credentials`.

use super::{Credentials, Lookup, SourceRow, endpoint, service};
use crate::docs::Variable;
use crate::endpoint::Endpoint;
use crate::reason::Reason;
use crate::variable::invalid;

/// The metadata service of an ECS instance: a link-local address, plain http by its nature.
const METADATA: &str = "http://100.100.100.200";

pub(super) const SOURCE: SourceRow = SourceRow {
    word: "ecs",
    line: "the RAM role of the ECS instance: `ALIBABA_CLOUD_ECS_METADATA`, or `OSSC_CREDENTIALS=ecs`",
    secrets: &[],
    missing: "ALIBABA_CLOUD_ECS_METADATA_DISABLED to something else than true",
    variables: &[
        Variable {
            name: "ALIBABA_CLOUD_ECS_METADATA",
            need: "no",
            text: "Name of the RAM role of this ECS instance; setting it is what makes the engine ask for its credentials.",
        },
        Variable {
            name: "ALIBABA_CLOUD_ECS_METADATA_DISABLED",
            need: "no",
            text: "`true`: the metadata service is never asked.",
        },
        Variable {
            name: "ALIBABA_CLOUD_IMDSV1_DISABLED",
            need: "no",
            text: "`true`: the metadata service is asked with a token of its version 2 only. Else version 1 is tried where \
                   none can be had.",
        },
        Variable {
            name: "OSSC_METADATA_URL",
            need: "no",
            text: "Another metadata service, for tests. Default: `http://100.100.100.200`.",
        },
    ],
    find: |text, named| Ok(ecs_role(text, named)?.map(Credentials::EcsRole)),
};

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

fn ecs_role(text: Lookup<'_>, named: bool) -> Result<Option<EcsRole>, Reason> {
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
