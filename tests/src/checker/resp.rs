//! A connection to Redis that publishes, as a backend in any language does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than Redis takes when it can.
const PATIENCE: Duration = Duration::from_secs(3);

/// What Redis answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// A string, of whatever kind.
    Text(String),
    /// A number.
    Number(i64),
    /// Nothing.
    Nil,
    /// Several.
    List(Vec<Answer>),
    /// It refused.
    Error(String),
}

/// A connection. After an error it is of no use.
#[derive(Debug)]
pub(super) struct Resp {
    stream: BufReader<TcpStream>,
}

impl Resp {
    /// Connects.
    pub(super) fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a command and waits for its answer.
    pub(super) fn call(&mut self, words: &[&str]) -> io::Result<Answer> {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.get_mut().write_all(command.as_bytes())?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (kind, rest) = line.trim_end().split_at_checked(1).ok_or(io::ErrorKind::InvalidData)?;
        let number = || rest.parse::<i64>().map_err(io::Error::other);
        match kind {
            "+" => Ok(Answer::Text(rest.to_owned())),
            "-" => Ok(Answer::Error(rest.to_owned())),
            ":" => number().map(Answer::Number),
            "$" => {
                let Ok(size) = usize::try_from(number()?) else { return Ok(Answer::Nil) };
                let mut text = vec![0; size + 2];
                self.stream.read_exact(&mut text)?;
                text.truncate(size);
                Ok(Answer::Text(String::from_utf8_lossy(&text).into_owned()))
            }
            "*" => (0..number()?).map(|_| self.answer()).collect::<io::Result<_>>().map(Answer::List),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
