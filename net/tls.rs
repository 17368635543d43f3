//! TLS for an endpoint: which roots are trusted, which suites are offered, and the sessions that
//! all connections resume from. Made by the engine once, given to the connections by the origin.
//! Never does I/O on a socket, and never lowers a check: there is no switch that trusts everybody.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::{CipherSuite, ClientConfig, HandshakeKind};

use crate::error::{Error, FailureKind, Phase};

mod fault;
mod records;
mod roots;
mod stage;

pub use roots::Trust;
pub(crate) use stage::Stage;

/// TLS 1.3 and 1.2 to one host. A copy shares roots and sessions with its original.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    host: Arc<str>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    full: AtomicU64,
    resumed: AtomicU64,
}

/// Handshakes that succeeded since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// With certificates.
    pub full: u64,
    /// From a session of an earlier connection.
    pub resumed: u64,
}

impl Tls {
    /// For `host` (a name or an IP literal, IPv6 without brackets), which is sent as SNI, if it is
    /// a name, and must stand in the certificate.
    ///
    /// # Errors
    /// In phase TLS: a host that no certificate can name, or files of `trust` that cannot be used.
    pub fn new(host: &str, trust: &Trust) -> Result<Tls, Error> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Error::new(
                FailureKind::Config,
                Phase::Tls,
                format!("{host:?} is no name that a certificate can be made out to"),
            )
        })?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider(has_aes())))
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::new(FailureKind::Local, Phase::Tls, format!("set up TLS: {e}")))?
            .with_root_certificates(roots::load(trust)?)
            .with_no_client_auth();
        // The keys stay in this process: after the handshake the stage opens the records itself.
        config.enable_secret_extraction = true;
        Ok(Tls { config: Arc::new(config), name, host: host.into(), counts: Arc::default() })
    }

    /// How many connections were set up, and how.
    pub fn handshakes(&self) -> Handshakes {
        let Counts { full, resumed } = &*self.counts;
        Handshakes { full: full.load(Ordering::Relaxed), resumed: resumed.load(Ordering::Relaxed) }
    }

    /// Begins a session on a new connection.
    pub(crate) fn stage(&self) -> Result<Stage, Error> {
        Stage::new(self)
    }

    /// For a session that is read and written as a stream.
    pub(crate) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// Who the certificate must name.
    pub(crate) fn name(&self) -> &ServerName<'static> {
        &self.name
    }

    fn count(&self, kind: Option<HandshakeKind>) {
        let counter = match kind {
            Some(HandshakeKind::Resumed) => &self.counts.resumed,
            _ => &self.counts.full,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What went wrong with the TLS of `host`, for a message.
pub(crate) fn in_words(host: &str, phase: Phase, cause: &rustls::Error) -> String {
    fault::error(host, phase, cause).message.into()
}

impl fmt::Debug for Tls {
    /// Without the configuration: it holds sessions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("host", &self.host).finish_non_exhaustive()
    }
}

/// Ring's suites, in the order of what they cost. Measured here: 0.19 CPU-s/GB for AES-128-GCM,
/// 0.25 for AES-256-GCM, 0.57 for ChaCha20; without AES instructions ChaCha20 is the cheap one.
fn provider(aes: bool) -> CryptoProvider {
    let mut provider = ring::default_provider();
    let cost = |suite: CipherSuite| {
        let name = suite.as_str().unwrap_or_default();
        match (name.contains("AES_128"), name.contains("AES_256")) {
            (true, _) => 1,
            (_, true) => 2,
            _ => 0,
        }
    };
    if aes {
        provider.cipher_suites.retain(|suite| cost(suite.suite()) > 0);
    }
    provider.cipher_suites.sort_by_key(|suite| cost(suite.suite()));
    provider
}

/// Whether this CPU has instructions for AES-GCM.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
pub(crate) mod tests;
