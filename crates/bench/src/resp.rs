//! Publishing through Redis: `PUBLISH` in batches over one connection, with as much of RESP2 as that needs.
//!
//! It waits for no answer before it writes on; a thread of its own reads them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use clap::Args;
use url::Url;

use crate::clock;
use crate::error::Error;

/// Where publications go.
#[derive(Debug, Clone, Default, Args)]
#[group(skip)]
pub(crate) struct Endpoint {
    /// Publish through this Redis, as a backend would: redis://[USER:PASSWORD@]HOST:PORT
    #[arg(long, value_name = "URL", conflicts_with = "api")]
    pub(crate) redis: Option<String>,
    /// What the names of its channels begin with
    #[arg(long, value_name = "PREFIX", default_value = "tg")]
    pub(crate) prefix: String,
}

impl Endpoint {
    /// None if there is none. Errors: what was typed is no address of a Redis.
    fn url(&self) -> Result<Option<Url>, Error> {
        let Some(address) = &self.redis else { return Ok(None) };
        let url = Url::parse(address).map_err(|error| wrong(&error.to_string()))?;
        if url.scheme() == "redis" { Ok(Some(url)) } else { Err(wrong("the scheme is not redis")) }
    }

    /// How often Redis has run each command so far, those of scripts included; its own name for them.
    pub(crate) fn commands(&self) -> Result<BTreeMap<String, u64>, Error> {
        let Some(url) = self.url()? else { return Ok(BTreeMap::new()) };
        let mut stream = connect(&url)?;
        let mut asked = Vec::new();
        let mut answers = 1;
        if let Some(words) = login(&url) {
            command(&words, &mut asked);
            answers += 1;
        }
        command(&["INFO", "commandstats"], &mut asked);
        let ask = || -> std::io::Result<String> {
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(&asked)?;
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            for _ in 0..answers {
                head.clear();
                reader.read_line(&mut head)?;
            }
            let length: u64 = head.trim().trim_start_matches('$').parse().unwrap_or(0);
            let mut text = String::new();
            reader.take(length.min(1_048_576)).read_to_string(&mut text)?;
            Ok(text)
        };
        Ok(counted(&ask().map_err(Error::io("ask --redis for INFO commandstats"))?))
    }
}

/// Reads lines such as `cmdstat_get:calls=2,usec=9,...`.
fn counted(info: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    info.lines().filter_map(line).collect()
}

fn wrong(why: &str) -> Error {
    Error::Asked(format!("--redis: {why}; write redis://HOST:PORT"))
}

fn connect(url: &Url) -> Result<TcpStream, Error> {
    let host = url.host_str().ok_or_else(|| wrong("there is no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = (host, url.port().unwrap_or(6_379)).to_socket_addrs();
    let address = addresses.map_err(Error::io("find the host of --redis"))?.next();
    let address = address.ok_or_else(|| wrong("the host has no address"))?;
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5));
    let stream = stream.map_err(Error::io("connect to --redis"))?;
    let prepared =
        stream.set_nodelay(true).and_then(|()| stream.set_write_timeout(Some(Duration::from_secs(10))));
    prepared.map_err(Error::io("prepare the connection to --redis"))?;
    Ok(stream)
}

/// The command that logs in, where the address has a password.
fn login(url: &Url) -> Option<Vec<&str>> {
    let password = url.password()?;
    Some(match url.username() {
        "" => vec!["AUTH", password],
        user => vec!["AUTH", user, password],
    })
}

/// A connection that publishes.
pub(crate) struct Redis {
    stream: TcpStream,
    prefix: String,
    batch: Vec<u8>,
    asked: u64,
    seen: Arc<Seen>,
}

/// What the thread that reads has seen.
#[derive(Default)]
struct Seen {
    answers: AtomicU64,
    /// Publications that no node took.
    unheard: AtomicU64,
    refused: OnceLock<String>,
    ended: AtomicBool,
}

impl Redis {
    /// None if the options do not ask for it. Errors: it cannot be reached, or refuses the password.
    pub(crate) fn new(options: &Endpoint) -> Result<Option<Self>, Error> {
        let Some(url) = options.url()? else { return Ok(None) };
        let stream = connect(&url)?;
        let reader = stream.try_clone().map_err(Error::io("prepare the connection to --redis"))?;
        let seen = Arc::new(Seen::default());
        let theirs = Arc::clone(&seen);
        std::thread::Builder::new()
            .name("redis".into())
            .spawn(move || theirs.read(BufReader::new(reader)))
            .map_err(Error::io("start a thread"))?;
        let mut redis = Self { stream, prefix: options.prefix.clone(), batch: Vec::new(), asked: 0, seen };
        if let Some(words) = login(&url) {
            redis.ask(&words);
        }
        redis.ask(&["PING"]);
        redis.flush()?;
        redis.drain(Duration::from_secs(10))?;
        Ok(Some(redis))
    }

    fn ask(&mut self, words: &[&str]) {
        command(words, &mut self.batch);
        self.asked += 1;
    }

    /// Puts a publication into the batch.
    pub(crate) fn publish(&mut self, channel: &str, data: &str) {
        let name = format!("{}:{{{channel}}}", self.prefix);
        self.ask(&["PUBLISH", &name, data]);
    }

    /// Puts a publication into the batch that is kept: through the library of functions that nodes load.
    pub(crate) fn publish_kept(&mut self, channel: &str, data: &str) {
        let name = format!("{}:{{{channel}}}", self.prefix);
        self.ask(&["FCALL", "tg_publish", "1", &name, data]);
        // Its answer, an offset and an epoch, has four lines.
        self.asked += 3;
    }

