//! A client's socket, plain or under TLS.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};
use socket2::{Domain, Protocol, Socket as Raw, Type};

use super::tickets::{Purse, Tickets};
use crate::error::Error;
use crate::target::{Handshakes, Target};

/// The TLS state of a connection lives apart, so that a plain one stays small.
pub(crate) enum Socket {
    /// As it is.
    Plain(TcpStream),
    /// Under TLS.
    Tls(Box<(TcpStream, ClientConnection)>),
}

/// What TLS needs, the same for all connections of a process to one node.
pub(crate) struct Trust {
    config: Arc<ClientConfig>,
    /// The same without showing a ticket; those that come are kept for others.
    collecting: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Trust {
    /// One for each node.
    pub(crate) fn new(ca: &Path, target: &Target) -> Result<Vec<Self>, Error> {
        let failed = |why: String| Error::Authority { path: ca.to_owned(), why };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| failed(error.to_string()))? {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            roots.add(certificate).map_err(|error| failed(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(failed("there is no certificate in it".into()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        let nodes = target.nodes.len();
        let tickets = Tickets::new(nodes);
        let trusts = target.nodes.iter().enumerate().map(|(node, address)| {
            // Copies of one configuration: rustls resumes only what the same verifier has verified.
            let with = |from| {
                let mut config = config.clone();
                if target.tls == Handshakes::Resumed {
                    let purse = Purse { tickets: Arc::clone(&tickets), node, from };
                    config.resumption = Resumption::store(Arc::new(purse));
                }
                Arc::new(config)
            };
            let (collecting, config) = (with(None), with(Some((node + nodes - 1) % nodes)));
            let name =
                ServerName::try_from(address.host.clone()).map_err(|error| failed(error.to_string()))?;
            Ok(Self { config, collecting, name })
        });
        trusts.collect()
    }
}

/// The source address of a connection to a server on loopback: 127.0.0.2 and up, dealt to the client processes in
/// turn. One address has some 28,000 ports to the same server, and a port rests for a minute after its connection.
pub(crate) fn source(index: u32, of: u32, connection: u32) -> Ipv4Addr {
    let spread = u64::from(index) + u64::from(of) * u64::from(connection % 64);
    Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(spread % 253).unwrap_or(0))
}

impl Socket {
    /// Begins to connect; with TLS, by a ticket if there is one and it may.
    pub(crate) fn connect(
        to: SocketAddr,
        from: Ipv4Addr,
        receive_buffer: Option<u32>,
        (trust, resume): (Option<&Trust>, bool),
    ) -> io::Result<Self> {
        let raw = Raw::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        raw.set_nonblocking(true)?;
        raw.set_tcp_nodelay(true)?;
        if let Some(bytes) = receive_buffer {
            // Before the connection: the window is agreed on when it begins.
            raw.set_recv_buffer_size(bytes as usize)?;
        }
        if let IpAddr::V4(server) = to.ip()
            && server.is_loopback()
        {
            raw.bind(&SocketAddr::from((from, 0)).into())?;
        }
        match raw.connect(&to.into()) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            other => other?,
        }
        let stream = TcpStream::from_std(raw.into());
        match trust {
            None => Ok(Self::Plain(stream)),
            Some(trust) => {
                let config = if resume { &trust.config } else { &trust.collecting };
                let tls = ClientConnection::new(Arc::clone(config), trust.name.clone())
                    .map_err(io::Error::other)?;
                Ok(Self::Tls(Box::new((stream, tls))))
            }
        }
    }

    /// For the poller.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(both) => &mut both.0,
        }
    }

    /// Whether its TLS session was resumed; none without TLS, and before the handshake is over.
    pub(crate) fn resumed(&self) -> Option<bool> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(both) => both.1.handshake_kind().map(|kind| kind == HandshakeKind::Resumed),
        }
    }

    /// Whether a read that fills less than it may has read all there is: so it is with a stream (epoll(7)), and not
    /// with records.
    pub(crate) fn short_read_is_all(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Reads application data; `WouldBlock` when there is none now, 0 at the end.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            Self::Tls(both) => {
                let (stream, tls) = both.as_mut();
                loop {
                    match tls.reader().read(into) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        other => return other,
                    }
                    if tls.read_tls(stream)? == 0 {
                        return Ok(0);
                    }
                    tls.process_new_packets().map_err(io::Error::other)?;
                    flush(stream, tls)?;
                }
            }
        }
    }

    /// Writes as much of `unsent` as the socket takes now and removes it from there.
    pub(crate) fn write(&mut self, unsent: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Plain(stream) => {
                let mut sent = 0;
                while sent < unsent.len() {
                    match stream.write(&unsent[sent..]) {
                        Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                        Ok(count) => sent += count,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    }
                }
                unsent.drain(..sent);
            }
            Self::Tls(both) => {
                let (stream, tls) = both.as_mut();
                // What rustls does not take stays with us: its buffer is bounded (64 KiB), and ours by our caller.
                loop {
                    let taken = tls.writer().write(unsent)?;
                    unsent.drain(..taken);
                    flush(stream, tls)?;
                    if unsent.is_empty() || taken == 0 {
                        break;
                    }
                }
            }
        }
        if unsent.is_empty() {
            *unsent = Vec::new();
        }
        Ok(())
    }
}

/// Gives the socket what TLS has to say, as far as it takes it.
fn flush(stream: &mut TcpStream, tls: &mut ClientConnection) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(stream) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_client_processes_do_not_share_a_source_address() {
        for (left, right) in [(0, 1), (0, 2), (1, 2)] {
            let of = |index| (0..1_000).map(move |connection| source(index, 3, connection));
            assert!(of(left).all(|address| of(right).all(|other| address != other)));
        }
        assert_eq!(source(0, 1, 0), Ipv4Addr::new(127, 0, 0, 2));
        assert!((0..20_000).all(|n| source(14, 15, n).is_loopback() && source(14, 15, n).octets()[3] >= 2));
    }
}
