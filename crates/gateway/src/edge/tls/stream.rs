//! A TLS stream under tokio, for the handshake and the HTTP phase of a connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_rt::net::TcpStream;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Records as _;
use super::engine::{Engine, MAX_PLAINTEXT};

/// How much is read from the socket at once while a connection is still HTTP.
const READ_SIZE: usize = 4 * 1024;

/// How much of what waits already shares a write with a record.
const SHARED: usize = 2 * 1024;

/// A TLS stream. Decrypted bytes that nobody asked for yet wait in `plaintext`.
pub(crate) struct TlsStream {
    socket: TcpStream,
    engine: Box<Engine>,
    plaintext: Vec<u8>,
    taken: usize,
    eof: bool,
    closing: bool,
}

impl TlsStream {
    /// Shakes hands. The caller gives the deadline.
    pub(crate) async fn accept(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let engine = Engine::new(config).map_err(io::Error::other)?;
        let mut stream = Self {
            socket,
            engine: Box::new(engine),
            plaintext: Vec::new(),
            taken: 0,
            eof: false,
            closing: false,
        };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// Whether the session was resumed by a ticket.
    pub(crate) fn resumed(&self) -> bool {
        self.engine.resumed()
    }

    /// Gives up the parts: the socket, the TLS state and the decrypted bytes not read yet.
    pub(crate) fn into_parts(self) -> (TcpStream, Box<Engine>, Vec<u8>) {
        (self.socket, self.engine, self.plaintext[self.taken..].to_vec())
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // Tickets go out with the answer to the request: one segment and one system call less.
            if self.engine.only_tickets() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_send(cx))?;
            if !self.engine.handshaking() {
                return Poll::Ready(Ok(()));
            }
            if self.eof {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            ready!(self.poll_receive(cx))?;
        }
    }

    /// Sends what the engine has to send.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.engine.outgoing().is_empty() {
            let size = ready!(Pin::new(&mut self.socket).poll_write(cx, self.engine.outgoing()))?;
            if size == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.engine.advance(size);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once from the socket.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; READ_SIZE];
        let mut buffer = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            self.eof = true;
            return Poll::Ready(Ok(()));
        }
        let received = self.engine.receive(buffer.filled_mut(), &mut self.plaintext);
        if received.is_err() {
            // The alert goes out if the socket takes it at once; the connection ends either way.
            let _ = self.poll_send(cx)?;
        }
        Poll::Ready(received)
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.taken == this.plaintext.len() {
            this.plaintext.clear();
            this.taken = 0;
            if this.eof || this.engine.peer_closed() {
                return Poll::Ready(Ok(()));
            }
            // What TLS itself has to answer, to a key update for instance, goes out with the answer to the request.
            ready!(this.poll_receive(cx))?;
        }
        let size = into.remaining().min(this.plaintext.len() - this.taken);
        into.put_slice(&this.plaintext[this.taken..this.taken + size]);
        this.taken += size;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // One record at a time, so that a peer which does not read holds one record here and no more. A little that
        // waits, such as tickets, shares the write.
        if this.engine.outgoing().len() > SHARED {
            ready!(this.poll_send(cx))?;
        }
        let size = bytes.len().min(MAX_PLAINTEXT);
        this.engine.send(&bytes[..size])?;
        let _ = this.poll_send(cx)?;
        Poll::Ready(Ok(size))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closing {
            this.closing = true;
            this.engine.send_close()?;
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}
