//! How long a node with 100,000 channels is deaf after it lost its connection to Redis.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::super::bench::{Aimed, Bench, Key, Who};
use super::super::redis_server::RedisServer;
use crate::clock;
use crate::error::Error;
use crate::frame::{self, Kind};
use crate::process::{Server, to_f64};
use crate::speech::upgrade::upgraded;
use crate::target::Protocol;

/// Subscriptions of a connection: below what a node allows by default.
const EACH: u32 = 100;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(in crate::suite) fn run(bench: &mut Bench) -> Result<(), Error> {
    let redis = RedisServer::start()?;
    let settings = ["relay.kind=redis".to_owned(), format!("relay.redis.url={}", redis.url())];
    let aimed = bench.server(Who::Tidegate, Key::Plain, &settings)?;
    // Scaled by connections, as each has its hundred.
    let connections = bench.scaled(1_000.0, 10.0) as u32;
    let server = Server::new(&[aimed.server.pid()])?;
    server.calm()?;
    let empty = server.memory()?.anonymous;
    bench.shown.phase("resubscribe: subscribing");
    let mut held = Vec::new();
    for number in 0..connections {
        held.push(client(&aimed, number).map_err(Error::io("subscribe to many channels"))?);
    }
    // The node may hear some channels of its own beside.
    let all = f64::from(connections * EACH);
    wait("subscribing", || Ok(redis.channels()? >= all))?;
    server.calm()?;
    let grown = to_f64(server.memory()?.anonymous.saturating_sub(empty));
    let own = bench.seen(Who::Tidegate, "idle.plain").unwrap_or(0.0) * f64::from(connections);
    let further = f64::from(connections * (EACH - 1));
    let origin =
        format!("resubscribe: {EACH} subscriptions of each of {connections}, to channels of their own");
    bench.coefficient("subscription_bytes", ((grown - own) / further).max(1.0), "B", &origin);
    let before = redis.channels()?;
    bench.shown.say("resubscribe: Redis ends the node's connection");
    redis.end_subscribers()?;
    let began = Instant::now();
    wait("subscribing again", || Ok(redis.channels()? >= before))?;
    bench.see(Who::Tidegate, "redis.resubscribe", began.elapsed().as_secs_f64());
    drop(held);
    Ok(())
}

fn wait(what: &'static str, mut there: impl FnMut() -> Result<bool, Error>) -> Result<(), Error> {
    let began = Instant::now();
    while !there()? {
        if began.elapsed() > PATIENCE {
            return Err(Error::Stalled { what, seconds: PATIENCE.as_secs() });
        }
        clock::pass(Duration::from_millis(2));
    }
    Ok(())
}

/// A connection with its subscriptions, each to a channel that no other has.
fn client(aimed: &Aimed, number: u32) -> std::io::Result<TcpStream> {
    let wrong = |why: &str| std::io::Error::other(why.to_owned());
    let address = aimed.server.address();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let (mut bytes, mut scratch) = (Vec::new(), [0; 16 * 1_024]);
    let mut read = |stream: &mut TcpStream, bytes: &mut Vec<u8>| match stream.read(&mut scratch)? {
        0 => Err(wrong("the node closed the connection")),
        count => {
            bytes.extend_from_slice(&scratch[..count]);
            Ok(())
        }
    };
    let head = loop {
        if let Some(head) = upgraded(&bytes, Protocol::CentrifugeJson) {
            break head.map_err(|why| wrong(&format!("{why:?}")))?;
        }
        read(&mut stream, &mut bytes)?;
    };
    bytes.drain(..head);
    let mut commands = String::from("{\"id\":1,\"connect\":{}}");
    for channel in 0..EACH {
        let id = channel + 2;
        commands.push_str(&format!(
            "\n{{\"id\":{id},\"subscribe\":{{\"channel\":\"many-{number}-{channel}\"}}}}"
        ));
    }
    let mut out = Vec::new();
    frame::write(Kind::Text, commands.as_bytes(), &mut out);
    stream.write_all(&out)?;
    let mut replies = 0;
    while replies <= EACH {
        while let Some(frame) = frame::next(&bytes).map_err(|fault| wrong(&fault.to_string()))? {
            for line in frame.payload.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{\"id\""))
            {
                if memchr::memmem::find(line, b"\"error\":").is_some() {
                    return Err(wrong(&String::from_utf8_lossy(line)));
                }
                replies += 1;
            }
            let length = frame.length;
            bytes.drain(..length);
        }
        if replies <= EACH {
            read(&mut stream, &mut bytes)?;
        }
    }
    Ok(stream)
}
