//! Whom to trust: the system's roots or those of SSL_CERT_FILE, and `tls.caFile` on top.
//! Called once per [`super::Tls`]. Reads files, never the environment.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_native_certs::{CertificateResult, load_certs_from_paths, load_native_certs};

use crate::error::{Error, Kind, Phase};

/// Where root certificates come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// `tls.caFile`: PEM file, trusted besides the others.
    pub ca_file: Option<PathBuf>,
    /// SSL_CERT_FILE: PEM file in place of the system's store, as OpenSSL reads it.
    pub cert_file: Option<PathBuf>,
    /// SSL_CERT_DIR: folders, `:` between them, in place of the system's store.
    pub cert_dir: Option<String>,
}

/// All roots of `trust`.
///
/// Without SSL_CERT_FILE and SSL_CERT_DIR they are the system's, so that what an administrator
/// added or withdrew counts. Only where the system has no store at all (slim container images) are
/// they the Mozilla list of this build: https must work there too, and a list that grows old is
/// the smaller harm; a warning names it. A named file that cannot be used is an error.
pub(super) fn load(trust: &Trust) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    let named = trust.cert_file.is_some() || trust.cert_dir.is_some();
    if let Some(file) = &trust.cert_file {
        add(&mut store, "SSL_CERT_FILE", file, load_certs_from_paths(Some(file), None))?;
    }
    for folder in trust.cert_dir.iter().flat_map(|folders| folders.split(':')).filter(|folder| !folder.is_empty()) {
        let folder = Path::new(folder);
        add(&mut store, "SSL_CERT_DIR", folder, load_certs_from_paths(None, Some(folder)))?;
    }
    if !named {
        let found = load_native_certs();
        let (usable, unusable) = store.add_parsable_certificates(found.certs);
        tracing::debug!(usable, unusable, "the system's root certificates");
    }
    if let Some(file) = &trust.ca_file {
        add(&mut store, "tls.caFile", file, load_certs_from_paths(Some(file), None))?;
    }
    if store.is_empty() {
        tracing::warn!(
            "this system has no root certificates: the Mozilla list of this build is used; install ca-certificates, or set SSL_CERT_FILE or tls.caFile"
        );
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(store)
}

/// Adds what was found at a path that the user named; nothing usable there is an error.
fn add(store: &mut RootCertStore, name: &str, path: &Path, found: CertificateResult) -> Result<(), Error> {
    let refuse = |why: String| {
        let text = format!("{name} {}: {why}; name a PEM file with the certificates of the CA", path.display());
        Err(Error::new(Kind::Config, Phase::Tls, text))
    };
    let (usable, unusable) = store.add_parsable_certificates(found.certs);
    match (usable, found.errors.first()) {
        (0, Some(error)) => refuse(error.to_string()),
        (0, None) => refuse(match unusable {
            0 => "no certificate in it".to_owned(),
            _ => format!("none of its {unusable} certificates can be read"),
        }),
        (usable, first) => {
            if let Some(error) = first {
                tracing::warn!(path = %path.display(), %error, "{name}: a part was skipped");
            }
            tracing::debug!(path = %path.display(), usable, unusable, "{name}");
            Ok(())
        }
    }
}
