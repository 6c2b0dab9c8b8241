//! From an address to a WebSocket: TCP, TLS, and an HTTP upgrade of which every line may be changed.

use std::fmt::{self, Write as _};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::stream::Stream;
use super::{Error, Raw};
use crate::deadline::PATIENCE;
use crate::over::record_layer;

/// The key and its answer from RFC 6455, 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// More than any answer's head has.
const MOST_HEAD_BYTES: usize = 64 * 1024;

/// A connection to be made.
#[derive(Debug, Clone)]
pub struct Upgrade {
    to: SocketAddr,
    path: String,
    headers: Vec<(String, String)>,
    head: Option<Vec<u8>>,
    behind: Vec<u8>,
    tls: Option<Arc<ClientConfig>>,
    source: Option<IpAddr>,
    receive_buffer: Option<u32>,
    patience: Duration,
}

impl Upgrade {
    /// A good upgrade to `/connection/websocket` of the node at `to`; over TLS if [`record_layer`] says so.
    pub fn at(to: SocketAddr) -> Self {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Self {
            to,
            path: "/connection/websocket".to_owned(),
            headers: vec![
                header("Host", &to.to_string()),
                header("Connection", "Upgrade"),
                header("Upgrade", "websocket"),
                header("Sec-WebSocket-Version", "13"),
                header("Sec-WebSocket-Key", KEY),
            ],
            head: None,
            behind: Vec::new(),
            tls: record_layer().map(|_| unverified()),
            source: None,
            receive_buffer: None,
            patience: PATIENCE,
        }
    }

    /// Another path, with its query.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Sets a header, in place of the one of that name if there is one.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Leaves a header out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// Asks for subprotocols, comma-separated.
    #[must_use]
    pub fn subprotocol(self, names: &str) -> Self {
        self.header("Sec-WebSocket-Protocol", names)
    }

    /// Sends these bytes in place of the whole HTTP request.
    #[must_use]
    pub fn head(mut self, bytes: &[u8]) -> Self {
        self.head = Some(bytes.to_vec());
        self
    }

    /// Sends these bytes right behind the HTTP request, before the answer.
    #[must_use]
    pub fn behind(mut self, bytes: &[u8]) -> Self {
        self.behind.extend_from_slice(bytes);
        self
    }

    /// Over TLS with this configuration, such as `Certificates::client`; with any certificate if all is over TLS.
    #[must_use]
    pub fn tls(mut self, config: Arc<ClientConfig>) -> Self {
        self.tls = Some(if record_layer().is_some() { unverified() } else { config });
        self
    }

    /// Over TLS, accepting whatever certificate the server has.
    #[must_use]
    pub fn tls_unverified(self) -> Self {
        self.tls(unverified())
    }

    /// From this local address: each has ports of its own.
    #[must_use]
    pub fn source(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// With a TCP receive buffer of about so many bytes, so that a client which does not read is soon full.
    #[must_use]
    pub fn receive_buffer(mut self, bytes: u32) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// How long each wait may take.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The bytes that are sent.
    pub fn request(&self) -> Vec<u8> {
        let mut request = self.head.clone().unwrap_or_else(|| {
            let mut head = format!("GET {} HTTP/1.1\r\n", self.path);
            for (name, value) in &self.headers {
                write!(head, "{name}: {value}\r\n").expect("a String takes all");
            }
            head.push_str("\r\n");
            head.into_bytes()
        });
        request.extend_from_slice(&self.behind);
        request
    }

    /// Connects and upgrades. Anything but a good 101 is [`Error::Refused`].
    pub async fn open(&self) -> Result<Raw, Error> {
        let (stream, response, rest) = self.exchange().await?;
        let good = response.status() == 101
            && (self.head.is_some() || response.header("sec-websocket-accept") == Some(ACCEPT));
        if !good {
            return Err(Error::Refused(Box::new(response)));
        }
        Ok(Raw::new(stream, response, rest, self.patience))
    }

    /// Connects, sends the request, and reads the head of whatever is answered.
    pub async fn answer(&self) -> Result<Response, Error> {
        self.exchange().await.map(|(_, response, _)| response)
    }

    /// Connects and sends `bytes`, and waits for nothing: a client that never finishes its request, or its TLS
    /// handshake. What is read from it then is read as frames.
    pub async fn unfinished(&self, bytes: &[u8]) -> Result<Raw, Error> {
        let mut stream = self.connect().await?;
        stream.write_all(bytes, self.patience).await?;
        Ok(Raw::new(stream, Response { head: String::new() }, Vec::new(), self.patience))
    }

    async fn exchange(&self) -> Result<(Stream, Response, Vec<u8>), Error> {
        let mut stream = self.connect().await?;
        stream.write_all(&self.request(), self.patience).await?;
        let mut inbound = Vec::new();
        let reading = async {
            loop {
                if let Some(end) = inbound.windows(4).position(|window| window == b"\r\n\r\n") {
                    let rest = inbound.split_off(end + 4);
                    return Ok(rest);
                }
                if inbound.len() > MOST_HEAD_BYTES {
                    return Err(Error::Protocol("an answer whose head does not end".to_owned()));
                }
                match stream.read_some(&mut inbound).await {
                    Ok(0) => return Err(Error::eof("answering the upgrade", &inbound)),
                    Ok(_) => {}
                    Err(source) => return Err(Error::Lost { what: "answering the upgrade", source }),
                }
            }
        };
        let rest = match timeout(self.patience, reading).await {
            Err(_) => return Err(Error::late("an answer to the upgrade", self.patience, &inbound)),
            Ok(rest) => rest?,
        };
        let response = Response { head: String::from_utf8_lossy(&inbound).into_owned() };
        Ok((stream, response, rest))
    }

    async fn connect(&self) -> Result<Stream, Error> {
        let to = self.to;
        match timeout(self.patience, self.connect_untimed()).await {
            Err(_) => Err(Error::Connect { to, source: io::ErrorKind::TimedOut.into() }),
            Ok(connected) => connected.map_err(|source| Error::Connect { to, source }),
        }
    }

    async fn connect_untimed(&self) -> io::Result<Stream> {
        let socket = if self.to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(source) = self.source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let tcp = socket.connect(self.to).await?;
        // Each write is a segment of its own: a test that writes in pieces means it.
        tcp.set_nodelay(true)?;
        let Some(config) = &self.tls else { return Ok(Stream::Plain(tcp)) };
        let name = ServerName::from(self.to.ip());
        let tls = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?;
        Ok(Stream::Tls(Box::new(tls)))
    }
}

/// The head of an HTTP answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    head: String,
}

impl Response {
    /// The status code; 0 when the first line has none.
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// The value of a header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The head as it came.
    pub fn head(&self) -> &str {
        &self.head
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.head.trim_end().replace("\r\n", " | "))
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A TLS client that takes any certificate, but checks that the server holds its key.
fn unverified() -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider speaks TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Arc::new(config)
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
