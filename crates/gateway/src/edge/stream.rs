//! A connection while it is still HTTP: plain or TLS, with one deadline over TLS handshake and request head.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_rt::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::tls::TlsStream;
use super::transport::Transport;
use crate::metrics::{Metrics, Rejection};

/// What actix-http reads from and writes to.
pub(super) struct Stream {
    kind: Kind,
    /// When HTTP must be over: the upgrade made, or one request answered and the connection closed. Nothing else bounds
    /// a connection in this phase.
    deadline: Pin<Box<Sleep>>,
    /// Whether something was answered.
    answered: bool,
    /// When the socket was accepted, TLS handshake not included yet.
    accepted: Instant,
    metrics: Arc<Metrics>,
}

enum Kind {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl Stream {
    pub(super) fn plain(
        socket: TcpStream,
        accepted: Instant,
        deadline: Sleep,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { kind: Kind::Plain(socket), deadline: Box::pin(deadline), answered: false, accepted, metrics }
    }

    pub(super) fn tls(stream: TlsStream, accepted: Instant, deadline: Sleep, metrics: Arc<Metrics>) -> Self {
        Self {
            kind: Kind::Tls(Box::new(stream)),
            deadline: Box::pin(deadline),
            answered: false,
            accepted,
            metrics,
        }
    }

    /// Fails once the deadline has passed; wakes the connection's task when it does.
    fn in_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.deadline.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        if !std::mem::replace(&mut self.answered, true) {
            self.metrics.rejected(Rejection::HandshakeTimeout);
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Gives the socket up to the worker's poller, with the bytes that were decrypted but not read.
    pub(super) fn into_transport(self) -> io::Result<(Transport, Vec<u8>)> {
        self.metrics.handshake_seconds.observe(self.accepted.elapsed().as_secs_f64());
        let to_mio =
            |socket: TcpStream| Ok::<_, io::Error>(mio::net::TcpStream::from_std(socket.into_std()?));
        match self.kind {
            Kind::Plain(socket) => Ok((Transport::Plain(to_mio(socket)?), Vec::new())),
            Kind::Tls(stream) => {
                let (socket, engine, plaintext) = stream.into_parts();
                let socket = to_mio(socket)?;
                let transport = match engine.compact() {
                    Ok(compact) => Transport::Compact(socket, Box::new(compact?)),
                    Err(engine) => Transport::Tls(socket, engine),
                };
                Ok((transport, plaintext))
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = match &mut this.kind {
            Kind::Plain(socket) => Pin::new(socket).poll_read(cx, into),
            Kind::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, into),
        };
        // A head that trickles in is as late as one that does not come.
        this.in_time(cx)?;
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.in_time(cx)?;
        this.answered = true;
        match &mut this.kind {
            Kind::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Kind::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.in_time(cx)?;
        match &mut this.kind {
            Kind::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Kind::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().kind {
            Kind::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Kind::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
