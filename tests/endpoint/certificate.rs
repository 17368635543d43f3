//! TLS of the endpoint: reads a certificate and its key, and makes some for tests. Called by
//! `server` and by the program's `--make-cert`. Never replaces a file.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names in a made certificate: loopback, and buckets as sub-domains of a name for /etc/hosts.
const NAMES: [&str; 5] = ["127.0.0.1", "::1", "localhost", "localhost.test", "*.localhost.test"];

/// Where the endpoint's certificate is.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// PEM file: the leaf first, then what leads to the root.
    pub chain: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
}

impl Certificate {
    /// TLS 1.3 and 1.2.
    pub(crate) fn server(&self) -> io::Result<Arc<ServerConfig>> {
        let named = |path: &Path, why: String| io::Error::other(format!("{}: {why}", path.display()));
        let chain = CertificateDer::pem_file_iter(&self.chain)
            .and_then(Iterator::collect)
            .map_err(|e| named(&self.chain, e.to_string()))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| named(&self.key, e.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map(Arc::new)
            .map_err(|e| named(&self.chain, e.to_string()))
    }

    /// Makes `ca.pem`, and `cert.pem` with `key.pem` signed by it, in `folder`; valid for
    /// 127.0.0.1, ::1, localhost, localhost.test and its sub-domains. The CA's key is forgotten.
    ///
    /// # Errors
    /// A file that is there already, or cannot be written.
    pub fn make(folder: &Path) -> io::Result<Self> {
        let (ca, leaf, key) = made().map_err(io::Error::other)?;
        write(&folder.join("ca.pem"), &ca)?;
        let made = Self { chain: folder.join("cert.pem"), key: folder.join("key.pem") };
        write(&made.chain, &leaf)?;
        write(&made.key, &key)?;
        Ok(made)
    }
}

fn made() -> Result<(String, String, String), rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "oss-endpoint test CA");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
    params.distinguished_name.push(DnType::CommonName, "oss-endpoint");
    let key = KeyPair::generate()?;
    let leaf = params.signed_by(&key, &ca)?;
    Ok((ca.pem(), leaf.pem(), key.serialize_pem()))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    file.write_all(text.as_bytes())
}
