//! Where the keys come from that requests are signed with, and the thread that renews them before they end.
//!
//! Called by the engine at its start, and by `work` when OSS refuses a key. Keys of the environment stay as they
//! are and need no thread, as long as no later program brings others. Keys are never logged, only where they came from
//! and when they end.

use ossc_conf::{Credentials as Configured, Scheme, Settings, Signature};
use ossc_net::ask::Service;
use ossc_net::{Tls, Trust};
use ossc_sign::{Credentials, Issued, Scope, Signer, V1, V4};
use std::path::PathBuf;
use std::time::Duration;

mod file;
mod later;
mod oidc;
mod renewal;
mod role;

pub use later::Later;
pub use renewal::{Renewal, RenewalThread};

/// Attempts of the first fetch, and the pause between two of them (official SDKs: 3, 500 ms).
const FIRST_ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A place that gives credentials again and again.
pub enum Source {
    /// The file of OSS_AUTHORIZATION_FILE_PATH.
    File(PathBuf),
    /// The metadata service of an ECS instance.
    Role(role::Role),
    /// The Security Token Service, for the token of a pod.
    Oidc(oidc::Oidc),
}

impl Source {
    /// What the settings name; `None` for anonymous access and for keys that stay as they are.
    pub fn new(settings: &Settings, limits: Limits, trust: &Trust) -> Result<Option<Source>, String> {
        Ok(Some(match &settings.credentials {
            Configured::Anonymous | Configured::Key(_) => return Ok(None),
            Configured::File(path) => Source::File(path.clone()),
            Configured::EcsRole(role) => Source::Role(role::Role {
                service: service(&role.service, trust)?,
                name: role.role.clone(),
                v1_allowed: role.v1_allowed,
                limit: limits.connect,
            }),
            Configured::Oidc(oidc) => Source::Oidc(oidc::Oidc {
                service: service(&oidc.service, trust)?,
                role_arn: oidc.role_arn.clone(),
                provider_arn: oidc.provider_arn.clone(),
                token_file: oidc.token_file.clone(),
                session_name: oidc.session_name.clone(),
                limit: limits.connect + limits.response,
            }),
        }))
    }

    /// For the log.
    pub fn name(&self) -> &'static str {
        match self {
            Source::File(_) => "OSS_AUTHORIZATION_FILE_PATH",
            Source::Role(_) => "RAM role of the ECS instance",
            Source::Oidc(_) => "role of the pod (RRSA)",
        }
    }

    /// Credentials as they are now. The text of an error begins like the REASONs of the product.
    pub fn fetch(&self) -> Result<Issued, String> {
        match self {
            Source::File(path) => file::fetch(path),
            Source::Role(role) => role.fetch().map_err(|why| format!("RAM role of this instance: {why}")),
            Source::Oidc(oidc) => oidc.fetch().map_err(|why| format!("role of this pod (RRSA): {why}")),
        }
    }

    /// The first fetch: what may pass is tried again.
    pub fn first(&self) -> Result<Issued, String> {
        let mut tried = 1;
        loop {
            match self.fetch() {
                Ok(issued) => return Ok(issued),
                Err(why) if tried == FIRST_ATTEMPTS => return Err(why),
                Err(why) => tracing::warn!("{why}; trying again ({tried} of {FIRST_ATTEMPTS})"),
            }
            std::thread::sleep(FIRST_PAUSE);
            tried += 1;
        }
    }
}

/// How patient questions to services are.
#[derive(Clone, Copy)]
pub struct Limits {
    /// `connectTimeoutMs`; the metadata service, which is near, must have answered within it.
    pub connect: Duration,
    /// `responseTimeoutMs`
    pub response: Duration,
}

/// The key that the environment holds, if it is what the settings name.
pub fn lasting(settings: &Settings) -> Option<Credentials> {
    match &settings.credentials {
        Configured::Key(key) => Some(key.clone()),
        _ => None,
    }
}

/// Signs with this key, in the version that the settings name.
pub fn signer(settings: &Settings, credentials: Credentials) -> Signer {
    match settings.signature {
        Signature::V1 => Signer::V1(V1::new(credentials)),
        Signature::V4 => {
            let scope = Scope { region: settings.region.clone().unwrap_or_default(), product: "oss".into() };
            Signer::V4(V4::new(credentials, scope))
        }
    }
}

fn service(endpoint: &ossc_conf::Endpoint, trust: &Trust) -> Result<Service, String> {
    let host = endpoint.service_host();
    let secure = endpoint.scheme() == Scheme::Https;
    let tls = secure.then(|| Tls::new(&host, trust)).transpose().map_err(|e| e.to_string())?;
    Ok(Service { port: endpoint.port(), host_header: endpoint.service_host_header(), host, tls })
}
