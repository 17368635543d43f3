//! Whom to trust: the system's roots or those of SSL_CERT_FILE, and `tls.caFile` on top.
//! Called once per [`super::Tls`]. Reads files, never the environment.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_native_certs::{CertificateResult, load_certs_from_paths, load_native_certs};

use crate::error::{Error, FailureKind, Phase};

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
    collect(trust, load_native_certs)
}

fn collect(trust: &Trust, system: impl FnOnce() -> CertificateResult) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    if trust.cert_file.is_some() || trust.cert_dir.is_some() {
        variables(&mut store, trust)?;
    } else {
        let found = system();
        let (usable, unusable) = store.add_parsable_certificates(found.certs);
        tracing::debug!(usable, unusable, "the system's root certificates");
    }
    if let Some(file) = &trust.ca_file {
        add(&mut store, "tls.caFile", file, || load_certs_from_paths(Some(file), None)).map_err(refuse)?;
    }
    if store.is_empty() {
        tracing::warn!(
            "this system has no root certificates: the Mozilla list of this build is used; install ca-certificates, or set SSL_CERT_FILE or tls.caFile"
        );
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(store)
}

/// The roots of both variables. Distributions set both and fill one: only if neither has a
/// certificate is that an error.
fn variables(store: &mut RootCertStore, trust: &Trust) -> Result<(), Error> {
    let mut wrong = Vec::new();
    if let Some(file) = &trust.cert_file {
        wrong.extend(add(store, "SSL_CERT_FILE", file, || load_certs_from_paths(Some(file), None)).err());
    }
    for folder in trust.cert_dir.iter().flat_map(|folders| folders.split(':')).filter(|folder| !folder.is_empty()) {
        let folder = Path::new(folder);
        wrong.extend(add(store, "SSL_CERT_DIR", folder, || load_certs_from_paths(None, Some(folder))).err());
    }
    if store.is_empty() {
        return Err(refuse(wrong.join("; ")));
    }
    for text in wrong {
        tracing::warn!("{text}");
    }
    Ok(())
}

/// Adds what is found at a path that the user named; says what is wrong if nothing usable is.
fn add(
    store: &mut RootCertStore,
    name: &str,
    path: &Path,
    read: impl FnOnce() -> CertificateResult,
) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{name} {}: {why}", path.display()));
    // The engine leaves the folder it was started in.
    if !path.is_absolute() {
        return wrong("not an absolute path");
    }
    let found = read();
    let (usable, unusable) = store.add_parsable_certificates(found.certs);
    tracing::debug!(path = %path.display(), usable, unusable, "{name}");
    match (usable, unusable, found.errors.first()) {
        (0, _, Some(error)) => wrong(&error.to_string()),
        (0, 0, None) => wrong("no certificate in it"),
        (0, unusable, None) => wrong(&format!("none of its {unusable} certificates can be read")),
        (_, _, Some(error)) => {
            tracing::warn!(path = %path.display(), %error, "{name}: a part was skipped");
            Ok(())
        }
        _ => Ok(()),
    }
}

fn refuse(wrong: String) -> Error {
    let text = format!("{wrong}; name an absolute path of PEM certificates of the CA, or unset it");
    Error::new(FailureKind::Config, Phase::Tls, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::Ca;

    #[test]
    fn the_built_in_list_stands_in_for_a_store_that_is_missing_and_for_nothing_else() {
        let none = CertificateResult::default;
        let built_in = collect(&Trust::default(), none).expect("roots");
        assert_eq!(built_in.len(), webpki_roots::TLS_SERVER_ROOTS.len());
        let (system, ca) = (Ca::new("system"), Ca::new("own"));
        let found = || load_certs_from_paths(Some(&system.file), None);
        assert_eq!(collect(&Trust::default(), found).expect("roots").len(), 1);
        let own = Trust { ca_file: Some(ca.file.clone()), ..Trust::default() };
        assert_eq!(collect(&own, found).expect("roots").len(), 2);
        assert_eq!(collect(&own, none).expect("roots").len(), 1, "a CA of one's own is trusted alone");
        let variable = || panic!("SSL_CERT_FILE replaces the system's store");
        assert_eq!(collect(&ca.trust(), variable).expect("roots").len(), 1);
    }
}