    /// Writes the batch. Errors: the connection is gone, or something was refused.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        if let Some(why) = self.seen.refused.get() {
            return Err(Error::Refused(format!("Redis answered {why}")));
        }
        let written = self.stream.write_all(&self.batch);
        self.batch.clear();
        written.map_err(Error::io("write to Redis"))
    }

    /// Waits until everything is answered. Errors: it takes longer than `patience`, or something was refused.
    pub(crate) fn drain(&mut self, patience: Duration) -> Result<(), Error> {
        let began = Instant::now();
        while self.seen.answers.load(Ordering::Acquire) < self.asked {
            if self.seen.ended.load(Ordering::Acquire) {
                return Err(Error::Refused("Redis closed the connection".into()));
            }
            if began.elapsed() > patience {
                return Err(Error::Stalled { what: "Redis", seconds: patience.as_secs() });
            }
            clock::pass(Duration::from_micros(500));
        }
        self.flush()
    }

    /// Publications so far that no node took.
    pub(crate) fn unheard(&self) -> u64 {
        self.seen.unheard.load(Ordering::Relaxed)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Ends the thread that reads. It fails only if the connection is gone.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Seen {
    /// Answers are a line each: `:receivers` of PUBLISH, `+` of others, `-` with an error.
    fn read(&self, mut from: impl BufRead) {
        let mut line = String::new();
        loop {
            line.clear();
            match from.read_line(&mut line) {
                Ok(count) if count > 0 => {}
                _ => break,
            }
            match line.trim_end() {
                ":0" => {
                    self.unheard.fetch_add(1, Ordering::Relaxed);
                }
                text if text.starts_with('-') => {
                    let _ = self.refused.set(text.to_owned());
                }
                _ => {}
            }
            self.answers.fetch_add(1, Ordering::Release);
        }
        self.ended.store(true, Ordering::Release);
    }
}

/// A command as RESP2 wants it: an array of bulk strings.
fn command(words: &[&str], out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = write!(out, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n{word}\r\n", word.len());
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use std::io::Read;
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;

    /// A server that answers the first command with `+PONG`, then with what is given, and returns what it read until
    /// the client was gone.
    fn server(answers: &'static str) -> (Endpoint, JoinHandle<String>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut ping = [0; 14];
            stream.read_exact(&mut ping).unwrap();
            stream.write_all(b"+PONG\r\n").unwrap();
            let mut first = [0; 1];
            stream.read_exact(&mut first).unwrap();
            stream.write_all(answers.as_bytes()).unwrap();
            let mut rest = String::new();
            stream.read_to_string(&mut rest).unwrap();
            String::from_utf8_lossy(&[&ping[..], &first].concat()).into_owned() + &rest
        });
        (Endpoint { redis: Some(url), prefix: "tg".into() }, thread)
    }

    #[test]
    fn publications_are_commands_and_those_nobody_took_are_counted() {
        let (options, thread) = server(":1\r\n:0\r\n");
        let mut redis = Redis::new(&options).unwrap().unwrap();
        redis.publish("bench:7", "{\"a\":\"é\"}");
        redis.publish("b", "1");
        redis.flush().unwrap();
        redis.drain(Duration::from_secs(10)).unwrap();
        assert_eq!(redis.unheard(), 1);
        drop(redis);
        let expected = "*1\r\n$4\r\nPING\r\n*3\r\n$7\r\nPUBLISH\r\n$12\r\ntg:{bench:7}\r\n$10\r\n{\"a\":\"é\"}\r\n\
                        *3\r\n$7\r\nPUBLISH\r\n$6\r\ntg:{b}\r\n$1\r\n1\r\n";
        assert_eq!(thread.join().unwrap(), expected);
    }

    #[test]
    fn a_publication_that_is_kept_is_answered_in_four_lines() {
        let (options, thread) = server("*2\r\n:1\r\n$2\r\ne1\r\n");
        let mut redis = Redis::new(&options).unwrap().unwrap();
        redis.publish_kept("b", "1");
        redis.flush().unwrap();
        redis.drain(Duration::from_secs(10)).unwrap();
        drop(redis);
        assert!(
            thread
                .join()
                .unwrap()
                .ends_with("FCALL\r\n$10\r\ntg_publish\r\n$1\r\n1\r\n$6\r\ntg:{b}\r\n$1\r\n1\r\n")
        );
    }

    #[test]
    fn calls_are_read_off_what_redis_says_of_its_commands() {
        let info = "# Commandstats\r\ncmdstat_xrange:calls=3,usec=5,usec_per_call=1.67\r\ncmdstat_config|get:calls=1,usec=2\r\n";
        let expected = [("xrange".to_owned(), 3), ("config|get".to_owned(), 1)];
        assert_eq!(counted(info), expected.into());
    }

    #[test]
    fn a_refusal_is_told() {
        let (options, thread) = server("-NOPERM no\r\n");
        let mut redis = Redis::new(&options).unwrap().unwrap();
        redis.publish("b", "1");
        let result = redis.flush().and_then(|()| redis.drain(Duration::from_secs(10)));
        let text = result.unwrap_err().to_string();
        assert!(text.contains("NOPERM"), "{text}");
        drop(redis);
        thread.join().unwrap();
    }

    #[test]
    fn an_address_that_is_none_is_explained() {
        for url in ["127.0.0.1:6379", "http://127.0.0.1"] {
            let options = Endpoint { redis: Some(url.into()), prefix: "tg".into() };
            let text = Redis::new(&options).err().unwrap().to_string();
            assert!(text.contains("write redis://HOST:PORT"), "{text}");
        }
    }
}
