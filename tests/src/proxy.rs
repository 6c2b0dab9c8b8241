//! A TCP proxy between a client and a node, or a node and its Redis: it moves, cuts, refuses, goes silent and withholds
//! messages on demand.

mod replies;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use replies::Replies;

/// A listening proxy. Its connections are cut when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    over: AtomicBool,
}

#[derive(Debug)]
struct State {
    target: SocketAddr,
    silent: bool,
    refusing: bool,
    /// How many connections there have been.
    accepted: u64,
    /// Of these, so many hear no messages of Redis any more.
    deaf: u64,
    open: Vec<TcpStream>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the connection of this number is told what Redis publishes.
    fn hears(&self, number: u64) -> bool {
        self.lock().deaf <= number
    }

    /// Waits while the proxy is silent.
    fn pass(&self) {
        let mut state = self.lock();
        while state.silent && !self.over.load(Ordering::Relaxed) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Proxy {
    /// Starts a proxy to `target`.
    ///
    /// # Panics
    /// When there is no free port.
    pub fn to(target: SocketAddr) -> Self {
        Self::start(target, false)
    }

    /// Starts a proxy to the Redis at `target`, without TLS, which can be told to [`deafen`](Self::deafen).
    ///
    /// # Panics
    /// When there is no free port.
    pub fn to_redis(target: SocketAddr) -> Self {
        Self::start(target, true)
    }

    fn start(target: SocketAddr, redis: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let state = State { target, silent: false, refusing: false, accepted: 0, deaf: 0, open: Vec::new() };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            over: AtomicBool::new(false),
        });
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if server.over.load(Ordering::Relaxed) {
                    break;
                }
                join(&server, client, redis);
            }
        });
        Self { address, shared }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections go to `target`.
    pub fn point_at(&self, target: SocketAddr) {
        self.shared.lock().target = target;
    }

    /// Closes every connection, on both sides.
    pub fn cut(&self) {
        for socket in self.shared.lock().open.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Closes every connection and every newcomer, until it admits again.
    pub fn refuse(&self) {
        self.shared.lock().refusing = true;
        self.cut();
    }

    /// Lets newcomers in again.
    pub fn admit(&self) {
        self.shared.lock().refusing = false;
    }

    /// Withholds what Redis publishes from all who are connected now, for good: they are answered as before, and told
    /// nothing more, like subscribers of a master that is none any more. Who connects later hears everything.
    pub fn deafen(&self) {
        let mut state = self.shared.lock();
        state.deaf = state.accepted;
    }

    /// Passes nothing on, in neither direction, and closes nothing: a cable pulled.
    pub fn silence(&self) {
        self.shared.lock().silent = true;
    }

    /// Passes on again.
    pub fn speak(&self) {
        self.shared.lock().silent = false;
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn join(shared: &Arc<Shared>, client: TcpStream, redis: bool) {
    let (target, number) = {
        let mut state = shared.lock();
        if state.refusing {
            return;
        }
        state.accepted += 1;
        (state.target, state.accepted - 1)
    };
    let Ok(node) = TcpStream::connect_timeout(&target, Duration::from_secs(5)) else {
        let _ = client.shutdown(Shutdown::Both);
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = node.set_nodelay(true);
    let (Ok(client_too), Ok(node_too)) = (client.try_clone(), node.try_clone()) else { return };
    let (Ok(client_kept), Ok(node_kept)) = (client.try_clone(), node.try_clone()) else { return };
    {
        let mut state = shared.lock();
        if state.refusing {
            return;
        }
        // What has ended is forgotten, so that a proxy of many connections does not hold them all.
        state.open.retain(|socket| socket.peer_addr().is_ok());
        state.open.extend([client_kept, node_kept]);
    }
    let up = Arc::clone(shared);
    std::thread::spawn(move || carry(&up, client, node_too, None));
    let down = Arc::clone(shared);
    std::thread::spawn(move || carry(&down, node, client_too, redis.then(|| (Replies::default(), number))));
}

/// Moves bytes one way; with `replies`, those of Redis, which a connection of that number may not hear all of.
fn carry(shared: &Shared, mut from: TcpStream, mut to: TcpStream, mut replies: Option<(Replies, u64)>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(n) => {
                shared.pass();
                let written = match &mut replies {
                    None => to.write_all(&buffer[..n]),
                    Some((replies, number)) => {
                        let hears = shared.hears(*number);
                        to.write_all(&replies.sift(&buffer[..n], hears))
                    }
                };
                if written.is_err() {
                    break;
                }
            }
        }
    }
    shared.pass();
    let _ = to.shutdown(Shutdown::Write);
}
