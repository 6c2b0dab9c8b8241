//! A WebSocket client which does what it is told: every bit of every frame, also the wrong ones.
//!
//! For what SDKs hide: fragments and interleaved frames, broken frames, bytes pipelined behind the handshake, half-open
//! and slow peers, codes and how TCP ended. Every wait has a deadline, and the error says what was awaited and what
//! came instead. A connection at rest holds a socket and the head of its handshake, so one process may hold thousands.
//!
//! Not here: what a well-behaved client does (`sdk`), compression, checking what the server sends beyond its framing.
//!
//! ```no_run
//! # async fn shown() -> Result<(), tidegate_tests::raw::Error> {
//! use tidegate_tests::raw::{Frame, Upgrade};
//!
//! let mut client = Upgrade::at(([127, 0, 0, 1], 8000).into()).open().await?;
//! client.connect_command().await?;
//! client.subscribe("news").await?;
//! client.send(&Frame::open_text("not")).await?;
//! client.send(&Frame { reserved: 4, ..Frame::continuation(" good") }).await?;
//! assert_eq!(client.end().await?.code(), Some(1002));
//! # Ok(())
//! # }
//! ```

mod error;
mod frame;
mod json;
mod stream;
mod upgrade;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use error::Error;
pub use frame::{Frame, Received};
pub use json::Publication;
pub use upgrade::{Response, Upgrade};

use stream::Stream;

/// Frames from the server may not be larger than this; a test that needs more is a mistake.
const MOST_BYTES: usize = 64 << 20;

/// An upgraded connection.
#[derive(Debug)]
pub struct Raw {
    stream: Stream,
    response: Response,
    /// What was read and is not used yet.
    inbound: Vec<u8>,
    patience: Duration,
    json: json::State,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The payload of the Close frame, when one came: its code, when it had one, and its reason.
    pub close: Option<Option<(u16, String)>>,
    /// Whether TCP ended in order, rather than by a reset.
    pub orderly: bool,
}

impl End {
    /// The code of the Close frame.
    pub fn code(&self) -> Option<u16> {
        self.close.as_ref()?.as_ref().map(|(code, _)| *code)
    }

    /// The reason in the Close frame.
    pub fn reason(&self) -> Option<&str> {
        self.close.as_ref()?.as_ref().map(|(_, reason)| reason.as_str())
    }
}

impl Raw {
    fn new(stream: Stream, response: Response, inbound: Vec<u8>, patience: Duration) -> Self {
        Self { stream, response, inbound, patience, json: json::State::default() }
    }

    /// What the server answered to the upgrade.
    pub fn response(&self) -> &Response {
        &self.response
    }

    /// The client's own address.
    pub fn local_addr(&self) -> Result<std::net::SocketAddr, Error> {
        self.stream.tcp().local_addr().map_err(|e| Error::io("read the own address", e))
    }

    /// How long each wait may take from now on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Writes bytes as they are: part of a frame, several frames, or none.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.stream.write_all(bytes, self.patience).await
    }

    /// Sends one frame.
    pub async fn send(&mut self, frame: &Frame) -> Result<(), Error> {
        self.write(&frame.bytes()).await
    }

    /// Sends a whole text message.
    pub async fn text(&mut self, text: &str) -> Result<(), Error> {
        self.send(&Frame::text(text)).await
    }

    /// Sends a whole binary message.
    pub async fn binary(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.send(&Frame::binary(payload)).await
    }

    /// Waits for the next frame, of whatever kind. Nothing is answered.
    pub async fn frame(&mut self) -> Result<Received, Error> {
        self.frame_within("a frame", self.patience).await
    }

    async fn frame_within(&mut self, what: &'static str, within: Duration) -> Result<Received, Error> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            if let Some((frame, size)) = frame::parse(&self.inbound, MOST_BYTES)? {
                self.use_up(size);
                return Ok(frame);
            }
            match tokio::time::timeout_at(deadline, self.stream.read_some(&mut self.inbound)).await {
                Err(_) => return Err(Error::late(what, within, &self.inbound)),
                Ok(Err(source)) => return Err(Error::Lost { what, source }),
                Ok(Ok(0)) => return Err(Error::eof(what, &self.inbound)),
                Ok(Ok(_)) => {}
            }
        }
    }

    /// Forgets the first bytes read, and gives the buffer back when it is empty.
    fn use_up(&mut self, size: usize) {
        if size == self.inbound.len() {
            self.inbound = Vec::new();
        } else {
            self.inbound.drain(..size);
        }
    }

    /// Holds that nothing at all arrives for the whole of `during`: for promises that something is not sent.
    pub async fn silent(&mut self, during: Duration) -> Result<(), Error> {
        if self.inbound.is_empty() {
            let read = self.stream.read_some(&mut self.inbound);
            match tokio::time::timeout(during, read).await {
                Err(_) => return Ok(()),
                Ok(Err(source)) => return Err(Error::Lost { what: "silence", source }),
                Ok(Ok(0)) => return Err(Error::eof("silence", &self.inbound)),
                Ok(Ok(_)) => {}
            }
        }
        Err(Error::NotSilent { heard: error::excerpt(&self.inbound) })
    }

    /// Reads to the end of the connection: what Close frame came, and how TCP ended. Other frames on the way are
    /// dropped. Nothing is answered, so a server that waits for an answer must give up by itself.
    pub async fn end(&mut self) -> Result<End, Error> {
        let deadline = tokio::time::Instant::now() + self.patience;
        let mut close = None;
        loop {
            while let Some((frame, size)) = frame::parse(&self.inbound, MOST_BYTES)? {
                self.use_up(size);
                if frame.opcode == frame::CLOSE {
                    close = Some(frame.close()?);
                }
            }
            match tokio::time::timeout_at(deadline, self.stream.read_some(&mut self.inbound)).await {
                Err(_) if close.is_some() => {
                    return Err(Error::late(
                        "the end of TCP after the Close frame",
                        self.patience,
                        &self.inbound,
                    ));
                }
                Err(_) => {
                    return Err(Error::late("the end of the connection", self.patience, &self.inbound));
                }
                Ok(Err(source)) if stream::is_reset(&source) => return Ok(End { close, orderly: false }),
                Ok(Err(source)) => return Err(Error::Lost { what: "the end of the connection", source }),
                Ok(Ok(0)) => return Ok(End { close, orderly: true }),
                Ok(Ok(_)) => {}
            }
        }
    }

    /// Closes in order: sends a Close frame and reads to the end, as [`Raw::end`] does.
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<End, Error> {
        self.send(&Frame::close(code, reason)).await?;
        self.end().await
    }

    /// Ends the sending half only: TCP's FIN, under TLS after a close_notify.
    pub async fn finish(&mut self) -> Result<(), Error> {
        self.stream.finish(self.patience).await
    }

    /// Ends the connection by a TCP reset, as a crashed peer does.
    pub fn reset(self) -> Result<(), Error> {
        self.stream.tcp().set_zero_linger().map_err(|e| Error::io("prepare a reset", e))
    }
}
