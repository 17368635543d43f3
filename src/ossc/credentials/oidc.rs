//! The role of a pod (RRSA): the token that the cluster gave to the pod is exchanged at the Security Token Service
//! for credentials, by AssumeRoleWithOIDC. The request is not signed: the token is the proof.
//!
//! Called by `credentials`. Wire facts: version 2015-04-01 of the service's API.

use crate::credentials::{Issuer, Limits, file, service};
use ossc_net::Trust;
use ossc_net::ask::{Question, Service};
use ossc_sign::{Issued, query_string, utc};
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Asked life of the credentials in seconds: the longest that a role allows which nobody has configured.
const LIFE_SECS: &str = "3600";

/// See the file.
pub(super) struct Oidc {
    service: Service,
    role_arn: String,
    provider_arn: String,
    /// Read each time: the cluster renews it.
    token_file: PathBuf,
    session_name: String,
    limit: Duration,
}

impl Issuer for Oidc {
    fn name(&self) -> &'static str {
        "role of the pod (RRSA)"
    }

    fn fetch(&self) -> Result<Issued, String> {
        self.exchange().map_err(|why| format!("role of this pod (RRSA): {why}"))
    }
}

impl Oidc {
    pub(super) fn new(settings: &ossc_conf::Oidc, limits: Limits, trust: &Trust) -> Result<Oidc, String> {
        Ok(Oidc {
            service: service(&settings.service, trust)?,
            role_arn: settings.role_arn.clone(),
            provider_arn: settings.provider_arn.clone(),
            token_file: settings.token_file.clone(),
            session_name: settings.session_name.clone(),
            limit: limits.connect + limits.response,
        })
    }

    fn exchange(&self) -> Result<Issued, String> {
        let failed = |why: String| format!("ALIBABA_CLOUD_OIDC_TOKEN_FILE {}: {why}", self.token_file.display());
        let token = file::read(&self.token_file).map_err(failed)?;
        let token = std::str::from_utf8(&token).unwrap_or_default().trim();
        if token.is_empty() {
            return Err(failed("no token in it".into()));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let time = utc(now as i64);
        let target = query_string(&[
            ("Action", "AssumeRoleWithOIDC"),
            ("Format", "JSON"),
            ("Version", "2015-04-01"),
            ("Timestamp", &time),
        ]);
        let form = query_string(&[
            ("DurationSeconds", LIFE_SECS),
            ("RoleArn", &self.role_arn),
            ("OIDCProviderArn", &self.provider_arn),
            ("OIDCToken", token),
            ("RoleSessionName", &self.session_name),
        ]);
        let question = Question { method: "POST", target: &format!("/?{target}"), headers: &[], form: &form };
        let answer = self.service.round_trip(&question, self.limit)?;
        if answer.status != 200 {
            return Err(refusal(answer.status, &answer.body));
        }
        Issued::from_sts(&answer.body).map_err(|why| format!("AssumeRoleWithOIDC: {why}"))
    }
}

/// Code and request id of the service; its message may repeat the token.
fn refusal(status: u16, body: &[u8]) -> String {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let word = |name: &str| {
        let text = document[name].as_str().unwrap_or("not named");
        text.chars().filter(|c| c.is_ascii_graphic()).take(64).collect::<String>()
    };
    let (code, id) = (word("Code"), word("RequestId"));
    format!(
        "AssumeRoleWithOIDC: status {status} (code {code}, request id {id}); check the role, its trust policy and the OIDC provider"
    )
}
