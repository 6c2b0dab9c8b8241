//! One client that wants updates, by whichever way: its socket, what it waits for, what it has seen.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;

use super::Way;
use super::http::{self, Headers};
use crate::clock;
use crate::frame::{self, Kind};
use crate::latency::Latencies;
use crate::ledger::Ledger;
use crate::speech::upgrade::upgraded;
use crate::target::Protocol;

/// What all clients of a run share.
pub(super) struct Shared {
    pub(super) way: Way,
    pub(super) address: SocketAddr,
    /// For `Host`.
    pub(super) authority: String,
    /// Of the WebSocket.
    pub(super) path: String,
    pub(super) headers: Headers,
    pub(super) count: Count,
    pub(super) latencies: Latencies,
    /// The first refusal of a publication.
    pub(super) refused: Option<String>,
}

/// What went over the sockets of all clients. The publisher's is not in it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) requests: u64,
    pub(super) updates: u64,
    /// Connections that the server closed between two requests.
    pub(super) reconnects: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waiting for the 101.
    Upgrading,
    /// Waiting for so many replies.
    Joining(u8),
    /// Waiting for the first answer, which says where the channel is.
    Asking,
    Ready,
}

pub(super) struct Client {
    stream: TcpStream,
    phase: Phase,
    /// Whether it publishes instead of listening.
    publishes: bool,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    since: u64,
    /// The request that is under way, to be said again if the server closed meanwhile.
    asked: Option<String>,
    pub(super) ledger: Ledger,
}

/// What reading led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Nothing,
    /// The server closed between two requests, as HTTP lets it.
    Closed,
}

