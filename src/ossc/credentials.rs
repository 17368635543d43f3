//! Where the keys come from that requests are signed with, and the thread that renews them before they end.
//!
//! Called by the engine at its start, and by `work` when OSS refuses a key. Keys of the environment stay as they
//! are and need no thread, as long as no later program brings others. Keys are never logged, only where they came from
//! and when they end.

use ossc_conf::{Credentials as Configured, Scheme, Settings, Signature};
use ossc_net::ask::Service;
use ossc_net::{Tls, Trust};
use ossc_sign::{Credentials, Issued, Scope, Signer, V1, V4};
use std::time::Duration;

mod file;
mod later;
mod oidc;
mod renewal;
mod role;

pub use later::{Later, Variables, of_environment, value};
pub use renewal::{Renewal, RenewalThread};

/// Attempts of the first fetch, and the pause between two of them (official SDKs: 3, 500 ms).
const FIRST_ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// What gives credentials again and again. Another one is a file beside this one, and an arm of [`issuer`]; its settings
/// are a file of `src/conf/credentials`.
pub trait Issuer: Send + Sync {
    /// For the log.
    fn name(&self) -> &'static str;

    /// Credentials as they are now.
    ///
    /// # Errors
    /// What failed where, for people; nothing that is secret.
    fn fetch(&self) -> Result<Issued, String>;

    /// The REASON of a start that is refused since the first fetch failed.
    fn reason(&self, why: String) -> String {
        format!("failed to initialize connector: {why}")
    }
}

/// What the settings name; `None` for anonymous access and for keys that stay as they are.
///
/// # Errors
/// In phase TLS, for roots that cannot be used.
pub fn issuer(settings: &Settings, limits: Limits, trust: &Trust) -> Result<Option<Box<dyn Issuer>>, String> {
    Ok(match &settings.credentials {
        Configured::Anonymous | Configured::Key(_) => None,
        Configured::File(path) => Some(Box::new(file::KeyFile(path.clone()))),
        Configured::EcsRole(role) => Some(Box::new(role::Role::new(role, limits, trust)?)),
        Configured::Oidc(oidc) => Some(Box::new(oidc::Oidc::new(oidc, limits, trust)?)),
    })
}

/// The first fetch: what may pass is tried again.
///
/// # Errors
/// As of the last try.
pub fn first(issuer: &dyn Issuer) -> Result<Issued, String> {
    let mut tried = 1;
    loop {
        match issuer.fetch() {
            Ok(issued) => return Ok(issued),
            Err(why) if tried == FIRST_ATTEMPTS => return Err(why),
            Err(why) => tracing::warn!("{why}; trying again ({tried} of {FIRST_ATTEMPTS})"),
        }
        std::thread::sleep(FIRST_PAUSE);
        tried += 1;
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
