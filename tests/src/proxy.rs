//! A TCP proxy between a client and a node: it moves, cuts and goes silent on demand.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    open: Vec<TcpStream>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let state = State { target, silent: false, open: Vec::new() };
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
                join(&server, client);
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

fn join(shared: &Arc<Shared>, client: TcpStream) {
    let target = shared.lock().target;
    let Ok(node) = TcpStream::connect_timeout(&target, Duration::from_secs(5)) else {
        let _ = client.shutdown(Shutdown::Both);
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = node.set_nodelay(true);
    let (Ok(client_too), Ok(node_too)) = (client.try_clone(), node.try_clone()) else { return };
    let (Ok(client_kept), Ok(node_kept)) = (client.try_clone(), node.try_clone()) else { return };
    shared.lock().open.extend([client_kept, node_kept]);
    for (from, to) in [(client, node_too), (node, client_too)] {
        let shared = Arc::clone(shared);
        std::thread::spawn(move || carry(&shared, from, to));
    }
}

fn carry(shared: &Shared, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(n) => {
                shared.pass();
                if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
        }
    }
    shared.pass();
    let _ = to.shutdown(Shutdown::Write);
}
