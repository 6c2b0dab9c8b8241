//! A node that can be killed: the test itself once more, as another process.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::RedisServer;

/// A node in a process of its own, which can be killed. The test file has the test `a_node_to_be_killed`, which is it.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts one with clients `k0` and so on, all of one user, in each of the channels.
    pub fn start(server: &RedisServer, channels: &[&str], clients: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "a_node_to_be_killed", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("this test again");
        let orders = format!("{} {clients} {}\n", server.url(), channels.join(" "));
        child.stdin.as_mut().expect("piped").write_all(orders.as_bytes()).expect("it listens");
        Self(child)
    }

    /// Stands still, or goes on.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("a signal");
    }

    pub fn kill(&mut self) {
        self.0.kill().expect("SIGKILL");
        self.0.wait().expect("its end");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
