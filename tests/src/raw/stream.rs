//! The socket, plain or TLS.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::Error;

/// A connected socket.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Waits for bytes and adds them to `out`; 0 at the end of the stream. Holds no buffer while it waits.
    pub(super) async fn read_some(&mut self, out: &mut Vec<u8>) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read_some(cx, out)).await
    }

    fn poll_read_some(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let mut scratch = [0; 16 * 1024];
        let mut buffer = ReadBuf::new(&mut scratch);
        let read = match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, &mut buffer),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_read(cx, &mut buffer),
        };
        match ready!(read) {
            Ok(()) => {}
            // TLS without a close_notify: to a test, the end of TCP all the same.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
            Err(error) => return Poll::Ready(Err(error)),
        }
        out.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    pub(super) async fn write_all(&mut self, bytes: &[u8], within: Duration) -> Result<(), Error> {
        let write = async {
            match self {
                Self::Plain(tcp) => tcp.write_all(bytes).await,
                Self::Tls(tls) => {
                    tls.write_all(bytes).await?;
                    tls.flush().await
                }
            }
        };
        match timeout(within, write).await {
            Err(_) => Err(Error::late(format!("the server takes {} bytes", bytes.len()), within, &[])),
            Ok(written) => written.map_err(|source| Error::Lost { what: "writing", source }),
        }
    }

    pub(super) async fn finish(&mut self, within: Duration) -> Result<(), Error> {
        let shutdown = poll_fn(|cx| match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
        });
        match timeout(within, shutdown).await {
            Err(_) => Err(Error::late("the end of the sending half", within, &[])),
            Ok(done) => done.map_err(|source| Error::Lost { what: "ending the sending half", source }),
        }
    }
}

/// Whether the peer ended the connection by force.
pub(super) fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
