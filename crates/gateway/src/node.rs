//! One node, from settings to exit: builds the parts, joins them, serves until a signal, drains.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_web::{App, HttpServer, web};
use tidegate_hub::{Backends, Policy, Tick};
use tidegate_relay::{Relay, RelayError, RelaySettings};

use crate::api::{self, ApiState};
use crate::edge::{self, Admission, Common, Gate, Public};
use crate::join::{Switchboard, WorkerStats};
use crate::metrics::{Metrics, gauge_value};
use crate::ops::drain::{self, Drain};
use crate::ops::{memory, welcome};
use crate::proxy::Proxy;
use crate::settings::Settings;

/// How often gauges that the workers keep are brought up to date.
const GAUGES: Duration = Duration::from_millis(250);

/// How long the workers may take to start.
const START: Duration = Duration::from_secs(10);

/// How long relay and servers may take to end.
const STOP: Duration = Duration::from_secs(8);

/// The internal port is for machines: one thread serves it.
const INTERNAL_WORKERS: usize = 1;

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    /// An address cannot be listened on.
    #[error("{key}: failed to listen on {address}: {source}; is another process using the port?")]
    Listen { key: &'static str, address: SocketAddr, source: io::Error },
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] edge::TlsError),
    /// A backend cannot be asked.
    #[error("proxy.endpoints: {0}")]
    Proxy(String),
    /// The relay's settings cannot work.
    #[error("relay: {0}")]
    Relay(#[from] RelayError),
    /// The metrics contradict themselves.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A port's server ended by itself.
    #[error("{key}: the server has ended{}; the node cannot serve", .source.as_ref().map(|e| format!(": {e}")).unwrap_or_default())]
    Ended { key: &'static str, source: Option<io::Error> },
    /// Some workers did not start.
    #[error("{running} of {workers} workers started; is the limit of open files (ulimit -n) too low?")]
    Workers { running: usize, workers: usize },
    /// The system refused a thread, a socket or a signal handler.
    #[error("failed to start: {0}")]
    Io(#[from] io::Error),
}

/// Serves until a signal has come and everyone has been sent away.
pub(crate) async fn run(settings: Settings) -> Result<(), NodeError> {
    let started = Instant::now();
    let signals = drain::Signals::new()?;
    let settings = Arc::new(settings);
    let metrics = Arc::new(Metrics::new()?);
    let limits = &settings.limits;
    metrics.connections_limit.set(gauge_value(limits.max_connections));
    let admission =
        Arc::new(Admission::new(limits.max_connections, limits.max_connections_per_ip, Arc::clone(&metrics)));

    let proxy = Arc::new(Proxy::new(&settings.proxy, &metrics).map_err(NodeError::Proxy)?);
    let tls = settings.tls.as_ref().map(edge::load_tls).transpose()?;
    let public = listen("listen.public", settings.listen.public)?;
    let internal = listen("listen.internal", settings.listen.internal)?;
    let (public_address, internal_address) = (public.local_addr()?, internal.local_addr()?);

    let (switchboard, inboxes) = Switchboard::new(settings.workers, Arc::clone(&metrics));
    let (stats, late, switchboard) = (switchboard.stats(), switchboard.late(), Arc::new(switchboard));
    let id = uuid::Uuid::new_v4().to_string();
    let relay = Relay::start(
        settings.relay.clone(),
        Arc::new(settings.relay_rules()),
        &id,
        &settings.node.name,
        env!("CARGO_PKG_VERSION"),
        Arc::clone(&switchboard),
    )?;

    let ready = Arc::new(AtomicBool::new(false));
    let running = Arc::new(AtomicUsize::new(0));
    let api = web::Data::new(ApiState {
        relay: relay.clone(),
        settings: Arc::clone(&settings),
        metrics: Arc::clone(&metrics),
        started,
        ready: Arc::clone(&ready),
    });
    api::warn_if_open(&settings);
    let internal = HttpServer::new(move || App::new().app_data(api.clone()).configure(api::routes))
        .workers(INTERNAL_WORKERS)
        .disable_signals()
        .listen(internal)?
        .run();
    let public = edge::serve(
        public,
        Public {
            gate: web::Data::new(Gate {
                admission: Arc::clone(&admission),
                settings: Arc::clone(&settings),
                metrics: Arc::clone(&metrics),
                proxy: Arc::clone(&proxy),
            }),
            common: Arc::new(Common {
                settings: Arc::clone(&settings),
                metrics: Arc::clone(&metrics),
                relay: relay.clone(),
                stats: Arc::clone(&stats),
                late,
                proxy,
            }),
            policy: Arc::new(policy(&settings)),
            tls,
            inboxes,
            running: Arc::clone(&running),
        },
    )?;
    let handles = [public.handle(), internal.handle()];
    let (mut public, mut internal) = (pin!(public), pin!(internal));
    actix_rt::spawn(gauges(Arc::clone(&metrics), stats, relay.clone()));
    actix_rt::spawn(memory::watch(Arc::clone(&metrics), Arc::clone(&admission)));

    let up = async {
        wait_for(&running, settings.workers).await?;
        ready.store(true, Ordering::Release);
        announce(&settings, &id, public_address, internal_address);
        if settings.dev {
            welcome::print(&settings, public_address, internal_address);
        }
        let (settings, ready) = (Arc::clone(&settings), Arc::clone(&ready));
        drain::run(Drain { signals, settings, metrics, admission, ready, switchboard }).await;
        Ok::<_, NodeError>(())
    };
    // A node whose port has died must not look alive.
    tokio::select! {
        up = up => up?,
        ended = &mut public => return Err(NodeError::Ended { key: "listen.public", source: ended.err() }),
        ended = &mut internal => return Err(NodeError::Ended { key: "listen.internal", source: ended.err() }),
    }
    let stop = async {
        relay.stop().await;
        for handle in handles {
            handle.stop(false).await;
        }
    };
    tokio::select! {
        () = stop => {}
        () = async { let _ = tokio::join!(public, internal); std::future::pending().await } => {}
        () = tokio::time::sleep(STOP) => tracing::warn!("some threads did not end in time"),
    }
    tracing::info!("stopped");
    Ok(())
}

/// Waits until all workers serve.
async fn wait_for(running: &AtomicUsize, workers: usize) -> Result<(), NodeError> {
    let deadline = Instant::now() + START;
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    while running.load(Ordering::Acquire) < workers {
        if Instant::now() > deadline {
            return Err(NodeError::Workers { running: running.load(Ordering::Acquire), workers });
        }
        looks.tick().await;
    }
    Ok(())
}

fn listen(key: &'static str, address: SocketAddr) -> Result<std::net::TcpListener, NodeError> {
    edge::bind(address).map_err(|source| NodeError::Listen { key, address, source })
}

/// The one line at start with what matters.
fn announce(settings: &Settings, id: &str, public: SocketAddr, internal: SocketAddr) {
    let relay = match &settings.relay {
        RelaySettings::Memory(_) => "memory",
        RelaySettings::Redis(_) => "redis",
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = settings.node.name,
        id,
        %public,
        %internal,
        tls = settings.tls.is_some(),
        relay,
        workers = settings.workers,
        max_connections = settings.limits.max_connections,
        max_connections_by = settings.limits.max_connections_by.label(),
        accept_rate = settings.limits.accept_rate,
        dev = settings.dev,
        "listening"
    );
}

/// The rules of the workers' shards.
fn policy(settings: &Settings) -> Policy {
    Policy {
        namespaces: settings.namespaces.iter().map(|(name, it)| (name.clone(), it.clients)).collect(),
        any_namespace: settings.any_namespace.map(|it| it.clients),
        backends: Backends { connect: settings.proxy.connect.is_some(), rpc: !settings.proxy.rpc.is_empty() },
        max_subscriptions: settings.limits.max_subscriptions,
        outbox_max_bytes: settings.outbox.max_bytes,
        connect_timeout: Tick::count(settings.limits.connect_timeout),
        ping_interval: Tick::count(settings.heartbeat.interval),
        pong_timeout: Tick::count(settings.heartbeat.timeout),
        ping_seconds: u32::try_from(settings.heartbeat.interval.as_secs()).unwrap_or(u32::MAX),
        events: settings.events,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Adds up what the workers say of themselves.
async fn gauges(metrics: Arc<Metrics>, stats: Arc<[WorkerStats]>, relay: Relay) {
    let mut ticks = tokio::time::interval(GAUGES);
    loop {
        ticks.tick().await;
        let sum = |count: fn(&WorkerStats) -> u64| -> i64 {
            let sum = stats.iter().map(count).sum::<u64>();
            i64::try_from(sum).unwrap_or(i64::MAX)
        };
        metrics.subscriptions.set(sum(|worker| worker.subscriptions.load(Ordering::Relaxed)));
        metrics.channels.set(gauge_value(relay.channel_count()));
        metrics.outbox_bytes.set(sum(|worker| worker.outbox_bytes.load(Ordering::Relaxed)));
    }
}
