//! Looks into certificate files, so that a wrong one is found when settings are checked.
//!
//! Not here: serving TLS with them (`edge`).

use std::path::Path;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::resolved::Tls;

/// Checks that both files can be read and belong together. Errors: the key to blame, and what to do.
pub(super) fn check(tls: &Tls) -> Result<(), (&'static str, String)> {
    let chain = certificates(&tls.cert).map_err(|advice| ("tls.cert", advice))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|error| ("tls.key", format!("no private key in PEM can be read from it: {error}")))?;
    match CertifiedKey::from_der(chain, key, &ring::default_provider()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(("tls.key", "does not belong to the first certificate in tls.cert".to_owned()))
        }
        Err(error) => Err(("tls.key", format!("cannot be used with tls.cert: {error}"))),
    }
}

/// Checks that the file has certificates. Errors: what to do.
pub(super) fn authorities(path: &Path) -> Result<(), String> {
    certificates(path).map(|_| ())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |error| format!("no certificate in PEM can be read from it: {error}");
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(failed)?.collect();
    match found {
        Ok(certificates) if certificates.is_empty() => {
            Err("has no certificate: it must be a PEM file with BEGIN CERTIFICATE lines".to_owned())
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(failed(error)),
    }
}
