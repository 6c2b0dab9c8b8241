//! An accepted socket before HTTP: waits for its turn, shakes hands for TLS, or is sent away.
//!
//! Until its turn a connection is a bare socket: no TLS state, no buffers of HTTP. Who sends nothing never gets a turn.
//!
//! Not here: the WebSocket handshake and the permits ([`super::handshake`]), in which order turns come
//! ([`super::turnstile`]).

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_rt::net::TcpStream;
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::time::{sleep_until, timeout, timeout_at};

use super::admission::Admission;
use super::handshakes::Handshakes;
use super::stream::Stream;
use super::tls::TlsStream;
use super::turnstile::{Refused, Turnstile};
use crate::metrics::{Handshake, Metrics, Rejection};
use crate::settings::Limits;

/// How long a client that was sent away may take to read its answer.
const LINGER: Duration = Duration::from_secs(1);

/// Receives the sockets of all workers.
pub(super) struct Reception {
    admission: Arc<Admission>,
    tls: Option<Arc<ServerConfig>>,
    handshake_timeout: Duration,
    write_timeout: Duration,
    handshakes: Handshakes,
    metrics: Arc<Metrics>,
}

impl Reception {
    pub(super) fn new(
        admission: Arc<Admission>,
        limits: &Limits,
        tls: Option<Arc<ServerConfig>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            admission,
            tls,
            handshake_timeout: limits.handshake_timeout,
            write_timeout: limits.write_timeout,
            handshakes: Handshakes::new(limits.max_handshakes, limits.handshake_timeout / 4),
            metrics,
        }
    }

    /// Makes an accepted socket ready for HTTP.
    pub(super) async fn receive(&self, socket: TcpStream, turnstile: &Turnstile) -> Option<Stream> {
        let accepted = Instant::now();
        // Small frames must not wait for each other; and the kernel gives up a peer that stopped reading.
        let options = SockRef::from(&socket);
        let set = options.set_tcp_nodelay(true);
        #[cfg(target_os = "linux")]
        let set = set.and_then(|()| options.set_tcp_user_timeout(Some(self.write_timeout)));
        if set.is_err() {
            // The peer has gone already.
            return None;
        }
        match timeout_at((accepted + self.handshake_timeout).into(), socket.readable()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            Err(_) => {
                self.metrics.rejected(Rejection::HandshakeTimeout);
                return None;
            }
        }
        // Who finds the node full or leaving gets its answer without waiting for it.
        if self.admission.has_room() {
            if let Err(refused) = turnstile.turn().await {
                self.metrics.rejected(Rejection::AcceptRate);
                self.send_away(socket, &refused).await;
                return None;
            }
            if gone(&socket).await {
                turnstile.pass();
                return None;
            }
        }
        // The time it was made to wait is not the client's.
        let deadline = Instant::now() + self.handshake_timeout;
        match &self.tls {
            None => {
                Some(Stream::plain(socket, accepted, sleep_until(deadline.into()), Arc::clone(&self.metrics)))
            }
            Some(config) => self.shake_hands(socket, accepted, deadline, config).await,
        }
    }

    async fn shake_hands(
        &self,
        socket: TcpStream,
        accepted: Instant,
        deadline: Instant,
        config: &Arc<ServerConfig>,
    ) -> Option<Stream> {
        let peer = socket.peer_addr().ok()?;
        let Ok(mut place) = timeout_at(deadline.into(), self.handshakes.begin(peer.ip())).await else {
            self.metrics.rejected(Rejection::Handshakes);
            return None;
        };
        let handshake = Box::pin(TlsStream::accept(socket, Arc::clone(config)));
        let shaken = tokio::select! {
            biased;
            shaken = timeout_at(deadline.into(), handshake) => shaken,
            _ = &mut place.taken => {
                self.metrics.rejected(Rejection::Handshakes);
                return None;
            }
        };
        match shaken {
            Ok(Ok(stream)) => {
                let kind = if stream.resumed() { Handshake::Resumed } else { Handshake::Full };
                self.metrics.tls_handshake(kind);
                let deadline = sleep_until(deadline.into());
                Some(Stream::tls(stream, accepted, deadline, Arc::clone(&self.metrics)))
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                self.metrics.rejected(Rejection::Tls);
                None
            }
            Err(_) => {
                self.metrics.rejected(Rejection::HandshakeTimeout);
                None
            }
        }
    }

    /// Tells a client when to come back, by two system calls and no HTTP. Over TLS it is not told: the answer would cost
    /// the very handshake that it is sent away to save.
    async fn send_away(&self, mut socket: TcpStream, refused: &Refused) {
        if self.tls.is_some() {
            return;
        }
        let text = "too many clients connect at once: try again later\n";
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: {}\r\ncontent-type: text/plain; charset=utf-8\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{text}",
            refused.retry_after,
            text.len(),
        );
        let goodbye = async {
            // What it sent is read first and to the end: closing over unread bytes would reset the connection, and could
            // take the answer with it.
            drain(&socket)?;
            socket.write_all(answer.as_bytes()).await?;
            socket.shutdown().await?;
            while drain(&socket)? {
                socket.readable().await?;
            }
            Ok::<_, std::io::Error>(())
        };
        // Whether it heard us is its own affair.
        let _ = timeout(LINGER, goodbye).await;
    }
}

/// Reads what is there and forgets it; says whether more may come.
fn drain(socket: &TcpStream) -> std::io::Result<bool> {
    let mut scratch = [0; 2048];
    loop {
        match socket.try_read(&mut scratch) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

/// Whether the client has given up while it waited. The socket is readable, so this does not wait.
async fn gone(socket: &TcpStream) -> bool {
    match socket.ready(Interest::READABLE).await {
        Ok(ready) => ready.is_read_closed(),
        Err(_) => true,
    }
}
