//! A certificate for this machine, and what servers must be told to use it.

use std::path::PathBuf;

use tempfile::TempDir;

/// Key and certificate, which is its own authority, as files that go with it.
pub struct Keys {
    directory: TempDir,
}

impl Keys {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let signed = rcgen::generate_simple_self_signed(names).expect("a certificate");
        std::fs::write(directory.path().join("cert.pem"), signed.cert.pem()).expect("written");
        std::fs::write(directory.path().join("key.pem"), signed.signing_key.serialize_pem())
            .expect("written");
        Self { directory }
    }

    /// The authority's file.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    /// Settings of a server, as (name, value), that takes TLS on this port besides its plain one.
    pub fn settings(&self, port: u16) -> [(&'static str, String); 5] {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        [
            ("tls-port", port.to_string()),
            ("tls-cert-file", path("cert.pem")),
            ("tls-key-file", path("key.pem")),
            ("tls-ca-cert-file", path("cert.pem")),
            ("tls-auth-clients", "no".to_owned()),
        ]
    }

    /// The same as arguments.
    pub fn arguments(&self, port: u16) -> Vec<String> {
        self.settings(port).into_iter().flat_map(|(name, value)| [format!("--{name}"), value]).collect()
    }
}
