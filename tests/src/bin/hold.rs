//! Holds many idle connections for another test, which so can hold more than one process may have descriptors.
//!
//! Usage: `hold ADDRESS COUNT CHANNELS PREFIX`. Opens COUNT plain connections, the n-th subscribed to the channel
//! PREFIX followed by n modulo CHANNELS. Says `open` when every subscription is answered. Then obeys lines on stdin:
//! `ask BYTES` sends a command of that size on each connection, in two halves, and reads its answer; `hear COUNT` reads
//! that many publications on each. Ends with its stdin.
//!
//! It speaks as little WebSocket as that needs; what a node must do with the rest is tested elsewhere.

use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

struct Held {
    socket: TcpStream,
    /// What was read and not used.
    rest: Vec<u8>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, count, channels, prefix] = arguments.as_slice() else {
        return Err("usage: hold ADDRESS COUNT CHANNELS PREFIX".into());
    };
    let (address, count, channels): (SocketAddr, usize, usize) =
        (address.parse()?, count.parse()?, channels.parse()?);
    let mut held = Vec::with_capacity(count);
    for n in 0..count {
        held.push(Held::open(address, &format!("{prefix}{}", n % channels))?);
    }
    say("open")?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        match line.split_once(' ') {
            Some(("ask", bytes)) => {
                let bytes = bytes.parse()?;
                for one in &mut held {
                    one.ask(bytes)?;
                }
            }
            Some(("hear", count)) => {
                let count = count.parse()?;
                for one in &mut held {
                    one.hear(count)?;
                }
            }
            _ => return Err(format!("no such command: {line}").into()),
        }
        say("done")?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what the test waits for")]
fn say(word: &str) -> io::Result<()> {
    println!("{word}");
    io::stdout().flush()
}

impl Held {
    fn open(address: SocketAddr, channel: &str) -> io::Result<Self> {
        let socket = connect(address)?;
        // Ended by a reset: thousands of ports would else be taken for a minute after this process.
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        // Halves of a message must not wait for each other.
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut held = Self { socket, rest: Vec::new() };
        let request = format!(
            "GET /connection/websocket HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        held.socket.write_all(request.as_bytes())?;
        let head = held.until(b"\r\n\r\n")?;
        if !head.starts_with(b"HTTP/1.1 101 ") {
            return Err(io::Error::other(String::from_utf8_lossy(&head).into_owned()));
        }
        let commands = format!(
            "{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"}}}}"
        );
        held.socket.write_all(&frame(commands.as_bytes()))?;
        while !held.message()?.contains("\"id\":2,\"subscribe\"") {}
        Ok(held)
    }

    /// Sends a command of about `bytes` and reads its answer.
    fn ask(&mut self, bytes: usize) -> io::Result<()> {
        let command = format!("{{\"id\":3,\"rpc\":{{\"method\":\"x\",\"data\":\"{}\"}}}}", "x".repeat(bytes));
        let frame = frame(command.as_bytes());
        let (first, second) = frame.split_at(frame.len() / 2);
        self.socket.write_all(first)?;
        self.socket.write_all(second)?;
        while !self.message()?.contains("\"id\":3,") {}
        Ok(())
    }

    fn hear(&mut self, count: usize) -> io::Result<()> {
        let mut heard = 0;
        while heard < count {
            heard += self.message()?.matches("\"pub\":").count();
        }
        Ok(())
    }

    /// The next text message.
    fn message(&mut self) -> io::Result<String> {
        let head = self.exactly(2)?;
        let length = match head[1] & 0x7f {
            126 => usize::from(u16::from_be_bytes(array(&self.exactly(2)?)?)),
            127 => return Err(io::Error::other("a message of more than 64 KiB")),
            short => usize::from(short),
        };
        let payload = self.exactly(length)?;
        match head[0] & 0x0f {
            1 => Ok(String::from_utf8_lossy(&payload).into_owned()),
            opcode => Err(io::Error::other(format!("opcode {opcode}: {payload:?}"))),
        }
    }

    fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.rest.windows(end.len()).position(|window| window == end) {
                return self.exactly(at + end.len());
            }
            self.more()?;
        }
    }

    fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.rest.len() < length {
            self.more()?;
        }
        let rest = self.rest.split_off(length);
        Ok(std::mem::replace(&mut self.rest, rest))
    }

    fn more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.socket.read(&mut buffer)? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            n => {
                self.rest.extend_from_slice(&buffer[..n]);
                Ok(())
            }
        }
    }
}

/// Connects; while every port is taken, for instance by what ended a moment ago, tries again.
fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && Instant::now() < deadline => {
                tidegate_tests::deadline::pause(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

/// A masked text frame; the mask is zero, so the payload stays as it is.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(payload.len()) {
        Ok(length @ ..126) => frame.push(0x80 | length.to_be_bytes()[1]),
        Ok(length) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

fn array(bytes: &[u8]) -> io::Result<[u8; 2]> {
    bytes.try_into().map_err(io::Error::other)
}
