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
