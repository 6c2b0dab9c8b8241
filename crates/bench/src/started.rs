//! Servers that are started here to be measured: a gateway, the baseline. Each on ports that the system chose, and
//! ended with its owner.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::Error;
use crate::fleet::itself;
use crate::target::Aim;

/// A server that was started here. Dropping it ends it.
pub(crate) struct Started {
    process: Child,
    address: SocketAddr,
}

impl Started {
    /// Starts it and waits until it listens.
    pub(crate) fn new(what: &str, mut command: Command, address: SocketAddr) -> Result<Self, Error> {
        let failed = |why: String| Error::Start { what: what.to_owned(), why };
        let process = command.stdout(Stdio::null()).spawn().map_err(|error| failed(error.to_string()))?;
        let mut started = Self { process, address };
        let began = Instant::now();
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            if let Ok(Some(status)) = started.process.try_wait() {
                return Err(failed(format!("it ended with {status}")));
            }
            if began.elapsed() > Duration::from_secs(20) {
                return Err(failed(format!("nobody listens on {address} after 20 s")));
            }
            clock::pass(Duration::from_millis(50));
        }
        Ok(started)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients connect, with `ws` or `wss` as scheme.
    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/connection/websocket", self.address)
    }

    /// To aim at it in plain.
    pub(crate) fn aim(&self) -> Aim {
        Aim::at(self.url("ws"), self.pid())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Either may fail only if it has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An address on loopback that nobody listens on.
pub(crate) fn free() -> Result<SocketAddr, Error> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(Error::io("find a free port"))?;
    listener.local_addr().map_err(Error::io("find a free port"))
}

/// The gateway's program: the one that is named, or `tidegate` beside this program.
pub(crate) fn gateway_program(named: Option<&Path>) -> Result<PathBuf, Error> {
    let program = match named {
        Some(path) => path.to_owned(),
        None => std::fs::read_link("/proc/self/exe")
            .map_err(Error::io("find this program"))?
            .with_file_name("tidegate"),
    };
    if !program.is_file() {
        let why = "there is no such file; cargo build --release -p tidegate-gateway makes it".into();
        return Err(Error::Start { what: format!("{} (--gateway)", program.display()), why });
    }
    Ok(program)
}

/// The channels that are measured keep nothing and know nobody, as the baseline's: in dev mode they would by default.
const NAMESPACES: &str = r#"namespaces=[
    {"name": "default", "subscribe": "anyone", "publish": "anyone"},
    {"name": "bench", "subscribe": "anyone", "publish": "anyone"}
]"#;

/// A gateway in dev mode (everyone may do everything), its channels without history and presence, with these settings
/// beside, each `key.path=value`.
pub(crate) fn gateway(program: &Path, settings: &[String]) -> Result<Started, Error> {
    let (public, internal) = (free()?, free()?);
    let mut command = Command::new(program);
    let own = [
        format!("listen.public={public}"),
        format!("listen.internal={internal}"),
        "log.level=error".into(),
        NAMESPACES.into(),
    ];
    for set in own.iter().chain(settings) {
        command.arg("--set").arg(set);
    }
    command.arg("--dev");
    Started::new("the gateway (--gateway)", command, public)
}

/// The baseline, with these arguments beside.
pub(crate) fn baseline(arguments: &[String]) -> Result<Started, Error> {
    let address = free()?;
    let mut command = itself();
    command.args(["baseline", "--listen"]).arg(address.to_string()).args(arguments);
    Started::new("the baseline", command, address)
}
