//! A byte stream to Redis: TCP, TLS over it, or a Unix socket.
//!
//! The crate makes its own for commands; the pub/sub connection needs one that the [`super::sieve`] can stand in. Not
//! here: credentials, which the crate sends on the stream.

use std::io;
use std::sync::Arc;

use ::redis::ConnectionAddr;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// Any of the three.
pub(super) type Stream = Box<dyn Duplex>;

/// What is read and written.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Connects to the address; over TLS where it asks for that, with `tls`. Has no deadline of its own.
pub(super) async fn connect(address: &ConnectionAddr, tls: Option<&Arc<ClientConfig>>) -> io::Result<Stream> {
    match address {
        ConnectionAddr::Tcp(host, port) => Ok(Box::new(tcp(host, *port).await?)),
        ConnectionAddr::TcpTls { host, port, .. } => {
            let config = tls.ok_or_else(|| io::Error::other("no TLS settings"))?;
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            let stream = tcp(host, *port).await?;
            Ok(Box::new(TlsConnector::from(Arc::clone(config)).connect(name, stream).await?))
        }
        ConnectionAddr::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "an address of an unknown kind")),
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// TLS that trusts the authorities in `pem`, or the system's where there is none.
pub(super) fn tls(pem: Option<&[u8]>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match pem {
        Some(pem) => {
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).filter_map(Result::ok));
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}
