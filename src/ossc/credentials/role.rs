//! The RAM role of an ECS instance: what its metadata service says. Version 2 of the service wants a token that
//! only this instance can get; version 1 is asked where no token can be had and nobody forbids it.
//!
//! Called by `credentials`. Wire facts: "Instance metadata" of the ECS manual.

use crate::credentials::{Issuer, Limits, service};
use ossc_net::Trust;
use ossc_net::ask::{Answer, Question, Service};
use ossc_sign::Issued;
use std::time::Duration;

const TOKEN: &str = "/latest/api/token";
const ROLES: &str = "/latest/meta-data/ram/security-credentials/";
/// Seconds that a token is good; it is used at once.
const TOKEN_LIFE: &str = "60";

/// See the file.
pub(super) struct Role {
    service: Service,
    /// Asked for, if `None`.
    name: Option<String>,
    v1_allowed: bool,
    /// Of each question.
    limit: Duration,
}

impl Issuer for Role {
    fn name(&self) -> &'static str {
        "RAM role of the ECS instance"
    }

    fn fetch(&self) -> Result<Issued, String> {
        self.ask_service().map_err(|why| format!("RAM role of this instance: {why}"))
    }
}

impl Role {
    pub(super) fn new(settings: &ossc_conf::EcsRole, limits: Limits, trust: &Trust) -> Result<Role, String> {
        Ok(Role {
            service: service(&settings.service, trust)?,
            name: settings.role.clone(),
            v1_allowed: settings.v1_allowed,
            limit: limits.connect,
        })
    }

    fn ask_service(&self) -> Result<Issued, String> {
        let token = match self.token() {
            Ok(token) => Some(token),
            Err(why) if self.v1_allowed => {
                tracing::debug!("no metadata token ({why}): asking as in version 1");
                None
            }
            Err(why) => return Err(format!("{why}; version 1 is forbidden by ALIBABA_CLOUD_IMDSV1_DISABLED")),
        };
        let name = match &self.name {
            Some(name) => name.clone(),
            None => self.role_name(token.as_deref())?,
        };
        let path = format!("{ROLES}{name}");
        let answer = self.get(&path, token.as_deref())?;
        Issued::from_metadata(&answer).map_err(|why| format!("GET {path}: {why}"))
    }

    fn token(&self) -> Result<String, String> {
        let headers = [("X-aliyun-ecs-metadata-token-ttl-seconds", TOKEN_LIFE)];
        let question = Question { method: "PUT", target: TOKEN, headers: &headers, form: "" };
        text(&good(&question, self.service.round_trip(&question, self.limit)?)?, "a token")
    }

    fn role_name(&self, token: Option<&str>) -> Result<String, String> {
        let name = text(&self.get(ROLES, token)?, "the name of a role")?;
        if name.contains('/') {
            return Err(format!("GET {ROLES}: the answer is not the name of a role"));
        }
        Ok(name)
    }

    fn get(&self, path: &str, token: Option<&str>) -> Result<Vec<u8>, String> {
        let headers: Vec<(&str, &str)> =
            token.map(|token| ("X-aliyun-ecs-metadata-token", token)).into_iter().collect();
        let question = Question { method: "GET", target: path, headers: &headers, form: "" };
        good(&question, self.service.round_trip(&question, self.limit)?)
    }
}

fn good(question: &Question<'_>, answer: Answer) -> Result<Vec<u8>, String> {
    match (answer.status, question.target) {
        (200, _) => Ok(answer.body),
        (404, target) if target.starts_with(ROLES) => {
            Err(format!("GET {target}: status 404: this instance has no such RAM role; grant it one"))
        }
        (status, target) => Err(format!("{} {target}: status {status}", question.method)),
    }
}

/// One word.
fn text(body: &[u8], what: &str) -> Result<String, String> {
    let text = std::str::from_utf8(body).unwrap_or_default().trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("the metadata service did not answer with {what}"));
    }
    Ok(text.to_owned())
}
