//! RRSA: the role of a pod, for whose token the Security Token Service gives credentials. Called by `credentials`.

use std::path::PathBuf;

use super::{Credentials, Lookup, SourceRow, absolute, endpoint, service};
use crate::docs::Variable;
use crate::endpoint::{Endpoint, Scheme};
use crate::reason::Reason;
use crate::variable::invalid;

/// Role sessions of this program, where the user names none.
const SESSION_NAME: &str = "oss-connector";

pub(super) const SOURCE: SourceRow = SourceRow {
    word: "oidc",
    line: "the role of the pod (RRSA): the three variables that ACK sets",
    secrets: &[],
    missing: "ALIBABA_CLOUD_ROLE_ARN, ALIBABA_CLOUD_OIDC_PROVIDER_ARN and ALIBABA_CLOUD_OIDC_TOKEN_FILE",
    variables: &[
        Variable {
            name: "ALIBABA_CLOUD_ROLE_ARN",
            need: "no",
            text: "RRSA: the role that a pod of ACK assumes. In use if this, ALIBABA_CLOUD_OIDC_PROVIDER_ARN and \
                   ALIBABA_CLOUD_OIDC_TOKEN_FILE are set.",
        },
        Variable {
            name: "ALIBABA_CLOUD_OIDC_PROVIDER_ARN",
            need: "no",
            text: "RRSA: who vouches for the pod's token.",
        },
        Variable {
            name: "ALIBABA_CLOUD_OIDC_TOKEN_FILE",
            need: "no",
            text: "RRSA: file of the pod's token, absolute; read anew for each exchange.",
        },
        Variable {
            name: "ALIBABA_CLOUD_ROLE_SESSION_NAME",
            need: "no",
            text: "RRSA: name of the session in the logs of the account. Default: `oss-connector`.",
        },
        Variable {
            name: "ALIBABA_CLOUD_STS_REGION",
            need: "no",
            text: "RRSA: `R` makes the token service sts.R.aliyuncs.com. Default: sts.aliyuncs.com.",
        },
        Variable {
            name: "ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED",
            need: "no",
            text: "RRSA: `true` makes it sts-vpc.R.aliyuncs.com.",
        },
        Variable {
            name: "OSSC_STS_URL",
            need: "no",
            text: "Another token service, for tests; https only, with the roots that the endpoint is trusted by.",
        },
    ],
    find: |text, _| Ok(oidc(text)?.map(Credentials::Oidc)),
};

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

/// `None` unless all three variables are there that a cluster gives to a pod.
fn oidc(text: Lookup<'_>) -> Result<Option<Oidc>, Reason> {
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

fn sts_host(text: Lookup<'_>) -> String {
    let inside = text("ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    match text("ALIBABA_CLOUD_STS_REGION") {
        Some(region) if inside => format!("sts-vpc.{region}.aliyuncs.com"),
        Some(region) => format!("sts.{region}.aliyuncs.com"),
        None => "sts.aliyuncs.com".into(),
    }
}
