//! The server that the tool brings along.

#![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The server that the tool brings along. Ended when dropped.
pub(crate) struct Baseline {
    pub(crate) process: Child,
    pub(crate) url: String,
}

impl Baseline {
    pub(crate) fn start() -> Self {
        let address = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-bench"));
        command.args(["baseline", "--workers", "1", "--listen", &address.to_string()]);
        let process = command.stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "the baseline does not listen on {address}");
            std::thread::yield_now();
        }
        Self { process, url: format!("ws://{address}/connection/websocket") }
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
