//! Certificates for the servers that are measured: one with an ECDSA key, one with an RSA key.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;

/// A certificate for 127.0.0.1, signed by itself, and its key.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

/// With an ECDSA key on P-256.
pub(super) fn ecdsa(directory: &Path) -> Result<Certificate, Error> {
    let failed =
        |why: &dyn std::fmt::Display| Error::Asked(format!("a certificate could not be made: {why}"));
    let made =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).map_err(|error| failed(&error))?;
    let certificate = at(directory, "ecdsa");
    write(&certificate.cert, &made.cert.pem())?;
    write(&certificate.key, &made.signing_key.serialize_pem())?;
    Ok(certificate)
}

/// With an RSA key of 2,048 bits, by the `openssl` command: our own provider makes no RSA keys.
pub(super) fn rsa(directory: &Path) -> Result<Certificate, Error> {
    let certificate = at(directory, "rsa");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=127.0.0.1"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&certificate.key)
        .arg("-out")
        .arg(&certificate.cert)
        .stdin(Stdio::null())
        .output();
    match made {
        Ok(made) if made.status.success() => Ok(certificate),
        Ok(made) => {
            let said = String::from_utf8_lossy(&made.stderr);
            let last = said.lines().last().unwrap_or_default();
            Err(Error::Asked(format!("openssl could not make an RSA certificate: {last}")))
        }
        Err(error) => Err(Error::Asked(format!(
            "RSA handshakes need the openssl command to make a certificate, and it cannot be started: {error}; install \
             the package openssl"
        ))),
    }
}

fn at(directory: &Path, name: &str) -> Certificate {
    Certificate { cert: directory.join(format!("{name}.crt")), key: directory.join(format!("{name}.key")) }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(Error::io("write a certificate"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use rustls::ServerConfig;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use super::*;

    /// A server accepts them together only if the key is the certificate's.
    fn serves(certificate: &Certificate) -> bool {
        let chain = CertificateDer::pem_file_iter(&certificate.cert).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(&certificate.key).unwrap();
        ServerConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .is_ok()
    }

    #[test]
    fn a_server_can_be_started_with_either_kind_of_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let made = ecdsa(directory.path()).unwrap();
        assert!(serves(&made));
        match rsa(directory.path()) {
            Ok(made) => assert!(serves(&made)),
            // Where there is no openssl the sentence says what to install.
            Err(error) => assert!(error.to_string().contains("install the package openssl"), "{error}"),
        }
    }
}
