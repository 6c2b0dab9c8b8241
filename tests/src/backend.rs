//! A backend that a node asks over HTTP: answers what a test says, or misbehaves as it says.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::deadline::{PATIENCE, eventually};

/// The largest question.
const MAX_BODY: usize = 16 << 20;

/// A question of a node.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Where it was sent to: `/rpc`.
    pub path: String,
    /// The header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, as it came.
    pub raw: String,
    /// The same as JSON.
    pub body: Value,
}

impl Asked {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What a backend does with a question.
#[derive(Debug, Clone)]
pub enum Act {
    /// Answers 200 with this JSON.
    Answer(Value),
    /// Answers with this status, these header lines (each with its `\r\n`) and this body.
    Raw(u16, String, String),
    /// Closes the connection.
    Close,
    /// Answers with this JSON once [`Backend::release`] was called.
    Held(Value),
}

impl Act {
    /// Agrees, with these fields.
    pub fn grant(result: Value) -> Self {
        Self::Answer(json!({ "result": result }))
    }
}

type Behaviour = Box<dyn Fn(&Asked) -> Act + Send + Sync>;

/// A running backend. Ends with the test's process.
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    behaviour: Mutex<Arc<Behaviour>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    /// Questions that are not answered yet, and the most there were at once.
    open: usize,
    most: usize,
    released: bool,
}

impl Backend {
    /// Starts a backend on a free port.
    ///
    /// # Panics
    /// When there is none.
    pub fn start(behaviour: impl Fn(&Asked) -> Act + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), behaviour)
    }

    /// The same at an address, where there was one before.
    ///
    /// # Panics
    /// When it cannot be listened on.
    pub fn start_at(address: SocketAddr, behaviour: impl Fn(&Asked) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).expect("an address to listen on");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(Arc::new(Box::new(behaviour))),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let server = Arc::clone(&server);
                std::thread::spawn(move || server.serve(socket));
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The settings of an endpoint at this path, as JSON; `more` is added.
    pub fn endpoint(&self, name: &str, more: &Value) -> Value {
        let mut endpoint = json!({"name": name, "url": format!("http://{}/{name}", self.address)});
        for (key, value) in more.as_object().into_iter().flatten() {
            endpoint[key] = value.clone();
        }
        endpoint
    }

    /// From now on it does this.
    pub fn now(&self, behaviour: impl Fn(&Asked) -> Act + Send + Sync + 'static) {
        *self.shared.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(Box::new(behaviour));
    }

    /// Lets every held answer go, also those to come.
    pub fn release(&self) {
        self.shared.lock().released = true;
        self.shared.changed.notify_all();
    }

    /// What it was asked, in the order of coming.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.lock().asked.clone()
    }

    /// The most questions that were not answered at once.
    pub fn most_at_once(&self) -> usize {
        self.shared.lock().most
    }

    /// Waits until it was asked so often; what it was asked.
    pub fn asked_times(&self, times: usize) -> Vec<Asked> {
        let what = format!("the backend is asked {times} times");
        eventually(&what, PATIENCE, || Some(self.asked()).filter(|asked| asked.len() >= times))
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One connection, until it ends.
    fn serve(&self, socket: TcpStream) {
        let Ok(mut writer) = socket.try_clone() else { return };
        let mut reader = BufReader::new(socket);
        while let Some(asked) = read(&mut reader) {
            let behaviour = Arc::clone(&self.behaviour.lock().unwrap_or_else(PoisonError::into_inner));
            {
                let mut state = self.lock();
                state.asked.push(asked.clone());
                state.open += 1;
                state.most = state.most.max(state.open);
            }
            let act = behaviour(&asked);
            if matches!(act, Act::Held(_)) {
                let mut state = self.lock();
                while !state.released {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
            self.lock().open -= 1;
            let (status, head, body) = match act {
                Act::Answer(body) | Act::Held(body) => {
                    (200, "content-type: application/json\r\n".to_owned(), body.to_string())
                }
                Act::Raw(status, head, body) => (status, head, body),
                Act::Close => return,
            };
            let answer =
                format!("HTTP/1.1 {status} Status\r\n{head}content-length: {}\r\n\r\n{body}", body.len());
            if writer.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// Reads a request; `None` at the end of the connection.
fn read(reader: &mut impl BufRead) -> Option<Asked> {
    let line = |reader: &mut dyn BufRead| {
        let mut line = String::new();
        let read = reader.read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    };
    let request = line(reader)?;
    let path = request.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let text = line(reader)?;
        let Some((name, value)) = text.split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or("0", |(_, value)| value);
    let length = length.parse::<usize>().ok().filter(|length| *length <= MAX_BODY)?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let raw = String::from_utf8_lossy(&body).into_owned();
    let body = serde_json::from_str(&raw).unwrap_or_default();
    Some(Asked { path, headers, raw, body })
}