impl Client {
    /// Begins to connect, and says the first thing.
    pub(super) fn new(shared: &mut Shared, publishes: bool) -> io::Result<Self> {
        let stream = TcpStream::connect(shared.address)?;
        stream.set_nodelay(true)?;
        let mut client = Self {
            stream,
            phase: Phase::Upgrading,
            publishes,
            unread: Vec::new(),
            unsent: Vec::new(),
            since: 0,
            asked: None,
            ledger: Ledger::default(),
        };
        if publishes || shared.way == Way::WebSocket {
            let text = http::upgrade(&shared.path, &shared.authority, shared.headers);
            client.unsent.extend_from_slice(text.as_bytes());
        } else {
            client.phase = Phase::Asking;
            client.request("/poll", None, shared);
        }
        Ok(client)
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    pub(super) fn ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Whether an answer is waited for.
    pub(super) fn waits(&self) -> bool {
        self.asked.is_some()
    }

    /// A new socket for the old one, on which what was asked is said again.
    pub(super) fn again(&mut self, shared: &mut Shared) -> io::Result<()> {
        self.stream = TcpStream::connect(shared.address)?;
        self.stream.set_nodelay(true)?;
        self.unread = Vec::new();
        self.unsent = self.asked.clone().unwrap_or_default().into_bytes();
        shared.count.reconnects += 1;
        Ok(())
    }

    /// Asks for what came since.
    pub(super) fn ask(&mut self, shared: &mut Shared) -> Result<(), String> {
        let path = if shared.way == Way::LongPolling { "/wait" } else { "/poll" };
        self.request(path, Some(self.since), shared);
        self.send(shared)
    }

    fn request(&mut self, path: &str, since: Option<u64>, shared: &mut Shared) {
        let text = http::request(path, &shared.authority, since, shared.headers);
        self.unsent.extend_from_slice(text.as_bytes());
        self.asked = Some(text);
        shared.count.requests += 1;
    }

    /// Publishes an update.
    pub(super) fn publish(&mut self, number: u32, size: usize, shared: &mut Shared) -> Result<(), String> {
        let data = http::update(number, clock::now(), size);
        let id = number.saturating_add(16);
        let command =
            format!("{{\"id\":{id},\"publish\":{{\"channel\":\"{}\",\"data\":{data}}}}}", super::CHANNEL);
        frame::write(Kind::Text, command.as_bytes(), &mut self.unsent);
        self.send(shared)
    }

    /// Sends what waits, as far as the socket takes it.
    pub(super) fn send(&mut self, shared: &mut Shared) -> Result<(), String> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match self.stream.write(&self.unsent[sent..]) {
                Ok(count) => sent += count,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) =>
                {
                    break;
                }
                Err(error) => return Err(format!("failed to write: {error}")),
            }
        }
        self.unsent.drain(..sent);
        if !self.publishes {
            shared.count.sent += sent as u64;
        }
        Ok(())
    }

    /// Reads all that is there.
    pub(super) fn read(&mut self, scratch: &mut [u8], shared: &mut Shared) -> Result<Outcome, String> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) if shared.way != Way::WebSocket && !self.publishes && self.unread.is_empty() => {
                    return Ok(Outcome::Closed);
                }
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(count) => {
                    if !self.publishes {
                        shared.count.received += count as u64;
                    }
                    self.unread.extend_from_slice(&scratch[..count]);
                    let bytes = std::mem::take(&mut self.unread);
                    let used = self.understand(&bytes, shared)?;
                    self.unread = bytes[used..].to_vec();
                }
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) =>
                {
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("failed to read: {error}")),
            }
        }
        self.send(shared)?;
        Ok(Outcome::Nothing)
    }

    /// Returns how many bytes it used.
    fn understand(&mut self, bytes: &[u8], shared: &mut Shared) -> Result<usize, String> {
        if !self.publishes && shared.way != Way::WebSocket {
            let Some(answer) = http::answer(bytes) else { return Ok(0) };
            let answer = answer?;
            self.asked = None;
            self.since = http::last(answer.body).ok_or("the answer does not say where the channel is")?;
            if self.phase == Phase::Asking {
                // What was there before is no update.
                self.phase = Phase::Ready;
                return Ok(answer.length);
            }
            self.take(answer.body, shared);
            if shared.way == Way::LongPolling {
                self.request("/wait", Some(self.since), shared);
            }
            return Ok(answer.length);
        }
        let mut used = 0;
        if self.phase == Phase::Upgrading {
            let Some(head) = upgraded(bytes, Protocol::CentrifugeJson) else { return Ok(0) };
            used = head.map_err(|refusal| refusal.why)?;
            let connect = r#"{"id":1,"connect":{"name":"tidegate-bench"}}"#;
            let subscribe = format!("{{\"id\":2,\"subscribe\":{{\"channel\":\"{}\"}}}}", super::CHANNEL);
            let join = if self.publishes { connect.to_owned() } else { format!("{connect}\n{subscribe}") };
            frame::write(Kind::Text, join.as_bytes(), &mut self.unsent);
            self.phase = Phase::Joining(if self.publishes { 1 } else { 2 });
        }
        while let Some(frame) = frame::next(&bytes[used..]).map_err(|fault| fault.to_string())? {
            used += frame.length;
            match frame.kind {
                Kind::Text => self.hear(frame.payload, shared)?,
                Kind::Ping => frame::write(Kind::Pong, frame.payload, &mut self.unsent),
                Kind::Close => return Err("the server closed a connection".into()),
                Kind::Binary | Kind::Pong => {}
            }
        }
        Ok(used)
    }

    /// One message: one or more lines.
    fn hear(&mut self, message: &[u8], shared: &mut Shared) -> Result<(), String> {
        for line in message.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if line == b"{}" {
                frame::write(Kind::Text, b"{}", &mut self.unsent);
            } else if line.starts_with(b"{\"push\"") {
                self.take(line, shared);
            } else if memchr::memmem::find(line, b"\"error\":").is_some() {
                let text = String::from_utf8_lossy(line).into_owned();
                if !self.publishes {
                    return Err(format!("the server answered {text}"));
                }
                shared.refused.get_or_insert(text);
            } else if let Phase::Joining(replies) = self.phase {
                self.phase = if replies > 1 { Phase::Joining(replies - 1) } else { Phase::Ready };
            }
        }
        Ok(())
    }

    fn take(&mut self, text: &[u8], shared: &mut Shared) {
        let now = clock::now();
        for (number, at) in http::updates(text) {
            self.ledger.came(number);
            shared.latencies.record(now.saturating_sub(at));
            shared.count.updates += 1;
        }
    }
}
