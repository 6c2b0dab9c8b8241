//! An authority of our own and a certificate for this machine, as files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;

/// Files of one authority and one leaf for `localhost` and 127.0.0.1. Gone when dropped.
#[derive(Debug)]
pub struct Certificates {
    dir: TempDir,
}

impl Certificates {
    /// Makes them.
    ///
    /// # Panics
    /// When the temporary directory cannot be written.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let authority_key = KeyPair::generate().expect("a key");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        authority.distinguished_name.push(DnType::CommonName, "Tidegate test authority");
        let authority_cert = authority.self_signed(&authority_key).expect("a self-signed certificate");
        let issuer = Issuer::new(authority, authority_key);

        let key = KeyPair::generate().expect("a key");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut leaf = CertificateParams::new(names).expect("valid names");
        leaf.distinguished_name.push(DnType::CommonName, "localhost");
        leaf.use_authority_key_identifier_extension = true;
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let cert = leaf.signed_by(&key, &issuer).expect("a signed certificate");

        let write = |name: &str, pem: String| {
            std::fs::write(dir.path().join(name), pem).expect("the temporary directory takes files");
        };
        write("ca.crt", authority_cert.pem());
        write("tls.crt", cert.pem());
        write("tls.key", key.serialize_pem());
        Self { dir }
    }

    /// The authority's certificate, PEM.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// The leaf's certificate, PEM.
    pub fn cert(&self) -> PathBuf {
        self.dir.path().join("tls.crt")
    }

    /// The leaf's key, PEM.
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("tls.key")
    }

    /// A rustls client which trusts the authority and nothing else.
    pub fn client(&self) -> Arc<ClientConfig> {
        trusting(&self.authority(), rustls::DEFAULT_VERSIONS)
    }

    /// The same for one version of TLS.
    pub fn client_speaking(&self, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        trusting(&self.authority(), &[version])
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

fn trusting(authority: &Path, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let cert = CertificateDer::from_pem_file(authority).expect("a PEM certificate");
    roots.add(cert).expect("a usable authority");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .expect("the provider speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
